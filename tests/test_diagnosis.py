"""The diagnosis finds what was done wrong on purpose, in real trainings, and nothing in good ones."""

import math
import warnings
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.datasets import load_digits

from callbacks import Diagnosis, JsonLog, OneCycle, diagnose, loss_windows, read_log

SEED = 0
JIT = keras.config.backend() == "jax"  # the networks are too small to be worth XLA's compilation


class Rates(keras.callbacks.Callback):
    """Writes the learning rate to the logs."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        logs["lr"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))


@pytest.fixture(scope="module")
def digits() -> SimpleNamespace:
    """600 examples for training, 400 for validation."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(1).permutation(len(x))[:1000]
    x, y = (x[order] / 16).astype("float32"), y[order].astype("int32")
    return SimpleNamespace(x=x[:600], y=y[:600], x_val=x[600:], y_val=y[600:])


def network(*first: layers.Layer, loss: Any = None) -> keras.Model:
    """Two hidden layers of 64 units, momentum 0.9."""
    keras.utils.set_random_seed(SEED)
    hidden = [layers.Dense(64, activation="relu"), layers.Dense(64, activation="relu")]
    model = keras.Sequential([keras.Input((64,)), *first, *hidden, layers.Dense(10)])
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.02, momentum=0.9), loss, metrics=["accuracy"], jit_compile=JIT)
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture(scope="module")
def train(digits: SimpleNamespace) -> Callable[..., keras.callbacks.History]:
    """Trains the same compiled network from the same weights, with what is given instead of the usual."""
    model = network()
    state = [keras.ops.convert_to_numpy(variable).copy() for variable in (*model.variables, *model.optimizer.variables)]

    def run(
        rate: float | Callable[[], Any], epochs: int, batch: int = 32, callbacks: Any = (), **data: Any
    ) -> keras.callbacks.History:
        for variable, value in zip((*model.variables, *model.optimizer.variables), state, strict=True):
            variable.assign(value)
        if not callable(rate):
            model.optimizer.learning_rate = rate
        used = [*callbacks, rate()] if callable(rate) else callbacks
        return fit(model, SimpleNamespace(**{**vars(digits), **data}), epochs, batch, used)

    return run


def fit(model: keras.Model, data: Any, epochs: int, batch: int, callbacks: Any = ()) -> keras.callbacks.History:
    keras.utils.set_random_seed(SEED)
    options = {"validation_data": (data.x_val, data.y_val), "callbacks": [*callbacks, Rates()], "verbose": 0}
    options["validation_batch_size"] = len(data.x_val)
    return model.fit(data.x, data.y, batch_size=batch, epochs=epochs, **options)


def first(history: Any, **known: Any) -> Diagnosis:
    return diagnose(history, **{"classes": 10, **known})[0]


def one_cycle(rate: float) -> Callable[[], OneCycle]:
    return lambda: OneCycle(rate)


def only_healthy(history: Any, **known: Any) -> bool:
    found = diagnose(history, **{"classes": 10, **known})
    return [one.kind for one in found] == ["healthy"]


def test_shuffled_labels_are_a_bug(train, digits) -> None:
    found = first(train(0.05, 9, y=np.random.default_rng(SEED).permutation(digits.y)))
    assert found.kind == "bug"
    assert "labels" in found.advice


def test_shuffled_validation_labels_are_a_bug_and_not_over_fitting(train, digits) -> None:
    found = first(train(0.05, 6, y_val=np.random.default_rng(SEED).permutation(digits.y_val)))
    assert found.kind == "bug"
    assert found.title == "What training learns does not hold for validation at all"


def test_constant_input_is_a_bug(train, digits) -> None:
    history = train(0.02, 6, x=np.ones_like(digits.x), x_val=np.ones_like(digits.x_val))
    assert first(history).kind == "bug"
    assert first(history).title == "No learning at all"
    assert first(history, classes=None).kind == "bug"  # from the loss that stands still


