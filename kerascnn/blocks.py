"""What every network is made of: `Net` holds the options that all of them share and makes their layers."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import keras
from keras import layers

from kerascnn.batch_norm import BatchNorm
from kerascnn.convolution import Conv2D
from kerascnn.initializers import EveryChannel, get_initializer
from kerascnn.whitening import PatchWhitening

# The statistics of ImageNet in pixel units, the defaults when nothing is known of the pictures.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
NORMS = ("batch", "layer", "group", "none")


@dataclass(frozen=True)
class Net:
    """The options common to all networks, and the pieces that are made with them.

    Attributes:
        mean, std: Of the pictures, one value per channel in pixel units; ImageNet's where none are given.
        width: Multiplies the number of filters of every layer.
        activation: Name of a Keras activation: relu, leaky_relu (slope 0.1), elu, gelu, silu, tanh, ...
        norm: "batch", "layer" (over the channels), "group" (32 groups, or as many as divide the channels) or "none"
            (convolutions then have a bias).
        dropout: Probability of losing a feature, before the head or where the network's paper puts it.
        stochastic_depth: Probability of losing the last residual branch; it grows linearly from the first.
        se: Reduction of Squeeze-and-Excitation at the end of every residual branch; True is the paper's 16, 0 none.
        l1, l2: Penalties on the kernels, added to the loss.
        initializer: Name of a Keras initialiser for the kernels, except those of the heads, which are Glorot's:
            he_normal, glorot_uniform, lecun_normal, orthogonal, ..., or dirac (`kerascnn.initializers.Dirac`).
        input_noise: Standard deviation of Gaussian noise on the normalised pictures, in training.
        momentum, epsilon: Of the running statistics of BatchNorm; of the divisor of every norm.
        frozen_scale: What the scale of every BatchNorm stays at, instead of being trained; 0 trains it.
        norm_parts: Parts of a batch that BatchNorm normalises each on its own (`kerascnn.batch_norm`).
        whitening: Side of the patches that a first layer whitens (`kerascnn.whitening`, usually 2), a non-linearity
            behind it; 0 for none. `fit_whitening` computes its filters from the pictures.
        padding: Of convolutions with a stride: "symmetric" ((kernel - 1) / 2 on each side, as in the papers) or "same"
            (TensorFlow's, which pads one side only).
        head_bias, head_scale: Whether the last layer has a bias; what its outputs are multiplied by.
    """

    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    width: float = 1.0
    activation: str = "relu"
    norm: str = "batch"
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    se: int = 0
    l1: float = 0.0
    l2: float = 0.0
    initializer: str = "he_normal"
    input_noise: float = 0.0
    momentum: float = 0.9
    epsilon: float = 1e-5
    frozen_scale: float = 0.0
    norm_parts: int = 1
    whitening: int = 0
    padding: str = "symmetric"
    head_bias: bool = True
    head_scale: float = 1.0

    def __post_init__(self) -> None:
        """Check every option; `Net` holds nothing else."""
        for option in fields(self):
            value, default = getattr(self, option.name), option.default
            number = isinstance(default, int | float)
            if (number and not isinstance(value, int | float)) or (isinstance(default, str) and type(value) is not str):
                kind = "a number" if number else "text"
                raise ValueError(f"`{option.name}` must be {kind}. Received: {option.name}={value!r}.")
        for name, fits, expected in (
            ("width", self.width > 0, "positive"),
            ("norm", self.norm in NORMS, f"one of {', '.join(NORMS)}"),
            ("dropout", 0 <= self.dropout < 1, "in [0, 1)"),
            ("stochastic_depth", 0 <= self.stochastic_depth < 1, "in [0, 1)"),
            ("se", self.se >= 0 and int(self.se) == self.se, "a whole number, 0 or more"),
            ("l1", self.l1 >= 0, "0 or more"),
            ("l2", self.l2 >= 0, "0 or more"),
            ("input_noise", self.input_noise >= 0, "0 or more"),
            ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
            ("epsilon", self.epsilon > 0, "positive"),
            ("frozen_scale", self.frozen_scale >= 0, "0 or more"),
            ("frozen_scale", not self.frozen_scale or self.norm == "batch", "0 unless the norm is 'batch'"),
            ("norm_parts", type(self.norm_parts) is int and self.norm_parts >= 1, "a whole number, 1 or more"),
            ("whitening", type(self.whitening) is int and self.whitening >= 0, "a whole number, 0 or more"),
            ("padding", self.padding in ("symmetric", "same"), "'symmetric' or 'same'"),
        ):
            if not fits:
                raise ValueError(f"`{name}` must be {expected}. Received: {name}={getattr(self, name)!r}.")
        for name, find in (("activation", keras.activations.get), ("initializer", get_initializer)):
            try:
                find(getattr(self, name))
            except (ValueError, TypeError) as error:
                raise ValueError(f"`{name}` must name one of Keras. Received: {getattr(self, name)!r}.") from error

    def filters(self, count: float, multiple: int = 1) -> int:
        """So many filters at this width; to the nearest multiple, but never less than 90 % of what was asked for."""
        wanted = count * self.width
        nearest = max(multiple, int(wanted + multiple // 2) // multiple * multiple)
        return nearest + multiple if nearest < 0.9 * wanted and multiple > 1 else nearest

    def pixels(self, input_shape: tuple[int | None, int | None, int]) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """The input (raw pixels in [0, 255]) and the same, zero-centred with unit variance.

        The layer works in float32 under every policy: bfloat16 holds 8 bits, too few for `pixel - mean`.
        """
        mean, std = normalisation(input_shape[-1], self.mean, self.std)
        inputs = keras.Input(input_shape, name="pixels")
        variance = [value**2 for value in std]
        x = layers.Normalization(mean=mean, variance=variance, dtype="float32", name="normalise")(inputs)
        if self.input_noise:
            x = layers.GaussianNoise(self.input_noise, name="input_noise")(x)
        if self.whitening:
            check_size(x, self.whitening, "whitening")
            x = PatchWhitening(input_shape[-1], self.whitening, name="whitening")(x)
            x = self.activate(x, name="whitening_act")
        return inputs, x

    def conv(
        self,
        x: keras.KerasTensor,
        filters: int,
        kernel: int | tuple[int, int] = 3,
        stride: int = 1,
        *,
        groups: int = 1,
        bias: bool = False,
        padding: str | None = None,
        initializer: str | None = None,
        name: str,
    ) -> keras.KerasTensor:
        """Convolution; `padding` and `initializer` are those of the network unless they are given.

        It has a bias where the network has no norm, or where `bias` asks for it.
        """
        x, padding = self._padded(x, kernel, stride, padding, name)
        return Conv2D(
            filters,
            kernel,
            stride,
            padding=padding,
            groups=groups,
            use_bias=bias or self.norm == "none",
            kernel_initializer=get_initializer(initializer or self.initializer, groups),
            kernel_regularizer=self._penalty(),
            name=name,
        )(x)

    def depthwise(
        self, x: keras.KerasTensor, kernel: int = 3, stride: int = 1, *, bias: bool = False, name: str
    ) -> keras.KerasTensor:
        """One filter for every channel."""
        x, padding = self._padded(x, kernel, stride, None, name)
        return layers.DepthwiseConv2D(
            kernel,
            stride,
            padding=padding,
            use_bias=bias,
            depthwise_initializer=EveryChannel(self.initializer),
            depthwise_regularizer=self._penalty(),
            name=name,
        )(x)

    def _padded(
        self, x: keras.KerasTensor, kernel: int | tuple[int, int], stride: int, padding: str | None, name: str
    ) -> tuple[keras.KerasTensor, str]:
        """The picture and Keras' padding argument; with stride 1 "same" is symmetric already."""
        padding = padding or self.padding
        if padding != "symmetric":
            return x, padding
        if stride == 1:
            return x, "same"
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        if (height, width) != (1, 1):
            x = layers.ZeroPadding2D(((height - 1) // 2, (width - 1) // 2), name=f"{name}_pad")(x)
        return x, "valid"

    def dense(self, x: keras.KerasTensor, units: int, *, name: str) -> keras.KerasTensor:
        """Dense layer with a bias, without a non-linearity."""
        return layers.Dense(
            units, kernel_initializer=get_initializer(self.initializer), kernel_regularizer=self._penalty(), name=name
        )(x)

    def normalise(self, x: keras.KerasTensor, *, gamma: str = "ones", name: str) -> keras.KerasTensor:
        """The network's norm; `gamma` names the initialiser of its scale."""
        if self.norm == "batch":
            return BatchNorm(
                gamma_initializer=gamma,
                momentum=self.momentum,
                epsilon=self.epsilon,
                frozen_scale=self.frozen_scale,
                parts=self.norm_parts,
                name=name,
            )(x)
        if self.norm == "layer":
            return layers.LayerNormalization(epsilon=self.epsilon, gamma_initializer=gamma, name=name)(x)
        if self.norm == "group":
            groups = math.gcd(32, x.shape[-1])
            return layers.GroupNormalization(groups, epsilon=self.epsilon, gamma_initializer=gamma, name=name)(x)
        return x

    def activate(self, x: keras.KerasTensor, *, activation: str | None = None, name: str) -> keras.KerasTensor:
        """The network's non-linearity, or the one that is named."""
        activation = activation or self.activation
        if activation == "leaky_relu":
            return layers.LeakyReLU(0.1, name=name)(x)
        return layers.Activation(activation, name=name)(x)

    def conv_norm(
        self,
        x: keras.KerasTensor,
        filters: int,
        kernel: int | tuple[int, int] = 3,
        stride: int = 1,
        *,
        gamma: str = "ones",
        name: str,
        **convolution: Any,
    ) -> keras.KerasTensor:
        """Convolution (`convolution`: the other options of `conv`) and norm.

        `gamma` names the initialiser of the norm's scale; zeros are the kernel's where there is no norm.
        """
        if self.norm == "none" and gamma == "zeros":
            convolution["initializer"] = gamma
        x = self.conv(x, filters, kernel, stride, name=f"{name}_conv", **convolution)
        return self.normalise(x, gamma=gamma, name=f"{name}_norm")

    def conv_norm_act(
        self,
        x: keras.KerasTensor,
        filters: int,
        kernel: int | tuple[int, int] = 3,
        stride: int = 1,
        *,
        name: str,
        **convolution: Any,
    ) -> keras.KerasTensor:
        """Convolution (with the other options of `conv`), norm, non-linearity."""
        return self.activate(self.conv_norm(x, filters, kernel, stride, name=name, **convolution), name=f"{name}_act")

    def depthwise_norm_act(
        self, x: keras.KerasTensor, kernel: int = 3, stride: int = 1, *, name: str
    ) -> keras.KerasTensor:
        """Depthwise convolution, norm, non-linearity."""
        x = self.depthwise(x, kernel, stride, bias=self.norm == "none", name=f"{name}_conv")
        return self.activate(self.normalise(x, name=f"{name}_norm"), name=f"{name}_act")

    def norm_act(self, x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
        """Norm and non-linearity, which stand before the convolution in pre-activation networks."""
        return self.activate(self.normalise(x, name=f"{name}_norm"), name=f"{name}_act")

    def squeeze_excite(
        self, x: keras.KerasTensor, squeezed: int, *, activation: str = "relu", name: str
    ) -> keras.KerasTensor:
        """Every channel times a gate in (0, 1) that looks at all of them. https://arxiv.org/abs/1709.01507"""
        gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_pool")(x)
        gate = self.conv(gate, squeezed, 1, bias=True, name=f"{name}_squeeze")
        gate = self.activate(gate, activation=activation, name=f"{name}_squeeze_act")
        gate = self.conv(gate, x.shape[-1], 1, bias=True, name=f"{name}_excite")
        gate = layers.Activation("sigmoid", name=f"{name}_gate")(gate)
        return layers.Multiply(name=f"{name}_scale")([x, gate])

    def gate(self, branch: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
        """Squeeze-and-Excitation at the end of a residual branch, where the option `se` asks for it."""
        if not self.se:
            return branch
        reduction = 16 if self.se is True else int(self.se)
        return self.squeeze_excite(branch, max(1, branch.shape[-1] // reduction), name=f"{name}_se")

    def add(self, x: keras.KerasTensor, branch: keras.KerasTensor, drop: float, *, name: str) -> keras.KerasTensor:
        """The shortcut x plus the residual branch.

        Stochastic depth (https://arxiv.org/abs/1603.09382) loses the whole branch of a picture with probability `drop`.
        """
        if drop:
            branch = layers.Dropout(drop, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(branch)
        return layers.Add(name=f"{name}_add")([x, branch])

    def drop_rates(self, blocks: int) -> list[float]:
        """Of the residual branches from the first to the last, by the linear rule of stochastic depth."""
        return [self.stochastic_depth * (block + 1) / blocks for block in range(blocks)]

    def lose(self, x: keras.KerasTensor, *, name: str = "dropout") -> keras.KerasTensor:
        """Dropout, where the option asks for it."""
        return layers.Dropout(self.dropout, name=name)(x) if self.dropout else x

    def heads(
        self, features: keras.KerasTensor, num_classes: dict[str, int], *, suffix: str = ""
    ) -> dict[str, keras.KerasTensor]:
        """One dense layer of float32 logits per head on the shared features (hard parameter sharing)."""
        outputs = {}
        for number, (head, classes) in enumerate(num_classes.items()):
            # A head is named by its user, a layer must be an identifier that no other layer has.
            name = f"head_{number}_" + re.sub(r"\W", "_", head, flags=re.ASCII) + suffix
            logits = layers.Dense(
                classes,
                use_bias=self.head_bias,
                kernel_regularizer=self._penalty(),
                dtype="float32",
                name=name,
            )(features)
            if self.head_scale != 1.0:
                logits = layers.Rescaling(self.head_scale, dtype="float32", name=f"{name}_scale")(logits)
            outputs[head + suffix] = logits
        return outputs

    def _penalty(self) -> keras.Regularizer | None:
        return keras.regularizers.L1L2(self.l1, self.l2) if self.l1 or self.l2 else None


def normalisation(
    channels: int, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel: those given, or else ImageNet's."""
    found = []
    for argument, values, imagenet in (("mean", mean, IMAGENET_MEAN), ("std", std, IMAGENET_STD)):
        if values is None:
            values = imagenet if channels == 3 else [sum(imagenet) / 3] * channels
        if isinstance(values, int | float) or len(values) != channels:
            raise ValueError(f"`{argument}` needs one value per channel ({channels}). Received: {values}.")
        found.append([float(value) for value in values])
    if min(found[1]) <= 0:
        raise ValueError(f"`std` must be positive in every channel. Received: std={found[1]}.")
    return found[0], found[1]


def check_choice(argument: str, value: object, choices: Sequence[object]) -> None:
    """A `ValueError` where the value is none of the choices."""
    if value not in choices:
        expected = " or ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{argument}` must be {expected}. Received: {argument}={value!r}.")


def check_size(x: keras.KerasTensor, least: int, network: str, fixed: bool = False) -> None:
    """A `ValueError` where a picture is too small to be reduced, or its size is unknown and must be `fixed`."""
    height, width = x.shape[1:3]
    if fixed and None in (height, width):
        raise ValueError(f"`{network}` flattens the picture: its height and width must be given. Received: None.")
    if any(size is not None and size < least for size in (height, width)):
        raise ValueError(f"`{network}` needs {least} pixels in height and width. Received: {height}x{width}.")
