"""Stop a training that has left all reason, and say when, at which learning rate, and what to do."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import keras

from callbacks.rates import batches_seen, learning_rate, unwrapped
from callbacks.stateful import StatefulCallback


class TerminateOnDivergence(StatefulCallback):
    """Stop `fit` when the loss is not finite, or far above what it was; `message` then says where and what to do.

    Keras gives the mean over the epoch so far as the loss of a step, and that is what is looked at.

    Args:
        factor: Stop also where the loss exceeds `factor` times the best epoch's mean so far, above 1; for losses above
            0 only. None looks for NaN and infinity alone.

    >>> guard = TerminateOnDivergence(factor=10)
    >>> guard.message is None
    True
    """

    STATE = ("best", "message")

    def __init__(self, factor: float | None = None) -> None:
        if factor is not None and not 1 < factor < math.inf:
            raise ValueError(f"`factor` must be above 1, or None. Received: factor={factor}.")
        self.factor = factor
        super().__init__()

    def reset(self) -> None:
        """Forget the best epoch."""
        self.best = math.inf
        self.message: str | None = None
        self._epoch = self._first = 0

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Start afresh, or, after `set_state`, with the best mean so far."""
        super().on_train_begin(logs)
        self.message = None

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Remember the epoch."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Remember the first of the steps that are executed together."""
        self._first = batch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Look at the mean loss of the epoch so far."""
        what = self._complaint("loss", (logs or {}).get("loss", 0.0))
        if what and self.message is None:
            last = min(batch, ((self.params or {}).get("steps") or batch + 1) - 1)
            self._stop(what, f"step {_range(self._first + 1, last + 1)}", last - self._first + 1)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Look at the epoch's loss, and at the validation loss, which shows what the last step did."""
        logs = logs or {}
        loss = float(logs.get("loss", math.inf))
        finite = math.isfinite(logs.get("val_loss", 0.0))
        what = self._complaint("loss", logs.get("loss", 0.0)) or (
            None if finite else f"validation loss is {logs['val_loss']}"
        )
        if what and self.message is None:
            self._stop(what, "its end", 1)
        if math.isfinite(loss):
            self.best = min(self.best, loss)

    def _complaint(self, name: str, loss: float) -> str | None:
        if not math.isfinite(loss):
            return f"{name} is {loss}"
        if self.factor is not None and 0 < self.factor * self.best < loss:
            return f"{name} is {loss:.4g}, more than {self.factor:g} times the best epoch's {self.best:.4g}"
        return None

    def _stop(self, what: str, where: str, steps: int) -> None:
        model = self.model
        rates = _rates(model.optimizer, steps)
        advice = f"such as {max(rates) / 10:.2g}, " if rates else ""
        rate = f", at learning rate {_range(*(f'{one:.4g}' for one in rates))}" if rates else ""
        self.message = (
            f"Training diverged in epoch {self._epoch + 1}, {where}{rate}: the {what}. Use a lower learning rate, "
            f"{advice}a warm-up before the full rate, or the optimiser's `clipnorm=1.0`."
        )
        warnings.warn(self.message, stacklevel=2)
        model.stop_training = True


def _range(first: Any, last: Any) -> str:
    return f"{first}" if first == last else f"{first} to {last}"


def _rates(optimizer: keras.optimizers.Optimizer, steps: int) -> tuple[float, float] | None:
    """The learning rates of the first and the last of the newest `steps` steps; None with several optimisers."""
    if getattr(unwrapped(optimizer), "optimizers", None):
        return None
    last = max(batches_seen(optimizer) - 1, 0)
    return learning_rate(optimizer, max(last - steps + 1, 0)), learning_rate(optimizer, last)