def test_frozen_network_is_a_bug(digits) -> None:
    model = network()
    model.trainable = False
    model.compile("sgd", model.loss, metrics=["accuracy"], jit_compile=JIT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's trainer says that nothing is trainable
        found = first(fit(model, digits, 4, 64))
    assert found.kind == "bug"
    assert "does not change at all" in found.evidence
    assert "frozen" in found.advice


@pytest.mark.parametrize(
    ("rate", "epochs"),
    [(10.0, 6), (3.0, 6), (one_cycle(1.5), 10), (0.5, 8)],
    ids=["far too high", "from the first step", "in the middle of a cycle", "until nothing is left"],
)
def test_too_high_rates_are_told(train, rate, epochs) -> None:
    history = train(rate, epochs)
    assert first(history).kind == "rate too high"


def test_explosion_that_kills_the_units_is_too_high_a_rate(train) -> None:
    rates = keras.callbacks.LearningRateScheduler(lambda epoch: [0.05, 0.05, 1000.0, 0.05, 0.05, 0.05][epoch])
    found = first(train(lambda: rates, 6))
    assert found.kind == "rate too high"
    assert found.title in ("The loss exploded, and nothing was learned after it", "The training diverged")
    assert "in epoch 3" in found.evidence


@pytest.mark.parametrize("rate", [1e-4, 1e-6, one_cycle(4e-4)], ids=["small", "tiny", "cycle"])
def test_too_low_rates_are_told(train, rate) -> None:
    assert first(train(rate, 6)).kind == "rate too low"


def test_few_examples_are_over_fitted(train, digits) -> None:
    assert first(train(0.1, 18, x=digits.x[:60], y=digits.y[:60])).kind == "over-fitting"


def test_wrong_labels_learned_by_heart_are_over_fitting(train, digits) -> None:
    random = np.random.default_rng(SEED)
    wrong = np.where(random.random(600) < 0.4, random.integers(0, 10, 600), digits.y).astype("int32")
    found = first(train(0.02, 28, 16, y=wrong[:300], x=digits.x[:300]))
    assert found.kind == "over-fitting"
    assert found.evidence.endswith("% in validation.")


def test_network_that_sees_too_little_under_fits(train, digits) -> None:
    seen = (np.arange(64) % 40 == 20).astype("float32")
    found = first(train(0.05, 14, x=digits.x * seen, x_val=digits.x_val * seen))
    assert found.kind == "under-fitting"


@pytest.mark.parametrize(("rate", "epochs"), [(8e-3, 5), (one_cycle(0.02), 4)], ids=["constant", "cycle"])
def test_short_training_has_not_converged(train, rate, epochs) -> None:
    assert first(train(rate, epochs)).kind == "not converged"


def test_tiny_batches_are_noisy(train, tmp_path) -> None:
    log = JsonLog(tmp_path / "log.jsonl", every=25)
    history = train(0.01, 7, 2, [log])
    found = first(history, steps=loss_windows(read_log(log.path)), batch_size=2)
    assert found.kind == "noisy"


@pytest.mark.parametrize(("rate", "epochs"), [(one_cycle(0.1), 10), (0.02, 16)], ids=["cycle", "constant"])
def test_good_training_is_healthy(train, rate, epochs) -> None:
    assert only_healthy(train(rate, epochs))


def test_heavy_noise_on_training_inputs_is_healthy(digits) -> None:
    history = fit(network(layers.GaussianNoise(0.4)), digits, 12, 32, [OneCycle(0.1)])
    assert history.history["val_accuracy"][-1] > history.history["accuracy"][-1]
    assert only_healthy(history)


def test_label_smoothing_is_healthy(digits) -> None:
    model = network(loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2))
    one_hot = SimpleNamespace(**{**vars(digits), "y": np.eye(10)[digits.y], "y_val": np.eye(10)[digits.y_val]})
    history = fit(model, one_hot, 10, 32, [OneCycle(0.1)])
    assert history.history["loss"][-1] > 0.8
    assert only_healthy(history)


