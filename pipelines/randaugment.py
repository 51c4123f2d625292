"""RandAugment: a few of fourteen operations for every picture, all of one strength.

Source: RandAugment: Practical automated data augmentation with a reduced search space, https://arxiv.org/abs/1909.13719
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from pipelines.colour import (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    adjust_sharpness,
    autocontrast,
    equalize,
    posterize,
    solarize,
)
from pipelines.fill import check_fill
from pipelines.geometry import reach, resample
from pipelines.operation import Choice, Operation, Size, one_of
from pipelines.randomness import fork, uniform

STRONGEST = 30  # the magnitude at which every operation is as strong as it gets


def randaugment(count: int = 2, magnitude: float = 9, fill: str = "constant", value: float = 0.0) -> Operation:
    """`count` operations in a row for every picture, each one of the fourteen, equally likely, chosen per picture.

    Args:
        count: How many; the paper's N.
        magnitude: From 0 to 30; the paper's M. At 30: turn by 30 degrees, slant by 0.3, move by 0.45 of the side,
            colour, contrast, brightness and sharpness by a factor of 0.1 or 1.9, solarize from 0, keep 4 bits.
            Geometric operations and factors go either way at random.
        fill, value: What lies outside a picture that was moved, as for `affine`.
    """
    if count < 1 or not 0 <= magnitude <= STRONGEST:
        raise ValueError(
            f"`count` must be at least 1 and `magnitude` lie in [0, {STRONGEST}]. "
            f"Received: count={count}, magnitude={magnitude}."
        )
    check_fill(fill)
    step = one_of(fourteen_operations(magnitude / STRONGEST, fill, value))

    def draw(seeds: tf.Tensor, size: Size) -> Choice:
        return [step.draw(fork(seeds, number), size) for number in range(count)]

    def apply(pictures: tf.Tensor, choices: Choice) -> tf.Tensor:
        for choice in choices:
            pictures = step.apply(pictures, choice)
        return pictures

    return Operation("randaugment", draw, apply)


def fourteen_operations(strength: float, fill: str = "constant", value: float = 0.0) -> list[Operation]:
    """The paper's operations at a strength from 0 to 1."""

    def coin(seeds: tf.Tensor) -> tf.Tensor:
        return tf.cast(uniform(seeds, 1)[:, 0] < 0.5, "int32")

    def by_factor(name: str, adjust: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> Operation:
        factors = tf.constant([1 - 0.9 * strength, 1 + 0.9 * strength])
        return Operation(name, lambda seeds, size: tf.gather(factors, coin(seeds)), adjust)

    def geometric(name: str, of: Callable[[float], Sequence[float]]) -> Operation:
        """`of` says the matrix a, b, c, d and the shift down and right for a signed strength."""
        maps = np.array([of(-strength), of(strength)], "float32")

        def apply(pictures: tf.Tensor, choice: tf.Tensor) -> tf.Tensor:
            margin = reach(tuple(pictures.shape[1:3]), maps[:, :4].reshape(2, 2, 2), np.abs(maps[:, 4:]).max())
            return resample(pictures, choice[:, :4], choice[:, 4:], fill, value, margin)

        return Operation(name, lambda seeds, size: tf.gather(maps, coin(seeds)), apply)

    def fixed(name: str, function: Callable[..., tf.Tensor], *amount: float) -> Operation:
        def apply(pictures: tf.Tensor, amounts: tf.Tensor) -> tf.Tensor:
            return function(pictures, *tf.unstack(amounts, axis=1))

        return Operation(name, lambda seeds, size: tf.tile([tf.constant(amount)], [tf.shape(seeds)[0], 1]), apply)

    def rotation(k: float) -> Sequence[float]:
        angle = k * math.radians(30)
        return [math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle), 0, 0]

    return [
        fixed("identity", lambda pictures: pictures),
        fixed("autocontrast", autocontrast),
        fixed("equalize", equalize),
        fixed("solarize", solarize, 256.0 * (1 - strength)),
        fixed("posterize", posterize, 8.0 - round(4 * strength)),
        by_factor("contrast", adjust_contrast),
        by_factor("colour", adjust_saturation),
        by_factor("brightness", adjust_brightness),
        by_factor("sharpness", adjust_sharpness),
        geometric("rotate", rotation),
        geometric("shear_x", lambda k: [1, 0.3 * k, 0, 1, 0, 0]),
        geometric("shear_y", lambda k: [1, 0, 0.3 * k, 1, 0, 0]),
        geometric("translate_x", lambda k: [1, 0, 0, 1, 0, 0.45 * k]),
        geometric("translate_y", lambda k: [1, 0, 0, 1, 0.45 * k, 0]),
    ]
