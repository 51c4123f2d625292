"""`apps.training.train` in parts: smaller pictures first, and going on between the parts."""

import io
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from rich.console import Console as RichConsole

from apps import epoch_log, training, watchers
from apps.compete import make_classifier
from apps.console import Console
from apps.data import Data
from apps.ensemble import Ensemble
from apps.epoch_log import EpochLog
from apps.logs import LogFiles
from apps.network import build_network, check_network, compile_network
from apps.recipes import RECIPES
from apps.resolve import resolve
from callbacks import EarlyStopping, HardestExamples
from callbacks.snapshots import read_snapshot, write_snapshot

CLASSES = {"label": ["dark", "light"]}


@pytest.fixture
def data() -> Data:
    generator = np.random.default_rng(0)
    labels = np.arange(48) % 2
    pictures = generator.integers(0, 128, (48, 18, 18, 3)) + 100 * labels[:, None, None, None]
    return Data(pictures.astype("uint8"), {"label": labels.astype("int32")}, CLASSES)


class StopAt(keras.callbacks.Callback):
    """The end of the process after a step of an epoch, counted in this sitting."""

    def __init__(self, epoch: int, step: int) -> None:
        super().__init__()
        self.at = (epoch, step)

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None) -> None:
        if (self.epoch, batch) == self.at:
            raise KeyboardInterrupt


def train(
    data: Data,
    folder: Path,
    resume: bool = False,
    callbacks: tuple = (),
    seconds: float = 120,
    logs: LogFiles | None = None,
    **choices: object,
) -> training.Trained:
    chosen = {"model": "airbench94", "width": 0.125, "epochs": 4, "batch_size": 8, "precision": "float32"}
    chosen |= {"scales": ((0.5, 0.25), (0.75, 0.25)), "optimizer": "muon_sgd", "lr": 0.02, "image_size": (18, 18)}
    chosen |= choices
    recipe = resolve(chosen, 40, (18, 18), list(CLASSES.values()))
    index = np.arange(48)
    options = {"resume": resume, "callbacks": callbacks, "checkpoint_seconds": seconds, "logs": logs}
    return training.train(recipe, data, index[:40], index[40:], folder, Console(quiet=True), **options)


def test_predictions_average_the_views_that_the_recipe_names() -> None:
    inputs = keras.Input((8, 10, 3))
    trained = SimpleNamespace(models=[keras.Model(inputs, {"label": keras.layers.Flatten()(inputs)})])
    recipe = resolve({"image_size": (8, 10), "flip": False, "views": 2}, 40, (8, 10), list(CLASSES.values()))
    classifier = make_classifier(
        SimpleNamespace(recipe=recipe, data=SimpleNamespace(classes=CLASSES)), [Ensemble([trained], [1.0])]
    )
    assert (classifier.size, classifier.mirror, classifier.shift) == ((8, 10), False, 2)


def test_classifier_carries_the_temperatures_by_the_names_of_the_model() -> None:
    inputs = keras.Input((8, 10, 3))
    classes = {"größe": ["klein", "groß"]}
    trained = SimpleNamespace(models=[keras.Model(inputs, {"gr__e_0": keras.layers.Flatten()(inputs)})])
    recipe = resolve({"image_size": (8, 10)}, 40, (8, 10), list(classes.values()))
    plan = SimpleNamespace(recipe=recipe, data=SimpleNamespace(classes=classes))
    assert make_classifier(plan, [Ensemble([trained], [1.0])], {"größe": 0.5}).temperatures == {"gr__e_0": 0.5}


def test_training_stopped_between_two_sizes_goes_on_to_the_same_weights(data, tmp_path, monkeypatch) -> None:
    begun, batches = [], training.training_batches

    def noted(recipe, data, index, first_epoch, size, only, first_step, devices):
        begun.append((first_epoch, size, None if only is None else len(only)))
        if stop_at == first_epoch:
            raise KeyboardInterrupt
        return batches(recipe, data, index, first_epoch, size, only, first_step, devices)

    monkeypatch.setattr(training, "training_batches", noted)
    stop_at = None
    whole = train(data, tmp_path / "whole", hardest=0.5)
    assert begun == [(0, (9, 9), 40), (1, (14, 14), 20), (2, None, 20), (3, None, 20)]
    assert [row["epoch"] for row in whole.history] == [1, 2, 3, 4]
    assert whole.best_epoch >= 3  # the best of the epochs at full size
    stop_at = 2
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "part", hardest=0.5)
    stop_at = None
    resumed = train(data, tmp_path / "part", resume=True, hardest=0.5)
    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in whole.history]
    for found, expected in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert resumed.seconds > sum(row["seconds"] for row in resumed.history[:2])


