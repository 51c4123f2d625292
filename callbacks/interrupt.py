"""Ctrl-C that waits for the end of the running step, so that a callback can put the model in order first."""

import signal
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

import keras


class Interrupt:
    """Between `watch` and `stop`, the first SIGINT during this model's `fit` only sets `pending`.

    The callback looks at `pending` at the end of every step and then calls `deliver`. A second SIGINT acts at once.
    Outside the model's `fit` (an error ended it before `stop` was called) the handler does what the one before it did,
    and takes itself away. It never touches a variable: on JAX they are empty during a step.
    """

    def __init__(self) -> None:
        self.pending = False
        self.previous: Any = None  # to be put back
        self.root: Any = None  # the first handler that is none of ours: callbacks and fits inside fits hang in a chain
        self._model: Callable[[], Any] = lambda: None

    def watch(self, model: keras.Model) -> None:
        """Begin; nothing happens outside the main thread and where SIGINT is ignored or not handled by Python."""
        self.pending = False
        self._model = weakref.ref(model)
        if threading.current_thread() is not threading.main_thread():
            return
        current = signal.getsignal(signal.SIGINT)
        if callable(current) and current != self._handle:
            owner = getattr(current, "__self__", None)
            self.previous, self.root = current, owner.root if isinstance(owner, Interrupt) else current
            signal.signal(signal.SIGINT, self._handle)

    def stop(self) -> None:
        """Give SIGINT back to the handler before."""
        self._model = lambda: None
        on_top = signal.getsignal(signal.SIGINT) == self._handle
        if on_top and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self.previous)

    def deliver(self, put_in_order: Callable[[], None]) -> None:
        """Let the handler before act on the SIGINT that came; call `put_in_order` if it raises, as Python's does."""
        self.pending = False
        try:
            self.root(signal.SIGINT, None)
        except BaseException:
            self.stop()
            put_in_order()
            raise

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.pending or not self._is_fitting(frame):
            self.stop()
            self.pending = False
            self.root(signal.SIGINT, frame)
            return
        self.pending = True

    def _is_fitting(self, frame: FrameType | None) -> bool:
        model = self._model()
        while frame is not None and model is not None:
            if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
                return True
            frame = frame.f_back
        return False
