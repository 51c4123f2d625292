"""Shards with an index: the same pictures and tables as the files had, whole after a kill, and damage is noticed."""

import csv
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tensorflow as tf
from conftest import ROOT, paint
from PIL import Image

from pipelines import open_dataset, record_writer
from pipelines.competition import Competition, encoded_pictures
from pipelines.encoded import Encoded
from pipelines.pictures import check_pictures, load_pictures, open_pictures
from pipelines.record_writer import write_records
from pipelines.stream import Streamed, read_batches

SHARD_BYTES = 900  # about two of the pictures below
OPTIONS = {"targets": ["id", "part", "start"], "group": "shard"}

# ---- a competition whose columns are called like those of the index, and its shards


def open_source(root: Path) -> Competition:
    return open_dataset(root, **OPTIONS)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 labelled pictures, one of them damaged; 6 hidden ones, one damaged and one without a file; answers."""
    root = tmp_path_factory.mktemp("src") / "schöne Bilder 日本"
    train, test, answers = ["image,id,part,start,shard"], ["image"], ["image,id,part,start"]
    for number in range(30):
        name = f"größe {number:02d}.{'jpg' if number % 4 == 0 else 'png'}"
        paint(root / "train" / name, (8 * number, 90, 200), seed=number)
        labels = f"{'ab'[number % 2]},{'' if number % 5 == 0 else 'xyz'[number % 3]},{'日' if number < 9 else 'no'}"
        train.append(f"{name},{labels},g{number // 6}")
    for number in range(6):
        paint(root / "test" / f"{number:03d}.png", (90, 8 * number, 20), seed=100 + number)
        test.append(f"{number:03d}")
        answers.append(f"{number:03d},b,z,no")
    for broken in ("train/größe 07.png", "test/002.png"):
        (root / broken).write_bytes((root / broken).read_bytes()[:150])
    (root / "test/004.png").unlink()
    for name, rows in (("train.csv", train), ("test.csv", test), ("answers.csv", answers)):
        (root / name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def written(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its shards, written by one process without interruption."""
    folder = tmp_path_factory.mktemp("out") / "Scherben é 1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_writer, "SHARD_BYTES", SHARD_BYTES)
        write_records(open_source(source), folder, processes=1)
    return folder


DRIVER = """
import multiprocessing, os, signal, sys
from pathlib import Path

if __name__ == "__main__":
    from pipelines import open_dataset, record_writer

    def progress(done):
        if done >= 8:
            print(*(child.pid for child in multiprocessing.active_children()), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    record_writer.SHARD_BYTES = int(sys.argv[3])
    data = open_dataset(sys.argv[1], targets=["id", "part", "start"], group="shard")
    record_writer.write_records(data, Path(sys.argv[2]), processes=2, on_progress=progress)
"""


