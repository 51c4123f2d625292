"""Several networks for a split: seeds, snapshots, averaged weights, the choice among them, and one export of them."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from scipy.special import softmax

from apps import beginning, compete, training, trainings
from apps.committee import read_kept
from apps.console import Console
from apps.data import Data
from apps.ensemble import Ensemble, average, cross_fitted, flatten, gains, halves, make_ensemble, score, select
from apps.kept_weights import cycles, cycles_schedule, first_averaged, kept_epochs
from apps.recipe import override
from apps.resolve import resolve
from callbacks.snapshots import read_snapshot
from pipelines.labels import MISSING

CLASSES = {"label": ["dark", "light"]}


def binary(*right: float) -> dict[str, np.ndarray]:
    """Answers of a network that gives the right class, the first, these probabilities."""
    return {"label": np.stack([right, 1 - np.array(right)], axis=1)}


def random_case(seed: int, networks: int = 4) -> tuple[list[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Networks that know something of two heads of 40 pictures; some labels are missing."""
    generator = np.random.default_rng(seed)
    labels = {"a": generator.integers(0, 3, 40), "b": generator.integers(0, 5, 40)}
    answers = []
    for _ in range(networks):
        logits = {head: generator.normal(0, 1, (40, count)) for head, count in (("a", 3), ("b", 5))}
        for head, truth in labels.items():
            logits[head][np.arange(40), truth] += generator.uniform(0.2, 1.5)
        answers.append({head: softmax(values, axis=1) for head, values in logits.items()})
    labels["a"][:7] = MISSING
    return answers, labels


def test_selection_takes_the_best_one_twice_where_that_is_surest() -> None:
    """By hand: A 1/2 right, B 1/2, both together 2/2, log loss 1.02; A twice and B 0.99; A thrice and B 1/2 right."""
    answers = [binary(0.9, 0.4), binary(0.35, 0.75)]
    assert select(answers, {"label": np.zeros(2, int)}) == [2, 1]


def test_selection_adds_networks_as_long_as_it_helps() -> None:
    """By hand: A is right on 2, B and C on 1 of 4; A and B on 3; all on 4, with any of them twice on 2 or 3."""
    answers = [binary(0.3, 0.3, 0.35, 0.9), binary(0.9, 0.9, 0.4, 0.4), binary(0.38, 0.38, 0.8, 0.4)]
    assert select(answers, {"label": np.zeros(4, int)}) == [1, 1, 1]


def test_useless_network_is_left_out() -> None:
    answers = [binary(0.1, 0.1, 0.1), binary(0.8, 0.9, 0.4), binary(0.8, 0.9, 0.4)]
    assert select(answers, {"label": np.zeros(3, int)})[0] == 0


@pytest.mark.parametrize("seed", range(25))
def test_selection_is_never_worse_than_a_single_network_or_than_all_and_one_more_never_better(seed) -> None:
    answers, labels = random_case(seed)
    counts = select(answers, labels)
    best = score(average(answers, counts), labels)
    assert best >= max(score(one, labels) for one in answers)
    assert best >= score(average(answers, [1] * len(answers)), labels)
    for place in range(len(answers)):
        more = [count + (number == place) for number, count in enumerate(counts)]
        assert score(average(answers, more), labels)[0] <= best[0]
        assert sum(counts) > 50 or score(average(answers, more), labels) <= (best[0], best[1] + 1e-12)


def test_score_is_the_mean_over_the_heads_of_the_pictures_with_labels() -> None:
    labels = {"a": np.array([0, MISSING, 1]), "b": np.array([1, 1, 0]), "none": np.full(3, MISSING)}
    answers = {"a": binary(0.8, 0.3, 0.4)["label"], "b": binary(0.7, 0.1, 0.6)["label"], "none": np.ones((3, 2)) / 2}
    accuracy, loss = score(answers, labels)
    assert accuracy == pytest.approx((2 / 2 + 2 / 3) / 2)
    assert loss == pytest.approx((np.log([0.8, 0.6]).mean() + np.log([0.3, 0.9, 0.6]).mean()) / 2)


