"""The filters of the first convolution, as pictures."""

import os
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from callbacks.plots import new_figure, save_figure


def first_convolution(model: keras.Model) -> keras.layers.Layer:
    """The first two-dimensional convolution with weights, also inside nested models.

    Raises:
        ValueError: There is none.
    """
    for layer in _in_order(model):
        if isinstance(layer, keras.layers.Conv2D) and getattr(layer, "kernel", None) is not None:
            return layer
    raise ValueError(f"The model {model.name!r} has no Conv2D layer with weights, so there are no filters to show.")


def first_layer_filters(model: keras.Model) -> np.ndarray:
    """The kernels of the first two-dimensional convolution: [n, h, w, c], each scaled to 0 to 1 by itself.

    Smooth filters with structure are a sign of health; noise tells of a network that has not converged, a wrong rate
    or too weak regularisation. Source: https://cs231n.github.io/neural-networks-3/#vis

    Raises:
        ValueError: The model has no two-dimensional convolution with weights.
    """
    kernel = keras.ops.convert_to_numpy(first_convolution(model).kernel)
    filters = np.array(kernel, "float32").transpose(3, 0, 1, 2)
    low = filters.min(axis=(1, 2, 3), keepdims=True)
    span = filters.max(axis=(1, 2, 3), keepdims=True) - low
    return (filters - low) / np.where(span > 0, span, 1.0)


def filter_roughness(filters: np.ndarray) -> np.ndarray:
    """How little the neighbouring weights of filters have to do with each other: [n].

    The mean squared difference of weights next to each other (down and across, within a channel), divided by twice
    their unbiased variance, both summed over the channels. It is 1 in the mean over all orders of the same weights,
    which is what noise has. Smooth filters are near 0, a chequerboard is near 2.

    Args:
        filters: [n, h, w, c], as `first_layer_filters` gives them; a scale or an offset changes nothing.

    Returns:
        float64; NaN for a filter that has no neighbours (1x1) or only equal weights.

    >>> ramp, board = np.add.outer(np.arange(5), np.arange(5)), np.indices((5, 5)).sum(axis=0) % 2
    >>> filter_roughness(np.stack([ramp, board])[..., None]).round(2)
    array([0.12, 1.92])
    """
    filters = np.asarray(filters, "float64")
    height, width = filters.shape[1:3]
    pairs = (height - 1) * width + height * (width - 1)
    if not pairs:
        return np.full(len(filters), np.nan)
    squares = [np.square(np.diff(filters, axis=axis)).sum(axis=(1, 2, 3)) for axis in (1, 2)]
    variance = filters.var(axis=(1, 2), ddof=1).sum(axis=-1)
    rough = np.full(len(filters), np.nan)
    np.divide(sum(squares) / pairs, 2 * variance, out=rough, where=variance > 0)
    return rough


def _in_order(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """The layer and all inside it, the first first, also in nested models, which `_flatten_layers` turns round."""
    waiting, seen = [layer], set()
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            waiting.extend(reversed(one._layers))
            yield one


def plot_filters(model: keras.Model, path: os.PathLike[str] | str | None = None) -> Any:
    """Draw `first_layer_filters` side by side: in colour with three channels, else the mean over the channels.

    Returns the matplotlib Figure, and writes it to `path` if given.
    """
    filters = first_layer_filters(model)
    filters = filters if filters.shape[-1] == 3 else filters.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    columns = int(np.ceil(np.sqrt(len(filters))))
    rows = -(-len(filters) // columns)
    height, width = filters.shape[1:3]
    picture = np.ones((rows * (height + 1) + 1, columns * (width + 1) + 1, 3), "float32")
    for number, one in enumerate(filters):
        top, left = number // columns * (height + 1) + 1, number % columns * (width + 1) + 1
        picture[top : top + height, left : left + width] = one
    figure, axes = new_figure(6.0, 6.0 * rows / columns)
    axes.imshow(picture, interpolation="nearest")
    axes.set_axis_off()
    if path is not None:
        save_figure(figure, path)
    return figure