def is_running(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def killed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[int]]]:
    """A folder whose writing, by two processes, was ended by SIGKILL, and the numbers of those processes."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "driver.py").write_text(DRIVER)
    with (folder / "printed.txt").open("w") as printed:
        process = subprocess.run(
            [sys.executable, folder / "driver.py", source, folder / "out", str(SHARD_BYTES)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=printed,
            check=False,
            timeout=120,
        )
    assert process.returncode == -signal.SIGKILL
    processes = [int(number) for number in (folder / "printed.txt").read_text().split()]
    deadline = time.monotonic() + 60  # the two may still be finishing a shard
    while any(map(is_running, processes)) and time.monotonic() < deadline:
        time.sleep(0.1)
    yield folder / "out", processes
    for number in filter(is_running, processes):
        os.kill(number, signal.SIGKILL)


def index_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "index.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def states(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Content, inode and time of change of every file."""
    return {
        path.name: (path.read_bytes(), path.stat().st_ino, path.stat().st_mtime_ns) for path in sorted(folder.iterdir())
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {name: content for name, (content, _, _) in states(folder).items()}


def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def flip(path: Path, position: int) -> None:
    """Change one byte of a file."""
    content = bytearray(path.read_bytes())
    content[position] ^= 0x40
    path.write_bytes(content)


# ---- what is in the shards


def test_tables_come_back_as_they_were_without_what_cannot_be_decoded(source, written) -> None:
    files, shards = open_source(source), open_dataset(written)
    readable = files.train["id"] != "größe 07.png"
    for column in ("id", "group", "part"):
        assert shards.train[column].tolist() == files.train.loc[readable, column].tolist()
    assert shards.targets == ("id", "part", "start")
    for target in shards.targets:
        assert shards.labels[target].tolist() == files.labels.loc[readable, target].tolist()
    assert "" in shards.labels["part"].tolist()
    assert (shards.id_column, shards.group_column) == ("image", "shard")
    assert shards.columns == files.columns
    assert shards.verified


def test_pictures_come_back_bit_by_bit(source, written) -> None:
    shards = open_dataset(written)
    for table, part in ((shards.train, "train"), (shards.test[shards.test["path"].notna()], "test")):
        encoded = encoded_pictures(table)
        assert len(encoded) == {"train": 29, "test": 4}[part]
        for place, name in enumerate(table["id"]):
            original = source / part / (name if part == "train" else f"{name}.png")
            assert encoded.read(place) == original.read_bytes()


def test_hidden_rows_stay_in_the_order_of_the_test_table_with_or_without_a_picture(written) -> None:
    hidden = open_dataset(written).test
    assert hidden["id"].tolist() == ["000", "001", "002", "003", "004", "005"]
    assert hidden["path"].isna().tolist() == [False, False, True, False, True, False]


def test_answers_are_kept_apart_from_the_records(source, written) -> None:
    files, shards = open_source(source), open_dataset(written)
    assert shards.answers().to_dict() == files.answers().to_dict()
    assert all(row["label.id"] == "" for row in index_rows(written) if row["part"] == "test")


def test_what_cannot_be_decoded_is_named_with_its_reason(written) -> None:
    left_out = open_dataset(written).left_out
    assert "größe 07.png: the picture is damaged or cut short" in left_out
    assert "002: the picture is damaged or cut short (predicted by class frequency)" in left_out
    assert "1 row of test.csv without a picture (predicted by class frequency)" in left_out
    assert len(left_out) == 3


def test_index_points_at_the_pictures_bytes(source, written) -> None:
    rows = [row for row in index_rows(written) if row["shard"]]
    assert len(rows) == 33
    for row in rows:
        folder, suffix = ("test", ".png") if row["part"] == "test" else ("train", "")
        with (written / row["shard"]).open("rb") as shard:
            shard.seek(int(row["start"]))
            data = shard.read(int(row["length"]))
        assert data == (source / folder / (row["id"] + suffix)).read_bytes()
        assert int(row["checksum"]) == zlib.crc32(data)


def test_shards_are_ordinary_tfrecords(source, written) -> None:
    spec = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "id": tf.io.FixedLenFeature([], tf.string),
        "label.part": tf.io.FixedLenFeature([], tf.string, "none"),
    }
    found = {}
    for record in tf.data.TFRecordDataset([str(path) for path in sorted(written.glob("train-*.tfrecord"))]):
        example = tf.io.parse_single_example(record, spec)
        found[example["id"].numpy().decode()] = (example["image"].numpy(), example["label.part"].numpy().decode())
    files = open_source(source)
    expected = {
        name: (path.read_bytes(), label or "none")
        for name, path, label in zip(files.train["id"], files.train["path"], files.labels["part"], strict=True)
        if name != "größe 07.png"
    }
    assert found == expected


def test_records_of_hidden_pictures_hold_no_label(written) -> None:
    records = list(tf.data.TFRecordDataset([str(path) for path in sorted(written.glob("test-*.tfrecord"))]))
    assert len(records) == 4
    for record in records:
        assert set(tf.train.Example.FromString(record.numpy()).features.feature) == {"id", "image"}


def test_shards_are_of_similar_size_and_in_another_order_than_the_table(written) -> None:
    shards = sorted(written.glob("train-*.tfrecord"))
    assert len(shards) > 3
    assert [path.name for path in shards] == [
        f"train-{number:05d}-of-{len(shards):05d}.tfrecord" for number in range(len(shards))
    ]
    rows = [row for row in index_rows(written) if row["part"] == "train"]
    counts = [sum(row["shard"] == path.name for row in rows) for path in shards]
    assert max(counts) - min(counts) <= 2  # one of them was damaged
    assert [row["shard"] for row in rows] != sorted(row["shard"] for row in rows)


