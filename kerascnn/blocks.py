"""The pieces that every network shares: its pixel input, convolution blocks and classification heads."""

import re
from collections.abc import Sequence

import keras
from keras import layers

from kerascnn.batch_norm import BatchNorm

# The statistics of ImageNet in pixel units, the defaults when nothing is known of the pictures.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


def pixels(
    input_shape: tuple[int | None, int | None, int],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The input (raw pixels in [0, 255]) and the same, zero-centred with unit variance.

    The layer works in float32 under every policy: bfloat16 holds 8 bits, too few for `pixel - mean`.
    """
    channels = input_shape[-1]
    mean, std = (_per_channel("mean", mean, channels, IMAGENET_MEAN), _per_channel("std", std, channels, IMAGENET_STD))
    if min(std) <= 0:
        raise ValueError(f"`std` must be positive in every channel. Received: std={std}.")
    inputs = keras.Input(input_shape, name="pixels")
    normalise = layers.Normalization(mean=mean, variance=[value**2 for value in std], dtype="float32", name="normalise")
    return inputs, normalise(inputs)


def _per_channel(
    argument: str, values: Sequence[float] | None, channels: int, imagenet: tuple[float, ...]
) -> list[float]:
    if values is None:
        return list(imagenet) if channels == 3 else [sum(imagenet) / 3] * channels
    if len(values) != channels:
        raise ValueError(f"`{argument}` needs one value per channel ({channels}). Received: {list(values)}.")
    return [float(value) for value in values]


def conv_bn(
    x: keras.KerasTensor, filters: int, kernel: int = 3, stride: int = 1, *, gamma: str = "ones", name: str
) -> keras.KerasTensor:
    """Convolution without bias, then BatchNorm; padding (kernel - 1) / 2 on each side, at every stride."""
    if stride > 1 and kernel > 1:
        # "same" pads one side only when the stride is 2; the papers' networks pad both.
        x = layers.ZeroPadding2D((kernel - 1) // 2, name=f"{name}_pad")(x)
    x = layers.Conv2D(
        filters,
        kernel,
        stride,
        padding="valid" if stride > 1 else "same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    return BatchNorm(momentum=0.9, epsilon=1e-5, gamma_initializer=gamma, name=f"{name}_bn")(x)


def conv_bn_act(
    x: keras.KerasTensor, filters: int, kernel: int = 3, stride: int = 1, *, activation: str = "relu", name: str
) -> keras.KerasTensor:
    """Convolution, BatchNorm, non-linearity."""
    x = conv_bn(x, filters, kernel, stride, name=name)
    return layers.Activation(activation, name=f"{name}_act")(x)


def heads(
    features: keras.KerasTensor,
    num_classes: int | dict[str, int],
    *,
    dropout: float = 0.0,
    use_bias: bool = True,
    scale: float = 1.0,
) -> keras.KerasTensor | dict[str, keras.KerasTensor]:
    """One dense layer of float32 logits per head on the shared features (hard parameter sharing)."""
    sizes = num_classes if isinstance(num_classes, dict) else {"logits": num_classes}
    if not sizes or min(sizes.values()) < 1:
        raise ValueError(f"`num_classes` needs at least one class per head. Received: {num_classes}.")
    if dropout:
        features = layers.Dropout(dropout, name="dropout")(features)

    outputs = {}
    for number, (head, classes) in enumerate(sizes.items()):
        # A head is named by its user, a layer must be an identifier that no other layer has.
        name = f"head_{number}_" + re.sub(r"\W", "_", head, flags=re.ASCII)
        logits = layers.Dense(classes, use_bias=use_bias, dtype="float32", name=name)(features)
        if scale != 1.0:
            logits = layers.Rescaling(scale, dtype="float32", name=f"{name}_scale")(logits)
        outputs[head] = logits
    return outputs if isinstance(num_classes, dict) else outputs["logits"]
