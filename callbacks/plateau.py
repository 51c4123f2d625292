"""Lower the learning rate when a metric stops improving, also on top of a schedule."""

from collections.abc import Mapping

import keras

from callbacks.combinators import Scale
from callbacks.freeze import compile_anew
from callbacks.objective import Monitored, Objective
from callbacks.rates import claim_rate, learning_rate, schedule_of, set_learning_rate
from callbacks.schedules import number
from callbacks.stateful import StatefulCallback


class ReduceOnPlateau(StatefulCallback):
    """Multiply the learning rate by `factor` after `patience` epochs without improvement.

    Works with a number as learning rate, and with `Scale(schedule)`, whose multiplier it lowers; `Scale` must be the
    outermost schedule, as in `Scale(WarmUp(...))`. Log entry "learning_rate": the rate of the epoch's last batch.

    Args:
        monitor, mode, min_delta: As in `Objective`.
        factor: In (0, 1), such as 0.5 or 0.1.
        patience: Epochs without improvement before a reduction, at least 1.
        cooldown: Epochs after a reduction in which nothing is counted.
        min_rate: The rate is not lowered below it; with a schedule, the rate of the epoch's last batch.

    Raises:
        ValueError: In `on_train_begin`, where the optimiser's schedule has no `Scale`, or where a callback such as
            `CyclicLR` sets the rate.

    >>> callback = ReduceOnPlateau("val_accuracy", factor=0.1, patience=3)
    """

    STATE = ("best", "waited", "cooling", "reductions", "multiplier")

    def __init__(
        self,
        monitor: Monitored = "val_loss",
        factor: float = 0.5,
        patience: int = 5,
        mode: str | None = None,
        min_delta: float = 0.0,
        cooldown: int = 0,
        min_rate: float = 0.0,
    ) -> None:
        if not 0 < number(factor) < 1:
            raise ValueError(f"`factor` must lie in (0, 1). Received: factor={factor!r}.")
        if not (number(patience) >= 1 and number(cooldown) >= 0 and number(min_rate) >= 0):
            raise ValueError(
                "`patience` must be at least 1, `cooldown` and `min_rate` at least 0. "
                f"Received: patience={patience!r}, cooldown={cooldown!r}, min_rate={min_rate!r}."
            )
        self.objective = Objective(monitor, mode, min_delta)
        self.factor, self.patience, self.cooldown, self.min_rate = factor, patience, cooldown, min_rate
        super().__init__()

    def reset(self) -> None:
        """Forget what was best."""
        self.best, self.waited, self.cooling, self.reductions = self.objective.worst, 0, 0, 0
        self.multiplier: float | None = None  # of `Scale`, once it was lowered

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Refuse a schedule without a multiplier; put back that of `set_state`."""
        super().on_train_begin(logs)
        optimizer = self.model.optimizer
        schedule = schedule_of(optimizer)
        if schedule is None:
            claim_rate(self, alone=False)
            set_learning_rate(optimizer, learning_rate(optimizer))  # raises where it cannot be set
        elif not isinstance(schedule, Scale):
            inside = "Its `Scale` is inside: put it outermost, as in" if getattr(schedule, "variables", ()) else "Use"
            raise ValueError(
                f"ReduceOnPlateau cannot change the optimiser's schedule, {type(schedule).__name__}. "
                f"{inside} `Scale({type(schedule).__name__}(...))`."
            )
        elif self.multiplier is not None:
            self._set_multiplier(schedule, self.multiplier)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Compare the epoch with the best one, and reduce where it is time."""
        value = self.objective.value(logs or {})
        if isinstance(logs, dict):
            logs["learning_rate"] = learning_rate(self.model.optimizer)
        if self.objective.improved(value, self.best):
            self.best, self.waited = value, 0
        elif self.cooling == 0:
            self.waited += 1
        self.cooling = max(self.cooling - 1, 0)
        if self.waited >= self.patience:
            self._reduce()
            self.waited, self.cooling = 0, self.cooldown

    def _reduce(self) -> None:
        optimizer = self.model.optimizer
        rate = learning_rate(optimizer)
        if self.min_rate and rate <= self.min_rate * (1 + 1e-6):
            return
        # A schedule may be at 0 just now: the factor itself, not a ratio of rates.
        factor = max(self.factor, self.min_rate / rate) if self.min_rate else self.factor
        self.reductions += 1
        schedule = schedule_of(optimizer)
        if schedule is None:
            set_learning_rate(optimizer, rate * factor)
        else:
            self._set_multiplier(schedule, float(keras.ops.convert_to_numpy(schedule.multiplier)) * factor)

    def _set_multiplier(self, schedule: Scale, multiplier: float) -> None:
        model = self.model
        self.multiplier = multiplier
        schedule.multiplier.assign(multiplier)
        known = any(variable is schedule.multiplier for variable in model.optimizer.variables)
        if keras.backend.backend() == "jax" and not known:
            compile_anew(model)  # the compiled step of a stock optimiser has the number built in
