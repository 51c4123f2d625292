"""GoogLeNet (Inception v1). Going Deeper with Convolutions, https://arxiv.org/abs/1409.4842

Exactly the paper's: a true 5x5 branch, biases, local response normalisation and no BatchNorm; `norm="batch"` puts
BatchNorm after every convolution instead.
"""

import keras
from keras import layers, ops

from kerascnn.blocks import Net, check_choice, check_size
from kerascnn.registry import Network, register


@keras.saving.register_keras_serializable(package="kerascnn")
class LocalResponseNormalization(layers.Layer):
    """Each value divided by (1 + 1e-4 / 5 * sum of the squares of the 5 channels around it)^0.75.

    Source: section 3.3 of https://papers.nips.cc/paper/4824, with the constants of the GoogLeNet that was published.
    """

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Normalise (batch, height, width, channels)."""
        channels = inputs.shape[-1]
        squares = ops.pad(ops.square(inputs), ((0, 0), (0, 0), (0, 0), (2, 2)))
        total = sum(squares[..., shift : shift + channels] for shift in range(5))
        return inputs / (1.0 + 1e-4 / 5 * total) ** 0.75

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """That of the inputs."""
        return input_shape


def inception(
    net: Net,
    x: keras.KerasTensor,
    filters: tuple[int, int, int, int, int, int],
    name: str,
) -> keras.KerasTensor:
    """1x1, 1x1 and 3x3, 1x1 and 5x5, pool and 1x1, side by side; `filters` are in the order of the paper's table 1."""
    one, three_reduce, three, five_reduce, five, pool = (net.filters(count) for count in filters)
    a = net.conv_norm_act(x, one, 1, name=f"{name}_1x1")
    b = net.conv_norm_act(x, three_reduce, 1, name=f"{name}_3x3_reduce")
    b = net.conv_norm_act(b, three, 3, name=f"{name}_3x3")
    c = net.conv_norm_act(x, five_reduce, 1, name=f"{name}_5x5_reduce")
    c = net.conv_norm_act(c, five, 5, name=f"{name}_5x5")
    d = layers.MaxPooling2D(3, 1, padding="same", name=f"{name}_pool")(x)
    d = net.conv_norm_act(d, pool, 1, name=f"{name}_pool_1x1")
    return layers.Concatenate(name=f"{name}_concat")([a, b, c, d])


# The inception modules of the paper's table 1
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def auxiliary_features(net: Net, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """What an auxiliary classifier sees: 5x5 average pool with stride 3, 1x1 convolution, a dense layer, dropout."""
    check_size(x, 5, "the auxiliary head, on a map", fixed=True)
    x = layers.AveragePooling2D(5, 3, name=f"{name}_pool")(x)
    x = net.conv_norm_act(x, net.filters(128), 1, name=f"{name}_1x1")
    x = layers.Flatten(name=f"{name}_flatten")(x)
    x = net.activate(net.dense(x, net.filters(1024), name=f"{name}_dense"), name=f"{name}_dense_act")
    return layers.Dropout(0.7, name=f"{name}_dropout")(x)


def googlenet(
    net: Net, x: keras.KerasTensor, *, auxiliary: bool = False, stem: str = "imagenet"
) -> keras.KerasTensor | list[keras.KerasTensor]:
    """Nine modules; with `auxiliary`, two more heads, after 4a and 4d.

    `stem` is "imagenet" (an eighth of the picture) or "small" (3x3, all of it).
    """
    check_choice("stem", stem, ("imagenet", "small"))
    if stem == "imagenet":
        x = net.conv_norm_act(x, net.filters(64), 7, 2, name="stem1")
        x = layers.MaxPooling2D(3, 2, padding="same", name="stem1_pool")(x)
        x = respond(net, x, name="stem1_response")
        x = net.conv_norm_act(x, net.filters(64), 1, name="stem2_reduce")
        x = net.conv_norm_act(x, net.filters(192), 3, name="stem2")
        x = respond(net, x, name="stem2_response")
        x = layers.MaxPooling2D(3, 2, padding="same", name="stem2_pool")(x)
    else:
        x = net.conv_norm_act(x, net.filters(192), 3, name="stem")
    extra = []
    for module, filters in MODULES.items():
        if module in ("4a", "5a"):
            x = layers.MaxPooling2D(3, 2, padding="same", name=f"pool{module[0]}")(x)
        x = inception(net, x, filters, name=f"inception{module}")
        if auxiliary and module in ("4a", "4d"):
            extra.append(auxiliary_features(net, x, name=f"auxiliary{module}"))
    x = net.lose(layers.GlobalAveragePooling2D(name="pool")(x))
    return [x, *extra] if auxiliary else x


def respond(net: Net, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Local response normalisation where the network has no other norm."""
    return LocalResponseNormalization(name=name)(x) if net.norm == "none" else x


# The count of the layers of the paper's table 1; 13,378,280 with the auxiliary heads
register("googlenet", Network(googlenet, 6_998_552, options={"norm": "none", "dropout": 0.4}))
