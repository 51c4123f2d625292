"""ResNet-9, the 24-epoch CIFAR-10 network. How to Train Your ResNet, https://myrtle.ai/learn/how-to-train-your-resnet/

Differs from the original: the last pool is global, so that pictures of every size from 8 pixels on fit.
"""

from collections.abc import Sequence

import keras
from keras import layers

from kerascnn.blocks import conv_bn_act, heads, pixels
from kerascnn.registry import Network, register


def residual(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """x + two convolutions of x, with a non-linearity after each, none after the sum."""
    filters = x.shape[-1]
    y = conv_bn_act(x, filters, name=f"{name}_1")
    y = conv_bn_act(y, filters, name=f"{name}_2")
    return layers.Add(name=f"{name}_add")([x, y])


def pooled(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    """Convolution block, then a 2x2 max-pool."""
    return layers.MaxPooling2D(name=f"{name}_pool")(conv_bn_act(x, filters, name=name))


def resnet9(
    input_shape: tuple[int | None, int | None, int],
    num_classes: int | dict[str, int],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    width: float = 1.0,
    dropout: float = 0.0,
    name: str = "resnet9",
) -> keras.Model:
    """ResNet-9: 6,573,120 trainable parameters for 10 classes; `width` multiplies every number of filters."""
    if any(size is not None and size < 8 for size in input_shape[:2]):
        raise ValueError(f"`resnet9` halves the picture three times and needs 8 pixels. Received: {input_shape}.")
    filters = [int(base * width) for base in (64, 128, 256, 512)]
    inputs, x = pixels(input_shape, mean, std)
    x = conv_bn_act(x, filters[0], name="prep")
    x = residual(pooled(x, filters[1], name="layer1"), name="layer1_residual")
    x = pooled(x, filters[2], name="layer2")
    x = residual(pooled(x, filters[3], name="layer3"), name="layer3_residual")
    x = layers.GlobalMaxPooling2D(name="pool")(x)
    return keras.Model(inputs, heads(x, num_classes, dropout=dropout, use_bias=False, scale=0.125), name=name)


register("resnet9", Network(resnet9, parameters=6_573_120, classes=10, input_shape=(32, 32, 3)))
