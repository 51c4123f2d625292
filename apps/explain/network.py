"""A trained classifier laid open: all its layers in one graph, logits by head, pictures of one size."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers
from scipy.special import softmax

from apps.recipe import near_name
from callbacks.probe import function_of, node_of
from kerascnn.graph import functional
from kerascnn.registry import AUXILIARY

BATCH = 64
CHANNELS = (1, 3)


@dataclass(frozen=True)
class Network:
    """What is looked at; made by `open_network`.

    Attributes:
        model: Functional, without nested models, of raw pixels [N, height, width, channels]; logits by head.
        classes: Names of the classes by head.
        temperatures: What logits are divided by before they become probabilities, by head; 1 where there is none.
        hidden: The outputs [N, ..., C] of all layers between the picture and the heads, from the picture on.
    """

    model: keras.Model
    classes: Mapping[str, Sequence[str]]
    temperatures: Mapping[str, float] = field(default_factory=dict)
    hidden: Mapping[str, keras.KerasTensor] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of its pictures."""
        return tuple(self.model.input.shape[1:3])

    @property
    def channels(self) -> int:
        """Of its pictures, 1 or 3."""
        return self.model.input.shape[-1]

    def layer(self, name: str) -> keras.KerasTensor:
        """The output of a hidden layer; an unknown name is a `ValueError` with the near ones."""
        if name not in self.hidden:
            raise ValueError(f"There is no hidden layer {name!r}.{near_name(name, self.hidden)}{_some(self.hidden)}")
        return self.hidden[name]

    def probabilities(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Of the classes [N, K] by head."""
        logits = predict(self.model, pixels)
        return {head: softmax(values / self.temperatures.get(head, 1.0), axis=1) for head, values in logits.items()}

    def shown_layers(self, count: int = 4) -> list[str]:
        """Layers to look at where none are asked for: with an activation, spread over the depth.

        Those with maps of more than one pixel, where there are such; else those of plain units.
        """
        maps = [name for name, tensor in self.hidden.items() if has_maps(tensor)]
        active = {name for name, tensor in self.hidden.items() if function_of(_maker(tensor)) != "linear"}
        units = [name for name, tensor in self.hidden.items() if len(tensor.shape) == 2]
        for names in ([name for name in maps if name in active], maps, [name for name in units if name in active]):
            if names:
                return [names[place] for place in np.unique(np.linspace(0, len(names) - 1, count).round().astype(int))]
        return []


def open_network(
    model: keras.Model,
    classes: Mapping[str, Sequence[str]] | None = None,
    size: tuple[int, int] | None = None,
    names: Mapping[str, str] | None = None,
    temperatures: Mapping[str, float] | None = None,
) -> Network:
    """Make a classifier ready to be looked at: it shares its weights, and is not changed.

    Nested models are laid open where the names of their layers permit; auxiliary heads are dropped; a softmax at the
    end is taken off.

    Args:
        model: Functional or sequential, of raw pixels, channels last; one output [N, K], or several.
        classes: Names of the classes by head; their numbers where None.
        size: (height, width) of the pictures, for a model that takes every size.
        names: Of the heads as the user calls them, by their names in the model.
        temperatures: By the heads' names in the model.

    Raises:
        ValueError: It is no such model, or `size` is missing or another one than the model's.
    """
    plain = functional(model)
    if len(plain.inputs) != 1 or len(plain.inputs[0].shape) != 4 or plain.inputs[0].shape[-1] not in CHANNELS:
        taken = ", ".join(str(tuple(tensor.shape)) for tensor in plain.inputs)
        raise ValueError(f"Expected a network of pictures [N, height, width, 1 or 3]. {model.name!r} takes {taken}.")
    found = _size(plain, size)
    pixels, outputs = plain.inputs[0], plain.output
    if None in pixels.shape[1:3] or any(isinstance(layer, keras.Model) for layer in plain.layers):
        pixels = keras.Input((*found, pixels.shape[-1]), name="looked_at")
        outputs = _laid_open(plain, pixels)
    heads = _heads(plain, outputs)
    names = {head: (names or {}).get(head, head) for head in heads}
    logits = {names[head]: _before_softmax(tensor) for head, tensor in heads.items()}
    opened = keras.Model(pixels, logits, name=model.name)
    return Network(
        opened,
        {head: (classes or {}).get(head) or [str(n) for n in range(logits[head].shape[-1])] for head in logits},
        {names[head]: value for head, value in (temperatures or {}).items() if head in names},
        _hidden(opened),
    )


def predict(model: keras.Model, pixels: np.ndarray) -> Any:
    """The outputs of a model for uint8 or float pixels [N, height, width, channels], as float32 arrays."""
    # Called as it is: compiling would take longer than most networks need for some hundred pictures.
    parts = [
        keras.tree.map_structure(
            lambda values: keras.ops.convert_to_numpy(keras.ops.cast(values, "float32")),
            model(np.asarray(pixels[start : start + BATCH], "float32"), training=False),
        )
        for start in range(0, len(pixels), BATCH)
    ]
    return keras.tree.map_structure(lambda *values: np.concatenate(values), *parts)


def has_maps(tensor: keras.KerasTensor) -> bool:
    """Whether it is [N, height, width, C] with more than one place."""
    return len(tensor.shape) == 4 and tuple(tensor.shape[1:3]) != (1, 1)


def _size(model: keras.Model, size: tuple[int, int] | None) -> tuple[int, int]:
    own = tuple(model.inputs[0].shape[1:3])
    if None in own and size is None:
        raise ValueError(f"{model.name!r} takes pictures of every size: say by `--image-size` in which to look at it.")
    if size is not None and any(side not in (None, wanted) for side, wanted in zip(own, size, strict=True)):
        raise ValueError(f"{model.name!r} takes pictures of {own[0]}x{own[1]}. Received: {size[0]}x{size[1]}.")
    return own if size is None else size


def _laid_open(model: keras.Model, pixels: keras.KerasTensor) -> Any:
    """The outputs of the same layers called on `pixels`, those of nested models one by one."""

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(layer, keras.Model) and getattr(layer, "inputs", None) and len(arguments) == 1:
            return functional(layer)._run_through_graph(arguments[0], call_fn=call)
        return layer(*arguments, **options)

    outputs = model._run_through_graph(pixels, call_fn=call)
    try:
        keras.Model(pixels, outputs)
    except ValueError:  # layers of the same name in two nested models
        outputs = model._run_through_graph(pixels)
    return outputs


def _heads(model: keras.Model, outputs: Any) -> dict[str, keras.KerasTensor]:
    """The outputs by name: of a dict its own, of one "label", of a list those of their layers."""
    if isinstance(outputs, Mapping):
        heads = dict(outputs)
    elif isinstance(outputs, list | tuple) and len(outputs) > 1:
        heads = dict(zip(model.output_names, outputs, strict=True))
    else:
        heads = {"label": keras.tree.flatten(outputs)[0]}
    heads = {head: tensor for head, tensor in heads.items() if not re.search(AUXILIARY, head)}
    for head, tensor in heads.items():
        function = function_of(_maker(tensor))
        if len(tensor.shape) != 2 or tensor.shape[1] < 2 or function not in ("linear", "softmax"):
            raise ValueError(
                "Expected a classifier, whose outputs are logits or probabilities of two classes or more [N, classes]. "
                f"Output {head!r} of {model.name!r} is {tuple(tensor.shape)}, by {function}."
            )
    return heads


def _before_softmax(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """The logits of an output that is a softmax, which hides what is beyond certainty; else the output itself."""
    layer = _maker(tensor)
    if function_of(layer) != "softmax":
        return tensor
    before = node_of(tensor).input_tensors[0]
    if not isinstance(layer, layers.Dense):
        return before
    config = {**layer.get_config(), "activation": None, "name": f"{layer.name}_logits"}
    dense = layers.Dense.from_config(config)
    logits = dense(before)
    dense.set_weights(layer.get_weights())
    return logits


def _hidden(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """The first output of every call of a layer; the second call of `conv` is "conv:2"."""
    ends = {id(tensor) for tensor in model.outputs}
    found: dict[str, keras.KerasTensor] = {}
    calls: dict[str, int] = {}
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            tensor, name = node.outputs[0], node.operation.name
            if node.is_input or id(tensor) in ends or len(tensor.shape) not in (2, 4) or "float" not in tensor.dtype:
                continue
            calls[name] = calls.get(name, 0) + 1
            found[name if calls[name] == 1 else f"{name}:{calls[name]}"] = tensor
    return found


def _maker(tensor: keras.KerasTensor) -> Any:
    return tensor._keras_history.operation


def _some(names: Mapping[str, Any]) -> str:
    listed = list(names)
    return f" There are: {', '.join(listed[:40])}{' …' if len(listed) > 40 else ''}."
