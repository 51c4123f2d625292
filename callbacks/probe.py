"""What a small fixed batch says about a network: statistics of every layer's output, and of every weight's gradient."""

import math
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from callbacks.borrow import borrowed

PERCENTILES = (1, 25, 50, 75, 99)
# Tanh and sigmoid: a unit this near to the ends of its range passes less than 6 % of its largest gradient on.
SATURATED = 0.97
# Correlation and sparsity look at so many units and examples or positions of a layer, percentiles at so many values.
MOST_UNITS, MOST_ROWS, MOST_VALUES = 64, 4096, 32768
# Layers and operations that are an activation.
ACTIVATIONS = {
    *("celu", "elu", "gelu", "glu", "hardshrink", "hardsigmoid", "hardsilu", "hardtanh", "leakyrelu", "logsigmoid"),
    *("logsoftmax", "mish", "prelu", "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softplus", "softsign"),
    *("swish", "tanh"),
}
ACTIVATION_STATISTICS = ("mean", "std", "zeros", "dead", "saturated", "correlation", "sparsity")
GRADIENT_STATISTICS = ("norm", "mean", "std")


class Recorder(keras.optimizers.Optimizer):
    """An optimiser that leaves the weights alone and keeps the statistics of their gradients."""

    def __init__(self, loss_scale_factor: float | None = None) -> None:
        super().__init__(learning_rate=0.0, loss_scale_factor=loss_scale_factor, name="recorder")

    def build(self, variables: list[keras.Variable]) -> None:
        """One slot for each weight: whether there is a gradient at all, then its statistics."""
        if self.built:
            return
        super().build(variables)
        size = 1 + len(GRADIENT_STATISTICS) + len(PERCENTILES)
        self.slots = [self.add_variable((size,), dtype="float32", name=f"slot{n}") for n in range(len(variables))]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Keep the statistics of the gradient."""
        values = ops.reshape(ops.cast(ops.convert_to_tensor(gradient), "float32"), (-1,))
        numbers = [ops.ones(()), ops.sqrt(ops.sum(ops.square(values))), ops.mean(values), ops.std(values)]
        statistics = ops.concatenate([ops.stack(numbers), _percentiles(values)])
        self.assign(self.slots[self._get_variable_index(variable)], statistics)


class Statistics(keras.layers.Layer):
    """From a layer's output to one vector: `ACTIVATION_STATISTICS`, then `PERCENTILES`."""

    def __init__(self, function: str, channels_first: bool = False) -> None:
        super().__init__(dtype="float32")
        self.function, self.channels_first = function, channels_first

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int]:
        """One vector for the whole batch."""
        return (len(ACTIVATION_STATISTICS) + len(PERCENTILES),)

    def call(self, x: Any) -> Any:
        """Units are the last axis (the second with channels first); all else are examples and positions."""
        x = ops.cast(ops.moveaxis(x, 1, -1) if self.channels_first else x, "float32")
        rows = ops.reshape(x, (-1, x.shape[-1]))
        zero = ops.equal(rows, 0.0)
        few = _every(rows, MOST_ROWS)[:, :: -(-x.shape[-1] // MOST_UNITS)]
        numbers = [
            ops.mean(rows),
            ops.std(rows),
            ops.mean(ops.cast(zero, "float32")),
            ops.mean(ops.cast(ops.all(zero, axis=0), "float32")),
            self._saturated(rows),
            _correlation(few),
            _sparsity(few),
        ]
        return ops.concatenate([ops.stack(numbers), _percentiles(ops.reshape(rows, (-1,)))])

    def _saturated(self, rows: Any) -> Any:
        if self.function in ("sigmoid", "hardsigmoid"):
            rows = 2.0 * rows - 1.0
        elif self.function not in ("tanh", "hardtanh", "softsign"):
            return ops.full((), math.nan)
        return ops.mean(ops.cast(ops.abs(rows) > SATURATED, "float32"))


class Probe:
    """Statistics of a compiled network on one batch; the network is afterwards bit by bit as before.

    Args:
        model: Functional or Sequential, built and compiled.
        batch: (x, y, sample_weight); no gradients where y is None.
        layers: Names of the layers to look at; all with weights or an activation where None.
    """

    def __init__(self, model: keras.Model, batch: tuple[Any, Any, Any], layers: list[str] | None = None) -> None:
        if not getattr(model, "inputs", None) or not hasattr(model.outputs[0], "_keras_history"):
            raise ValueError(
                f"`Monitor` looks at Functional and Sequential models that know their input. {type(model).__name__} "
                f"{model.name!r} is another kind, or has no `keras.Input`: its layers have no outputs to look at."
            )
        self.batch = batch
        found = list(_outputs(model))
        names = [name for name, *_ in found]
        if unknown := sorted(set(layers or ()) - set(names)):
            raise ValueError(f"`layers` has names of no layer: {unknown}. There are: {names}.")
        found = [one for one in found if layers is None or one[0] in layers]
        self.functions = {name: function for name, _, function, *_ in found}
        self.heads = {name for name, *_, head in found if head}
        inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
        self.model = keras.Model(inputs, [vector for _, _, _, vector, _ in found])
        self._layers = [(name, layer) for name, layer, *_ in found]
        self._watch(model)

    def _watch(self, model: keras.Model) -> None:
        """Look at the weights that are trainable now: callbacks may freeze and release layers."""
        self._trainable = [id(weight) for weight in model.trainable_variables]
        # Under mixed_float16 small gradients would be lost without the scale.
        scaled = hasattr(model.optimizer, "inner_optimizer")
        self.recorder = Recorder(loss_scale_factor=1024.0 if scaled else None)
        self.weights: list[tuple[str, str, keras.Variable]] = []  # layer, its weight's name, weight
        left = set(self._trainable)
        for name, layer in self._layers:
            for weight in getattr(layer, "trainable_variables", ()):
                if id(weight) in left:
                    left.discard(id(weight))
                    self.weights.append((name, weight.path.split(f"{layer.name}/", 1)[-1], weight))

    def measure(self, model: keras.Model) -> tuple[dict[str, Any], dict[tuple[str, str], Any]]:
        """(statistics of every layer's output, statistics of every weight's gradient)."""
        x, y, sample_weight = self.batch
        if self._trainable != [id(weight) for weight in model.trainable_variables]:
            self._watch(model)
        with borrowed(model, self.recorder), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Gradients do not exist")  # the monitor says it by itself
            vectors = self.model.predict_on_batch(x)
            if y is not None:
                model.train_on_batch(x, y, sample_weight)
        vectors = vectors if isinstance(vectors, list | tuple) else [vectors]
        outputs = {
            name: _named(vector, ACTIVATION_STATISTICS) for name, vector in zip(self.functions, vectors, strict=True)
        }
        if y is None:
            return outputs, {}
        slots = {id(weight): slot for weight, slot in zip(model.trainable_variables, self.recorder.slots, strict=True)}
        gradients = {}
        for layer, name, weight in self.weights:
            exists, *vector = keras.ops.convert_to_numpy(slots[id(weight)])
            gradients[layer, name] = _named(vector, GRADIENT_STATISTICS) if exists else None
        return outputs, gradients


def output_statistics(model: keras.Model, x: Any) -> dict[str, dict[str, Any]]:
    """`ACTIVATION_STATISTICS` and "percentiles" of every layer with weights or an activation, of one batch.

    Args:
        model: Functional or Sequential, built; it need not be compiled.
        x: The batch, as the model takes it.
    """
    found = list(_outputs(model))
    inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    vectors = keras.Model(inputs, [vector for _, _, _, vector, _ in found])(x, training=False)
    return {name: _named(vector, ACTIVATION_STATISTICS) for (name, *_), vector in zip(found, vectors, strict=True)}


def _outputs(model: keras.Model) -> Iterator[tuple[str, Any, str, Any, bool]]:
    """(name, layer, activation function, statistics, whether it is an output of the model) from input to output.

    The layers of nested models are among them; of a layer with several outputs the first one counts.
    """
    calls: dict[str, int] = {}
    ends = {id(node_of(tensor)) for tensor in model.outputs}
    for node in _nodes(model.outputs):
        layer = node.operation
        calls[layer.name] = calls.get(layer.name, 0) + 1
        name = layer.name if calls[layer.name] == 1 else f"{layer.name}:{calls[layer.name]}"
        if isinstance(layer, keras.Model) and getattr(layer, "inputs", None):
            inner = list(_outputs(layer))
            if inner:
                vectors = keras.Model(layer.inputs, [one[3] for one in inner])(list(node.input_tensors))
                for (part, deep, function, _, end), vector in zip(inner, keras.tree.flatten(vectors), strict=True):
                    yield f"{name}/{part}", deep, function, vector, end and id(node) in ends
            continue
        function = function_of(layer)
        if function != "linear" or getattr(layer, "weights", None):
            order = getattr(layer, "data_format", None) or keras.config.image_data_format()
            output = node.output_tensors[0]
            channels_first = order == "channels_first" and len(output.shape) > 2
            known = len(output.shape) > 1 and output.shape[1 if channels_first else -1] is not None
            if known and "float" in output.dtype:
                yield name, layer, function, Statistics(function, channels_first)(output), id(node) in ends


def _nodes(outputs: list[Any]) -> list[Any]:
    """Every call of a layer between the inputs and `outputs`, each after those it needs."""
    ordered: list[Any] = []
    seen: set[int] = set()
    waiting = [(tensor, False) for tensor in reversed(outputs)]
    while waiting:
        tensor, ready = waiting.pop()
        node = node_of(tensor)
        if ready:
            ordered.append(node)
        elif id(node) not in seen and not node.is_input:
            seen.add(id(node))
            waiting.append((tensor, True))
            waiting.extend((inner, False) for inner in reversed(node.input_tensors))
    return ordered


def node_of(tensor: Any) -> Any:
    """The call of a layer that made a tensor."""
    return tensor._keras_history.operation._inbound_nodes[tensor._keras_history.node_index]


def function_of(layer: Any) -> str:
    """The name of a layer's activation function, "linear" where it has none."""
    function = getattr(layer, "activation", None)
    name = type(layer).__name__ if function is None else getattr(function, "__name__", type(function).__name__)
    name = name.lower().replace("_", "")
    return name if name in ACTIVATIONS or function is not None else "linear"


def _named(vector: Any, names: tuple[str, ...]) -> dict[str, Any]:
    numbers = [float(number) for number in vector]
    return {**dict(zip(names, numbers, strict=False)), "percentiles": numbers[len(names) :]}


def _every(values: Any, most: int) -> Any:
    """At most about `most` of the values along the first axis, evenly spaced."""
    size = values.shape[0] if values.shape[0] is not None else ops.shape(values)[0]
    if not isinstance(size, int):
        return values[:: ops.maximum(size // most, 1)]
    stride = -(-size // most)
    while math.gcd(stride, size) > 1:  # a step that divides the number of channels would see only some of them
        stride += 1
    return values[::stride]


def _percentiles(values: Any) -> Any:
    """`PERCENTILES` of a vector, interpolated linearly; `ops.quantile` would take longer to compile in every layer."""
    ordered = ops.sort(_every(values, MOST_VALUES))
    places = ops.cast(ops.shape(ordered)[0] - 1, "float32") * np.array(PERCENTILES, "float32") / 100
    below = ops.floor(places)
    low, high = (ops.take(ordered, ops.cast(place, "int32")) for place in (below, ops.ceil(places)))
    return low + (high - low) * (places - below)


def _correlation(rows: Any) -> Any:
    """Mean absolute correlation between different units; NaN with less than two that change."""
    centred = rows - ops.mean(rows, axis=0)
    length = ops.sqrt(ops.sum(ops.square(centred), axis=0))
    live = ops.cast(length > 0.0, "float32")
    unit = centred / ops.where(length > 0.0, length, 1.0)
    count = ops.sum(live)
    total = ops.sum(ops.abs(ops.matmul(ops.transpose(unit), unit))) - count
    return ops.where(count > 1.0, total / ops.maximum(count * (count - 1.0), 1.0), math.nan)


def _sparsity(rows: Any) -> Any:
    """1 where a unit answers to one example only, 0 where to all alike; mean over the units, NaN if all are dead.

    Source: Vinje and Gallant, Science 287 (2000): (1 - E[|a|]^2 / E[a^2]) / (1 - 1 / n)
    """
    squares = ops.mean(ops.square(rows), axis=0)
    live = ops.cast(squares > 0.0, "float32")
    part = 1.0 - ops.square(ops.mean(ops.abs(rows), axis=0)) / ops.where(squares > 0.0, squares, 1.0)
    size = ops.cast(ops.shape(rows)[0], "float32")
    mean = ops.sum(part * live) / ops.maximum(ops.sum(live), 1.0) / ops.maximum(1.0 - 1.0 / size, 1e-6)
    return ops.where(ops.sum(live) > 0.0, mean, math.nan)
