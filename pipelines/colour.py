"""Operations on the values of pixels: light, colour, noise, and the tonal operations of RandAugment.

The functions take pictures, uint8 or float32 [B, height, width, 3] in [0, 255], and one factor [B] for each; the
operations draw those factors. Where Pillow has the same, it is meant the same way and tested against it.
"""

from collections.abc import Callable

import tensorflow as tf

from pipelines.operation import Operation, Size, as_float, as_pixels, select
from pipelines.randomness import normal, uniform

LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)  # ITU-R BT.601 in 16 bits, as in Pillow: exact in float32


def brightness(amount: float) -> Operation:
    """Multiply by a factor between 1 - amount and 1 + amount."""
    return _by_factor("brightness", amount, adjust_brightness)


def contrast(amount: float) -> Operation:
    """Spread values around the picture's mean grey by a factor between 1 - amount and 1 + amount."""
    return _by_factor("contrast", amount, adjust_contrast)


def saturation(amount: float) -> Operation:
    """Spread colours around their grey by a factor between 1 - amount and 1 + amount."""
    return _by_factor("saturation", amount, adjust_saturation)


def hue(amount: float) -> Operation:
    """Turn the colour circle by up to `amount` of a full turn, either way; 0.5 reaches every colour."""
    if not 0 <= amount <= 0.5:
        raise ValueError(f"`amount` must lie in [0, 0.5] of a turn. Received: amount={amount}.")
    return Operation("hue", lambda seeds, size: _signed(seeds) * amount, adjust_hue)


