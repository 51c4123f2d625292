"""Several networks for the price of one: a snapshot at the end of every learning-rate cycle, predictions averaged."""

import os
import warnings
from collections.abc import Callable, Mapping
from collections.abc import Sequence as SequenceOf
from itertools import accumulate
from pathlib import Path
from typing import Any

import keras
import numpy as np

from callbacks.combinators import Sequence
from callbacks.processes import is_first_process
from callbacks.rates import LearningRateSchedule
from callbacks.schedules import CosineSchedule
from callbacks.snapshots import copy_weights, read_snapshot, write_snapshot
from callbacks.stateful import StatefulCallback


class SnapshotEnsemble(StatefulCallback):
    """Keep the weights at the end of every cycle; `predict` averages the probabilities of these snapshots.

    Args:
        cycles: Length of every cycle in epochs; they may differ. `fit` must run for their sum.
        folder: Snapshots are written there too, one .npz for each ("cycle-01.npz", ...) with the arrays of
            `model.get_weights()`. A checkpoint then need not hold them.
        keep: Only so many of the last snapshots are kept; None keeps all.

    Raises:
        ValueError: At construction, when an argument is wrong. Before the first step, when the epochs of `fit` are not
            the sum of the cycles, or `fit` begins later than at the first epoch without the state of the one before.

    Source: https://arxiv.org/abs/1704.00109

    >>> ensemble = SnapshotEnsemble([2, 4])
    >>> schedule = ensemble.schedule(max_rate=0.5, steps_per_epoch=2)
    >>> [round(float(schedule(step)), 3) for step in (0, 2, 4, 8)]
    [0.5, 0.25, 0.5, 0.25]
    """

    STATE = ("taken",)

    def __init__(
        self, cycles: SequenceOf[int], folder: os.PathLike[str] | str | None = None, keep: int | None = None
    ) -> None:
        if isinstance(cycles, int) or not cycles or any(length != int(length) or length < 1 for length in cycles):
            raise ValueError(
                "`cycles` must list the length of every cycle in epochs, each at least 1, such as [10, 10, 20]. "
                f"Received: cycles={cycles!r}."
            )
        if keep is not None and keep < 1:
            raise ValueError(f"`keep` must be at least 1 snapshot, or None for all. Received: keep={keep}.")
        self.cycles, self.keep = [int(length) for length in cycles], keep
        self.ends = list(accumulate(self.cycles))
        self.folder = Path(folder) if folder is not None else None
        super().__init__()

    def reset(self) -> None:
        """Forget all snapshots; those on disk are replaced one by one."""
        self.snapshots: list[list[np.ndarray]] = []
        self.taken = 0

    def schedule(self, max_rate: float, steps_per_epoch: int, min_rate: float = 0.0) -> LearningRateSchedule:
        """The learning rate that belongs to the cycles: a cosine from `max_rate` to `min_rate` in each."""
        parts = [CosineSchedule(max_rate, length * steps_per_epoch, min_rate) for length in self.cycles]
        return Sequence(parts, [end * steps_per_epoch for end in self.ends[:-1]])

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Start afresh, or, after `set_state`, with the snapshots taken so far."""
        super().on_train_begin(logs)
        self._begun = False
        epochs = (self.params or {}).get("epochs")
        if epochs != self.ends[-1]:
            raise ValueError(
                f"The cycles {self.cycles} need {self.ends[-1]} epochs, but `fit` runs for {epochs}: the last snapshot "
                f"would not be the end of a cycle. Use `epochs={self.ends[-1]}` or other cycles."
            )
        if self.folder is not None and is_first_process():
            self.folder.mkdir(parents=True, exist_ok=True)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Refuse to go on without the snapshots of the cycles before."""
        expected = sum(end <= epoch for end in self.ends)
        if not self._begun and self.taken != expected:
            raise ValueError(
                f"{expected} cycles end before epoch {epoch}, where `fit` begins; {self.taken} snapshots are known. "
                "Restore the state of SnapshotEnsemble (`Checkpoint(path, {'ensemble': ensemble})`) to go on."
            )
        self._begun = True

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Take a snapshot where a cycle ends."""
        if epoch + 1 not in self.ends:
            return
        self.snapshots = [*self.snapshots, copy_weights(self.model)][-(self.keep or 0) :]
        self.taken += 1
        if self.folder is not None:
            write_snapshot(self._file(self.taken), self.snapshots[-1], {"epoch": epoch})
            if self.keep is not None and self.taken > self.keep:
                self._file(self.taken - self.keep).unlink(missing_ok=True)

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Say when a cycle was cut off."""
        if self.taken < len(self.cycles):
            warnings.warn(
                f"Training ended after {self.taken} of {len(self.cycles)} cycles: the ensemble has no snapshot of the "
                "cycle that was cut off.",
                stacklevel=2,
            )

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint must keep; the snapshots too where no `folder` holds them."""
        return super().get_state() | ({} if self.folder is not None else {"snapshots": self.snapshots})

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `get_state()` at the next `fit`; with `folder` the snapshots are read from there."""
        super().set_state(state)
        first = 1 if self.keep is None else max(1, self.taken - self.keep + 1)
        self.snapshots = (
            list(state["snapshots"])
            if self.folder is None
            else [read_snapshot(self._file(number))[0] for number in range(first, self.taken + 1)]
        )

    def predict(
        self,
        x: Any,
        last: int | None = None,
        batch_size: int | None = None,
        activation: str | Callable[[Any], Any] | None = "softmax",
    ) -> Any:
        """The mean of the snapshots' probabilities, in float32; the model's own weights stay as they are.

        Args:
            x: As for `model.predict`.
            last: Only so many of the last snapshots; None takes all.
            batch_size: As for `model.predict`.
            activation: Turns every output into probabilities ("softmax", "sigmoid" or a function); None where the
                model gives probabilities already.

        Raises:
            ValueError: There are no snapshots, or fewer than `last`.
        """
        count = len(self.snapshots) if last is None else last
        if not 1 <= count <= len(self.snapshots):
            raise ValueError(f"There are {len(self.snapshots)} snapshots. Received: last={last}.")
        function = keras.activations.get(activation)
        model, before = self.model, copy_weights(self.model)
        total: Any = None
        try:
            for weights in self.snapshots[-count:]:
                model.set_weights(weights)
                outputs = keras.tree.map_structure(
                    lambda output: _apply(function, output), model.predict(x, batch_size=batch_size, verbose=0)
                )
                total = outputs if total is None else keras.tree.map_structure(np.add, total, outputs)
        finally:
            model.set_weights(before)
        return keras.tree.map_structure(lambda one: (one / count).astype("float32"), total)

    def _file(self, number: int) -> Path:
        return Path(self.folder or "") / f"cycle-{number:02d}.npz"


def _apply(function: Callable[[Any], Any], outputs: Any) -> np.ndarray:
    """In float32 whatever the network computes in, and summed in float64."""
    outputs = keras.ops.cast(keras.ops.convert_to_tensor(outputs), "float32")
    return keras.ops.convert_to_numpy(function(outputs)).astype("float64")
