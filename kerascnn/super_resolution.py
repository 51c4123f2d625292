"""ESPCN: super-resolution whose only enlarging layer is the last one.

Source: Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network,
https://arxiv.org/abs/1609.05158

Differs from the paper: by default the network learns what bicubic enlargement lacks (https://arxiv.org/abs/1511.04587),
and the sub-pixel convolution starts without a checkerboard pattern (https://arxiv.org/abs/1707.02937).
"""

import keras
from keras import layers

from kerascnn.upsampling import ICNR, DepthToSpace, require_at_least, require_shape, scaled

UPSAMPLING = ("subpixel", "transposed")


def super_resolution(
    input_shape: tuple[int | None, int | None, int],
    scale: int = 2,
    *,
    upsampling: str = "subpixel",
    residual: bool = True,
    width: float = 1.0,
    name: str = "super_resolution",
) -> keras.Model:
    """Raw pixels in [0, 255] to pixels of a picture `scale` times as high and wide, float32, not clipped to [0, 255].

    64 filters of 5x5 and 32 of 3x3 with tanh, as in the paper, then the enlarging layer.

    Args:
        input_shape: (height, width, channels) of the small picture; height and width may be None.
        scale: How many times larger the result is, at least 2.
        upsampling: "subpixel" computes scale^2 channels at the small size and shuffles them into place; "transposed" is
            a transposed convolution.
        residual: Whether the result is added to the bicubic enlargement.
        width: Multiplies the numbers of filters.
        name: Of the model.

    Raises:
        ValueError: A number or a choice does not fit.

    >>> super_resolution((None, None, 1), 3, residual=False).count_params()  # 5*5*64+64 + 9*64*32+32 + 9*32*9+9
    22729
    """
    require_at_least(2, scale=scale)
    require_shape(input_shape)
    if upsampling not in UPSAMPLING:
        raise ValueError(f"`upsampling` must be one of {', '.join(UPSAMPLING)}. Received: upsampling={upsampling!r}.")
    channels = input_shape[-1]
    inputs = keras.Input(input_shape, name="pixels")
    small = layers.Rescaling(1 / 255, dtype="float32", name="scale")(inputs)
    x = layers.Conv2D(scaled(64, width), 5, padding="same", activation="tanh", name="features")(small)
    x = layers.Conv2D(scaled(32, width), 3, padding="same", activation="tanh", name="mapping")(x)
    if upsampling == "subpixel":
        kernel = ICNR(scale)
        x = layers.Conv2D(
            channels * scale**2, 3, padding="same", kernel_initializer=kernel, dtype="float32", name="subpixel"
        )(x)
        x = DepthToSpace(scale, dtype="float32", name="shuffle")(x)
    else:
        # A kernel that is a multiple of the stride gives every pixel of the result equally many sources.
        x = layers.Conv2DTranspose(channels, 2 * scale, scale, padding="same", dtype="float32", name="transposed")(x)
    if residual:
        bicubic = layers.UpSampling2D(scale, interpolation="bicubic", dtype="float32", name="bicubic")(small)
        x = layers.Add(dtype="float32", name="add")([bicubic, x])
    return keras.Model(inputs, layers.Rescaling(255.0, dtype="float32", name="enlarged")(x), name=name)
