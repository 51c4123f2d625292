"""A first layer that whitens small patches of the picture; computed from the pictures, not trained."""

from typing import Any

import keras
import numpy as np
from keras import layers

PIXELS = 1_000_000  # that the statistics are computed from: about 1,000 pictures of 32x32


@keras.saving.register_keras_serializable(package="kerascnn")
class PatchWhitening(layers.Conv2D):
    """Patches as uncorrelated features of unit variance, each with both signs: 2 * channels * kernel_size^2 maps.

    The filters are the eigenvectors of the patches' covariance, each divided by sqrt(eigenvalue + epsilon), and the
    same negated; until they are fitted, they hand the patches on as they are. The layer is not trained and works in
    float32: in bfloat16 the rounding of the pixels, multiplied by up to 1 / sqrt(epsilon), would drown the finest
    features.

    Args:
        channels: Of the pictures.
        kernel_size: Side of a patch.
        epsilon: Added to the eigenvalues; 5e-4 for pictures of unit variance.
        **options: Of every Keras layer.

    Source: https://myrtle.ai/learn/how-to-train-your-resnet-8-bag-of-tricks/ and https://arxiv.org/abs/2404.00498, 3.2
    """

    def __init__(self, channels: int = 3, kernel_size: int = 2, epsilon: float = 5e-4, **options: Any) -> None:
        options = {"dtype": "float32", **options}
        super().__init__(2 * channels * kernel_size**2, kernel_size, use_bias=False, **options)
        self.channels, self.epsilon = channels, epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the filters."""
        super().build(input_shape)
        self._assign(np.eye(self.filters // 2))

    def add_weight(self, *args: Any, **options: Any) -> keras.Variable:
        """Keras' method; the filters are not trainable, not even where the whole model is made so."""
        return super().add_weight(*args, **{**options, "trainable": False})

    def fit(self, pictures: np.ndarray) -> None:
        """Compute the filters from what the layer will see: float [N, height, width, channels]."""
        side = self.kernel_size[0]
        windows = np.lib.stride_tricks.sliding_window_view(pictures, (side, side), axis=(1, 2))
        patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, side * side * self.channels)
        covariance = patches.T @ patches / len(patches)
        eigenvalues, eigenvectors = np.linalg.eigh(covariance.astype("float64"))
        filters = eigenvectors / np.sqrt(np.maximum(eigenvalues, 0) + self.epsilon)
        self._assign(filters)

    def _assign(self, filters: np.ndarray) -> None:
        """One column for each filter, and the same negated."""
        both = np.concatenate([filters, -filters], axis=1)
        self.kernel.assign(both.reshape(*self.kernel_size, self.channels, self.filters))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "channels": self.channels,
            "kernel_size": self.kernel_size[0],
            "epsilon": self.epsilon,
        }


def fit_whitening(model: keras.Model, pictures: np.ndarray) -> None:
    """Compute the filters of a model's `PatchWhitening` from raw pictures; nothing happens where it has none.

    Args:
        model: Of `kerascnn.build` with the option `whitening`.
        pictures: [N, height, width, channels] in [0, 255]; of many, an evenly spaced sample is used.

    >>> import kerascnn, numpy
    >>> model = kerascnn.build("resnet9", (9, 9, 3), 2, width=0.125, whitening=2)
    >>> fit_whitening(model, numpy.random.default_rng(0).integers(0, 256, (100, 9, 9, 3)))
    """
    for layer in model.layers:
        if isinstance(layer, PatchWhitening):
            step = max(1, int(np.prod(pictures.shape[:3])) // PIXELS)
            seen = keras.Model(model.inputs[0], layer.input)(np.asarray(pictures[::step], "float32"))
            layer.fit(keras.ops.convert_to_numpy(seen))
