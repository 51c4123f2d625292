"""The log of a training as JSON lines, which a kill cannot spoil and a resumed training continues."""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from callbacks.processes import is_first_process
from callbacks.rates import batches_seen, learning_rate, unwrapped
from callbacks.updates import parts_of
from callbacks.whole_file import whole_file, writable_path


class JsonLog(keras.callbacks.Callback):
    """One line of JSON for every epoch, and with `every` one for every so many batches, on the disk at once.

    A line of an epoch has: "epoch" (from 0), "step" (batches the optimiser has seen), "learning_rate" (of the last
    step; a list for a `MultiOptimizer`), "seconds" (since the epoch began, validation too), "time" (UTC), "logs" (all
    entries of the logs as plain numbers) and "not_finite" (names of the logs that were NaN or infinite and stand as
    null). A line of batches has "batch" too: how many batches of the epoch are done; its logs are means since the
    epoch began.

    A resumed training (`fit(initial_epoch=k)`) drops the lines of epoch k and later, so that every epoch stands once.
    One that goes on within epoch k, as `Checkpoint` allows, keeps its lines up to there, and counts on from them: the
    optimiser knows how many batches are done. What a kill left of a half line is cut off, and so are the lines of a
    training that was killed in its first epoch.

    Args:
        path: The file; its folder exists.
        every: Also one line for every so many batches, written at the first hook at or after each multiple (with
            `steps_per_execution=N` Keras calls the hooks every N batches).
        overwrite: Whether a new training (initial epoch 0) may replace the file.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: At the first epoch, when a new training would overwrite a log, or the file is no such log.
    """

    def __init__(self, path: os.PathLike[str] | str, every: int | None = None, overwrite: bool = False) -> None:
        super().__init__()
        if every is not None and every < 1:
            raise ValueError(f"`every` must be at least 1 batch, or None. Received: every={every}.")
        self.path, self.every, self.overwrite = writable_path(path), every, overwrite
        # Without lines for batches the batch hook does nothing, and Keras need not wait for it after every step.
        self.async_safe = every is None

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Forget the training before."""
        self._started = False

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Prepare the file at the first epoch of a training."""
        seen, done = batches_seen(self.model.optimizer), 0
        if not self._started:
            done = self._done_before(epoch, seen)

            def keep(line: dict[str, Any]) -> bool:
                return line["epoch"] < epoch or (line["epoch"] == epoch and "batch" in line and line["batch"] <= done)

            start_lines(self.path, keep, epoch == 0 and not done, self.overwrite)
        self._started = True
        self._epoch, self._begin, self._done, self._written = epoch, time.perf_counter(), done, done
        self._step = seen - done

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Write the line of a batch where one is due."""
        if self.every is None:
            return
        done = self._done + min(batch + 1, self.params.get("steps") or batch + 1)  # Keras counts beyond the end
        if done // self.every > self._written // self.every:
            self._written = done
            self._write(self._step + done, {"batch": done}, logs)

    def _done_before(self, epoch: int, seen: int) -> int:
        """How many batches of the first epoch were trained before, by the lines of the training that goes on."""
        lines = read_log(self.path) if self.path.is_file() else []
        whole = [line for line in lines if "batch" not in line]
        if epoch == 0:  # a new training, unless there are lines of the beginning of this one
            return seen if lines and not whole else 0
        ends = [line.get("step", seen) for line in whole if line.get("epoch") == epoch - 1]
        return max(seen - ends[-1], 0) if ends else 0

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Write the line of the epoch."""
        self._write(batches_seen(self.model.optimizer), {}, logs)

    def _write(self, step: int, extra: dict[str, Any], logs: Mapping[str, Any] | None) -> None:
        missing: list[str] = []
        line = {
            "epoch": self._epoch,
            **extra,
            "step": step,
            "learning_rate": rates_at(self.model.optimizer, step - 1),
            "seconds": round(time.perf_counter() - self._begin, 6),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "logs": {name: plain(value, partial(missing.append, name)) for name, value in (logs or {}).items()},
        }
        append_line(self.path, {**line, "not_finite": sorted(set(missing))})


def read_log(path: os.PathLike[str] | str) -> list[dict[str, Any]]:
    """The lines of a `JsonLog` in their order; a half line at the end, which a kill leaves, is not among them.

    Raises:
        ValueError: A whole line is no JSON object.
    """
    text = Path(path).read_bytes()
    lines = []
    for number, line in enumerate(text[: text.rfind(b"\n") + 1].splitlines(), 1):
        try:
            lines.append(dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}, is no JSON object: {line[:60]!r}.") from error
    return lines


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Append one line of JSON; it is on the disk when this returns."""
    if not is_first_process():
        return
    with path.open("ab") as file:
        file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def start_lines(path: Path, keep: Callable[[dict[str, Any]], bool], new: bool, overwrite: bool) -> None:
    """Leave in the file the whole lines that `keep` chooses; it is replaced in one piece, and only if it changes.

    Raises:
        ValueError: A `new` training finds lines of another (not only of single batches), and must not `overwrite` them.
    """
    if not path.is_file() or not is_first_process():
        return
    if new and overwrite:
        lines = []
    else:
        lines = read_log(path)
        if new and any("batch" not in line for line in lines):
            raise ValueError(
                f"{path} has {len(lines)} lines of a training before. Give another `path`, delete the file, allow "
                "`overwrite=True`, or continue that training (`fit` with its `initial_epoch`)."
            )
    try:
        kept = [line for line in lines if keep(line)]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is another kind of file: a line has no {error}. Give another `path`.") from error
    text = b"".join(json.dumps(line).encode() + b"\n" for line in kept)
    if text == path.read_bytes():
        return
    with whole_file(path) as file:
        file.write(text)


def plain(value: Any, when_not_finite: Callable[[], Any] = lambda: None) -> Any:
    """`value` as JSON has it: arrays as lists, whole numbers as such, NaN and infinity as None.

    >>> plain({"a": np.float32(0.5), "b": [float("nan"), 3]})
    {'a': 0.5, 'b': [None, 3]}
    """
    if isinstance(value, Mapping):
        return {str(name): plain(inner, when_not_finite) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, when_not_finite) for inner in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    array = np.asarray(keras.ops.convert_to_numpy(value)) if not isinstance(value, float) else np.asarray(value)
    if array.ndim:
        return [plain(inner, when_not_finite) for inner in array]
    number = array.item()
    if isinstance(number, float) and not math.isfinite(number):
        when_not_finite()
        return None
    return number


def rates_at(optimizer: keras.optimizers.Optimizer, batch: int) -> float | list[float] | None:
    """The rate of `batch`; of each optimiser inside a `MultiOptimizer`. None where it is not finite."""
    several = hasattr(unwrapped(optimizer), "optimizers")
    rates = [learning_rate(one, batch) for one in parts_of(optimizer)]
    return plain(rates if several else rates[0])
