"""The curves of a training as arrays, whatever logged them."""

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

RATES = ("lr", "learning_rate")
# What begins so is of validation, of the weights in use or of others.
JUDGED = ("val_", "raw_val_", "average_val_")
OTHERS = re.compile("|".join(JUDGED))
# A rate that is twice the one before, after it had fallen below half of the highest, begins a new cycle.
RESTART = 2.0
# Of the highest rate: below these, the rate counts as lowered, and as near zero.
LOW, ZERO = 0.5, 0.1


@dataclass(frozen=True)
class Output:
    """The curves [epochs] of one output, NaN where unknown; `classes` is None where unknown."""

    name: str
    classes: int | None
    loss: np.ndarray
    val_loss: np.ndarray
    accuracy: np.ndarray
    val_accuracy: np.ndarray


@dataclass(frozen=True)
class TrainingCurves:
    """The curves [epochs] of a training; accuracies are means over the outputs, NaN where unknown.

    Attributes:
        epochs: Counted from 1.
        rate: Learning rates; all NaN unless every epoch's is known.
        broken, val_broken: Where the loss was not finite, and stands as NaN.
        outputs: One by one.
        uniform: The loss of answering every class with the same probability; NaN where the classes are unknown.
        chance: The accuracy of that, a mean over the outputs.
    """

    epochs: np.ndarray
    rate: np.ndarray
    loss: np.ndarray
    val_loss: np.ndarray
    broken: np.ndarray
    val_broken: np.ndarray
    outputs: tuple[Output, ...]

    @cached_property
    def accuracy(self) -> np.ndarray:
        """Of training."""
        return np.mean([one.accuracy for one in self.outputs], axis=0)

    @cached_property
    def val_accuracy(self) -> np.ndarray:
        """Of validation."""
        return np.mean([one.val_accuracy for one in self.outputs], axis=0)

    @cached_property
    def chance(self) -> float:
        """1 / classes, NaN where unknown."""
        return float(np.mean([1 / (one.classes or math.nan) for one in self.outputs]))

    @cached_property
    def uniform(self) -> float:
        """ln(classes); of several outputs the sum, in the proportion in which their losses make the loss."""
        total = sum(math.log(one.classes or math.nan) for one in self.outputs)
        if len(self.outputs) == 1:
            return total
        proportion = self.loss / np.sum([one.loss for one in self.outputs], axis=0)
        known = proportion[np.isfinite(proportion)]
        return total * float(known[0]) if known.size else math.nan

    @cached_property
    def cycles(self) -> list[int]:
        """The last row of every cycle of the rate; the last row alone where it has no restarts."""
        rate, ends, high = self.rate, [], -math.inf
        for row in range(1, len(rate)):
            high = max(high, rate[row - 1])
            if rate[row - 1] < LOW * high and rate[row] > RESTART * rate[row - 1]:
                ends.append(row - 1)
        return [*ends, len(rate) - 1]

    @property
    def decayed(self) -> bool:
        """Whether the rate was low at the end."""
        return bool(self.rate[-1] < LOW * np.max(self.rate)) if np.isfinite(self.rate).all() else False

    @property
    def spent(self) -> bool:
        """Whether the rate was near zero at the end."""
        return bool(self.rate[-1] <= ZERO * np.max(self.rate)) if np.isfinite(self.rate).all() else False

    def only(self, rows: Sequence[int] | np.ndarray) -> "TrainingCurves":
        """The training with these rows alone."""
        outputs = tuple(
            Output(
                one.name, one.classes, one.loss[rows], one.val_loss[rows], one.accuracy[rows], one.val_accuracy[rows]
            )
            for one in self.outputs
        )
        return TrainingCurves(
            self.epochs[rows],
            self.rate[rows],
            self.loss[rows],
            self.val_loss[rows],
            self.broken[rows],
            self.val_broken[rows],
            outputs,
        )


