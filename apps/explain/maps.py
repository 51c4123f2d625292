"""What the layers of a network make of a picture: their feature maps."""

from collections.abc import Sequence

import keras
import numpy as np

from apps.explain.network import Network, has_maps, predict


def feature_maps(network: Network, pixels: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The outputs of some layers, float32 [N, height, width, C] each.

    Args:
        network: Of `open_network`.
        pixels: uint8 [N, height, width, channels].
        names: Of hidden layers.

    Raises:
        ValueError: A layer does not exist, or has no maps.
    """
    for name in names:
        if not has_maps(network.layer(name)):
            raise ValueError(f"Layer {name!r} has no feature maps: its output is {tuple(network.layer(name).shape)}.")
    maps = {str(number): network.layer(name) for number, name in enumerate(names)}  # any name is a layer's
    found = predict(keras.Model(network.model.input, maps), pixels)
    return {name: found[str(number)] for number, name in enumerate(names)}


def strongest_channels(maps: np.ndarray, count: int) -> np.ndarray:
    """Of feature maps [height, width, C] of one picture the channels with the largest mean, the strongest first.

    >>> strongest_channels(np.array([[[1.0, 5.0, 3.0]]]), 2)
    array([1, 2])
    """
    return np.argsort(-maps.mean(axis=(0, 1)), kind="stable")[:count]


def as_grey(maps: np.ndarray) -> np.ndarray:
    """One map [height, width] as uint8, its lowest value black, its highest white.

    >>> as_grey(np.array([[-1.0, 0.0, 1.0]]))
    array([[  0, 128, 255]], dtype=uint8)
    """
    low, high = float(maps.min()), float(maps.max())
    return np.round(255 * (maps - low) / (high - low if high > low else 1.0)).astype("uint8")
