"""Gaussian noise on the gradient, its variance decaying."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="callbacks")
class GradientNoise:
    """Noise of variance `variance / (1 + update)^decay`; an option of this package's optimisers.

    The noise is a function of the seed, the update and the variable: a resumed training draws what an uninterrupted
    one would have drawn (on TensorFlow, with and without XLA different numbers).

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
        if not 0 <= decay < float("inf"):
            raise ValueError(f"`decay` must be at least 0. Received: decay={decay}.")
        if seed % 1 != 0:
            raise ValueError(f"`seed` must be a whole number. Received: seed={seed!r}.")
        self.variance, self.decay, self.seed = float(variance), float(decay), int(seed)

    def standard_deviation(self, update: keras.KerasTensor | int) -> keras.KerasTensor:
        """Of the noise at `update`, counted from 0; a float32 scalar."""
        return ops.sqrt(self.variance / ops.power(1.0 + ops.cast(update, "float32"), self.decay))

    def add(self, gradient: keras.KerasTensor, number: int, update: keras.KerasTensor) -> keras.KerasTensor:
        """The gradient of variable `number` with its noise of this update."""
        gradient = ops.convert_to_tensor(gradient)
        seed = _StepSeed(self.seed * 1_000_003 + number, update)
        noise = keras.random.normal(ops.shape(gradient), dtype=gradient.dtype, seed=seed)
        return gradient + ops.cast(self.standard_deviation(update), gradient.dtype) * noise

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"variance": self.variance, "decay": self.decay, "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GradientNoise":
        """The noise of a `get_config`."""
        return cls(**config)


class _StepSeed(keras.random.SeedGenerator):
    """A seed that is a function of the step, where Keras' own keeps count in a variable."""

    def __init__(self, seed: int, step: keras.KerasTensor) -> None:
        # Nothing of the base class: it would make the variable.
        self._seed, self._step = seed % (2**31 - 1), step

    def next(self, ordered: bool = True) -> keras.KerasTensor:
        """The seed's two numbers."""
        kind = "int64" if keras.backend.backend() == "tensorflow" else "uint32"  # as Keras' own
        return ops.stack([ops.cast(self._seed, kind), ops.cast(self._step, kind)])
