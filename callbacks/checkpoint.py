"""One file per training that holds everything needed to go on after the last finished epoch."""

import math
import os
import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import keras
import numpy as np

from callbacks.snapshots import read_snapshot, write_snapshot
from callbacks.whole_file import writable_path


class HasState(Protocol):
    """A callback whose state belongs into the checkpoint."""

    def get_state(self) -> dict[str, Any]:
        """Plain values and numpy arrays."""

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from them."""


class Checkpoint(keras.callbacks.Callback):
    """Write weights, optimiser slots, seeds and callback states after every epoch; whole or not at all.

    Place it last in the list of callbacks, so that it sees what the others have done. An epoch whose loss or weights
    are not finite leaves the file of the last good one in place, with a warning.

    Args:
        path: The file, an .npz; replaced after every epoch.
        states: Callbacks with `get_state` and `set_state`, by a name for each.

    Raises:
        FileNotFoundError: The folder of `path` does not exist.
        ValueError: `path` is a folder, or a callback has no state.
    """

    def __init__(self, path: os.PathLike[str] | str, states: Mapping[str, HasState] | None = None) -> None:
        super().__init__()
        self.path = writable_path(path)
        if not isinstance(states or {}, Mapping):
            raise ValueError(f'`states` must be a dict such as {{"stopping": stopping}}. Received: {states!r}.')
        self.states = dict(states or {})
        for name, callback in self.states.items():
            if not (hasattr(callback, "get_state") and hasattr(callback, "set_state")):
                raise ValueError(f"{type(callback).__name__} has no state to keep. Leave {name!r} out of `states`.")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Write the checkpoint of a finished epoch."""
        good = math.isfinite((logs or {}).get("loss", 0.0))
        if not good or not all(np.isfinite(array).all() for array in self.model.get_weights()):
            warnings.warn(f"Epoch {epoch + 1} has no finite loss or weights: not written to {self.path}.", stacklevel=2)
            return
        states = {name: callback.get_state() for name, callback in self.states.items()}
        values = {"epochs_done": epoch + 1, "stopped": bool(self.model.stop_training), "states": states}
        arrays = [keras.ops.convert_to_numpy(variable) for variable in _variables(self.model)]
        write_snapshot(self.path, arrays, values)

    def restore(self, model: keras.Model) -> tuple[int, bool]:
        """Put a compiled model and the callbacks where the checkpoint was written.

        Returns:
            (epochs done, whether training had stopped early); (0, False) where there is no checkpoint.

        Raises:
            ValueError: The checkpoint belongs to another network or optimiser.
        """
        if not self.path.is_file():
            return 0, False
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        variables = _variables(model)
        arrays, values = read_snapshot(self.path)
        shapes, expected = [array.shape for array in arrays], [tuple(variable.shape) for variable in variables]
        if shapes != expected:
            raise ValueError(
                f"{self.path} belongs to another network or optimiser: it has {len(shapes)} arrays, "
                f"{len(expected)} are needed. Use the recipe it was written with, or start without it."
            )
        missing = sorted(self.states.keys() - values["states"].keys())
        if missing:
            raise ValueError(
                f"{self.path} has no state for {missing}, but for {sorted(values['states'])}. "
                "Use the callbacks it was written with, or start without it."
            )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        for name, callback in self.states.items():
            callback.set_state(values["states"][name])
        return values["epochs_done"], values["stopped"]


def _variables(model: keras.Model) -> list[keras.Variable]:
    """Weights, seeds and optimiser slots: all state of a compiled model but the metrics' sums."""
    sums = {id(variable) for variable in model.metrics_variables}
    own = [variable for variable in model.variables if id(variable) not in sums]
    return own + list(model.optimizer.variables)
