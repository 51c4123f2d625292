"""What lies outside a picture: the five fill modes, with numpy.pad's names and meaning.

For a row of pixels a b c d:

    constant   0 0 0 | a b c d | 0 0 0
    edge       a a a | a b c d | d d d
    reflect    d c b | a b c d | c b a
    symmetric  c b a | a b c d | d c b
    wrap       b c d | a b c d | a b c
"""

import tensorflow as tf

FILL_MODES = ("constant", "edge", "reflect", "symmetric", "wrap")


def check_fill(fill: str) -> None:
    """Raise a `ValueError` unless `fill` is one of the five modes."""
    if fill not in FILL_MODES:
        raise ValueError(f"`fill` must be one of {', '.join(FILL_MODES)}. Received: fill={fill!r}.")


def source_index(position: tf.Tensor, length: int, fill: str) -> tf.Tensor:
    """The pixel in [0, length) that stands at any whole position; for "constant" any, since none does outside.

    >>> source_index(tf.range(-3, 7), 4, "reflect").numpy().tolist()
    [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]
    """
    if fill == "reflect":
        period = max(2 * (length - 1), 1)
        return tf.minimum(position % period, period - position % period) if length > 1 else tf.zeros_like(position)
    if fill == "symmetric":
        return tf.minimum(position % (2 * length), 2 * length - 1 - position % (2 * length))
    if fill == "wrap":
        return position % length
    return tf.clip_by_value(position, 0, length - 1)


def is_outside(position: tf.Tensor, length: int) -> tf.Tensor:
    """Whether there is no pixel at this position."""
    return (position < 0) | (position >= length)


def pad(pictures: tf.Tensor, rows: int, columns: int, fill: str) -> tf.Tensor:
    """Pictures with `rows` more above and below and `columns` more left and right; any mode but "constant"."""
    height, width = pictures.shape[1:3]
    pictures = tf.gather(pictures, source_index(tf.range(-rows, height + rows), height, fill), axis=1)
    return tf.gather(pictures, source_index(tf.range(-columns, width + columns), width, fill), axis=2)
