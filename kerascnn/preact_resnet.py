"""Networks with norm and non-linearity before the convolution: pre-activation ResNet and Wide ResNet.

Identity Mappings in Deep Residual Networks, https://arxiv.org/abs/1603.05027
Wide Residual Networks, https://arxiv.org/abs/1605.07146
"""

from collections.abc import Callable, Sequence
from functools import partial

import keras
from keras import layers

from kerascnn.blocks import Net
from kerascnn.registry import Network, register
from kerascnn.resnet import stages
from kerascnn.resnet_cifar import blocks_of_depth, subsampled


def basic_block(
    net: Net, x: keras.KerasTensor, filters: int, stride: int, drop: float, name: str, *, project: bool = True
) -> keras.KerasTensor:
    """Norm, non-linearity, 3x3, twice; dropout between the convolutions (Wide ResNet, section 2.4)."""
    activated = net.norm_act(x, name=f"{name}_1")
    y = net.conv(activated, filters, 3, stride, name=f"{name}_1_conv")
    y = net.lose(net.norm_act(y, name=f"{name}_2"), name=f"{name}_dropout")
    y = net.gate(net.conv(y, filters, 3, name=f"{name}_2_conv"), name=name)
    if not project:
        return net.add(subsampled(x, filters, stride, name), y, drop, name=name)
    return net.add(projected(net, x, activated, filters, stride, name), y, drop, name=name)


def bottleneck_block(
    net: Net, x: keras.KerasTensor, filters: int, stride: int, drop: float, name: str
) -> keras.KerasTensor:
    """Norm, non-linearity and a convolution, three times: 1x1 to fewer maps, 3x3, 1x1 to four times as many.

    Dropout is before the 3x3 convolution.
    """
    activated = net.norm_act(x, name=f"{name}_1")
    y = net.conv(activated, filters, 1, name=f"{name}_1_conv")
    y = net.lose(net.norm_act(y, name=f"{name}_2"), name=f"{name}_dropout")
    y = net.conv(y, filters, 3, stride, name=f"{name}_2_conv")
    y = net.conv(net.norm_act(y, name=f"{name}_3"), 4 * filters, 1, name=f"{name}_3_conv")
    y = net.gate(y, name=name)
    return net.add(projected(net, x, activated, 4 * filters, stride, name), y, drop, name=name)


def projected(
    net: Net, x: keras.KerasTensor, activated: keras.KerasTensor, filters: int, stride: int, name: str
) -> keras.KerasTensor:
    """The shortcut: x, or a projection of the activated x where the block changes its shape."""
    if stride == 1 and x.shape[-1] == filters:
        return x
    return net.conv(activated, filters, 1, stride, name=f"{name}_shortcut")


def preact_stages(
    net: Net,
    x: keras.KerasTensor,
    block: Callable[..., keras.KerasTensor],
    blocks: Sequence[int],
    filters: Sequence[int],
) -> keras.KerasTensor:
    """A 3x3 stem with the first of `filters`, stages with the others, norm and non-linearity, global pooling."""
    x = net.conv(x, net.filters(filters[0]), name="stem_conv")
    x = stages(net, x, block, blocks, filters[1:])
    return layers.GlobalAveragePooling2D(name="pool")(net.norm_act(x, name="last"))


def preact_resnet(net: Net, x: keras.KerasTensor, *, blocks: Sequence[int] = (2, 2, 2, 2)) -> keras.KerasTensor:
    """The four stages of ResNet-18 for small pictures."""
    return preact_stages(net, x, basic_block, blocks, (64, 64, 128, 256, 512))


def preact_basic(net: Net, x: keras.KerasTensor, *, depth: int = 110) -> keras.KerasTensor:
    """`depth` = 6 n + 2: three stages of n basic blocks with 16, 32 and 64 filters, shortcuts without weights."""
    blocks = blocks_of_depth(depth, 6, 2)
    return preact_stages(net, x, partial(basic_block, project=False), blocks, (16, 16, 32, 64))


def preact_bottleneck(net: Net, x: keras.KerasTensor, *, depth: int = 164) -> keras.KerasTensor:
    """`depth` = 9 n + 2: three stages of n bottleneck blocks with 64, 128 and 256 filters."""
    return preact_stages(net, x, bottleneck_block, blocks_of_depth(depth, 9, 2), (16, 16, 32, 64))


def wide_resnet(net: Net, x: keras.KerasTensor, *, depth: int = 28, widen: int = 10) -> keras.KerasTensor:
    """`depth` = 6 n + 4: three stages of n basic blocks with 16, 32 and 64 times `widen` filters."""
    return preact_stages(net, x, basic_block, blocks_of_depth(depth, 6, 4), (16, 16 * widen, 32 * widen, 64 * widen))


# name: (builder, options, parameters for 10 classes). Those of 164 and of the Wide ResNets are the papers' (1.7, 11.0,
# 36.5 and 8.9 million). 110 has as many as ResNet-110: the same convolutions, the same number of normalised maps.
# 18 has those of ResNet-18 with the small stem (11,173,962), less the norms of its three projections (1,792).
VARIANTS: dict[str, tuple[Callable[..., keras.KerasTensor], dict[str, int], int]] = {
    "preact_resnet18": (preact_resnet, {}, 11_172_170),
    "preact_resnet110": (preact_basic, {"depth": 110}, 1_727_962),
    "preact_resnet164": (preact_bottleneck, {"depth": 164}, 1_703_258),
    "wide_resnet16_8": (wide_resnet, {"depth": 16, "widen": 8}, 10_961_370),
    "wide_resnet28_10": (wide_resnet, {"depth": 28, "widen": 10}, 36_479_194),
    "wide_resnet40_4": (wide_resnet, {"depth": 40, "widen": 4}, 8_949_210),
}
for _name, (_builder, _options, _parameters) in VARIANTS.items():
    register(_name, Network(_builder, _parameters, 10, (32, 32, 3), options=_options, residual=True))
