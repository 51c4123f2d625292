"""Transforms of other libraries as operations of the pipeline: Keras, KerasCV, Albumentations, plain functions.

Only pictures pass through a transform, never labels or ids: Keras layers would cast those to their own dtype, which
rounds class numbers under bfloat16. The libraries are imported by whoever made the transform, never here.
"""

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipelines.mix import Mix
from pipelines.operation import Operation, Size, as_float, as_pixels
from pipelines.randomness import fork

MIXING = ("MixUp", "CutMix", "Mosaic", "FourierMix")  # layers that change labels with the pictures


def adapt(transform: Any) -> Operation | Mix:
    """Any transform as an operation; one of ours is returned as it is.

    * A Keras layer (also a `Sequential` of them) sees float32 pictures [B, height, width, channels], whatever the dtype
      policy, and pictures are float32 from there on. The layer's own seed is not used: its random numbers are a
      function of (seed, epoch, first picture of the batch), so they are the same in every process, but what happens to
      a picture depends on its batch, or on the share of it (`share.Share`). `RandomCrop` and the choices of
      `RandAugment` are drawn once a batch by Keras.
    * A KerasCV layer, or a layer of your own, keeps its own random state. Give it a seed: a whole run is then
      repeatable (batches are made in order), but a resumed run draws other numbers than an uninterrupted one.
    * An Albumentations transform sees one uint8 picture [height, width, channels] after the other. It is seeded for
      every picture, so it is as reproducible as our own operations; it runs under Python's lock and is slow.
    * A function sees the batch in float32 and returns it. If it has a second parameter without a default, it also
      gets seeds, uint32 [B, 3], from which `pipelines.randomness` makes reproducible numbers; random numbers it
      draws in another way are not reproducible.

    Raises:
        TypeError: It is none of these, or a layer that mixes pictures.
    """
    if isinstance(transform, Operation | Mix):
        return transform
    if isinstance(transform, keras.layers.Layer):
        return _from_keras(transform)
    if any(base.__module__.startswith("albumentations.") for base in type(transform).__mro__):
        return _from_albumentations(transform)
    if callable(transform):
        return _from_function(transform)
    raise TypeError(
        "An augmentation must be one of pipelines.augment, a Keras or KerasCV layer, an Albumentations transform, or a "
        f"function of a batch. Received: {transform!r}."
    )


def _from_keras(layer: keras.layers.Layer) -> Operation:
    layers = layer._flatten_layers()
    if mixing := [type(one).__name__ for one in layers if type(one).__name__ in MIXING]:
        raise TypeError(
            f"{mixing[0]} mixes pictures and would leave their labels as they are. Use augment.mixup or augment.cutmix."
        )
    for one in layers:
        one.dtype_policy = keras.DTypePolicy("float32")
    own = [one for one in layer._flatten_layers() if type(one).__module__.startswith("keras.")]

    def apply(pictures: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        with _seeded(own, seeds[:1]):
            return _checked(layer(as_float(pictures), training=True), pictures, layer.name)

    return Operation(layer.name, lambda seeds, size: seeds, apply)


@contextmanager
def _seeded(layers: list[keras.layers.Layer], seeds: tf.Tensor) -> Iterator[None]:
    """Let the layers' seed generators give out numbers made from `seeds` [1, 3], a new one at every call."""
    generators = [
        value for layer in layers for value in vars(layer).values() if isinstance(value, keras.random.SeedGenerator)
    ]
    calls = iter(range(2**31))

    def next_seed(ordered: bool = True) -> tf.Tensor:
        # What Keras takes for the state of a generator: two whole numbers.
        words = fork(seeds, next(calls))[0, :2]
        return tf.cast(words & 0x7FFFFFFF, generators[0].state.dtype)

    for generator in generators:
        generator.next = next_seed
    try:
        yield
    finally:
        for generator in generators:
            del generator.next


def _from_albumentations(transform: Any) -> Operation:
    name = type(transform).__name__
    lock = threading.Lock()  # one transform object, several threads of tf.data

    def one_after_the_other(pictures: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        with lock:
            done = []
            for picture, seed in zip(pictures, seeds, strict=True):
                transform.set_random_seed(int(seed))
                done.append(transform(image=picture)["image"])
        return np.stack(done) if done else np.zeros((0, *empty.shape), empty.dtype)

    empty = np.zeros(0)

    def apply(pictures: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        nonlocal empty
        # What size and dtype come out is known once it has been tried.
        empty = np.asarray(transform(image=np.zeros(pictures.shape[1:], "uint8"))["image"])
        seed = tf.cast(seeds[:, 0], "int64") & 0x7FFFFFFF
        done = tf.numpy_function(one_after_the_other, [as_pixels(as_float(pictures), tf.uint8), seed], empty.dtype)
        return _checked(tf.ensure_shape(done, [None, *empty.shape]), pictures, name)

    return Operation(name, lambda seeds, size: seeds, apply)


def _from_function(function: Callable[..., tf.Tensor]) -> Operation:
    name = getattr(function, "__name__", type(function).__name__)
    parameters = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty and parameter.kind in (0, 1)  # positional ones
    ]
    if len(parameters) not in (1, 2):
        raise TypeError(f"A function must take pictures, or pictures and seeds. Received: {name} with {parameters}.")

    def draw(seeds: tf.Tensor, size: Size) -> tf.Tensor:
        return seeds

    def apply(pictures: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        arguments = (as_float(pictures), seeds)[: len(parameters)]
        return _checked(tf.convert_to_tensor(function(*arguments)), pictures, name)

    return Operation(name, draw, apply)


def _checked(result: tf.Tensor, pictures: tf.Tensor, name: str) -> tf.Tensor:
    """The result, if it is a batch of pictures of known size."""
    if result.shape.rank != 4 or None in result.shape[1:]:
        raise ValueError(
            f"{name} must return a batch of pictures [B, height, width, channels] of known size. Received: "
            f"{result.shape} for {pictures.shape}."
        )
    return result
