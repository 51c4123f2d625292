"""BatchNorm folded into the layer before it: the same network with fewer layers, for export and inference.

In inference BatchNorm is a multiplication and an addition per channel, and so is a part of any linear layer before it.
Source: Batch Normalization, https://arxiv.org/abs/1502.03167; folding: https://arxiv.org/abs/1712.05877, 3.2
"""

from collections import Counter
from collections.abc import Callable

import keras
import numpy as np
from keras import layers, ops

from kerascnn.convolution import Conv2D
from kerascnn.graph import copy_weights, functional, wiring

# Linear layers whose last kernel has one slice per output channel. Subclasses may use their kernel differently.
LINEAR = (layers.Dense, layers.Conv2D, Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D, layers.Conv2DTranspose)


@keras.saving.register_keras_serializable(package="kerascnn")
class ChannelAffine(layers.Layer):
    """Multiply every channel (last axis) by its `scale` and add its `offset`, in float32 under every policy.

    Source: what BatchNorm is in inference, https://arxiv.org/abs/1502.03167

    >>> import numpy as np
    >>> layer = ChannelAffine()
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.array([2.0, 3.0]), np.array([0.5, -1.0])])
    >>> np.array(layer(np.array([[10.0, 20.0]]))).tolist()
    [[20.5, 59.0]]
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """One scale and one offset per channel."""
        shape = (input_shape[-1],)
        self.scale = self.add_weight(shape, "ones", "float32", autocast=False, name="scale")
        self.offset = self.add_weight(shape, "zeros", "float32", autocast=False, name="offset")

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """`inputs * scale + offset`; bfloat16 would round `scale` and `offset` to 8 bits."""
        return ops.cast(ops.cast(inputs, "float32") * self.scale + self.offset, self.compute_dtype)

    def get_config(self) -> dict[str, object]:
        """The common arguments; Keras saves a layer with a dtype policy only if its class has this method."""
        return super().get_config()


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """The same network without any BatchNorm; for inference, since nothing is normalised in training any more.

    A BatchNorm goes into the kernel and the bias of the dense layer or convolution (also depthwise, separable,
    transposed, grouped) directly before it, when that layer is linear and nothing else uses its output. Any other
    (after an addition, a concatenation, padding) becomes a `ChannelAffine` of the same name. Nested models are folded
    too. The given model and its weights stay as they are; names, dtypes, inputs and the form of the outputs are kept.

    Args:
        model: A functional or sequential model. BatchNorm must work on the last axis.

    Raises:
        ValueError: The model is no graph of layers, or has a BatchNorm that cannot be replaced.

    Source: https://arxiv.org/abs/1712.05877, 3.2

    >>> import kerascnn
    >>> model = kerascnn.build("resnet9", (32, 32, 3), 10, width=0.125)
    >>> folded = fold_batch_norm(model)
    >>> any(isinstance(layer, keras.layers.BatchNormalization) for layer in folded.layers)
    False
    """
    plain = functional(model)
    into = _foldable(plain)
    norms = {linear: norm for norm, linear in into.items()}

    def clone(layer: layers.Layer) -> layers.Layer:
        if isinstance(layer, keras.Model):
            return fold_batch_norm(layer)
        if isinstance(layer, layers.BatchNormalization):
            kind = layers.Identity if layer.name in into else ChannelAffine
            return kind(name=layer.name, dtype=layer.dtype_policy, trainable=layer.trainable)
        _refuse_inner_norms(layer)
        config = layer.get_config()
        return type(layer).from_config({**config, "use_bias": True} if layer.name in norms else config)

    def call(layer: layers.Layer, *args: object, **kwargs: object) -> object:
        if kwargs.get("training") and (layer.name in affine or isinstance(layer, keras.Model)):
            raise ValueError(f"Layer {layer.name!r} always works in training mode. Call it without `training=True`.")
        if layer.name not in affine:
            return layer(*args, **kwargs)
        inputs = args[0] if args else kwargs["inputs"]
        return inputs if layer.name in into else layer(inputs)

    affine = {layer.name for layer in plain.layers if isinstance(layer, layers.BatchNormalization)}
    folded = keras.models.clone_model(plain, clone_function=clone, call_function=call)
    for layer in plain.layers:
        if isinstance(layer, keras.Model | layers.InputLayer) or layer.name in into:
            continue
        if layer.name in affine:
            weights = list(scale_and_offset(layer))
        elif layer.name in norms:
            weights = _folded_weights(layer, plain.get_layer(norms[layer.name]))
        else:
            weights = layer.get_weights()
        copy_weights(weights, folded.get_layer(layer.name))
    return folded


def scale_and_offset(norm: layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """What a BatchNorm multiplies with and adds in inference, per channel, in float64."""
    mean, variance = _float64(norm.moving_mean), _float64(norm.moving_variance)
    scale = 1.0 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        scale = scale * _float64(norm.gamma)
    return scale, (_float64(norm.beta) if norm.center else 0.0) - mean * scale


def _float64(variable: keras.Variable) -> np.ndarray:
    return variable.numpy().astype("float64")


def _foldable(model: keras.Model) -> dict[str, str]:
    """{BatchNorm: the layer that takes it over}."""
    sources, outputs = wiring(model)
    uses = Counter([source for taken in sources.values() for source, _ in taken] + outputs)
    by_name = {layer.name: layer for layer in model.layers}
    into = {}
    for norm in model.layers:
        if not isinstance(norm, layers.BatchNormalization):
            continue
        if norm.axis not in (-1, norm.input_spec.ndim - 1):
            raise ValueError(f"BatchNorm {norm.name!r} must work on the last axis. Received: axis={norm.axis}.")
        before = [source for source, _ in sources[norm.name]]
        # Called once, on what comes from one layer; and that one is called once, for this purpose only.
        if len(before) == 1 and uses[before[0]] == 1:
            linear = by_name.get(before[0])  # None: an operation that is no layer
            if type(linear) in LINEAR and _is_linear(linear, norm.compute_dtype):
                into[norm.name] = before[0]
    return into


def _is_linear(layer: layers.Layer, dtype: str) -> bool:
    last = getattr(layer, "data_format", "channels_last") == "channels_last"
    return last and layer.activation is keras.activations.linear and layer.compute_dtype == dtype


def _folded_weights(linear: layers.Layer, norm: layers.BatchNormalization) -> list[np.ndarray]:
    """Kernels and bias of a linear layer that does the work of both."""
    scale, offset = scale_and_offset(norm)
    weights = [_float64(weight) for weight in linear.weights]
    bias = weights.pop() if linear.use_bias else 0.0
    per_output = scale
    if isinstance(linear, layers.Conv2DTranspose):  # (height, width, filters, inputs)
        per_output = scale[:, None]
    elif isinstance(linear, layers.DepthwiseConv2D):  # (height, width, inputs, multiplier)
        per_output = scale.reshape(weights[-1].shape[-2:])
    return [*weights[:-1], weights[-1] * per_output, bias * scale + offset]


def _refuse_inner_norms(layer: layers.Layer) -> None:
    inner: Callable = getattr(layer, "_flatten_layers", list)  # operations that are no layers have none
    if any(isinstance(part, layers.BatchNormalization) for part in inner()):
        raise ValueError(f"Layer {layer.name!r} has a BatchNorm inside it, which cannot be folded. Write it as layers.")
