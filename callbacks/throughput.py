"""How fast the training runs, compilation apart."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import keras

from callbacks.steps import HasSizeAt


class Throughput(keras.callbacks.Callback):
    """Add speed to the logs of every epoch.

    The entries: "seconds" (training part of the epoch, without validation), "examples_per_second", or without
    `batch_size` "steps_per_second", and "between_steps", the share of the time spent between two steps, which is that
    of the other callbacks. The first execution of a `fit` compiles the step: its duration stands as "compile_seconds"
    in the first epoch, and does not count for the speed, which is NaN where no other execution was.

    Waiting for data cannot be seen from a callback: Keras 3 fetches the batch inside the step, on every backend.

    Put it first in the list, so that the other callbacks' entries, logs and files see its entries, and their time
    counts as "between_steps".

    Args:
        batch_size: Examples in a batch, or a `BatchSizeSchedule`. The last, smaller batch of an epoch counts as whole.
        clock: Seconds, from any beginning.

    Raises:
        ValueError: `batch_size` is no positive number.
    """

    def __init__(
        self, batch_size: int | HasSizeAt | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        super().__init__()
        if batch_size is not None and not hasattr(batch_size, "size_at") and batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, or None. Received: batch_size={batch_size}.")
        self.batch_size, self.clock = batch_size, clock

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """The next execution compiles."""
        self._compiled = False

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Begin to count."""
        self._begin = self._last = self.clock()
        self._compile: float | None = None
        self._between, self._steps = 0.0, 0

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """A step begins."""
        self._batch, self._step_begin = batch, self.clock()
        self._between += self._step_begin - self._last

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """A step, or with `steps_per_execution` several, have ended."""
        self._last = self.clock()
        if not self._compiled:
            self._compiled, self._compile = True, self._last - self._step_begin
            return
        done = min(batch + 1, self.params.get("steps") or batch + 1)  # Keras counts beyond the end of the epoch
        self._steps += done - self._batch

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the entries."""
        logs = {} if logs is None else logs
        seconds = self._last - self._begin
        logs["seconds"] = seconds
        if self._compile is not None:
            logs["compile_seconds"] = self._compile
        running = seconds - (self._compile or 0.0)
        speed = self._steps / running if self._steps and running > 0 else float("nan")
        if self.batch_size is None:
            logs["steps_per_second"] = speed
        else:
            size = self.batch_size.size_at(epoch) if hasattr(self.batch_size, "size_at") else self.batch_size
            logs["examples_per_second"] = speed * size
        logs["between_steps"] = self._between / running if running > 0 else float("nan")
