"""What the report shows of a head on its held-out pictures: reliability, confusion, classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from scipy.sparse import coo_array, csr_array

from apps.evaluation import class_table
from apps.finished_run import Validation
from apps.pages.figures import LINE, SERIES, as_svg, new_figure
from pipelines.labels import MISSING

MOST_CLASSES = 30  # in a matrix that can still be read
MOST_ROWS = 100  # of the table of classes


def describe_head(head: str, names: Sequence[str], validation: Validation, row: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of one head beyond its scores; of many classes only those with the lowest F1.

    Args:
        head: Its name.
        names: Of its classes.
        validation: The held-out pictures.
        row: The head in result.json.
    """
    confusion = confusion_of(validation.truth[head], validation.answer[head], len(names))
    rows = class_table(confusion, names)
    lowest = sorted((one for one in rows if one["pictures"]), key=lambda one: one["f1"])[:MOST_ROWS]
    return {
        "reliability": draw_reliability(head, row),
        "matrix": matrix(confusion, names),
        "classes": rows if len(rows) <= MOST_ROWS else lowest,
        "all_classes": len(rows),
    }


def confusion_of(truth: np.ndarray, answer: np.ndarray, classes: int) -> csr_array:
    """How many pictures of a class (row) got which answer (column), [K, K]; those without a label are left out."""
    known = truth != MISSING
    return coo_array((np.ones(known.sum(), int), (truth[known], answer[known])), shape=(classes, classes)).tocsr()


def matrix(confusion: np.ndarray | csr_array, names: Sequence[str]) -> dict[str, Any]:
    """The names and cells (pictures, share of the row) of the classes that are shown, a list for every true class."""
    shown = shown_classes(confusion)
    rows = csr_array(confusion)[shown]
    part, all_of_class = rows[:, shown].toarray(), np.maximum(rows.sum(axis=1), 1)
    cells = [[(int(count), count / total) for count in row] for row, total in zip(part, all_of_class, strict=True)]
    return {"names": [names[number] for number in shown], "cells": cells}


def shown_classes(confusion: np.ndarray | csr_array) -> np.ndarray:
    """Which classes the matrix shows, ascending: all, or the 30 with the most mistakes from or to them."""
    mistakes = confusion.sum(axis=0) + confusion.sum(axis=1) - 2 * confusion.diagonal()
    return np.sort(np.argsort(-mistakes, kind="stable")[:MOST_CLASSES])


def draw_reliability(head: str, row: Mapping[str, Any]) -> Markup:
    """Confidence against accuracy, and how many answers have which confidence."""
    figure, (curve, counts) = new_figure(2, 1, height=4.6, height_ratios=(3, 1), sharex=True)
    curve.plot([0, 1], [0, 1], color=LINE, linewidth=1.5, label="as confident as right")
    calibrated = row["temperature"] != 1
    errors = row["calibration_error"]
    if calibrated:
        _draw_bins(curve, counts, row["reliability"]["before"], errors["before"], "before calibration", SERIES[1], "--")
    name = "after calibration" if calibrated else "not calibrated"
    _draw_bins(curve, counts, row["reliability"]["after"], errors["after"], name, SERIES[0], "-")
    curve.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    curve.legend(loc="upper left", fontsize=8)
    curve.text(0.98, 0.08, "below the line: too sure", ha="right", fontsize=8)
    counts.set(xlabel="confidence: probability of the answer", ylabel="pictures")
    words = (
        f"Reliability of {head}: share of right answers by confidence, calibration error {100 * errors['after']:.1f} %."
    )
    return as_svg(figure, words)


def _draw_bins(
    curve: Any, counts: Any, bins: Mapping[str, Sequence[float]], error: float, name: str, colour: str, style: str
) -> None:
    count = np.array(bins["count"])
    confidence, accuracy = (np.array(bins[part])[count > 0] for part in ("confidence", "accuracy"))
    sizes = 15 + 150 * np.sqrt(count[count > 0] / max(count.max(), 1))
    curve.plot(confidence, accuracy, style, color=colour, label=f"{name}, error {100 * error:.1f} %")
    curve.scatter(confidence, accuracy, sizes, color=colour, alpha=0.35, linewidths=0)
    counts.stairs(count, np.linspace(0, 1, len(count) + 1), color=colour, linestyle=style)
