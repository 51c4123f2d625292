"""Inception v3. Rethinking the Inception Architecture for Computer Vision, https://arxiv.org/abs/1512.00567"""

from collections.abc import Sequence

import keras
from keras import layers

from kerascnn.blocks import Net, check_size
from kerascnn.registry import Network, register

Step = tuple[int, int | tuple[int, int]]  # filters, kernel


def branch(
    net: Net, x: keras.KerasTensor, steps: Sequence[Step], name: str, *, reduce: bool = False
) -> keras.KerasTensor:
    """Convolutions one after the other; with `reduce` the last one has stride 2 and no padding."""
    for number, (filters, kernel) in enumerate(steps, 1):
        last = reduce and number == len(steps)
        stride, padding = (2, "valid") if last else (1, "same")
        x = net.conv_norm_act(x, net.filters(filters), kernel, stride, padding=padding, name=f"{name}_{number}")
    return x


def pooled(net: Net, x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    """3x3 average pool of stride 1, then 1x1."""
    x = layers.AveragePooling2D(3, 1, padding="same", name=f"{name}_pool")(x)
    return branch(net, x, [(filters, 1)], f"{name}_pool")


def joined(name: str, parts: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
    """The branches side by side."""
    return layers.Concatenate(name=f"{name}_concat")(list(parts))


def module_5x5(net: Net, x: keras.KerasTensor, pool: int, name: str) -> keras.KerasTensor:
    """Figure 5: the 5x5 branch beside one of two 3x3."""
    return joined(
        name,
        [
            branch(net, x, [(64, 1)], f"{name}_1x1"),
            branch(net, x, [(48, 1), (64, 5)], f"{name}_5x5"),
            branch(net, x, [(64, 1), (96, 3), (96, 3)], f"{name}_double"),
            pooled(net, x, pool, name),
        ],
    )


def module_7x7(net: Net, x: keras.KerasTensor, inner: int, name: str) -> keras.KerasTensor:
    """Figure 6: 7x7 as 1x7 and 7x1."""
    wide, high = (1, 7), (7, 1)
    return joined(
        name,
        [
            branch(net, x, [(192, 1)], f"{name}_1x1"),
            branch(net, x, [(inner, 1), (inner, wide), (192, high)], f"{name}_7x7"),
            branch(net, x, [(inner, 1), (inner, high), (inner, wide), (inner, high), (192, wide)], f"{name}_double"),
            pooled(net, x, 192, name),
        ],
    )


def module_wide(net: Net, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Figure 7: 3x3 as 1x3 and 3x1 side by side."""
    parts = [branch(net, x, [(320, 1)], f"{name}_1x1")]
    for kind, steps in (("3x3", [(384, 1)]), ("double", [(448, 1), (384, 3)])):
        y = branch(net, x, steps, f"{name}_{kind}")
        halves = [
            branch(net, y, [(384, kernel)], f"{name}_{kind}_{kernel[0]}x{kernel[1]}") for kernel in ((1, 3), (3, 1))
        ]
        parts.append(joined(f"{name}_{kind}", halves))
    return joined(name, [*parts, pooled(net, x, 192, name)])


def reduction(net: Net, x: keras.KerasTensor, branches: Sequence[Sequence[Step]], name: str) -> keras.KerasTensor:
    """Branches of stride 2 beside a max-pool."""
    parts = [branch(net, x, steps, f"{name}_{number}", reduce=True) for number, steps in enumerate(branches, 1)]
    return joined(name, [*parts, layers.MaxPooling2D(3, 2, name=f"{name}_pool")(x)])


def auxiliary_features(net: Net, x: keras.KerasTensor) -> keras.KerasTensor:
    """What the auxiliary classifier sees of the last 17x17 map."""
    check_size(x, 17, "the auxiliary head, on a map", fixed=True)
    x = layers.AveragePooling2D(5, 3, name="auxiliary_pool")(x)
    x = net.conv_norm_act(x, net.filters(128), 1, name="auxiliary_1x1")
    x = net.conv_norm_act(x, net.filters(768), 5, padding="valid", name="auxiliary_5x5")
    return layers.GlobalAveragePooling2D(name="auxiliary_global_pool")(x)


def inception_v3(
    net: Net, x: keras.KerasTensor, *, auxiliary: bool = False
) -> keras.KerasTensor | list[keras.KerasTensor]:
    """299x299 pixels in the paper, 75 at least; with `auxiliary`, one more head after the 17x17 modules."""
    check_size(x, 75, "inception_v3")
    x = net.conv_norm_act(x, net.filters(32), 3, 2, padding="valid", name="stem1")
    x = net.conv_norm_act(x, net.filters(32), 3, padding="valid", name="stem2")
    x = net.conv_norm_act(x, net.filters(64), 3, name="stem3")
    x = layers.MaxPooling2D(3, 2, name="stem3_pool")(x)
    x = net.conv_norm_act(x, net.filters(80), 1, name="stem4")
    x = net.conv_norm_act(x, net.filters(192), 3, padding="valid", name="stem5")
    x = layers.MaxPooling2D(3, 2, name="stem5_pool")(x)
    for number, pool in enumerate((32, 64, 64)):
        x = module_5x5(net, x, pool, f"mixed{number}")
    x = reduction(net, x, [[(384, 3)], [(64, 1), (96, 3), (96, 3)]], "mixed3")
    for number, inner in enumerate((128, 160, 160, 192), 4):
        x = module_7x7(net, x, inner, f"mixed{number}")
    extra = [auxiliary_features(net, x)] if auxiliary else []
    x = reduction(net, x, [[(192, 1), (320, 3)], [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3)]], "mixed8")
    for number in (9, 10):
        x = module_wide(net, x, f"mixed{number}")
    x = net.lose(layers.GlobalAveragePooling2D(name="pool")(x))
    return [x, *extra] if auxiliary else x


# torchvision 0.29 counts 27,161,264 with the auxiliary head, which has 3,326,696; Keras 17,216 less, for its BatchNorm
# has no scale.
OPTIONS = {"dropout": 0.2, "epsilon": 1e-3}
register("inception_v3", Network(inception_v3, 23_834_568, input_shape=(299, 299, 3), options=OPTIONS))
