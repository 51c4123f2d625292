"""ResNet-9, the 24-epoch CIFAR-10 network. How to Train Your ResNet, https://myrtle.ai/learn/how-to-train-your-resnet/

Differs from the original: the last pool is global, so that pictures of every size from 8 pixels on fit.
"""

import keras
from keras import layers

from kerascnn.blocks import Net, check_size
from kerascnn.registry import Network, register


def residual(net: Net, x: keras.KerasTensor, drop: float, name: str) -> keras.KerasTensor:
    """x + two convolutions of x, with a non-linearity after each, none after the sum."""
    filters = x.shape[-1]
    y = net.conv_norm_act(x, filters, name=f"{name}_1")
    y = net.conv_norm_act(y, filters, name=f"{name}_2")
    return net.add(x, net.gate(y, name=name), drop, name=name)


def pooled(net: Net, x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    """Convolution block, then a 2x2 max-pool."""
    return layers.MaxPooling2D(name=f"{name}_pool")(net.conv_norm_act(x, net.filters(filters), name=name))


def resnet9(net: Net, x: keras.KerasTensor) -> keras.KerasTensor:
    """6,573,120 trainable parameters for 10 classes."""
    check_size(x, 8, "resnet9")
    drops = net.drop_rates(2)
    x = net.conv_norm_act(x, net.filters(64), name="prep")
    x = residual(net, pooled(net, x, 128, name="layer1"), drops[0], name="layer1_residual")
    x = pooled(net, x, 256, name="layer2")
    x = residual(net, pooled(net, x, 512, name="layer3"), drops[1], name="layer3_residual")
    return net.lose(layers.GlobalMaxPooling2D(name="pool")(x))


HEAD = {"head_bias": False, "head_scale": 0.125}
register("resnet9", Network(resnet9, 6_573_120, classes=10, input_shape=(32, 32, 3), options=HEAD, residual=True))
