"""Which part of every global batch one of several processes makes."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Share:
    """Number `number` (from 0) of the `of` equal parts of every batch.

    Raises:
        ValueError: There is no such part.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.of:
            raise ValueError(f"`number` must lie between 0 and `of` - 1. Received: number={self.number}, of={self.of}.")

    def size(self, batch_size: int) -> int:
        """How many pictures of a batch it has.

        Raises:
            ValueError: The batch cannot be divided equally.
        """
        if batch_size % self.of:
            raise ValueError(
                f"`batch_size` is that of all {self.of} shares together and must be a multiple of {self.of}. "
                f"Received: {batch_size}."
            )
        return batch_size // self.of

    def rows(self, batch_size: int, following: int = 0) -> np.ndarray:
        """Its rows of the global batch and the `following` ones after them; after the last comes the first."""
        own = self.size(batch_size)
        more = following if self.of > 1 else 0
        return (self.number * own + np.arange(own + more)) % batch_size


WHOLE = Share(0, 1)
