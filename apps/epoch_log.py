"""The log of a training: a row for every epoch, a bar for its steps, and what makes one epoch better than another."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from apps.console import Bar, Console, duration, percent
from callbacks import Deadline
from callbacks.rates import momentum


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
        self.pauses: Callable[[], float] = lambda: 0.0  # seconds that other callbacks took, which are not training
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
        self._epoch_began, self._paused = time.monotonic() - self._training_seconds, self.pauses()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Move the bar."""
        logs = logs or {}
        self._training_seconds = time.monotonic() - self._epoch_began - (self.pauses() - self._paused)
        self._step = self._first_step + batch + 1
        if self.bar is not None:
            self.bar.update(
                sum(self.steps[: self._epoch]) + self._step,
                f"epoch {self._epoch + 1} of {self.epochs} · loss {logs['loss']:.3f}",
                self._seconds_left(self._epoch, self._step),
                sum(self.steps[: self.epochs]),
            )

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Write the epoch down and print its line."""
        logs = logs or {}
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        inertia = momentum(self.model.optimizer)
        row = {
            "epoch": epoch + 1,
            "lr": rate,
            **({} if inertia is None else {"momentum": inertia}),
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