def training_curves(history: Any, classes: int | Mapping[str, int] | None, metric: str) -> TrainingCurves:
    """Read what `diagnose` is given.

    Raises:
        ValueError: There is no epoch, or none with a training loss; `classes` does not fit.
    """
    rows = _rows(history)
    if not rows or not any("loss" in row for row in rows):
        received = f"rows of {', '.join(rows[0])}" if rows else "no epochs"
        raise ValueError(
            "`history` must be what `model.fit` returns, or rows such as {'epoch': 1, 'loss': 2.3, 'val_loss': 2.2}, "
            f"with a loss in at least one. Received: {received}."
        )
    names = list(dict.fromkeys(name for row in rows for name in row))
    heads = _heads(names, classes, metric)
    counts = _classes(heads, classes, metric in names)
    outputs = [_output(rows, f"{head}_" if head else "", counts[head], metric, head) for head in heads or [""]]
    measured = [f"{head}_{metric}" for head in heads] or [metric]
    return TrainingCurves(
        np.array([int(row.get("epoch", number)) for number, row in enumerate(rows, 1)]),
        next((rate for name in RATES if np.isfinite(rate := _column(rows, name)).all()), np.full(len(rows), math.nan)),
        _column(rows, "loss"),
        _column(rows, "val_loss"),
        _broken(rows, "loss", [name for name in measured if name in names]),
        _broken(rows, "val_loss", [name for name in (f"val_{one}" for one in measured) if name in names]),
        tuple(outputs),
    )


def _rows(history: Any) -> Sequence[Mapping[str, Any]]:
    """`history` as one mapping for each epoch."""
    columns = getattr(history, "history", history)
    if not isinstance(columns, Mapping):
        return list(columns)
    length = max((len(values) for values in columns.values()), default=0)
    first = (getattr(history, "epoch", None) or [0])[0] + 1  # Keras counts from 0
    rows: list[dict[str, Any]] = [{"epoch": first + row} for row in range(length)]
    for name, values in columns.items():
        for row, value in zip(_places(name, len(values), length, first), values, strict=True):
            rows[row][name] = value
    return rows


def _places(name: str, count: int, length: int, first: int) -> Sequence[int]:
    """The rows of `count` values: all, or those at which Keras validates with `validation_freq=length / count`."""
    if count in (0, length):
        return range(count)
    if length % count:
        raise ValueError(
            f"`history` has {count} values of {name!r} in {length} epochs, and does not tell to which they belong. "
            "Give one row for each epoch instead, such as {'epoch': 5, 'loss': 1.2, 'val_loss': 1.3}."
        )
    every = length // count
    return [row for row in range(length) if (first + row) % every == 0]


def _heads(names: Sequence[str], classes: int | Mapping[str, int] | None, metric: str) -> list[str]:
    """The outputs with a name: those in `classes`, whatever they are called, and others that no prefix rules out."""
    named = [head for head in (classes if isinstance(classes, Mapping) else ()) if f"{head}_{metric}" in names]
    judged = {f"{prefix}{head}" for head in named for prefix in JUDGED}
    named = [head for head in named if head not in judged]  # what bears both names is validation
    taken = {f"{prefix}{head}_{metric}" for head in named for prefix in ("", *JUDGED)}
    found = [name for name in names if name.endswith(f"_{metric}") and name not in taken and not OTHERS.match(name)]
    return sorted(
        [*named, *(name.removesuffix(f"_{metric}") for name in found)], key=lambda head: names.index(f"{head}_{metric}")
    )


def _classes(heads: Sequence[str], classes: int | Mapping[str, int] | None, plain: bool) -> dict[str, int | None]:
    """Classes by output; one without a name, as a `plain` metric tells it, takes those of the only one in `classes`."""
    known: Mapping[str, int | None]
    if isinstance(classes, Mapping) and (len(classes) != 1 or heads):
        known = classes
        unknown = [name for name in classes if name not in heads]
        if unknown and (any(head not in classes for head in heads) or (plain and not heads)):
            near = difflib.get_close_matches(unknown[0], heads, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"`classes` must be for the outputs in the history: {', '.join(heads) or 'one without a name'}. "
                f"Received: {', '.join(unknown)}.{hint}"
            )
    else:
        count = next(iter(classes.values())) if isinstance(classes, Mapping) else classes
        known = dict.fromkeys([*heads, ""], count)
    if wrong := [count for count in known.values() if count is not None and count < 2]:
        raise ValueError(f"`classes` must be at least 2. Received: {wrong[0]}.")
    return {head: known.get(head) for head in heads or [""]}