def test_two_outputs_are_healthy_and_one_that_learns_nothing_is_named(digits) -> None:
    keras.utils.set_random_seed(SEED)
    inputs = keras.Input((64,))
    hidden = layers.Dense(64, activation="relu")(inputs)
    outputs = {"digit": layers.Dense(10, name="digit")(hidden), "odd": layers.Dense(2, name="odd")(hidden)}
    model = keras.Model(inputs, outputs)
    losses = {head: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for head in outputs}
    model.compile(keras.optimizers.SGD(0.1, 0.9), losses, metrics={head: ["accuracy"] for head in outputs})
    random = np.random.default_rng(SEED).integers(0, 2, 1000)
    classes = {"digit": 10, "odd": 2}

    def two(odd: np.ndarray, odd_val: np.ndarray) -> SimpleNamespace:
        y, y_val = {"digit": digits.y, "odd": odd}, {"digit": digits.y_val, "odd": odd_val}
        return SimpleNamespace(x=digits.x, y=y, x_val=digits.x_val, y_val=y_val)

    start = model.get_weights()
    assert only_healthy(fit(model, two(digits.y % 2, digits.y_val % 2), 9, 32, [OneCycle(0.1)]), classes=classes)
    model.set_weights(start)
    model.optimizer.learning_rate = 0.005
    found = first(fit(model, two(random[:600], random[600:]), 4, 32), classes=classes)
    assert found.kind == "bug"
    assert "of odd" in found.title


# Tables made by hand.


def table(loss: list[float], val_loss: list[float] | None = None, **more: list[float]) -> dict[str, list[float]]:
    return {"loss": loss, **({"val_loss": val_loss} if val_loss else {}), **more}


OVER_FITTED = table(
    [2.0, 1.2, 0.6, 0.3, 0.1, 0.05],
    [1.8, 1.1, 0.81, 0.9, 1.1, 1.32],
    accuracy=[0.3, 0.6, 0.8, 0.9, 0.98, 1.0],
    val_accuracy=[0.35, 0.6, 0.75, 0.74, 0.72, 0.7],
)


def test_over_fitting_tells_the_turning_point() -> None:
    (found,) = diagnose(OVER_FITTED, classes=10)
    assert found.kind == "over-fitting"
    assert found.evidence == (
        "Validation loss was lowest in epoch 3 (0.81) and rose to 1.32 by epoch 6, while training loss fell from "
        "0.6 to 0.05. In epoch 6 accuracy is 100.0 % in training and 70.0 % in validation."
    )


def test_rows_history_and_dict_say_the_same() -> None:
    rows = [{"epoch": epoch + 1, **{n: v[epoch] for n, v in OVER_FITTED.items()}, "seconds": 1.0} for epoch in range(6)]
    rows[1]["val_loss"] = None
    expected = diagnose(OVER_FITTED, classes={"digit": 10})
    assert diagnose(rows, classes=10) == expected
    assert diagnose(SimpleNamespace(history=OVER_FITTED, epoch=[0, 1, 2, 3, 4, 5]), classes=10) == expected


def test_rising_log_loss_with_rising_accuracy_is_mild() -> None:
    sure = {
        **OVER_FITTED,
        "accuracy": [0.5, 0.7, 0.8, 0.9, 0.95, 0.96],
        "val_accuracy": [0.4, 0.6, 0.85, 0.87, 0.88, 0.89],
    }
    (found,) = diagnose(sure, classes=10)
    assert found.title == "Too sure of itself: mild over-fitting"
    assert found.evidence.endswith("Validation accuracy did not suffer: 85.0 % then, 89.0 % now.")


