"""Pictures that stay encoded on disk and are decoded when their turn comes: memory does not grow with their number."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from pipelines.decode import decode_picture, decode_window
from pipelines.encoded import Encoded
from pipelines.operation import Size


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

    def read(
        self,
        places: tf.data.Dataset,
        windows: tf.data.Dataset | None = None,
        from_window: Callable[[tf.Tensor, Size], tf.Tensor] | None = None,
    ) -> tf.data.Dataset:
        """`(picture uint8, whether it could be read)` for every one of the places, in their order.

        Args:
            places: Whole numbers below N.
            windows: What part of each is needed: top, left, height, width.
            from_window: What to make of that part (`Operation.from_window`).
        """
        data = self.encoded.read_all(places, None if self.strict else self.failed).map(lambda place, data: data)
        size = (*self.size, 3)

        def decode(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return _unless_empty(data, lambda: decode_picture(data, self.size), size)

        def decode_part(data: tf.Tensor, window: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return _unless_empty(data, lambda: from_window(decode_window(data, self.size, window), size), small)

        if windows is None or from_window is None:
            return data.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        small = from_window(tf.zeros(size, "uint8"), size).shape
        return tf.data.Dataset.zip((data, windows)).map(decode_part, num_parallel_calls=tf.data.AUTOTUNE)


def _unless_empty(
    data: tf.Tensor, decode: Callable[[], tf.Tensor], shape: Sequence[int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """The decoded picture and True; black and False where there are no bytes."""
    readable = tf.strings.length(data) > 0
    return tf.cond(readable, decode, lambda: tf.zeros(shape, "uint8")), readable


Pictures = np.ndarray | Streamed  # in memory, or on disk


def read_batches(pictures: Pictures, batch_size: int) -> Iterator[np.ndarray]:
    """All pictures in order, uint8 [up to batch_size, height, width, 3]."""
    if isinstance(pictures, Streamed):
        data = pictures.read(tf.data.Dataset.range(len(pictures))).map(lambda picture, readable: picture)
        return data.batch(batch_size).prefetch(1).as_numpy_iterator()
    return (pictures[start : start + batch_size] for start in range(0, len(pictures), batch_size))
