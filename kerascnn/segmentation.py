"""Encoder-decoder network for a class per pixel.

Sources: Learning Deconvolution Network for Semantic Segmentation, https://arxiv.org/abs/1505.04366; SegNet,
https://arxiv.org/abs/1511.00561; Fully Convolutional Networks, https://arxiv.org/abs/1411.4038

Differs from the papers: two convolutions a level at every depth, instead of VGG-16's thirteen; no dense layers in the
middle, so that any size fits.
"""

import keras
from keras import layers

from kerascnn.batch_norm import BatchNorm
from kerascnn.upsampling import RequireMultiple, Unpool, require_at_least, require_shape, scaled

UPSAMPLING = ("transposed", "unpool")


def segmentation(
    input_shape: tuple[int | None, int | None, int],
    num_classes: int,
    *,
    upsampling: str = "transposed",
    depth: int = 3,
    width: float = 1.0,
    name: str = "segmentation",
) -> keras.Model:
    """Raw pixels in [0, 255] to float32 logits (height, width, num_classes).

    The encoder has 64, 128, ... filters, two 3x3 convolutions with BatchNorm and a 2x2 max pooling a level; the decoder
    is its mirror image.

    Args:
        input_shape: (height, width, channels); the sides are multiples of 2^`depth`, or None for any such size.
        num_classes: Classes that a pixel can have.
        upsampling: "unpool" returns each value to the place of the maximum it came from, then two transposed
            convolutions fill the gaps (the deconvolution network, SegNet); "transposed" doubles by a transposed
            convolution of stride 2, then adds the encoder's maps of that size (FCN's skips).
        depth: How often the picture is halved.
        width: Multiplies all numbers of filters.
        name: Of the model.

    Raises:
        ValueError: A size or a choice does not fit; also when the model is called with pictures of another size.

    >>> segmentation((None, None, 3), 21, width=0.25).output_shape
    (None, None, None, 21)
    """
    require_at_least(1, num_classes=num_classes, depth=depth)
    require_shape(input_shape, 2**depth)
    if upsampling not in UPSAMPLING:
        raise ValueError(f"`upsampling` must be one of {', '.join(UPSAMPLING)}. Received: upsampling={upsampling!r}.")
    inputs = keras.Input(input_shape, name="pixels")
    x = layers.Rescaling(1 / 127.5, -1.0, dtype="float32", name="scale")(inputs)
    x = RequireMultiple(2**depth, dtype="float32", name="require_multiple")(x)
    filters = [scaled(64 * 2**level, width) for level in range(depth)]
    before = []
    for level, count in enumerate(filters):
        x = _two_convolutions(x, layers.Conv2D, (count, count), f"encoder{level + 1}")
        before.append(x)
        x = layers.MaxPooling2D(name=f"encoder{level + 1}_pool")(x)
    for level in reversed(range(depth)):
        # The last convolution of a level has as many filters as the next level's maps, to which its values return.
        counts = (filters[level], filters[max(level - 1, 0)])
        if upsampling == "unpool":
            x = Unpool(name=f"decoder{level + 1}_unpool")(x, before[level])
        else:
            x = layers.Conv2DTranspose(counts[0], 2, 2, use_bias=False, name=f"decoder{level + 1}_double")(x)
            x = layers.Add(name=f"decoder{level + 1}_skip")([x, before[level]])
        x = _two_convolutions(x, layers.Conv2DTranspose, counts, f"decoder{level + 1}")
    return keras.Model(inputs, layers.Conv2D(num_classes, 1, dtype="float32", name="logits")(x), name=name)


def _two_convolutions(
    x: keras.KerasTensor, kind: type[layers.Layer], filters: tuple[int, int], name: str
) -> keras.KerasTensor:
    """3x3 convolution, BatchNorm and ReLU, twice; `kind` is Conv2D or Conv2DTranspose."""
    for number, count in enumerate(filters, start=1):
        x = kind(count, 3, padding="same", use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv{number}")(
            x
        )
        x = BatchNorm(momentum=0.9, epsilon=1e-5, name=f"{name}_bn{number}")(x)
        x = layers.Activation("relu", name=f"{name}_act{number}")(x)
    return x
