"""The curves of the learning rate: pure functions of the step, on numbers or tensors, float32.

`step` counts batches from 0. Everywhere "steps" is the step at which a curve reaches its end, where it stays; the last
of `total` batches has the number `total - 1` (`Steps.last`).
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import keras
import numpy as np
from keras import ops

Step = keras.KerasTensor | int | float


def constant(step: Step, rate: float) -> keras.KerasTensor:
    """`rate` at every step."""
    return rate + 0.0 * _float(step)


def step_decay(step: Step, initial_rate: float, factor: float, every: int, start: int = 0) -> keras.KerasTensor:
    """`initial_rate * factor^floor((step - start) / every)`; before `start` the initial rate."""
    drops = ops.floor(ops.maximum(_float(step) - start, 0.0) / every)
    return initial_rate * ops.power(_float(factor), drops)


def piecewise_constant(step: Step, boundaries: Sequence[int], rates: Sequence[float]) -> keras.KerasTensor:
    """`rates[i]` from step `boundaries[i - 1]` on, up to and without step `boundaries[i]`."""
    place = ops.searchsorted(ops.convert_to_tensor(boundaries, "float32"), _float(step)[None], side="right")[0]
    return ops.take(ops.convert_to_tensor(rates, "float32"), place)


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
    left = 1.0 - ops.minimum(_float(step) / steps, 1.0)
    return final_rate + (initial_rate - final_rate) * ops.power(left, power)


def inverse_square_root(step: Step, initial_rate: float, hold: int = 1) -> keras.KerasTensor:
    """`initial_rate / sqrt(step / hold)` from step `hold` on, before it the initial rate."""
    return initial_rate / ops.sqrt(ops.maximum(_float(step), float(hold)) / hold)


def cosine(step: Step, max_rate: float, steps: int, min_rate: float = 0.0) -> keras.KerasTensor:
    """`min_rate + (max_rate - min_rate) / 2 * (1 + cos(pi * step / steps))`."""
    return min_rate + (max_rate - min_rate) * _half_cosine(ops.minimum(_float(step) / steps, 1.0))


def triangular(
    step: Step, base_rate: float, max_rate: float, step_size: int, cycle_factor: float = 1.0
) -> keras.KerasTensor:
    """Straight up and down between `base_rate` and `max_rate`, half a cycle in `step_size` steps.

    The height of a cycle is that of the one before times `cycle_factor`. https://arxiv.org/abs/1506.01186
    """
    position = _float(step) / step_size
    cycle = ops.floor(position / 2)
    height = 1.0 - ops.abs(position - 2 * cycle - 1)
    return base_rate + (max_rate - base_rate) * height * ops.power(_float(cycle_factor), cycle)


def exp_range(step: Step, base_rate: float, max_rate: float, step_size: int, gamma: float) -> keras.KerasTensor:
    """`triangular` with the height at every step multiplied by `gamma^step`. https://arxiv.org/abs/1506.01186"""
    height = triangular(step, 0.0, 1.0, step_size) * ops.power(_float(gamma), _float(step))
    return base_rate + (max_rate - base_rate) * height


def warm_restarts(
    step: Step, max_rate: float, first_cycle: float, t_mult: float = 1.0, min_rate: float = 0.0, max_decay: float = 1.0
) -> keras.KerasTensor:
    """Cosine cycles: the first is `first_cycle` steps long, each next `t_mult` times as long as the one before.

    The maximum of a cycle is that of the one before times `max_decay`. https://arxiv.org/abs/1608.03983
    """
    step = _float(step)
    if t_mult == 1:
        cycle = ops.floor(step / first_cycle)
        done = (step - cycle * first_cycle) / first_cycle
    else:
        starts = _cycle_starts(first_cycle, t_mult)
        place = ops.searchsorted(ops.convert_to_tensor(starts), step[None], side="right")[0]
        cycle = _float(place) - 1
        lengths = np.diff(starts, append=np.float32(np.inf))
        done = (step - ops.take(starts, place - 1)) / ops.take(lengths, place - 1)
    maximum = max_rate * ops.power(_float(max_decay), cycle)
    return min_rate + (maximum - min_rate) * _half_cosine(done)


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
    last = total_steps - 1
    step = ops.minimum(_float(step), float(last))
    peak, turn = warmup * last, (1 - tail) * last

    def part(begin: float, end: float) -> keras.KerasTensor:
        done = ops.clip((step - begin) / max(end - begin, 1e-9), 0.0, 1.0)
        return 1.0 - _half_cosine(done) if curve == "cosine" else done

    low = start_factor if tail else final_factor
    up = start_factor + (1 - start_factor) * part(0.0, peak)
    down = low + (1 - low) * (1 - part(peak, turn))
    annihilation = final_factor + (low - final_factor) * (1 - part(turn, last))
    return max_rate * ops.where(step < peak, up, ops.where(step < turn, down, annihilation) if tail else down)


def _float(value: Step) -> keras.KerasTensor:
    return ops.cast(value, "float32")


def _half_cosine(done: keras.KerasTensor) -> keras.KerasTensor:
    """From 1 to 0 while `done` goes from 0 to 1."""
    return (1.0 + ops.cos(math.pi * done)) / 2


@lru_cache
def _cycle_starts(first_cycle: float, t_mult: float) -> np.ndarray:
    """The steps at which cycles begin, up to 2^31; worked out one by one, since a logarithm slips at the restarts."""
    starts, length = [0.0], float(first_cycle)
    while starts[-1] < 2**31:
        starts.append(starts[-1] + length)
        length *= t_mult
    return np.array(starts, "float32")
