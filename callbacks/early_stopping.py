"""Stop when validation no longer improves, and keep the best weights, also on disk and across a resumed training."""

import os
import warnings
from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np

from callbacks.interrupt import Interrupt
from callbacks.objective import Monitored, Objective
from callbacks.snapshots import copy_weights, read_snapshot, write_snapshot
from callbacks.stateful import StatefulCallback
from callbacks.weight_average import WeightAverage, refuse_optimizer_average, running_average
from callbacks.whole_file import writable_path


class EarlyStopping(StatefulCallback):
    """Keep the weights of the best epoch; stop after `patience` epochs without a better one.

    The best weights are put back at the end of `fit`, and at Ctrl-C, which acts at the end of the running step (a
    second one at once). With `path` they are also on disk, whole, as soon as their epoch has ended, so that a training
    that is killed keeps them.

    Args:
        monitor: Name of an entry of the logs, several names or a pattern (their mean), or a function from the logs to
            a number; see `Objective`.
        mode: "min", "max", or None for what the name tells; needed with a function.
        patience: Epochs without improvement before training stops; None never stops.
        min_delta: Smallest change that counts as an improvement.
        path: File for the best weights, an .npz of the arrays of `model.get_weights()`, in order:
            `model.set_weights(read_snapshot(path)[0])` takes them back.
        average: A `WeightAverage` of the same `fit`, before or after this one in the list: the weights kept and put
            back are then its averaged ones. Epochs without an average do not count.
        start_epoch: Epochs before this one, counted from 0, do not count.

    Raises:
        FileNotFoundError: At construction, when the folder of `path` does not exist.
        ValueError: At construction, when an argument is wrong. Before the first step, when the optimiser's `use_ema`
            or a `WeightAverage` not given as `average` would overwrite the best weights. At the end of the first
            epoch, when the logs have no entry `monitor`.

    >>> stop = EarlyStopping("val_accuracy", patience=3)
    >>> stop.get_state()["best_epoch"] is None
    True
    """

    STATE = ("best", "best_epoch", "waited", "stopped_epoch")

    def __init__(
        self,
        monitor: Monitored = "val_loss",
        mode: str | None = None,
        patience: int | None = None,
        min_delta: float = 0.0,
        path: os.PathLike[str] | str | None = None,
        average: WeightAverage | None = None,
        start_epoch: int = 0,
    ) -> None:
        self.objective = Objective(monitor, mode, min_delta)
        if patience is not None and not (isinstance(patience, Integral) and patience >= 1):
            raise ValueError(f"`patience` must be 1, 2, ... epochs, or None. Received: patience={patience!r}.")
        if average is not None and not isinstance(average, WeightAverage):
            raise ValueError(f"`average` must be a WeightAverage. Received: average={average!r}.")
        if start_epoch < 0:
            raise ValueError(f"`start_epoch` must be at least 0. Received: start_epoch={start_epoch}.")
        self.patience, self.average, self.start_epoch = patience, average, start_epoch
        self.path = writable_path(path) if path is not None else None
        self._interrupt = Interrupt()
        super().__init__()

    def reset(self) -> None:
        """Forget the best epoch."""
        self.best = self.objective.worst
        self.best_epoch: int | None = None
        self.best_weights: list[np.ndarray] | None = None
        self.waited = 0
        self.stopped_epoch: int | None = None

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Start afresh, or, after `set_state`, from where the interrupted training was; listen to Ctrl-C."""
        super().on_train_begin(logs)
        refuse_optimizer_average(self.model, "EarlyStopping")
        self._saw_epoch = False
        self._interrupt.watch(self.model)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Refuse a fit whose end would overwrite the best weights."""
        running = running_average(self.model)
        if self.average is None and running is not None and running.finish == "average":
            raise ValueError(
                "EarlyStopping and WeightAverage would overwrite each other's weights at the end. "
                "Give EarlyStopping `average=` that WeightAverage, or give WeightAverage `finish='raw'`."
            )
        if self.average is not None and not self.average.is_running(self.model):
            raise ValueError(
                "`average` must take part in the same `fit`: put the WeightAverage into the list of callbacks too."
            )

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Act on Ctrl-C."""
        self._act_on_interrupt()

    def on_test_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Act on Ctrl-C."""
        self._act_on_interrupt()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Compare the epoch with the best one; a value that is not finite is never better."""
        self._saw_epoch = True
        if self.average is not None:
            self.average.finish_epoch(epoch, logs)
        if epoch >= self.start_epoch and (self.average is None or self.average.average is not None):
            self._compare(epoch, self.objective.value(logs))
        self._act_on_interrupt()

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Put the best weights back."""
        if self.average is not None:
            self.average.finish_training()
        if self.best_weights is None and self._saw_epoch:
            warnings.warn(
                f"EarlyStopping saw no epoch with a finite {self.objective.description}: the weights are left as "
                "they are after the last one.",
                stacklevel=2,
            )
        self._put_back()
        self._act_on_interrupt()
        self._interrupt.stop()

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint must keep: plain numbers, and the best weights where `path` does not hold them."""
        state = super().get_state()
        return state if self.path is not None else {**state, "best_weights": self.best_weights}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `get_state()`; the best weights are read from `path`."""
        super().set_state(state)
        if self.best_epoch is not None:
            self.best_weights = read_snapshot(self.path)[0] if self.path is not None else state.get("best_weights")

    def _compare(self, epoch: int, value: float) -> None:
        if self.objective.improved(value, self.best):
            self.best, self.best_epoch, self.waited = value, epoch, 0
            average = self.average.averaged_weights if self.average is not None else None
            self.best_weights = copy_weights(self.model) if average is None else average
            if self.path is not None:
                write_snapshot(self.path, self.best_weights, {"epoch": epoch, "value": value})
            return
        self.waited += 1
        if self.patience is not None and self.waited >= self.patience:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def _put_back(self) -> None:
        if self.best_weights is not None:
            self.model.set_weights(self.best_weights)

    def _act_on_interrupt(self) -> None:
        if self._interrupt.pending:
            self._interrupt.deliver(self._put_back)