@pytest.mark.parametrize(
    "choices", [{"hardest": 0.5}, {"average": "ema", "scales": ()}, {"snapshots": 2, "scales": ()}]
)
def test_training_stopped_within_epochs_goes_on_to_the_same_weights(data, tmp_path, choices) -> None:
    """Epochs of small pictures, of the hardest ones, and one that is interrupted twice."""
    if keras.backend.backend() == "jax" and "hardest" not in choices:
        pytest.skip("A minute of compiling for each; what they are made of is tested on JAX by itself.")
    whole = train(data, tmp_path / "whole", **choices)
    stops = ((False, (0, 3)), (True, (1, 1)), (True, (2, 1)), (True, (2, 0)))
    for resume, at in stops if "hardest" in choices else stops[1::2]:
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "part", resume=resume, callbacks=(StopAt(*at),), seconds=0, **choices)
    resumed = train(data, tmp_path / "part", resume=True, seconds=0, **choices)
    for found, expected in zip(resumed.history, whole.history, strict=True):
        assert {**found, "seconds": 0} == {**expected, "seconds": 0}
    for found, expected in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_timed_training_ends_with_the_schedule_however_long_an_epoch_takes(data, tmp_path) -> None:
    chosen = {"model": "airbench94", "epochs": 20, "width": 0.125, "batch_size": 8, "image_size": (18, 18)}
    recipe = resolve(chosen, 40, (18, 18), [CLASSES["label"]])
    index = np.arange(48)
    options = {"seconds": 1.0, "console": Console(quiet=True)}
    trained = training.train(recipe, data, index[:40], index[40:], tmp_path, **options)
    rates = [row["lr"] for row in trained.history]
    assert 1 <= len(rates) <= 30
    assert len(rates) == 1 or rates[-1] < 0.5 * max(rates)


def test_diverged_training_stays_diverged_when_it_is_resumed(data, tmp_path) -> None:
    """Its loss and weights may be finite where only the validation is not, so that there is a checkpoint of it."""
    train(data, tmp_path, epochs=1, scales=())
    arrays, values = read_snapshot(tmp_path / "last.npz")
    values["states"]["divergence"]["message"] = "Training diverged in epoch 1."
    write_snapshot(tmp_path / "last.npz", arrays, values)
    with pytest.raises(ValueError, match="Training diverged in epoch 1"):
        train(data, tmp_path, resume=True, epochs=1, scales=())


def test_the_best_epoch_is_put_back_once_at_the_end(data, tmp_path, monkeypatch) -> None:
    """Every epoch is a `fit` of its own, and its end must not take the weights of an earlier epoch back."""
    put_back = []
    monkeypatch.setattr(EarlyStopping, "_put_back", lambda stopping: put_back.append(stopping.best_epoch))
    # No epoch with small pictures is the best one, however good its validation.
    monkeypatch.setattr(watchers, "validation_score", lambda logs, heads, score: -float(logs["val_loss"] > 0))
    train(data, tmp_path, hardest=0.5, scales=((0.5, 0.4),), epochs=3)
    assert put_back == [1]


def test_hardest_examples_are_those_whose_loss_was_highest(data, tmp_path, monkeypatch) -> None:
    """Every example's remembered loss is that of the network as it was when the example came."""
    chosen, fit = [], HardestExamples.choose

    def noted(hardest, share):
        chosen.append((hardest.losses.copy(), fit(hardest, share)))
        return chosen[-1][1]

    monkeypatch.setattr(HardestExamples, "choose", noted)
    # Without progress and augmentation the losses of an epoch are those of the network itself.
    still = {"lr": 1e-9, "hardest": 0.25, "epochs": 2, "scales": (), "flip": False, "crop": 0}
    trained = train(data, tmp_path, model="resnet9", norm="none", optimizer="nesterov", label_smoothing=0.0, **still)
    assert np.isinf(chosen[0][0]).all()
    losses, hardest = chosen[1]
    model, truth = trained.model, data.labels["label"][:40]
    logits = keras.ops.convert_to_numpy(model(data.pictures[:40].astype("float32"), training=True)["label"])
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(40), truth]
    np.testing.assert_allclose(losses, expected, rtol=1e-3, atol=1e-4)
    assert sorted(hardest) == sorted(np.argsort(-expected)[:10])


