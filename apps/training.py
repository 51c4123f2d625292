"""Train one network on one split, with `model.fit`."""

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from apps.alarms import make_alarms
from apps.augmentation import augmentation
from apps.console import Bar, Console, duration, percent
from apps.data import Data
from apps.heads import in_keras_names
from apps.kept_weights import make_average, make_snapshots, put_average
from apps.network import build_network, compile_network, network_alone, whiten
from apps.phases import Phase, phases, steps_of
from apps.recipe import Recipe
from callbacks import Checkpoint, Deadline, EarlyStopping, HardestExamples, OneTraining, TerminateOnDivergence
from callbacks.checkpoint import Position
from pipelines import make_eval, make_train
from pipelines.batches import places_of_epoch


@dataclass(frozen=True)
class Trained:
    """A network in float32 with the weights of its best epoch (counted from 1), and how training went.

    `score` is the best epoch's `validation_score`; None where nothing was held out. `alarms` is what was said of it.
    `earlier` are the networks at the ends of the cycles before, where the recipe asks for `snapshots`; `model` is then
    that of the last.
    """

    model: keras.Model
    history: list[dict[str, float]]
    best_epoch: int
    score: float | None
    seconds: float
    pictures_per_second: float
    alarms: Sequence[str] = ()
    earlier: Sequence[keras.Model] = ()

    @property
    def models(self) -> list[keras.Model]:
        """All networks that the training yields."""
        return [*self.earlier, self.model]


