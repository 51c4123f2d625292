"""A diagnosis of a training in plain words, from its curves.

How a curve looks at which fault: https://cs231n.github.io/neural-networks-3/#baby. Times are measured in learning rate
here, not in epochs, where the rates are known: half of the way is where half of their sum was spent, so that a warm-up,
or a decay to zero, is not taken for a training that does not learn.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from callbacks.bugs import bugs_of, not_finite
from callbacks.evidence import FEW, Case, Diagnosis, percent
from callbacks.faults import EXPLAINS, RULES
from callbacks.training_curves import training_curves, windows


def diagnose(
    history: Any,
    *,
    steps: Iterable[Mapping[str, Any]] | None = None,
    classes: int | Mapping[str, int] | None = None,
    batch_size: int | None = None,
    updates: float | None = None,
    metric: str = "accuracy",
) -> list[Diagnosis]:
    """What the curves of a training of a classifier show, the most serious first; "healthy" alone where it is nothing.

    A curve tells what happened, seldom for certain why: the evidence says what a finding rests on. Of fewer than three
    epochs only what can be told from them is said.

    Args:
        history: What `fit` returns, its dict, or a dict for each epoch with "loss" and, where known, "val_loss",
            "accuracy", "val_accuracy", for several outputs "HEAD_accuracy" and so on, "lr" or "learning_rate", and
            "epoch" (counted from 1). A value that is None or missing is unknown; a loss that is NaN was not finite.
            Of a dict, fewer values than epochs belong to every second, third and so on, as `validation_freq` has it.
        steps: The loss within epochs, as `loss_windows` makes it of a `JsonLog(every=...)`: noise, and explosions in
            the first epoch, are seen there only.
        classes: Number of classes, for what chance reaches; by head if they differ. Without it "no learning" is told
            from a loss that stands still. Heads called "val_..." are told from validation by these names only.
        batch_size: Examples in a batch; a small one explains noise.
        updates: Median ratio of update to weight of the kernels over the training, as a `Monitor` sees it; about 1e-3
            is usual.
        metric: How the history calls accuracy.

    Raises:
        ValueError: `history` has no training loss, or values that belong to no epochs; `classes` does not fit it.

    >>> history = {"loss": [1.5, 0.6, 0.3, 0.2, 0.1, 0.05], "val_loss": [1.2, 0.8, 0.9, 1.1, 1.3, 1.5]}
    >>> found = diagnose(history)[0]
    >>> found.kind, found.evidence
    ('over-fitting', 'Validation loss was lowest in epoch 2 (0.8) and rose to 1.5 by epoch 6, while training loss fell \
from 0.6 to 0.05.')
    """
    curves, inner = training_curves(history, classes, metric), windows(steps)
    if broken := not_finite(curves, inner):
        return [broken]
    return _findings(Case(curves.only(np.flatnonzero(np.isfinite(curves.loss))), inner, batch_size, updates))


def _findings(case: Case) -> list[Diagnosis]:
    """Bugs first; of every kind the most serious finding that no other one explains."""
    bugs = list(bugs_of(case))
    if len(bugs) == len(case.curves.outputs):
        return bugs
    found: dict[str, Diagnosis] = {}
    for one in filter(None, (rule(case) for rule in RULES)):
        found.setdefault(one.kind, one)
    hidden = {kind for name in found for kind in EXPLAINS.get(name, ())}
    return [*bugs, *(one for kind, one in found.items() if kind not in hidden)] or [_healthy(case)]


def _healthy(case: Case) -> Diagnosis:
    """What speaks for it."""
    curves = case.curves
    begin, end, count = f"{case.begin:.3g}", f"{curves.loss[-1]:.3g}", len(curves.epochs)
    course = f"fell from {begin} to {end}" if curves.loss[-1] < case.begin and begin != end else f"is {end}"
    course = f"Training loss {course} " + (f"in {count} epochs" if count > 1 else "after one epoch")
    if np.isfinite(curves.val_accuracy).any():
        best = int(np.nanargmax(curves.val_accuracy))
        course += f"; validation accuracy was highest in {case.epoch(best)}, {percent(curves.val_accuracy[best])}"
        if math.isfinite(curves.accuracy[best]):
            course += f", with {percent(curves.accuracy[best])} in training"
    elif np.isfinite(curves.val_loss).any():
        best = int(np.nanargmin(curves.val_loss))
        course += f"; validation loss was lowest in {case.epoch(best)}, {curves.val_loss[best]:.3g}"
    few = len(curves.epochs) < FEW
    return Diagnosis(
        "healthy",
        "Nothing wrong so far; too few epochs to tell more" if few else "Nothing wrong in the curves",
        course + ".",
        "Train for more epochs to see more." if few else "To go further, look at the mistakes, and at the data.",
    )
