"""Random numbers as a pure function of (seed, epoch, example, purpose): no state, no order, no threads to depend on.

A counter-based generator hashes four 32-bit words to four others, so any number of any epoch can be had at once.
Source of the hash: Jarzynski and Olano, Hash Functions for GPU Rendering (pcg4d), https://jcgt.org/published/0009/03/02/
"""

import math
from collections.abc import Callable

import tensorflow as tf

PACKET = 16  # numbers that the widest processors compute at once


def example_seeds(seed: int, epoch: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """One seed for every example: uint32 [len(index), 3], a function of the three arguments alone.

    Args:
        seed: Of the run, from 0 to 2**31 - 1.
        epoch: Scalar integer.
        index: Whole numbers [B] that tell the examples apart.
    """
    index = tf.cast(index, "int64")
    high = tf.bitwise.right_shift(index, tf.constant(32, "int64"))
    words = _hash(tf.fill(tf.shape(index), seed), tf.fill(tf.shape(index), epoch), index, high)
    return tf.stack(words[:3], axis=1)


def fork(seeds: tf.Tensor, purpose: int) -> tf.Tensor:
    """Seeds for one purpose of several: the same shape, unrelated to those of every other purpose."""
    last = tf.fill(tf.shape(seeds)[:1], -1 - purpose)
    return tf.stack(_hash(seeds[:, 0], seeds[:, 1], seeds[:, 2], last)[:3], axis=1)


def uniform(seeds: tf.Tensor, count: int) -> tf.Tensor:
    """float32 [B, count], each equally likely to be any multiple of 2**-24 in [0, 1)."""
    bits = tf.bitwise.right_shift(_bits(seeds, count), tf.constant(8, "uint32"))
    return tf.cast(bits, "float32") * 2.0**-24


def normal(seeds: tf.Tensor, count: int) -> tf.Tensor:
    """float32 [B, count], normally distributed with mean 0 and standard deviation 1 (Box and Muller, 1958)."""
    half = (count + 1) // 2
    numbers = uniform(seeds, 2 * half)
    radius = tf.sqrt(-2.0 * in_packets(tf.math.log, 1.0 - numbers[:, :half]))
    angle = 2 * math.pi * numbers[:, half:]
    return tf.concat([radius * in_packets(tf.cos, angle), radius * in_packets(tf.sin, angle)], axis=1)[:, :count]


def in_packets(function: Callable[[tf.Tensor], tf.Tensor], values: tf.Tensor) -> tf.Tensor:
    """`function` of every number, to the last bit the same wherever in `values` the number stands.

    TensorFlow computes exponentials, logarithms and angles by one formula in packets, by another for the few numbers
    left over at the end.
    """
    count = values.shape.num_elements()
    if count is not None and count % PACKET == 0:
        return function(values)
    flat = tf.reshape(values, [-1])
    padded = function(tf.pad(flat, [[0, -tf.size(flat) % PACKET]]))
    return tf.reshape(padded[: tf.size(flat)], tf.shape(values))


def _bits(seeds: tf.Tensor, count: int) -> tf.Tensor:
    """uint32 [B, count]: the seeds hashed with 0, 1, 2, ..., four numbers at a time."""
    shape = [tf.shape(seeds)[0], -(-count // 4)]
    words = [tf.broadcast_to(seeds[:, word : word + 1], shape) for word in range(3)]
    return tf.concat(_hash(*words, tf.broadcast_to(tf.range(shape[1])[None], shape)), axis=1)[:, :count]


def _hash(*words: tf.Tensor) -> list[tf.Tensor]:
    """pcg4d: four uint32 words of one shape to four others that look random."""
    # All of one shape: TensorFlow's optimizer may join sums of different ones, and then refuses the result.
    x, y, z, w = (tf.cast(word, "uint32") * 1664525 + 1013904223 for word in words)
    x, y, z, w = _stir(x, y, z, w)
    x, y, z, w = (tf.bitwise.bitwise_xor(v, tf.bitwise.right_shift(v, tf.constant(16, "uint32"))) for v in (x, y, z, w))
    return list(_stir(x, y, z, w))


def _stir(x: tf.Tensor, y: tf.Tensor, z: tf.Tensor, w: tf.Tensor) -> tuple[tf.Tensor, ...]:
    x = x + y * w
    y = y + z * x
    z = z + x * y
    w = w + y * z
    return x, y, z, w
