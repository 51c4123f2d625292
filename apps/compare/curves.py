"""How the trainings of several runs went, drawn on common axes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from apps.data import keras_names
from apps.finished_run import FinishedRun
from apps.pages.figures import SERIES, as_svg, new_figure

FEW_EPOCHS = 30  # that are marked by dots


@dataclass(frozen=True)
class Curve:
    """A drawing and what is to be said of it."""

    title: str
    drawing: Markup


def draw_curves(runs: Sequence[FinishedRun], names: Sequence[str]) -> list[Curve]:
    """Loss, accuracy by head, and learning rate by epoch: a colour for every run, training dashed."""
    heads = dict.fromkeys(head for run in runs for head in run.classes)
    found = [draw_one("loss", [("loss", "val_loss")] * len(runs), runs, names)]
    for head in heads:
        columns = [_accuracy_columns(run, head) for run in runs]
        title = "accuracy" if len(heads) == 1 else f"accuracy of {head}"
        found.append(draw_one(title, columns, runs, names))
    found.append(draw_one("learning rate", [("", "lr")] * len(runs), runs, names))
    return found


def _accuracy_columns(run: FinishedRun, head: str) -> tuple[str, str]:
    """What history.csv calls it in training and in validation."""
    if head not in run.classes:
        return "", ""
    own = "" if len(run.classes) == 1 else f"{keras_names(run.classes)[head]}_"
    return f"{own}accuracy", f"val_{own}accuracy"


def draw_one(
    title: str, columns: Sequence[tuple[str, str]], runs: Sequence[FinishedRun], names: Sequence[str]
) -> Curve:
    """One quantity of all runs.

    Args:
        title: What it is.
        columns: For every run, the columns of its history to draw dashed and solid; "" for none.
        runs, names: Of all.
    """
    figure, axes = new_figure()
    said = []
    for place, (run, name, drawn) in enumerate(zip(runs, names, columns, strict=True)):
        colour, faint = SERIES[place], 0.5 if len(run.history) > 1 else 1.0
        for history in run.history.values():
            dots = "." if len(history) <= FEW_EPOCHS else ""
            epochs = [row["epoch"] for row in history]
            for column, style in zip(drawn, ("--", "-"), strict=True):
                values = [row.get(column, math.nan) for row in history]
                if not all(map(math.isnan, values)):
                    axes.plot(epochs, values, style, marker=dots, color=colour, alpha=faint, linewidth=1.4)
        said.append(f"{name} {_course(run, drawn[1])}")
    axes.set_xlabel("epoch")
    axes.set_title(title.replace("$", r"\$"), loc="left")
    axes.xaxis.get_major_locator().set_params(integer=True)
    return Curve(
        title,
        as_svg(
            figure, f"{title[0].upper()}{title[1:]} by epoch, in validation where it is measured: {'; '.join(said)}."
        ),
    )


def _course(run: FinishedRun, column: str) -> str:
    """Where the curve of a run's first training begins and ends, in words."""
    values = [row[column] for row in next(iter(run.history.values())) if column in row]
    return f"from {values[0]:.3g} to {values[-1]:.3g} after {len(values)} epochs" if values else "unknown"
