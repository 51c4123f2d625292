"""TFRecord shards with an index: a data set in a few large files, whose pictures are read in any order.

A folder of shards holds `train-00000-of-00008.tfrecord`, ... (tf.train.Example with "image", "id" and "label.HEAD"),
`index.csv` (where each picture lies and what is known of it) and `dataset.json`, written last.
"""

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import tensorflow as tf

from pipelines.competition import Competition
from pipelines.table import read_table
from pipelines.whole_file import whole_file

LABEL = "label."  # before the name of a head, in index.csv and in the records
HEADER_BYTES = 12  # of a TFRecord: the length and its checksum
FRAME_BYTES = 16  # header, and the checksum of the content after it
PLACE = ["start", "length", "checksum"]  # of a picture in its shard: columns of index.csv


@dataclass(frozen=True)
class Row:
    """What a record holds beside the picture."""

    id: str
    labels: Mapping[str, str]


class ShardWriter:
    """A TFRecord file being written, which says where in it each picture lies."""

    def __init__(self, path: os.PathLike[str] | str) -> None:
        self._writer = tf.io.TFRecordWriter(os.fspath(path))
        self._position = 0

    def add(self, data: bytes, row: Row) -> tuple[int, int, int]:
        """Write a record; returns where its encoded picture begins, its length and its CRC-32."""
        record = make_record(data, row)
        self._writer.write(record)
        start = self._position + HEADER_BYTES + record.index(data)
        self._position += FRAME_BYTES + len(record)
        return start, len(data), zlib.crc32(data)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()


def make_record(data: bytes, row: Row) -> bytes:
    """A tf.train.Example with the encoded picture, its id and its labels, serialised."""

    def feature(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    features = {"image": feature(data), "id": feature(row.id.encode("utf-8", "surrogateescape"))}
    features |= {LABEL + head: feature(name.encode()) for head, name in row.labels.items() if name}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_index(folder: Path, index: pd.DataFrame, description: dict[str, Any], answers: pd.DataFrame | None) -> None:
    """index.csv, answers.csv and, last, dataset.json, which says that the folder is complete."""
    for name, table in (("index.csv", index), ("answers.csv", answers)):
        if table is not None:
            with whole_file(folder / name) as unfinished:
                table.to_csv(unfinished, index=False, encoding="utf-8", lineterminator="\n")
    with whole_file(folder / "dataset.json") as unfinished:
        unfinished.write_text(json.dumps(description, indent=1, ensure_ascii=False), encoding="utf-8")


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a complete set of shards."""
    return (folder / "dataset.json").is_file() and (folder / "index.csv").is_file()


def is_begun(folder: Path) -> bool:
    """Whether writing shards into a folder was begun and not finished."""
    return (folder / "unfinished.json").is_file()


def read_records(
    folder: Path,
    name: str,
    targets: Sequence[str] | None = None,
    group: str | None = None,
    shards: Path | None = None,
) -> Competition:
    """The data set whose index lies in `folder`, and its shards in `shards` (None: beside the index).

    Raises:
        ValueError: It is not finished, or a column is named that it lacks.
    """
    shards = shards or folder
    described = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    index = read_table(folder / "index.csv")
    known = [column.removeprefix(LABEL) for column in index.columns if column.startswith(LABEL)]
    for target in targets or ():
        if target not in known:
            raise ValueError(f"{folder} has no labels {target!r}. Labels: {', '.join(known)}.")
    if group not in (None, "none", described["group_column"]):
        raise ValueError(f"{folder} was written with the group {described['group_column']!r}, not {group!r}.")
    missing = sorted({shard for shard in index["shard"] if shard and not (shards / shard).is_file()})
    if missing:
        raise FileNotFoundError(f"{shards} lacks {len(missing)} of its shards, such as {missing[0]}.")
    index["path"] = [shards / shard if shard else None for shard in index["shard"]]
    for column in PLACE:
        index[column] = pd.to_numeric(index[column]).fillna(-1).astype("int64")
    places = ["id", "path", *PLACE]
    is_test = (index["part"] == "test").to_numpy()
    labelled, hidden = index[~is_test].reset_index(drop=True), index[is_test].reset_index(drop=True)
    answers = folder / "answers.csv"
    return Competition(
        name=name,
        train=labelled[[*places, "group", "part"]],
        labels=labelled[[LABEL + head for head in targets or known]].rename(
            columns=lambda column: column.removeprefix(LABEL)
        ),
        test=hidden[places] if len(hidden) or described["has_test"] else None,
        id_column=described["id_column"],
        group_column=None if group == "none" else described["group_column"],
        columns=described["columns"],
        left_out=described["left_out"],
        answers=(lambda: read_table(answers).set_index(described["id_column"])) if answers.is_file() else None,
        verified=True,
    )