def test_nan_from_the_beginning_is_a_bug_and_after_numbers_too_high_a_rate() -> None:
    assert diagnose(table([math.nan, math.nan]))[0].kind == "bug"
    (later,) = diagnose({"loss": [2.0, 1.5, math.nan], "lr": [0.1, 0.2, 0.4]})
    assert later.kind == "rate too high"
    assert later.evidence == "Training loss is not finite in epoch 3, at learning rate 0.4; it was 1.5 in epoch 2."
    steps = [{"step": 5, "loss": 2.4, "batches": 5}, {"step": 10, "loss": math.nan, "batches": 5}]
    (within,) = diagnose({"loss": [math.nan]}, steps=steps)
    assert within.kind == "rate too high"
    assert within.evidence == "Training loss is not finite in epoch 1; it was 2.4 up to step 5."


def test_explosion_within_the_first_epoch_is_seen_in_the_steps_only() -> None:
    losses = [2.3, 9.0, 3.0, 1.5, 1.0, 0.8, 0.7, 0.6]
    steps = [{"step": 10 * (row + 1), "loss": loss, "batches": 10} for row, loss in enumerate(losses)]
    history = table([2.4, 0.8, 0.5], accuracy=[0.4, 0.8, 0.9], val_loss=[1.0, 0.8, 0.79], val_accuracy=[0.7, 0.8, 0.8])
    assert only_healthy(history)
    found = first(history, steps=steps)
    assert found.kind == "rate too high"
    assert found.evidence == (
        "Training loss began at 2.3 and jumped to 9 in the steps up to 20; in the last epoch it was 0.5."
    )


def test_progress_that_waits_for_the_rate_is_too_high_a_rate() -> None:
    rate = [0.02, 0.1, 0.2, 0.2, 0.2, 0.2, 0.19, 0.15, 0.1, 0.05, 0.02, 0.0]
    loss = [1.6, 1.25, 1.3, 1.29, 1.3, 1.28, 1.27, 1.25, 1.22, 1.0, 0.8, 0.7]
    found = first({"loss": loss, "lr": rate})
    assert found.kind == "rate too high"
    assert found.title == "Learning waited for the rate to fall"
    fell_at_once = [1.6, 1.0, 0.7, 0.6, 0.55, 0.5, 0.48, 0.45, 0.4, 0.3, 0.25, 0.2]
    assert only_healthy({"loss": fell_at_once, "lr": rate})


def test_rise_at_the_restarts_of_snapshot_cycles_is_healthy() -> None:
    rate = [0.1, 0.05, 0.001] * 3
    loss = [1.5, 0.8, 0.4, 0.6, 0.4, 0.25, 0.5, 0.35, 0.2]
    validation = [1.3, 0.8, 0.5, 0.9, 0.6, 0.45, 0.8, 0.55, 0.44]
    assert only_healthy({"loss": loss, "val_loss": validation, "lr": rate})
    assert first({"loss": loss, "val_loss": [*validation[:-1], 0.7], "lr": rate}).kind == "over-fitting"


@pytest.mark.parametrize(
    ("loss", "accuracy"),
    [
        ([1401.56, 10.87, 6.69, 6.67, 5.33, 5.29], [0.1, 0.09, 0.09, 0.09, 0.09, 0.1]),
        ([3.27, 2.51, 2.52, 2.51, 2.44, 2.49], [0.09, 0.1, 0.12, 0.11, 0.1, 0.1]),
        ([2.72, 2.41, 2.44, 2.38, 2.37], [0.18, 0.1, 0.08, 0.09, 0.11]),
        ([3.4, 2.38, 2.37, 2.37, 2.36, 2.36, 2.36, 2.36], [0.22, 0.1, 0.09, 0.07, 0.07, 0.08, 0.08, 0.08]),
        ([1.74, 2.32, 2.22, 2.16, 1.97, 2.0, 1.97, 2.09], [0.43, 0.34, 0.25, 0.18, 0.25, 0.22, 0.22, 0.19]),
    ],
)
def test_recorded_trainings_at_too_high_rates_are_told(loss, accuracy) -> None:
    """Rates of 10, 3, 1, 0.7 and 0.5 with momentum 0.9, on digits, with both backends."""
    assert first(table(loss, accuracy=accuracy)).kind == "rate too high"


