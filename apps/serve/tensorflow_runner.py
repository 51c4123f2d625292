"""Computes a SavedModel with TensorFlow."""

import os
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from apps.serve.errors import Code, Refusal, invalid


class TensorFlowRunner:
    """A `Runner` of every signature of a SavedModel."""

    name = "tensorflow"

    def __init__(self, saved_model: os.PathLike[str] | str) -> None:
        self._model = tf.saved_model.load(os.fspath(saved_model))

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute a signature; blocks."""
        try:
            outputs = self._model.signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()})
            return {name: value.numpy() for name, value in outputs.items()}
        except tf.errors.InvalidArgumentError as error:
            raise invalid(error.message) from error
        except tf.errors.ResourceExhaustedError as error:
            raise Refusal(Code.RESOURCE_EXHAUSTED, "The model ran out of memory.") from error
        except tf.errors.OpError as error:
            raise Refusal(Code.INTERNAL, "The model failed.") from error

    def close(self) -> None:
        """Give memory back."""
        self._model = None
