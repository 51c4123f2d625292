"""Schedules made of schedules: a warm-up before any, several in a row, any times a number that can be changed.

They take every `LearningRateSchedule`, also Keras' own.
"""

import math
from collections.abc import Sequence as SequenceOf
from typing import Any

import keras
import numpy as np
from keras import ops

from callbacks.curves import Step
from callbacks.rates import LearningRateSchedule
from callbacks.schedules import (
    Schedule,
    number,
    register,
    require,
    require_ascending,
    require_lists,
    require_positive,
    require_steps,
)

_serialize = keras.saving.serialize_keras_object


class _Combined(Schedule):
    """A schedule that stores others under `NESTED` in its config."""

    NESTED = ("schedule",)

    def _nested(self) -> list[Any]:
        found = [self.config[name] for name in self.NESTED]
        return [one for entry in found for one in (entry if isinstance(entry, list) else [entry])]

    @property
    def variables(self) -> list[keras.Variable]:
        """Those of the schedules inside."""
        return [variable for one in self._nested() for variable in getattr(one, "variables", [])]

    def values(self, steps: SequenceOf[float] | np.ndarray) -> np.ndarray:
        """The rates at many steps; some of Keras' own schedules take only one at a time."""
        if self._takes_many():
            return super().values(steps)
        return np.array([keras.ops.convert_to_numpy(self(step)) for step in np.asarray(steps, "float32")])

    def _takes_many(self) -> bool:
        return all(
            one._takes_many() if isinstance(one, _Combined) else isinstance(one, Schedule) for one in self._nested()
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as plain values."""
        return {**self.config, **{name: _serialize(self.config[name]) for name in self.NESTED}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "_Combined":
        """The schedule of a `get_config`."""
        nested = {name: _deserialize(config[name]) for name in cls.NESTED}
        return cls(**{**config, **nested})


def _deserialize(value: Any) -> Any:
    return (
        [_deserialize(one) for one in value]
        if isinstance(value, list)
        else keras.saving.deserialize_keras_object(value)
    )


def _require_schedule(name: str, value: Any) -> None:
    if not isinstance(value, LearningRateSchedule):
        raise ValueError(
            f"`{name}` must be a LearningRateSchedule, such as ConstantSchedule(0.1). Received: {value!r}."
        )


@register
class WarmUp(_Combined):
    """Begin below the rate of another schedule.

    Args:
        schedule: What comes after; any `LearningRateSchedule`.
        steps: Length of the warm-up.
        factor: Where it begins, as a fraction of the rate at its end; in [0, 1]. At 0 the first step does nothing.
        gradual: Rise straight to the full rate; False stays at `factor` and then leaps.
        delay: The schedule begins after the warm-up; False lets it count from step 0 and replaces its first steps.

    Source: gradual and constant warm-up in https://arxiv.org/abs/1706.02677

    >>> from callbacks import StepDecaySchedule
    >>> schedule = WarmUp(StepDecaySchedule(1.0, 0.5, every=2), steps=4, factor=0.2)
    >>> [round(float(schedule(step)), 2) for step in range(8)]
    [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 0.5, 0.5]
    """

    def __init__(
        self,
        schedule: LearningRateSchedule,
        steps: int,
        factor: float = 0.1,
        gradual: bool = True,
        delay: bool = True,
    ) -> None:
        _require_schedule("schedule", schedule)
        require_steps(steps=steps)
        require(0 <= number(factor) <= 1, "`factor` must lie in [0, 1].", factor=factor)
        for name, value in (("gradual", gradual), ("delay", delay)):
            require(value in (True, False), f"`{name}` must be True or False.", **{name: value})
        super().__init__(
            schedule=schedule, steps=int(steps), factor=float(factor), gradual=bool(gradual), delay=bool(delay)
        )

    def __call__(self, step: Step) -> keras.KerasTensor:
        """The rate at `step`."""
        step, steps, factor = ops.cast(step, "float32"), self.config["steps"], self.config["factor"]
        schedule, shift = self.config["schedule"], steps if self.config["delay"] else 0
        full = schedule(ops.cast(steps - shift, "float32"))
        part = factor + (1 - factor) * step / steps if self.config["gradual"] else factor
        return ops.where(step < steps, full * part, schedule(ops.maximum(step, float(steps)) - shift))


@register
class Sequence(_Combined):
    """Several schedules one after the other, each counting from its own 0.

    Args:
        schedules: At least one.
        boundaries: The steps at which the second, the third, ... begin.

    >>> from callbacks import ConstantSchedule, LinearSchedule
    >>> schedule = Sequence([ConstantSchedule(1.0), LinearSchedule(0.5, steps=2)], boundaries=[3])
    >>> [float(schedule(step)) for step in range(6)]
    [1.0, 1.0, 1.0, 0.5, 0.25, 0.0]
    """

    NESTED = ("schedules",)

    def __init__(self, schedules: SequenceOf[LearningRateSchedule], boundaries: SequenceOf[int]) -> None:
        require_lists(schedules=schedules, boundaries=boundaries)
        schedules, boundaries = list(schedules), list(boundaries)
        for one in schedules:
            _require_schedule("schedules", one)
        if len(schedules) != len(boundaries) + 1:
            raise ValueError(
                "`schedules` must have one entry more than `boundaries`. "
                f"Received: {len(schedules)} schedules, boundaries={boundaries}."
            )
        require_ascending(boundaries)
        super().__init__(schedules=schedules, boundaries=[int(step) for step in boundaries])

    def __call__(self, step: Step) -> keras.KerasTensor:
        """The rate at `step`."""
        step = ops.cast(step, "float32")
        rate = self.config["schedules"][0](step)
        for begin, schedule in zip(self.config["boundaries"], self.config["schedules"][1:], strict=True):
            rate = ops.where(step >= begin, schedule(ops.maximum(step - begin, 0.0)), rate)
        return rate


@register
class Scale(_Combined):
    """Another schedule times `multiplier`, a variable, which `ReduceOnPlateau` lowers during training.

    Args:
        schedule: Any `LearningRateSchedule`.
        multiplier: Its first value, above 0.

    >>> from callbacks import LinearSchedule
    >>> schedule = Scale(LinearSchedule(1.0, steps=4))
    >>> _ = schedule.multiplier.assign(0.5)
    >>> [float(schedule(step)) for step in range(3)]
    [0.5, 0.375, 0.25]
    """

    def __init__(self, schedule: LearningRateSchedule, multiplier: float = 1.0) -> None:
        _require_schedule("schedule", schedule)
        require_positive(multiplier=multiplier)
        super().__init__(schedule=schedule)
        self.multiplier = keras.Variable(float(multiplier), trainable=False, dtype="float32", name="rate_multiplier")

    def __call__(self, step: Step) -> keras.KerasTensor:
        """The rate at `step`."""
        return self.config["schedule"](step) * ops.convert_to_tensor(self.multiplier)

    def height(self, step: Step) -> keras.KerasTensor:
        """That of the schedule inside."""
        if not isinstance(self.config["schedule"], Schedule):
            return super().height(step)
        return self.config["schedule"].height(step)

    @property
    def variables(self) -> list[keras.Variable]:
        """The multiplier, and those of the schedule inside."""
        return [self.multiplier, *super().variables]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, the multiplier as it is now."""
        return {**super().get_config(), "multiplier": float(ops.convert_to_numpy(self.multiplier))}


@register
class Paced(_Combined):
    """Another schedule that can be gone through faster or slower from any step on, without a jump of the rate.

    `Deadline` does so, to end a training on time.

    Args:
        schedule: Any `LearningRateSchedule`.
        line: (step, position, pace): at `step` the schedule inside is at `position`, and moves by `pace` a step.

    >>> from callbacks import LinearSchedule
    >>> schedule = Paced(LinearSchedule(1.0, steps=8))
    >>> schedule.set_pace(step=2, pace=3.0)
    >>> [float(schedule(step)) for step in (2, 3, 4)]
    [0.75, 0.375, 0.0]
    """

    def __init__(self, schedule: LearningRateSchedule, line: SequenceOf[float] = (0.0, 0.0, 1.0)) -> None:
        _require_schedule("schedule", schedule)
        if len(line) != 3 or not all(math.isfinite(one) for one in line) or not line[2] > 0:
            raise ValueError(f"`line` must be (step, position, pace) with a positive pace. Received: line={line!r}.")
        super().__init__(schedule=schedule)
        self.line = keras.Variable([float(one) for one in line], trainable=False, dtype="float32", name="pace")

    def __call__(self, step: Step) -> keras.KerasTensor:
        """The rate at `step`."""
        start, position, pace = (ops.convert_to_tensor(self.line)[number] for number in range(3))
        return self.config["schedule"](position + (ops.cast(step, "float32") - start) * pace)

    def position(self, step: float) -> float:
        """Where the schedule inside is at `step`."""
        start, position, pace = (float(one) for one in ops.convert_to_numpy(self.line))
        return position + (step - start) * pace

    def set_pace(self, step: float, pace: float) -> None:
        """From `step` on, move by `pace` a step."""
        if not pace > 0:
            raise ValueError(f"`pace` must be positive. Received: pace={pace}.")
        self.line.assign([step, self.position(step), pace])

    @property
    def variables(self) -> list[keras.Variable]:
        """The line, and those of the schedule inside."""
        return [self.line, *super().variables]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, the line as it is now."""
        return {**super().get_config(), "line": [float(one) for one in ops.convert_to_numpy(self.line)]}


@register
class CyclicMomentum(_Combined):
    """Momentum against the rate: `high` where a cyclic rate is lowest, `low` where it is highest.

    Args:
        schedule: A triangular, one-cycle or restarting schedule.
        low, high: Momenta in [0, 1).

    Source: https://arxiv.org/abs/1803.09820, section 4.3; the same values as PyTorch's `CyclicLR` and `OneCycleLR`.

    >>> from callbacks import TriangularSchedule
    >>> momentum = CyclicMomentum(TriangularSchedule(0.1, 0.5, step_size=2), low=0.75, high=0.875)
    >>> [float(momentum(step)) for step in range(5)]
    [0.875, 0.8125, 0.75, 0.8125, 0.875]
    """

    def __init__(self, schedule: Schedule, low: float = 0.85, high: float = 0.95) -> None:
        if not isinstance(schedule, Schedule):
            raise ValueError(f"`schedule` must be a cyclic schedule of this package. Received: {schedule!r}.")
        schedule.height(0)
        require(
            0 <= number(low) < number(high) < 1,
            "`low` and `high` must satisfy 0 <= low < high < 1.",
            low=low,
            high=high,
        )
        super().__init__(schedule=schedule, low=float(low), high=float(high))

    def __call__(self, step: Step) -> keras.KerasTensor:
        """The momentum at `step`."""
        low, high = self.config["low"], self.config["high"]
        return high - (high - low) * self.config["schedule"].height(step)