def test_examples_that_become_harder_are_no_loss_of_what_was_learned() -> None:
    """Mixing that begins half-way takes from the training accuracy only."""
    loss, accuracy = [1.5, 0.9, 0.6, 0.5, 1.7, 1.6, 1.6, 1.5], [0.5, 0.7, 0.8, 0.85, 0.35, 0.38, 0.39, 0.4]
    validation = [0.55, 0.7, 0.8, 0.83, 0.84, 0.85, 0.86, 0.87]
    assert first(table(loss, accuracy=accuracy)).title == "What was learned was lost"
    assert first(table(loss, accuracy=accuracy, val_accuracy=validation)).title != "What was learned was lost"


def test_slow_progress_with_steps_of_the_usual_size_is_not_told_as_too_low_a_rate() -> None:
    """As of a network that is far too narrow for pictures rotated by any angle."""
    loss, accuracy = [2.34, 2.32, 2.31, 2.3, 2.28, 2.25, 2.23, 2.21], [0.1, 0.11, 0.12, 0.13, 0.15, 0.17, 0.19, 0.2]
    slow = table(loss, accuracy=accuracy)
    assert first(slow, updates=3e-4).kind == "rate too low"
    assert first(slow, updates=4e-3).kind != "rate too low"


def test_updates_tell_a_rate_that_is_too_low() -> None:
    loss = [2.3, 2.1, 2.0, 1.95, 1.93, 1.92]
    assert first(table(loss)).kind != "rate too low"
    found = first(table(loss), updates=2e-6)
    assert found.kind == "rate too low"
    assert found.evidence.endswith("A step moves the kernels by 2e-06 of their size; about 1e-03 is usual.")


@pytest.mark.parametrize("loss", [[2.0], [2.0, 1.95]])
def test_little_is_said_of_few_epochs(loss: list[float]) -> None:
    (found,) = diagnose(table(loss, accuracy=[0.1] * len(loss)), classes=10)
    assert found.kind == "healthy"
    assert "too few epochs" in found.title


def test_windows_are_the_differences_of_the_means_of_a_log() -> None:
    def line(epoch: int, step: int, loss: float | None, **batch: int) -> Mapping[str, Any]:
        return {"epoch": epoch, "step": step, "learning_rate": 0.1, "logs": {"loss": loss}, **batch}

    lines = [
        line(0, 2, 4.0, batch=2),
        line(0, 4, 3.0, batch=4),
        line(0, 5, 2.8),
        line(1, 7, 1.0, batch=2),
        line(1, 10, None),
    ]
    found = [(row["step"], round(row["loss"], 6), row["batches"]) for row in loss_windows(lines)]
    assert found[:4] == [(2, 4.0, 2), (4, 2.0, 2), (5, 2.0, 1), (7, 1.0, 2)]
    assert found[4][0] == 10
    assert math.isnan(found[4][1])


# Good trainings that look like bad ones, and bad ones that look like others.


def kinds(history: Any, **known: Any) -> list[str]:
    return [one.kind for one in diagnose(history, **{"classes": 10, **known})]


def cosine(epochs: int, highest: float = 0.1) -> np.ndarray:
    return highest * (1 + np.cos(np.pi * (np.arange(epochs) + 1) / epochs)) / 2


def falling(begin: float, end: float, epochs: int, speed: float = 4.0) -> np.ndarray:
    """Fast at first."""
    return end + (begin - end) * np.exp(-speed * np.linspace(0, 1, epochs))


@pytest.mark.parametrize("prefix", ["val_", "raw_val_", "average_val_"])
def test_heads_that_are_called_like_validation_are_told_by_classes(prefix: str) -> None:
    head = f"{prefix}type"
    bad, good = [0.5, 0.51, 0.49, 0.5], [0.5, 0.8, 0.9, 0.95]
    history = {
        "loss": [2.0, 1.5, 1.2, 1.1],
        "label_accuracy": good,
        "val_label_accuracy": good,
        f"{head}_accuracy": bad,
        f"val_{head}_accuracy": bad,
    }
    found = first(history, classes={"label": 10, head: 2})
    assert found.title == f"No learning at all of {head}"
    assert kinds(history, classes={"label": 10, head: 2, "without_metric": 3}) == kinds(
        history, classes={"label": 10, head: 2}
    )
    twice = {**history, f"{prefix}label_accuracy": good}  # of a head, or of validation: validation
    assert kinds(twice, classes={"label": 10, f"{prefix}label": 10, head: 2})[0] == "bug"


