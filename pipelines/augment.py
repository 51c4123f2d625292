"""Random picture operations: draw a choice for every picture of a batch, then apply it to the whole batch at once.

An operation is a pair. `draw` turns uniform numbers in [0, 1), one row per picture, into the choice; `apply` is a pure
function of pictures and choice. Where the uniform numbers come from (the seed, the epoch and the picture's index) is
the business of `pipelines.batches`, so a choice never depends on threads or on the batch a picture falls into.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

FILL_MODES = {"constant": "CONSTANT", "edge": "NEAREST", "symmetric": "REFLECT", "wrap": "WRAP"}


@dataclass(frozen=True)
class Operation:
    """A random operation: `numbers` uniform values per picture make a choice, which `apply` carries out."""

    name: str
    numbers: int
    draw: Callable[[tf.Tensor], tf.Tensor]
    apply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def horizontal_flip(probability: float = 0.5) -> Operation:
    """Mirror left and right. Wrong for digits and letters."""

    def draw(uniform: tf.Tensor) -> tf.Tensor:
        return uniform[:, 0] < probability

    def apply(pictures: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
        return tf.where(flip[:, None, None, None], pictures[:, :, ::-1], pictures)

    return Operation("horizontal_flip", 1, draw, apply)


def random_crop(padding: int) -> Operation:
    """Pad by reflection (numpy's "reflect"), then cut the original size out at a random place."""
    if padding < 0:
        raise ValueError(f"`padding` must not be negative. Received: padding={padding}.")

    def draw(uniform: tf.Tensor) -> tf.Tensor:
        return tf.cast(uniform * (2 * padding + 1), "int32")

    def apply(pictures: tf.Tensor, corner: tf.Tensor) -> tf.Tensor:
        height, width = tf.shape(pictures)[1], tf.shape(pictures)[2]
        # Reading through reflected indices gives the padded picture's window without ever building the padded picture.
        rows = _reflect(tf.range(height)[None, :] + corner[:, :1] - padding, height)
        columns = _reflect(tf.range(width)[None, :] + corner[:, 1:] - padding, width)
        flat = tf.reshape(pictures, [tf.shape(pictures)[0], height * width, pictures.shape[3]])
        cut = tf.gather(
            flat, tf.reshape(rows[:, :, None] * width + columns[:, None, :], [-1, height * width]), batch_dims=1
        )
        return tf.ensure_shape(tf.reshape(cut, tf.shape(pictures)), pictures.shape)

    return Operation("random_crop", 2, draw, apply)


def _reflect(index: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Map positions outside [0, size) back by mirroring at the first and last pixel, which are not repeated."""
    period = tf.maximum(2 * (size - 1), 1)
    return tf.minimum(index % period, period - index % period)


def cutout(size: int) -> Operation:
    """Zero a square of `size` pixels centred anywhere, so that it may overlap the border.

    Source: Improved Regularization with Cutout, https://arxiv.org/abs/1708.04552
    """
    if size < 1:
        raise ValueError(f"`size` must be at least 1 pixel. Received: size={size}.")

    def draw(uniform: tf.Tensor) -> tf.Tensor:
        return uniform

    def apply(pictures: tf.Tensor, centre: tf.Tensor) -> tf.Tensor:
        height, width = tf.shape(pictures)[1], tf.shape(pictures)[2]

        def inside(length: tf.Tensor, fraction: tf.Tensor) -> tf.Tensor:
            first = tf.cast(fraction * tf.cast(length, "float32"), "int32") - size // 2
            positions = tf.range(length)[None, :]
            return (positions >= first[:, None]) & (positions < first[:, None] + size)

        hole = inside(height, centre[:, 0])[:, :, None] & inside(width, centre[:, 1])[:, None, :]
        return tf.where(hole[..., None], tf.zeros([], pictures.dtype), pictures)

    return Operation("cutout", 2, draw, apply)


def affine(
    rotation: float = 0.0, zoom: float = 0.0, shear: float = 0.0, translation: float = 0.0, fill: str = "edge"
) -> Operation:
    """Rotate, zoom, shear and move in one bilinear resampling.

    Args:
        rotation: Largest angle in degrees, either way.
        zoom: Largest relative change of size; 0.2 draws a factor between 1 / 1.2 and 1.2.
        shear: Largest slant in degrees, either way.
        translation: Largest shift as a fraction of height and width, either way.
        fill: What lies outside the picture: "constant" (zero), "edge", "symmetric" or "wrap", with numpy's meaning.
    """
    if fill not in FILL_MODES:
        raise ValueError(f"`fill` must be one of {sorted(FILL_MODES)}. Received: fill={fill!r}.")

    def draw(uniform: tf.Tensor) -> tf.Tensor:
        signed = 2 * uniform - 1
        angle, slant = signed[:, 0] * math.radians(rotation), signed[:, 1] * math.radians(shear)
        scale = tf.exp(signed[:, 2] * math.log1p(zoom))
        return tf.stack([angle, slant, scale, signed[:, 3] * translation, signed[:, 4] * translation], axis=1)

    def apply(pictures: tf.Tensor, choice: tf.Tensor) -> tf.Tensor:
        angle, slant, scale, down, right = tf.unstack(choice, axis=1)
        height, width = (tf.cast(tf.shape(pictures)[axis], "float32") for axis in (1, 2))
        centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
        # The transform maps an output pixel to the input pixel it reads: rotate and slant about the centre, shrink.
        a, b = tf.cos(angle) / scale, -tf.sin(angle + slant) / scale
        c, d = tf.sin(angle) / scale, tf.cos(angle + slant) / scale
        x0 = centre_x - a * centre_x - b * centre_y - right * width
        y0 = centre_y - c * centre_x - d * centre_y - down * height
        zeros = tf.zeros_like(a)
        moved = tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(pictures, "float32"),
            transforms=tf.stack([a, b, x0, c, d, y0, zeros, zeros], axis=1),
            output_shape=tf.shape(pictures)[1:3],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode=FILL_MODES[fill],
        )
        moved = tf.ensure_shape(moved, pictures.shape)
        return tf.cast(tf.round(moved), pictures.dtype) if pictures.dtype.is_integer else moved

    return Operation("affine", 5, draw, apply)
