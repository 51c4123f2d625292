"""`kerascnn explain`: its page, its options, and what it says where something is missing."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from apps import explain
from apps.explain.asked import parse_asked
from apps.explain.sections import strongest_units
from apps.explain.subject import given_pictures, open_subject, telling, validation_pictures
from apps.finished_run import Validation
from apps.predict import Item
from pipelines.sources import open_dataset


class Page(HTMLParser):
    """Ids, links, texts of pictures and words of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.alternatives, self.ids, self.links, self.words = [], set(), [], ""
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        if tag == "img":
            self.alternatives.append(found.get("alt"))
            assert found["src"].startswith("data:image/")
        if "id" in found:
            self.ids.add(found["id"])
        if tag == "a":
            self.links.append(found["href"])

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def subject(digits_run):
    return open_subject(str(digits_run[0] / "runs/digits"), None)


def test_made_pictures_exceed_all_held_out_ones_for_every_class_layer_and_unit_that_is_shown(subject) -> None:
    network = subject.network
    reference, _ = validation_pictures(subject.run, network)
    assert len(reference.names) == 144
    layers = network.shown_layers()
    targets = [*parse_asked(network, [], [], []).classes, *strongest_units(network, layers, reference.pixels)]
    assert len(targets) == 26  # ten classes, four layers, three units of each
    made, values, real = explain.maximise_beyond(network, targets, reference.pixels)
    np.testing.assert_array_equal(real, explain.target_values(network, targets, reference.pixels))
    assert (values > real.max(axis=0)).all()
    np.testing.assert_allclose(np.diag(explain.target_values(network, targets, made)), values, rtol=1e-3)
    assert np.ptp(made.astype(int), axis=-1).max() <= 1  # grey, as the digits are


def test_held_out_pictures_are_those_of_the_run_and_answered_as_it_says(subject) -> None:
    reference, said = validation_pictures(subject.run, subject.network)
    assert reference.names == subject.run.validation.ids.tolist()
    answers = subject.network.probabilities(reference.pixels)["label"].argmax(axis=1)
    assert (answers == said.answer["label"]).mean() > 0.98  # the run averages shifted views


def test_only_pictures_that_the_network_shown_was_not_trained_on_count_as_held_out(subject) -> None:
    """Of folds, those of the first; and the mistakes are the network's own where the run has several."""
    validation = subject.run.validation
    run = replace(subject.run, validation=replace(validation, fold=np.arange(144) % 3 + 1))
    reference, said = validation_pictures(run, subject.network, alone=False)
    assert reference.names == validation.ids[::3].tolist()
    own = subject.network.probabilities(reference.pixels)["label"]
    np.testing.assert_array_equal(said.answer["label"], own.argmax(axis=1))
    np.testing.assert_allclose(said.confidence["label"], own.max(axis=1))


def test_page_of_a_run_shows_every_part_and_needs_no_network(digits_run, run_here, tmp_path) -> None:
    run = digits_run[0] / "runs/digits"
    command = ("explain", run, "--out", "page.html", "--steps", 8, "--class", "7", "--layer", "layer2_act")
    done = run_here(*command, "--unit", "layer1_act:3")
    assert done.returncode == 0, done.stderr
    page = Page(tmp_path / "page.html")
    assert page.ids >= {"filters", "looking", "maps", "classes", "units", "receptive", "hidden"}
    assert all(page.alternatives)
    assert [link for link in page.links if not link.startswith(("#", "https://arxiv.org", "https://distill.pub"))] == []
    assert "<script" not in page.text and "url(" not in page.text
    assert "What is measured is compared with 144 held-out pictures." in page.words
    assert "unit 3" in page.words and "layer2_act: 8x8, 128 channels" in page.words
    for what in ("filters", "pictures", "maps", "maximised", "receptive", "units", "wrote"):
        assert re.search(rf"^{what} ", done.stdout, re.MULTILINE), done.stdout
    assert len(list((tmp_path).iterdir())) == 1
    again = run_here(*command)
    assert again.returncode == 2
    assert again.stderr == "kerascnn: error: page.html exists. Choose another name by `--out`, or say `--overwrite`.\n"


