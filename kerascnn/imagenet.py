"""The weights that Keras publishes for ImageNet, imported into our networks."""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from kerascnn.graph import functional, wiring
from kerascnn.registry import AUXILIARY

# Of raw pixels, by Keras' name for the convention: mean, standard deviation, and whether the weights want blue first.
NORMALISATIONS = {
    "caffe": ((123.68, 116.779, 103.939), (1.0, 1.0, 1.0), True),
    "torch": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), False),
    "tf": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5), False),
}
# name: (that of `keras.applications`, convention of the pixels)
PUBLISHED = {
    "vgg16": ("VGG16", "caffe"),
    "vgg19": ("VGG19", "caffe"),
    "inception_v3": ("InceptionV3", "tf"),
    "resnet50": ("ResNet50", "caffe"),
    "resnet101": ("ResNet101", "caffe"),
    "resnet152": ("ResNet152", "caffe"),
    "densenet121": ("DenseNet121", "torch"),
    "densenet169": ("DenseNet169", "torch"),
    "densenet201": ("DenseNet201", "torch"),
    "mobilenet_v1": ("MobileNet", "tf"),
    "mobilenet_v2": ("MobileNetV2", "tf"),
    "xception": ("Xception", "tf"),
    **{f"efficientnet_b{number}": (f"EfficientNetB{number}", "inside") for number in range(8)},
    "convnext_tiny": ("ConvNeXtTiny", "inside"),
}


def load_imagenet(model: keras.Model, source: keras.Model | None = None) -> keras.Model:
    """Import the weights published for `keras.applications` into a network of this package.

    The network's normalisation of the pixels becomes that of the weights. The last layer is imported where the model
    has one output of as many classes as the source (1000), and stays as it is otherwise.

    Args:
        model: As `kerascnn.build` made it, at full width and with the options it was published with.
        source: A model of `keras.applications` to import from instead, with whatever weights it has. Without one the
            published file is taken from Keras' folder of models, or downloaded to it and its hash checked.

    Returns:
        The same model.

    Raises:
        ValueError: No weights are published for this network, or it differs from what they were published for.
        ConnectionError: The file is neither there nor can it be downloaded.

    >>> import keras, kerascnn
    >>> source = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), classes=10)
    >>> model = load_imagenet(kerascnn.build("mobilenet_v2", (32, 32, 3), 10), source)
    """
    check_published(model.name)
    if model.input_shape[-1] != 3:
        raise ValueError(f"The published weights are for 3 channels. Received: input shape {model.input_shape[1:]}.")
    source = download(model.name) if source is None else source
    heads = [layer for layer in model.layers if layer.name.startswith("head_") and layer.weights]
    main = [head for head in heads if not re.search(AUXILIARY, head.name)]
    ours, theirs = list(weighted(keras.Model(model.input, main[0].input))), list(weighted(source))
    if len(theirs) == len(ours) + 1:  # the source has its last layer
        last = theirs.pop()
        if len(heads) == 1 and heads[0].units == source.output_shape[-1]:
            ours, theirs = [*ours, Weighted(heads[0], heads[0].kernel)], [*theirs, last]
    if len(ours) != len(theirs):
        raise ValueError(
            f"{model.name!r} has {len(ours)} layers with weights, its source {len(theirs)}. Build it without options "
            "that add or remove layers."
        )
    mean, std, blue_first = _normalisation(PUBLISHED[model.name][1], source)
    if any(getattr(unit.layer, "frozen_scale", 0) for unit in ours):
        raise ValueError("Published weights have scales of their own. Build the network without `frozen_scale`.")
    weights = _translated(ours, theirs)
    if blue_first:
        weights[0][0] = weights[0][0][:, :, ::-1]
    for unit, values in zip(ours, weights, strict=True):
        unit.layer.set_weights(values)
    normalise = model.get_layer("normalise")
    normalise.input_mean, normalise.input_variance = mean, [value**2 for value in std]
    normalise.build(model.input_shape)
    # Steps that are compiled already hold the normalisation from before.
    model.train_function = model.test_function = model.predict_function = None
    return model


def check_published(name: str) -> None:
    """A `ValueError` where no weights are published for the network of this name."""
    if name not in PUBLISHED:
        raise ValueError(f"No weights are published for {name!r}. Networks with weights: {', '.join(PUBLISHED)}.")


def download(name: str) -> keras.Model:
    """The model of `keras.applications` with its published weights."""
    builder = getattr(keras.applications, PUBLISHED[name][0])
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        return builder(weights="imagenet")
    except Exception as error:
        if "URL fetch failure" not in str(error):
            raise
        raise ConnectionError(
            f"The published weights of {name!r} are not here and cannot be downloaded ({error}). Put the file into "
            "the folder `models` of Keras' home, ~/.keras unless KERAS_HOME says otherwise."
        ) from error
    finally:
        keras.config.set_dtype_policy(policy)


