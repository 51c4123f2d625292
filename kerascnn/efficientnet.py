"""EfficientNet B0 to B7. Rethinking Model Scaling for Convolutional Neural Networks, https://arxiv.org/abs/1905.11946"""

import math

import keras
from keras import layers

from kerascnn.blocks import Net, check_choice
from kerascnn.registry import Network, register


def mobile_block(
    net: Net, x: keras.KerasTensor, filters: int, kernel: int, stride: int, expansion: int, drop: float, name: str
) -> keras.KerasTensor:
    """Inverted residual with Squeeze-and-Excitation inside: expand, depthwise, gate, project, shortcut."""
    y = x
    if expansion != 1:
        y = net.conv_norm_act(y, expansion * x.shape[-1], 1, name=f"{name}_expand")
    y = net.depthwise_norm_act(y, kernel, stride, name=f"{name}_depthwise")
    # The gate squeezes to a quarter of the block's input, not of the expanded maps.
    y = net.squeeze_excite(y, max(1, x.shape[-1] // 4), activation=net.activation, name=f"{name}_gate")
    y = net.conv_norm(y, filters, 1, name=f"{name}_project")
    return net.add(x, y, drop, name=name) if stride == 1 and x.shape[-1] == filters else y


# (expansion, filters, kernel, stride of the first, blocks) of the stages of B0: table 1 of the paper
STAGES = (
    (1, 16, 3, 1, 1),
    (6, 24, 3, 2, 2),
    (6, 40, 5, 2, 2),
    (6, 80, 3, 2, 3),
    (6, 112, 5, 1, 3),
    (6, 192, 5, 2, 4),
    (6, 320, 3, 1, 1),
)


def efficientnet(
    net: Net, x: keras.KerasTensor, *, wider: float = 1.0, deeper: float = 1.0, stem: str = "imagenet"
) -> keras.KerasTensor:
    """Compound scaling: B0 with `wider` times the filters (on top of `width`) and `deeper` times the blocks.

    `stem` is "imagenet" (stride 2) or "small" (stride 1, and none in the first two stages).
    """
    check_choice("stem", stem, ("imagenet", "small"))
    if net.se:
        raise ValueError(f"EfficientNet has gates of its own: leave `se` out. Received: se={net.se}.")
    small = stem == "small"
    x = net.conv_norm_act(x, net.filters(32 * wider, 8), 3, 1 if small else 2, name="stem")
    counts = [math.ceil(deeper * count) for *_, count in STAGES]
    drops = iter(net.drop_rates(sum(counts)))
    for stage, ((expansion, filters, kernel, first, _), count) in enumerate(zip(STAGES, counts, strict=True), 1):
        for index in range(count):
            stride = first if index == 0 and not (small and stage < 3) else 1
            name = f"stage{stage}_block{index + 1}"
            width = net.filters(filters * wider, 8)
            x = mobile_block(net, x, width, kernel, stride, expansion, next(drops), name)
    x = net.conv_norm_act(x, net.filters(1280 * wider, 8), 1, name="last")
    return net.lose(layers.GlobalAveragePooling2D(name="pool")(x))


# name: (wider, deeper, pixels, dropout, parameters for 1000 classes as Keras and torchvision count them)
VARIANTS = {
    "efficientnet_b0": (1.0, 1.0, 224, 0.2, 5_288_548),
    "efficientnet_b1": (1.0, 1.1, 240, 0.2, 7_794_184),
    "efficientnet_b2": (1.1, 1.2, 260, 0.3, 9_109_994),
    "efficientnet_b3": (1.2, 1.4, 300, 0.3, 12_233_232),
    "efficientnet_b4": (1.4, 1.8, 380, 0.4, 19_341_616),
    "efficientnet_b5": (1.6, 2.2, 456, 0.4, 30_389_784),
    "efficientnet_b6": (1.8, 2.6, 528, 0.5, 43_040_704),
    "efficientnet_b7": (2.0, 3.1, 600, 0.5, 66_347_960),
}
# Padding, epsilon and the rate of stochastic depth are those of the authors' implementation.
OPTIONS = {"activation": "silu", "padding": "same", "epsilon": 1e-3, "stochastic_depth": 0.2}
for _name, (_wider, _deeper, _pixels, _dropout, _parameters) in VARIANTS.items():
    _options = {**OPTIONS, "wider": _wider, "deeper": _deeper, "dropout": _dropout}
    _shape = (_pixels, _pixels, 3)
    register(_name, Network(efficientnet, _parameters, input_shape=_shape, options=_options, residual=True))