def test_given_pictures_are_decoded_as_in_training_and_compared_with_the_held_out_ones(
    digits_run, run_here, tmp_path, subject
) -> None:
    train = open_dataset("digits").train
    held_out, _ = validation_pictures(subject.run, subject.network)
    path = Path(train["path"][list(train["id"]).index(held_out.names[5])])
    pixels, failed = given_pictures([Item("mine", path), Item("lost", None)], subject.network)
    np.testing.assert_array_equal(pixels.pixels[0], held_out.pixels[5])
    assert list(failed) == ["lost"]
    (tmp_path / "broken.png").write_bytes(b"none")
    Image.fromarray(np.zeros((40, 30), "uint8")).save(tmp_path / "black.png")
    options = ("--steps", 1, "--class", "1", "--unit", "prep_act:0", "--out", "page.html", "--quiet")
    done = run_here("explain", digits_run[0] / "runs/digits", "black.png", "broken.png", *options)
    assert (done.returncode, done.stdout) == (0, "")
    assert re.search(r"^warning: broken.png: not a JPEG", done.stderr, re.MULTILINE)
    words = Page(tmp_path / "page.html").words
    assert "black.png" in words and "144 held-out" in words


def test_run_whose_data_are_gone_shows_what_needs_no_pictures(digits_run, run_here, tmp_path) -> None:
    run = tmp_path / "moved"
    shutil.copytree(digits_run[0] / "runs/digits", run, ignore=shutil.ignore_patterns("checkpoints"))
    record = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    (run / "recipe.json").write_text(json.dumps(record | {"data": "lost/data"}), encoding="utf-8")
    done = run_here("explain", "moved", "--steps", 1, "--class", "1", "--unit", "prep_act:0")
    assert done.returncode == 0, done.stderr
    assert "held-out pictures left out: There is no file or folder lost/data." in done.stdout
    page = Page(run / "explain.html")
    assert {"filters", "classes", "units", "receptive"} <= page.ids
    assert not {"looking", "maps", "hidden"} & page.ids
    assert "There is no file or folder lost/data" in page.words


def test_keras_file_of_a_grey_two_headed_network_of_every_size(run_here, tmp_path) -> None:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    inputs = keras.Input((None, None, 1))
    x = layers.Conv2D(4, 3, name="conv")(layers.Rescaling(1 / 255)(inputs))
    x = layers.GlobalMaxPooling2D()(layers.ReLU(name="act")(layers.BatchNormalization()(x)))
    outputs = {name: layers.Dense(count, dtype="float32", name=name)(x) for name, count in (("a", 3), ("b", 2))}
    keras.config.set_dtype_policy(policy)
    keras.Model(inputs, outputs).save(tmp_path / "mine.keras")
    Image.fromarray(np.arange(48 * 40 * 3, dtype="uint8").reshape(48, 40, 3)).save(tmp_path / "one.png")
    done = run_here("explain", "mine.keras", "one.png", "--steps", 2)
    assert done.returncode == 0, done.stderr
    page = Page(tmp_path / "mine-explain.html")
    assert page.ids >= {"filters", "looking", "maps", "classes", "units", "receptive", "hidden"}
    assert "pictures of 48x40" in page.words and "1 given picture." in page.words
    done = run_here("explain", "mine.keras", "--steps", 2, "--image-size", "16x24", "--overwrite")
    assert done.returncode == 0, done.stderr
    assert "pictures  left out: none were named" in done.stdout
    assert "hidden" not in Page(tmp_path / "mine-explain.html").ids


