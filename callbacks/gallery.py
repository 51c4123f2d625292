"""One picture with every schedule of the package: `python -m callbacks.gallery FILE`."""

import os
import sys
from typing import Any

import callbacks
from callbacks.plots import draw_rates, new_figure, save_figure
from callbacks.schedules import Schedule

STEPS = 121


def examples() -> dict[str, Schedule]:
    """A schedule of every kind over `STEPS` steps, each under the words that make it."""
    cosine = callbacks.CosineSchedule(0.1, 90)
    one_cycle = callbacks.OneCycleSchedule(0.1, STEPS)
    return {
        "rate 0.1": callbacks.ConstantSchedule(0.1),
        "0.1, half every 30": callbacks.StepDecaySchedule(0.1, 0.5, 30),
        "boundaries 60, 90": callbacks.PiecewiseConstantSchedule([60, 90], [0.1, 0.01, 0.001]),
        "decay 0.03": callbacks.ExponentialSchedule(0.1, 0.03),
        "every 20": callbacks.HalvingSchedule(0.1, 20),
        "decay 0.1": callbacks.InverseTimeSchedule(0.1, 0.1),
        "120 steps": callbacks.LinearSchedule(0.1, 120),
        "120 steps, power 2": callbacks.PolynomialSchedule(0.1, 120),
        "hold 10": callbacks.InverseSquareRootSchedule(0.1, 10),
        "120 steps, min 0.01": callbacks.CosineSchedule(0.1, 120, 0.01),
        "step_size 20": callbacks.TriangularSchedule(0.01, 0.1, 20),
        "step_size 20, halved": callbacks.Triangular2Schedule(0.01, 0.1, 20),
        "step_size 20, gamma 0.99": callbacks.ExpRangeSchedule(0.01, 0.1, 20, 0.99),
        "first cycle 40, T_mult 1": callbacks.WarmRestartsSchedule(0.1, 40),
        "first cycle 24, T_mult 1.5": callbacks.WarmRestartsSchedule(0.1, 24, 1.5),
        "first cycle 17, T_mult 2, max_decay 0.8": callbacks.WarmRestartsSchedule(0.1, 17, 2, 0.0, 0.8),
        "cosine, tail 0.1": one_cycle,
        "linear, tail 0.2": callbacks.OneCycleSchedule(0.1, STEPS, tail=0.2, curve="linear"),
        "30 steps gradual, then a cosine": callbacks.WarmUp(cosine, 30),
        "30 steps constant, then a cosine": callbacks.WarmUp(cosine, 30, gradual=False),
        "linear, then 0.02": callbacks.Sequence(
            [callbacks.LinearSchedule(0.1, 60), callbacks.ConstantSchedule(0.02)], [60]
        ),
        "one-cycle, multiplier 0.5": callbacks.Scale(one_cycle, multiplier=0.5),
        "one-cycle, 1.5 times as fast": callbacks.Paced(one_cycle, (0.0, 0.0, 1.5)),
        "against a one-cycle rate": callbacks.CyclicMomentum(one_cycle),
    }


def draw_gallery(path: os.PathLike[str] | str) -> Any:
    """Draw `examples()` and write the picture to `path`; returns matplotlib's Figure."""
    shown = examples()
    columns = 4
    figure, axes = new_figure(12.0, 2.0 * -(-len(shown) // columns), rows=-(-len(shown) // columns), columns=columns)
    for place, (words, schedule) in zip(axes.flat, shown.items(), strict=True):
        draw_rates(place, schedule, STEPS)
        place.set_title(f"{type(schedule).__name__}\n{words}", fontsize=8)
        place.tick_params(labelsize=7)
        place.set_ylim(bottom=None if isinstance(schedule, callbacks.CyclicMomentum) else 0)
    save_figure(figure, path)
    return figure


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m callbacks.gallery FILE")
    draw_gallery(sys.argv[1])
