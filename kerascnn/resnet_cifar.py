"""ResNets for 32x32 pixels: the original with parameter-free shortcuts, and ResNeXt-29.

Deep Residual Learning for Image Recognition, section 4.2, https://arxiv.org/abs/1512.03385
Aggregated Residual Transformations (ResNeXt), https://arxiv.org/abs/1611.05431
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
from keras import layers

from kerascnn.blocks import Net
from kerascnn.registry import Network, register
from kerascnn.resnet import bottleneck_block, stages


def subsampled(x: keras.KerasTensor, filters: int, stride: int, name: str) -> keras.KerasTensor:
    """The shortcut without weights (option A): every second pixel, and zeros for the channels that x does not have."""
    if stride != 1:
        x = layers.MaxPooling2D(1, stride, name=f"{name}_subsample")(x)
    if missing := filters - x.shape[-1]:
        # "channels_first" makes the layer pad the last two axes: here the width by nothing, and the channels.
        padding = ((0, 0), (missing // 2, missing - missing // 2))
        x = layers.ZeroPadding2D(padding, data_format="channels_first", name=f"{name}_channels")(x)
    return x


def plain_block(net: Net, x: keras.KerasTensor, filters: int, stride: int, drop: float, name: str) -> keras.KerasTensor:
    """Two 3x3 convolutions and the shortcut without weights."""
    y = net.conv_norm_act(x, filters, 3, stride, name=f"{name}_1")
    y = net.conv_norm(y, filters, 3, name=f"{name}_2")
    x = subsampled(x, filters, stride, name)
    return net.activate(net.add(x, net.gate(y, name=name), drop, name=name), name=f"{name}_out")


def blocks_of_depth(depth: int, per_block: int, others: int) -> list[int]:
    """The number of blocks in each of three stages, where `depth` = `per_block` n + `others`."""
    blocks, rest = divmod(depth - others, per_block)
    if blocks < 1 or rest:
        fitting = ", ".join(str(per_block * n + others) for n in (1, 2, 3))
        raise ValueError(f"`depth` must be {per_block} n + {others}: {fitting}, ... Received: depth={depth}.")
    return [blocks] * 3


def small_resnet(
    net: Net, x: keras.KerasTensor, block: Callable[..., keras.KerasTensor], blocks: Sequence[int], filters: int
) -> keras.KerasTensor:
    """A 3x3 stem with `filters`, three stages that each double them, global pooling."""
    x = net.conv_norm_act(x, net.filters(filters), name="stem")
    x = stages(net, x, block, blocks, (filters, 2 * filters, 4 * filters))
    return net.lose(layers.GlobalAveragePooling2D(name="pool")(x))


def resnet_cifar(net: Net, x: keras.KerasTensor, *, depth: int = 20) -> keras.KerasTensor:
    """`depth` = 6 n + 2: three stages of n blocks with 16, 32 and 64 filters."""
    return small_resnet(net, x, plain_block, blocks_of_depth(depth, 6, 2), 16)


def resnext_cifar(
    net: Net, x: keras.KerasTensor, *, depth: int = 29, groups: int = 8, group_width: int = 64
) -> keras.KerasTensor:
    """`depth` = 9 n + 2: three stages of n bottleneck blocks with 256, 512 and 1024 filters."""
    block = partial(bottleneck_block, groups=groups, group_width=group_width)
    return small_resnet(net, x, block, blocks_of_depth(depth, 9, 2), 64)


# depth: parameters for 10 classes, from the layers' sizes in the paper (0.27, 0.46, 0.66, 0.85 and 1.7 million there)
DEPTHS = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962}
CIFAR: dict[str, Any] = {"classes": 10, "input_shape": (32, 32, 3), "residual": True}
for _depth, _parameters in DEPTHS.items():
    register(f"resnet{_depth}", Network(resnet_cifar, _parameters, options={"depth": _depth}, **CIFAR))
register("resnext29_8x64d", Network(resnext_cifar, 34_426_698, **CIFAR))  # 34.4 million in the paper