def test_values_of_every_fifth_epoch_stand_at_those_epochs() -> None:
    loss = list(falling(2.0, 0.05, 20))
    history = {"loss": loss, "val_loss": [1.0, 0.6, 0.9, 1.4]}
    assert "lowest in epoch 10 (0.6) and rose to 1.4 by epoch 20" in first(history).evidence
    resumed = SimpleNamespace(history=history, epoch=list(range(3, 23)))
    assert "lowest in epoch 10 (0.6) and rose to 1.4 by epoch 20" in first(resumed).evidence
    with pytest.raises(ValueError, match=r"3 values of 'val_loss' in 20 epochs.*Give one row for each epoch"):
        diagnose({**history, "val_loss": [1.0, 0.6, 0.9]})


def test_explosion_is_said_rather_than_the_swings_after_it() -> None:
    loss = [2.29, 6.0, *([0.9, 0.4] * 6)]
    (found,) = diagnose(table(loss), classes=10)
    assert found.title == "The loss jumped above its beginning"
    assert diagnose(table([2.29, 2.0, *([0.9, 0.4] * 6)]), classes=10)[0].title == "The training loss swings"


@pytest.mark.parametrize(
    ("accuracy", "validation", "loss"),
    [
        ([0.93, 0.94, 0.945, 0.95, 0.95, 0.955], [0.95] * 6, [0.18, 0.17, 0.165, 0.16, 0.155, 0.15]),
        ([0.94, 0.95, 0.952, 0.951, 0.953, 0.95, 0.952], [0.9666] * 7, [0.2, 0.19, 0.185, 0.18, 0.18, 0.179, 0.179]),
        (list(np.linspace(0.93, 0.95, 17)), [0.9189] * 14 + [0.926] * 3, list(np.linspace(0.5, 0.42, 17))),
        (list(np.linspace(0.76, 0.84, 8)), [0.8] * 8, list(np.linspace(0.62, 0.55, 8))),
        ([0.84, 0.85, 0.851, 0.85, 0.851, 0.85], [0.85] * 6, [0.4, 0.36, 0.355, 0.35, 0.35, 0.35]),
    ],
    ids=["transferred", "few errors", "learned in the end", "training rises", "cheaper than one answer"],
)
def test_constant_accuracy_of_what_has_learned_is_no_bug(accuracy, validation, loss) -> None:
    assert "bug" not in kinds(table(loss, accuracy=accuracy, val_accuracy=validation), classes=5)


def test_constant_accuracy_of_one_answer_is_a_bug() -> None:
    loss = [1.4, 1.25, 1.24, 1.24, 1.23, 1.23, 1.22, 1.22]
    found = first(table(loss, accuracy=[0.6] * 8))
    assert found.kind == "bug"
    assert found.evidence == (
        "Training accuracy was the same 60.0 % in all 8 epochs, and training loss went from 1.25 to 1.22 after the "
        "first of them, as if the most frequent class were always answered."
    )
    nearly = first(table(loss, accuracy=[0.6, 0.601, 0.6, 0.599, 0.6, 0.601, 0.6, 0.6]))
    assert nearly.evidence.startswith("Training accuracy was between 59.9 % and 60.1 % in all 8 epochs")
    validated = first(table(loss, accuracy=[0.55, 0.61, *[0.612] * 6], val_accuracy=[0.6] * 8))
    assert validated.title == "No learning: always the same answer"


