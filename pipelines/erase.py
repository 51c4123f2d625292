"""Operations that take a part of the picture away: cutout and random erasing."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from pipelines.operation import Choice, Operation, Size, as_float, as_pixels
from pipelines.randomness import fork, uniform

FILLINGS = ("constant", "mean", "noise")
CANDIDATES = 16  # rectangles drawn for random erasing; the first one that fits is taken


def cutout(size: int, filling: str = "constant", value: float | Sequence[float] = 0.0) -> Operation:
    """Take away a square of `size` pixels centred anywhere, so that it may overlap the border.

    Args:
        size: Side in pixels.
        filling: "constant" for `value`, "mean" for the picture's mean colour, "noise" for random values.
        value: One number or one for every channel; the paper's zero is after normalisation, the data's mean colour.

    Source: Improved Regularization with Cutout, https://arxiv.org/abs/1708.04552
    """
    if size < 1:
        raise ValueError(f"`size` must be at least 1 pixel. Received: size={size}.")
    prepare, put = _filler(filling, value)

    def draw(seeds: tf.Tensor, picture: Size) -> Choice:
        centre = tf.cast(uniform(fork(seeds, 0), 2) * picture[:2], "int32")
        square = tf.fill([tf.shape(seeds)[0], 2], size)
        return tf.concat([centre - size // 2, square], axis=1), prepare(fork(seeds, 1), picture)

    return Operation("cutout", draw, put)


def random_erasing(
    probability: float = 0.5,
    area: tuple[float, float] = (0.02, 0.4),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    filling: str = "noise",
    value: float | Sequence[float] = 0.0,
) -> Operation:
    """Take away a rectangle that lies inside the picture, of random area and shape.

    Of sixteen rectangles drawn, the first that fits is taken; where none does, the picture stays whole.

    Args:
        probability: Of a picture to lose a rectangle.
        area: Smallest and largest share of the picture's area.
        aspect: Smallest and largest ratio of height to width, drawn evenly.
        filling, value: As for `cutout`.

    Source: Random Erasing Data Augmentation, algorithm 1, https://arxiv.org/abs/1708.04896
    """
    if not 0 <= probability <= 1 or not 0 < area[0] <= area[1] <= 1 or not 0 < aspect[0] <= aspect[1]:
        raise ValueError(
            "`probability` must lie in [0, 1], `area` be a range in (0, 1], `aspect` a range of positive numbers. "
            f"Received: probability={probability}, area={area}, aspect={aspect}."
        )
    prepare, put = _filler(filling, value)

    def draw(seeds: tf.Tensor, picture: Size) -> Choice:
        height, width = picture[:2]
        wanted = uniform(fork(seeds, 0), 1)[:, 0] < probability
        share, shape, down, right = tf.split(uniform(fork(seeds, 1), 4 * CANDIDATES), 4, axis=1)
        pixels = height * width * (area[0] + share * (area[1] - area[0]))
        ratio = aspect[0] + shape * (aspect[1] - aspect[0])
        tall = tf.cast(tf.round(tf.sqrt(pixels * ratio)), "int32")
        wide = tf.cast(tf.round(tf.sqrt(pixels / ratio)), "int32")
        fits = (tall > 0) & (wide > 0) & (tall < height) & (wide < width)
        top = tf.cast(down * tf.cast(height - tall + 1, "float32"), "int32")
        left = tf.cast(right * tf.cast(width - wide + 1, "float32"), "int32")
        first = tf.argmax(tf.cast(fits, "int32"), axis=1, output_type="int32")
        box = tf.gather(tf.stack([top, left, tall, wide], axis=2), first, batch_dims=1)
        taken = wanted & tf.reduce_any(fits, axis=1)
        return tf.where(taken[:, None], box, 0), prepare(fork(seeds, 2), picture)

    return Operation("random_erasing", draw, put)


def inside(box: tf.Tensor, height: int, width: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Which rows [B, height] and which columns [B, width] a box (top, left, height, width) [B, 4] covers."""
    rows, columns = tf.range(height)[None, :], tf.range(width)[None, :]
    return (
        (rows >= box[:, :1]) & (rows < box[:, :1] + box[:, 2:3]),
        (columns >= box[:, 1:2]) & (columns < box[:, 1:2] + box[:, 3:]),
    )


def _filler(filling: str, value: float | Sequence[float]) -> tuple[Callable, Callable]:
    """(seeds and size to what fills the hole, pictures and (boxes, what fills) to pictures with holes)."""
    if filling not in FILLINGS:
        raise ValueError(f"`filling` must be one of {', '.join(FILLINGS)}. Received: filling={filling!r}.")

    def prepare(seeds: tf.Tensor, size: Size) -> tf.Tensor:
        if filling == "noise":
            height, width, channels = size
            return tf.reshape(tf.floor(uniform(seeds, height * width * channels) * 256), [-1, *size])
        return tf.zeros([tf.shape(seeds)[0]])

    def put(pictures: tf.Tensor, choice: Choice) -> tf.Tensor:
        box, prepared = choice
        rows, columns = inside(box, *pictures.shape[1:3])
        if filling == "constant":
            # Multiplying whole rows by 0 and 1 is twice as fast as choosing pixel by pixel.
            width, channels = pictures.shape[2:]
            columns = tf.repeat(tf.cast(columns, pictures.dtype), channels, axis=1)
            hole = tf.cast(rows, pictures.dtype)[:, :, None] * columns[:, None, :]
            row = tf.tile(tf.broadcast_to(tf.cast(value, pictures.dtype), [channels]), [width])
            rest = tf.reshape(pictures, tf.shape(hole)) * (1 - hole)
            return tf.reshape(rest + hole * row if np.any(value) else rest, tf.shape(pictures))
        if filling == "mean":
            filled = as_pixels(tf.reduce_mean(as_float(pictures), axis=[1, 2], keepdims=True), pictures.dtype)
        else:
            filled = tf.cast(prepared, pictures.dtype)
        hole = rows[:, :, None] & columns[:, None, :]
        return tf.where(hole[..., None], filled, pictures)

    return prepare, put
