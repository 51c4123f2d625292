"""BatchNormalization's moving statistics, estimated anew for the weights that a model has now."""

import contextlib
import random
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from callbacks.processes import not_distributed


def batch_norm_layers(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """All BatchNormalization layers (and of classes made from it), at any depth."""
    layers = model._flatten_layers(include_self=True)
    return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]


def moving_statistics(model: keras.Model) -> list[keras.Variable]:
    """Their non-trainable float weights: moving means and variances."""
    own = {id(weight) for layer in batch_norm_layers(model) for weight in (layer.gamma, layer.beta)}
    weights = [weight for layer in batch_norm_layers(model) for weight in layer.weights]
    return [weight for weight in weights if id(weight) not in own]


def estimate(model: keras.Model, batches: Any, batch_size: int | None = None) -> list[np.ndarray]:
    """What `moving_statistics(model)` would hold as the plain mean over `batches`, each as often as it has examples.

    The model runs forward in training mode. All its variables (seeds and other layers' statistics too) and the random
    numbers of Python and numpy are afterwards as before. A layer with `trainable=False` keeps its statistics, as in
    training. Source: https://arxiv.org/abs/1803.05407, section 3.2

    Args:
        model: Built, with the weights in question.
        batches: An array of inputs (a dict of arrays with several inputs), or a dataset or other iterable of batches;
            of a batch that is a tuple the first entry is the input.
        batch_size: Examples a batch, where `batches` is an array; 32 if None.
    """
    variables, generators = model.variables, (random.getstate(), np.random.get_state())
    values = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(not_distributed())
            for layer in batch_norm_layers(model):
                stack.enter_context(_plain_mean(layer))
            for inputs in inputs_of(batches, batch_size or 32):
                model(inputs, training=True)
        return [np.array(keras.ops.convert_to_numpy(variable)) for variable in moving_statistics(model)]
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        random.setstate(generators[0])
        np.random.set_state(generators[1])


@contextlib.contextmanager
def _plain_mean(layer: keras.layers.BatchNormalization) -> Iterator[None]:
    """With momentum `seen / (seen + new)` a moving average is the mean of all it has seen, whatever it was before."""
    attributes, call, seen = vars(layer), layer.call, 0
    momentum = layer.momentum

    def counted(inputs: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal seen
        attributes["momentum"] = seen / (seen + inputs.shape[0])
        seen += inputs.shape[0]
        return call(inputs, *arguments, **options)

    attributes["call"] = counted
    try:
        yield
    finally:
        del attributes["call"]
        attributes["momentum"] = momentum


def inputs_of(batches: Any, batch_size: int) -> Iterator[Any]:
    """The inputs of every batch."""
    if is_array(batches):
        for begin in range(0, len(keras.tree.flatten(batches)[0]), batch_size):
            yield keras.tree.map_structure(lambda array: array[begin : begin + batch_size], batches)  # noqa: B023
        return
    if isinstance(batches, keras.utils.PyDataset):
        batches = (batches[number] for number in range(len(batches)))
    for batch in batches:
        yield keras.utils.unpack_x_y_sample_weight(batch)[0]


def is_array(batches: Any) -> bool:
    """Whether all examples come at once: one array, or a dict of them."""
    return (
        all(hasattr(array, "shape") for array in batches.values())
        if isinstance(batches, dict)
        else hasattr(batches, "shape")
    )


def check_batches(batches: Any) -> None:
    """Refuse what cannot be gone through again and again.

    Raises:
        ValueError: No batches, a generator, or a dataset without an end.
    """
    if is_array(batches) or isinstance(batches, keras.utils.PyDataset):
        return
    if not isinstance(batches, Iterable) or isinstance(batches, Iterator):
        raise ValueError(
            "`batches` must be an array, a dataset or a list of batches, which can be gone through several times. "
            f"Received: {type(batches).__name__}."
        )
    if hasattr(batches, "cardinality") and int(batches.cardinality()) == -1:
        raise ValueError("`batches` never ends. Take a part of it: `dataset.take(100)`.")
