"""Operations that move pixels: flips, crops, and every affine map as one resampling."""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import tensorflow as tf

from pipelines.fill import check_fill, is_outside, pad, source_index
from pipelines.operation import Operation, Size, as_float, as_pixels
from pipelines.python_op import PythonOp
from pipelines.randomness import in_packets, uniform

CANDIDATES = 10  # windows drawn for a random resized crop; the first one that fits is taken


def horizontal_flip(probability: float = 0.5) -> Operation:
    """Mirror left and right. Wrong for digits and letters."""
    return _flip("horizontal_flip", probability, axis=2)


def alternating_flip() -> Operation:
    """Mirror left and right in every second epoch: half of the pictures begin as they are, the others mirrored.

    Of two epochs in a row each picture is seen both ways, which `horizontal_flip` grants to half of the pictures only.

    Source: https://arxiv.org/abs/2404.00498, section 3.6
    """

    def turn(mirrored_at_first: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        return tf.equal(mirrored_at_first, tf.equal(epoch % 2, 0))

    return replace(_flip("alternating_flip", 0.5, axis=2), turn=turn)


def vertical_flip(probability: float = 0.5) -> Operation:
    """Mirror top and bottom, independently of `horizontal_flip`. Right for pictures without an upside."""
    return _flip("vertical_flip", probability, axis=1)


def _flip(name: str, probability: float, axis: int) -> Operation:
    if not 0 <= probability <= 1:
        raise ValueError(f"`probability` must lie in [0, 1]. Received: probability={probability}.")

    def draw(seeds: tf.Tensor, size: Size) -> tf.Tensor:
        return uniform(seeds, 1)[:, 0] < probability

    def apply(pictures: tf.Tensor, flipped: tf.Tensor) -> tf.Tensor:
        # Twice as fast as reversing all pictures in TensorFlow and choosing among them.
        return tf.ensure_shape(_mirror([pictures, flipped, axis], pictures.dtype), pictures.shape)

    return Operation(name, draw, apply)


@PythonOp
def _mirror(pictures: np.ndarray, flipped: np.ndarray, axis: np.ndarray) -> np.ndarray:
    done = pictures.copy()
    for place in np.flatnonzero(flipped):
        done[place] = cv2.flip(pictures[place], int(axis) - 1).reshape(done[place].shape)
    return done


def random_crop(padding: int, fill: str = "reflect", value: float = 0.0) -> Operation:
    """Pad every side, then cut the original size out at a random place: a shift by whole pixels.

    Args:
        padding: Pixels on every side; the choice is the corner, each coordinate from 0 to 2 * padding.
        fill: One of `fill.FILL_MODES`.
        value: What "constant" fills with.
    """
    if padding < 0:
        raise ValueError(f"`padding` must not be negative. Received: padding={padding}.")
    check_fill(fill)

    def draw(seeds: tf.Tensor, size: Size) -> tf.Tensor:
        return tf.cast(uniform(seeds, 2) * (2 * padding + 1), "int32")

    def apply(pictures: tf.Tensor, corner: tf.Tensor) -> tf.Tensor:
        height, width = pictures.shape[1:3]
        rows = tf.range(height)[None, :] + corner[:, :1] - padding
        columns = tf.range(width)[None, :] + corner[:, 1:] - padding
        # Reading through mapped indices gives the padded picture's window without ever building the padded picture;
        # whole rows first, which are copied at once.
        cut = tf.gather(pictures, source_index(rows, height, fill), axis=1, batch_dims=1)
        cut = tf.gather(cut, source_index(columns, width, fill), axis=2, batch_dims=1)
        if fill == "constant":
            outside = is_outside(rows, height)[:, :, None] | is_outside(columns, width)[:, None, :]
            cut = tf.where(outside[..., None], tf.cast(value, pictures.dtype), cut)
        return tf.ensure_shape(cut, pictures.shape)

    return Operation("random_crop", draw, apply)


def shrink(size: tuple[int, int]) -> Operation:
    """Every picture at (height, width), each pixel the mean of the area it covers; not random.

    Smaller pictures in the first epochs train a network without fixed input size in a fraction of the time.
    """
    if min(size) < 1:
        raise ValueError(f"`size` must be at least 1 pixel either way. Received: size={size}.")

    def draw(seeds: tf.Tensor, picture: Size) -> tf.Tensor:
        if picture[0] < size[0] or picture[1] < size[1]:
            raise ValueError(f"`shrink` to {size} needs larger pictures. Received: {picture[0]}x{picture[1]}.")
        return tf.zeros(tf.shape(seeds)[:1])

    def apply(pictures: tf.Tensor, choice: tf.Tensor) -> tf.Tensor:
        done = _by_areas([pictures, size], pictures.dtype)
        return tf.ensure_shape(done, [pictures.shape[0], *size, pictures.shape[3]])

    return Operation("shrink", draw, apply)


@PythonOp
def _by_areas(pictures: np.ndarray, size: np.ndarray) -> np.ndarray:
    height, width = map(int, size)
    done = np.empty((len(pictures), height, width, pictures.shape[3]), pictures.dtype)
    for picture, result in zip(pictures, done, strict=True):
        result[...] = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).reshape(result.shape)
    return done


