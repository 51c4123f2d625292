"""TFRecord shards that another program wrote: looked through once, and an index of their pictures made."""

import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import tensorflow as tf
from google.protobuf.message import DecodeError

from pipelines.columns import assign_columns, require_column
from pipelines.competition import TEST_FOLDERS, TRAIN_FOLDERS, VALIDATION_FOLDERS
from pipelines.record_writer import is_picture
from pipelines.records import FRAME_BYTES, HEADER_BYTES, LABEL, PLACE, write_index

COMPRESSED_STARTS = (b"\x1f\x8b", b"\x78\x01", b"\x78\x9c", b"\x78\xda")  # gzip, zlib
PICTURE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"GIF8", b"RIFF")
PICTURE_NAME = re.compile(r"image|img|picture|photo", re.I)  # a picture under another name may be a mask
LONGEST_TEXT = 200  # bytes of a feature that may be a class name
ID_NAMES = ("id", "image/filename", "filename", "file_name", "image_name", "name")
# What a picture is like, not what it shows: the end of a feature's name.
PROPERTY_NAME = re.compile(r"(^|[/_])(height|width|channels|depth|rows|cols|format|colorspace)$", re.I)


def index_shards(
    shards: Sequence[Path],
    folder: Path,
    targets: Sequence[str] | None = None,
    group: str | None = None,
    id_column: str | None = None,
) -> None:
    """Read every record of the shards, check it, and write `index.csv` and `dataset.json` for them into `folder`.

    The picture is the feature that holds an encoded one; every single number or text is a column, of which those that
    look like classes are predicted. Shards that are named test or val are those parts.

    Args:
        shards: TFRecord files, all in one folder.
        folder: Where to write.
        targets: Features to predict; None works them out.
        group: Feature whose values must not be split; None works it out, "none" for no groups.
        id_column: Feature that names the picture; None finds it, or numbers the records.

    Raises:
        ValueError: No record holds an encoded picture, or a feature is named that there is not.
    """
    index, columns, damaged = _read_shards(shards)
    for name in (*(targets or ()), group, id_column):
        if name not in (None, "none"):
            require_column(columns, name, str(shards[0].parent))
    if id_column is None:
        id_column = _column_of_ids(columns, {*(targets or ()), group})
    if id_column is None:
        id_column = "id" if "id" not in columns else "record"
    else:
        named = columns.pop(id_column)
        index["id"] = index["id"].where((named == "") | named.duplicated(keep=False), named)
    hidden = index["part"] == "test"
    reasons = _take_out(columns, hidden, {*(targets or ()), group})
    columns.insert(0, id_column, index["id"])
    try:
        roles = assign_columns(columns[~hidden], None, id_column, targets, group)
    except ValueError as error:
        raise ValueError(str(error).replace("train.csv", "the records")) from error
    heads = list(roles.targets)
    labels = columns[heads].rename(columns=lambda head: LABEL + head)
    index = pd.concat([index, labels.where(~hidden, "")], axis=1)
    index["group"] = columns[roles.group] if roles.group else ""
    answers = columns.loc[hidden, [id_column, *heads]]
    description = {
        "id_column": id_column,
        "group_column": roles.group,
        "has_test": bool(hidden.any()),
        "columns": [*roles.reasons, *reasons],
        "left_out": [f"{damaged:,} record{'' if damaged == 1 else 's'} damaged or without a picture"]
        if damaged
        else [],
    }
    write_index(folder, index, description, answers if (answers[heads] != "").to_numpy().any() else None)