def test_no_picture_chooses_the_networks_that_answer_for_it() -> None:
    answers, labels = random_case(3)
    groups = np.arange(40) // 4
    first = halves(groups, seed=5)
    assert 16 <= first.sum() <= 24
    assert all(len(set(first[groups == group])) == 1 for group in range(10))
    said = cross_fitted(answers, labels, groups, seed=5)
    changed = {head: np.where(first, (values + 1) % 3, values) for head, values in labels.items()}
    again = cross_fitted(answers, changed, groups, seed=5)
    for head in labels:
        np.testing.assert_array_equal(said[head][first], again[head][first])
        np.testing.assert_allclose(said[head].sum(axis=1), 1)
        assert (said[head][~first] != again[head][~first]).any()


def constant(*logits: float) -> keras.Model:
    """A network that answers every picture alike."""
    inputs = keras.Input((8, 8, 3))
    layer = keras.layers.Dense(2, kernel_initializer="zeros", name="label")
    model = keras.Model(inputs, {"label": layer(keras.layers.Flatten()(inputs))})
    layer.bias.assign(logits)
    return model


def test_classifier_is_the_weighted_mean_in_which_every_split_counts_alike() -> None:
    logits = [(0.0, 1.0), (2.0, 0.0), (0.5, 0.0), (-1.0, 3.0)]
    models = [constant(*one) for one in logits]
    splits = [
        Ensemble([SimpleNamespace(models=models[:2]), SimpleNamespace(models=models[2:3])], [0.5, 0.0, 0.5]),
        Ensemble([SimpleNamespace(models=models[3:])], [1.0]),
    ]
    recipe = resolve({"image_size": (8, 8), "flip": True, "views": 1}, 40, (8, 8), list(CLASSES.values()))
    plan = SimpleNamespace(recipe=recipe, data=SimpleNamespace(classes=CLASSES))
    classifier = compete.make_classifier(plan, splits)
    assert classifier.models == [models[0], models[2], models[3]]
    answers = classifier.predict_pixels(tf.zeros((2, 8, 8, 3), tf.uint8))["label"].numpy()
    expected = np.average(softmax(logits, axis=1), axis=0, weights=[1, 0, 1, 2])
    np.testing.assert_allclose(answers, [expected, expected], rtol=1e-6)


def test_gain_is_over_the_pictures_of_all_splits() -> None:
    labels = {"label": np.zeros(4, int)}
    networks = [SimpleNamespace(models=[None]), SimpleNamespace(models=[None])]
    one = make_ensemble(networks, [binary(0.9, 0.9, 0.1, 0.1), binary(0.4, 0.4, 0.4, 0.4)], labels, choose=False)
    two = make_ensemble(networks, [binary(0.9, 0.3), binary(0.3, 0.9)], {"label": np.zeros(2, int)}, choose=False)
    assert flatten([one])[1] == [0.5, 0.5]
    found = gains([one, two])["label"]
    assert found == {
        "together": pytest.approx((2 + 2) / 6),
        "expected": pytest.approx((2 + 2) / 6),
        "alone": pytest.approx((1 + 1) / 6),
        "worst_alone": pytest.approx((0 + 1) / 6),
        "best_alone": pytest.approx((2 + 1) / 6),
    }
    assert gains([make_ensemble(networks[:1], [binary(0.9)], {"label": np.zeros(1, int)})]) == {}
    assert gains([make_ensemble(networks)]) == {}


def recipe_of(**choices: object):
    chosen = {"model": "resnet9", "width": 0.125, "epochs": 4, "batch_size": 8, "precision": "float32", "val": 0.2}
    return resolve({**chosen, "image_size": (10, 10), **choices}, 40, (10, 10), list(CLASSES.values()))