def random_resized_crop(
    size: tuple[int, int],
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> Operation:
    """Cut out a window of random area and shape and resize it bilinearly to `size`.

    Of ten windows drawn, the first that fits is taken; where none fits, the largest central one of a shape within
    `aspect`. A window more than twice as high or wide as `size`, and no smaller the other way, is reduced by averaging
    areas.

    Args:
        size: (height, width) of the result.
        area: Smallest and largest share of the picture's area.
        aspect: Smallest and largest ratio of width to height, drawn on a log scale.

    Source: Going Deeper with Convolutions, section 6, https://arxiv.org/abs/1409.4842
    """
    if min(size) < 1:
        raise ValueError(f"`size` must be at least 1 pixel either way. Received: size={size}.")
    if not 0 < area[0] <= area[1] <= 1 or not 0 < aspect[0] <= aspect[1]:
        raise ValueError(
            "`area` must be a range in (0, 1], `aspect` a range of positive numbers. "
            f"Received: area={area}, aspect={aspect}."
        )

    def draw(seeds: tf.Tensor, picture: Size) -> tf.Tensor:
        height, width = picture[:2]
        share, shape, down, right = tf.split(uniform(seeds, 4 * CANDIDATES), 4, axis=1)
        pixels = height * width * (area[0] + share * (area[1] - area[0]))
        ratio = in_packets(tf.exp, math.log(aspect[0]) + shape * math.log(aspect[1] / aspect[0]))
        window_height = tf.cast(tf.round(tf.sqrt(pixels / ratio)), "int32")
        window_width = tf.cast(tf.round(tf.sqrt(pixels * ratio)), "int32")
        fits = (window_height <= height) & (window_width <= width) & (window_height > 0) & (window_width > 0)
        first = tf.argmax(tf.cast(fits, "int32"), axis=1, output_type="int32")

        def taken(values: tf.Tensor, otherwise: int) -> tf.Tensor:
            return tf.where(tf.reduce_any(fits, axis=1), tf.gather(values, first, batch_dims=1), otherwise)

        nearest = min(max(width / height, aspect[0]), aspect[1])
        central = max(1, round(min(height, width / nearest))), max(1, round(min(width, height * nearest)))
        tall, wide = taken(window_height, central[0]), taken(window_width, central[1])
        top = taken(_place(down, height - window_height), (height - central[0]) // 2)
        left = taken(_place(right, width - window_width), (width - central[1]) // 2)
        return tf.stack([top, left, tall, wide], axis=1)

    def apply(pictures: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
        # OpenCV resizes five times as fast as TensorFlow, whose kernel alone takes as long as decoding the picture.
        resized = _cut([pictures, windows, size], pictures.dtype)
        return tf.ensure_shape(resized, [pictures.shape[0], *size, pictures.shape[3]])

    return Operation("random_resized_crop", draw, apply)


@PythonOp
def _cut(pictures: np.ndarray, windows: np.ndarray, size: np.ndarray) -> np.ndarray:
    tall, wide = map(int, size)
    done = np.empty((len(pictures), tall, wide, pictures.shape[3]), pictures.dtype)
    for picture, (top, left, height, width), result in zip(pictures, windows, done, strict=True):
        window = picture[top : top + height, left : left + width]
        # OpenCV averages areas only where neither side grows; else it would take single pixels.
        shrinks = (height > 2 * tall and width >= wide) or (width > 2 * wide and height >= tall)
        resized = cv2.resize(window, (wide, tall), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        result[...] = resized.reshape(result.shape)  # OpenCV drops an only channel
    return done


def _place(fraction: tf.Tensor, room: tf.Tensor) -> tf.Tensor:
    """A whole number from 0 to `room`, all equally likely."""
    return tf.cast(fraction * tf.cast(room + 1, "float32"), "int32")


def affine(
    rotation: float = 0.0,
    zoom: float = 0.0,
    shear: float = 0.0,
    translation: float = 0.0,
    fill: str = "edge",
    value: float = 0.0,
) -> Operation:
    """Rotate, zoom, shear and move, in one bilinear resampling.

    The choice is [B, 5]: angle and slant in radians, factor of size, shift down and right as fractions of the side.

    Args:
        rotation: Largest angle in degrees, either way.
        zoom: Largest relative change of size; 0.2 draws a factor between 1 / 1.2 and 1.2.
        shear: Largest slant in degrees, either way.
        translation: Largest shift as a fraction of height and width, either way.
        fill: One of `fill.FILL_MODES`.
        value: What "constant" fills with.
    """
    check_fill(fill)
    if min(rotation, zoom, shear, translation) < 0 or shear >= 90:
        raise ValueError(
            "`rotation`, `zoom`, `shear` and `translation` must not be negative, and `shear` less than 90 degrees. "
            f"Received: rotation={rotation}, zoom={zoom}, shear={shear}, translation={translation}."
        )
    largest = np.array([math.radians(rotation), math.radians(shear), math.log1p(zoom), translation, translation])
    # Where the map reads furthest outside lies between the largest angles; a degree more or less is not a pixel.
    steps = [np.linspace(-most, most, 61) for most in largest[:2]]
    extremes = [
        np.reshape(_matrix(math.sin, math.cos, angle, slant, math.exp(-largest[2])), [2, 2])
        for angle, slant in itertools.product(*steps)
    ]

    def draw(seeds: tf.Tensor, size: Size) -> tf.Tensor:
        drawn = (2 * uniform(seeds, 5) - 1) * largest.astype("float32")
        return tf.concat([drawn[:, :2], in_packets(tf.exp, drawn[:, 2:3]), drawn[:, 3:]], axis=1)

    def apply(pictures: tf.Tensor, choice: tf.Tensor) -> tf.Tensor:
        margin = reach(tuple(pictures.shape[1:3]), np.array(extremes), translation)
        angle, slant, scale, down, right = tf.unstack(choice, axis=1)
        sin, cos = (functools.partial(in_packets, function) for function in (tf.sin, tf.cos))
        matrix = tf.stack(_matrix(sin, cos, angle, slant, scale), axis=1)
        return resample(pictures, matrix, tf.stack([down, right], axis=1), fill, value, margin)

    return Operation("affine", draw, apply)


def _matrix(sin: Callable, cos: Callable, angle: Any, slant: Any, scale: Any) -> list[Any]:
    """The entries a, b, c, d of the matrix that turns, slants and shrinks (x, y)."""
    return [cos(angle) / scale, -sin(angle + slant) / scale, sin(angle) / scale, cos(angle + slant) / scale]


def resample(
    pictures: tf.Tensor,
    matrix: tf.Tensor,
    shift: tf.Tensor,
    fill: str,
    value: float = 0.0,
    margin: tuple[int, int] = (0, 0),
) -> tf.Tensor:
    """Read every output pixel (x, y), seen from the centre, at (a x + b y, c x + d y) of the shifted input, bilinearly.

    Args:
        pictures: uint8 or float32 [B, height, width, channels].
        matrix: a, b, c, d: float32 [B, 4].
        shift: Down and right, before the matrix, as fractions of height and width: float32 [B, 2].
        fill: One of `fill.FILL_MODES`.
        value: What "constant" fills with.
        margin: How many rows above and columns beside the picture the map may read, at most (`reach`); not needed for
            "constant" and "edge".
    """
    height, width = pictures.shape[1:3]
    a, b, c, d = tf.unstack(matrix, axis=1)
    centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
    x, y = -(centre_x + shift[:, 1] * width), -(centre_y + shift[:, 0] * height)
    x0, y0 = centre_x + a * x + b * y, centre_y + c * x + d * y
    if fill in ("constant", "edge"):
        source = as_float(pictures)
    else:
        # TensorFlow's own REFLECT and WRAP go wrong between the last pixel and the first outside; the padded picture
        # holds every pixel that can be read.
        source = as_float(pad(pictures, *margin, fill))
        x0, y0 = x0 + margin[1], y0 + margin[0]
    zeros = tf.zeros_like(a)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=source,
        transforms=tf.stack([a, b, x0, c, d, y0, zeros, zeros], axis=1),
        output_shape=[height, width],
        fill_value=value,
        interpolation="BILINEAR",
        fill_mode="CONSTANT" if fill == "constant" else "NEAREST",
    )
    return as_pixels(tf.ensure_shape(moved, pictures.shape), pictures.dtype)


def reach(size: tuple[int, int], matrices: np.ndarray, shift: float) -> tuple[int, int]:
    """How many rows and columns outside the picture `resample` may read.

    Args:
        size: (height, width).
        matrices: Those it may be called with, or the extreme ones: [K, 2, 2] for (x, y).
        shift: The largest shift, as a fraction of the side.
    """
    half = np.array([size[1] - 1, size[0] - 1]) / 2
    furthest = (np.abs(matrices) @ (half + shift * np.array([size[1], size[0]]))).max(axis=0)
    columns, rows = np.maximum(np.ceil(furthest - half), 0).astype(int) + 2
    return int(rows), int(columns)
