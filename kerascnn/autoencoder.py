"""Convolutional auto-encoder: strided convolutions to a code, transposed convolutions back to the picture.

Sources: Reducing the Dimensionality of Data with Neural Networks, https://doi.org/10.1126/science.1127647; transposed
convolutions: https://arxiv.org/abs/1603.07285, chapter 4. Kernels of 4 pixels are multiples of the stride of 2, so that
no checkerboard pattern arises (https://distill.pub/2016/deconv-checkerboard).
"""

import keras
from keras import layers

from kerascnn.upsampling import require_at_least, require_shape, scaled


def autoencoder(
    input_shape: tuple[int, int, int],
    code_size: int = 32,
    *,
    width: float = 1.0,
    depth: int = 2,
    name: str = "autoencoder",
) -> keras.Model:
    """The encoder and the decoder in one model: raw pixels in [0, 255] in, the same kind of pixels out, float32.

    The two parts are its layers "encoder" and "decoder", and work alone.

    Args:
        input_shape: (height, width, channels); height and width are multiples of 2^`depth`.
        code_size: Numbers that a picture is reduced to.
        width: Multiplies all numbers of filters.
        depth: How often the picture is halved.
        name: Of the model.

    Raises:
        ValueError: A size does not fit.

    >>> model = autoencoder((32, 32, 3), code_size=16)
    >>> model.get_layer("encoder").output_shape, model.get_layer("decoder").output_shape
    ((None, 16), (None, 32, 32, 3))
    """
    inputs = keras.Input(input_shape, name="pixels")
    code = encoder(input_shape, code_size, width=width, depth=depth)(inputs)
    return keras.Model(inputs, decoder(input_shape, code_size, width=width, depth=depth)(code), name=name)


def encoder(
    input_shape: tuple[int, int, int],
    code_size: int = 32,
    *,
    width: float = 1.0,
    depth: int = 2,
    name: str = "encoder",
) -> keras.Model:
    """Pixels in [0, 255] to a float32 code: 32, 64, ... filters, each layer halving the picture; see `autoencoder`."""
    require_at_least(1, code_size=code_size, depth=depth)
    require_shape(input_shape, 2**depth, fixed=True)
    inputs = keras.Input(input_shape, name="pixels")
    x = layers.Rescaling(1 / 255, dtype="float32", name="encoder_scale")(inputs)
    for level in range(depth):
        x = _half_or_double(layers.Conv2D, scaled(32 * 2**level, width), f"encoder_conv{level + 1}")(x)
        x = layers.Activation("relu", name=f"encoder_act{level + 1}")(x)
    x = layers.Flatten(name="encoder_flatten")(x)
    return keras.Model(inputs, layers.Dense(code_size, dtype="float32", name="encoder_code")(x), name=name)


def decoder(
    output_shape: tuple[int, int, int],
    code_size: int = 32,
    *,
    width: float = 1.0,
    depth: int = 2,
    name: str = "decoder",
) -> keras.Model:
    """A code to float32 pixels in [0, 255]: the encoder's mirror image; see `autoencoder`."""
    require_at_least(1, code_size=code_size, depth=depth)
    require_shape(output_shape, 2**depth, fixed=True)
    height, columns, channels = output_shape
    filters = [scaled(32 * 2**level, width) for level in range(depth)]
    start = (height // 2**depth, columns // 2**depth, filters[-1])
    inputs = keras.Input((code_size,), name="code")
    x = layers.Dense(start[0] * start[1] * start[2], activation="relu", name="decoder_project")(inputs)
    x = layers.Reshape(start, name="decoder_reshape")(x)
    for level in range(depth - 1, 0, -1):
        x = _half_or_double(layers.Conv2DTranspose, filters[level - 1], f"decoder_conv{level + 1}")(x)
        x = layers.Activation("relu", name=f"decoder_act{level + 1}")(x)
    x = _half_or_double(layers.Conv2DTranspose, channels, "decoder_conv1", dtype="float32")(x)
    x = layers.Activation("sigmoid", dtype="float32", name="decoder_sigmoid")(x)
    return keras.Model(inputs, layers.Rescaling(255.0, dtype="float32", name="decoder_pixels")(x), name=name)


def _half_or_double(kind: type[layers.Layer], filters: int, name: str, **options: object) -> layers.Layer:
    return kind(filters, 4, 2, padding="same", kernel_initializer="he_normal", name=name, **options)
