"""What is trained on: labelled pictures, the names of their heads as Keras takes them, and their statistics."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipelines.stream import Pictures, read_batches

SAMPLE = 5_000  # pictures that the normalisation is computed from, whether they are in memory or on disk


@dataclass(frozen=True)
class Data:
    """Labelled pictures, uint8 [N, height, width, 3] in memory or on disk; class numbers and class names by head."""

    pictures: Pictures
    labels: Mapping[str, np.ndarray]
    classes: Mapping[str, Sequence[str]]

    @property
    def num_classes(self) -> dict[str, int]:
        """Number of classes by head."""
        return {head: len(names) for head, names in self.classes.items()}

    @cached_property
    def statistics(self) -> tuple[list[float], list[float]]:
        """`channel_statistics` of the pictures."""
        return channel_statistics(self.pictures)

    def with_keras_names(self) -> "Data":
        """The same with every head called as Keras allows (`keras_names`)."""
        names = keras_names(self.classes)
        return Data(
            self.pictures,
            {names[head]: values for head, values in self.labels.items()},
            {names[head]: values for head, values in self.classes.items()},
        )

    def take(self, index: np.ndarray) -> "Data":
        """The pictures of `index`."""
        return Data(self.pictures[index], {head: values[index] for head, values in self.labels.items()}, self.classes)


def keras_names(heads: Iterable[str]) -> dict[str, str]:
    """A name for every head that Keras takes for a loss: ASCII letters, digits and a few signs, no two alike.

    >>> keras_names(["label", "hair colour/tone", "größe"])
    {'label': 'label', 'hair colour/tone': 'hair_colour_tone_1', 'größe': 'gr__e_2'}
    """
    names: dict[str, str] = {}
    for number, head in enumerate(heads):
        name = re.sub(r"[^A-Za-z0-9_]", "_", head)
        if name != head or not re.match("[A-Za-z0-9]", name):
            name = f"{name.lstrip('_')}_{number}".lstrip("_")
        while name in names.values():
            name += "_"
        names[head] = name
    return names


def evenly_spaced(pictures: Pictures, count: int) -> Pictures:
    """At most so many of them."""
    return pictures[:: -(-len(pictures) // count)]


def channel_statistics(pictures: Pictures) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of every channel over an evenly spaced sample of pictures, in pixel units."""
    histograms = np.zeros((pictures.shape[-1], 256))
    # A few at a time: counting needs eight bytes for each byte.
    for batch in read_batches(evenly_spaced(pictures, SAMPLE), 100):
        for channel, histogram in enumerate(histograms):
            histogram += np.bincount(batch[..., channel].reshape(-1), minlength=256)
    values = np.arange(256, dtype="float64")
    mean, std = [], []
    for histogram in histograms / histograms[0].sum():
        mean.append(float(histogram @ values))
        # Pictures of one single colour have no spread to divide by.
        std.append(float(max(np.sqrt(histogram @ (values - mean[-1]) ** 2), 1.0)))
    return mean, std
