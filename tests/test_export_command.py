"""`kerascnn export RUN`: what was trained, exported again with the same answers, or nothing at all."""

import json
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from apps import export
from apps.committee import Committee, Kept, keep, read_kept
from apps.console import Console
from kerascnn.batch_norm import BatchNorm

QUIET = Console(quiet=True)


@pytest.fixture
def run(digits_run) -> Path:
    return digits_run[0] / "runs/digits"


def copy_of(run: Path, folder: Path, *left_out: str) -> Path:
    """A run folder of links, without some files."""
    folder.mkdir(parents=True)
    for path in run.iterdir():
        if path.name not in left_out:
            os.symlink(path, folder / path.name)
    return folder


def canary_of(saved_model: Path) -> dict[str, object]:
    return json.loads((saved_model / "assets.extra/canary.json").read_text())


def network(seed: int) -> keras.Model:
    """A convolution with BatchNorm whose statistics are those of no picture, one dense layer."""
    keras.utils.set_random_seed(seed)
    generator = np.random.default_rng(seed)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, name="conv")(layers.Rescaling(1 / 255)(inputs))
    norm = BatchNorm(name="norm")
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(norm(x)))
    norm.set_weights([generator.uniform(0.5, 1.5, 6) for _ in range(4)])
    return keras.Model(inputs, {"label": layers.Dense(3, name="label")(x)})


def committee(models: list[keras.Model], **options: object) -> Committee:
    weights = [float(number) for number in range(1, len(models) + 1)]
    return Committee(models, weights, (8, 8), True, 1, {"label": "größe"}, {"label": 0.5}, **options)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3)).astype("uint8")


def answers_of(one: Committee, pixels: np.ndarray) -> np.ndarray:
    classifier = one.classifier()  # its functions do not keep it alive
    return classifier.predict_pixels(pixels)["größe"].numpy()


def test_another_export_of_a_run_gives_the_answers_of_the_first(run, run_here, tmp_path) -> None:
    process = run_here("export", run, "--out", "again", "--name", "other")
    assert process.returncode == 0, process.stderr
    assert process.stdout == (
        "wrote     again/other/1; in a separate process it gave the answers of the trained networks for 100 pictures "
        "of its data\n"
    )
    first, again = run.parent.parent / "saved_models/digits/1", tmp_path / "again/other/1"
    assert canary_of(again)["image_bytes"] == canary_of(first)["image_bytes"]
    np.testing.assert_allclose(
        canary_of(again)["probabilities"]["label"], canary_of(first)["probabilities"]["label"], atol=1e-6
    )
    assert (again / "assets.extra/tf_serving_warmup_requests").stat().st_size > 4 * 16 * 16 * 3
    metadata = [json.loads((one / "assets.extra/kerascnn.json").read_text()) for one in (first, again)]
    assert metadata[1] == {**metadata[0], "name": "other"}
    assert metadata[0]["classifier"]["batch_norm_layers"] == 0
    exported = tf.saved_model.load(str(again))
    assert set(exported.signatures) >= {"serving_default", "serving_bytes", "decode", "serving_sized", "explain"}
    pictures = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype("uint8")
    maps = exported.signatures["explain"](image=tf.constant(pictures))["label"].numpy()
    assert maps.shape == (3, 16, 16)
    assert 0 <= maps.min() < maps.max() <= 1
    card = (again / "assets.extra/MODEL_CARD.md").read_text(encoding="utf-8")
    expected = json.loads((run / "result.json").read_text())["heads"]["label"]["expected"]
    row = f"| label | {expected['value']:.4f} | {expected['low']:.4f} to {expected['high']:.4f} | 144 |"
    assert row in card.splitlines()
    assert card.startswith("# other\n\nAnswers `label`: 10 classes (0, 1, 2, 3, 4, 5, 6, 7, 8, 9).\n")


