"""Reading competitions: tables as people write them, files as people name them, and what is left out."""

import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import COLOURS, paint

from pipelines import open_dataset
from pipelines.sources import digits_folder
from pipelines.table import read_table


def competition(root: Path, rows: list[str], files: list[str], test: list[str] | None = None) -> Path:
    """A competition with these rows of train.csv (header first), picture files and rows of test.csv."""
    for name in files:
        paint(root / name, (90, 90, 90))
    (root / "train.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    if test is not None:
        (root / "test.csv").write_text("\n".join(test) + "\n", encoding="utf-8")
    return root


def test_ids_keep_leading_zeros_and_need_no_extension(tmp_path) -> None:
    root = competition(
        tmp_path, ["id,label", "007,a", "08,b", "0.50,a"], ["train/007.png", "train/08.jpg", "train/0.50.png"]
    )
    data = open_dataset(root)
    assert data.train["id"].tolist() == ["007", "08", "0.50"]
    assert [path.name for path in data.train["path"]] == ["007.png", "08.jpg", "0.50.png"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_byte_order_mark_line_ends_and_separators_do_not_matter(tmp_path, encoding, newline, separator) -> None:
    text = newline.join([separator.join(row) for row in (["image", "label"], ["ä.png", "größer"], ["b.png", "NA"])])
    (tmp_path / "train.csv").write_bytes(text.encode(encoding))
    paint(tmp_path / "ä.png", (1, 2, 3))
    paint(tmp_path / "b.png", (1, 2, 3))
    data = open_dataset(tmp_path)
    assert data.id_column == "image"
    assert data.classes == {"label": ["NA", "größer"]}


def test_names_match_however_the_system_stores_accents(tmp_path) -> None:
    paint(tmp_path / "train" / (unicodedata.normalize("NFD", "é") + ".png"), (1, 2, 3))
    paint(tmp_path / "train" / "日本.png", (1, 2, 3))
    (tmp_path / "train.csv").write_text("image,label\né,a\n日本,b\n", encoding="utf-8")
    assert open_dataset(tmp_path).left_out == []


def test_same_id_in_train_and_test_means_different_files(tmp_path) -> None:
    files = ["train/1.png", "train/2.png", "test/1.png"]
    data = open_dataset(competition(tmp_path, ["image,label", "1,a", "2,b"], files, ["image", "1"]))
    assert data.train["path"].iloc[0] == tmp_path / "train/1.png"
    assert data.test["path"].iloc[0] == tmp_path / "test/1.png"


def test_rows_without_file_and_files_without_row_are_counted(tmp_path) -> None:
    rows = ["image,label", "1,a", "2,b", "3,a", "4,b"]
    data = open_dataset(competition(tmp_path, rows, ["train/1.png", "train/2.png", "train/9.png", "train/8.png"]))
    assert data.train["id"].tolist() == ["1", "2"]
    assert data.left_out == [
        "2 rows of train.csv without a picture (such as 3, 4)",
        "2 picture files that no row names (such as train/8.png)",
    ]


def test_repeated_ids_are_kept_once_and_contradictions_left_out(tmp_path) -> None:
    rows = ["image,label", "1,a", "1.png,a", "2,b", "3,a", "3.png,b", "4,b"]
    data = open_dataset(competition(tmp_path, rows, [f"train/{index}.png" for index in range(1, 5)]))
    assert data.train["id"].tolist() == ["1", "2", "4"]
    assert "1 row of train.csv that repeat an earlier row (such as 1.png)" in data.left_out
    assert "2 rows of train.csv with different labels for one picture (such as 3, 3.png)" in data.left_out
    assert not any("no row names" in line for line in data.left_out)


def test_missing_label_in_one_head_keeps_the_row(tmp_path) -> None:
    rows = ["image,label,kids", "1,a,yes", "2,,no", "3,b,", "4,,", "5,a,no", "6,b,yes"]
    data = open_dataset(competition(tmp_path, rows, [f"train/{index}.png" for index in range(1, 7)]))
    assert data.targets == ("label", "kids")
    assert data.train["id"].tolist() == ["1", "2", "3", "5", "6"]
    assert data.left_out[0] == "1 row of train.csv without a label (such as 4)"


def test_columns_are_worked_out_and_the_choice_is_explained(tmp_path) -> None:
    rows = ["image,sender_id,label,price,kids"]
    rows += [f"{index},{index % 4},{'ab'[index % 2]},{index * 1.5},{index % 3 == 0}" for index in range(12)]
    data = open_dataset(competition(tmp_path, rows, [f"train/{index}.png" for index in range(12)]))
    assert (data.id_column, data.targets, data.group_column) == ("image", ("label", "kids"), "sender_id")
    assert data.columns == [
        "image: names the picture",
        "price: not used (12 different values in 12 rows are no classes)",
        "label: target, 2 classes",
        "kids: target, 2 classes",
        "sender_id: group, never split between training and validation (4 values; `--group none` for no groups)",
    ]


def test_named_columns_are_taken_as_named(tmp_path) -> None:
    rows = ["image,sender_id,label", *[f"{index},{index % 2},{'ab'[index % 2]}" for index in range(6)]]
    root = competition(tmp_path, rows, [f"train/{index}.png" for index in range(6)])
    data = open_dataset(root, targets=["sender_id"], group="label")
    assert (data.targets, data.group_column) == (("sender_id",), "label")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ["labels"]}, r"train.csv has no column 'labels'. Did you mean 'label'\? Columns: image, label"),
        ({"group": "sender"}, "no column 'sender'"),
        ({"id_column": "file"}, "no column 'file'"),
        ({"targets": ["image"]}, "cannot be the id"),
    ],
)
def test_unknown_column_error_lists_the_columns(tmp_path, options, message) -> None:
    root = competition(tmp_path, ["image,label", "1,a", "2,b"], ["train/1.png", "train/2.png"])
    with pytest.raises(ValueError, match=message):
        open_dataset(root, **options)


