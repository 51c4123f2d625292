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

FORMAT = 1  # of the index; another one cannot be read
LABEL = "label."  # before the name of a head, in index.csv and in the records
HEADER_BYTES = 12  # of a TFRecord: the length and its checksum
FRAME_BYTES = 16  # header, and the checksum of the content after it
PLACE = ["start", "length", "checksum"]  # of a picture in its shard: columns of index.csv
COLUMNS = ["part", "id", "group", "shard", *PLACE]  # of index.csv, besides the labels
DESCRIPTION = {"format", "id_column", "group_column", "has_test", "columns", "left_out"}  # what dataset.json says


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
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)  # else each process has an order of features of its own


def write_index(folder: Path, index: pd.DataFrame, description: dict[str, Any], answers: pd.DataFrame | None) -> None:
    """index.csv, answers.csv and, last, dataset.json, which says that the folder is complete."""
    for name, table in (("index.csv", index), ("answers.csv", answers)):
        if table is not None:
            with whole_file(folder / name) as unfinished:
                table.to_csv(unfinished, index=False, encoding="utf-8", lineterminator="\n")
    with whole_file(folder / "dataset.json") as unfinished:
        description = {"format": FORMAT, **description}
        unfinished.write_text(json.dumps(description, indent=1, ensure_ascii=False), encoding="utf-8")


def has_index(folder: Path) -> bool:
    """Whether a folder holds shards with an index, or what is left of them."""
    index, described = folder / "index.csv", folder / "dataset.json"
    if index.is_file() and described.is_file():
        return True
    if index.is_file():
        with index.open("rb") as file:
            return set(COLUMNS) <= set(file.readline().decode("utf-8", "replace").strip().split(","))
    return described.is_file() and all(f'"{word}"'.encode() in described.read_bytes() for word in DESCRIPTION)


def is_begun(folder: Path) -> bool:
    """Whether writing shards into a folder was begun and not finished."""
    return (folder / "unfinished.json").is_file()


def read_records(
    folder: Path,
    name: str,
    targets: Sequence[str] | None = None,
    group: str | None = None,
    id_column: str | None = None,
    shards: Path | None = None,
) -> Competition:
    """The data set whose index lies in `folder`, and its shards in `shards` (None: beside the index).

    Raises:
        FileNotFoundError: A shard is missing.
        ValueError: The index is damaged, or a column is named that it lacks.
    """
    shards = shards or folder
    described, index = _read_index(folder)
    known = [column.removeprefix(LABEL) for column in index.columns if column.startswith(LABEL)]
    for target in targets or ():
        if target not in known:
            raise ValueError(f"{folder} has no labels {target!r}. Labels: {', '.join(known)}.")
    for option, asked, written in (
        ("--group", group, described["group_column"] or "none"),
        ("--id", id_column, described["id_column"]),
    ):
        if asked not in (None, "none", written):
            raise ValueError(f"{folder} was written with `{option} {written}`. Received: {asked}.")
    missing = sorted({shard for shard in index["shard"] if shard and not (shards / shard).is_file()})
    if missing:
        raise FileNotFoundError(f"{shards} lacks {len(missing)} of its shards, such as {missing[0]}.")
    index["path"] = pd.Series([shards / shard if shard else None for shard in index["shard"]], index.index, object)
    is_test = (index["part"] == "test").to_numpy()
    labels = index[[LABEL + head for head in dict.fromkeys(targets or known)]]
    labels = labels.rename(columns=lambda column: column.removeprefix(LABEL))
    labelled = ~is_test & (labels != "").any(axis=1).to_numpy()
    if not labelled.any():
        raise ValueError(f"{folder} holds no picture with a label to learn from.")
    left_out = list(described["left_out"])
    if unlabelled := int((~is_test & ~labelled).sum()):
        left_out.append(f"{unlabelled:,} picture{'' if unlabelled == 1 else 's'} without a label")
    places = ["id", "path", *PLACE]
    answers = folder / "answers.csv"
    return Competition(
        name=name,
        train=index.loc[labelled, [*places, "group", "part"]].reset_index(drop=True),
        labels=labels[labelled].reset_index(drop=True),
        test=index.loc[is_test, places].reset_index(drop=True) if is_test.any() or described["has_test"] else None,
        id_column=described["id_column"],
        group_column=None if group == "none" else described["group_column"],
        columns=described["columns"],
        left_out=left_out,
        answers=(lambda: read_table(answers).set_index(described["id_column"])) if answers.is_file() else None,
        verified=True,
    )


def _read_index(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """dataset.json and index.csv, with whole numbers for the places (-1 where there is no picture).

    Raises:
        ValueError: One of them is missing or not as it was written.
    """
    file = folder / "dataset.json"
    if lost := [name for name in ("dataset.json", "index.csv") if not (folder / name).is_file()]:
        raise ValueError(f"{folder} is not complete: it has no {lost[0]}. Write the shards again.")
    try:
        described = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}.") from error
    if not isinstance(described, dict) or not set(described) >= DESCRIPTION:
        raise ValueError(f"{file} is damaged: it must say {', '.join(sorted(DESCRIPTION))}.")
    if described["format"] != FORMAT:
        raise ValueError(f"{file} has format {described['format']}, and this version reads format {FORMAT}.")
    index = read_table(folder / "index.csv")
    if lost := [column for column in COLUMNS if column not in index.columns]:
        raise ValueError(f"{folder / 'index.csv'} is damaged: it has no column {', '.join(lost)}.")
    try:
        for column in PLACE:
            index[column] = index[column].replace("", "-1").astype("int64")
    except ValueError as error:
        raise ValueError(f"{folder / 'index.csv'} is damaged: {error}.") from error
    return described, index
