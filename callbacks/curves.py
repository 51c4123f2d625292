"""The curves of the learning rate: pure functions of the step, a number or a tensor of any shape, in float32.

`step` counts batches from 0. Everywhere "steps" is the step at which a curve reaches its end, where it stays; the last
of `total` batches has the number `total - 1` (`Steps.last`).

Highest and lowest values are met exactly. Compiled graphs, on both backends, divide by a constant by multiplying with
its reciprocal, which gives 41 / 41 < 1; so nothing here relies on a division to be exact.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias

import keras
import numpy as np
from keras import ops

Step: TypeAlias = "keras.KerasTensor | np.ndarray | int | float"


def constant(step: Step, rate: float) -> keras.KerasTensor:
    """`rate` at every step."""
    return rate + ops.zeros_like(_float(step))


def step_decay(step: Step, initial_rate: float, factor: float, every: int, start: int = 0) -> keras.KerasTensor:
    """`initial_rate * factor^floor((step - start) / every)`; before `start` the initial rate."""
    drops, _ = _whole_and_rest(ops.maximum(_float(step) - start, 0.0), every)
    return initial_rate * ops.power(_float(factor), drops)


def piecewise_constant(step: Step, boundaries: Sequence[int], rates: Sequence[float]) -> keras.KerasTensor:
    """`rates[i]` from step `boundaries[i - 1]` on, up to and without step `boundaries[i]`."""
    return ops.take(ops.convert_to_tensor(rates, "float32"), _passed(_float(step), boundaries))


def exponential(step: Step, initial_rate: float, decay: float) -> keras.KerasTensor:
    """`initial_rate * e^(-decay * step)`."""
    return initial_rate * ops.exp(-decay * _float(step))


def halving(step: Step, initial_rate: float, every: int) -> keras.KerasTensor:
    """`initial_rate / 2^floor(step / every)`."""
    return step_decay(step, initial_rate, 0.5, every)


def inverse_time(step: Step, initial_rate: float, decay: float) -> keras.KerasTensor:
    """`initial_rate / (1 + decay * step)`."""
    return initial_rate / (1.0 + decay * _float(step))


def polynomial(step: Step, initial_rate: float, steps: int, power: float, final_rate: float = 0.0) -> keras.KerasTensor:
    """`initial_rate * (1 - step / steps)^power` above `final_rate`; linear with power 1."""
    left = _left(_float(step), 0.0, steps)
    return _between(final_rate, initial_rate, left if power == 1 else ops.power(left, _float(power)))


def linear(step: Step, initial_rate: float, steps: int, final_rate: float = 0.0) -> keras.KerasTensor:
    """Straight from `initial_rate` down to `final_rate`, reached at step `steps`."""
    return polynomial(step, initial_rate, steps, 1.0, final_rate)


def inverse_square_root(step: Step, initial_rate: float, hold: int = 1) -> keras.KerasTensor:
    """`initial_rate / sqrt(step / hold)` from step `hold` on, before it the initial rate."""
    return initial_rate * ops.sqrt(float(hold) / ops.maximum(_float(step), float(hold)))


def cosine(step: Step, max_rate: float, steps: int, min_rate: float = 0.0) -> keras.KerasTensor:
    """`min_rate + (max_rate - min_rate) / 2 * (1 + cos(pi * step / steps))`."""
    return _between(min_rate, max_rate, _half_cosine(_left(_float(step), 0.0, steps)))


def triangular(
    step: Step, base_rate: float, max_rate: float, step_size: int, cycle_factor: float = 1.0
) -> keras.KerasTensor:
    """Straight up and down between `base_rate` and `max_rate`, half a cycle in `step_size` steps.

    The height of a cycle is that of the one before times `cycle_factor`. https://arxiv.org/abs/1506.01186
    """
    cycle, rest = _whole_and_rest(_float(step), 2 * step_size)
    height = _part(ops.minimum(rest, 2 * step_size - rest), step_size)
    return _between(base_rate, max_rate, height * ops.power(_float(cycle_factor), cycle))


def triangular2(step: Step, base_rate: float, max_rate: float, step_size: int) -> keras.KerasTensor:
    """`triangular` with half the height in every next cycle. https://arxiv.org/abs/1506.01186"""
    return triangular(step, base_rate, max_rate, step_size, cycle_factor=0.5)


def exp_range(step: Step, base_rate: float, max_rate: float, step_size: int, gamma: float) -> keras.KerasTensor:
    """`triangular` with the height at every step multiplied by `gamma^step`. https://arxiv.org/abs/1506.01186"""
    # The logarithm is taken in double precision: gamma^100000 from a float32 gamma near 1 is wrong by some 0.1 %.
    height = triangular(step, 0.0, 1.0, step_size) * ops.exp(math.log(gamma) * _float(step))
    return _between(base_rate, max_rate, height)


