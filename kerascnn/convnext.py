"""ConvNeXt-Tiny. A ConvNet for the 2020s, https://arxiv.org/abs/2201.03545"""

from collections.abc import Sequence

import keras
from keras import layers

from kerascnn.blocks import Net, check_choice
from kerascnn.registry import Network, register


@keras.saving.register_keras_serializable(package="kerascnn")
class LayerScale(layers.Layer):
    """Every channel times a learned number that starts at `initial`. https://arxiv.org/abs/2103.17239"""

    def __init__(self, initial: float = 1e-6, **options: object) -> None:
        super().__init__(**options)
        self.initial = initial

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the numbers."""
        initial = keras.initializers.Constant(self.initial)
        self.gamma = self.add_weight(shape=(input_shape[-1],), initializer=initial, name="gamma")

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Scale (..., channels)."""
        return inputs * self.gamma

    def get_config(self) -> dict[str, object]:
        """With the number to start at."""
        return {**super().get_config(), "initial": self.initial}


def convnext_block(net: Net, x: keras.KerasTensor, drop: float, name: str) -> keras.KerasTensor:
    """Depthwise 7x7 and norm, 1x1 to four times the maps, non-linearity, 1x1 back, scale, shortcut."""
    filters = x.shape[-1]
    y = net.normalise(net.depthwise(x, 7, bias=True, name=f"{name}_depthwise"), name=f"{name}_norm")
    y = net.activate(net.conv(y, 4 * filters, 1, bias=True, name=f"{name}_expand"), name=f"{name}_act")
    y = net.conv(y, filters, 1, bias=True, name=f"{name}_project")
    y = LayerScale(name=f"{name}_layer_scale")(net.gate(y, name=name))
    return net.add(x, y, drop, name=name)


def convnext(
    net: Net,
    x: keras.KerasTensor,
    *,
    blocks: Sequence[int] = (3, 3, 9, 3),
    filters: Sequence[int] = (96, 192, 384, 768),
    stem: str = "imagenet",
) -> keras.KerasTensor:
    """`blocks` and `filters` per stage; `stem` is "imagenet" (4x4 patches) or "small" (single pixels)."""
    check_choice("stem", stem, ("imagenet", "small"))
    patch = 4 if stem == "imagenet" else 1
    x = net.conv(x, net.filters(filters[0]), patch, patch, bias=True, padding="valid", name="stem_conv")
    x = net.normalise(x, name="stem_norm")
    drops = iter(net.drop_rates(sum(blocks)))
    for stage, (count, width) in enumerate(zip(blocks, filters, strict=True), 1):
        if stage > 1:
            x = net.normalise(x, name=f"downsample{stage}_norm")
            x = net.conv(x, net.filters(width), 2, 2, bias=True, padding="valid", name=f"downsample{stage}_conv")
        for index in range(count):
            x = convnext_block(net, x, next(drops), name=f"stage{stage}_block{index + 1}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return net.lose(net.normalise(x, name="last_norm"))


# The count of torchvision 0.29 and Keras; stochastic depth as in the paper's table 5
OPTIONS = {"activation": "gelu", "norm": "layer", "epsilon": 1e-6, "stochastic_depth": 0.1}
register("convnext_tiny", Network(convnext, 28_589_128, options=OPTIONS, residual=True))
