"""The filters of the first convolution, as pictures."""

import os
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from callbacks.plots import new_figure, save_figure


def first_layer_filters(model: keras.Model) -> np.ndarray:
    """The kernels of the first two-dimensional convolution: [n, h, w, c], each scaled to 0 to 1 by itself.

    Smooth filters with structure are a sign of health; noise tells of a network that has not converged, a wrong rate
    or too weak regularisation. Source: https://cs231n.github.io/neural-networks-3/#vis

    Raises:
        ValueError: The model has no two-dimensional convolution with weights.
    """
    for layer in _in_order(model):
        kernel = getattr(layer, "kernel", None) if isinstance(layer, keras.layers.Conv2D) else None
        if kernel is not None:
            filters = np.array(keras.ops.convert_to_numpy(kernel), "float32").transpose(3, 0, 1, 2)
            low = filters.min(axis=(1, 2, 3), keepdims=True)
            span = filters.max(axis=(1, 2, 3), keepdims=True) - low
            return (filters - low) / np.where(span > 0, span, 1.0)
    raise ValueError(f"The model {model.name!r} has no Conv2D layer with weights, so there are no filters to show.")


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


def filter_roughness(filters):
    import numpy as np

    found = []
    for f in filters:
        ch = []
        for c in range(f.shape[-1]):
            w = f[..., c]
            d = np.concatenate([np.diff(w, axis=0).ravel(), np.diff(w, axis=1).ravel()])
            v = w.var(ddof=1)
            ch.append(np.mean(d**2) / (2 * v) if v > 0 else 1.0)
        found.append(np.mean(ch))
    return np.array(found)
