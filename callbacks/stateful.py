"""The base of every callback that remembers something: a fit starts afresh unless a state was given to go on from."""

from collections.abc import Mapping
from typing import Any

import keras


class StatefulCallback(keras.callbacks.Callback):
    """A callback whose attributes named in `STATE` can be taken out, stored, and put back before a resumed `fit`.

    A subclass names its attributes in `STATE`, gives them their first values in `reset`, and, where it needs
    `on_train_begin`, calls `super().on_train_begin` first. The values are plain (numbers, strings, lists, dicts, None)
    or numpy arrays.
    """

    STATE: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self._going_on = False
        self.reset()

    def reset(self) -> None:
        """Give every attribute of `STATE` the value it has before training."""

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Start afresh, or, after `set_state`, from where the interrupted training was."""
        if not self._going_on:
            self.reset()
        self._going_on = False

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint must keep."""
        return {name: getattr(self, name) for name in self.STATE}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `get_state()` at the next `fit`."""
        self.reset()
        for name in self.STATE:
            setattr(self, name, state[name])
        self._going_on = True
