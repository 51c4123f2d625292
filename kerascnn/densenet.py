"""DenseNet. Densely Connected Convolutional Networks, https://arxiv.org/abs/1608.06993"""

from collections.abc import Sequence

import keras
from keras import layers

from kerascnn.blocks import Net, check_choice
from kerascnn.registry import Network, register
from kerascnn.resnet_cifar import blocks_of_depth


def dense_layer(net: Net, x: keras.KerasTensor, growth: int, bottleneck: bool, name: str) -> keras.KerasTensor:
    """`growth` more maps, computed of all maps so far; a 1x1 convolution to 4 times as many before the 3x3, or not."""
    y = x
    if bottleneck:
        y = net.conv(net.norm_act(y, name=f"{name}_1"), 4 * growth, 1, name=f"{name}_1_conv")
        y = net.lose(y, name=f"{name}_1_dropout")
    y = net.conv(net.norm_act(y, name=f"{name}_2"), growth, 3, name=f"{name}_2_conv")
    y = net.lose(y, name=f"{name}_2_dropout")
    return layers.Concatenate(name=f"{name}_concat")([x, y])


def transition(net: Net, x: keras.KerasTensor, compression: float, name: str) -> keras.KerasTensor:
    """1x1 convolution to a part of the maps, 2x2 average pool."""
    y = net.conv(net.norm_act(x, name=name), int(x.shape[-1] * compression), 1, name=f"{name}_conv")
    return layers.AveragePooling2D(2, name=f"{name}_pool")(net.lose(y, name=f"{name}_dropout"))


def dense_blocks(
    net: Net, x: keras.KerasTensor, blocks: Sequence[int], growth: int, bottleneck: bool, compression: float
) -> keras.KerasTensor:
    """Blocks of so many layers with transitions between them, and global pooling."""
    for block, count in enumerate(blocks, 1):
        if block > 1:
            x = transition(net, x, compression, name=f"transition{block - 1}")
        for layer in range(1, count + 1):
            x = dense_layer(net, x, net.filters(growth), bottleneck, name=f"block{block}_layer{layer}")
    return layers.GlobalAveragePooling2D(name="pool")(net.norm_act(x, name="last"))


def densenet(
    net: Net,
    x: keras.KerasTensor,
    *,
    blocks: Sequence[int] = (6, 12, 24, 16),
    growth: int = 32,
    stem: str = "imagenet",
) -> keras.KerasTensor:
    """DenseNet-BC of four blocks; `stem` is "imagenet" (7x7, a quarter of the picture) or "small" (3x3, all of it)."""
    check_choice("stem", stem, ("imagenet", "small"))
    if stem == "imagenet":
        x = net.conv_norm_act(x, net.filters(2 * growth), 7, 2, name="stem")
        x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
        x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    else:
        x = net.conv(x, net.filters(2 * growth), 3, name="stem_conv")
    return dense_blocks(net, x, blocks, growth, True, 0.5)


def densenet_cifar(net: Net, x: keras.KerasTensor, *, depth: int = 40, growth: int = 12) -> keras.KerasTensor:
    """`depth` = 3 n + 4: three blocks of n layers with one convolution each."""
    x = net.conv(x, net.filters(16), 3, name="stem_conv")
    return dense_blocks(net, x, blocks_of_depth(depth, 3, 4), growth, False, 1.0)


def densenet_bc_cifar(net: Net, x: keras.KerasTensor, *, depth: int = 100, growth: int = 12) -> keras.KerasTensor:
    """`depth` = 6 n + 4: three blocks of n layers with a 1x1 and a 3x3 convolution; transitions halve the maps."""
    x = net.conv(x, net.filters(2 * growth), 3, name="stem_conv")
    return dense_blocks(net, x, blocks_of_depth(depth, 6, 4), growth, True, 0.5)


# name: (layers per block, parameters for 1000 classes as torchvision 0.29 counts them)
VARIANTS = {
    "densenet121": ((6, 12, 24, 16), 7_978_856),
    "densenet169": ((6, 12, 32, 32), 14_149_480),
    "densenet201": ((6, 12, 48, 32), 20_013_928),
}
# name: (builder, depth, growth, parameters for 10 classes: 1.0, 27.2 and 0.8 million in the paper)
CIFAR_VARIANTS = {
    "densenet40_12": (densenet_cifar, 40, 12, 1_019_722),
    "densenet_100_24": (densenet_cifar, 100, 24, 27_249_082),
    "densenet_bc_100_12": (densenet_bc_cifar, 100, 12, 769_162),
}
for _name, (_blocks, _parameters) in VARIANTS.items():
    register(_name, Network(densenet, _parameters, options={"blocks": _blocks}))
for _name, (_builder, _depth, _growth, _parameters) in CIFAR_VARIANTS.items():
    _options = {"depth": _depth, "growth": _growth}
    register(_name, Network(_builder, _parameters, 10, (32, 32, 3), options=_options))