def test_named_labels_and_no_groups_are_taken_as_named(written) -> None:
    data = open_dataset(written, targets=["part"], group="none", id_column="image")
    assert (data.targets, data.group_column) == (("part",), None)
    # Numbers 0, 5, 10, 15, 20 and 25 have no label in this column.
    assert len(data.train) == len(data.labels) == 23
    assert "" not in data.labels["part"].tolist()
    assert "6 pictures without a label" in data.left_out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ["kind"]}, "has no labels 'kind'. Labels: id, part, start"),
        ({"group": "sender"}, "was written with `--group shard`. Received: sender"),
        ({"id_column": "file"}, "was written with `--id image`. Received: file"),
    ],
)
def test_columns_that_were_not_written_are_refused(written, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        open_dataset(written, **options)


def test_class_folders_keep_their_parts_and_answers(tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.setattr(record_writer, "SHARD_BYTES", 1)
    root = tmp_path / "pets"
    for part, count in (("train", 3), ("val", 2), ("test", 1)):
        for label in ("Hündin", "cat"):
            for index in range(count):
                paint(root / part / label / f"{index}.png", (1, 2, 3), seed=index)
    for name in ("train/cat/9.png", "test/Hündin/0.png", "test/cat/0.png"):  # of the hidden ones, all
        (root / name).write_bytes(b"")
    assert write_records(open_dataset(root), tmp_path / "shards", processes=1) == [
        "train/cat/9.png: the file is empty (0 bytes)",
        "test/Hündin/0.png: the file is empty (0 bytes) (predicted by class frequency)",
        "test/cat/0.png: the file is empty (0 bytes) (predicted by class frequency)",
    ]
    assert capfd.readouterr() == ("", "")  # TensorFlow's greetings in the processes are not shown
    files, shards = open_dataset(root), open_dataset(tmp_path / "shards")
    readable = files.train["id"] != "train/cat/9.png"
    assert shards.train[["id", "part"]].equals(files.train.loc[readable, ["id", "part"]].reset_index(drop=True))
    assert sorted(shards.train["part"]) == ["train"] * 6 + ["val"] * 4
    assert shards.labels["label"].tolist() == files.labels.loc[readable, "label"].tolist()
    assert shards.test["id"].tolist() == ["test/Hündin/0.png", "test/cat/0.png"]
    assert shards.test["path"].isna().all()
    assert shards.answers()["label"].to_dict() == {"test/Hündin/0.png": "Hündin", "test/cat/0.png": "cat"}
    # However small shards shall be, each is for one picture at least.
    assert len(list((tmp_path / "shards").glob("train-*-of-00007.tfrecord"))) == 7
    assert len(list((tmp_path / "shards").glob("val-*-of-00004.tfrecord"))) == 4


# ---- killed, resumed, refused


def test_a_killed_writing_leaves_whole_shards_only_and_no_process(killed, written) -> None:
    folder, processes = killed
    assert len(processes) == 2
    assert not any(map(is_running, processes))
    shards = sorted(folder.glob("train-*.tfrecord"))  # what is unfinished has another name
    for shard in shards:
        assert sum(1 for _ in tf.data.TFRecordDataset(str(shard))) > 0  # raises for a record that is cut short
    assert 2 <= len(shards) < len(list(written.glob("*.tfrecord")))
    with pytest.raises(ValueError, match=r"^Writing shards into .* was begun and not finished. Call .* again\.$"):
        open_dataset(folder)


def test_writing_goes_on_after_the_whole_shards_and_ends_the_same(killed, source, written, tmp_path, monkeypatch):
    monkeypatch.setattr(record_writer, "SHARD_BYTES", SHARD_BYTES)
    folder = copy(killed[0], tmp_path)
    (folder / ".unfinished-1-train-00000-of-00005.tfrecord").write_bytes(b"half a shard")
    (folder / ".unfinished-1-train-00008-of-00017.json").write_bytes(b"half a note")
    noted = [path.with_suffix(".tfrecord").name for path in folder.glob("train-*-of-*.json")]
    before, progress = states(folder), []
    write_records(open_source(source), folder, processes=2, on_progress=progress.append)
    assert progress[0] >= 8
    assert progress == sorted(progress)
    assert progress[-1] == 35
    after = states(folder)
    assert len(noted) >= 2
    assert {name: after[name] for name in noted} == {name: before[name] for name in noted}
    # Two processes, interrupted, or one without a pause: the same folder, file by file and byte by byte.
    assert contents(folder) == contents(written)


@pytest.mark.parametrize("change", ["label", "size of a picture"])
def test_writing_other_data_into_a_begun_folder_is_refused(killed, source, tmp_path, monkeypatch, change) -> None:
    monkeypatch.setattr(record_writer, "SHARD_BYTES", SHARD_BYTES)
    folder, data = copy(killed[0], tmp_path), open_source(source)
    (folder / ".unfinished-1-x").touch()
    before = states(folder)
    picture = data.train["path"][5]
    original = picture.read_bytes()
    try:
        if change == "label":
            data.labels.loc[5, "id"] = "a"
        else:
            picture.write_bytes(original + b"!")
        with pytest.raises(ValueError, match="was begun with other data"):
            write_records(data, folder, processes=1)
    finally:
        picture.write_bytes(original)
    assert states(folder) == before


def test_a_folder_that_holds_something_is_refused_and_left_as_it_is(written, source, tmp_path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="is not empty"):
        write_records(open_source(source), tmp_path, processes=1)
    assert os.listdir(tmp_path) == ["letter.txt"]
    before = states(written)
    with pytest.raises(ValueError, match="is not empty"):
        write_records(open_source(source), written, processes=1)
    assert states(written) == before
    with pytest.raises(ValueError, match="is not a folder"):
        write_records(open_source(source), tmp_path / "letter.txt", processes=1)


def test_two_writers_of_one_folder_do_not_disturb_each_other(killed, source, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(record_writer, "SHARD_BYTES", SHARD_BYTES)
    folder = copy(killed[0], tmp_path)
    before = states(folder)
    with (folder / "unfinished.json").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="Another process is writing into"):
            write_records(open_source(source), folder, processes=1)
    assert states(folder) == before


def test_strict_refuses_what_would_be_left_out_before_anything_is_written(source, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"`--strict` allows nothing .* 1 things would be, such as 1 row of test.csv"):
        write_records(open_source(source), tmp_path / "out", processes=1, strict=True)
    assert not (tmp_path / "out").exists()


# ---- damage after writing


def test_a_shard_that_is_gone_is_named(written, tmp_path) -> None:
    folder = copy(written, tmp_path)
    (folder / index_rows(written)[0]["shard"]).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks 1 of its shards, such as {index_rows(written)[0]['shard']}"):
        open_dataset(folder)


@pytest.mark.parametrize("memory", [0, None], ids=["streamed", "in memory"])
def test_a_damaged_picture_in_a_shard_is_counted_and_the_rest_is_not_affected(written, tmp_path, memory) -> None:
    folder = copy(written, tmp_path)
    row = index_rows(written)[11]
    flip(folder / row["shard"], int(row["start"]) + int(row["length"]) // 2)
    damaged = encoded_pictures(open_dataset(folder).train)
    with pytest.raises(ValueError, match="its checksum differs"):
        damaged.read(11)
    whole, none = load_pictures(encoded_pictures(open_dataset(written).train), (12, 10))
    assert none == {}
    pictures, errors = open_pictures(damaged, (12, 10), memory=memory, verified=True)
    assert errors == {11: "the file is damaged or has changed: its checksum differs"}
    whole[11] = 0
    assert isinstance(pictures, Streamed) == (memory == 0)
    np.testing.assert_array_equal(np.concatenate(list(read_batches(pictures, 8))), whole)


def test_a_shard_that_is_cut_short_loses_the_pictures_at_its_end_only(written, tmp_path) -> None:
    folder = copy(written, tmp_path)
    rows = [row for row in index_rows(written) if row["part"] == "train"]
    last = max((row for row in rows if row["shard"] == rows[0]["shard"]), key=lambda row: int(row["start"]))
    os.truncate(folder / last["shard"], int(last["start"]) + 10)
    errors = check_pictures(encoded_pictures(open_dataset(folder).train), verified=True)
    assert list(errors) == [rows.index(last)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dataset.json", b'{"format": 1, "id_col', r"dataset\.json is damaged: [^\n]*$"),
        ("dataset.json", b"\xff\xfe{}", r"dataset\.json is damaged: [^\n]*$"),
        (
            "dataset.json",
            b"[1]",
            r"dataset\.json is damaged: it must say columns, format, [^\n]*$",
        ),
        ("dataset.json", None, r"is not complete: it has no dataset\.json\. Write the shards again\.$"),
        ("index.csv", None, r"is not complete: it has no index\.csv\. Write the shards again\.$"),
        ("index.csv", b"id,shard\n1,x\n", r"index\.csv is damaged: it has no column part, group, start[^\n]*$"),
        (
            "index.csv",
            b"part,id,group,shard,start,length,checksum\ntrain,1,,x,far,1,1\n",
            r"is damaged: [^\n]*far[^\n]*$",
        ),
        ("index.csv", b"part,id,group,shard,start,length,checksum,label.a\n", "holds no picture with a label"),
    ],
)
def test_a_damaged_index_is_an_error_of_one_line(written, tmp_path, name, content, message) -> None:
    folder = copy(written, tmp_path)
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_dataset(folder)


def test_an_index_of_a_later_version_is_not_misread(written, tmp_path) -> None:
    folder = copy(written, tmp_path)
    text = (folder / "dataset.json").read_text(encoding="utf-8")
    (folder / "dataset.json").write_text(text.replace('"format": 1', '"format": 2'), encoding="utf-8")
    with pytest.raises(ValueError, match="has format 2, and this version reads format 1"):
        open_dataset(folder)


# ---- pictures in memory or on disk


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """20 pictures of 12 x 10 pixels."""
    return [paint(tmp_path / f"{number:02d}.png", (10 * number, 99, 7), seed=number) for number in range(20)]


def pixels(files: list[Path]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in files])


def test_pictures_are_read_in_any_order_and_any_number_of_times(files) -> None:
    places = np.random.default_rng(0).integers(0, 20, 300)
    data = Encoded.files(files).read_all(tf.data.Dataset.from_tensor_slices(places))
    read = list(data.as_numpy_iterator())
    assert [place for place, _ in read] == places.tolist()
    assert [content for _, content in read] == [files[place].read_bytes() for place in places]


def test_memory_decides_between_an_array_and_a_stream_of_the_same_pixels(files) -> None:
    needed = 20 * 12 * 10 * 3
    array, errors = open_pictures(Encoded.files(files), (12, 10), memory=needed)
    stream, stream_errors = open_pictures(Encoded.files(files), (12, 10), memory=needed - 1)
    assert isinstance(array, np.ndarray)
    assert isinstance(stream, Streamed)
    assert errors == stream_errors == {}
    assert array.shape == stream.shape == (20, 12, 10, 3)
    np.testing.assert_array_equal(array, pixels(files))
    np.testing.assert_array_equal(np.concatenate(list(read_batches(stream, 7))), pixels(files))


def test_a_slice_of_a_stream_is_the_slice_of_the_array(files) -> None:
    stream, _ = open_pictures(Encoded.files(files), (12, 10), memory=0)
    for index in (slice(3, 17, 4), np.array([5, 0, 19, 5]), np.array([], int)):
        part = stream[index]
        assert len(part) == part.shape[0] == len(pixels(files)[index])
        batches = list(read_batches(part, 3))
        expected = [pixels(files)[index][start : start + 3] for start in range(0, len(part), 3)]
        assert len(batches) == len(expected)
        for batch, pictures in zip(batches, expected, strict=True):
            np.testing.assert_array_equal(batch, pictures)


@pytest.mark.parametrize("change", ["other picture", "gone", "cut short"])
def test_a_picture_that_changes_after_the_check_is_black_and_named(files, change) -> None:
    stream, errors = open_pictures(Encoded.files(files), (12, 10), memory=0)
    assert errors == {}
    expected = pixels(files)
    if change == "other picture":
        shutil.copy(files[0], files[6])
    elif change == "gone":
        files[6].unlink()
    else:
        os.truncate(files[6], 200)
    expected[6] = 0
    read = list(stream[2:12].read(tf.data.Dataset.range(10)).as_numpy_iterator())
    np.testing.assert_array_equal([picture for picture, _ in read], expected[2:12])
    assert [readable for _, readable in read] == [number != 6 for number in range(2, 12)]
    assert stream.failed == {str(files[6])}


def test_a_strict_stream_raises_with_the_name_of_the_file(files) -> None:
    stream, _ = open_pictures(Encoded.files(files), (12, 10), memory=0, strict=True)
    shutil.copy(files[0], files[6])
    with pytest.raises(tf.errors.OpError, match=r"06\.png: the file is damaged or has changed"):
        list(stream.read(tf.data.Dataset.range(20)))


@pytest.mark.parametrize("memory", [0, None], ids=["streamed", "in memory"])
def test_unreadable_pictures_are_reported_with_their_place_and_reason(files, memory) -> None:
    files[1].unlink()
    files[4].write_bytes(b"")
    files[9].write_bytes(b"hello")
    os.truncate(files[13], 200)
    Image.fromarray(np.zeros((9, 9), "uint8")).convert("P").save(files[19], "BMP")
    pictures, errors = open_pictures(Encoded.files(files), (12, 10), memory=memory)
    assert isinstance(pictures, Streamed) == (memory == 0)
    assert errors == {
        1: "No such file or directory",
        4: "the file is empty (0 bytes)",
        9: "not a JPEG, PNG, BMP, GIF or WebP picture",
        13: "the picture is damaged or cut short",
        19: "a BMP with a palette is not supported; save it as PNG",
    }
    readable = np.delete(np.arange(20), list(errors))
    expected = pixels([files[place] for place in readable])
    np.testing.assert_array_equal(np.concatenate(list(read_batches(pictures[readable], 32))), expected)
