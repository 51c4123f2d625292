"""Epochs to steps and back, in one place."""

from dataclasses import dataclass
from typing import Protocol


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
        batch_size: Examples in a batch, or a `BatchSizeSchedule`.
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
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1. Received: {name}={getattr(self, name)}.")
        if self.in_epoch(0) < 1:
            raise ValueError(f"No whole batch of {self.batch_size} fits into {self.examples} examples.")

    def in_epoch(self, epoch: int = 0) -> int:
        """Steps of one epoch."""
        size = self.batch_size if isinstance(self.batch_size, int) else self.batch_size.size_at(epoch)
        if size < 1:
            raise ValueError(f"`batch_size` must be at least 1. Received: {size} in epoch {epoch}.")
        return self.examples // size if self.drop_remainder else -(-self.examples // size)

    def before(self, epoch: float) -> int:
        """Steps before `epoch` begins, which is the number of its first step; epochs may be fractions."""
        if epoch < 0:
            raise ValueError(f"`epoch` must be at least 0. Received: epoch={epoch}.")
        whole = int(epoch)
        steps = self.in_epoch() * whole if isinstance(self.batch_size, int) else sum(map(self.in_epoch, range(whole)))
        return steps + (round((epoch - whole) * self.in_epoch(whole)) if epoch > whole else 0)

    def last(self, epochs: int) -> int:
        """The number of the last step of `epochs` epochs: a cosine of so many steps ends on its minimum exactly."""
        return self.before(epochs) - 1

    def updates(self, epochs: float) -> int:
        """How often the weights move in `epochs` epochs; Keras never applies an accumulation that is not complete."""
        return self.before(epochs) // self.accumulation

    def of_updates(self, updates: int) -> int:
        """The step at which so many updates of the weights are done."""
        return updates * self.accumulation

    def epoch_of(self, step: int) -> float:
        """The epoch in which `step` lies, with its fraction."""
        if step < 0:
            raise ValueError(f"`step` must be at least 0. Received: step={step}.")
        if isinstance(self.batch_size, int):
            return step / self.in_epoch()
        epoch = 0
        while step >= self.in_epoch(epoch):
            step -= self.in_epoch(epoch)
            epoch += 1
        return epoch + step / self.in_epoch(epoch)