def grayscale(probability: float = 0.1) -> Operation:
    """Take the colour out of a picture."""
    if not 0 <= probability <= 1:
        raise ValueError(f"`probability` must lie in [0, 1]. Received: probability={probability}.")

    def apply(pictures: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
        return select(chosen, adjust_saturation(pictures, tf.zeros(tf.shape(pictures)[0])), pictures)

    return Operation("grayscale", lambda seeds, size: uniform(seeds, 1)[:, 0] < probability, apply)


def gaussian_noise(deviation: float) -> Operation:
    """Add normally distributed noise of this standard deviation, in pixel units, to every value."""
    if deviation < 0:
        raise ValueError(f"`deviation` must not be negative. Received: deviation={deviation}.")

    def draw(seeds: tf.Tensor, size: Size) -> tf.Tensor:
        height, width, channels = size
        return tf.reshape(normal(seeds, height * width * channels) * deviation, [-1, *size])

    return Operation(
        "gaussian_noise", draw, lambda pictures, noise: as_pixels(as_float(pictures) + noise, pictures.dtype)
    )


def adjust_brightness(pictures: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Between black (0), the picture (1) and brighter."""
    return as_pixels(as_float(pictures) * _each(factor), pictures.dtype)


def adjust_contrast(pictures: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Between the mean grey of the picture (0), the picture (1) and stronger."""
    mean = tf.floor(tf.reduce_mean(_grey(pictures), axis=[1, 2, 3], keepdims=True) + 0.5)
    return as_pixels(_blend(mean, as_float(pictures), factor), pictures.dtype)


def adjust_saturation(pictures: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Between grey (0), the picture (1) and more colourful."""
    return as_pixels(_blend(_grey(pictures), as_float(pictures), factor), pictures.dtype)


def adjust_hue(pictures: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    """Turn the colour circle by `turn` of a full turn, keeping saturation and value (HSV); grey stays grey."""
    if pictures.shape[3] == 1:
        return pictures
    hsv = tf.image.rgb_to_hsv(as_float(pictures) / 255.0)
    turned = tf.concat([(hsv[..., :1] + _each(turn)) % 1.0, hsv[..., 1:]], axis=-1)
    return as_pixels(tf.image.hsv_to_rgb(turned) * 255.0, pictures.dtype)


def adjust_sharpness(pictures: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Between blurred (0), the picture (1) and sharpened; the outermost pixels stay as they are."""
    values = as_float(pictures)
    rows = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
    sums = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = tf.round((sums + 4.0 * values[:, 1:-1, 1:-1]) / 13.0)  # the middle counts five times
    height, width = pictures.shape[1:3]
    is_inner = tf.pad(tf.ones([height - 2, width - 2, 1], tf.bool), [[1, 1], [1, 1], [0, 0]])
    blurred = tf.where(is_inner, tf.pad(inner, [[0, 0], [1, 1], [1, 1], [0, 0]]), values)
    return as_pixels(_blend(blurred, values, factor), pictures.dtype)


def solarize(pictures: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Invert the values from the threshold on."""
    values = as_float(pictures)
    return as_pixels(tf.where(values < _each(threshold), values, 255.0 - values), pictures.dtype)


def posterize(pictures: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keep the highest `bits` (0 to 8, whole) of every value."""
    step = 2.0 ** _each(8.0 - tf.cast(bits, "float32"))
    return as_pixels(tf.floor(as_float(pictures) / step) * step, pictures.dtype)


def autocontrast(pictures: tf.Tensor) -> tf.Tensor:
    """Stretch every channel so that its darkest value becomes 0 and its brightest 255."""
    values = as_float(pictures)
    low = tf.reduce_min(values, axis=[1, 2], keepdims=True)
    high = tf.reduce_max(values, axis=[1, 2], keepdims=True)
    stretched = tf.floor((values - low) * (255.0 / tf.maximum(high - low, 1e-6)) + 1e-4)
    return as_pixels(tf.where(high > low, stretched, values), pictures.dtype)


def equalize(pictures: tf.Tensor) -> tf.Tensor:
    """Spread the values of every channel so that all occur about equally often (its histogram becomes flat)."""
    size = tf.shape(pictures)
    planes = size[0] * size[3]
    values = tf.reshape(tf.transpose(tf.cast(tf.round(as_float(pictures)), "int32"), [0, 3, 1, 2]), [planes, -1])
    place = values + 256 * tf.range(planes)[:, None]
    counts = tf.math.unsorted_segment_sum(tf.ones_like(place), place, 256 * planes)
    counts = tf.reshape(counts, [planes, 256])
    highest = tf.reduce_max(values, axis=1)
    step = (tf.shape(values)[1] - tf.gather(counts, highest, batch_dims=1)) // 255
    # As in Pillow: the table is the number of darker pixels, plus half a step, in steps.
    table = (tf.cumsum(counts, axis=1, exclusive=True) + step[:, None] // 2) // tf.maximum(step[:, None], 1)
    spread = tf.gather(tf.clip_by_value(table, 0, 255), values, batch_dims=1)
    spread = tf.where((step > 0)[:, None], spread, values)
    spread = tf.transpose(tf.reshape(spread, [size[0], size[3], size[1], size[2]]), [0, 2, 3, 1])
    return tf.ensure_shape(as_pixels(as_float(spread), pictures.dtype), pictures.shape)


def _by_factor(name: str, amount: float, adjust: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> Operation:
    if not 0 <= amount <= 1:
        raise ValueError(f"`amount` must lie in [0, 1]. Received: amount={amount}.")
    return Operation(name, lambda seeds, size: 1 + _signed(seeds) * amount, adjust)


def _signed(seeds: tf.Tensor) -> tf.Tensor:
    """One number in [-1, 1) for every picture."""
    return 2 * uniform(seeds, 1)[:, 0] - 1


def _each(factor: tf.Tensor) -> tf.Tensor:
    """One number for every picture, in a shape that multiplies pictures."""
    return tf.reshape(factor, [-1, 1, 1, 1])


def _grey(pictures: tf.Tensor) -> tf.Tensor:
    """Rounded luma, float32 [B, height, width, 1]."""
    # Halves go up, as in Pillow: a grey that differs by one would be two levels of a colour far from it.
    return tf.floor(tf.reduce_sum(as_float(pictures) * tf.constant(LUMA), axis=-1, keepdims=True) + 0.5)


def _blend(first: tf.Tensor, second: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """`first` for factor 0, `second` for 1, and beyond."""
    return first + _each(factor) * (second - first)
