"""Learning-rate schedules: thin Keras classes that check and store the numbers of a curve of `callbacks.curves`.

Every schedule may stand wherever Keras takes a learning rate, is saved with the model, and has a `plot`. Here are those
that only fall; those that rise too are in `callbacks.cyclic_schedules`.
"""

import math
import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import keras
import numpy as np

from callbacks import curves
from callbacks.curves import Step

register = keras.saving.register_keras_serializable(package="callbacks")


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A curve together with its numbers; `schedule(step)` is the rate at that step, float32, of the shape of `step`."""

    curve: ClassVar[Callable[..., keras.KerasTensor]]
    CYCLE: ClassVar[dict[str, float]] = {}  # the arguments that make the curve go between 0 and 1, where it has cycles

    def __init__(self, **config: Any) -> None:
        self.config = config

    def __call__(self, step: Step) -> keras.KerasTensor:
        """The rate at `step`, which counts batches from 0."""
        return type(self).curve(step, **self.config)

    def height(self, step: Step) -> keras.KerasTensor:
        """Where in its cycle the rate is: 0 at the bottom, 1 at the top of the first cycle."""
        if not self.CYCLE:
            raise ValueError(
                f"{type(self).__name__} does not say where its cycles are: take a triangular, one-cycle or restarting "
                "schedule, alone or in `Scale`."
            )
        return type(self).curve(step, **{**self.config, **self.CYCLE})

    @property
    def variables(self) -> list[keras.Variable]:
        """Variables that an optimiser must keep; only `Scale` has one."""
        return []

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(self.config)

    def values(self, steps: Sequence[float] | np.ndarray) -> np.ndarray:
        """The rates at many steps, for tables and pictures.

        >>> CosineSchedule(0.5, steps=4).values([0, 2, 4]).round(3).tolist()
        [0.5, 0.25, 0.0]
        """
        return np.asarray(keras.ops.convert_to_numpy(self(np.asarray(steps, "float32"))))

    def plot(self, steps: int, path: os.PathLike[str] | str | None = None) -> Any:
        """Draw the rate over steps 0 to `steps - 1`; returns matplotlib's Figure, and writes it to `path` if given."""
        from callbacks.plots import plot_rates

        return plot_rates(self, steps, path)


def require(condition: bool, message: str, **received: Any) -> None:
    """Raise `message` and the values received, unless `condition` holds."""
    if not condition:
        raise ValueError(f"{message} Received: {', '.join(f'{name}={value!r}' for name, value in received.items())}.")


def number(value: Any) -> float:
    """`value` as a float; NaN, which is in no range, where it is no number."""
    try:
        return math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        return math.nan


def require_positive(**numbers: float) -> None:
    """Raise unless every one is a number above 0, and finite."""
    for name, value in numbers.items():
        require(0 < number(value) < math.inf, f"`{name}` must be above 0 and finite.", **{name: value})


def require_steps(**numbers: float) -> None:
    """Raise unless every one is a whole number of at least 1."""
    for name, value in numbers.items():
        whole = 1 <= number(value) < math.inf and number(value) % 1 == 0
        require(whole, f"`{name}` must be a whole number of steps, at least 1; `Steps` counts them.", **{name: value})


def require_range(low: float, high: float, low_name: str, high_name: str) -> None:
    """Raise unless 0 <= low < high, and both finite."""
    names = {low_name: low, high_name: high}
    ordered = 0 <= number(low) < number(high) < math.inf
    require(ordered, f"`{low_name}` must be at least 0 and below `{high_name}`, which is finite.", **names)


@register
class ConstantSchedule(Schedule):
    """The same rate at every step; useful inside `WarmUp`, `Sequence` and `Scale`.

    >>> float(ConstantSchedule(0.25)(1000))
    0.25
    """

    curve = staticmethod(curves.constant)

    def __init__(self, rate: float) -> None:
        require_positive(rate=rate)
        super().__init__(rate=float(rate))


@register
class StepDecaySchedule(Schedule):
    """`initial_rate * factor^floor((step - start) / every)`.

    Args:
        initial_rate: Rate before step `start + every`.
        factor: In (0, 1].
        every: Steps between two drops.
        start: Step at which counting begins.

    >>> schedule = StepDecaySchedule(0.001, factor=0.8, every=3)
    >>> [round(float(schedule(epoch)), 6) for epoch in (0, 2, 3, 6, 11)]
    [0.001, 0.001, 0.0008, 0.00064, 0.000512]
    """

    curve = staticmethod(curves.step_decay)

    def __init__(self, initial_rate: float, factor: float, every: int, start: int = 0) -> None:
        require_positive(initial_rate=initial_rate)
        require_steps(every=every)
        require(0 < number(factor) <= 1, "`factor` must lie in (0, 1].", factor=factor)
        require(0 <= number(start) < math.inf and number(start) % 1 == 0, "`start` must be 0, 1, 2, ...", start=start)
        super().__init__(initial_rate=float(initial_rate), factor=float(factor), every=int(every), start=int(start))


