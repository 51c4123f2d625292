"""Pictures that stay encoded on disk and are decoded when their turn comes: memory does not grow with their number."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from pipelines.decode import decode_picture
from pipelines.encoded import Encoded


@dataclass(frozen=True)
class Streamed:
    """N pictures of one size, read from disk; stands wherever an array uint8 [N, height, width, 3] may stand.

    Attributes:
        encoded: Where they lie.
        size: (height, width) that each is resized to.
        strict: Raise for a picture that cannot be read any more; else it is black and has no weight.
        failed: The names of those pictures.
    """

    encoded: Encoded
    size: tuple[int, int]
    strict: bool = False
    failed: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.encoded)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """As that of the array."""
        return (len(self), *self.size, 3)

    def __getitem__(self, index: np.ndarray | slice) -> "Streamed":
        return Streamed(self.encoded[index], self.size, self.strict, self.failed)

    def note(self, places: tf.Tensor) -> None:
        """Add the names of pictures that another process could not read."""
        self.failed.update(self.encoded.name(place) for place in places.numpy())

    def read(self, places: tf.data.Dataset, *, elsewhere: bool = False) -> tf.data.Dataset:
        """`(picture uint8, whether it could be read, more...)` for every one of the places, in order.

        Args:
            places: Whole numbers below N, or `(place, more...)` with tensors that are carried along.
            elsewhere: Another process will read them; see `Encoded.read_all`.
        """
        black = tf.io.encode_png(tf.zeros([1, 1, 3], "uint8"))

        def decode(place: tf.Tensor, data: tf.Tensor, *more: tf.Tensor) -> tuple[tf.Tensor, ...]:
            readable = tf.strings.length(data) > 0
            return decode_picture(tf.where(readable, data, black), self.size), readable, *more

        data = self.encoded.read_all(places, None if self.strict else self.failed, elsewhere=elsewhere)
        return data.map(decode, num_parallel_calls=tf.data.AUTOTUNE)


Pictures = np.ndarray | Streamed  # in memory, or on disk


def read_batches(pictures: Pictures, batch_size: int) -> Iterator[np.ndarray]:
    """All pictures in order, uint8 [up to batch_size, height, width, 3]."""
    if isinstance(pictures, Streamed):
        data = pictures.read(tf.data.Dataset.range(len(pictures))).map(lambda picture, readable: picture)
        return data.batch(batch_size).prefetch(1).as_numpy_iterator()
    return (pictures[start : start + batch_size] for start in range(0, len(pictures), batch_size))
