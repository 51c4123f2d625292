"""What a random picture operation is: a choice is drawn for every picture of a batch, then applied to the whole batch.

`draw` turns the pictures' seeds into the choices, `apply` is a pure function of pictures and choices. So the choice for
a picture depends on (seed, epoch, picture) alone, not on threads nor on the batch the picture falls into.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from pipelines.randomness import fork, uniform

Size = tuple[int, int, int]  # height, width, channels
Choice = Any  # a tensor, or a nest of tensors, whose first axis counts the pictures


@dataclass(frozen=True)
class Operation:
    """A random operation on a batch of pictures, uint8 or float32 [B, height, width, channels] in [0, 255].

    Attributes:
        name: What it is called in pictures and messages.
        draw: Seeds [B, 3] and the pictures' size to the choices.
        apply: Pictures and choices to pictures of the same dtype.
        turn: For an operation that draws once for all epochs: the choices of an epoch, from those that were drawn and
            the epoch's number. None draws anew in every epoch.
    """

    name: str
    draw: Callable[[tf.Tensor, Size], Choice]
    apply: Callable[[tf.Tensor, Choice], tf.Tensor]
    turn: Callable[[Choice, tf.Tensor], Choice] | None = None


def one_of(operations: Sequence[Operation]) -> Operation:
    """One of the operations for every picture, all equally likely. They must keep size and dtype."""
    operations = list(operations)
    if not operations or not all(isinstance(operation, Operation) for operation in operations):
        raise ValueError(f"`operations` needs at least one operation, each of `augment.adapt`. Received: {operations}.")
    for operation in operations:
        _refuse_turning(operation)

    def draw(seeds: tf.Tensor, size: Size) -> Choice:
        which = tf.cast(uniform(seeds, 1)[:, 0] * len(operations), "int32")
        return which, [operation.draw(fork(seeds, number), size) for number, operation in enumerate(operations)]

    def apply(pictures: tf.Tensor, choice: Choice) -> tf.Tensor:
        which, choices = choice
        # Each operation sees only the pictures that chose it: the cost is that of one operation, not of all.
        places = tf.dynamic_partition(tf.range(tf.shape(pictures)[0]), which, len(operations))
        parts = []
        for operation, place, own in zip(operations, places, choices, strict=True):
            chosen = tf.nest.map_structure(lambda values, place=place: tf.gather(values, place), own)
            parts.append(operation.apply(tf.gather(pictures, place), chosen))
        return tf.ensure_shape(tf.dynamic_stitch(places, parts), pictures.shape)

    return Operation(f"one of {len(operations)}", draw, apply)


def with_probability(probability: float, operation: Operation) -> Operation:
    """The operation on a picture with this probability, else the picture as it is. It must keep size and dtype."""
    if not 0 <= probability <= 1:
        raise ValueError(f"`probability` must lie in [0, 1]. Received: probability={probability}.")
    if not isinstance(operation, Operation):
        raise ValueError(f"`operation` must be an operation; see `augment.adapt`. Received: {operation!r}.")
    _refuse_turning(operation)

    def draw(seeds: tf.Tensor, size: Size) -> Choice:
        return uniform(fork(seeds, 0), 1)[:, 0] < probability, operation.draw(fork(seeds, 1), size)

    def apply(pictures: tf.Tensor, choice: Choice) -> tf.Tensor:
        wanted, own = choice
        return select(wanted, operation.apply(pictures, own), pictures)

    return Operation(operation.name, draw, apply)


def _refuse_turning(operation: Operation) -> None:
    if operation.turn is not None:
        raise ValueError(f"`{operation.name}` follows the epochs and must stand in the pipeline by itself.")


def select(condition: tf.Tensor, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Whole pictures of `first` where `condition` [B] holds, of `second` elsewhere."""
    # `tf.where` would compare pixel by pixel, ten times as slow as copying whole pictures.
    return tf.raw_ops.Select(condition=condition, x=first, y=second)


def as_float(pictures: tf.Tensor) -> tf.Tensor:
    """float32 pictures, to compute with."""
    return tf.cast(pictures, "float32")


def as_pixels(values: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Computed values back in [0, 255] and in the pictures' dtype, rounded where that is an integer."""
    values = tf.clip_by_value(values, 0.0, 255.0)
    return tf.cast(tf.round(values), dtype) if dtype.is_integer else values
