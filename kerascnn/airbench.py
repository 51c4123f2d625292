"""Networks for the fastest trainings on CIFAR-10. 94% on CIFAR-10 in 3.29 Seconds, https://arxiv.org/abs/2404.00498

Differs from the original: the whitening layer has no bias (24 values, which the original trains for three epochs), so
that nothing below the first convolution needs a gradient; the last pool is global, for pictures of every size.
"""

from collections.abc import Sequence

import keras
from keras import layers

from kerascnn.blocks import Net, check_choice, check_size
from kerascnn.registry import Network, register


def group(net: Net, x: keras.KerasTensor, filters: int, convolutions: int, drop: float, name: str) -> keras.KerasTensor:
    """Convolution, 2x2 max-pool, norm, non-linearity; then more convolutions, of two the sum with their input."""
    filters = net.filters(filters)
    x = net.conv(x, filters, name=f"{name}_1_conv")
    x = net.norm_act(layers.MaxPooling2D(name=f"{name}_pool")(x), name=f"{name}_1")
    if convolutions == 2:
        return net.conv_norm_act(x, filters, name=f"{name}_2")
    y = net.conv_norm_act(x, filters, name=f"{name}_2")
    y = net.conv_norm(y, filters, name=f"{name}_3")
    return net.activate(net.add(x, net.gate(y, name=name), drop, name=name), name=f"{name}_act")


def airbench(
    net: Net, x: keras.KerasTensor, *, filters: Sequence[int] = (64, 256, 256), convolutions: int = 2
) -> keras.KerasTensor:
    """A group of two or three convolutions for each of `filters`, then the largest value of every map."""
    check_size(x, 2 ** len(filters), "airbench behind its whitening" if net.whitening else "airbench")
    check_choice("convolutions", convolutions, (2, 3))
    if convolutions == 2 and (net.stochastic_depth or net.se):
        option = "se" if net.se else "stochastic_depth"
        raise ValueError(f"`{option}` is for residual branches; groups of two convolutions have none.")
    drops = net.drop_rates(len(filters))
    for number, (count, drop) in enumerate(zip(filters, drops, strict=True), start=1):
        x = group(net, x, count, convolutions, drop, name=f"group{number}")
    return net.lose(layers.GlobalMaxPooling2D(name="pool")(x))


COMMON = {
    "whitening": 2,
    "initializer": "dirac",
    "activation": "gelu",
    "frozen_scale": 1.0,
    "epsilon": 1e-12,
    "head_bias": False,
    "head_scale": 1 / 9,
}
# name: (filters and convolutions per group, what is kept of BatchNorm's running statistics, parameters)
VARIANTS = {
    "airbench94": ((64, 256, 256), 2, 0.6, 1_971_328),
    "airbench96": ((128, 384, 512), 3, 0.9, 9_915_392),
}
for _name, (_filters, _convolutions, _momentum, _parameters) in VARIANTS.items():
    _options = {**COMMON, "filters": _filters, "convolutions": _convolutions, "momentum": _momentum}
    register(_name, Network(airbench, _parameters, 10, (32, 32, 3), options=_options, residual=True))
