"""Files that hold everything needed to go on with a training where it was, also in the middle of an epoch."""

import math
import os
import time
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np

from callbacks.processes import is_first_process
from callbacks.snapshots import DamagedSnapshotError, read_snapshot, write_snapshot
from callbacks.whole_file import writable_path


class HasState(Protocol):
    """A callback whose state belongs into the checkpoint."""

    def get_state(self) -> dict[str, Any]:
        """Plain values and numpy arrays."""

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from them."""


class Position(NamedTuple):
    """Where a training goes on: epochs that are done, steps done of the next one, and whether it had stopped early."""

    epoch: int = 0
    step: int = 0
    stopped: bool = False


class Checkpoint(keras.callbacks.Callback):
    """Write weights, optimiser slots, seeds, metrics and callback states after every epoch, and in between.

    Place it last in the list of callbacks, so that it sees what the others have done. The newest file and the one
    before it are kept, each whole and with the hash of what it holds: where the newest is damaged or missing,
    `restore` takes the one before. A state whose loss or weights are not finite is not written, with a warning.
    Of several processes that train together (`keras.distribution`) the first one writes, and all of them `restore`:
    also another number of processes, and on another backend.

    Args:
        path: The newest file, an .npz; the one before is `before-` and its name.
        states: Callbacks with `get_state` and `set_state`, by a name for each.
        seconds: Write within an epoch too, so long after the last time; 0 after every step, None only after epochs.
            To go on there, `fit` the first `Position.step` batches of the epoch less.

    Raises:
        FileNotFoundError: The folder of `path` does not exist.
        ValueError: `path` is a folder, a callback has no state, or `seconds` is negative.
    """

    def __init__(
        self,
        path: os.PathLike[str] | str,
        states: Mapping[str, HasState] | None = None,
        seconds: float | None = None,
    ) -> None:
        super().__init__()
        self.path = writable_path(path)
        self.path_before = self.path.with_name(f"before-{self.path.name}")
        if not isinstance(states or {}, Mapping):
            raise ValueError(f'`states` must be a dict such as {{"stopping": stopping}}. Received: {states!r}.')
        if seconds is not None and not seconds >= 0:
            raise ValueError(f"`seconds` must be 0 or more, or None. Received: seconds={seconds}.")
        self.states, self.seconds = dict(states or {}), seconds
        for name, callback in self.states.items():
            if not (hasattr(callback, "get_state") and hasattr(callback, "set_state")):
                raise ValueError(f"{type(callback).__name__} has no state to keep. Leave {name!r} out of `states`.")
        self._skipped = 0  # steps of the running epoch that an earlier training has done
        self._sums: list[np.ndarray] | None = None  # of the metrics, after these steps
        self._written = time.monotonic()
        self._newest_is_whole = True

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """In an epoch that goes on, give the metrics what they had gathered."""
        self._epoch = epoch
        if self._sums is not None:
            variables = self.model.metrics_variables
            if len(variables) == len(self._sums):
                for variable, value in zip(variables, self._sums, strict=True):
                    variable.assign(value)
            else:
                warnings.warn(
                    f"The model's metrics are not built, so that those of epoch {epoch + 1} will be of what is left of "
                    "it: give `restore` a batch.",
                    stacklevel=2,
                )
            self._sums = None

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Write a checkpoint within the epoch, when its time has come."""
        last = ((self.params or {}).get("steps") or math.inf) - 1
        if self.seconds is not None and batch < last and time.monotonic() - self._written >= self.seconds:
            self._write(self._epoch, self._skipped + batch + 1, logs)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Write the checkpoint of a finished epoch."""
        self._skipped = 0
        self._write(epoch + 1, 0, logs)

    def restore(self, model: keras.Model, batch: tuple[Any, ...] | None = None) -> Position:
        """Put a compiled model and the callbacks where the checkpoint was written.

        Args:
            model: Compiled.
            batch: Any `(x, y)` or `(x, y, sample_weight)` of the training, which makes the metrics their variables
                where a checkpoint within an epoch has values for them.

        Returns:
            Where to go on; `Position(0, 0, False)` where there is no checkpoint.

        Raises:
            ValueError: The checkpoint belongs to another network or optimiser, or both files are damaged.
        """
        found = self._read()
        if found is None:
            return Position()
        path, arrays, values = found
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        variables = _variables(model)
        shapes, expected = [array.shape for array in arrays], [tuple(variable.shape) for variable in variables]
        if shapes != expected:
            raise ValueError(
                f"{path} belongs to another network or optimiser: it has {len(shapes)} arrays, "
                f"{len(expected)} are needed. Use the recipe it was written with, or start without it."
            )
        missing = sorted(self.states.keys() - values["states"].keys())
        if missing:
            raise ValueError(
                f"{path} has no state for {missing}, but for {sorted(values['states'])}. "
                "Use the callbacks it was written with, or start without it."
            )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        for name, callback in self.states.items():
            callback.set_state(values["states"][name])
        position = Position(**values["position"])
        if position.step and batch is not None:
            model.test_on_batch(*batch)
        self._skipped, self._sums = position.step, values["metrics"] if position.step else None
        return position

    def _write(self, epoch: int, step: int, logs: Mapping[str, float] | None) -> None:
        if not is_first_process():
            return
        good = math.isfinite((logs or {}).get("loss", 0.0))
        if not good or not all(np.isfinite(array).all() for array in self.model.get_weights()):
            where = f"Epoch {epoch + 1}, step {step}," if step else f"Epoch {epoch}"
            warnings.warn(f"{where} has no finite loss or weights: not written to {self.path}.", stacklevel=2)
            return
        values = {
            "position": Position(epoch, step, bool(self.model.stop_training))._asdict(),
            "states": {name: callback.get_state() for name, callback in self.states.items()},
            "metrics": _as_arrays(self.model.metrics_variables) if step else [],
        }
        before = self.path_before if self._newest_is_whole else None
        write_snapshot(self.path, _as_arrays(_variables(self.model)), values, before)
        self._written, self._newest_is_whole = time.monotonic(), True

    def _read(self) -> tuple[os.PathLike[str], list[np.ndarray], dict[str, Any]] | None:
        """The newest file that is as it was written, and what it holds; None where there is no file."""
        damage = None
        for path in (self.path, self.path_before):
            try:
                return (path, *read_snapshot(path))
            except FileNotFoundError:
                continue
            except DamagedSnapshotError as error:
                damage = error
                if path is self.path:
                    self._newest_is_whole = False
                    warnings.warn(f"{error} Going on from {self.path_before}.", stacklevel=3)
        if damage is not None:
            raise ValueError(f"{damage} There is no whole checkpoint to go on from: start without it.")
        return None


def _as_arrays(variables: list[keras.Variable]) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def _variables(model: keras.Model) -> list[keras.Variable]:
    """Weights, seeds and optimiser slots: all state of a compiled model but the metrics' sums."""
    sums = {id(variable) for variable in model.metrics_variables}
    own = [variable for variable in model.variables if id(variable) not in sums]
    return own + list(model.optimizer.variables)
