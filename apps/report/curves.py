"""How a training went, drawn: loss, scores, learning rate and momentum over the epochs, on a common axis."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from apps.pages.figures import INK, SERIES, as_svg, new_figure

Rows = Sequence[Mapping[str, float]]
SCORES = ("accuracy", "macro_f1")
FEW_EPOCHS = 3  # which lines alone would hardly show
MOST_NAMED = 6  # curves that a legend still has names for


def draw_curves(
    trainings: Sequence[Rows], windows: Rows = (), kept: Sequence[int] = (), names: Sequence[str] = ()
) -> Markup:
    """The epochs of every network, one colour each, training dashed.

    Args:
        trainings: Rows with "epoch" (from 1), "loss", "lr", ... of every network.
        windows: Of a single training: "loss" and "lr" between epochs, with "epoch" as a number of epochs.
        kept: Epochs of a single training that are marked.
        names: Of several trainings.
    """
    panels = panels_of(trainings)
    ratios = [2.0 if title in ("loss", "score") else 1.0 for title in panels]
    height = 1.2 + 1.5 * len(panels)
    figure, grid = new_figure(len(panels), 1, height=height, sharex=True, squeeze=False, height_ratios=ratios)
    for (title, columns), axes in zip(panels.items(), grid[:, 0], strict=True):
        axes.set_ylabel(title)
        if len(trainings) > 1:
            for number, rows in enumerate(trainings):
                _draw_lines(axes, rows, dict.fromkeys(columns, SERIES[number % len(SERIES)]))
            continue
        if title == "loss":
            _draw_windows(axes, windows)
        if title == "learning rate" and all(row.get("lr") is not None for row in windows) and windows:
            _draw_lines(axes, windows, {"lr": SERIES[0]})  # in more places than the ends of epochs
            continue
        _draw_lines(axes, trainings[0], _colours(columns))
        for epoch in kept:
            axes.axvline(epoch, color=INK, linewidth=0.8, linestyle=":")
        if 1 < len(columns) <= MOST_NAMED:
            axes.legend(loc="best", fontsize=8)
        if title == "loss":
            axes.set_ylim(*_limits([row[name] for row in trainings[0] for name in columns if name in row]))
    if 1 < len(trainings) <= len(SERIES):
        figure.legend(handles=_keys(names), loc="outside upper left", ncols=2, fontsize=8, frameon=False)
    grid[-1, 0].set_xlabel("epoch")
    return as_svg(figure, describe_curves(trainings[0], list(panels)))


def _keys(names: Sequence[str]) -> list[Any]:
    """A line of its colour for every training, for the legend."""
    from matplotlib.lines import Line2D

    return [Line2D([], [], color=SERIES[number], label=name) for number, name in enumerate(names)]


def _draw_windows(axes: Any, windows: Rows) -> None:
    epochs, losses = [row["epoch"] for row in windows], [row["loss"] for row in windows]
    axes.plot(epochs, losses, color=SERIES[0], alpha=0.3, linewidth=1, label="loss between epochs" if windows else None)


def _draw_lines(axes: Any, rows: Rows, colours: Mapping[str, str]) -> None:
    """Some columns of the history; what is of the training pictures dashed."""
    for name, colour in colours.items():
        style = "-" if _measured(name, colours) != name or name in ("lr", "momentum") else "--"
        values = [row.get(name, math.nan) for row in rows]
        marker = "o" if len(rows) <= FEW_EPOCHS else ""
        epochs = [row["epoch"] for row in rows]
        axes.plot(epochs, values, style, marker=marker, markersize=3, color=colour, label=name, linewidth=1.5)


def _colours(names: Sequence[str]) -> dict[str, str]:
    """Training and validation of one score have one colour."""
    plain = list(dict.fromkeys(_measured(name, names) for name in names))
    return {name: SERIES[plain.index(_measured(name, names)) % len(SERIES)] for name in names}


def _measured(name: str, names: Collection[str]) -> str:
    """The column of the training whose validation this one is, else itself: heads may be called "val_..."."""
    training = name.removeprefix("val_")
    return training if training in names else name


def panels_of(trainings: Sequence[Rows]) -> dict[str, list[str]]:
    """The titles of the axes, and which columns of the history each shows."""
    names = list(dict.fromkeys(name for rows in trainings for row in rows for name in row))
    found = {
        "loss": [name for name in names if name in ("loss", "val_loss")],
        "score": [name for name in names if name.endswith(SCORES) and not name.startswith("raw_val_")],
        "learning rate": [name for name in names if name == "lr"],
        "momentum": [name for name in names if name == "momentum"],
    }
    return {title: columns for title, columns in found.items() if columns}


def describe_curves(rows: Rows, titles: Sequence[str]) -> str:
    """What the curves show, in words."""
    first, last = rows[0], rows[-1]
    parts = [
        f"{name} from {first[name]:.4g} to {last[name]:.4g}"
        for name in last
        if name in first and name not in ("epoch", "seconds") and not name.startswith("raw_val_")
    ]
    shown = ", ".join([titles[0].capitalize(), *titles[1:]])
    return f"{shown} over {len(rows)} epochs: {', '.join(parts)}."


def _limits(losses: Sequence[float]) -> tuple[float, float]:
    """What is drawn of the loss: all epochs, but not spikes far above them."""
    finite = sorted(value for value in losses if math.isfinite(value)) or [0.0, 1.0]
    high, low = finite[-1], finite[0]
    usual = finite[int(0.9 * (len(finite) - 1))]
    high = min(high, low + 3 * (usual - low)) if usual > low else high
    margin = 0.05 * (high - low) or 0.05
    return low - margin, high + margin


def epochs_of(windows: Rows, ends: Mapping[int, int]) -> list[dict[str, Any]]:
    """Windows with "epoch" instead of "step": where the middle of each lies on the epochs' axis.

    Args:
        windows: Rows with "step", the last of each, and "batches", how many steps it has.
        ends: The last step of each epoch, by its number, counted from 1.
    """
    known = {0: 0, **ends} if min(ends) == 1 else dict(ends)  # else nobody knows where the log's first epoch began
    epochs, steps = [*known], [*known.values()]
    return [
        {**row, "epoch": float(np.interp(row["step"] - row["batches"] / 2, steps, epochs))}
        for row in windows
        if row["step"] > steps[0]
    ]
