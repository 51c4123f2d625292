"""TFRecord shards that another program wrote: looked through once, and an index of their pictures made."""

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import tensorflow as tf

from pipelines.columns import assign_columns
from pipelines.record_writer import is_picture
from pipelines.records import HEADER_BYTES, LABEL, PLACE, write_index

PICTURE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"GIF8", b"RIFF")
LONGEST_TEXT = 200  # bytes of a feature that may be a class name
ID_NAMES = ("id", "image/filename", "filename", "file_name", "image_name", "name")


def index_shards(shards: list[Path], folder: Path) -> None:
    """Read every record of the shards, check it, and write `index.csv` and `dataset.json` for them into `folder`.

    The picture is the feature that holds an encoded one; every single number or text is a column, of which those that
    look like classes are predicted. Shards named test-... or val-... are those parts.

    Raises:
        ValueError: No record holds an encoded picture.
    """
    rows, damaged = [], 0
    for shard in shards:
        for number, (start, content) in enumerate(_records(shard)):
            row = _understand(content, start, shard) if content is not None else None
            if row is None:
                damaged += 1
            else:
                rows.append({**row, "fallback": f"{shard.stem}/{number:06d}"})
    if not rows:
        names = ", ".join(shard.name for shard in shards[:3])
        raise ValueError(
            f"No record of {names} is a tf.train.Example with an encoded picture (JPEG, PNG, BMP, GIF, WebP)."
        )
    table = pd.DataFrame(rows).fillna("")
    table["id"] = table["id"].where(~table["id"].duplicated(keep=False) & (table["id"] != ""), table["fallback"])
    columns = table.drop(columns=["part", "shard", "fallback", *PLACE])
    roles = assign_columns(columns, None, "id")
    index = table[["part", "id", "shard", *PLACE]].copy()
    index.insert(2, "group", table[roles.group] if roles.group else "")
    for head in roles.targets:
        index[LABEL + head] = table[head]
    hidden = index["part"] == "test"
    heads = [LABEL + head for head in roles.targets]
    answers = index.loc[hidden, ["id", *heads]].rename(columns=lambda column: column.removeprefix(LABEL))
    index.loc[hidden, heads] = ""
    description = {
        "format": 1,
        "id_column": "id",
        "group_column": roles.group,
        "has_test": bool(hidden.any()),
        "columns": roles.reasons,
        "left_out": [f"{damaged:,} damaged records or ones without a picture"] if damaged else [],
    }
    write_index(folder, index, description, answers if len(answers) else None)


def _records(shard: Path) -> Iterator[tuple[int, bytes | None]]:
    """Where the content of each record begins, and the content; None for a damaged one."""
    size, position = shard.stat().st_size, 0
    with shard.open("rb") as file:
        while position + HEADER_BYTES <= size:
            file.seek(position)
            (length,) = struct.unpack("<Q", file.read(8))
            if position + HEADER_BYTES + length + 4 > size:
                break  # the length is damaged or the file cut short: no later record can be found
            yield position + HEADER_BYTES, _content_at(shard, position)
            position += HEADER_BYTES + length + 4
    if position < size:
        yield position, None


def _content_at(shard: Path, position: int) -> bytes | None:
    """The content of the record that begins there, its checksums compared by TensorFlow."""
    record = tf.raw_ops.TFRecordDatasetV2(
        filenames=[os.fspath(shard)], compression_type="", buffer_size=0, byte_offsets=[position]
    )
    try:
        return next(iter(tf.data.experimental.from_variant(record, tf.TensorSpec([], tf.string)))).numpy()
    except (tf.errors.OpError, StopIteration):
        return None


def _understand(content: bytes, start: int, shard: Path) -> dict[str, object] | None:
    """The row of the index for a record, or None when it holds no picture that can be decoded."""
    try:
        example = tf.train.Example.FromString(content)
    except Exception:  # the protocol buffers' own error has no public name
        return None
    columns: dict[str, object] = {}
    data = b""
    for name, feature in sorted(example.features.feature.items()):
        kind = feature.WhichOneof("kind")
        values = getattr(feature, kind).value if kind else []
        if len(values) != 1:
            continue
        if kind == "bytes_list" and values[0].startswith(PICTURE_STARTS):
            data = values[0]
        elif kind == "bytes_list" and len(values[0]) <= LONGEST_TEXT:
            columns[name] = values[0].decode("utf-8", "replace")
        elif kind == "int64_list":
            columns[name] = str(values[0])
    if not is_picture(data):
        return None
    found = next((columns.pop(name) for name in ID_NAMES if name in columns), "")
    part = next((part for part in ("test", "val") if shard.name.startswith(part)), "train")
    place = dict(zip(PLACE, (start + content.index(data), len(data), zlib.crc32(data)), strict=True))
    return {**columns, "part": part, "id": found, "shard": shard.name, **place}
