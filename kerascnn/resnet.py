"""ResNet. Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385

Differs from the paper: the stride of a bottleneck block sits in its 3x3 convolution, as in torchvision, and the last
BatchNorm of a block starts at zero (https://arxiv.org/abs/1706.02677, section 5.1).
"""

from collections.abc import Callable, Sequence
from functools import partial

import keras
from keras import layers

from kerascnn.blocks import conv_bn, conv_bn_act, heads, pixels
from kerascnn.registry import Network, register


def basic_block(x: keras.KerasTensor, filters: int, stride: int, name: str) -> keras.KerasTensor:
    """Two 3x3 convolutions and the shortcut."""
    y = conv_bn_act(x, filters, 3, stride, name=f"{name}_1")
    y = conv_bn(y, filters, 3, gamma="zeros", name=f"{name}_2")
    return add_shortcut(x, y, stride, name)


def bottleneck_block(x: keras.KerasTensor, filters: int, stride: int, name: str) -> keras.KerasTensor:
    """1x1 to fewer maps, 3x3, 1x1 to four times as many, and the shortcut."""
    y = conv_bn_act(x, filters, 1, name=f"{name}_1")
    y = conv_bn_act(y, filters, 3, stride, name=f"{name}_2")
    y = conv_bn(y, 4 * filters, 1, gamma="zeros", name=f"{name}_3")
    return add_shortcut(x, y, stride, name)


def add_shortcut(x: keras.KerasTensor, y: keras.KerasTensor, stride: int, name: str) -> keras.KerasTensor:
    """ReLU(y + x), with x projected where the block changes its shape."""
    if stride != 1 or x.shape[-1] != y.shape[-1]:
        x = conv_bn(x, y.shape[-1], 1, stride, name=f"{name}_shortcut")
    return layers.Activation("relu", name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, y]))


# name: (block, blocks per stage, parameters for 1000 classes as torchvision 0.29 counts them)
VARIANTS = {
    "resnet18": (basic_block, (2, 2, 2, 2), 11_689_512),
    "resnet34": (basic_block, (3, 4, 6, 3), 21_797_672),
    "resnet50": (bottleneck_block, (3, 4, 6, 3), 25_557_032),
    "resnet101": (bottleneck_block, (3, 4, 23, 3), 44_549_160),
    "resnet152": (bottleneck_block, (3, 8, 36, 3), 60_192_808),
}


def resnet(
    input_shape: tuple[int | None, int | None, int],
    num_classes: int | dict[str, int],
    *,
    block: Callable[..., keras.KerasTensor],
    blocks: Sequence[int],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    stem: str = "imagenet",
    width: float = 1.0,
    dropout: float = 0.0,
    name: str = "resnet",
) -> keras.Model:
    """ResNet with `blocks` per stage; `stem` is "imagenet" (7x7, stride 4 in all) or "small" (3x3, stride 1)."""
    if stem not in ("imagenet", "small"):
        raise ValueError(f"`stem` must be 'imagenet' or 'small'. Received: stem={stem!r}.")
    inputs, x = pixels(input_shape, mean, std)
    if stem == "imagenet":
        x = conv_bn_act(x, int(64 * width), 7, 2, name="stem")
        x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
        x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    else:
        x = conv_bn_act(x, int(64 * width), name="stem")
    for stage, count in enumerate(blocks):
        for index in range(count):
            stride = 2 if stage > 0 and index == 0 else 1
            x = block(x, int(64 * width) * 2**stage, stride, name=f"stage{stage + 1}_block{index + 1}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, heads(x, num_classes, dropout=dropout), name=name)


for _name, (_block, _blocks, _parameters) in VARIANTS.items():
    register(
        _name,
        Network(
            partial(resnet, block=_block, blocks=_blocks),
            parameters=_parameters,
            classes=1000,
            input_shape=(224, 224, 3),
        ),
    )
