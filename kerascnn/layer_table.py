"""What every layer of a built model makes, sees and costs."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import keras
from keras import layers

from kerascnn.receptive_field import Shape, View, view_after

CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.DepthwiseConv1D, layers.DepthwiseConv2D)
SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
# Weights with several axes that multiply one value each, or none.
ELEMENTWISE = (layers.LayerNormalization, layers.PReLU, layers.Embedding)


@dataclass(frozen=True)
class LayerRow:
    """One call of a layer.

    Attributes:
        name: Of the layer; layers of an inner model as "inner/layer".
        kind: Its class.
        output_shape: Of its (first) output, without the batch.
        receptive_field: (height, width) in pixels that a unit sees at most, beyond the edges of a small picture too;
            None for the whole picture: after a global pooling, a dense layer or a gate that is made of one.
        stride: (height, width) in pixels of the picture from one unit to the next, a fraction after upsampling; None
            where units have no place.
        trainable_parameters: Values that training changes; those of a shared layer count in its first call.
        parameters: All values.
        multiply_adds: Multiplications with a following addition, for one picture, of convolutions and dense layers
            (biases, norms, activations, pooling are not counted); None where they cannot be counted: the size of the
            picture is unknown, or the layer is of another kind and has weights with several axes.
    """

    name: str
    kind: str
    output_shape: tuple[int | None, ...]
    receptive_field: tuple[int, int] | None
    stride: tuple[Fraction, Fraction] | None
    trainable_parameters: int
    parameters: int
    multiply_adds: int | None


def layer_table(model: keras.Model) -> list[LayerRow]:
    """A row for every call of a layer, from the picture to the outputs.

    The receptive field is exact: it follows the first and last pixel of every unit through all branches. Statistics
    that a norm takes over a whole map are left aside.

    Args:
        model: A Functional or Sequential model that knows its input, channels last; also with inner models.

    Raises:
        ValueError: The model is of another kind, or a layer has its channels first.

    >>> import keras
    >>> pixels = keras.Input((224, 224, 3))
    >>> conv = keras.layers.Conv2D(64, 7, 2, padding="same", name="conv")
    >>> row = layer_table(keras.Model(pixels, conv(pixels)))[1]
    >>> row.output_shape, row.receptive_field, row.parameters, row.multiply_adds
    ((112, 112, 64), (7, 7), 9472, 118013952)
    """
    rows: list[LayerRow] = []
    _walk(model, _starts(model), "", rows, set())
    return rows


def output_views(model: keras.Model) -> list[View | None]:
    """Which pixels of the picture the units of every output of a model see; None where units have no place.

    >>> import keras
    >>> pixels = keras.Input((224, 224, 3))
    >>> (view,) = output_views(keras.Model(pixels, keras.layers.Conv2D(8, 7, 2, padding="same")(pixels)))
    >>> view.down.first(56), view.down.last(56)
    (110, 116)
    """
    return _walk(model, _starts(model), "", [], set())


def _starts(model: keras.Model) -> list[View | None]:
    """How the inputs of a model are seen by themselves."""
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        raise ValueError(
            f"`layer_table` reads Functional and Sequential models that know their input. {type(model).__name__} "
            f"{model.name!r} is another kind, or has no `keras.Input`."
        )
    return [View() if len(tensor.shape) == 4 else None for tensor in model.inputs]


def multiply_adds(model_or_rows: keras.Model | Iterable[LayerRow]) -> int:
    """Of a model, or of the rows of its table: what `LayerRow` says, summed over all layers.

    Raises:
        ValueError: Those of a layer cannot be counted.
    """
    rows = layer_table(model_or_rows) if isinstance(model_or_rows, keras.Model) else model_or_rows
    total = 0
    for row in rows:
        if row.multiply_adds is None:
            reason = "its size is unknown" if None in row.output_shape else "it is of a kind that is not counted"
            raise ValueError(f"The multiply-adds of {row.name!r} ({row.kind}) cannot be counted: {reason}.")
        total += row.multiply_adds
    return total


def without_values(build: Callable[[], keras.Model]) -> keras.Model:
    """The model that `build()` makes, but its variables have shapes only: for its table, in a tenth of the time.

    >>> from keras import Sequential, layers
    >>> model = without_values(lambda: Sequential([layers.Input((100_000,)), layers.Dense(100_000)]))
    >>> model.count_params()
    10000100000
    """

    def build_in_scope() -> keras.Model:
        with keras.StatelessScope(initialize_variables=False):
            return build()

    # Keras keeps, per thread, a list of what is still to be initialised; this one ends with its thread.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(build_in_scope).result()


def _walk(
    model: keras.Model, starts: Sequence[View | None], prefix: str, rows: list[LayerRow], counted: set[int]
) -> list[View | None]:
    """Add the rows of a model whose inputs are seen as `starts`; how its outputs are seen."""
    views = {id(tensor): view for tensor, view in zip(model.inputs, starts, strict=True)}
    for node in _calls(model):
        layer = node.operation
        seen = [views[id(tensor)] for tensor in node.input_tensors]
        if isinstance(layer, keras.Model) and getattr(layer, "inputs", None):
            found = _walk(layer, seen, f"{prefix}{layer.name}/", rows, counted)
        elif seen:
            shapes = [tensor.shape for tensor in node.input_tensors]
            found = [view_after(layer, seen, shapes, tensor.shape) for tensor in node.outputs]
            rows.append(_row(layer, prefix, shapes[0], node.outputs[0].shape, found[0], id(layer) in counted))
        elif prefix:  # the input of an inner model is what it was called with
            continue
        else:
            found = [views[id(tensor)] for tensor in node.outputs]
            rows.append(_row(layer, prefix, node.outputs[0].shape, node.outputs[0].shape, found[0], False))
        counted.add(id(layer))
        views |= {id(tensor): view for tensor, view in zip(node.outputs, found, strict=True)}
    return [views[id(tensor)] for tensor in model.outputs]


def _calls(model: keras.Model) -> Iterator[Any]:
    """The calls of layers that make up a model, each after those it depends on."""
    by_depth = keras.Model(model.inputs, model.outputs)._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        yield from by_depth[depth]


def _row(layer: Any, prefix: str, shape: Shape, output_shape: Shape, view: View | None, counted: bool) -> LayerRow:
    weights = [] if counted else getattr(layer, "weights", [])  # operations such as `x + y` have none
    return LayerRow(
        name=prefix + layer.name,
        kind=type(layer).__name__,
        output_shape=tuple(output_shape[1:]),
        receptive_field=None if view is None or view.whole else (view.down.size, view.across.size),
        stride=view and (view.down.stride, view.across.stride),
        trainable_parameters=sum(math.prod(weight.shape) for weight in weights if weight.trainable),
        parameters=sum(math.prod(weight.shape) for weight in weights),
        multiply_adds=_multiply_adds(layer, shape, output_shape),
    )


def _multiply_adds(layer: Any, shape: Shape, output_shape: Shape) -> int | None:
    """Every value of a kernel is used once at every place: of the output, or of the input where that is spread."""
    kernels = [weight.shape for weight in getattr(layer, "weights", []) if len(weight.shape) > 1]
    if not kernels or isinstance(layer, ELEMENTWISE):
        return 0
    places = (shape if isinstance(layer, TRANSPOSED) else output_shape)[1:-1]
    if None in places or not isinstance(layer, (layers.Dense, *CONVOLUTIONS, *SEPARABLE, *TRANSPOSED)):
        return None
    return math.prod(places) * sum(math.prod(kernel) for kernel in kernels)