def test_networks_that_flatten_their_picture_refuse_smaller_ones(data) -> None:
    recipe = resolve({"model": "lenet5", "scales": ((0.5, 0.5),)}, 40, (18, 18), list(CLASSES.values()))
    with pytest.raises(ValueError, match="flattens the picture: its height and width must be given"):
        check_network(recipe, data.num_classes)


def test_sizes_that_the_network_cannot_reduce_are_refused(data) -> None:
    recipe = resolve({"model": "airbench94", "scales": ((0.5, 0.5),)}, 40, (16, 16), list(CLASSES.values()))
    with pytest.raises(ValueError, match=r"`airbench behind its whitening` needs 8 pixels .* Received: 7x7"):
        check_network(recipe, data.num_classes)


@pytest.mark.parametrize("name", ["cifar10-fast", "cifar10-classic", "cifar10-best"])
def test_recipes_train(data, tmp_path, name) -> None:
    """Every recipe for CIFAR-10, with a small part of its network and pictures: the loss falls, on every backend."""
    choices = {**RECIPES[name], "width": 0.125, "epochs": 3, "batch_size": 10, "image_size": (18, 18)}
    trained = train(data, tmp_path, **{"scales": (), **choices})
    assert len(trained.history) == 3
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]


def test_training_that_stops_early_says_so(data, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(watchers, "validation_score", lambda logs, heads, score: 0.5)
    chosen = {"model": "resnet9", "width": 0.125, "epochs": 4, "batch_size": 8, "precision": "float32", "patience": 1}
    recipe = resolve({**chosen, "image_size": (18, 18)}, 40, (18, 18), list(CLASSES.values()))
    index = np.arange(48)
    trained = training.train(recipe, data, index[:40], index[40:], tmp_path, Console())
    assert (len(trained.history), trained.best_epoch) == (2, 1)
    assert "training: stopped early: no epoch after 1 was better" in capsys.readouterr().out


def test_time_left_knows_that_small_pictures_take_less(monkeypatch) -> None:
    """Two epochs of 10 s and two that take twice as long; then a second sitting that begins with the last."""
    now = [100.0]
    monkeypatch.setattr(epoch_log.time, "monotonic", lambda: now[0])
    log = EpochLog(Console(quiet=True), "training", [4, 4, 4, 4], ["label"], work=[4, 4, 8, 8])
    log.on_train_begin()
    now[0] += 5
    assert log._seconds_left(0, 2) == pytest.approx(55)
    now[0] += 15
    assert log._seconds_left(2, 0) == pytest.approx(40)
    log.history = [{}, {}, {}]
    log.on_train_begin()
    now[0] += 10
    assert log._seconds_left(3, 2) == pytest.approx(10)


def test_epochs_of_small_pictures_count_as_less_work(data, tmp_path, monkeypatch) -> None:
    given: list[float] = []

    class Log(EpochLog):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            given.extend(self.work)
            raise KeyboardInterrupt  # enough is known

    monkeypatch.setattr(training, "EpochLog", Log)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path)
    assert given == [5 * 9 * 9, 5 * 14 * 14, 5 * 18 * 18, 5 * 18 * 18]


def test_whitening_is_fitted_before_the_training(data, tmp_path) -> None:
    filters = train(data, tmp_path, epochs=1, scales=()).model.get_layer("whitening").get_weights()[0]
    assert np.count_nonzero(filters) > 0.9 * filters.size  # until it is fitted, one value of a filter is not 0


def test_steps_are_compiled_on_jax_and_not_by_xla_on_tensorflow(data) -> None:
    recipe = resolve({"model": "resnet9", "width": 0.125, "image_size": (18, 18)}, 40, (18, 18), list(CLASSES.values()))
    model = build_network(recipe, data, "float32")
    compile_network(model, recipe, data.num_classes, 1)
    assert bool(model.jit_compile) == (keras.backend.backend() != "tensorflow")


def test_bar_shows_the_time_left_that_it_is_told(monkeypatch) -> None:
    monkeypatch.setattr("apps.console.SECONDS_BETWEEN_LINES", 0.0)
    for terminal in (False, True):
        shown = io.StringIO()
        console = Console(file=shown)
        if terminal:
            console._rich = RichConsole(file=shown, force_terminal=True, width=120)
        with console.progress("training", 8) as bar:
            bar.update(2, "epoch 1", left=90)
        assert "training epoch 1" in shown.getvalue()
        assert "1 min 30 s left" in shown.getvalue()
