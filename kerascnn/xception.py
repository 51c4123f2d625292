"""Xception. Deep Learning with Depthwise Separable Convolutions, https://arxiv.org/abs/1610.02357"""

from collections.abc import Sequence

import keras
from keras import layers

from kerascnn.blocks import Net, check_choice, check_size
from kerascnn.registry import Network, register


def separable(net: Net, x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    """Depthwise 3x3 and 1x1 with nothing between them, then the norm."""
    x = net.depthwise(x, name=f"{name}_depthwise")
    x = net.conv(x, filters, 1, name=f"{name}_pointwise")
    return net.normalise(x, name=f"{name}_norm")


def block(
    net: Net, x: keras.KerasTensor, filters: Sequence[int], stride: int, drop: float, name: str, *, start: bool = True
) -> keras.KerasTensor:
    """Non-linearity (unless not at the `start`) and separable convolutions, a max-pool for the stride, the shortcut."""
    y = x
    for number, count in enumerate(filters, 1):
        if number > 1 or start:
            y = net.activate(y, name=f"{name}_{number}_act")
        y = separable(net, y, net.filters(count), name=f"{name}_{number}")
    if stride != 1:
        y = layers.MaxPooling2D(3, stride, padding="same", name=f"{name}_pool")(y)
    if stride != 1 or x.shape[-1] != y.shape[-1]:
        x = net.conv_norm(x, y.shape[-1], 1, stride, name=f"{name}_shortcut")
    return net.add(x, net.gate(y, name=name), drop, name=name)


def xception(net: Net, x: keras.KerasTensor, *, stem: str = "imagenet") -> keras.KerasTensor:
    """299x299 pixels in the paper; `stem` is "imagenet" (3x3, stride 2) or "small" (3x3, stride 1)."""
    check_choice("stem", stem, ("imagenet", "small"))
    check_size(x, 5, "xception")
    drops = iter(net.drop_rates(12))
    x = net.conv_norm_act(x, net.filters(32), 3, 2 if stem == "imagenet" else 1, padding="valid", name="stem1")
    x = net.conv_norm_act(x, net.filters(64), 3, padding="valid", name="stem2")
    x = block(net, x, (128, 128), 2, next(drops), "entry1", start=False)
    x = block(net, x, (256, 256), 2, next(drops), "entry2")
    x = block(net, x, (728, 728), 2, next(drops), "entry3")
    for number in range(1, 9):
        x = block(net, x, (728, 728, 728), 1, next(drops), f"middle{number}")
    x = block(net, x, (728, 1024), 2, next(drops), "exit")
    for number, filters in ((1, 1536), (2, 2048)):
        x = net.activate(separable(net, x, net.filters(filters), name=f"last{number}"), name=f"last{number}_act")
    return net.lose(layers.GlobalAveragePooling2D(name="pool")(x))


# Keras' trainable count
OPTIONS = {"padding": "same", "epsilon": 1e-3, "dropout": 0.5}
register("xception", Network(xception, 22_855_952, input_shape=(299, 299, 3), options=OPTIONS, residual=True))
