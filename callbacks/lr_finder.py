"""The learning-rate range test: train for a moment with a rising rate, and see where the loss falls and explodes."""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import keras
import numpy as np

from callbacks.borrow import borrowed


@dataclass(frozen=True)
class RangeTest:
    """What a range test saw, and what it suggests.

    Attributes:
        rates: The learning rate of every step.
        losses: The loss of every step's batch.
        smoothed: The losses' running average.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray

    @property
    def steepest(self) -> float:
        """The rate at which the smoothed loss falls fastest per decade of the rate."""
        return float(self.rates[_steepest(self.rates, self.smoothed)])

    @property
    def minimum_tenth(self) -> float:
        """A tenth of the rate at which the smoothed loss is lowest."""
        return float(self.rates[int(np.argmin(self.smoothed))]) / 10

    @property
    def valley(self) -> float:
        """The middle, on a log scale, of the way down from where the loss leaves its first level to its minimum."""
        end = int(np.argmin(self.smoothed))
        level = np.median(self.smoothed[: max(len(self.smoothed) // 10, 5)])
        begin = int(np.flatnonzero(self.smoothed[: end + 1] >= min(level, self.smoothed[0]))[-1])
        return float(np.sqrt(self.rates[begin] * self.rates[end]))

    @property
    def suggestions(self) -> dict[str, float]:
        """All suggestions by name, the one to take first."""
        return {"valley": self.valley, "steepest slope": self.steepest, "minimum / 10": self.minimum_tenth}

    @property
    def exploded(self) -> bool:
        """Whether the last loss was far above the lowest, or not finite: if not, the sweep ended too low."""
        return bool(not np.isfinite(self.losses[-1]) or self.smoothed[-1] > 1.5 * self.smoothed.min())

    def table(self, rows: int = 15) -> str:
        """Rates and losses as text, and the suggestions under them."""
        shown = np.unique(np.linspace(0, len(self.rates) - 1, min(rows, len(self.rates))).round().astype(int))
        lines = [f"{'rate':>10}  {'loss':>9}  {'smoothed':>9}"]
        lines += [f"{self.rates[i]:10.3g}  {self.losses[i]:9.4f}  {self.smoothed[i]:9.4f}" for i in shown]
        lines += [f"{name:<15} {rate:.3g}" for name, rate in self.suggestions.items()]
        return "\n".join(lines)

    def plot(self, path: os.PathLike[str] | str | None = None) -> Any:
        """Draw the losses with the suggestions marked; returns the Figure, and writes it to `path` if given."""
        from callbacks.plots import plot_range_test

        return plot_range_test(self, path)


class LRFinder:
    """Finds a learning rate for a compiled model, and leaves the model exactly as it was.

    The model trains with a copy of its optimiser, whose rate rises from `low` to `high`, until the loss explodes. Then
    weights, BatchNorm statistics, seeds, metrics and the optimiser are put back bit by bit, so that the training that
    follows is the one it would have been.

    Args:
        low, high: Between which the rate rises, 0 < low < high.
        steps: Batches.
        sweep: "exponential" (the same factor every step) or "linear" (the same difference).
        smoothing: Weight of the past in the running average of the loss, in [0, 1); its bias to 0 is corrected.
        explosion: The sweep ends when the smoothed loss is above the lowest so far by this factor times the fall from
            the first, or times the lowest, whichever is more; above 1.

    Source: https://arxiv.org/abs/1506.01186, section 3.3
    """

    def __init__(
        self,
        low: float = 1e-6,
        high: float = 10.0,
        steps: int = 100,
        sweep: str = "exponential",
        smoothing: float = 0.9,
        explosion: float = 3.0,
    ) -> None:
        if not 0 < low < high < math.inf:
            raise ValueError(f"`low` and `high` must satisfy 0 < low < high. Received: low={low}, high={high}.")
        if steps < 10:
            raise ValueError(f"`steps` must be at least 10. Received: steps={steps}.")
        if sweep not in ("exponential", "linear"):
            raise ValueError(f"`sweep` must be 'exponential' or 'linear'. Received: sweep={sweep!r}.")
        if not 0 <= smoothing < 1:
            raise ValueError(f"`smoothing` must lie in [0, 1). Received: smoothing={smoothing}.")
        if explosion <= 1:
            raise ValueError(f"`explosion` must be above 1. Received: explosion={explosion}.")
        self.rates = np.geomspace(low, high, steps) if sweep == "exponential" else np.linspace(low, high, steps)
        self.smoothing, self.explosion = smoothing, explosion

    def run(
        self,
        model: keras.Model,
        data: Any,
        batch_size: int = 32,
        on_step: Callable[[int, float, float], None] | None = None,
    ) -> RangeTest:
        """Sweep.

        Args:
            model: Built and compiled.
            data: Arrays `(x, y)` or `(x, y, sample_weight)`; or batches of these in a list, a `PyDataset` or a tf.data
                Dataset without `shuffle`; or a function that makes one. What is too short begins again. An iterator and
                a shuffling Dataset remember how far they were read, which would change the training that follows: they
                are refused, give a function that makes them anew.
            batch_size: Of arrays, which are read in a fixed random order.
            on_step: Called after every step with its number, rate and loss.

        Raises:
            ValueError: The data are refused, or the loss is not finite at the first rate.
        """
        if getattr(model, "optimizer", None) is None:
            raise ValueError("The model is not compiled. Call `model.compile(optimizer, loss)` first.")
        batches = _batches(data, batch_size)
        optimizer = _with_float_rate(model.optimizer, float(self.rates[0]))
        losses, smoothed, average = [], [], 0.0
        with borrowed(model, optimizer):
            for step, (rate, batch) in enumerate(zip(self.rates, batches, strict=False)):
                _inner(optimizer).learning_rate = float(rate)
                loss = float(model.train_on_batch(*batch, return_dict=True)["loss"])
                average = self.smoothing * average + (1 - self.smoothing) * loss
                losses.append(loss)
                smoothed.append(average / (1 - self.smoothing ** (step + 1)))
                if on_step is not None:
                    on_step(step, float(rate), loss)
                if not math.isfinite(loss) or self._exploded(smoothed):
                    break
        finite = int(np.isfinite(losses).sum())
        if finite < 2:
            raise ValueError(
                f"The loss is {losses[0]} at the rate {self.rates[0]:g}: there is no rate to find. Look for values "
                "that are not finite in the pictures, the labels and the weights."
            )
        kept = slice(finite)
        return RangeTest(self.rates[: len(losses)][kept], np.array(losses)[kept], np.array(smoothed)[kept])

    def _exploded(self, smoothed: list[float]) -> bool:
        lowest = min(smoothed)
        allowed = lowest + (self.explosion - 1) * max(abs(lowest), smoothed[0] - lowest)
        return len(smoothed) >= 10 and smoothed[-1] > allowed


def _inner(optimizer: Any) -> Any:
    return getattr(optimizer, "inner_optimizer", optimizer)


def _with_float_rate(optimizer: Any, rate: float) -> Any:
    """A copy of the optimiser without its state, whose rate is a number."""
    config = optimizer.get_config()
    if "inner_optimizer" in config:  # Keras' wrapper for float16
        copy = type(optimizer).from_config(config)
        copy.inner_optimizer = _with_float_rate(optimizer.inner_optimizer, rate)
        return copy
    return type(optimizer).from_config({**config, "learning_rate": rate})


def _batches(data: Any, batch_size: int) -> Iterator[tuple[Any, ...]]:
    """Endless batches `(x, y)` or `(x, y, sample_weight)`."""
    made = data() if callable(data) and not hasattr(data, "__iter__") and not hasattr(data, "__getitem__") else data
    if isinstance(made, tuple) and len(made) in (2, 3):
        return _of_arrays(made, batch_size)
    if made is data:
        _refuse_memory(made)
    if hasattr(made, "__getitem__") and hasattr(made, "__len__"):
        return (tuple(made[number % len(made)]) for number in count())
    return _again_and_again(made)


def _of_arrays(arrays: tuple[Any, ...], batch_size: int) -> Iterator[tuple[Any, ...]]:
    examples = len(keras.tree.flatten(arrays[0])[0])
    generator = np.random.default_rng(0)
    size = min(batch_size, examples)
    while True:
        order = generator.permutation(examples)
        for begin in range(0, examples - size + 1, size):
            index = order[begin : begin + size]
            yield keras.tree.map_structure(lambda array, index=index: np.asarray(array)[index], arrays)


def _again_and_again(batches: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield tuple(
                batch if keras.backend.backend() == "tensorflow" else keras.tree.map_structure(_as_numpy, batch)
            )
        if empty:
            raise ValueError("`data` has no more batches. Give a list of batches, or a function that makes them anew.")


def _as_numpy(part: Any) -> Any:
    """TensorFlow's tensors as arrays, which every backend takes."""
    return part.numpy() if hasattr(part, "numpy") else part


def _refuse_memory(data: Any) -> None:
    """Raise for data that remember how far they were read."""
    if hasattr(data, "__next__"):
        raise ValueError(
            "`data` is an iterator, whose batches would be missing in the training. Give a function that makes it anew."
        )
    seen, waiting = set(), [data]
    while waiting:
        dataset = waiting.pop()
        if id(dataset) in seen or not hasattr(dataset, "_inputs"):
            continue
        seen.add(id(dataset))
        if "Shuffle" in type(dataset).__name__ and getattr(dataset, "_reshuffle_each_iteration", True) is not False:
            raise ValueError(
                "`data` shuffles anew every time it is read, so reading it here would change the order of the "
                "training. Give a function that makes the Dataset anew."
            )
        waiting.extend(dataset._inputs())


def _steepest(rates: np.ndarray, smoothed: np.ndarray) -> int:
    """The place of the steepest fall before the minimum."""
    end = max(int(np.argmin(smoothed)) + 1, 2)
    slope = np.gradient(smoothed[:end], np.log10(rates[:end]))
    return int(np.argmin(slope))