def _read_shards(shards: Sequence[Path]) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Part, id and place of every picture, the other features as text, and how many records hold no picture."""
    places, features, damaged = [], [], 0
    for shard in shards:
        for number, (start, content) in enumerate(_records(shard)):
            data, columns = _understand(content)
            if not data:
                damaged += 1
                continue
            place = (start + content.index(data), len(data), zlib.crc32(data))
            places.append((_part(shard), f"{shard.name}/{number:06d}", shard.name, *place))
            features.append(columns)
    if not places:
        names = ", ".join(shard.name for shard in shards[:3])
        raise ValueError(
            f"No record of {names} is a tf.train.Example with an encoded picture (JPEG, PNG, BMP, GIF, WebP)."
        )
    index = pd.DataFrame(places, columns=["part", "id", "shard", *PLACE])
    return index, pd.DataFrame(features, index.index, dtype=object).fillna(""), damaged


def _records(shard: Path) -> Iterator[tuple[int, bytes]]:
    """Where the content of each record begins, and the content; no bytes for a damaged one."""
    size, position = shard.stat().st_size, 0
    contents = tf.data.TFRecordDataset(os.fspath(shard)).as_numpy_iterator()
    intact = True
    with shard.open("rb") as file:
        while position < size:
            file.seek(position)
            length = _content_length(file.read(HEADER_BYTES))
            if position == 0 and length is None:
                _refuse_compressed(shard)
            if length is None or position + FRAME_BYTES + length > size:
                yield position, b""  # damaged or cut short: without its length no later record can be found
                return
            content = b""
            if intact:  # TensorFlow compares the checksums quickly, but reads no further than the first that differs
                try:
                    content = next(contents)
                except (tf.errors.OpError, StopIteration):
                    intact = False
            else:
                content, checksum = file.read(length), file.read(4)
                content = content if _masked_crc32c(content) == checksum else b""
            yield position + HEADER_BYTES, content
            position += FRAME_BYTES + length


def _content_length(header: bytes) -> int | None:
    """The length that the header of a record says, None for a damaged one."""
    if len(header) < HEADER_BYTES or _masked_crc32c(header[:8]) != header[8:]:
        return None
    return struct.unpack("<Q", header[:8])[0]


def _refuse_compressed(shard: Path) -> None:
    with shard.open("rb") as file:
        if file.read(2) in COMPRESSED_STARTS:
            raise ValueError(f"{shard} is compressed, so no picture in it can be read alone. Unpack it first.")


def _crc32c_table() -> list[int]:
    table = list(range(256))
    for _ in range(8):
        table = [(value >> 1) ^ (0x82F63B78 if value & 1 else 0) for value in table]
    return table


CRC32C_TABLE = _crc32c_table()


def _masked_crc32c(data: bytes) -> bytes:
    """The checksum of a TFRecord: CRC-32C (RFC 3720, appendix B.4), turned and moved, as four bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC32C_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _understand(content: bytes) -> tuple[bytes, dict[str, str]]:
    """The encoded picture of a record, empty when it holds none that can be decoded; the other features as text."""
    try:
        example = tf.train.Example.FromString(content)
    except DecodeError:
        return b"", {}
    columns: dict[str, str] = {}
    pictures: dict[str, bytes] = {}
    for name, feature in sorted(example.features.feature.items()):
        kind = feature.WhichOneof("kind")
        values = getattr(feature, kind).value if kind else []
        if len(values) != 1:
            continue
        if kind == "bytes_list" and values[0].startswith(PICTURE_STARTS):
            pictures[name] = values[0]
        if kind == "bytes_list" and len(values[0]) <= LONGEST_TEXT:
            columns[name] = values[0].decode("utf-8", "replace").strip()
        elif kind == "int64_list":
            columns[name] = str(values[0])
    for name in sorted(pictures, key=lambda name: not PICTURE_NAME.search(name)):
        if is_picture(pictures[name]):
            columns.pop(name, None)
            return pictures[name], columns
    return b"", columns


def _part(shard: Path) -> str:
    """The part that the name of a shard says, by its last such word: test-00000, pets-val.tfrecord-00000."""
    for word in reversed(re.split(r"[^a-z]+", shard.name.lower())):
        for part, names in (("train", TRAIN_FOLDERS), ("val", VALIDATION_FOLDERS), ("test", TEST_FOLDERS)):
            if word in names:
                return part
    return "train"


def _column_of_ids(columns: pd.DataFrame, taken: set[str | None]) -> str | None:
    """The first column that is named like an id and repeats few of its values."""
    return next(
        (
            name
            for name in ID_NAMES
            if name in columns and name not in taken and columns[name].nunique() > len(columns) / 2
        ),
        None,
    )


def _take_out(columns: pd.DataFrame, hidden: pd.Series, named: set[str | None]) -> list[str]:
    """Drop properties of the picture and class numbers beside their names; why, a line each."""
    labelled, names = columns[~hidden], [str(name) for name in columns]
    numbers = [name for name in names if labelled[name].str.fullmatch(r"-?\d*").all()]
    texts = [name for name in names if name not in numbers and not PROPERTY_NAME.search(name)]
    reasons = []
    for name in names:
        if name in named:
            continue
        same = [text for text in texts if name in numbers and _say_the_same(labelled[name], labelled[text])]
        if PROPERTY_NAME.search(name):
            reasons.append(f"{name}: not used (a property of the picture)")
        elif same:
            reasons.append(f"{name}: not used (the number of {same[0]})")
        else:
            continue
        del columns[name]
    return reasons


def _say_the_same(first: pd.Series, second: pd.Series) -> bool:
    """Whether each value of the one goes with one value of the other, and not every row has its own."""
    pairs = pd.concat([first, second], axis=1).drop_duplicates()
    return 1 < first.nunique() == second.nunique() == len(pairs) < len(first)