def train(
    recipe: Recipe,
    data: Data,
    train_index: np.ndarray,
    val_index: np.ndarray,
    folder: Path,
    console: Console,
    what: str = "training",
    resume: bool = False,
    checkpoint_seconds: float = 120.0,
    seconds: float | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Trained:
    """Train the recipe's network on `train_index`, watch it on `val_index`, keep the best epoch.

    Args:
        recipe: Resolved.
        data: All labelled pictures.
        train_index, val_index: Which of them to train on and to watch; without any to watch, the last epoch is kept.
        folder: For "last.npz" and "before-last.npz", from which an interrupted training goes on, and "best.npz".
        console: Shows the progress.
        what: How to call it there.
        resume: Go on from what `folder` holds.
        checkpoint_seconds: How often, besides after every epoch, "last.npz" is written.
        seconds: When to end: the recipe's epochs are what was foreseen, and more or fewer are trained (`Deadline`).
        callbacks: Further ones, which see every epoch after it was logged and before it is written to disk.
    """
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    recipe = replace(recipe, batch_size=min(recipe.batch_size, len(train_index)))
    heads = list(data.classes)
    recipe, data = in_keras_names(recipe, data)
    keras.utils.set_random_seed(recipe.seed)
    model = build_network(recipe, data, recipe.precision, any_size=bool(recipe.scales))
    whiten(model, data)
    hardest = HardestExamples(len(train_index)) if recipe.hardest < 1 else None
    more = 0 if seconds is None else recipe.epochs // 2  # epochs that a faster machine may add
    each = [phase for phase in phases(recipe, more=more) for _ in range(*phase.epochs)]
    steps = [steps_of(recipe, phase, len(train_index)) for phase in each]
    planned = sum(steps[: recipe.epochs])
    compile_network(model, recipe, data.num_classes, planned, hardest, paced=seconds is not None)

    average = None
    if recipe.average != "none":
        held_out = data.take(val_index) if len(val_index) else None
        batches = training_batches(recipe, data, train_index)
        average = make_average(recipe, held_out, batches, len(train_index))
    snapshots = make_snapshots(recipe, folder)
    stopping = EarlyStopping(
        lambda logs: validation_score(logs, list(data.classes), recipe.score),
        mode="max",
        patience=recipe.patience or None,
        path=folder / "best.npz",
        average=average,
        # While the pictures are small no epoch can be the best one; with snapshots it is the end of the last cycle.
        start_epoch=next(phase.epochs[0] for phase in phases(recipe) if phase.size is None)
        if snapshots is None
        else recipe.epochs - 1,
    )
    work = [count * math.prod(phase.size or recipe.image_size) for count, phase in zip(steps, each, strict=True)]
    deadline = None if seconds is None else Deadline(seconds, recipe.epochs, planned, len(steps))
    progress = EpochLog(console, what, steps, list(data.classes), work, deadline)
    divergence = TerminateOnDivergence()
    watched: dict[str, Any] = {"average": average} if average else {}  # first: epochs are judged by it
    watched |= {"deadline": deadline} if deadline else {}
    watched |= {"log": progress, "divergence": divergence}
    watched |= {"snapshots": snapshots} if snapshots else {}
    watched |= {"hardest": hardest} if hardest else {}
    names = dict(zip(data.classes, heads, strict=True))
    alarms = make_alarms(recipe, data, names, train_index, val_index, console, what)
    watched |= {"stopping": stopping, "alarms": alarms} if len(val_index) else {}
    checkpoint = Checkpoint(folder / "last.npz", watched, checkpoint_seconds)
    begin = _restore(checkpoint, model, data, progress) if resume else Position()
    start = began - progress.seconds_before
    if begin.epoch < len(steps) and not begin.stopped:
        one = OneTraining([*watched.values(), *callbacks, checkpoint], add_history=True, model=model, verbose=0)
        with console.progress(what, planned) as progress.bar, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Training diverged|Epoch .* no finite|EarlyStopping saw no")  # said below
            todo = phases(recipe, begin.epoch, begin.step, more)
            _fit(model, recipe, data, train_index, val_index, one, todo, hardest)
    elif len(val_index) and stopping.best_weights is not None:
        model.set_weights(stopping.best_weights)
    elif average is not None:
        put_average(model, average)
    if divergence.message:
        raise ValueError(f"{divergence.message} With `--lr` that is a new run.")
    finished = build_network(recipe, data, "float32")
    finished.set_weights(model.get_weights())
    earlier = []
    for weights in snapshots.snapshots[:-1] if snapshots else ():
        one_more = build_network(recipe, data, "float32")
        one_more.set_weights(weights)
        earlier.append(network_alone(one_more))
    pictures = sum(steps[: len(progress.history)]) * recipe.batch_size
    speed = pictures / max(sum(row["seconds"] for row in progress.history), 1e-9)
    best = len(progress.history) if stopping.best_epoch is None else stopping.best_epoch + 1
    if stopping.stopped_epoch is not None:
        console.say(f"  {what}: stopped early: no epoch after {best} was better")
    score = None if stopping.best_epoch is None else float(stopping.best)
    took, own = time.monotonic() - start, network_alone(finished)
    return Trained(own, progress.history, best, score, took, speed, alarms.messages, earlier)


def _restore(checkpoint: Checkpoint, model: keras.Model, data: Data, progress: "EpochLog") -> Position:
    """Where an interrupted training goes on, said in words."""
    one, console = data.take(np.array([0])), progress.console
    batch = keras.tree.map_structure(np.asarray, next(iter(make_eval(one.pictures, one.labels, data.num_classes))))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        begin = checkpoint.restore(model, batch)
    for warning in caught:
        console.warn(str(warning.message))
    if begin.step:
        where = (
            f"in epoch {begin.epoch + 1} of {progress.epochs}, after step {begin.step} of {progress.steps[begin.epoch]}"
        )
        console.say(f"  {progress.what}: going on {where}")
    elif begin.epoch:
        console.say(f"  {progress.what}: going on after epoch {begin.epoch} of {progress.epochs}")
    return begin


def _fit(
    model: keras.Model,
    recipe: Recipe,
    data: Data,
    train_index: np.ndarray,
    val_index: np.ndarray,
    callbacks: OneTraining,
    todo: Sequence[Phase],
    hardest: HardestExamples | None,
) -> None:
    """What is left of the training: a `fit` for every phase, one training for the callbacks."""
    held_out = data.take(val_index)
    watch = make_eval(held_out.pictures, held_out.labels, data.num_classes) if len(val_index) else None
    size: tuple[int, int] | None = None
    for phase in todo:
        begin, end = phase.epochs
        only = None
        if hardest:
            only = hardest.choose(phase.share)
            hardest.order = places_of_epoch(only, recipe.batch_size, recipe.seed, begin)
        if size != phase.size:
            # The step of another size is another graph: it knows the size, and takes the faster kernels.
            model.make_train_function(force=True)
            size = phase.size
        steps = steps_of(recipe, phase, len(train_index)) - phase.first_step
        callbacks.set_params({"epochs": recipe.epochs, "steps": steps, "verbose": 0})
        model.fit(
            training_batches(recipe, data, train_index, begin, size, only, phase.first_step),
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
    first_step: int = 0,
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
        first_step=first_step,
        only=only,
    )


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
        deadline: Knows how many of these epochs will be trained, and when the training ends; None for all of them.
    """

    def __init__(
        self,
        console: Console,
        what: str,
        steps: Sequence[int],
        heads: Sequence[str],
        work: Sequence[float],
        deadline: Deadline | None = None,
    ) -> None:
        super().__init__()
        self.console, self.what, self.steps, self.heads, self.work = console, what, steps, heads, work
        self.deadline = deadline
        self.history: list[dict[str, float]] = []
        self.seconds_before = 0.0
        self.bar: Bar | None = None
        self._step = 0  # of the running epoch
        self._training_seconds = 0.0  # so far in it

    @property
    def epochs(self) -> int:
        """How many there will be."""
        return self.deadline.epochs if self.deadline else len(self.steps)

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Remember when this sitting began."""
        self._began = time.monotonic()
        self._done_before = self._done(len(self.history), self._step)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Start the epoch's clock."""
        self._epoch, self._first_step = epoch, self._step
        self._epoch_began = time.monotonic() - self._training_seconds

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Move the bar."""
        logs = logs or {}
        self._training_seconds = time.monotonic() - self._epoch_began
        self._step = self._first_step + batch + 1
        if self.bar is not None:
            self.bar.update(
                sum(self.steps[: self._epoch]) + self._step,
                f"epoch {self._epoch + 1} of {self.epochs} · loss {logs['loss']:.3f}",
                self._seconds_left(self._epoch, self._step),
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
        self._step, self._training_seconds = 0, 0.0
        accuracy = f"accuracy {percent(mean_accuracy(logs, self.heads))}"
        if any(name.startswith("val_") for name in logs):
            accuracy += f", validation {percent(mean_accuracy(logs, self.heads, 'val_'))}"
        self.console.say(
            f"  {self.what}: epoch {epoch + 1} of {self.epochs}, loss {logs['loss']:.4f}, {accuracy}, "
            f"{duration(time.monotonic() - self._epoch_began)}, {duration(self._seconds_left(epoch + 1, 0))} left"
        )

    def _seconds_left(self, epoch: int, step: int) -> float:
        """After some steps of an epoch, if the rest goes as this sitting went so far."""
        done, total = self._done(epoch, step), sum(self.work[: self.epochs])
        return (time.monotonic() - self._began) * max(total - done, 0.0) / max(done - self._done_before, 1e-9)

    def _done(self, epoch: int, step: int) -> float:
        """The work of the epochs before, and of some steps of this one."""
        return sum(self.work[:epoch]) + (step / self.steps[epoch] * self.work[epoch] if step else 0.0)

    def get_state(self) -> dict[str, Any]:
        """The log so far, for the checkpoint."""
        return {
            "history": self.history,
            "seconds": self.seconds_before + time.monotonic() - self._began,
            "step": self._step,
            "training_seconds": self._training_seconds,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on after `get_state()`."""
        self.history, self.seconds_before = list(state["history"]), float(state["seconds"])
        self._step, self._training_seconds = int(state["step"]), float(state["training_seconds"])
