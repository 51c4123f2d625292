"""Shards that another program wrote: what is understood of them, what is damaged, and that they are read once."""

import gzip
import os
import struct
import zlib
from pathlib import Path

import pandas as pd
import pytest
import tensorflow as tf
from conftest import paint

from pipelines import foreign_records, open_dataset
from pipelines.competition import encoded_pictures

CLASSES = ["daisy", "BMW", "日本 rose"]


def record(**features: bytes | int | list[int]) -> bytes:
    """A tf.train.Example; "__" in a name stands for "/"."""

    def feature(value: bytes | int | list[int]) -> tf.train.Feature:
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        values = value if isinstance(value, list) else [value]
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    named = {name.replace("__", "/"): feature(value) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString()


def write(path: Path, records: list[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for content in records:
            writer.write(content)
    return path


def picture(folder: Path, number: int, suffix: str = ".jpg") -> bytes:
    return paint(folder / f"p{number}{suffix}", (5 * number, 80, 200), seed=number).read_bytes()


def slim_record(folder: Path, number: int) -> bytes:
    """As the tools around ImageNet write them: class number and name, file name, height, width."""
    return record(
        image__encoded=picture(folder, number),
        image__class__label=number % 3 + 1,
        image__class__text=CLASSES[number % 3].encode(),
        image__filename=f"p{number}.jpg".encode(),
        image__height=[12, 24][number % 2],
        image__format=b"JPEG",
        image__object__bbox=[number, 2, 3, 4],
    )


@pytest.fixture
def slim(tmp_path: Path) -> Path:
    """18 pictures to train on, 3 for validation, 6 hidden ones."""
    folder = tmp_path / "große Daten"
    for name, numbers in (
        ("train-00000-of-00002", range(9)),
        ("train-00001-of-00002", range(9, 18)),
        ("validation-00000-of-00001", range(18, 21)),
        ("test-00000-of-00001", range(21, 27)),
    ):
        write(folder / f"{name}.tfrecord", [slim_record(tmp_path / "src", number) for number in numbers])
    return folder


def positions(path: Path) -> list[int]:
    """Where each record of a shard begins."""
    content, found, position = path.read_bytes(), [], 0
    while position < len(content):
        found.append(position)
        position += 16 + struct.unpack_from("<Q", content, position)[0]
    return found


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x40
    path.write_bytes(content)


def ids(table: pd.DataFrame) -> list[str]:
    return sorted(table["id"], key=lambda name: int(name.strip("p.jng")))


def test_class_names_file_names_and_parts_are_understood(slim, tmp_path) -> None:
    data = open_dataset(slim)
    assert data.name == "große Daten"
    assert data.targets == ("image/class/text",)
    assert data.classes == {"image/class/text": sorted(CLASSES)}
    assert ids(data.train) == [f"p{number}.jpg" for number in range(21)]
    assert ids(data.train[data.train["part"] == "val"]) == ["p18.jpg", "p19.jpg", "p20.jpg"]
    numbers = data.train["id"].str.strip("p.jg").astype(int)
    assert data.labels["image/class/text"].tolist() == [CLASSES[number % 3] for number in numbers]
    assert (data.id_column, data.group_column, data.left_out) == ("image/filename", None, [])
    assert "image/class/label: not used (the number of image/class/text)" in data.columns
    assert "image/height: not used (a property of the picture)" in data.columns


def test_labels_of_test_shards_are_answers_and_nowhere_else(slim, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("KERASCNN_CACHE", str(tmp_path / "cache"))
    data = open_dataset(slim)
    assert ids(data.test) == [f"p{number}.jpg" for number in range(21, 27)]
    expected = {f"p{number}.jpg": CLASSES[number % 3] for number in range(21, 27)}
    assert data.answers()["image/class/text"].to_dict() == expected
    (index,) = (tmp_path / "cache").glob("*/index.csv")
    rows = pd.read_csv(index, keep_default_na=False)
    assert rows.loc[rows["part"] == "test", "label.image/class/text"].tolist() == [""] * 6


def test_pictures_are_read_out_of_the_shards_where_they_lie(slim, tmp_path) -> None:
    data = open_dataset(slim)
    for table in (data.train, data.test):
        encoded = encoded_pictures(table)
        assert {Path(os.fsdecode(path)).parent for path in encoded.paths} == {slim}
        for place, name in enumerate(table["id"]):
            assert encoded.read(place) == (tmp_path / "src" / name).read_bytes()
            assert encoded.checksums[place] == zlib.crc32((tmp_path / "src" / name).read_bytes())


def test_numbers_are_classes_where_there_are_no_names(tmp_path) -> None:
    """As in many tutorials: image_raw and an int64 label, no names at all, PNG."""
    folder = tmp_path / "raw"
    for shard in range(2):
        write(
            folder / f"pets.tfrecord-{shard:05d}-of-00002",
            [record(image_raw=picture(tmp_path, 4 * shard + number, ".png"), label=number % 2) for number in range(4)],
        )
    data = open_dataset(folder)
    assert data.classes == {"label": ["0", "1"]}
    assert data.labels["label"].tolist() == ["0", "1", "0", "1"] * 2
    assert (data.test, data.answers) == (None, None)
    assert data.train["id"].tolist() == [
        f"pets.tfrecord-{shard:05d}-of-00002/{number:06d}" for shard in range(2) for number in range(4)
    ]


def test_a_text_that_begins_like_a_picture_is_a_text_and_a_mask_no_picture(tmp_path) -> None:
    records = [
        record(
            image=picture(tmp_path, number),
            a_mask=picture(tmp_path, 50 + number, ".png"),
            make=[b"BMW", b"BM", b"RIFF"][number % 3],
        )
        for number in range(9)
    ]
    write(tmp_path / "cars" / "a.tfrecord", records)
    data = open_dataset(tmp_path / "cars")
    assert data.classes == {"make": ["BM", "BMW", "RIFF"]}
    assert encoded_pictures(data.train).read(4) == (tmp_path / "p4.jpg").read_bytes()


@pytest.mark.parametrize("name", ["part", "shard", "start", "length", "checksum", "group", "fallback", "path"])
def test_features_may_be_called_like_our_columns(tmp_path, name) -> None:
    records = [record(image=picture(tmp_path, number), **{name: number % 2 + 5}) for number in range(6)]
    write(tmp_path / "own" / "train.tfrecord", records)
    data = open_dataset(tmp_path / "own", targets=[name])
    assert data.labels[name].tolist() == ["5", "6"] * 3
    assert encoded_pictures(data.train).read(3) == (tmp_path / "p3.jpg").read_bytes()


def test_repeated_and_missing_ids_become_numbers_of_records(tmp_path) -> None:
    names = [b"x", b"x", b"y", b"", b"z", b"w"]
    records = [record(image=picture(tmp_path, number), id=name, label=number % 2) for number, name in enumerate(names)]
    write(tmp_path / "own" / "train-0.tfrec", records)
    data = open_dataset(tmp_path / "own")
    assert data.train["id"].tolist() == [
        "train-0.tfrec/000000",
        "train-0.tfrec/000001",
        "y",
        "train-0.tfrec/000003",
        "z",
        "w",
    ]
    assert data.train["id"].is_unique


def test_a_feature_called_name_that_repeats_is_a_class(tmp_path) -> None:
    records = [record(image=picture(tmp_path, number), name=CLASSES[number % 3].encode()) for number in range(9)]
    write(tmp_path / "own" / "train.tfrecord", records)
    assert open_dataset(tmp_path / "own").classes == {"name": sorted(CLASSES)}


def test_columns_are_taken_as_named(tmp_path) -> None:
    records = [
        record(
            image=picture(tmp_path, number), label=number % 2, kind=number % 3, owner=b"ab"[number % 2 :][:1], n=number
        )
        for number in range(12)
    ]
    write(tmp_path / "own" / "train.tfrecord", records)
    data = open_dataset(tmp_path / "own", targets=["kind"], group="label", id_column="n")
    assert (data.targets, data.group_column, data.id_column) == (("kind",), "label", "n")
    assert data.train["group"].tolist() == ["0", "1"] * 6
    assert data.train["id"].tolist() == [str(number) for number in range(12)]
    assert data.labels["kind"].tolist() == ["0", "1", "2"] * 4
    with pytest.raises(ValueError, match=r"own has no column 'kinds'. Did you mean 'kind'\?"):
        open_dataset(tmp_path / "own", targets=["kinds"])


def test_pictures_without_any_label_are_left_out(tmp_path) -> None:
    records = [record(image=picture(tmp_path, number), label=b"ab"[number % 2 :][:1]) for number in range(6)]
    records += [record(image=picture(tmp_path, 6)), record(image=picture(tmp_path, 7), label=b"")]
    write(tmp_path / "own" / "train.tfrecord", records)
    data = open_dataset(tmp_path / "own")
    assert len(data.train) == 6
    assert data.left_out == ["2 pictures without a label"]


def test_test_shards_without_labels_have_no_answers(tmp_path) -> None:
    records = [record(image=picture(tmp_path, number), label=number % 2) for number in range(6)]
    write(tmp_path / "own" / "train.tfrecord", records)
    write(tmp_path / "own" / "test.tfrecord", [record(image=picture(tmp_path, 6))])
    data = open_dataset(tmp_path / "own")
    assert (len(data.train), len(data.test), data.answers) == (6, 1, None)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("test-00000-of-00001.tfrecord", "test"),
        ("mnist-test.tfrecord-00000-of-00001", "test"),
        ("test00-192x192-438.tfrec", "test"),
        ("val.tfrecords", "val"),
        ("valid_3.tfrecord", "val"),
        ("validation.tfrecord", "val"),
        ("test-set-train-1.tfrecord", "train"),
        ("contest.tfrecord", "train"),
        ("valley.tfrecord", "train"),
    ],
)
def test_the_name_of_a_shard_says_its_part(tmp_path, name, part) -> None:
    records = [record(image=picture(tmp_path, number), label=number % 2) for number in range(4)]
    write(tmp_path / "own" / "first-train.tfrecord", records)
    write(tmp_path / "own" / name, [record(image=picture(tmp_path, 9), label=1)])
    data = open_dataset(tmp_path / "own")
    counts = {"train": 0, "val": 0, **data.train["part"].value_counts(), "test": 0 if data.test is None else 1}
    assert counts == {"train": 4, "val": 0, "test": 0, part: 5 if part == "train" else 1}


# ---- damage


def test_a_flipped_byte_costs_that_record_only(slim) -> None:
    shard = slim / "train-00000-of-00002.tfrecord"
    starts = positions(shard)
    for number in (4, 6):
        flip(shard, (starts[number] + starts[number + 1]) // 2)
    data = open_dataset(slim)
    assert ids(data.train) == [f"p{number}.jpg" for number in range(21) if number not in (4, 6)]
    assert data.left_out == ["2 records damaged or without a picture"]


def test_a_file_that_is_cut_short_keeps_its_whole_records(slim) -> None:
    shard = slim / "train-00001-of-00002.tfrecord"
    os.truncate(shard, positions(shard)[5] + 100)
    data = open_dataset(slim)
    assert ids(data.train) == [f"p{number}.jpg" for number in range(21) if number not in range(14, 18)]
    assert data.left_out == ["1 record damaged or without a picture"]


@pytest.mark.parametrize("damage", ["length", "zeros"])
def test_behind_a_damaged_length_nothing_is_taken_for_a_record(slim, damage) -> None:
    shard = slim / "train-00001-of-00002.tfrecord"
    start = positions(shard)[3]
    if damage == "length":
        flip(shard, start)
    else:
        os.truncate(shard, start)
        os.truncate(shard, start + 50_000_000)
    data = open_dataset(slim)
    assert ids(data.train) == [f"p{number}.jpg" for number in range(21) if number not in range(12, 18)]
    assert data.left_out == ["1 record damaged or without a picture"]


def test_records_that_hold_no_picture_are_counted(tmp_path) -> None:
    records = [record(image=picture(tmp_path, number), label=number % 2) for number in range(6)]
    others = [b"no example at all", record(label=1), record(image=records[0][:40], label=1), b""]
    write(tmp_path / "own" / "train.tfrecord", [*others, *records])
    data = open_dataset(tmp_path / "own")
    assert len(data.train) == 6
    assert data.left_out == ["4 records damaged or without a picture"]


@pytest.mark.parametrize("content", [[], [b"text"], None], ids=["empty", "no examples", "no records"])
def test_shards_without_pictures_are_an_error_of_one_line(tmp_path, content) -> None:
    shard = write(tmp_path / "own" / "train.tfrecord", content or [])
    if content is None:
        shard.write_bytes(b"hello, this is a text, and no records at all")
    with pytest.raises(ValueError, match=r"^No record of train\.tfrecord is a tf\.train\.Example with [^\n]*\.$"):
        open_dataset(tmp_path / "own")


@pytest.mark.parametrize("kind", ["GZIP", "ZLIB", "gzip afterwards"])
def test_compressed_shards_are_refused_with_the_reason(tmp_path, kind) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    records = [record(image=picture(tmp_path, number), label=number % 2) for number in range(6)]
    if kind == "gzip afterwards":
        plain = write(tmp_path / "train.tfrecord", records)
        (folder / "train.tfrecord.gz").write_bytes(gzip.compress(plain.read_bytes()))
    else:
        with tf.io.TFRecordWriter(str(folder / "train.tfrecord.gz"), kind) as writer:
            for content in records:
                writer.write(content)
    with pytest.raises(ValueError, match=r"^[^\n]*train\.tfrecord\.gz is compressed, [^\n]*Unpack it first\.$"):
        open_dataset(folder)


def test_checksum_is_that_of_the_published_examples() -> None:
    # RFC 3720, appendix B.4: 32 bytes of zeros, of ones, and 0 to 31; turned right by 15 bits and moved by a constant.
    for data, crc in ((b"\0" * 32, 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)):
        turned = int(f"{crc:032b}"[-15:] + f"{crc:032b}"[:-15], 2)
        expected = (turned + 0xA282EAD8) % 2**32
        assert foreign_records._masked_crc32c(data) == expected.to_bytes(4, "little")


# ---- once


def test_an_index_is_made_once_and_anew_for_changed_shards(slim, monkeypatch) -> None:
    made = []
    original = foreign_records.index_shards
    monkeypatch.setattr(foreign_records, "index_shards", lambda *arguments: (made.append(1), original(*arguments)))
    first, second = open_dataset(slim), open_dataset(slim)
    assert len(made) == 1
    assert first.train.equals(second.train)
    (slim / "train-00001-of-00002.tfrecord").unlink()
    assert len(open_dataset(slim).train) == 12
    assert len(made) == 2


def test_nothing_is_written_beside_the_shards_or_left_after_an_error(slim, tmp_path, cache) -> None:
    before = sorted(os.listdir(slim))
    open_dataset(slim)
    assert sorted(os.listdir(slim)) == before
    write(tmp_path / "void" / "train.tfrecord", [])
    with pytest.raises(ValueError, match="No record of"):
        open_dataset(tmp_path / "void")
    assert not [name for name in os.listdir(cache) if "void" in name]