@dataclass(frozen=True)
class Weighted:
    """A layer with weights, or one of the two parts of a separable convolution; a norm has no kernel."""

    layer: layers.Layer
    kernel: keras.Variable | None
    first_part: bool = False

    @property
    def bias(self) -> np.ndarray | None:
        """Of a convolution or dense layer; None where it has none."""
        bias = None if self.first_part else getattr(self.layer, "bias", None)
        return None if bias is None else keras.ops.convert_to_numpy(bias)

    @property
    def form(self) -> tuple[object, ...]:
        """What must agree with its counterpart: the stride and the sizes of the kernel, of which 1 says nothing."""
        stride = getattr(self.layer, "strides", 1)
        stride = stride if isinstance(stride, int) else stride[0]
        if self.kernel is None:
            return (type(self.layer).__name__.removesuffix("alization"), self.layer.beta.shape[0])
        strided = self.first_part or not isinstance(self.layer, layers.SeparableConv2D)
        return (stride if strided else 1, *(size for size in self.kernel.shape if size != 1))


def weighted(model: keras.Model) -> Iterator[Weighted]:
    """The layers with weights in an order that depends on the graph alone, not on names: inputs before outputs.

    Where two branches are added or multiplied, the shorter one comes first, however the model has written them.
    """
    model = functional(model)
    sources, outputs = wiring(model)
    by_name = {operation.name: operation for operation in model.operations}
    depth: dict[str, int] = {}
    for name, taken in sources.items():  # inputs before outputs
        depth[name] = 1 + max((depth[source] for source, _ in taken), default=0)

    # Depth first, without recursion: the networks are deeper than Python's stack.
    ordered: dict[str, None] = {}
    waiting = list(reversed(outputs))
    while waiting:
        name = waiting[-1]
        before = [source for source, _ in sources[name] if source not in ordered]
        if type(by_name[name]).__name__ in ("Add", "Multiply"):
            before.sort(key=lambda source: depth[source])
        if before:
            waiting.append(before[0])
        else:
            ordered[waiting.pop()] = None
    for name in ordered:
        yield from _parts(by_name[name])


def _parts(layer: layers.Layer) -> Iterator[Weighted]:
    if isinstance(layer, keras.Model):
        yield from weighted(layer)
    elif isinstance(layer, layers.SeparableConv2D):
        yield Weighted(layer, layer.depthwise_kernel, first_part=True)
        yield Weighted(layer, layer.pointwise_kernel)
    elif isinstance(layer, layers.BatchNormalization | layers.LayerNormalization):
        yield Weighted(layer, None)
    elif type(layer).__name__ == "LayerScale":
        yield Weighted(layer, layer.gamma)
    elif getattr(layer, "kernel", None) is not None:
        yield Weighted(layer, layer.kernel)


def _translated(ours: Sequence[Weighted], theirs: Sequence[Weighted]) -> list[list[np.ndarray]]:
    """The values for the weights of ours, layer by layer; a bias that ours does not have goes into the next norm."""
    values: list[list[np.ndarray]] = []
    shift: np.ndarray | float = 0.0
    for mine, other in zip(ours, theirs, strict=True):
        if mine.form != other.form:
            raise ValueError(
                f"{mine.layer.name!r} is not as {other.layer.name!r} of the published network: (stride, sizes) are "
                f"{mine.form} instead of {other.form}. Build the network at full width, with the size of pictures and "
                "the options it was published with."
            )
        if mine.kernel is None:
            values.append(_norm_values(mine.layer, other.layer, shift))
            shift = 0.0
            continue
        bias = np.zeros(()) if other.bias is None else other.bias
        values.append([keras.ops.convert_to_numpy(other.kernel).reshape(mine.kernel.shape)])
        if mine.bias is not None:
            values[-1].append(np.broadcast_to(bias, mine.bias.shape))
        else:
            shift = bias
    return values


def _norm_values(mine: layers.Layer, other: layers.Layer, shift: np.ndarray | float) -> list[np.ndarray]:
    """Scale, shift and statistics of a norm behind a convolution that has lost the bias `shift`."""
    beta = keras.ops.convert_to_numpy(other.beta)
    gamma = np.ones_like(beta) if other.gamma is None else keras.ops.convert_to_numpy(other.gamma)
    if isinstance(mine, layers.LayerNormalization):
        return [gamma, beta]
    mean = keras.ops.convert_to_numpy(other.moving_mean) - shift
    # The sum of variance and epsilon is what counts.
    variance = keras.ops.convert_to_numpy(other.moving_variance) + (other.epsilon - mine.epsilon)
    return [gamma, beta, mean, variance]


def _normalisation(convention: str, source: keras.Model) -> tuple[list[float], list[float], bool]:
    """Mean and standard deviation of raw pixels, and whether blue comes first, that the source's weights are for."""
    if convention != "inside":
        mean, std, blue_first = NORMALISATIONS[convention]
        return list(mean), list(std), blue_first
    # The source begins with layers that normalise.
    begin = (layers.InputLayer, layers.Rescaling, layers.Normalization)
    *_, last = itertools.takewhile(lambda operation: isinstance(operation, begin), source.operations)
    inside = keras.Model(source.input, last.output)
    black, white = (
        keras.ops.convert_to_numpy(inside(np.full((1, *source.input_shape[1:]), value, "float32")))[0, 0, 0]
        for value in (0.0, 255.0)
    )
    std = 255.0 / (white - black)
    return (-black * std).tolist(), std.tolist(), False
