"""Gaussian noise on the gradient, its variance decaying."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="callbacks")
class GradientNoise:
    """Noise of variance `variance / (1 + update)^decay`; an option of this package's optimisers.

    The noise is a function of the seed, the update and the variable: a resumed training draws what an uninterrupted
    one would have drawn.

    Args:
        variance: At the first update, above 0; 0.01, 0.3 and 1 in the source.
        decay: At least 0.
        seed: Another seed, other noise.

    Source: https://arxiv.org/abs/1511.06807

    >>> noise = GradientNoise(variance=0.25, decay=0.5)
    >>> [float(noise.standard_deviation(update)) for update in (0, 15)]
    [0.5, 0.25]
    """

    def __init__(self, variance: float = 0.01, decay: float = 0.55, seed: int = 0) -> None:
        if not 0 < variance < float("inf"):
            raise ValueError(f"`variance` must be above 0. Received: variance={variance}.")
        if decay < 0:
            raise ValueError(f"`decay` must be at least 0. Received: decay={decay}.")
        self.variance, self.decay, self.seed = float(variance), float(decay), int(seed)

    def build(self, count: int) -> None:
        """Make ready for `count` variables."""
        self._seeds = [_StepSeed(self.seed * 1_000_003 + number) for number in range(count)]

    def standard_deviation(self, update: keras.KerasTensor | int) -> keras.KerasTensor:
        """Of the noise at `update`, counted from 0; a float32 scalar."""
        return ops.sqrt(self.variance / ops.power(1.0 + ops.cast(update, "float32"), self.decay))

    def add(self, gradient: keras.KerasTensor, number: int, update: keras.KerasTensor) -> keras.KerasTensor:
        """The gradient of variable `number` with its noise of this update."""
        gradient = ops.convert_to_tensor(gradient)
        seed = self._seeds[number].at(update)
        noise = keras.random.normal(gradient.shape, dtype=gradient.dtype, seed=seed)
        return gradient + ops.cast(self.standard_deviation(update), gradient.dtype) * noise

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"variance": self.variance, "decay": self.decay, "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GradientNoise":
        """The noise of a `get_config`."""
        return cls(**config)


class _StepSeed(keras.random.SeedGenerator):
    """A seed that is a function of the step, where Keras' own counts how often it was used."""

    def at(self, step: keras.KerasTensor) -> "_StepSeed":
        """The same seed at another step."""
        self._step = step
        return self

    def next(self, ordered: bool = True) -> keras.KerasTensor:
        """The seed's two numbers."""
        kind = self.state.dtype
        first = ops.cast(self._initial_seed % (2**31 - 1), kind)
        return ops.stack([first, ops.cast(self._step, kind)])
