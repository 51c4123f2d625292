"""AlexNet. One weird trick for parallelizing convolutional neural networks, https://arxiv.org/abs/1404.5997

Differs from ImageNet Classification with Deep Convolutional Neural Networks (https://papers.nips.cc/paper/4824): one
tower instead of two on two GPUs, and no local response normalisation, as in torchvision.
"""

import keras
from keras import layers

from kerascnn.blocks import Net, check_choice, check_size
from kerascnn.registry import Network, register


def alexnet(net: Net, x: keras.KerasTensor, *, stem: str = "imagenet", hidden: int = 4096) -> keras.KerasTensor:
    """Five convolutions, two dense layers of `hidden` units.

    `stem` is "imagenet" (11x11, stride 4) or "small" (3x3, all of the picture).
    """
    check_choice("stem", stem, ("imagenet", "small"))
    check_size(x, 63 if stem == "imagenet" else 15, "alexnet", fixed=True)
    if stem == "imagenet":
        x = layers.ZeroPadding2D(2, name="conv1_pad")(x)
        x = net.conv_norm_act(x, net.filters(64), 11, 4, padding="valid", name="conv1")
    else:
        x = net.conv_norm_act(x, net.filters(64), 3, name="conv1")
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)
    x = net.conv_norm_act(x, net.filters(192), 5, name="conv2")
    x = layers.MaxPooling2D(3, 2, name="pool2")(x)
    x = net.conv_norm_act(x, net.filters(384), 3, name="conv3")
    x = net.conv_norm_act(x, net.filters(256), 3, name="conv4")
    x = net.conv_norm_act(x, net.filters(256), 3, name="conv5")
    x = layers.MaxPooling2D(3, 2, name="pool5")(x)
    x = layers.Flatten(name="flatten")(x)
    for number in (6, 7):
        x = net.lose(x, name=f"dropout{number}")
        x = net.activate(net.dense(x, net.filters(hidden), name=f"dense{number}"), name=f"dense{number}_act")
    return x


# torchvision 0.29's count. The initialisation is uniform: its 61 million values are drawn four times as fast.
OPTIONS = {"norm": "none", "dropout": 0.5, "initializer": "he_uniform"}
register("alexnet", Network(alexnet, 61_100_840, options=OPTIONS))