@pytest.mark.parametrize(
    ("rows", "files", "message"),
    [
        (["image,label"], ["train/1.png"], "has a header but no rows"),
        (["image,label", "1,a"], [], "There is no picture"),
        (["image,label", "x,a", "y,b"], ["train/1.png"], "No column of train.csv names the picture files"),
        (["image,label", "1,a", "2,a"], ["train/1.png", "train/2.png"], "No column of train.csv looks like classes"),
        (["image,label,label", "1,a,b"], ["train/1.png"], "two columns of one name"),
        (["image,label", "1,a,c,d", "2"], ["train/1.png"], "not a regular table"),
    ],
)
def test_unusable_tables_say_what_is_wrong(tmp_path, rows, files, message) -> None:
    with pytest.raises(ValueError, match=message):
        open_dataset(competition(tmp_path, rows, files))


def test_text_in_another_encoding_is_an_error(tmp_path) -> None:
    (tmp_path / "train.csv").write_bytes("image,label\n1,größe\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        read_table(tmp_path / "train.csv")


def test_missing_and_empty_folders_are_told_apart(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no file or folder .*nowhere"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="Received: an empty folder"):
        open_dataset(tmp_path / "empty")
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(ValueError, match="is not a data set"):
        open_dataset(tmp_path / "note.txt")


def test_class_folders_with_parts(tmp_path) -> None:
    for part, count in (("train", 3), ("val", 1), ("test", 2)):
        for label in ("cat", "dog"):
            for index in range(count):
                paint(tmp_path / part / label / f"{index}.png", (1, 2, 3))
    paint(tmp_path / "test" / "bird" / "0.png", (1, 2, 3))
    data = open_dataset(tmp_path)
    assert data.classes == {"label": ["cat", "dog"]}
    assert data.train["part"].value_counts().to_dict() == {"train": 6, "val": 2}
    assert data.test["id"].tolist()[0] == "test/bird/0.png"
    assert data.left_out == []
    assert data.answers()["label"].tolist() == ["bird", "cat", "cat", "dog", "dog"]


def test_class_folders_without_parts(tmp_path) -> None:
    for label in COLOURS:
        paint(tmp_path / label / "0.png", COLOURS[label])
    data = open_dataset(tmp_path)
    assert (sorted(data.labels["label"]), data.test, data.answers) == (["blue", "green", "red"], None, None)


def test_val_and_test_folders_beside_the_classes_are_no_classes(tmp_path) -> None:
    for name in ("cat/1.png", "dog/1.png", "val/cat/2.png", "test/3.png", "stray.png"):
        paint(tmp_path / name, (1, 2, 3))
    data = open_dataset(tmp_path)
    assert data.classes == {"label": ["cat", "dog"]}
    assert data.train["part"].tolist() == ["val", "train", "train"]
    assert data.test["id"].tolist() == ["test/3.png"]
    assert data.answers is None
    assert data.left_out == ["1 picture file in no class folder (such as stray.png)"]


def test_hidden_pictures_are_never_trained_on_even_without_a_test_table(tmp_path) -> None:
    files = ["extra/1.png", "test/1.png", "test/2.png", "train/1.png", "train/2.png"]
    data = open_dataset(competition(tmp_path, ["image,label", "1,a", "2,b"], files))
    assert data.train["path"].tolist() == [tmp_path / "train/1.png", tmp_path / "train/2.png"]


def test_a_hidden_picture_never_stands_in_for_a_missing_one(tmp_path) -> None:
    files = ["train/1.png", "train/2.png", "test/3.png"]
    data = open_dataset(competition(tmp_path, ["image,label", "1,a", "2,b", "3,a"], files))
    assert data.train["id"].tolist() == ["1", "2"]


def test_a_bare_name_of_two_files_names_none(tmp_path) -> None:
    files = ["masks/1.png", "pics/1.png", "pics/2.png", "pics/3.png"]
    data = open_dataset(competition(tmp_path, ["image,label", "1,a", "2,b", "3,a"], files))
    assert data.train["id"].tolist() == ["2", "3"]


def test_columns_may_be_called_like_our_own(tmp_path) -> None:
    rows = [
        "image,id,path,part",
        *[f"{index},{'ab'[index % 2]},{'xy'[index // 2 % 2]},z{index % 3}" for index in range(6)],
    ]
    root = competition(tmp_path, rows, [f"train/{index}.png" for index in range(6)])
    data = open_dataset(root, targets=["id", "path", "part"])
    assert data.classes == {"id": ["a", "b"], "path": ["x", "y"], "part": ["z0", "z1", "z2"]}
    assert len(data.train) == 6


def test_id_column_names_the_most_different_files(tmp_path) -> None:
    """The labels 0, 1, 2 are names of files as well, and one picture is missing."""
    rows = ["image,label", *[f"{index},{index % 3}" for index in range(9)], "9,0"]
    data = open_dataset(competition(tmp_path, rows, [f"train/{index}.png" for index in range(9)]))
    assert (data.id_column, data.targets) == ("image", ("label",))


def test_another_name_of_the_label_is_no_group(tmp_path) -> None:
    rows = ["image,label,label_id", *[f"{index},{'abc'[index % 3]},{index % 3}" for index in range(9)]]
    data = open_dataset(competition(tmp_path, rows, [f"train/{index}.png" for index in range(9)]))
    assert (data.group_column, data.targets) == (None, ("label",))


def test_group_is_found_also_when_the_target_is_named_and_can_be_refused(tmp_path) -> None:
    rows = ["image,sender_id,label", *[f"{index},{index % 4},{'ab'[index // 4 % 2]}" for index in range(12)]]
    root = competition(tmp_path, rows, [f"train/{index}.png" for index in range(12)])
    assert open_dataset(root, targets=["label"]).group_column == "sender_id"
    assert open_dataset(root, targets=["label"], group="none").group_column is None


def test_archive_is_unpacked_once_and_anew_when_it_changes(colours, tmp_path, cache) -> None:
    archive = tmp_path / "packed.zip"

    def pack(names: list[str]) -> None:
        with zipfile.ZipFile(archive, "w") as members:
            for name in names:
                members.write(colours / name, f"inside/{name}")

    everything = [path.relative_to(colours).as_posix() for path in colours.rglob("*") if path.is_file()]
    pack(everything)
    first = open_dataset(archive)
    assert (first.name, len(first.train), len(first.test)) == ("packed", 60, 9)
    assert open_dataset(archive).train["path"].equals(first.train["path"])
    pack([name for name in everything if not name.startswith("test")])
    assert open_dataset(archive).test is None
    assert not list(cache.glob(".packed*"))


def test_damaged_archive_is_an_error_and_leaves_nothing_behind(tmp_path, cache) -> None:
    archive = tmp_path / "half.zip"
    archive.write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(ValueError, match=r"not a complete \.zip file"):
        open_dataset(archive)
    assert not list(cache.glob("*half*"))


def test_npz_is_laid_out_as_a_competition(tmp_path) -> None:
    generator = np.random.default_rng(0)
    x_train, x_test = (generator.integers(0, 256, (count, 8, 8, 1)).astype("uint8") for count in (6, 2))
    np.savez(tmp_path / "small.npz", x_train=x_train, y_train=[[0], [1], [0], [1], [0], [1]], x_test=x_test)
    data = open_dataset(tmp_path / "small.npz")
    assert data.labels["label"].tolist() == ["0", "1", "0", "1", "0", "1"]
    assert len(data.test) == 2
    assert data.answers is None
    np.savez(tmp_path / "float.npz", x_train=x_train / 255, y_train=np.zeros(6))
    with pytest.raises(ValueError, match=r"must be uint8.*Received: float64 \[6, 8, 8\]"):
        open_dataset(tmp_path / "float.npz")


def test_digits_are_the_1797_of_scikit_learn() -> None:
    from PIL import Image
    from sklearn.datasets import load_digits

    data = open_dataset("digits")
    assert (len(data.train), len(data.test), data.left_out) == (1437, 360, [])
    answers = pd.read_csv(digits_folder() / "answers.csv", dtype=str)
    assert answers["image"].tolist() == data.test["id"].tolist()
    pictures = {np.asarray(Image.open(path)).tobytes() for path in [*data.train["path"], *data.test["path"]]}
    original = {np.round(image * 255 / 16).astype("uint8").tobytes() for image in load_digits().images}
    assert pictures == original


def test_hidden_answers_are_not_read_when_the_data_is_opened(colours) -> None:
    (colours / "answers.csv").write_bytes(b"\xff\xfe not to be read")
    assert open_dataset(colours).answers is not None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": np.zeros((6, 8, 8), "uint8")}, "must hold x_train and y_train"),
        ({"x_train": np.zeros((6, 8, 8), "uint8"), "y_train": np.zeros(5)}, r"\[5\] for 6 pictures"),
        ({"x_train": np.zeros((6, 8, 8), "uint8"), "y_train": np.zeros((6, 3))}, "one class per picture"),
        ({"x_train": np.zeros((6, 3, 8, 8), "uint8"), "y_train": np.zeros(6)}, "must be uint8"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, message) -> None:
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        open_dataset(tmp_path / "wrong.npz")
    (tmp_path / "empty.npz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"not a complete \.npz"):
        open_dataset(tmp_path / "empty.npz")