def test_rate_of_cycles_rises_once_and_is_near_zero_at_the_end_of_each() -> None:
    recipe = recipe_of(epochs=11, snapshots=3, lr=0.4, warmup=0.25)
    assert cycles(recipe) == [4, 4, 3]
    assert kept_epochs(recipe, 2) == [4, 8, 11]
    rates = [float(cycles_schedule(recipe, 110)(step)) for step in range(110)]
    assert rates[:11] == sorted(rates[:11])
    assert rates[10] == pytest.approx(0.4 * (1 + np.cos(np.pi / 4)) / 2, rel=1e-5)  # a quarter of 40 steps
    assert [rates[40], rates[80]] == pytest.approx([0.4, 0.4])
    for end, length in ((40, 40), (80, 40), (110, 30)):
        assert rates[end - 1] == pytest.approx(0.4 * (1 - np.cos(np.pi / length)) / 2, rel=1e-3)
        assert rates[end - 1] < 0.002


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"snapshots": 5}, "`snapshots` must be at most `epochs`.* Received: snapshots=5, epochs=4"),
        ({"snapshots": 2, "scales": ((0.8, 0.5),)}, "`scales` does not go with `snapshots`"),
        ({"snapshots": 2, "hardest": 0.5}, "`hardest` does not go with `snapshots`"),
        ({"snapshots": 2, "patience": 3}, "`patience` does not go with `snapshots`.* Received: patience=3"),
        ({"snapshots": 2, "average": "ema"}, "`average` does not go with `snapshots`"),
        ({"seed": 2**31 - 1, "seeds": 2}, "`seed` \\+ `seeds` must be at most"),
        ({"seeds": 0}, "`seeds` must be at least 1"),
        ({"average": "mean"}, "`average` must be one of none, ema, swa"),
    ],
)
def test_what_makes_no_sense_together_is_refused(choices, message) -> None:
    with pytest.raises(ValueError, match=message):
        recipe_of(**choices)


def test_patience_of_a_recipe_is_for_one_cycle() -> None:
    base = {"model": "resnet9", "patience": 8}
    assert override(base, {"snapshots": 3}) == {"model": "resnet9", "snapshots": 3}
    assert override(base, {"snapshots": 1}) == {**base, "snapshots": 1}
    assert (recipe_of(snapshots=2).patience, recipe_of().patience) == (0, 10)


@pytest.mark.parametrize(("epochs", "first"), [(1, 0), (2, 1), (3, 2), (4, 3), (8, 6), (40, 30)])
def test_swa_averages_the_last_quarter_of_the_epochs(epochs, first) -> None:
    assert first_averaged(recipe_of(epochs=epochs)) == first


def test_swa_averages_no_epoch_with_small_pictures() -> None:
    assert first_averaged(recipe_of(epochs=8, scales=((0.8, 0.9),))) == 7


@pytest.fixture
def data() -> Data:
    generator = np.random.default_rng(0)
    labels = np.arange(48) % 2
    pictures = generator.integers(0, 128, (48, 10, 10, 3)) + 100 * labels[:, None, None, None]
    return Data(pictures.astype("uint8"), {"label": labels.astype("int32")}, CLASSES)


def train(data: Data, folder: Path, held_out: int = 8, resume: bool = False, callbacks=(), **choices: object):
    index = np.arange(48)
    recipe = recipe_of(**choices)
    parts = index[: 48 - held_out], index[48 - held_out :]
    return training.train(recipe, data, *parts, folder, Console(quiet=True), resume=resume, callbacks=callbacks)


class KeepCopy(keras.callbacks.Callback):
    """Copy the folder as it is when an epoch begins: what a training leaves that is killed then."""

    def __init__(self, folder: Path, copy: Path, epoch: int) -> None:
        super().__init__()
        self.folder, self.copy, self.epoch = folder, copy, epoch

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        if epoch == self.epoch:
            shutil.copytree(self.folder, self.copy)


