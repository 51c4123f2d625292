"""Transfer learning: start from published weights, and train all of the network, its last layers, or these anew."""

import re
from collections.abc import Callable
from itertools import pairwise

import keras
from keras import layers

from kerascnn.imagenet import load_imagenet

MODES = ("all", "last", "relearn")


def transfer(model: keras.Model, mode: str, source: keras.Model | None = None) -> keras.Model:
    """Give a network the published weights and freeze what `mode` does not train. Compile it afterwards.

    Args:
        model: As `load_imagenet` takes it.
        mode: "all" fine-tunes everything; "last" freezes the first part and fine-tunes the last third of the layers;
            "relearn" freezes the first part and trains the last third from the random weights it has. Heads whose
            number of classes differs from the published one begin at random in every mode.
        source: As for `load_imagenet`.

    Raises:
        ValueError, ConnectionError: As `load_imagenet`; `mode` is unknown.
    """
    if mode not in MODES:
        raise ValueError(f"`mode` must be one of {', '.join(MODES)}. Received: {mode!r}.")
    *first, last = layer_groups(model, 3)
    random = [layer.get_weights() for layer in last]
    load_imagenet(model, source)
    if mode == "relearn":
        for layer, weights in zip(last, random, strict=True):
            layer.set_weights(weights)
    if mode != "all":
        for layer in [layer for group in first for layer in group]:
            layer.trainable = False
    return model


def layer_groups(model: keras.Model, groups: int = 3) -> list[list[layers.Layer]]:
    """The layers with weights in consecutive groups of about equally many, for rates that differ from group to group.

    `callbacks.ParameterGroup` gives a group its rate, `freeze` stops it.

    >>> import kerascnn
    >>> model = kerascnn.build("resnet9", (32, 32, 3), 10, width=0.125)
    >>> [len(group) for group in layer_groups(model, 2)]
    [8, 9]
    """
    weighted = [layer for layer in model.layers if layer.weights]
    if not 1 <= groups <= len(weighted):
        raise ValueError(f"`groups` must be 1 to {len(weighted)}, the layers with weights. Received: groups={groups}.")
    bounds = [len(weighted) * number // groups for number in range(groups + 1)]
    return [weighted[first:last] for first, last in pairwise(bounds)]


def freeze(model: keras.Model, names: str = "") -> list[str]:
    """Stop the training of layers whose name begins as the regular expression says; all of them without one.

    A frozen BatchNorm uses its running statistics and leaves them as they are. Compile the model afterwards;
    `callbacks.Freeze` does the same inside one `fit`. Returns the names of the layers.

    >>> import kerascnn
    >>> model = kerascnn.build("resnet9", (32, 32, 3), 10, width=0.125)
    >>> freeze(model, "prep|layer1_(conv|norm)")
    ['prep_conv', 'prep_norm', 'layer1_conv', 'layer1_norm']
    >>> unfreeze(model, "layer1")
    ['layer1_conv', 'layer1_norm']
    """
    return _set_trainable(model, names, trainable=False)


def unfreeze(model: keras.Model, names: str = "") -> list[str]:
    """Let layers learn again, as `freeze` names them; returns the names of those that did not."""
    return _set_trainable(model, names, trainable=True)


def _set_trainable(model: keras.Model, names: str, trainable: bool) -> list[str]:
    try:
        fits: Callable[[str], object] = re.compile(names).match
    except re.error as error:
        raise ValueError(f"`names` is no regular expression: {names!r} ({error}).") from error
    fitting = [layer for layer in model.layers if layer.weights and fits(layer.name)]
    if not fitting:
        known = ", ".join(layer.name for layer in model.layers if layer.weights)
        raise ValueError(f"No layer with weights has a name that begins as {names!r} says. There are: {known}.")
    if trainable and not model.trainable:  # as after `model.trainable = False`, which holds for whatever is inside
        before = [(layer, layer.trainable) for layer in model.layers]
        model.trainable = True
        for layer, was in before:
            layer.trainable = was
    changed = [layer for layer in fitting if layer.trainable != trainable]
    for layer in changed:
        layer.trainable = trainable
    return [layer.name for layer in changed]
