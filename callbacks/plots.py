"""Pictures of schedules and range tests, and how every picture of this package is made and written."""

import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from callbacks.whole_file import whole_file, writable_path


def new_figure(width: float = 7.0, height: float = 4.0, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """A Figure and its axes that belong to no window and no notebook."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Plots need matplotlib: pip install matplotlib.") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=True)


def save_figure(figure: Any, path: os.PathLike[str] | str) -> None:
    """Write a Figure; the file takes its name, whose ending says the format, only when it is whole on the disk."""
    path = writable_path(path)
    with whole_file(path) as file:
        figure.savefig(file, dpi=120, format=path.suffix[1:] or "png")


def plot_rates(schedule: Callable[[Any], Any], steps: int, path: os.PathLike[str] | str | None = None) -> Any:
    """Draw `schedule` over steps 0 to `steps - 1`; returns the Figure, and writes it to `path` if given."""
    if not (steps >= 1 and steps % 1 == 0):
        raise ValueError(f"`steps` must be a whole number, at least 1. Received: steps={steps}.")
    figure, axes = new_figure()
    draw_rates(axes, schedule, steps)
    axes.set(xlabel="step", ylabel="momentum" if type(schedule).__name__ == "CyclicMomentum" else "learning rate")
    if path is not None:
        save_figure(figure, path)
    return figure


def draw_rates(axes: Any, schedule: Callable[[Any], Any], steps: int) -> None:
    """Draw `schedule` into axes of matplotlib, at most 2000 steps of it, the last among them."""
    shown = np.unique(np.linspace(0, steps - 1, min(steps, 2000)).round())
    if hasattr(schedule, "values"):
        rates = schedule.values(shown)
    else:  # one of Keras' own, which need not take several steps at once
        rates = [float(keras.ops.convert_to_numpy(schedule(step))) for step in shown]
    axes.plot(shown, rates, drawstyle="steps-post" if steps <= 200 else "default")
    axes.set_title(type(schedule).__name__)
    axes.grid(alpha=0.3)


def plot_range_test(test: Any, path: os.PathLike[str] | str | None = None) -> Any:
    """Draw a `RangeTest`; returns the Figure, and writes it to `path` if given."""
    figure, axes = new_figure()
    axes.plot(test.rates, test.losses, color="0.8", label="loss of the batch")
    axes.plot(test.rates, test.smoothed, color="tab:blue", label="smoothed")
    axes.set_xscale("log")
    low, first = min(test.losses.min(), test.smoothed.min()), test.smoothed[0]
    axes.set_ylim(low - 0.1 * abs(first - low), first + 0.5 * abs(first - low) + 1e-6)
    for (name, rate), color in zip(test.suggestions.items(), ("tab:green", "tab:orange", "tab:purple"), strict=True):
        axes.axvline(rate, color=color, linestyle="--", label=f"{name}: {rate:.3g}")
        axes.plot(rate, np.interp(np.log(rate), np.log(test.rates), test.smoothed), "o", color=color)
    axes.set(xlabel="learning rate", ylabel="loss", title="Learning-rate range test")
    axes.grid(alpha=0.3)
    axes.legend()
    if path is not None:
        save_figure(figure, path)
    return figure