@pytest.mark.parametrize("choices", [{"average": "ema"}, {"average": "swa", "epochs": 5}, {"snapshots": 2}])
def test_resumed_training_yields_the_networks_of_an_uninterrupted_one(data, tmp_path, choices) -> None:
    first = KeepCopy(tmp_path / "whole", tmp_path / "part", epoch=4 if choices.get("average") == "swa" else 2)
    whole = train(data, tmp_path / "whole", callbacks=[first], **choices)
    resumed = train(data, tmp_path / "part", resume=True, **choices)
    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in whole.history]
    assert [row["val_loss"] for row in resumed.history] == [row["val_loss"] for row in whole.history]
    assert len(resumed.models) == len(whole.models) == choices.get("snapshots", 1)
    for found, expected in zip(resumed.models, whole.models, strict=True):
        for one, other in zip(found.get_weights(), expected.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
    if choices.get("average") == "ema":
        check_that_epochs_are_judged_by_the_average_that_is_kept(data, whole)


def check_that_epochs_are_judged_by_the_average_that_is_kept(data: Data, trained: training.Trained) -> None:
    row = trained.history[trained.best_epoch - 1]
    logits = trained.model(data.pictures[40:].astype("float32"), training=False)["label"].numpy()
    losses = -np.log(softmax(logits, axis=1)[np.arange(8), data.labels["label"][40:]])
    assert row["val_loss"] == pytest.approx(losses.mean(), rel=1e-4)
    assert row["raw_val_loss"] != pytest.approx(losses.mean(), rel=1e-4)
    assert trained.score == pytest.approx(row["val_accuracy"] - 1e-6 * row["val_loss"])


def test_average_without_held_out_pictures_comes_back_after_the_training_has_ended(data, tmp_path) -> None:
    whole = train(data, tmp_path, held_out=0, epochs=1, average="ema")
    raw = next(array for array in read_snapshot(tmp_path / "last.npz")[0] if array.shape == (3, 3, 3, 8))
    again = train(data, tmp_path, held_out=0, epochs=1, average="ema", resume=True)
    for one, other in zip(again.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not any(np.array_equal(raw, array) for array in whole.model.get_weights())


def test_every_network_has_its_seed_its_folder_and_its_name(monkeypatch, tmp_path) -> None:
    def noted(recipe, data, train_index, val_index, folder, console, what, resume, **_):
        trained.append((recipe.seed, folder.relative_to(tmp_path).as_posix(), what, resume))
        return SimpleNamespace(models=[None], seconds=1.0)

    monkeypatch.setattr(trainings, "train", noted)
    none = np.array([], int)
    for seeds, expected in (
        (1, [(7, "checkpoints/2", "fold 2 of 2", True)]),
        (
            2,
            [
                (7, "checkpoints/2-1", "fold 2 of 2, network 1 of 2", True),
                (8, "checkpoints/2-2", "fold 2 of 2, network 2 of 2", True),
            ],
        ),
    ):
        trained: list = []
        plan = SimpleNamespace(recipe=recipe_of(seed=7, seeds=seeds), splits=[(none, none)] * 2, data=None)
        order = SimpleNamespace(checkpoint_minutes=2.0, tensorboard=False)
        found = trainings.train_all(plan, tmp_path, order, True, Console(quiet=True), None)
        assert [len(networks) for networks in found] == [seeds] * 2
        assert trained[seeds:] == expected


def test_networks_are_weighed_one_by_one_and_stay_as_they_are() -> None:
    """Two splits; of the second, the first network knows the dark and the other the light ones."""
    dark, light = (4.0, 0.0), (0.0, 2.0)
    trained = [
        [trained_of(constant(*light), constant(*dark))],
        [trained_of(constant(*dark)), trained_of(constant(*light))],
    ]
    recipe = recipe_of(image_size=(8, 8), seeds=2, select=False)
    labels = {"label": np.array([0, 0, 1, 0, 0, 0, 1, 1])}
    data = Data(np.zeros((8, 8, 8, 3), "uint8"), labels, CLASSES)
    splits = [(np.arange(4), np.arange(4, 8)), (np.arange(4, 8), np.arange(4))]
    plan = SimpleNamespace(recipe=recipe, data=data, splits=splits, groups=None)
    before = [model.get_weights() for split in trained for one in split for model in one.models]
    first, second = compete.weigh(plan, trained)
    assert first.alone == [{"label": 0.5}, {"label": 0.5}]
    assert second.alone == [{"label": 0.75}, {"label": 0.25}]
    np.testing.assert_allclose(second.held_out["label"][0], softmax([dark, light], axis=1).mean(axis=0), rtol=1e-6)
    for model, weights in zip([*first.models, *second.models], before, strict=True):
        assert all(map(np.array_equal, model.get_weights(), weights))
    plan.splits = [(np.arange(8), np.array([], int))] * 2
    assert [(one.weights, one.held_out) for one in compete.weigh(plan, trained)] == [([0.5, 0.5], None)] * 2


def trained_of(*models: keras.Model) -> training.Trained:
    return training.Trained(models[-1], [], 1, None, 1.0, 1.0, earlier=models[:-1])


def test_dry_run_counts_all_networks(monkeypatch, run_here, colours) -> None:
    counted: list[int] = []
    speed = SimpleNamespace(of_the_rest=lambda work: 1.0)
    speed.of_training = lambda recipe, work: counted.extend(work.trained) or 1.0
    monkeypatch.setattr(beginning, "measure_speed", lambda recipe, data: speed)
    process = run_here("compete", colours, "--dry-run", "--seeds", 3, "--average", "ema", "--val", 2, "--seed", 4)
    assert process.returncode == 0, process.stderr
    assert counted == [30] * 6
    assert "networks  3 for every split, seeds 4 to 6, averaged weights (EMA)\n" in process.stdout


def test_one_export_gives_the_weighted_mean_of_all_seeds_and_snapshots(run_here, colours, tmp_path) -> None:
    """Two seeds with two snapshots each; their probabilities from the files of their weights, averaged by numpy."""
    size = ("--image-size", 16, "--width", 0.125, "--batch-size", 8, "--precision", "float32")
    plain = ("--no-flip", "--set", "views=0", "--val", 0.4, "--lr", 0.003)
    process = run_here("compete", colours, *size, *plain, "--epochs", 2, "--seeds", 2, "--snapshots", 2, "--out", "out")
    assert process.returncode == 0, process.stderr
    assert "ensemble  label: 4 networks are right together on" in process.stdout
    assert "network 2 of 2: epoch 2 of 2" in process.stdout
    result = json.loads((tmp_path / "out/result.json").read_text())
    networks, gain = result["networks"], result["ensemble"]["label"]
    assert [(one["network"], one["seed"], one["best_epoch"]) for one in networks] == [
        (1, 0, 1),
        (1, 0, 2),
        (2, 1, 1),
        (2, 1, 2),
    ]
    assert result["best_epochs"] == [1, 2, 1, 2]
    alone = [one["validation_accuracy"]["label"] for one in networks]
    assert gain["alone"] == pytest.approx((alone[1] + alone[3]) / 2)  # what the two trainings end with
    assert gain["best_alone"] == max(alone[1], alone[3])
    assert gain["together"] >= max(alone)
    assert gain["expected"] == pytest.approx(result["heads"]["label"]["validation_accuracy"])
    history = pd.read_csv(tmp_path / "out/history.csv")
    assert history[["network", "epoch"]].to_numpy().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert "weight in its fold" in (tmp_path / "out/report.html").read_text(encoding="utf-8")

    exported = tf.saved_model.load(str(tmp_path / "saved_models/out/1"))
    files = sorted((colours / "test").iterdir())
    pixels = np.stack([exported.signatures["decode"](image_bytes=file.read_bytes())["image"] for file in files])
    model = keras.models.load_model(tmp_path / "out/model.keras")
    probabilities = []
    for network in (1, 2):
        for snapshot in (1, 2):
            weights, values = read_snapshot(tmp_path / f"out/checkpoints/1-{network}/cycle-{snapshot:02d}.npz")
            assert values["epoch"] == snapshot - 1
            model.set_weights(weights)
            probabilities.append(softmax(model(pixels.astype("float32"), training=False)["label"].numpy(), axis=1))
    weights = [one["weight"] for one in networks]
    assert sum(weights) == pytest.approx(1)
    expected = np.average(probabilities, axis=0, weights=weights)
    answers = exported.signatures["serving_default"](image=tf.constant(pixels))["label"]
    np.testing.assert_allclose(answers, expected, atol=1e-5)

    kept = read_kept(tmp_path / "out").committee.classifier()
    np.testing.assert_allclose(kept.predict_pixels(pixels)["label"], expected, atol=1e-5)
    assert len(kept.models) == sum(weight > 0 for weight in weights)
