"""VGG. Very Deep Convolutional Networks for Large-Scale Image Recognition, https://arxiv.org/abs/1409.1556"""

from collections.abc import Sequence

import keras
from keras import layers

from kerascnn.blocks import Net, check_size
from kerascnn.registry import Network, register

FILTERS = (64, 128, 256, 512, 512)


def vgg(
    net: Net, x: keras.KerasTensor, *, convolutions: Sequence[int] = (2, 2, 3, 3, 3), hidden: int = 4096
) -> keras.KerasTensor:
    """`convolutions` per stage, each stage ended by a 2x2 max-pool, then two dense layers of `hidden` units."""
    check_size(x, 32, "vgg", fixed=True)
    for stage, (count, filters) in enumerate(zip(convolutions, FILTERS, strict=True), 1):
        for number in range(1, count + 1):
            # The bias is there with a norm too, as in torchvision.
            x = net.conv_norm_act(x, net.filters(filters), 3, bias=True, name=f"stage{stage}_{number}")
        x = layers.MaxPooling2D(name=f"stage{stage}_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    for number in (1, 2):
        x = net.activate(net.dense(x, net.filters(hidden), name=f"dense{number}"), name=f"dense{number}_act")
        x = net.lose(x, name=f"dropout{number}")
    return x


# name: (convolutions per stage, parameters of torchvision 0.29 without and with BatchNorm)
VARIANTS = {
    "vgg11": ((1, 1, 2, 2, 2), 132_863_336, 132_868_840),
    "vgg13": ((2, 2, 2, 2, 2), 133_047_848, 133_053_736),
    "vgg16": ((2, 2, 3, 3, 3), 138_357_544, 138_365_992),
    "vgg19": ((2, 2, 4, 4, 4), 143_667_240, 143_678_248),
}
for _name, (_convolutions, _plain, _batch) in VARIANTS.items():
    # Uniform: drawing 130 million values from the truncated normal distribution takes three seconds.
    _options = {"convolutions": _convolutions, "dropout": 0.5, "initializer": "he_uniform"}
    register(_name, Network(vgg, _plain, options={**_options, "norm": "none"}))
    register(f"{_name}_bn", Network(vgg, _batch, options=_options))
