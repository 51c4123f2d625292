"""Auxiliary heads, which help the training of the Inception networks and are dropped afterwards."""

import re

import keras

from kerascnn.registry import AUXILIARY


def auxiliary_weights(model: keras.Model, weight: float = 0.3) -> dict[str, float]:
    """Loss weights by output for `model.compile`: `weight` for auxiliary heads, 1 for the others.

    Source: Going Deeper with Convolutions, https://arxiv.org/abs/1409.4842, section 5

    >>> import kerascnn
    >>> model = kerascnn.build("googlenet", (96, 96, 3), {"label": 5}, width=0.125, auxiliary=True)
    >>> auxiliary_weights(model)
    {'label': 1.0, 'label_auxiliary1': 0.3, 'label_auxiliary2': 0.3}
    """
    return {head: weight if re.search(AUXILIARY, head) else 1.0 for head in _heads(model)}


def without_auxiliary(model: keras.Model) -> keras.Model:
    """The same network, sharing its weights, without the auxiliary heads; a single head is a single output again."""
    outputs = {head: logits for head, logits in _heads(model).items() if not re.search(AUXILIARY, head)}
    return keras.Model(model.input, outputs["logits"] if list(outputs) == ["logits"] else outputs, name=model.name)


def _heads(model: keras.Model) -> dict[str, keras.KerasTensor]:
    if not isinstance(model.output, dict) or not any(re.search(AUXILIARY, head) for head in model.output):
        raise ValueError(f"{model.name!r} has no auxiliary heads. Build it with `auxiliary=True`.")
    return model.output