@register
class PiecewiseConstantSchedule(Schedule):
    """`rates[0]` before step `boundaries[0]`, `rates[1]` from that step on, and so forth.

    Unlike `keras.optimizers.schedules.PiecewiseConstantDecay`, the new rate begins at the boundary, not after it.

    >>> schedule = PiecewiseConstantSchedule([10, 20], [0.5, 0.25, 0.125])
    >>> [float(schedule(step)) for step in (9, 10, 19, 20)]
    [0.5, 0.25, 0.25, 0.125]
    """

    curve = staticmethod(curves.piecewise_constant)

    def __init__(self, boundaries: Sequence[int], rates: Sequence[float]) -> None:
        require_lists(boundaries=boundaries, rates=rates)
        boundaries, rates = list(boundaries), list(rates)
        require(
            len(rates) == len(boundaries) + 1,
            "`rates` must have one entry more than `boundaries`.",
            boundaries=boundaries,
            rates=rates,
        )
        require_ascending(boundaries)
        for rate in rates:
            require(0 <= number(rate) < math.inf, "`rates` must be at least 0 and finite.", rates=rates)
        super().__init__(boundaries=[int(step) for step in boundaries], rates=[float(rate) for rate in rates])


def require_lists(**lists: Any) -> None:
    """Raise unless every one is a list, a tuple or an array."""
    for name, value in lists.items():
        listed = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)
        require(listed, f"`{name}` must be a list.", **{name: value})


def require_ascending(boundaries: Sequence[int]) -> None:
    """Raise unless the boundaries are whole and above 0, each above the one before."""
    steps = [number(step) for step in boundaries]
    ascending = all(low < high < math.inf and high % 1 == 0 for low, high in pairwise([0.0, *steps]))
    require(ascending, "`boundaries` must be whole numbers above 0 that ascend.", boundaries=boundaries)


@register
class ExponentialSchedule(Schedule):
    """`initial_rate * e^(-decay * step)`; a factor `f` at every step is `decay=-log(f)`."""

    curve = staticmethod(curves.exponential)

    def __init__(self, initial_rate: float, decay: float) -> None:
        require_positive(initial_rate=initial_rate)
        require(0 <= number(decay) < math.inf, "`decay` must be at least 0 and finite.", decay=decay)
        super().__init__(initial_rate=float(initial_rate), decay=float(decay))


@register
class HalvingSchedule(Schedule):
    """`initial_rate / 2^floor(step / every)`.

    >>> [float(HalvingSchedule(0.5, every=10)(step)) for step in (9, 10, 20)]
    [0.5, 0.25, 0.125]
    """

    curve = staticmethod(curves.halving)

    def __init__(self, initial_rate: float, every: int) -> None:
        require_positive(initial_rate=initial_rate)
        require_steps(every=every)
        super().__init__(initial_rate=float(initial_rate), every=int(every))


@register
class InverseTimeSchedule(Schedule):
    """`initial_rate / (1 + decay * step)`."""

    curve = staticmethod(curves.inverse_time)

    def __init__(self, initial_rate: float, decay: float) -> None:
        require_positive(initial_rate=initial_rate)
        require(0 <= number(decay) < math.inf, "`decay` must be at least 0 and finite.", decay=decay)
        super().__init__(initial_rate=float(initial_rate), decay=float(decay))


@register
class PolynomialSchedule(Schedule):
    """`final_rate + (initial_rate - final_rate) * (1 - step / steps)^power`; `final_rate` from step `steps` on."""

    curve = staticmethod(curves.polynomial)

    def __init__(self, initial_rate: float, steps: int, power: float = 2.0, final_rate: float = 0.0) -> None:
        require_positive(power=power)
        require_steps(steps=steps)
        require_range(final_rate, initial_rate, "final_rate", "initial_rate")
        super().__init__(
            initial_rate=float(initial_rate), steps=int(steps), power=float(power), final_rate=float(final_rate)
        )


@register
class LinearSchedule(Schedule):
    """`initial_rate * (1 - step / steps)`, or straight down to `final_rate`, reached at step `steps`.

    >>> [float(LinearSchedule(1.0, steps=4)(step)) for step in range(6)]
    [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """

    curve = staticmethod(curves.linear)

    def __init__(self, initial_rate: float, steps: int, final_rate: float = 0.0) -> None:
        require_steps(steps=steps)
        require_range(final_rate, initial_rate, "final_rate", "initial_rate")
        super().__init__(initial_rate=float(initial_rate), steps=int(steps), final_rate=float(final_rate))


@register
class InverseSquareRootSchedule(Schedule):
    """`initial_rate / sqrt(step / hold)` from step `hold` on, before it `initial_rate`.

    With `hold=1` this is `initial_rate / sqrt(step)`. The rate of https://arxiv.org/abs/1706.03762 is
    `WarmUp(InverseSquareRootSchedule(rate, hold=4000), steps=4000, factor=0.0, delay=False)`.
    """

    curve = staticmethod(curves.inverse_square_root)

    def __init__(self, initial_rate: float, hold: int = 1) -> None:
        require_positive(initial_rate=initial_rate)
        require_steps(hold=hold)
        super().__init__(initial_rate=float(initial_rate), hold=int(hold))


@register
class CosineSchedule(Schedule):
    """`min_rate + (max_rate - min_rate) / 2 * (1 + cos(pi * step / steps))`; `min_rate` from step `steps` on.

    Source: https://arxiv.org/abs/1608.03983

    >>> [round(float(CosineSchedule(0.5, steps=4)(step)), 4) for step in range(6)]
    [0.5, 0.4268, 0.25, 0.0732, 0.0, 0.0]
    """

    curve = staticmethod(curves.cosine)

    def __init__(self, max_rate: float, steps: int, min_rate: float = 0.0) -> None:
        require_steps(steps=steps)
        require_range(min_rate, max_rate, "min_rate", "max_rate")
        super().__init__(max_rate=float(max_rate), steps=int(steps), min_rate=float(min_rate))
