"""A trained network in another precision: the same weights, computed in bfloat16 where that is safe."""

import keras
from keras import layers

from kerascnn.graph import copy_weights, functional, wiring
from kerascnn.whitening import PatchWhitening

PRECISIONS = ("float32", "bfloat16")
# bfloat16 holds 8 bits: too few for raw pixels less their mean.
ALWAYS_FLOAT32 = (layers.InputLayer, layers.Normalization, layers.Rescaling, PatchWhitening)


def in_bfloat16(model: keras.Model) -> keras.Model:
    """A copy that computes in bfloat16, with weights in float32; inputs and outputs are float32 as before.

    The normalisation of the pictures, a whitening, and the last layers with weights before the outputs stay in float32.
    The given model and its weights stay as they are.

    Args:
        model: A functional or sequential model in float32; nested models are converted too.

    Raises:
        ValueError: The model is no graph of layers.

    Source: https://arxiv.org/abs/1710.03740 (mixed precision), https://arxiv.org/abs/1905.12322 (bfloat16)

    >>> import kerascnn
    >>> model = in_bfloat16(kerascnn.build("resnet9", (32, 32, 3), 10, width=0.125))
    >>> precision_of(model), model.output.dtype
    ('bfloat16', 'float32')
    """
    plain = functional(model)
    return _converted(plain, _last_layers(plain))


def _converted(plain: keras.Model, kept: set[str]) -> keras.Model:
    """A copy in bfloat16, but for the layers `kept` in float32."""

    def clone(layer: layers.Layer) -> layers.Layer:
        if isinstance(layer, keras.Model):
            inner = functional(layer)
            return _converted(inner, _last_layers(inner) if layer.name in kept else set())
        config = layer.get_config()
        if isinstance(layer, ALWAYS_FLOAT32) or layer.name in kept:
            return type(layer).from_config(config)
        return type(layer).from_config({**config, "dtype": "mixed_bfloat16"})

    converted = keras.models.clone_model(plain, clone_function=clone)
    for layer in plain.layers:
        if not isinstance(layer, keras.Model | layers.InputLayer):
            copy_weights(layer.get_weights(), converted.get_layer(layer.name))
    return converted


def precision_of(model: keras.Model) -> str:
    """`bfloat16` where any layer computes in it, else `float32`."""
    for layer in model.layers:
        own = precision_of(layer) if isinstance(layer, keras.Model) else layer.compute_dtype
        if own == "bfloat16":
            return own
    return "float32"


def _last_layers(model: keras.Model) -> set[str]:
    """From every output back to the first layer with weights, it included."""
    sources, ends = wiring(model)
    by_name, found = {layer.name: layer for layer in model.layers}, set(ends)
    waiting = list(ends)
    while waiting:
        name = waiting.pop()
        if name in by_name and by_name[name].weights:
            continue
        before = [source for source, _ in sources[name] if source not in found]
        found.update(before)
        waiting += before
    return found