def warm_restarts(
    step: Step, max_rate: float, first_cycle: float, t_mult: float = 1.0, min_rate: float = 0.0, max_decay: float = 1.0
) -> keras.KerasTensor:
    """Cosine cycles: the first is `first_cycle` steps long, each next `t_mult` times as long as the one before.

    The maximum of a cycle is that of the one before times `max_decay`, but not below `min_rate`.
    https://arxiv.org/abs/1608.03983
    """
    step = _float(step)
    if t_mult == 1:
        cycle, rest = _whole_and_rest(step, first_cycle)
        left = _part(first_cycle - rest, first_cycle)
    else:
        starts = _cycle_starts(first_cycle, t_mult)
        place = _passed(step, starts[1:-1])
        cycle, left = _float(place), _left(step, ops.take(starts, place), ops.take(starts, place + 1))
    maximum = _float(max_rate) * ops.power(_float(max_decay), cycle)
    return ops.maximum(_between(min_rate, maximum, _half_cosine(left)), _float(min_rate))


def one_cycle(
    step: Step,
    max_rate: float,
    total_steps: int,
    warmup: float = 0.45,
    tail: float = 0.1,
    start_factor: float = 0.04,
    final_factor: float = 4e-4,
    curve: str = "cosine",
) -> keras.KerasTensor:
    """Up from `max_rate * start_factor` to `max_rate`, down to the start again, in the tail down to the final rate.

    With `last = total_steps - 1`, the peak lies at step `warmup * last`, the tail begins at `(1 - tail) * last`, and
    from step `last` on the rate is `max_rate * final_factor`. Without a tail the way down leads to the final rate.
    https://arxiv.org/abs/1708.07120
    """
    step, last, shape = _float(step), max(total_steps - 1, 1), SHAPES[curve]
    start, final = max_rate * start_factor, max_rate * final_factor
    low = start if tail else final
    peak, turn = warmup * last, (1 - tail) * last
    up = _between(start, max_rate, shape(_part(step, peak)))
    down = _between(low, max_rate, shape(_left(step, peak, turn)))
    if tail:
        down = ops.where(step <= turn, down, _between(final, low, shape(_left(step, turn, last))))
    return ops.where(step >= total_steps - 1, _float(final), ops.where(step <= peak, up, down))


def _half_cosine(part: keras.KerasTensor) -> keras.KerasTensor:
    """From 0 to 1 along half a cosine while `part` goes from 0 to 1; (1 - cos(pi * part)) / 2, exact near 0 too."""
    return ops.square(ops.sin(math.pi / 2 * part))


SHAPES: dict[str, Callable[[keras.KerasTensor], keras.KerasTensor]] = {
    "cosine": _half_cosine,
    "linear": lambda part: part,
}


def _float(value: Step) -> keras.KerasTensor:
    return ops.cast(value, "float32")


def _between(low: Step, high: Step, part: keras.KerasTensor) -> keras.KerasTensor:
    """`low` where `part` is 0, `high` where it is 1, both exactly."""
    return _float(low) * (1.0 - part) + _float(high) * part


def _part(step: keras.KerasTensor, length: float) -> keras.KerasTensor:
    """`step / length`, from `length` on exactly 1."""
    return ops.where(step >= length, 1.0, step / (length or 1.0))


def _left(step: keras.KerasTensor, begin: float, end: float) -> keras.KerasTensor:
    """What is left of the way from `begin` to `end`: exactly 1 up to `begin`, exactly 0 from `end` on."""
    return ops.where(step <= begin, 1.0, ops.maximum(end - step, 0.0) / (end - begin))


def _whole_and_rest(step: keras.KerasTensor, length: float) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """How often `length` fits into `step`, and what remains."""
    whole = ops.floor(step / length)
    rest = step - whole * length
    whole = whole + _float(rest >= length) - _float(rest < 0)
    return whole, step - whole * length


def _passed(step: keras.KerasTensor, boundaries: Sequence[float] | np.ndarray) -> keras.KerasTensor:
    """How many of the boundaries lie at or below `step`."""
    reached = ops.expand_dims(step, -1) >= ops.convert_to_tensor(boundaries, "float32")
    return ops.sum(ops.cast(reached, "int32"), axis=-1)


@lru_cache
def _cycle_starts(first_cycle: float, t_mult: float) -> np.ndarray:
    """The steps at which cycles begin, up to 2^31; worked out one by one, since a logarithm slips at the restarts."""
    starts, length = [0.0], float(first_cycle)
    while starts[-1] < 2**31:
        starts.append(starts[-1] + length)
        length *= t_mult
    return np.array(starts, "float32")