def test_short_training_of_many_classes_has_not_converged_rather_than_too_low_a_rate() -> None:
    loss = [4.15, 3.8, 3.55, 3.33, 3.1, 2.88, 2.65, 2.45]
    validation = list(np.linspace(0.1, 0.57, 8))
    rate = [0.05, 0.1, 0.09, 0.07, 0.05, 0.03, 0.02, 0.0]
    val_loss = list(np.linspace(3.9, 1.7, 8))
    assert kinds(table(loss, val_accuracy=validation), classes=100) == ["not converged"]
    assert kinds(table(loss, val_loss, val_accuracy=validation, lr=rate), classes=100) == ["not converged"]
    slow = table(loss, val_loss=list(np.linspace(4.2, 3.5, 8)), val_accuracy=list(np.linspace(0.01, 0.035, 8)))
    assert kinds(slow, classes=100) == ["rate too low"]


def test_high_rate_with_rising_accuracy_was_not_lost() -> None:
    rate = [0.1] * 9 + [0.01] * 3
    loss = [2.0, 1.5, 1.48, 1.47, 1.46, 1.45, 1.44, 1.43, 1.42, 1.0, 0.9, 0.8]
    still = {"accuracy": [0.55] * 9 + [0.7] * 3, "val_accuracy": [0.45] * 9 + [0.65] * 3}
    # The rate warms up for an epoch, so that what the first one gained is no part of the high rate.
    warm = [0.01, *rate[1:]]
    found = first(table(loss, lr=warm, **still))
    assert found.title == "Learning waited for the rate to fall"
    assert "it was 1.49 in the first third of them, and 1.42 in the last one. Then" in found.evidence
    rising = {
        "accuracy": [*np.linspace(0.55, 0.6, 9), 0.7, 0.72, 0.73],
        "val_accuracy": [*np.linspace(0.45, 0.5, 9), 0.65, 0.66, 0.67],
    }
    assert "rate too high" not in kinds(table(loss, lr=warm, **rising))


def test_one_step_of_the_rate_or_small_noise_is_no_swing() -> None:
    early, after = np.arange(30), np.arange(10)
    step = [*(1.5 * np.exp(-early / 4) + 0.5), *(0.25 * np.exp(-after / 8) + 0.05)]
    assert "rate too high" not in kinds(table(step))
    for seed in range(20):
        noise = falling(2.0, 0.5, 40, 12) + np.random.default_rng(seed).normal(0, 0.045, 40)
        assert "rate too high" not in kinds(table(list(noise)))


def test_findings_do_not_contradict_each_other() -> None:
    stands = table(
        [2.0, 1.2, 1.1, 1.05, 1.04, 1.03, 1.03, 1.03],
        [1.9, 1.5, 1.4, 1.3, 1.2, 1.1, 1.0, 0.9],
        accuracy=[0.3, 0.5, 0.55, 0.56, 0.57, 0.57, 0.57, 0.57],
        val_accuracy=[0.3, 0.4, 0.45, 0.5, 0.54, 0.57, 0.6, 0.64],
    )
    assert kinds(stands) == ["not converged"]
    ahead = table(
        list(falling(2.0, 0.1, 8)),
        [1.9, 1.5, 1.3, 1.2, 1.1, 1.0, 0.8, 0.7],
        accuracy=[0.3, 0.5, 0.7, 0.8, 0.88, 0.93, 0.96, 0.98],
        val_accuracy=[0.3, 0.4, 0.5, 0.58, 0.64, 0.69, 0.75, 0.8],
    )
    assert kinds(ahead) == ["not converged"]


def test_long_schedule_with_mixed_examples_is_healthy() -> None:
    epochs = 200
    late_fall = np.linspace(0, 1, epochs) ** 3
    mixed = table(
        list(falling(2.3, 1.5, epochs) - 0.2 * late_fall),
        list(falling(1.6, 0.55, epochs) - 0.28 * late_fall),
        accuracy=list(0.599 - falling(0.3, 0.0, epochs)),
        val_accuracy=list(0.939 - falling(0.5, 0.0, epochs) - 0.08 * (1 - late_fall)),
    )
    assert kinds({**mixed, "lr": list(cosine(epochs))}) == ["healthy"]
    assert kinds(mixed) == ["healthy"]
    short = {name: values[::20] for name, values in mixed.items()}
    poor = {**short, "val_accuracy": list(np.linspace(0.2, 0.7, 10)), "lr": list(cosine(10))}
    assert kinds(poor) == ["not converged"]
    assert "training accuracy" not in first(poor | {"accuracy": [0.4] * 10}).evidence


