"""TensorFlow Datasets as a source: `tfds:NAME`, kept in the cache as shards with an index."""

import difflib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import tensorflow as tf

from pipelines.record_writer import is_picture
from pipelines.records import LABEL, PLACE, Row, ShardWriter, write_index

PARTS = {"train": "train", "validation": "val", "val": "val", "test": "test"}  # their split: our part


def copy_tfds(builder: Any, folder: Path) -> None:
    """Write a prepared `tfds.core.DatasetBuilder` as shards: encoded pictures as they are, hidden labels as answers.

    Raises:
        ValueError: It has no single picture, or no class label.
    """
    image, heads = _features(builder)
    splits = [split for split in builder.info.splits if split in PARTS]
    if "train" not in splits:
        raise ValueError(
            f"{builder.info.full_name} has no split named train. Splits: {', '.join(builder.info.splits)}."
        )
    index, unread = [], 0
    for split in splits:
        with ShardWriter(folder / f"{PARTS[split]}-{split}.tfrecord") as shard:
            for number, (data, labels) in enumerate(_examples(builder, split, image, heads)):
                if not is_picture(data):
                    unread += 1
                    continue
                row = Row(f"{split}/{number:06d}", labels)
                place = shard.add(data, Row(row.id, {}) if PARTS[split] == "test" else row)
                index.append((PARTS[split], row.id, f"{PARTS[split]}-{split}.tfrecord", *place, *labels.values()))
    table = pd.DataFrame(index, columns=["part", "id", "shard", *PLACE, *(LABEL + head for head in heads)])
    table.insert(2, "group", "")
    hidden = table["part"] == "test"
    id_column = "id" if "id" not in heads else "example"
    answers = table.loc[hidden, ["id", *(LABEL + head for head in heads)]]
    answers.columns = [id_column, *heads]
    table.loc[hidden, [LABEL + head for head in heads]] = ""
    description = {
        "id_column": id_column,
        "group_column": None,
        "has_test": bool(hidden.any()),
        "columns": [f"{head}: target, {len(feature.names)} classes" for head, feature in heads.items()],
        "left_out": [f"{unread:,} picture{'' if unread == 1 else 's'} that cannot be decoded"] if unread else [],
    }
    write_index(folder, table, description, answers if (answers[[*heads]] != "").to_numpy().any() else None)


def prepared_builder(name: str) -> Any:
    """The builder of `tfds:NAME`, downloaded if that is possible.

    Raises:
        ValueError: There is no such data set, or it is not on this disk and cannot be downloaded.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import downloader

    try:
        builder = tfds.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR"))  # which it reads but once itself
    except tfds.core.registered.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        near = difflib.get_close_matches(re.split("[/:]", name)[0], known, n=3)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise ValueError(f"TensorFlow Datasets has no {name!r}.{hint}") from error
    except Exception as error:  # of any kind: a name that is none, a version or a configuration that there is not
        raise ValueError(f"tfds:{name} cannot be opened: {_first_line(error)}") from error
    downloader.MAX_RETRIES = 4  # ten take more than three minutes to find that there is no network
    try:
        builder.download_and_prepare()
    except ImportError as error:
        raise ValueError(f"tfds:{name} cannot be prepared without another package: {_first_line(error)}.") from error
    except Exception as error:
        raise ValueError(
            f"tfds:{name} is not in {builder.data_dir}, and it could not be downloaded ({_first_line(error)}). Is "
            "there a network? Set TFDS_DATA_DIR to a folder that holds it already."
        ) from error
    return builder


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]


def _features(builder: Any) -> tuple[str, dict[str, Any]]:
    """The name of the picture, and the class labels by name."""
    import tensorflow_datasets as tfds

    features = dict(sorted(builder.info.features.items()))  # read from files, they come in any order
    images = [name for name, feature in features.items() if isinstance(feature, tfds.features.Image)]
    if len(images) > 1 and "image" in images:
        images = ["image"]  # the others are masks and the like
    heads = {name: feature for name, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)}
    if len(images) != 1 or not heads:
        raise ValueError(
            f"{builder.info.full_name} must have one picture and at least one class label an example. "
            f"Received: {json.dumps({name: type(feature).__name__ for name, feature in features.items()})}."
        )
    return images[0], heads


def _examples(builder: Any, split: str, image: str, heads: dict[str, Any]) -> Iterator[tuple[bytes, dict[str, str]]]:
    """Encoded pictures and class names; a missing label (-1) is an empty name."""
    import tensorflow_datasets as tfds

    skip = tfds.decode.SkipDecoding()
    for example in builder.as_dataset(split=split, decoders={image: skip}, shuffle_files=False):
        data = example[image]
        # Some builders, and the mock data, give pixels although bytes were asked for.
        encoded = data.numpy() if data.dtype == tf.string else tf.io.encode_png(tf.cast(data, tf.uint8)).numpy()
        numbers = {head: int(example[head]) for head in heads}
        yield encoded, {head: heads[head].names[n] if n >= 0 else "" for head, n in numbers.items()}
