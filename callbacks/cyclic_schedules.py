"""Schedules that rise and fall: triangular cycles, warm restarts and the one cycle, all with a `height`."""

import math
from typing import ClassVar

from callbacks import curves
from callbacks.schedules import Schedule, number, register, require, require_positive, require_range, require_steps


class _Triangular(Schedule):
    CYCLE: ClassVar[dict[str, float]] = {"base_rate": 0.0, "max_rate": 1.0}

    def __init__(self, base_rate: float, max_rate: float, step_size: int, **config: float) -> None:
        require_steps(step_size=step_size)
        require_range(base_rate, max_rate, "base_rate", "max_rate")
        super().__init__(base_rate=float(base_rate), max_rate=float(max_rate), step_size=int(step_size), **config)


@register
class TriangularSchedule(_Triangular):
    """Cyclic rate, straight up from `base_rate` to `max_rate` in `step_size` steps, and straight down in as many.

    Source: Cyclical Learning Rates, https://arxiv.org/abs/1506.01186

    >>> [float(TriangularSchedule(0.0, 1.0, step_size=2)(step)) for step in range(7)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.5, 1.0]
    """

    curve = staticmethod(curves.triangular)

    def __init__(self, base_rate: float, max_rate: float, step_size: int) -> None:
        super().__init__(base_rate, max_rate, step_size)


@register
class Triangular2Schedule(_Triangular):
    """Like `TriangularSchedule`, the height halved after every cycle. https://arxiv.org/abs/1506.01186"""

    curve = staticmethod(curves.triangular2)

    def __init__(self, base_rate: float, max_rate: float, step_size: int) -> None:
        super().__init__(base_rate, max_rate, step_size)


@register
class ExpRangeSchedule(_Triangular):
    """Like `TriangularSchedule`, the height multiplied by `gamma^step`. https://arxiv.org/abs/1506.01186"""

    curve = staticmethod(curves.exp_range)

    def __init__(self, base_rate: float, max_rate: float, step_size: int, gamma: float) -> None:
        require(0 < number(gamma) <= 1, "`gamma` must lie in (0, 1].", gamma=gamma)
        super().__init__(base_rate, max_rate, step_size, gamma=float(gamma))


@register
class WarmRestartsSchedule(Schedule):
    """SGDR: cosine cycles, each starting at the maximum again.

    Args:
        max_rate: Rate at the beginning of the first cycle.
        first_cycle: Steps of the first cycle, at least 1; may be a fraction.
        t_mult: Each cycle is so many times as long as the one before; at least 1, such as 1, 1.5 or 2.
        min_rate: What every cycle falls to.
        max_decay: Each cycle's maximum is so many times that of the one before, but not below `min_rate`; in (0, 1].

    Source: https://arxiv.org/abs/1608.03983

    >>> schedule = WarmRestartsSchedule(1.0, first_cycle=2, t_mult=2)
    >>> [round(float(schedule(step)), 4) for step in range(7)]
    [1.0, 0.5, 1.0, 0.8536, 0.5, 0.1464, 1.0]
    """

    curve = staticmethod(curves.warm_restarts)
    CYCLE: ClassVar[dict[str, float]] = {"min_rate": 0.0, "max_rate": 1.0}

    def __init__(
        self,
        max_rate: float,
        first_cycle: float,
        t_mult: float = 1.0,
        min_rate: float = 0.0,
        max_decay: float = 1.0,
    ) -> None:
        require(1 <= number(first_cycle) < math.inf, "`first_cycle` must be at least 1 step.", first_cycle=first_cycle)
        require(
            number(t_mult) == 1 or 1.01 <= number(t_mult) < math.inf,
            "`t_mult` must be 1, or at least 1.01.",
            t_mult=t_mult,
        )
        require_range(min_rate, max_rate, "min_rate", "max_rate")
        require(0 < number(max_decay) <= 1, "`max_decay` must lie in (0, 1].", max_decay=max_decay)
        super().__init__(
            max_rate=float(max_rate),
            first_cycle=float(first_cycle),
            t_mult=float(t_mult),
            min_rate=float(min_rate),
            max_decay=float(max_decay),
        )


@register
class OneCycleSchedule(Schedule):
    """One cycle over the whole training: up to `max_rate`, down to the start, and in the tail far below it.

    Args:
        max_rate: The highest rate.
        total_steps: Steps of the training; the last one has the final rate exactly.
        warmup: Part of the training spent rising, in [0, 1).
        tail: Last part of the training, in [0, 1), in which the rate falls from the start's to the final one; 0 for a
            way down that leads to the final rate at once.
        start_factor: First rate as a fraction of `max_rate`, in (0, 1].
        final_factor: Last rate as a fraction of `max_rate`, in [0, 1]; usually a tenth to a hundredth of the first.
        curve: "cosine" or "linear".

    Source: Super-Convergence, https://arxiv.org/abs/1708.07120

    >>> schedule = OneCycleSchedule(0.5, 101, warmup=0.4, tail=0.2, start_factor=0.5, final_factor=0.0, curve="linear")
    >>> [float(schedule(step)) for step in (0, 20, 40, 60, 80, 90, 100)]
    [0.25, 0.375, 0.5, 0.375, 0.25, 0.125, 0.0]
    """

    curve = staticmethod(curves.one_cycle)
    CYCLE: ClassVar[dict[str, float]] = {"max_rate": 1.0, "start_factor": 0.0, "final_factor": 0.0}

    def __init__(
        self,
        max_rate: float,
        total_steps: int,
        warmup: float = 0.45,
        tail: float = 0.1,
        start_factor: float = 0.04,
        final_factor: float = 4e-4,
        curve: str = "cosine",
    ) -> None:
        require_positive(max_rate=max_rate)
        require_steps(total_steps=total_steps)
        require(0 <= number(warmup) < 1, "`warmup` is a fraction in [0, 1).", warmup=warmup)
        require(0 <= number(tail) < 1, "`tail` is a fraction in [0, 1).", tail=tail)
        require(
            warmup + tail < 1,
            "`warmup` and `tail` must leave time to fall: below 1 together.",
            warmup=warmup,
            tail=tail,
        )
        require(0 < number(start_factor) <= 1, "`start_factor` must lie in (0, 1].", start_factor=start_factor)
        require(0 <= number(final_factor) <= 1, "`final_factor` must lie in [0, 1].", final_factor=final_factor)
        require(curve in list(curves.SHAPES), "`curve` must be 'cosine' or 'linear'.", curve=curve)
        super().__init__(
            max_rate=float(max_rate),
            total_steps=int(total_steps),
            warmup=float(warmup),
            tail=float(tail),
            start_factor=float(start_factor),
            final_factor=float(final_factor),
            curve=curve,
        )
