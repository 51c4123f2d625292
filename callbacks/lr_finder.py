"""The learning-rate range test: train for a moment with a rising rate, and see where the loss falls and explodes."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from callbacks.borrow import borrowed
from callbacks.endless_batches import endless_batches
from callbacks.rates import unwrapped


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
    def level(self) -> float:
        """The loss before anything happens: the mean of the first tenth of the steps, of at least 5."""
        return float(np.mean(self._first_losses))

    @property
    def _first_losses(self) -> np.ndarray:
        return self.losses[: max(len(self.losses) // 10, 5)]

    @property
    def descent(self) -> tuple[int, int]:
        """The steps between which the smoothed loss falls: from a tenth of the way down to its minimum."""
        end = int(np.argmin(self.smoothed))
        high = np.flatnonzero(self.smoothed[:end] >= self.level - 0.1 * (self.level - self.smoothed[end]))
        return (int(high[-1]) if len(high) else 0), end

    @property
    def steepest(self) -> float:
        """The rate at which the smoothed loss falls fastest per decade of the rate."""
        begin, end = self.descent
        if end - begin < 2:
            return float(self.rates[end])
        part = slice(begin, end + 1)
        return float(self.rates[part][int(np.argmin(np.gradient(self.smoothed[part], np.log10(self.rates[part]))))])

    @property
    def minimum_tenth(self) -> float:
        """A tenth of the rate at which the smoothed loss is lowest."""
        return float(self.rates[self.descent[1]]) / 10

    @property
    def valley(self) -> float:
        """The middle, on a log scale, of the descent."""
        begin, end = self.descent
        return float(np.sqrt(self.rates[begin] * self.rates[end]))

    @property
    def suggestions(self) -> dict[str, float]:
        """All suggestions by name, the one to take first."""
        return {"valley": self.valley, "steepest slope": self.steepest, "minimum / 10": self.minimum_tenth}

    @property
    def exploded(self) -> bool:
        """Whether the last loss was far above the lowest, or not finite: if not, the sweep ended too low."""
        return bool(not np.isfinite(self.losses[-1]) or self.smoothed[-1] > 1.5 * self.smoothed.min())

    @property
    def doubts(self) -> list[str]:
        """In words, why the suggestions should not be trusted; empty where nothing speaks against them."""
        low, high = min(self.suggestions.values()), max(self.suggestions.values())
        by_chance = 2 * float(np.std(self._first_losses))
        if self.descent[1] < len(self.rates) // 10 or self.level - self.smoothed.min() <= by_chance:
            if self.exploded:
                return [
                    f"The loss did not fall from its first level, {self.level:.3g}: begin lower, or look at the data."
                ]
            return [f"The loss did not fall up to the rate {self.rates[-1]:.3g}: sweep on to a higher one."]
        found = []
        if not self.exploded:
            found.append(f"The loss was still falling at the rate {self.rates[-1]:.3g}: sweep on to a higher one.")
        if high > 10 * low:
            found.append(f"The suggestions lie far apart, from {low:.2g} to {high:.2g}: sweep in more steps.")
        return found

    def table(self, rows: int = 15) -> str:
        """Rates and losses as text, and under them the suggestions and the doubts."""
        shown = np.unique(np.linspace(0, len(self.rates) - 1, min(rows, len(self.rates))).round().astype(int))
        lines = [f"{'rate':>10}  {'loss':>9}  {'smoothed':>9}"]
        lines += [f"{self.rates[i]:10.3g}  {self.losses[i]:9.4f}  {self.smoothed[i]:9.4f}" for i in shown]
        lines += [f"{name:<15} {rate:.3g}" for name, rate in self.suggestions.items()]
        return "\n".join([*lines, *self.doubts])

    def plot(self, path: os.PathLike[str] | str | None = None) -> Any:
        """Draw the losses with the suggestions marked; returns the Figure, and writes it to `path` if given."""
        from callbacks.plots import plot_range_test

        return plot_range_test(self, path)


class LRFinder:
    """Finds a learning rate for a compiled model, and leaves the model exactly as it was. `run` does it; no callback.

    The model trains with a copy of its optimiser, whose rate rises from `low` to `high`, until the loss explodes. Then
    weights, BatchNorm statistics, seeds, metrics and the optimiser are put back bit by bit, so that the training that
    follows is the one it would have been.

    Args:
        low, high: Between which the rate rises, 0 < low < high.
        steps: Batches, at least 10 and 2 / (1 - smoothing). With gradient accumulation the weights move in some only.
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
        if sweep not in ("exponential", "linear"):
            raise ValueError(f"`sweep` must be 'exponential' or 'linear'. Received: sweep={sweep!r}.")
        if not 0 <= smoothing < 1:
            raise ValueError(f"`smoothing` must lie in [0, 1). Received: smoothing={smoothing}.")
        least = max(10, math.ceil(2 / (1 - smoothing) - 1e-9))
        if steps % 1 != 0 or steps < least:
            raise ValueError(
                f"`steps` must be a whole number of at least {least}, over which smoothing={smoothing} can tell a fall "
                f"from noise. Received: steps={steps}."
            )
        if not explosion > 1:
            raise ValueError(f"`explosion` must be above 1. Received: explosion={explosion}.")
        space = np.geomspace if sweep == "exponential" else np.linspace
        self.rates = space(low, high, int(steps))
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
                are refused, give a function that makes them anew. The seeds of Keras layers that a Dataset calls are
                put back too; random numbers that your own Python code draws are not.
            batch_size: Of arrays, which are read in a fixed random order.
            on_step: Called after every step with its number, rate and loss.

        Raises:
            ValueError: The data are refused, or the loss is not finite at the first rate.
        """
        if getattr(model, "optimizer", None) is None:
            raise ValueError("The model is not compiled. Call `model.compile(optimizer, loss)` first.")
        optimizer = _with_float_rate(model.optimizer, float(self.rates[0]))
        losses, smoothed, average = [], [], 0.0
        with endless_batches(data, batch_size) as batches, borrowed(model, optimizer):
            for step, (rate, batch) in enumerate(zip(self.rates, batches, strict=False)):
                unwrapped(optimizer).learning_rate = float(rate)
                model.reset_metrics()  # Keras does it by itself from 3.15 on only
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


def _with_float_rate(optimizer: Any, rate: float) -> Any:
    """A copy of the optimiser without its state, whose rate is a number."""
    config = optimizer.get_config()
    if "inner_optimizer" in config:  # Keras' wrapper for float16
        copy = type(optimizer).from_config(config)
        copy.inner_optimizer = _with_float_rate(optimizer.inner_optimizer, rate)
        return copy
    if "learning_rate" not in config:
        raise ValueError(f"{type(optimizer).__name__} has no `learning_rate` that could be swept.")
    return type(optimizer).from_config({**config, "learning_rate": rate})
