"""MobileNet v1 and v2: depthwise separable convolutions, inverted residuals.

MobileNets: Efficient Convolutional Neural Networks for Mobile Vision, https://arxiv.org/abs/1704.04861
MobileNetV2: Inverted Residuals and Linear Bottlenecks, https://arxiv.org/abs/1801.04381
"""

import keras
from keras import layers

from kerascnn.blocks import Net, check_choice
from kerascnn.registry import Network, register


def separable_block(net: Net, x: keras.KerasTensor, filters: int, stride: int, name: str) -> keras.KerasTensor:
    """Depthwise 3x3, then 1x1, each with norm and non-linearity."""
    x = net.depthwise_norm_act(x, 3, stride, name=f"{name}_depthwise")
    return net.conv_norm_act(x, filters, 1, name=f"{name}_pointwise")


def inverted_residual(
    net: Net, x: keras.KerasTensor, filters: int, stride: int, expansion: int, drop: float, name: str
) -> keras.KerasTensor:
    """1x1 to `expansion` times the maps, depthwise 3x3, 1x1 without non-linearity; the shortcut where shapes agree."""
    y = x
    if expansion != 1:
        y = net.conv_norm_act(y, expansion * x.shape[-1], 1, name=f"{name}_expand")
    y = net.depthwise_norm_act(y, 3, stride, name=f"{name}_depthwise")
    y = net.conv_norm(y, filters, 1, name=f"{name}_project")
    return net.add(x, net.gate(y, name=name), drop, name=name) if stride == 1 and x.shape[-1] == filters else y


def mobilenet_v1(net: Net, x: keras.KerasTensor, *, stem: str = "imagenet") -> keras.KerasTensor:
    """`stem` is "imagenet" (stride 2) or "small" (stride 1, and none in the next three blocks)."""
    check_choice("stem", stem, ("imagenet", "small"))
    small = stem == "small"
    x = net.conv_norm_act(x, net.filters(32), 3, 1 if small else 2, name="stem")
    for number, (filters, stride) in enumerate(V1_BLOCKS, 1):
        stride = 1 if small and number < 4 else stride
        x = separable_block(net, x, net.filters(filters), stride, name=f"block{number}")
    return net.lose(layers.GlobalAveragePooling2D(name="pool")(x))


def mobilenet_v2(net: Net, x: keras.KerasTensor, *, stem: str = "imagenet") -> keras.KerasTensor:
    """`stem` is "imagenet" (stride 2) or "small" (stride 1, and none in the first two stages)."""
    check_choice("stem", stem, ("imagenet", "small"))
    small = stem == "small"
    x = net.conv_norm_act(x, net.filters(32, 8), 3, 1 if small else 2, name="stem")
    drops = iter(net.drop_rates(sum(count for _, _, count, _ in V2_STAGES)))
    for stage, (expansion, filters, count, first) in enumerate(V2_STAGES, 1):
        for index in range(count):
            stride = first if index == 0 and not (small and stage < 3) else 1
            name = f"stage{stage}_block{index + 1}"
            x = inverted_residual(net, x, net.filters(filters, 8), stride, expansion, next(drops), name)
    x = net.conv_norm_act(x, max(1280, net.filters(1280, 8)), 1, name="last")
    return net.lose(layers.GlobalAveragePooling2D(name="pool")(x))


# (filters, stride) of the blocks: table 1 of the paper
V1_BLOCKS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *(((512, 1),) * 5),
    *((1024, 2), (1024, 1)),
)
# (expansion, filters, blocks, stride of the first) of the stages: table 2 of the paper
V2_STAGES = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)
# Padding and epsilon are those of the authors' implementation, the counts those of Keras and (v2) torchvision.
OPTIONS = {"activation": "relu6", "padding": "same", "epsilon": 1e-3}
register("mobilenet_v1", Network(mobilenet_v1, 4_231_976, options={**OPTIONS, "dropout": 0.001}))
register("mobilenet_v2", Network(mobilenet_v2, 3_504_872, options={**OPTIONS, "dropout": 0.2}, residual=True))
