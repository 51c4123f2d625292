"""Pictures of schedules and range tests. The only file of this package, beside the monitor's, that needs matplotlib."""

import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np


def new_figure(width: float = 7.0, height: float = 4.0, rows: int = 1) -> tuple[Any, Any]:
    """A Figure and its axes that belong to no window and no notebook."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Plots need matplotlib: pip install matplotlib.") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, squeeze=True)


def plot_rates(schedule: Callable[[Any], Any], steps: int, path: os.PathLike[str] | str | None = None) -> Any:
    """Draw `schedule` over steps 0 to `steps - 1`; returns the Figure, and writes it to `path` if given."""
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1. Received: steps={steps}.")
    figure, axes = new_figure()
    shown = np.unique(np.linspace(0, steps - 1, min(steps, 2000)).round())
    rates = [float(keras.ops.convert_to_numpy(schedule(step))) for step in shown]
    axes.plot(shown, rates, drawstyle="steps-post" if steps <= 200 else "default")
    axes.set(xlabel="step", ylabel="momentum" if type(schedule).__name__ == "CyclicMomentum" else "learning rate")
    axes.set_title(type(schedule).__name__)
    axes.grid(alpha=0.3)
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure
