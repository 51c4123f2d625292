"""What callbacks and schedules cost: the time inside every hook, and that of a step of the optimiser."""

import functools
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import callbacks
from apps.batches import training_batches
from apps.bench import Contestant, Figure, measure, print_figures
from apps.console import Console
from apps.data import Data
from apps.epoch_log import EpochLog, validation_score
from apps.network import build_network, compile_network
from apps.resolve import resolve

BATCH, STEPS = 256, 50  # the measured epochs are short, one sample of the monitor; the figures are of CIFAR-10's epoch
CIFAR_STEPS = 45_000 // BATCH
OF_COMPETE = ("EpochLog", "EarlyStopping", "TerminateOnDivergence", "Checkpoint")


def bench_callbacks(rounds: int, console: Console) -> dict[str, list[Figure]]:
    """All callbacks in one training of the default CIFAR-10 network, and the optimiser's step with and without ours."""
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (BATCH * STEPS, 32, 32, 3), dtype=np.uint8)
    classes = [f"class {number}" for number in range(10)]
    data = Data(pictures, {"label": np.arange(len(pictures)) % 10}, {"label": classes})
    recipe = resolve({"batch_size": BATCH, "epochs": rounds + 1}, 45_000, (32, 32), [classes])
    model = build_network(recipe, data, recipe.precision)
    compile_network(model, recipe, data.num_classes, recipe.epochs * STEPS)

    tables = {
        "One update of all weights": updates(model, rounds),
        "Time inside the hooks of callbacks, of an epoch of CIFAR-10": hooks(model, recipe, data, rounds),
    }
    for title, figures in tables.items():
        print_figures(title, figures, console)
    return tables


def everything(folder: Path, data: Data, console: Console, epochs: int) -> dict[str, Any]:
    """Every callback that watches a training, those of `kerascnn compete` first."""
    x = np.asarray(data.pictures[:64], "float32")
    y = {"label": np.eye(10, dtype="float32")[data.labels["label"][:64]]}
    stopping = callbacks.EarlyStopping(
        lambda logs: validation_score(logs, ["label"]), mode="max", path=folder / "best.npz"
    )
    log = EpochLog(console, "training", [STEPS] * epochs, ["label"], [1] * epochs)
    return {
        "EpochLog": log,
        "EarlyStopping": stopping,
        "TerminateOnDivergence": callbacks.TerminateOnDivergence(),
        "Checkpoint": callbacks.Checkpoint(folder / "last.npz", {"stopping": stopping}),
        "Throughput": callbacks.Throughput(BATCH),
        "JsonLog": callbacks.JsonLog(folder / "log.jsonl"),
        "WeightAverage (every update)": callbacks.WeightAverage(finish="raw"),
        "WeightAverage (every 5 updates)": callbacks.WeightAverage(every=5, finish="raw"),
        "Monitor (every 50 steps)": callbacks.Monitor(x, y, every=50),
    }


def hooks(model: keras.Model, recipe: Any, data: Data, rounds: int) -> list[Figure]:
    """The share of each callback in an epoch of CIFAR-10, worked out from the time inside its hooks."""
    batches = training_batches(recipe, data, np.arange(len(data.pictures)))
    validation = (data.pictures[:BATCH], {"label": np.eye(10, dtype="float32")[data.labels["label"][:BATCH]]})
    with tempfile.TemporaryDirectory() as folder:
        watched = everything(Path(folder), data, Console(quiet=True), rounds + 1)
        clocks = {name: Clock(callback) for name, callback in watched.items()}
        steps = StepTimes()
        model.fit(
            batches,
            steps_per_epoch=STEPS,
            epochs=rounds + 1,
            validation_data=validation,
            callbacks=[steps, *watched.values()],
            shuffle=False,
            verbose=0,
        )
    measured = np.array(steps.seconds[STEPS:])  # the first epoch compiles
    epoch = CIFAR_STEPS * np.median(measured)
    shares = {name: 100 * clock.seconds(CIFAR_STEPS) / epoch for name, clock in clocks.items()}
    shares["those of `kerascnn compete` together"] = np.sum([shares[name] for name in OF_COMPETE], axis=0)
    figures = [Figure(name, share.mean(), share.min(), share.max(), unit="%") for name, share in shares.items()]
    low, step, high = 1e3 * np.percentile(measured, [10, 50, 90])
    return [*figures, Figure(f"for comparison, a whole step of {BATCH} pictures", step, low, high, unit="ms")]


class Clock:
    """Measures the time inside a callback's hooks, epoch by epoch."""

    def __init__(self, callback: keras.callbacks.Callback) -> None:
        self.batches: list[float] = []
        self.epochs: list[float] = []
        for name, sums in (
            ("on_epoch_begin", self.epochs),
            ("on_train_batch_begin", self.batches),
            ("on_train_batch_end", self.batches),
            ("on_epoch_end", self.epochs),
        ):
            setattr(callback, name, self._measured(getattr(callback, name), sums, begins=name == "on_epoch_begin"))

    def _measured(self, hook: Callable[..., None], sums: list[float], begins: bool) -> Callable[..., None]:
        @functools.wraps(hook)  # keeps Keras' mark of a hook that does nothing
        def measured(number: int, logs: Mapping[str, Any] | None = None) -> None:
            if begins:
                self.batches.append(0.0)
                self.epochs.append(0.0)
            start = time.perf_counter()
            hook(number, logs)
            sums[-1] += time.perf_counter() - start

        return measured

    def seconds(self, steps: int) -> np.ndarray:
        """Of every epoch but the first, as if it had had so many steps."""
        return (np.array(self.batches) * steps / STEPS + np.array(self.epochs))[1:]


class StepTimes(keras.callbacks.Callback):
    """The seconds of every step; stands first in the list, so that no other callback is in them."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Start."""
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Stop."""
        self.seconds.append(time.perf_counter() - self._start)


def updates(model: keras.Model, rounds: int) -> list[Figure]:
    """Updates of all weights from given gradients, by Keras' SGD and by ours with everything that it can do."""
    rate = callbacks.OneCycleSchedule(0.1, 100_000)
    makers: dict[str, Callable[[], Any]] = {
        "Keras' SGD, Nesterov's momentum, constant rate": lambda: keras.optimizers.SGD(
            0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
        ),
        "ours, the same": lambda: callbacks.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
        "ours, one-cycle rate and momentum, groups": lambda: callbacks.SGD(
            callbacks.Scale(rate),
            momentum=callbacks.CyclicMomentum(rate),
            nesterov=True,
            weight_decay=5e-4,
            groups=[callbacks.NO_DECAY, *callbacks.discriminative_rates(model)],
        ),
        "ours, the same and gradient noise": lambda: callbacks.SGD(
            callbacks.Scale(rate),
            momentum=callbacks.CyclicMomentum(rate),
            nesterov=True,
            weight_decay=5e-4,
            groups=[callbacks.NO_DECAY, *callbacks.discriminative_rates(model)],
            gradient_noise=callbacks.GradientNoise(),
        ),
    }
    weights = model.trainable_variables
    before = model.get_weights()
    gradients = [tf.zeros(weight.shape) for weight in weights]

    def start(maker: Callable[[], Any]) -> Callable[[], object]:
        optimizer = maker()
        optimizer.build(weights)
        return tf.function(lambda: optimizer.apply(gradients, weights))

    contestants = [Contestant(name, 1, functools.partial(start, maker)) for name, maker in makers.items()]
    figures = [
        Figure(one.name, 1e3 / one.median, 1e3 / one.high, 1e3 / one.low, unit="ms")
        for one in measure(contestants, rounds)
    ]
    model.set_weights(before)
    return figures
