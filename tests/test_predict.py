"""`kerascnn predict`: files, folders and lists, readable or not."""

import csv
import shutil

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def model(digits_run):
    return digits_run[0] / "saved_models" / "digits"


@pytest.fixture
def pictures(cache, tmp_path):
    """Four digits, one of them in a sub-folder with a name that is not ASCII, and two files that cannot be read."""
    folder = tmp_path / "pictures"
    (folder / "größe").mkdir(parents=True)
    for index, name in enumerate(("a.png", "b.png", "größe/ü.png", "d.png")):
        shutil.copy(cache / f"digits-1/test/{index:05d}.png", folder / name)
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:40])
    (folder / "text.jpg").write_text("hello")
    return folder


def test_predictions_equal_the_submission(digits_run, model, run_cli, cache, tmp_path) -> None:
    process = run_cli("predict", model, cache / "digits-1/test.csv", "--out", "p.csv")
    assert process.returncode == 0, process.stderr
    ours = pd.read_csv(tmp_path / "p.csv", dtype=str)
    submission = pd.read_csv(digits_run[0] / "runs/digits/submission.csv", dtype=str)
    assert ours["id"].tolist() == submission["image"].tolist()
    assert ours["label"].tolist() == submission["label"].tolist()


def test_unreadable_pictures_are_named_and_do_not_stop_the_rest(model, run_cli, pictures) -> None:
    process = run_cli("predict", model, pictures)
    assert process.returncode == 1
    assert process.stderr.splitlines() == [
        f"warning: {pictures / 'broken.png'}: the picture is damaged or cut short",
        f"warning: {pictures / 'text.jpg'}: not a JPEG, PNG, BMP, GIF or WebP picture",
    ]
    lines = process.stdout.splitlines()
    assert len(lines) == 5  # a header and four pictures
    assert lines[-1].startswith(str(pictures / "größe/ü.png"))
    assert lines[-1].endswith("%")


def test_top_names_the_likeliest_classes_first(model, run_here, pictures, tmp_path) -> None:
    assert run_here("predict", model, pictures / "a.png", "--top", 3, "--out", "p.csv").returncode == 0
    (row,) = csv.DictReader((tmp_path / "p.csv").open())
    assert list(row) == [
        "id",
        "label",
        "label_probability",
        "label_2",
        "label_2_probability",
        "label_3",
        "label_3_probability",
    ]
    values = [float(row[name]) for name in ("label_probability", "label_2_probability", "label_3_probability")]
    assert values == sorted(values, reverse=True)
    assert len({row["label"], row["label_2"], row["label_3"]}) == 3


def test_rows_of_a_list_without_a_file_are_reported(model, run_here, pictures, tmp_path) -> None:
    (pictures / "list.csv").write_text("number,file\n1,a\n2,nothing\n3,größe/ü.png\n")
    process = run_here("predict", model, pictures / "list.csv", "--out", "p.csv")
    assert process.returncode == 1
    assert process.stderr == "warning: nothing: the list names no file of this name\n"
    assert pd.read_csv(tmp_path / "p.csv", dtype=str)["id"].tolist() == ["a", "größe/ü.png"]


def test_existing_output_is_replaced_only_when_asked(model, run_here, pictures, tmp_path) -> None:
    (tmp_path / "p.csv").write_text("mine")
    process = run_here("predict", model, pictures / "a.png", "--out", "p.csv")
    assert (process.returncode, (tmp_path / "p.csv").read_text()) == (2, "mine")
    assert run_here("predict", model, pictures / "a.png", "--out", "p.csv", "--overwrite").returncode == 0
    assert (tmp_path / "p.csv").read_text().startswith("id,label")


def test_list_without_a_header_is_refused_rather_than_losing_a_picture(model, run_here, pictures) -> None:
    (pictures / "list.csv").write_text("a.png\nb.png\n")
    process = run_here("predict", model, pictures / "list.csv")
    assert process.returncode == 2
    assert "needs a header line" in process.stderr


def test_an_empty_newer_version_does_not_hide_the_model(model, run_here, pictures, tmp_path) -> None:
    shutil.copytree(model, tmp_path / "copy")
    (tmp_path / "copy" / "7").mkdir()
    assert run_here("predict", tmp_path / "copy", pictures / "a.png").returncode == 0


def test_unwritable_output_is_an_error_before_any_work(model, run_here, pictures) -> None:
    process = run_here("predict", model, pictures / "a.png", "--out", "no/such/p.csv")
    assert process.returncode == 2
    assert "There is no folder" in process.stderr


@pytest.mark.parametrize(
    ("paths", "message"),
    [(("nowhere.png",), "There is no file or folder nowhere.png"), (("empty",), "There is no picture")],
)
def test_missing_paths_are_an_error_before_any_work(model, run_here, tmp_path, paths, message) -> None:
    (tmp_path / "empty").mkdir()
    process = run_here("predict", model, *paths)
    assert process.returncode == 2
    assert message in process.stderr


def test_a_folder_that_is_no_saved_model_is_refused(run_here, pictures) -> None:
    process = run_here("predict", pictures, pictures)
    assert process.returncode == 2
    assert "There is no SavedModel" in process.stderr


def test_no_pictures_have_no_answers() -> None:
    import tensorflow as tf

    from apps.submission import predict_pictures

    class Blank:
        def predict_pixels(self, batch: np.ndarray) -> dict[str, object]:
            assert len(batch), "some of TensorFlow's convolutions fail on an empty batch"
            return {"label": tf.ones((len(batch), 3))}

    for count in (0, 2):
        found = predict_pictures(Blank(), np.zeros((count, 8, 8, 3), "uint8"))
        assert found["label"].shape == (count, 3)
