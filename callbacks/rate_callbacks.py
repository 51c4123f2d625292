"""Schedules as plain callbacks, for an optimiser whose learning rate is a number.

They set the rate before every batch, so that with `steps_per_execution=N` it stays the same for N batches; a schedule
in the optimiser has no such limit.
"""

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from callbacks.cyclic_schedules import (
    ExpRangeSchedule,
    OneCycleSchedule,
    Triangular2Schedule,
    TriangularSchedule,
    WarmRestartsSchedule,
)
from callbacks.rates import batches_seen, claim_rate, learning_rate, schedule_of, set_learning_rate
from callbacks.schedules import Schedule, StepDecaySchedule, require_positive
from callbacks.stateful import StatefulCallback


class RateCallback(StatefulCallback):
    """Sets the learning rate before every batch; what a subclass's `schedule` says.

    Batches count from the beginning of the training: a `fit` with `initial_epoch` goes on where that epoch lies, or,
    where the number of batches in an epoch is not known, with the count of the optimiser.
    Log entry "learning_rate": the rate of the epoch's last batch.

    Raises:
        ValueError: In `on_train_begin`, where the optimiser has a schedule, or where another callback of this package
            sets the rate too; before the first batch of an epoch, where something else has changed the rate.
    """

    STATE = ("batches_done",)
    COUNTS_EPOCHS = False  # whether all epochs must have as many batches

    def schedule(self, steps_per_epoch: int | None, epochs: int) -> Schedule:
        """The schedule of a training of `epochs` epochs; `steps_per_epoch` is None where `fit` does not know it."""
        raise NotImplementedError

    def reset(self) -> None:
        """Back to the first batch."""
        self.batches_done: int | None = None

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Refuse an optimiser that has a schedule already."""
        super().on_train_begin(logs)
        optimizer = self.model.optimizer
        refuse_schedule(optimizer, type(self).__name__)
        claim_rate(self)
        steps = self.params.get("steps")
        self._schedule = self.schedule(None if steps is None else int(steps), int(self.params["epochs"]))
        self._present = learning_rate(optimizer)
        set_learning_rate(optimizer, self._present)  # raises where it cannot be set

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Find the number of the epoch's first batch, and the rates of them all."""
        optimizer, steps = self.model.optimizer, self.params.get("steps")
        self._steps = steps = None if steps is None else int(steps)  # growing batches are fewer in later epochs
        if self.batches_done is None:
            self.batches_done = 0 if epoch == 0 else batches_seen(optimizer) if steps is None else epoch * steps
        self._seen_before = batches_seen(optimizer)
        self._in_epoch = 0
        self._begun: list[tuple[int, float]] = []  # the last two batches, with their rates
        self._rates = None if steps is None else self._schedule.values(self.batches_done + np.arange(steps))

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Set the rate of this batch."""
        if batch == 0:
            self._refuse_others()
        step = (self.batches_done or 0) + batch
        rate = float(self._schedule.values([step])[0] if self._rates is None else self._rates[batch])
        self._begun = [*self._begun[-1:], (batch, rate)]
        if rate != self._present:  # on JAX, touching the optimiser costs a copy of everything
            self._present = rate
            set_learning_rate(self.model.optimizer, rate)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Count."""
        self._in_epoch = batch + 1

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Log the rate."""
        # With `steps_per_execution` the number of the last batch may be too large; the optimiser's count may, on
        # TensorFlow, where the data ended after a batch had begun.
        steps = batches_seen(self.model.optimizer) - self._seen_before if self._steps is None else self._steps
        count = min(self._in_epoch, steps)
        self.batches_done = (self.batches_done or 0) + count
        rates = [rate for batch, rate in self._begun if batch < count]
        if isinstance(logs, dict) and rates:
            logs["learning_rate"] = rates[-1]

    def _refuse_others(self) -> None:
        found, exact = learning_rate(self.model.optimizer), keras.config.floatx() in ("float32", "float64")
        if not math.isclose(found, self._present, rel_tol=1e-6 if exact else 1e-2):
            raise ValueError(
                f"{type(self).__name__} had left the learning rate at {self._present:g}, and now it is {found:g}: "
                "another callback sets it too. Keep one of them; for a reduction on top of a schedule, give the "
                "optimiser `Scale(schedule)` and use `ReduceOnPlateau`."
            )


def refuse_schedule(optimizer: Any, name: str) -> None:
    """Raise where the optimiser has a schedule that a callback called `name` cannot work with."""
    found = schedule_of(optimizer)
    if found is not None:
        raise ValueError(
            f"{name} sets the learning rate itself, but the optimiser has a schedule, {type(found).__name__}. Give the "
            f"optimiser a number, or leave {name} out."
        )


class CyclicLR(RateCallback):
    """Cyclic learning rate: `TriangularSchedule`, `Triangular2Schedule` or `ExpRangeSchedule` as a callback.

    Args:
        base_rate, max_rate: Between which the rate goes up and down.
        step_size: Batches of half a cycle; 2 to 10 epochs in the source.
        mode: "triangular", "triangular2" or "exp_range".
        gamma: Of exp_range, in (0, 1].

    Source: https://arxiv.org/abs/1506.01186

    >>> callback = CyclicLR(0.001, 0.006, step_size=2000, mode="triangular2")
    """

    def __init__(
        self,
        base_rate: float,
        max_rate: float,
        step_size: int,
        mode: str = "triangular",
        gamma: float = 1.0,
    ) -> None:
        modes: dict[str, Any] = {"triangular": TriangularSchedule, "triangular2": Triangular2Schedule}
        if gamma != 1 and mode in modes:
            raise ValueError(f"`gamma` is for mode='exp_range' only. Received: gamma={gamma!r}, mode={mode!r}.")
        if mode == "exp_range":
            self._made: Schedule = ExpRangeSchedule(base_rate, max_rate, step_size, gamma)
        elif mode in modes:
            self._made = modes[mode](base_rate, max_rate, step_size)
        else:
            raise ValueError(f"`mode` must be one of {[*modes, 'exp_range']}. Received: mode={mode!r}.")
        super().__init__()

    def schedule(self, steps_per_epoch: int | None, epochs: int) -> Schedule:
        """Of the arguments alone."""
        return self._made


class WarmRestarts(RateCallback):
    """Cosine cycles with warm restarts (SGDR), their lengths in epochs: `WarmRestartsSchedule` as a callback.

    Args:
        max_rate: Rate at the beginning of the first cycle.
        first_cycle: Epochs of the first cycle; may be a fraction, also below 1, but not less than a batch.
        t_mult, min_rate, max_decay: As in `WarmRestartsSchedule`.

    Source: https://arxiv.org/abs/1608.03983
    """

    COUNTS_EPOCHS = True

    def __init__(
        self,
        max_rate: float,
        first_cycle: float,
        t_mult: float = 1.0,
        min_rate: float = 0.0,
        max_decay: float = 1.0,
    ) -> None:
        require_positive(first_cycle=first_cycle)
        WarmRestartsSchedule(max_rate, max(first_cycle, 1), t_mult, min_rate, max_decay)  # checks the others
        self._arguments = max_rate, first_cycle, t_mult, min_rate, max_decay
        super().__init__()

    def schedule(self, steps_per_epoch: int | None, epochs: int) -> Schedule:
        """With the cycles in batches."""
        max_rate, first_cycle, *others = self._arguments
        if first_cycle * _known(steps_per_epoch) < 1:
            raise ValueError(
                f"`first_cycle` must be at least a batch, {1 / _known(steps_per_epoch):g} epochs here. "
                f"Received: first_cycle={first_cycle!r}."
            )
        return WarmRestartsSchedule(max_rate, first_cycle * _known(steps_per_epoch), *others)


class OneCycle(RateCallback):
    """One cycle over all epochs of the `fit`: `OneCycleSchedule` as a callback.

    Momentum that moves against the rate is part of the training graph and cannot be had from a callback: for it, give
    `callbacks.SGD` or `callbacks.Adam` the schedule and a `CyclicMomentum`.

    Args:
        max_rate: The highest rate.
        **options: Those of `OneCycleSchedule`, without `total_steps`.

    Source: https://arxiv.org/abs/1708.07120
    """

    COUNTS_EPOCHS = True

    def __init__(self, max_rate: float, **options: Any) -> None:
        if "total_steps" in options:
            raise ValueError("OneCycle goes over all epochs of `fit`: leave `total_steps` out.")
        OneCycleSchedule(max_rate, 2, **options)  # checks them
        self.max_rate, self.options = max_rate, options
        super().__init__()

    def schedule(self, steps_per_epoch: int | None, epochs: int) -> Schedule:
        """Over all batches of the training."""
        return OneCycleSchedule(self.max_rate, epochs * _known(steps_per_epoch), **self.options)


class StepDecay(RateCallback):
    """The rate times `factor` every so many epochs: `StepDecaySchedule` as a callback.

    Args:
        initial_rate: Rate of the first epochs.
        factor: In (0, 1].
        every: Epochs between two drops.
        start: Epoch at which counting begins.
    """

    COUNTS_EPOCHS = True

    def __init__(self, initial_rate: float, factor: float, every: int, start: int = 0) -> None:
        require_positive(every=every)
        StepDecaySchedule(initial_rate, factor, every, start)  # checks them
        self._arguments = initial_rate, factor, every, start
        super().__init__()

    def schedule(self, steps_per_epoch: int | None, epochs: int) -> Schedule:
        """With the epochs in batches."""
        initial_rate, factor, every, start = self._arguments
        steps = _known(steps_per_epoch)
        return StepDecaySchedule(initial_rate, factor, every * steps, start * steps)


def _known(steps_per_epoch: int | None) -> int:
    if steps_per_epoch is None:
        raise ValueError(
            "The number of batches of an epoch is not known, and this callback counts in epochs. Give "
            "`fit(steps_per_epoch=...)`."
        )
    return steps_per_epoch
