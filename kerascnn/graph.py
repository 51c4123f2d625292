"""The graph of a functional model: which layer feeds which, and its weights in a copy."""

import keras
import numpy as np
from keras import layers


def functional(model: keras.Model) -> keras.Model:
    """A functional model of the same layers, uncompiled."""
    if getattr(model, "outputs", None) is None:
        raise ValueError(
            f"Expected a functional or a built sequential model. Received: {type(model).__name__} {model.name!r}, "
            "whose layers are hidden in its `call`. Build it with `keras.Model(inputs, outputs)`."
        )
    if isinstance(model, keras.Sequential):  # its `input` and `output` are those of its first call
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return keras.Model(model.input, model.output, name=model.name)


def wiring(model: keras.Model) -> tuple[dict[str, list[tuple[str, tuple]]], list[str]]:
    """For every layer the (layer, shape) of all tensors that it takes, over all its calls; and the output layers."""

    def tensors(node: object) -> list[tuple[str, tuple]]:
        if isinstance(node, dict) and node.get("class_name") == "__keras_tensor__":
            return [(node["config"]["keras_history"][0], tuple(node["config"]["shape"]))]
        inner = node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ()
        return [tensor for item in inner for tensor in tensors(item)]

    config = model.get_config()
    sources = {layer["name"]: tensors(layer["inbound_nodes"]) for layer in config["layers"]}
    return sources, [name for name in keras.tree.flatten(config["output_layers"]) if isinstance(name, str)]


def copy_weights(weights: list[np.ndarray], layer: layers.Layer) -> None:
    """Set a layer's weights; a dense kernel takes the shape of the convolution that replaces it."""
    layer.set_weights([value.reshape(own.shape) for value, own in zip(weights, layer.weights, strict=True)])
    if isinstance(layer, layers.Normalization):
        layer.finalize_state()
