"""What makes one epoch better than another: an entry of Keras' logs, or several, and a direction."""

import difflib
import fnmatch
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Logs = Mapping[str, Any]
Monitored = str | Sequence[str] | Callable[[Logs], float]

# The last word of a name that stands here decides: "val_accuracy_head_loss" is a loss.
_LOWER = (
    "loss error errors err mse mae mape msle rmse crossentropy divergence hinge logcosh poisson perplexity nll brier "
    "ece false"
)
_HIGHER = (
    "accuracy acc auc precision recall f1 f1score fbeta score iou io dice map similarity correlation specificity "
    "sensitivity kappa mcc r2 true"
)
LOWER_IS_BETTER, HIGHER_IS_BETTER = frozenset(_LOWER.split()), frozenset(_HIGHER.split())


class Objective:
    """A number for every epoch, and which of two numbers is better.

    Args:
        monitor: Name of an entry of the logs; a list of names, or a pattern with `*`, `?` or `[...]` such as
            "val_*accuracy", whose entries are averaged; or a function from the logs to a number.
        mode: "min", "max", or None for what the name tells (a loss or error is to be small, an accuracy large).
        min_delta: Smallest difference that counts as better, at least 0.

    Raises:
        ValueError: The mode is missing and the name does not tell it, or an argument is out of its range.

    >>> objective = Objective("val_*accuracy")
    >>> objective.mode, objective.value({"val_colour_accuracy": 0.5, "val_shape_accuracy": 1.0, "val_loss": 3.0})
    ('max', 0.75)
    >>> objective.improved(0.75, best=0.7), objective.improved(float("nan"), best=0.7)
    (True, False)
    """

    def __init__(self, monitor: Monitored, mode: str | None = None, min_delta: float = 0.0) -> None:
        if mode not in (None, "min", "max"):
            raise ValueError(f"`mode` must be 'min' or 'max', or None to go by the name. Received: mode={mode!r}.")
        if not min_delta >= 0:
            raise ValueError(f"`min_delta` must be at least 0. Received: min_delta={min_delta}.")
        self.monitor = monitor
        self.names: list[str] = []
        if not callable(monitor):
            self.names = (
                [monitor] if isinstance(monitor, str) else list(monitor) if isinstance(monitor, Sequence) else []
            )
            if not self.names or not all(isinstance(name, str) and name for name in self.names):
                raise ValueError(f"`monitor` must name entries of the logs. Received: monitor={monitor!r}.")
        self.mode: str = mode or _infer_mode(self.names)
        self.min_delta = float(min_delta)

    @property
    def description(self) -> str:
        """The monitored names, for messages."""
        return ", ".join(self.names) or getattr(self.monitor, "__name__", "the monitored function")

    @property
    def worst(self) -> float:
        """What every number improves on."""
        return -math.inf if self.mode == "max" else math.inf

    def improved(self, value: float, best: float) -> bool:
        """Whether `value` is better than `best` by more than `min_delta`; never for a value that is not finite."""
        gain = value - best if self.mode == "max" else best - value
        return math.isfinite(value) and gain > self.min_delta

    def value(self, logs: Logs | None) -> float:
        """The monitored number.

        Raises:
            ValueError: The logs have no such entry, or it is an array.
        """
        logs = logs or {}
        if callable(self.monitor):
            return _number(self.monitor(logs), self.description)
        entries = [entry for name in self.names for entry in _find(name, logs)]
        return float(np.mean([_number(logs[entry], entry) for entry in entries]))


def _infer_mode(names: Sequence[str]) -> str:
    modes = {_mode_of(name) for name in names}
    if len(modes) == 1 and None not in modes:
        return str(modes.pop())
    what = f"monitor={list(names)}" if names else "a function"
    raise ValueError(
        f"Give `mode`: 'min' where small values of `monitor` are better, 'max' where large ones are. "
        f"The name does not tell. Received: {what} and mode=None."
    )


def _mode_of(name: str) -> str | None:
    for word in reversed(re.split(r"[^a-z0-9]+", name.lower())):
        if word in LOWER_IS_BETTER:
            return "min"
        if word in HIGHER_IS_BETTER:
            return "max"
    return None


def _find(name: str, logs: Logs) -> list[str]:
    """The entries that a name or pattern means."""
    if name in logs:
        return [name]
    found = [entry for entry in logs if fnmatch.fnmatchcase(entry, name)] if re.search(r"[*?\[]", name) else []
    if found:
        return found
    near = difflib.get_close_matches(name, logs, n=3, cutoff=0.6)
    others = sorted(entry for entry in logs if entry not in near)
    hint = ""
    if name.startswith(("val_", "average_val_")) and not any(entry.startswith("val_") for entry in logs):
        hint = " Entries that begin with 'val_' need `validation_data`, in every epoch."
    raise ValueError(f"`monitor` names no entry of the logs: {name!r}. There are: {near + others}.{hint}")


def _number(value: Any, name: str) -> float:
    array = np.asarray(value)
    if array.ndim:
        raise ValueError(
            f"{name!r} must be one number, but is an array of shape {array.shape}. A metric such as F1Score needs "
            "`average='macro'`; or give a function from the logs to a number as `monitor`."
        )
    return float(array)
