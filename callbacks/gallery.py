"""One picture with every schedule of the package: `python -m callbacks.gallery FILE`."""

import os
import sys
from typing import Any

from callbacks.combinators import CyclicMomentum, Scale, Sequence, WarmUp
from callbacks.cyclic_schedules import (
    ExpRangeSchedule,
    OneCycleSchedule,
    Triangular2Schedule,
    TriangularSchedule,
    WarmRestartsSchedule,
)
from callbacks.plots import draw_rates, new_figure, save_figure
from callbacks.schedules import (
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    HalvingSchedule,
    InverseSquareRootSchedule,
    InverseTimeSchedule,
    LinearSchedule,
    PiecewiseConstantSchedule,
    PolynomialSchedule,
    Schedule,
    StepDecaySchedule,
)

STEPS = 121


def examples() -> dict[str, Schedule]:
    """A schedule of every kind over `STEPS` steps, each under the words that make it."""
    cosine = CosineSchedule(0.1, 90)
    one_cycle = OneCycleSchedule(0.1, STEPS)
    return {
        "rate 0.1": ConstantSchedule(0.1),
        "0.1, half every 30": StepDecaySchedule(0.1, 0.5, 30),
        "boundaries 60, 90": PiecewiseConstantSchedule([60, 90], [0.1, 0.01, 0.001]),
        "decay 0.03": ExponentialSchedule(0.1, 0.03),
        "every 20": HalvingSchedule(0.1, 20),
        "decay 0.1": InverseTimeSchedule(0.1, 0.1),
        "120 steps": LinearSchedule(0.1, 120),
        "120 steps, power 2": PolynomialSchedule(0.1, 120),
        "hold 10": InverseSquareRootSchedule(0.1, 10),
        "120 steps, min 0.01": CosineSchedule(0.1, 120, 0.01),
        "step_size 20": TriangularSchedule(0.01, 0.1, 20),
        "step_size 20, halved": Triangular2Schedule(0.01, 0.1, 20),
        "step_size 20, gamma 0.99": ExpRangeSchedule(0.01, 0.1, 20, 0.99),
        "first cycle 40, T_mult 1": WarmRestartsSchedule(0.1, 40),
        "first cycle 24, T_mult 1.5": WarmRestartsSchedule(0.1, 24, 1.5),
        "first cycle 17, T_mult 2, max_decay 0.8": WarmRestartsSchedule(0.1, 17, 2, 0.0, 0.8),
        "cosine, tail 0.1": one_cycle,
        "linear, tail 0.2": OneCycleSchedule(0.1, STEPS, tail=0.2, curve="linear"),
        "30 steps gradual, then a cosine": WarmUp(cosine, 30),
        "30 steps constant, then a cosine": WarmUp(cosine, 30, gradual=False),
        "linear, then 0.02": Sequence([LinearSchedule(0.1, 60), ConstantSchedule(0.02)], [60]),
        "one-cycle, multiplier 0.5": Scale(one_cycle, multiplier=0.5),
        "against a one-cycle rate": CyclicMomentum(one_cycle),
        "against a triangular rate": CyclicMomentum(TriangularSchedule(0.01, 0.1, 20)),
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
        place.set_ylim(bottom=None if isinstance(schedule, CyclicMomentum) else 0)
    save_figure(figure, path)
    return figure


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m callbacks.gallery FILE")
    draw_gallery(sys.argv[1])
