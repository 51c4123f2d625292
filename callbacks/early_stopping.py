"""Stop when validation no longer improves, and keep the best weights, also on disk and across a resumed training."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from callbacks.snapshots import read_snapshot, write_snapshot


class EarlyStopping(keras.callbacks.Callback):
    """Keep the weights of the best epoch; stop after `patience` epochs without a better one.

    The best weights are put back at the end of `fit`, whatever ended it. With `path` they are also on disk, whole, as
    soon as their epoch has ended, so that an interrupted training keeps them.

    Args:
        monitor: Name of an entry of the logs, or a function from the logs to a number.
        mode: "max" or "min".
        patience: Epochs without improvement before training stops; None never stops.
        min_delta: Smallest change that counts as an improvement.
        path: File for the best weights, an .npz of the arrays of `model.get_weights()`, in order.

    Raises:
        ValueError: At the end of the first epoch, when the logs have no entry `monitor`.

    >>> stop = EarlyStopping("val_accuracy", mode="max", patience=3)
    >>> stop.get_state()["best_epoch"] is None
    True
    """

    def __init__(
        self,
        monitor: str | Callable[[Mapping[str, float]], float] = "val_loss",
        mode: str = "min",
        patience: int | None = None,
        min_delta: float = 0.0,
        path: os.PathLike[str] | str | None = None,
    ) -> None:
        super().__init__()
        if mode not in ("min", "max"):
            raise ValueError(f"`mode` must be 'min' or 'max'. Received: mode={mode!r}.")
        if patience is not None and patience < 1:
            raise ValueError(f"`patience` must be at least 1 epoch, or None. Received: patience={patience}.")
        self.monitor, self.mode, self.patience, self.min_delta = monitor, mode, patience, min_delta
        self.path = Path(path) if path is not None else None
        self._restored = False
        self._reset()

    def _reset(self) -> None:
        self.best = -np.inf if self.mode == "max" else np.inf
        self.best_epoch: int | None = None
        self.best_weights: list[np.ndarray] | None = None
        self.waited = 0
        self.stopped_epoch: int | None = None

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Start afresh, or, after `set_state`, from where the interrupted training was."""
        if not self._restored:
            self._reset()
        self._restored = False

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Compare the epoch with the best one; a value that is not a number is never better."""
        value = self._value(logs or {})
        gain = value - self.best if self.mode == "max" else self.best - value
        if gain > self.min_delta:
            self.best, self.best_epoch, self.waited = value, epoch, 0
            self.best_weights = self.model.get_weights()
            if self.path is not None:
                write_snapshot(self.path, self.best_weights, {"epoch": epoch, "value": value})
            return
        self.waited += 1
        if self.patience is not None and self.waited >= self.patience:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Put the best weights back."""
        if self.best_weights is not None:
            self.model.set_weights(self.best_weights)

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint must keep, as plain numbers."""
        return {
            "best": float(self.best),
            "best_epoch": self.best_epoch,
            "waited": self.waited,
            "stopped_epoch": self.stopped_epoch,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `get_state()`; the best weights are read from `path`."""
        self._reset()
        for name in ("best", "best_epoch", "waited", "stopped_epoch"):
            setattr(self, name, state[name])
        if self.best_epoch is not None and self.path is not None:
            self.best_weights = read_snapshot(self.path)[0]
        self._restored = True

    def _value(self, logs: Mapping[str, float]) -> float:
        if callable(self.monitor):
            return float(self.monitor(logs))
        if self.monitor not in logs:
            raise ValueError(f"`monitor` names no entry of the logs: {self.monitor!r}. There are: {sorted(logs)}.")
        return float(logs[self.monitor])
