"""Epochs to steps and back, in one place."""

from dataclasses import dataclass
from numbers import Integral
from typing import Any, Protocol


class HasSizeAt(Protocol):
    """A batch size that grows, such as `BatchSizeSchedule`."""

    def size_at(self, epoch: int) -> int:
        """Examples in a batch during `epoch`."""


@dataclass(frozen=True)
class Steps:
    """How many steps a training has, as schedules count them: a step is a batch.

    Keras counts batches also under gradient accumulation, where the weights move once in `accumulation` batches; what
    is known in updates becomes steps with `of_updates`.

    Attributes:
        examples: In an epoch.
        batch_size: Examples in a batch, or a `BatchSizeSchedule`, which gives the size of every epoch.
        accumulation: The optimiser's `gradient_accumulation_steps`; 1 without.
        drop_remainder: Whether a last, smaller batch is left out.

    >>> steps = Steps(examples=1000, batch_size=128)
    >>> steps.in_epoch(), steps.before(10), steps.before(2.5), steps.last(10)
    (8, 80, 20, 79)
    >>> Steps(1000, 128, accumulation=4).updates(10), Steps(1000, 128, accumulation=4).of_updates(5)
    (20, 20)
    """

    examples: int
    batch_size: int | HasSizeAt
    accumulation: int = 1
    drop_remainder: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("examples", "accumulation"):
            _require_count(name, getattr(self, name))
        if not hasattr(self.batch_size, "size_at"):
            _require_count("batch_size", self.batch_size)
        self.in_epoch(0)

    def in_epoch(self, epoch: int = 0) -> int:
        """Steps of one epoch.

        Raises:
            ValueError: The batch is larger than the data, and incomplete batches are left out.
        """
        size = self.batch_size.size_at(epoch) if hasattr(self.batch_size, "size_at") else self.batch_size
        _require_count("batch_size", size)
        if self.drop_remainder and size > self.examples:
            raise ValueError(
                f"No whole batch of {size} fits into {self.examples} examples in epoch {epoch}. "
                "Lower `batch_size`, or keep the incomplete batch with `drop_remainder=False`."
            )
        return int(self.examples // size if self.drop_remainder else -(-self.examples // size))

    def before(self, epoch: float) -> int:
        """Steps before `epoch` begins, which is the number of its first step; epochs may be fractions."""
        if not 0 <= epoch < float("inf"):
            raise ValueError(f"`epoch` must be at least 0 and finite. Received: epoch={epoch}.")
        whole = int(epoch)
        steps = sum(map(self.in_epoch, range(whole))) if self._grows else self.in_epoch() * whole
        return steps + (round((epoch - whole) * self.in_epoch(whole)) if epoch > whole else 0)

    def last(self, epochs: int) -> int:
        """The number of the last step of `epochs` epochs: a cosine of so many steps ends on its minimum exactly."""
        return self.before(epochs) - 1

    def updates(self, epochs: float) -> int:
        """How often the weights move in `epochs` epochs.

        Keras goes on accumulating in the next epoch, and never applies what is incomplete at the end.
        """
        return self.before(epochs) // self.accumulation

    def of_updates(self, updates: int) -> int:
        """The number of steps in which the weights move so often."""
        if updates < 0:
            raise ValueError(f"`updates` must be at least 0. Received: updates={updates}.")
        return updates * self.accumulation

    def epoch_of(self, step: int) -> float:
        """The epoch in which `step` lies, with its fraction; so `epoch_of(before(epoch))` is `epoch`."""
        if not 0 <= step < float("inf"):
            raise ValueError(f"`step` must be at least 0 and finite. Received: step={step}.")
        if not self._grows:
            return step / self.in_epoch()
        epoch = 0
        while step >= self.in_epoch(epoch):
            step -= self.in_epoch(epoch)
            epoch += 1
        return epoch + step / self.in_epoch(epoch)

    @property
    def _grows(self) -> bool:
        return hasattr(self.batch_size, "size_at")


def _require_count(name: str, value: Any) -> None:
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f"`{name}` must be a whole number, at least 1. Received: {name}={value!r}.")