def test_network_without_maps_leaves_out_what_needs_them(run_here, tmp_path) -> None:
    parts = [keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(6, "relu", name="units"), layers.Dense(2)]
    keras.Sequential(parts).save(tmp_path / "dense.keras")
    Image.fromarray(np.zeros((8, 8, 3), "uint8")).save(tmp_path / "one.png")
    done = run_here("explain", "dense.keras", "one.png", "--steps", 2)
    assert done.returncode == 0, done.stderr
    for what in ("filters", "Grad-CAM", "maps", "receptive"):
        assert re.search(rf"^{what} +left out: ", done.stdout, re.MULTILINE), done.stdout
    page = Page(tmp_path / "dense-explain.html")
    assert {"looking", "classes", "units", "hidden"} <= page.ids
    assert "Left out" in page.words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lost",), "There is no file or folder lost. Name the folder of a finished run, such as runs/digits, or a "),
        (("resnet9",), "resnet9 is a network without weights, where there is nothing to see. "),
        (("vgg16",), "kerascnn.load_imagenet(kerascnn.build('vgg16', (224, 224, 3), 1000)).save('vgg16.keras')"),
        (("exported",), "exported is a SavedModel, a finished graph whose layers cannot be looked at. Name the folder"),
        (("empty",), "empty is no folder of a run: it has no recipe.json."),
        (("notes.txt",), "notes.txt is neither a run nor a .keras file."),
        (("bad.keras",), "bad.keras cannot be read: "),
        (("bad.keras", "lost.png"), "There is no file or folder lost.png."),
        (("RUN", "--layer", "prep_akt"), "There is no hidden layer 'prep_akt'. Did you mean 'prep_act'?"),
        (("RUN", "--class", "ten"), "There is no class 'ten'."),
        (("RUN", "--unit", "prep_act"), "`--unit` must be LAYER:CHANNEL"),
        (("RUN", "--image-size", "20"), "'resnet9' takes pictures of 16x16. Received: 20x20."),
        (("RUN", "--out", "nowhere/page.html"), "There is no folder"),
    ],
)
def test_wrong_choices_are_one_line_and_write_nothing(arguments, message, digits_run, run_here, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "exported/1").mkdir(parents=True)
    (tmp_path / "exported/1/saved_model.pb").touch()
    for name in ("notes.txt", "bad.keras"):
        (tmp_path / name).write_text("nothing", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    done = run_here("explain", *(digits_run[0] / "runs/digits" if one == "RUN" else one for one in arguments))
    assert done.returncode == 2
    assert done.stderr.startswith("kerascnn: error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr
    assert sorted(tmp_path.rglob("*")) == before
    assert not (digits_run[0] / "runs/digits/explain.html").exists()


def test_pictures_chosen_are_the_surest_mistakes_then_typical_ones_of_every_class() -> None:
    truth = {"a": np.array([0, 0, 1, 1, 2, -1, 0, 1]), "b": np.array([0, 0, 0, 0, 0, 0, 0, -1])}
    answer = {"a": np.array([0, 1, 1, 0, 2, 2, 0, 1]), "b": np.array([0, 0, 0, 0, 1, 0, 0, 1])}
    sure = np.array([0.9, 0.6, 0.8, 0.7, 0.5, 0.99, 0.95, 0.6])
    confidence = {"a": sure, "b": np.array([0.5, 0.5, 0.5, 0.5, 0.65, 0.5, 0.5, 0.99])}
    said = Validation(np.arange(8), np.zeros(8), truth, answer, confidence, None)
    # Mistakes: 3 (0.7), 4 (0.65 in head b), 1 (0.6); not 7, which has no label there, nor 5.
    assert telling(said, 2).tolist() == [3, 6]
    # Typical: 6 of class 0, 2 of class 1, 4 of class 2 (a mistake of the other head), then 0.
    assert telling(said, 6).tolist() == [3, 4, 1, 6, 2, 0]
    assert sorted(telling(said, 20).tolist()) == list(range(8))


def test_held_out_pictures_of_a_run_without_any_are_refused(subject) -> None:
    with pytest.raises(ValueError, match="held nothing out"):
        validation_pictures(replace(subject.run, validation=None), subject.network)
