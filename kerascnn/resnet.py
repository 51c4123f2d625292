"""ResNet, Wide ResNet-50, ResNeXt and their SE forms, for ImageNet.

Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385
Aggregated Residual Transformations (ResNeXt), https://arxiv.org/abs/1611.05431
Squeeze-and-Excitation Networks, https://arxiv.org/abs/1709.01507

Differs from the papers: the last norm of a block starts at zero (https://arxiv.org/abs/1706.02677, section 5.1).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
from keras import layers

from kerascnn.blocks import Net, check_choice
from kerascnn.registry import Network, register


def basic_block(net: Net, x: keras.KerasTensor, filters: int, stride: int, drop: float, name: str) -> keras.KerasTensor:
    """Two 3x3 convolutions and the shortcut."""
    y = net.conv_norm_act(x, filters, 3, stride, name=f"{name}_1")
    y = net.conv_norm(y, filters, 3, gamma="zeros", name=f"{name}_2")
    return shortcut(net, x, y, stride, drop, name)


def bottleneck_block(
    net: Net,
    x: keras.KerasTensor,
    filters: int,
    stride: int,
    drop: float,
    name: str,
    *,
    groups: int = 1,
    group_width: int = 64,
    downsample: str = "3x3",
) -> keras.KerasTensor:
    """1x1 to fewer maps, 3x3 (in groups), 1x1 to 4 times as many as `filters`, and the shortcut."""
    inner = filters * groups * group_width // 64 // groups * groups
    strides = (stride, 1) if downsample == "1x1" else (1, stride)
    y = net.conv_norm_act(x, max(groups, inner), 1, strides[0], name=f"{name}_1")
    y = net.conv_norm_act(y, max(groups, inner), 3, strides[1], groups=groups, name=f"{name}_2")
    y = net.conv_norm(y, 4 * filters, 1, gamma="zeros", name=f"{name}_3")
    return shortcut(net, x, y, stride, drop, name)


def shortcut(
    net: Net, x: keras.KerasTensor, y: keras.KerasTensor, stride: int, drop: float, name: str
) -> keras.KerasTensor:
    """The non-linearity of x + y, with x projected where the block changes its shape."""
    if stride != 1 or x.shape[-1] != y.shape[-1]:
        x = net.conv_norm(x, y.shape[-1], 1, stride, name=f"{name}_shortcut")
    return net.activate(net.add(x, net.gate(y, name=name), drop, name=name), name=f"{name}_out")


def stages(
    net: Net,
    x: keras.KerasTensor,
    block: Callable[..., keras.KerasTensor],
    blocks: Sequence[int],
    filters: Sequence[int],
) -> keras.KerasTensor:
    """So many blocks with so many filters, stage by stage; each stage but the first halves the picture."""
    drops = iter(net.drop_rates(sum(blocks)))
    for stage, (count, width) in enumerate(zip(blocks, filters, strict=True), 1):
        for index in range(1, count + 1):
            stride = 2 if stage > 1 and index == 1 else 1
            x = block(net, x, net.filters(width), stride, next(drops), f"stage{stage}_block{index}")
    return x


def imagenet_resnet(
    net: Net, x: keras.KerasTensor, block: Callable[..., keras.KerasTensor], blocks: Sequence[int], stem: str
) -> keras.KerasTensor:
    """The stem, four stages that each double the filters, global pooling."""
    check_choice("stem", stem, ("imagenet", "small"))
    if stem == "imagenet":
        x = net.conv_norm_act(x, net.filters(64), 7, 2, name="stem")
        x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
        x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    else:
        x = net.conv_norm_act(x, net.filters(64), 3, name="stem")
    x = stages(net, x, block, blocks, (64, 128, 256, 512))
    return net.lose(layers.GlobalAveragePooling2D(name="pool")(x))


def basic_resnet(
    net: Net, x: keras.KerasTensor, *, blocks: Sequence[int] = (2, 2, 2, 2), stem: str = "imagenet"
) -> keras.KerasTensor:
    """`blocks` per stage; `stem` is "imagenet" (7x7, a quarter of the picture) or "small" (3x3, all of it)."""
    return imagenet_resnet(net, x, basic_block, blocks, stem)


def bottleneck_resnet(
    net: Net,
    x: keras.KerasTensor,
    *,
    blocks: Sequence[int] = (3, 4, 6, 3),
    groups: int = 1,
    group_width: int = 64,
    downsample: str = "3x3",
    stem: str = "imagenet",
) -> keras.KerasTensor:
    """As `basic_resnet`; a stage's stride is in the first 1x1 convolution (`downsample="1x1"`) or in the 3x3 one.

    The 1x1 is the paper's and that of the weights published by Keras; the 3x3 is torchvision's, which costs 6 % more
    and is more accurate.
    """
    check_choice("downsample", downsample, ("1x1", "3x3"))
    block = partial(bottleneck_block, groups=groups, group_width=group_width, downsample=downsample)
    return imagenet_resnet(net, x, block, blocks, stem)


# name: (blocks per stage, parameters for 1000 classes, options); counts of torchvision 0.29, those with SE of timm
BASIC_VARIANTS: dict[str, tuple[tuple[int, ...], int, dict[str, Any]]] = {
    "resnet18": ((2, 2, 2, 2), 11_689_512, {}),
    "resnet34": ((3, 4, 6, 3), 21_797_672, {}),
    "se_resnet18": ((2, 2, 2, 2), 11_778_592, {"se": 16}),
}
BOTTLENECK_VARIANTS: dict[str, tuple[tuple[int, ...], int, dict[str, Any]]] = {
    "resnet50": ((3, 4, 6, 3), 25_557_032, {"downsample": "1x1"}),
    "resnet101": ((3, 4, 23, 3), 44_549_160, {"downsample": "1x1"}),
    "resnet152": ((3, 8, 36, 3), 60_192_808, {"downsample": "1x1"}),
    "wide_resnet50_2": ((3, 4, 6, 3), 68_883_240, {"group_width": 128}),
    "resnext50_32x4d": ((3, 4, 6, 3), 25_028_904, {"groups": 32, "group_width": 4}),
    "resnext101_32x8d": ((3, 4, 23, 3), 88_791_336, {"groups": 32, "group_width": 8}),
    "se_resnet50": ((3, 4, 6, 3), 28_088_024, {"se": 16}),
    "se_resnext50_32x4d": ((3, 4, 6, 3), 27_559_896, {"se": 16, "groups": 32, "group_width": 4}),
}
for _builder, _variants in ((basic_resnet, BASIC_VARIANTS), (bottleneck_resnet, BOTTLENECK_VARIANTS)):
    for _name, (_blocks, _parameters, _options) in _variants.items():
        register(_name, Network(_builder, _parameters, options={"blocks": _blocks, **_options}, residual=True))