def _output(rows: Sequence[Mapping[str, Any]], prefix: str, classes: int | None, metric: str, name: str) -> Output:
    columns = [f"{prefix}loss", f"val_{prefix}loss", f"{prefix}{metric}", f"val_{prefix}{metric}"]
    return Output(name, classes, *(_column(rows, column) for column in columns))


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    numbers = np.array([_number(row.get(name)) for row in rows])
    return np.where(np.isfinite(numbers), numbers, math.nan)


def _broken(rows: Sequence[Mapping[str, Any]], name: str, beside: Sequence[str]) -> np.ndarray:
    """Where a loss is infinite, or NaN; a NaN with no accuracy `beside` it, of those the history has, is a gap."""
    return np.array(
        [
            row.get(name) is not None
            and not math.isfinite(_number(row[name]))
            and (not beside or any(math.isfinite(_number(row.get(other))) for other in beside))
            for row in rows
        ]
    )


def _number(value: Any) -> float:
    """NaN where it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


@dataclass(frozen=True)
class Windows:
    """Means of the loss over `batches` each, up to `step`."""

    step: np.ndarray
    loss: np.ndarray
    batches: np.ndarray

    def joined(self, least: float) -> "Windows":
        """Neighbours put together until each has at least `least` batches; a rest that has not is left out."""
        rows, loss, count = [], 0.0, 0.0
        for step, mean, batches in zip(self.step, self.loss, self.batches, strict=True):
            loss, count = loss + mean * batches, count + batches
            if count >= least:
                rows.append((step, loss / count, count))
                loss, count = 0.0, 0.0
        return Windows(*np.array(rows, dtype=float).reshape(-1, 3).T)


def windows(steps: Iterable[Mapping[str, Any]] | None) -> Windows:
    """Read the `steps` that `diagnose` is given; rows without a loss are left out, a loss that is NaN is kept."""
    rows = [
        (float(row["step"]), _number(row["loss"]), float(row.get("batches") or 1))
        for row in steps or ()
        if row.get("loss") is not None
    ]
    return Windows(*np.array(rows, dtype=float).reshape(-1, 3).T)


def loss_windows(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The loss between neighbouring lines of a `JsonLog(every=...)`, whose own are means since the epoch began.

    Args:
        lines: What `read_log` returns.

    Returns:
        One row a window, as `diagnose` takes for `steps`: "step" (batches so far), "loss" (mean over the window; NaN
        where it was not finite), "batches" (of the window) and "lr" (of its last step).

    >>> begun = {"epoch": 0, "batch": 2, "step": 2, "logs": {"loss": 3.0}}
    >>> loss_windows([begun, {"epoch": 0, "step": 3, "logs": {"loss": 2.5}}])[1]
    {'step': 3, 'loss': 1.5, 'batches': 1, 'lr': None}
    """
    return list(_loss_windows(lines))


def _loss_windows(lines: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    epoch, begin, last, total = None, 0, 0, 0.0
    for line in lines:
        if line["epoch"] != epoch:
            begin = line["step"] - line["batch"] if "batch" in line else last
            epoch, last, total = line["epoch"], begin, 0.0
        batches = line["step"] - last
        if batches < 1 or "loss" not in line["logs"]:  # the epoch's own line, where the last batch had one
            continue
        loss = line["logs"]["loss"]
        sum_so_far = (math.nan if loss is None else loss) * (line["step"] - begin)
        yield {
            "step": line["step"],
            "loss": (sum_so_far - total) / batches,
            "batches": batches,
            "lr": line.get("learning_rate"),
        }
        last, total = line["step"], sum_so_far
