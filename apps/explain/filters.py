"""The filters of the first layer, and whether they look smooth or like noise."""

from dataclasses import dataclass

import keras
import numpy as np

from callbacks import filter_roughness, first_layer_filters
from callbacks.filters import first_convolution

SMOOTH, NOISY = 0.6, 0.85  # mean roughness; noise has 1, edges and stripes of 3x3 about a third


@dataclass(frozen=True)
class Filters:
    """The first convolution's filters.

    Attributes:
        layer: Its name.
        channels: Of its filters.
        pictures: uint8 [n, h, w, 1 or 3]; each scaled to its own range; of other numbers of channels their mean.
        roughness: `callbacks.filter_roughness`, [n].
        note: What that says, in a sentence.
    """

    layer: str
    channels: int
    pictures: np.ndarray
    roughness: np.ndarray
    note: str


def describe_filters(model: keras.Model) -> Filters:
    """The filters of the first two-dimensional convolution, and how rough they are.

    Smooth filters are a sign of a network that has learnt enough from the pictures, noise of one that has not:
    https://cs231n.github.io/neural-networks-3/#vis

    Raises:
        ValueError: The model has no two-dimensional convolution with weights.
    """
    layer, filters = first_convolution(model), first_layer_filters(model)
    roughness = filter_roughness(filters)
    shown = filters if filters.shape[-1] in (1, 3) else filters.mean(axis=-1, keepdims=True)
    trained = any(weight is layer.kernel for weight in layer.trainable_weights)
    pictures = np.round(255 * shown).astype("uint8")
    return Filters(layer.name, filters.shape[-1], pictures, roughness, _note(roughness, trained))


def _note(roughness: np.ndarray, trained: bool) -> str:
    known = roughness[~np.isnan(roughness)]
    if not trained:
        return "These filters are not trained, so they say nothing of the training."
    if not len(known):
        return "Filters of 1x1 have no neighbouring weights: they can be neither smooth nor noisy."
    mean = float(known.mean())
    if mean < SMOOTH:
        words = "smooth: neighbouring weights are alike, as in a network that has learnt edges and colours"
    elif mean < NOISY:
        words = "partly smooth: there is some order in them, and some noise"
    else:
        words = (
            "noisy: hardly smoother than the same weights in any other order. Longer training, more pictures or more "
            "weight decay may help; filters as small as 3x3 can be like this and good"
        )
    return f"Their roughness is {mean:.2f} (noise has 1, a ramp nearly 0): they look {words}."