def test_bfloat16_is_exported_with_float32_answers_near_those_of_float32(run, run_here, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(export, "verify", lambda *_: None)  # the process of its own is that of the test above
    process = run_here("export", run, "--precision", "bfloat16", "--no-explain", "--out", "half")
    assert process.returncode == 0, process.stderr
    assert "of the answers for 100 pictures of its data are those of float32" in process.stdout
    exported = tf.saved_model.load(str(tmp_path / "half/digits/1"))
    assert "explain" not in exported.signatures
    assert exported.signatures["serving_default"].structured_outputs["label"].dtype == tf.float32
    metadata = json.loads((tmp_path / "half/digits/1/assets.extra/kerascnn.json").read_text())
    assert metadata["classifier"]["precision"] == "bfloat16"
    first = canary_of(run.parent.parent / "saved_models/digits/1")["probabilities"]["label"]
    gap = np.abs(np.array(canary_of(tmp_path / "half/digits/1")["probabilities"]["label"]) - first).max()
    assert 0 < gap < 0.1


def test_bfloat16_that_changes_answers_is_not_published() -> None:
    checked = export.Checked(None, np.zeros((50, 8, 8, 3)), "pictures")
    right = {"label": np.tile([[0.6, 0.4]], (50, 1))}
    one_wrong = np.array([[0.6, 0.4]] * 49 + [[0.49, 0.51]])
    assert export.require_close(right, {"label": right["label"] + 0.05}, checked).startswith("100.0% of the answers")
    with pytest.raises(RuntimeError, match=r"bfloat16 is too coarse for these networks, nothing was published: 96.0%"):
        export.require_close(right, {"label": np.array([[0.6, 0.4]] * 48 + [[0.49, 0.51]] * 2)}, checked)
    with pytest.raises(RuntimeError, match=r"differ by up to 1.1e-01 \(0.1\)"):
        export.require_close(right, {"label": one_wrong}, checked)


@pytest.mark.parametrize("format", ["litert"])
def test_another_format_appears_whole_with_its_class_names(run, run_here, tmp_path, format) -> None:
    for package in export.FORMATS[format].packages:
        pytest.importorskip(package)
    process = run_here("export", run, "--format", format)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    folder = tmp_path / f"{format}_models/digits/1"
    assert sorted(path.name for path in folder.iterdir()) == sorted(["kerascnn.json", export.FORMATS[format].file])
    assert json.loads((folder / "kerascnn.json").read_text())["classes"] == {"label": [str(n) for n in range(10)]}
    canary = canary_of(run.parent.parent / "saved_models/digits/1")
    pixels = export.decode_all(read_kept(run).canary, (16, 16))
    answers = export.FORMATS[format].run(folder / export.FORMATS[format].file, pixels)["label"]
    np.testing.assert_allclose(answers, canary["probabilities"]["label"], atol=export.LARGEST_DIFFERENCE)


def test_disagreeing_exports_leave_nothing(tmp_path, pixels, monkeypatch) -> None:
    one = committee([network(0)])
    kept = Kept(one, {"classes": {"größe": ["a", "b", "c"]}}, [], {})
    monkeypatch.setattr(export, "write_format", lambda model, format, folder: folder)
    wrong = {"größe": answers_of(one, pixels) + 2e-4}
    monkeypatch.setitem(export.FORMATS, "onnx", export.FORMATS["onnx"]._replace(run=lambda path, pixels: wrong))
    with pytest.raises(RuntimeError, match=r"disagrees with the trained one, nothing was published: .* up to 2.0e-04"):
        export.export_other(kept, one, export.Checked(None, pixels, "pictures"), tmp_path / "a", "onnx")
    assert list((tmp_path / "a").iterdir()) == []
    other = Kept(one, {}, [b"picture"], {"größe": np.full((1, 3), 1 / 3)})
    monkeypatch.setattr(export, "decode_all", lambda encoded, size: pixels[:1])
    with pytest.raises(RuntimeError, match=r"do not answer as its first export does, nothing was published"):
        export.require_first_answers(other, one)


def test_kept_networks_of_an_ensemble_answer_as_before(tmp_path, pixels) -> None:
    one = committee([network(0), network(1), network(2)])
    expected = answers_of(one, pixels)
    one.models[1].save(tmp_path / "model.keras")
    keep(tmp_path, Kept(one, {"classes": {}}, [b"\xff\x00"], {"größe": expected}), one.models[1])
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == [
        "1.keras",
        "3.keras",
        "classifier.json",
        "model.keras",
    ]
    kept = read_kept(tmp_path)
    np.testing.assert_allclose(answers_of(kept.committee, pixels), expected, atol=1e-6)
    np.testing.assert_array_equal(kept.answers["größe"], expected)
    assert (kept.canary, kept.metadata) == ([b"\xff\x00"], {"classes": {}})
    (tmp_path / "networks/3.keras").unlink()
    with pytest.raises(FileNotFoundError, match=r"has lost networks/3.keras, which classifier.json names"):
        read_kept(tmp_path)
    (tmp_path / "classifier.json").write_text("{}")
    with pytest.raises(ValueError, match=r"classifier.json is damaged"):
        read_kept(tmp_path)


def test_folded_networks_answer_within_a_ten_thousandth(pixels, capsys) -> None:
    one = committee([network(0), network(1)])
    folded = one.folded(pixels[:4], QUIET)
    left = [either.classifier().describe()["batch_norm_layers"] for either in (one, folded)]
    assert left == [1, 0]
    assert 0 < np.abs(answers_of(folded, pixels) - answers_of(one, pixels)).max() < 1e-4
    assert capsys.readouterr().err == ""


def test_a_network_that_cannot_be_folded_is_exported_as_it_is(pixels, capsys) -> None:
    inputs = keras.Input((8, 8, 3))
    logits = layers.Dense(2)(layers.Flatten()(layers.BatchNormalization(axis=1, name="odd")(inputs)))
    model = keras.Model(inputs, {"label": logits})
    assert committee([model]).folded(pixels, QUIET).models == [model]
    assert capsys.readouterr().err == (
        "warning: BatchNorm is exported as it is, which is slower. BatchNorm 'odd' must work on the last axis. "
        "Received: axis=1.\n"
    )


def test_lost_data_leave_the_canary_pictures_to_check_with(run, tmp_path, capsys) -> None:
    kept = read_kept(run)
    record = {"data": str(tmp_path / "gone"), "columns": {"targets": None, "group": None, "id_column": None}}
    checked = export.find_pictures(record, kept, tmp_path, QUIET)
    assert (len(checked.encoded), checked.pixels.shape, checked.name) == (4, (4, 16, 16, 3), "canary pictures")
    assert [checked.encoded.read(place) for place in range(4)] == kept.canary
    assert capsys.readouterr().err.startswith("warning: Only the 4 canary pictures of the run check this export: ")
    with pytest.raises(ValueError, match=r"There is no picture to check the export with"):
        export.find_pictures(record, Kept(kept.committee, {}, [], {}), tmp_path, QUIET)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("runs/digit",), "runs/digit is no run folder: it has no recipe.json. Did you mean runs/digits?"),
        (("digits",), "digits is no run folder: it has no recipe.json. Did you mean runs/digits?"),
        (
            ("runs/half",),
            "runs/half is not finished: there is nothing to export yet. Go on with: kerascnn compete digits ",
        ),
        (
            ("runs/old",),
            "runs/old has no classifier.json: it was finished by an older version. Its SavedModel is whole.",
        ),
        (("runs/digits", "--format", "savedmodel"), "Did you mean saved_model?"),
        (
            ("runs/digits", "--precision", "float16"),
            "`precision` must be one of float32, bfloat16. Received: 'float16'.",
        ),
        (
            ("runs/digits", "--precision", "bfloat16", "--format", "onnx"),
            "is for SavedModels; the format onnx is written",
        ),
        (("runs/digits", "--name", "a/b"), "`--name` must be one part of a path, such as digits. Received: 'a/b'."),
        (("runs/digits", "--out", "others"), "others/digits has versions of another format (model.onnx)."),
    ],
)
def test_what_cannot_be_exported_is_one_line(run, run_here, tmp_path, arguments, message) -> None:
    copy_of(run, tmp_path / "runs/digits")
    copy_of(run, tmp_path / "runs/half", "result.json")
    copy_of(run, tmp_path / "runs/old", "classifier.json")
    (tmp_path / "others/digits/1").mkdir(parents=True)
    (tmp_path / "others/digits/1/model.onnx").touch()
    if "onnx" in arguments:
        pytest.importorskip("tf2onnx")
    process = run_here("export", *arguments)
    assert (process.returncode, process.stdout) == (2, "")
    (line,) = process.stderr.splitlines()
    assert message in line
    shutil.rmtree(tmp_path / "others")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]
