"""The pictures of report.html that show a head on its held-out pictures."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from apps.calibration import Reliability
from apps.evaluation import HeadEvaluation

MOST_CLASSES = 30  # in a matrix that can still be read
NUMBERS_UP_TO = 15  # classes, whose cells have room for a number


def draw_reliability(evaluated: HeadEvaluation) -> bytes:
    """Confidence against accuracy, and how many answers have which confidence, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4.6), layout="constrained")
    curve, counts = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    curve.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="as confident as right")
    calibrated = evaluated.calibration.temperature != 1
    if calibrated:
        _draw_bins(curve, counts, evaluated.before, "before calibration", "C1", "--")
    _draw_bins(curve, counts, evaluated.after, "after calibration" if calibrated else "not calibrated", "C0", "-")
    curve.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    curve.legend(fontsize="small", loc="upper left")
    curve.text(0.98, 0.1, "below the line: too sure", ha="right", fontsize="small", color="0.4")
    counts.set(xlabel="confidence: probability of the answer", ylabel="pictures")
    for axes in (curve, counts):
        axes.grid(alpha=0.3)
    return as_png(figure)


def _draw_bins(curve: Any, counts: Any, bins: Reliability, name: str, colour: str, style: str) -> None:
    some = bins.count > 0
    sizes = 15 + 150 * np.sqrt(bins.count[some] / bins.count.max())
    label = f"{name}, error {100 * bins.error:.1f} %"
    curve.plot(bins.confidence[some], bins.accuracy[some], style, color=colour, label=label)
    curve.scatter(bins.confidence[some], bins.accuracy[some], sizes, color=colour, alpha=0.35, linewidths=0)
    counts.stairs(bins.count, np.linspace(0, 1, len(bins.count) + 1), color=colour, linestyle=style)


def draw_confusion(confusion: np.ndarray | csr_array, names: Sequence[str]) -> bytes:
    """The share of a class's pictures that got which answer, as a PNG; of the 30 classes most mixed up.

    Args:
        confusion: Pictures [K, K], truth by answer.
        names: Of the classes.
    """
    from matplotlib.figure import Figure

    shown = shown_classes(confusion)
    count = len(shown)
    rows = csr_array(confusion)[shown]
    part = rows[:, shown].toarray()
    shares = part / np.maximum(rows.sum(axis=1)[:, None], 1)
    labels = [name if len(name) <= 20 else f"{name[:19]}…" for name in (names[number] for number in shown)]
    side = max(3.0, 0.36 * count)
    figure = Figure(figsize=(side + 2.2, side + 1.2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)  # the root: rare mistakes are seen too
    axes.set_xticks(range(count), labels, rotation=60, ha="right", rotation_mode="anchor", fontsize="small")
    axes.set_yticks(range(count), labels, fontsize="small")
    axes.set(xlabel="answer", ylabel="true class")
    for row, column in zip(*np.nonzero(part), strict=True) if count <= NUMBERS_UP_TO else ():
        colour = "white" if shares[row, column] > 0.4 else "black"
        axes.text(column, row, f"{part[row, column]:,}", ha="center", va="center", fontsize="x-small", color=colour)
    return as_png(figure)


def shown_classes(confusion: np.ndarray | csr_array) -> np.ndarray:
    """Which classes the matrix shows, ascending: all, or the 30 with the most mistakes from or to them."""
    mistakes = confusion.sum(axis=0) + confusion.sum(axis=1) - 2 * confusion.diagonal()
    return np.sort(np.argsort(-mistakes, kind="stable")[:MOST_CLASSES])


def as_png(figure: Any) -> bytes:
    """A Figure as the bytes of a PNG."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()
