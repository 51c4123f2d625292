"""Train one network on one split, with `model.fit`."""

import itertools
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from apps.augmentation import augmentation
from apps.console import Bar, Console, duration, percent
from apps.data import Data
from apps.network import build_network, compile_network, whiten
from apps.phases import phases, steps_of
from apps.recipe import Recipe
from callbacks import Checkpoint, EarlyStopping, HardestExamples, OneTraining, TerminateOnDivergence
from pipelines import make_eval, make_train
from pipelines.batches import places_of_epoch


@dataclass(frozen=True)
class Trained:
    """A network in float32 with the weights of its best epoch (counted from 1), and how training went.

    `score` is the best epoch's `validation_score`; None where nothing was held out.
    """

    model: keras.Model
    history: list[dict[str, float]]
    best_epoch: int
    score: float | None
    seconds: float
    pictures_per_second: float


def train(
    recipe: Recipe,
    data: Data,
    train_index: np.ndarray,
    val_index: np.ndarray,
    folder: Path,
    console: Console,
    what: str = "training",
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Trained:
    """Train the recipe's network on `train_index`, watch it on `val_index`, keep the best epoch.

    Args:
        recipe: Resolved.
        data: All labelled pictures.
        train_index, val_index: Which of them to train on and to watch; without any to watch, the last epoch is kept.
        folder: For "last.npz", from which an interrupted training goes on, and "best.npz".
        console: Shows the progress.
        what: How to call it there.
        resume: Go on from what `folder` holds.
        callbacks: Further ones, which see every epoch after it was logged and before it is written to disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recipe = replace(recipe, batch_size=min(recipe.batch_size, len(train_index)))
    data = data.with_keras_names()
    keras.utils.set_random_seed(recipe.seed)
    model = build_network(recipe, data, recipe.precision, any_size=bool(recipe.scales))
    whiten(model, data)
    hardest = HardestExamples(len(train_index)) if recipe.hardest < 1 else None
    each = [phase for phase in phases(recipe) for _ in range(*phase.epochs)]
    steps = [steps_of(recipe, phase, len(train_index)) for phase in each]
    compile_network(model, recipe, data.num_classes, sum(steps), hardest)

    stopping = EarlyStopping(
        lambda logs: validation_score(logs, list(data.classes), recipe.score),
        mode="max",
        patience=recipe.patience or None,
        path=folder / "best.npz",
        # While the pictures are small no epoch can be the best one.
        start_epoch=next(phase.epochs[0] for phase in phases(recipe) if phase.size is None),
    )
    work = [count * math.prod(phase.size or recipe.image_size) for count, phase in zip(steps, each, strict=True)]
    progress = EpochLog(console, what, steps, list(data.classes), work)
    divergence = TerminateOnDivergence()
    watched: dict[str, Any] = {"log": progress, "divergence": divergence}
    watched |= {"hardest": hardest} if hardest else {}
    watched |= {"stopping": stopping} if len(val_index) else {}
    checkpoint = Checkpoint(folder / "last.npz", watched)
    first_epoch, stopped = checkpoint.restore(model) if resume else (0, False)
    if first_epoch:
        console.say(f"  {what}: going on after epoch {first_epoch} of {recipe.epochs}")
    start = time.monotonic() - progress.seconds_before
    if first_epoch < recipe.epochs and not stopped:
        one = OneTraining([*watched.values(), *callbacks, checkpoint], add_history=True, model=model, verbose=0)
        with console.progress(what, sum(steps)) as progress.bar, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Training diverged|Epoch .* no finite|EarlyStopping saw no")  # said below
            _fit(model, recipe, data, train_index, val_index, one, first_epoch, hardest)
        if divergence.message:
            raise ValueError(f"{divergence.message} With `--lr` that is a new run.")
    elif len(val_index) and stopping.best_weights is not None:
        model.set_weights(stopping.best_weights)
    finished = build_network(recipe, data, "float32")
    finished.set_weights(model.get_weights())
    pictures = sum(steps[: len(progress.history)]) * recipe.batch_size
    speed = pictures / max(sum(row["seconds"] for row in progress.history), 1e-9)
    best = len(progress.history) if stopping.best_epoch is None else stopping.best_epoch + 1
    if len(progress.history) < recipe.epochs:
        console.say(f"  {what}: stopped early: no epoch after {best} was better")
    score = None if stopping.best_epoch is None else float(stopping.best)
    return Trained(finished, progress.history, best, score, time.monotonic() - start, speed)


def _fit(
    model: keras.Model,
    recipe: Recipe,
    data: Data,
    train_index: np.ndarray,
    val_index: np.ndarray,
    callbacks: OneTraining,
    first_epoch: int,
    hardest: HardestExamples | None,
) -> None:
    """What is left of the training from `first_epoch` on: a `fit` for every phase, one training for the callbacks."""
    held_out = data.take(val_index)
    watch = make_eval(held_out.pictures, held_out.labels, data.num_classes) if len(val_index) else None
    size: tuple[int, int] | None = None
    for phase in phases(recipe, first_epoch):
        begin, end = phase.epochs
        only = None
        if hardest:
            only = hardest.choose(phase.share)
            hardest.order = places_of_epoch(only, recipe.batch_size, recipe.seed, begin)
        if size != phase.size:
            # The step of another size is another graph: it knows the size, and takes the faster kernels.
            model.make_train_function(force=True)
            size = phase.size
        steps = steps_of(recipe, phase, len(train_index))
        callbacks.set_params({"epochs": recipe.epochs, "steps": steps, "verbose": 0})
        model.fit(
            training_batches(recipe, data, train_index, begin, size, only),
            steps_per_epoch=steps,
            epochs=end,
            initial_epoch=begin,
            validation_data=watch,
            callbacks=callbacks,
            verbose=0,
            shuffle=False,
        )
        if model.stop_training:
            break
    callbacks.finish()


def training_batches(
    recipe: Recipe,
    data: Data,
    index: np.ndarray,
    first_epoch: int = 0,
    size: tuple[int, int] | None = None,
    only: np.ndarray | None = None,
) -> Any:
    """The recipe's endless batches of the pictures of `index`, or `only` of some of these, shrunk to `size`."""
    return make_train(
        data.pictures,
        data.labels,
        data.num_classes,
        index=index,
        batch_size=recipe.batch_size,
        augmentation=augmentation(recipe, data.statistics[0], size),
        label_smoothing=recipe.label_smoothing,
        smoothing=recipe.smoothing,
        balance=recipe.balance,
        seed=recipe.seed,
        first_epoch=first_epoch,
        only=only,
    )


def measure_seconds(recipe: Recipe, data: Data, train_counts: Sequence[int], steps: int = 5) -> float:
    """How long training on so many pictures (one number a fold) would take here: a few real steps, the median."""
    data = data.with_keras_names()
    model = build_network(recipe, data, recipe.precision, any_size=bool(recipe.scales))
    compile_network(model, recipe, data.num_classes, steps)
    total = 0.0
    everything = np.arange(len(data.pictures))
    for size, parts in itertools.groupby(phases(recipe), key=lambda phase: phase.size):
        model.make_train_function(force=True)
        batches = iter(training_batches(recipe, data, everything, size=size))
        seconds = []
        for _ in range(steps + 2):
            start = time.monotonic()
            model.train_on_batch(*next(batches))
            seconds.append(time.monotonic() - start)
        step = float(np.median(seconds[2:]))  # the first two steps compile and warm up
        for phase in parts:
            epochs = phase.epochs[1] - phase.epochs[0]
            total += step * epochs * sum(steps_of(recipe, phase, count) for count in train_counts)
    # An evaluation costs about a third of a training step: forward only.
    evaluated = sum(len(data.pictures) - count for count in train_counts) / recipe.batch_size / 3
    return total + recipe.epochs * step * evaluated


def validation_score(logs: Mapping[str, float], heads: Sequence[str], score: str = "accuracy") -> float:
    """What makes one epoch better than another, higher is better: the score, and of equally good ones the lower loss.

    The log loss, negative here, is that before calibration.
    """
    mean = mean_metric(logs, heads, score, "val_")
    return -mean if score == "log_loss" else mean - 1e-6 * float(logs["val_loss"])


def mean_accuracy(logs: Mapping[str, float], heads: Sequence[str], prefix: str = "") -> float:
    """The mean of the heads' accuracies in Keras' logs."""
    return mean_metric(logs, heads, "accuracy", prefix)


def mean_metric(logs: Mapping[str, float], heads: Sequence[str], metric: str, prefix: str = "") -> float:
    """The mean of a metric of the heads in Keras' logs, which call a single head's just "accuracy"."""
    names = [
        f"{prefix}{head}_{metric}" if f"{prefix}{head}_{metric}" in logs else f"{prefix}{metric}" for head in heads
    ]
    return float(np.mean([logs[name] for name in names]))


class EpochLog(keras.callbacks.Callback):
    """Record every epoch and show the progress: steps on a bar, a line for every epoch.

    Args:
        console: Where to show it.
        what: How to call the training.
        steps: Of every epoch.
        heads: Whose accuracy is shown, the mean.
        work: How long every epoch takes compared to the others.
    """

    def __init__(
        self,
        console: Console,
        what: str,
        steps: Sequence[int],
        heads: Sequence[str],
        work: Sequence[float],
    ) -> None:
        super().__init__()
        self.console, self.what, self.steps, self.heads, self.work = console, what, steps, heads, work
        self.epochs = len(steps)
        self.history: list[dict[str, float]] = []
        self.seconds_before = 0.0
        self.bar: Bar | None = None

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Remember when this sitting began."""
        self._began = time.monotonic()
        self._done_before = len(self.history)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Start the epoch's clock."""
        self._epoch, self._epoch_began = epoch, time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Move the bar."""
        logs = logs or {}
        self._training_seconds = time.monotonic() - self._epoch_began
        if self.bar is not None:
            self.bar.update(
                sum(self.steps[: self._epoch]) + batch + 1,
                f"epoch {self._epoch + 1} of {self.epochs} · loss {logs['loss']:.3f}",
                self._seconds_left(self._epoch, (batch + 1) / self.steps[self._epoch]),
            )

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Write the epoch down and print its line."""
        logs = logs or {}
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row = {
            "epoch": epoch + 1,
            "lr": rate,
            **{name: float(value) for name, value in logs.items()},
            "seconds": self._training_seconds,
        }
        self.history.append(row)
        accuracy = f"accuracy {percent(mean_accuracy(logs, self.heads))}"
        if any(name.startswith("val_") for name in logs):
            accuracy += f", validation {percent(mean_accuracy(logs, self.heads, 'val_'))}"
        self.console.say(
            f"  {self.what}: epoch {epoch + 1} of {self.epochs}, loss {logs['loss']:.4f}, {accuracy}, "
            f"{duration(time.monotonic() - self._epoch_began)}, {duration(self._seconds_left(epoch, 1.0))} left"
        )

    def _seconds_left(self, epoch: int, share: float) -> float:
        """After a share of an epoch, if the rest goes as this sitting went so far."""
        done = sum(self.work[self._done_before : epoch]) + share * self.work[epoch]
        left = sum(self.work[epoch:]) - share * self.work[epoch]
        return (time.monotonic() - self._began) * left / done

    def get_state(self) -> dict[str, Any]:
        """The log so far, for the checkpoint."""
        return {"history": self.history, "seconds": self.seconds_before + time.monotonic() - self._began}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on after `get_state()`."""
        self.history, self.seconds_before = list(state["history"]), float(state["seconds"])