def test_small_batches_are_noise_only_in_wide_windows_and_at_a_rate_that_stays() -> None:
    noise = np.random.default_rng(SEED).normal(0, 0.15, 400)
    steps = [{"step": row + 1, "loss": float(one), "batches": 1} for row, one in enumerate(0.35 + noise)]
    history = table([0.6, 0.45, 0.4, 0.37, 0.35, 0.35])
    assert "noisy" not in kinds(history, steps=steps, batch_size=16)
    wild = [{**one, "loss": one["loss"] * (1.9 if row // 16 % 2 else 0.1)} for row, one in enumerate(steps)]
    assert "noisy" not in kinds({**history, "lr": list(cosine(6))}, steps=wild, batch_size=16)
    found = next(one for one in diagnose(history, steps=wild, batch_size=16, classes=10) if one.kind == "noisy")
    assert "over windows of 16 batches of 16 examples" in found.evidence


def test_penalty_in_the_loss_is_no_sign_of_thrown_weights() -> None:
    found = first(table(list(falling(2.9, 2.53, 12)), accuracy=[0.1, 0.11] * 6, val_accuracy=[0.1] * 12))
    assert found.title == "No learning at all"
    assert "rate" in found.advice


@pytest.mark.parametrize(
    ("classes", "accuracy", "validation"),
    [
        (10, [0.3, 0.6, 0.7, 0.8], [0.1, 0.1, 0.1, 0.26]),
        (10, [0.1, 0.1, 0.12, 0.26], [0.1, 0.1, 0.1, 0.26]),
        (2, [0.52, 0.58, 0.62, 0.64], [0.5, 0.52, 0.54, 0.55]),
    ],
    ids=["averages that are late", "all late", "hard and binary"],
)
def test_validation_that_begins_to_follow_is_no_bug(classes, accuracy, validation) -> None:
    assert "bug" not in kinds(table([2.0, 1.5, 1.2, 1.0], accuracy=accuracy, val_accuracy=validation), classes=classes)


def test_last_finite_loss_before_nan_is_told_with_its_epoch() -> None:
    (found,) = diagnose([{"loss": 2.0}, {"val_loss": 1.0}, {"loss": math.nan}])
    assert found.evidence == "Training loss is not finite in epoch 3; it was 2 in epoch 1."


def test_loss_that_stands_still_is_said_so() -> None:
    loss = [2.2, 1.4, 1.24, 1.2212, 1.2211, 1.221, 1.221, 1.221]
    found = first(table(loss, accuracy=[0.3, 0.5, 0.52, 0.55, 0.54, 0.56, 0.55, 0.55]))
    assert found.kind == "under-fitting"
    assert "from epoch 5 on it stood still at 1.22, accuracy is 55.0 % in training" in found.evidence
    (one,) = diagnose({"loss": [1.4]})
    assert one.evidence == "Training loss is 1.4 after one epoch."


@pytest.mark.parametrize(
    ("history", "classes", "message"),
    [
        ({}, None, "`history` must be what `model.fit` returns.*Received: no epochs"),
        ([{"val_loss": 1.0}], None, "with a loss in at least one. Received: rows of val_loss"),
        ({"loss": [1.0]}, 1, "`classes` must be at least 2. Received: 1"),
        ({"loss": [1.0], "digit_accuracy": [0.1]}, {"digits": 10}, "Received: digits. Did you mean 'digit'"),
    ],
)
def test_what_is_no_history_is_refused(history, classes, message) -> None:
    with pytest.raises(ValueError, match=message):
        diagnose(history, classes=classes)
