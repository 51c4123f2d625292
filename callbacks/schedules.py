"""Learning-rate schedules: each a plain curve of the step, and a thin Keras class that stores its numbers."""

import math
from typing import Any

import keras
from keras import ops


def one_cycle(
    step: keras.KerasTensor | int,
    max_rate: float,
    total_steps: int,
    warmup: float = 0.3,
    start_factor: float = 0.04,
    final_factor: float = 1e-4,
    curve: str = "cosine",
) -> keras.KerasTensor:
    """The rate at `step`: up from `max_rate * start_factor`, then down to `max_rate * final_factor`.

    The peak lies at step `warmup * (total_steps - 1)`, the final value at step `total_steps - 1` and after it.
    Source: Super-Convergence, https://arxiv.org/abs/1708.07120
    """
    last = total_steps - 1
    step = ops.minimum(ops.cast(step, "float32"), float(last))
    peak = warmup * last
    rising = step / max(peak, 1e-9)
    falling = (step - peak) / max(last - peak, 1e-9)
    if curve == "cosine":
        rising, falling = ((1 - ops.cos(math.pi * ops.clip(part, 0.0, 1.0))) / 2 for part in (rising, falling))
    up = max_rate * (start_factor + (1 - start_factor) * rising)
    down = max_rate * (final_factor + (1 - final_factor) * (1 - falling))
    return ops.where(step < peak, up, down)


@keras.saving.register_keras_serializable(package="callbacks")
class OneCycleSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """One cycle over the whole training: rise to `max_rate`, then fall far below the start.

    Args:
        max_rate: The highest learning rate.
        total_steps: Number of optimiser steps of the training; the last one has the final rate exactly.
        warmup: Fraction of the training spent rising, in [0, 1).
        start_factor: First rate as a fraction of `max_rate`, in (0, 1].
        final_factor: Last rate as a fraction of `max_rate`, in [0, 1].
        curve: "cosine" or "linear".

    Source: Super-Convergence, https://arxiv.org/abs/1708.07120

    >>> schedule = OneCycleSchedule(0.4, total_steps=101, warmup=0.5, start_factor=0.1, curve="linear")
    >>> [round(float(schedule(step)), 5) for step in (0, 25, 50, 100)]
    [0.04, 0.22, 0.4, 4e-05]
    """

    def __init__(
        self,
        max_rate: float,
        total_steps: int,
        warmup: float = 0.3,
        start_factor: float = 0.04,
        final_factor: float = 1e-4,
        curve: str = "cosine",
    ) -> None:
        if max_rate <= 0:
            raise ValueError(f"`max_rate` must be positive. Received: max_rate={max_rate}.")
        if total_steps < 1:
            raise ValueError(f"`total_steps` must be at least 1. Received: total_steps={total_steps}.")
        if not 0 <= warmup < 1:
            raise ValueError(f"`warmup` is a fraction in [0, 1). Received: warmup={warmup}.")
        if not 0 < start_factor <= 1 or not 0 <= final_factor <= 1:
            raise ValueError(
                "`start_factor` must lie in (0, 1] and `final_factor` in [0, 1]. "
                f"Received: start_factor={start_factor}, final_factor={final_factor}."
            )
        if curve not in ("cosine", "linear"):
            raise ValueError(f"`curve` must be 'cosine' or 'linear'. Received: curve={curve!r}.")
        self.config: dict[str, Any] = {
            "max_rate": float(max_rate),
            "total_steps": int(total_steps),
            "warmup": float(warmup),
            "start_factor": float(start_factor),
            "final_factor": float(final_factor),
            "curve": curve,
        }

    def __call__(self, step: keras.KerasTensor | int) -> keras.KerasTensor:
        """The learning rate, a float32 scalar, at optimiser step `step` (0 is the first)."""
        return one_cycle(step, **self.config)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(self.config)
