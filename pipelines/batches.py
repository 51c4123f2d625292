"""Batches for `model.fit`: pictures in memory, shuffled and augmented as a pure function of (seed, epoch, index)."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from pipelines.augment import Operation

MISSING = -1  # the label of a picture that has none for this head; its loss gets weight 0


def make_train(
    pictures: np.ndarray,
    labels: Mapping[str, np.ndarray],
    num_classes: Mapping[str, int],
    *,
    batch_size: int,
    index: np.ndarray | None = None,
    augmentation: Sequence[Operation] = (),
    label_smoothing: float = 0.0,
    seed: int = 0,
    first_epoch: int = 0,
) -> tf.data.Dataset:
    """Endless training batches `(x, {head: y}, {head: weight})`, `len(index) // batch_size` of them an epoch.

    Args:
        pictures: uint8 [N, height, width, channels].
        labels: For every head, N class numbers, or `MISSING`.
        num_classes: For every head, how many classes there are.
        batch_size: Pictures in a batch; the remainder of an epoch is left out, another one in each epoch.
        index: Which of the pictures to train on; None for all.
        augmentation: Operations, applied in this order.
        label_smoothing: e: the true class gets 1 - e, each other class e / (K - 1).
        seed: Order and augmentation are a function of it, of the epoch and of the picture's place in `index` alone.
        first_epoch: Where to start, for a training that goes on.

    Raises:
        ValueError: `batch_size` exceeds the number of pictures, or lengths differ.
    """
    _check_lengths(len(pictures), labels)
    chosen = np.arange(len(pictures)) if index is None else np.asarray(index)
    count = len(chosen)
    if not 0 < batch_size <= count:
        raise ValueError(f"`batch_size` must lie between 1 and the {count} pictures. Received: {batch_size}.")
    numbers = sum(operation.numbers for operation in augmentation)
    memory, places = tf.constant(pictures), tf.constant(chosen, "int64")
    targets = {head: tf.constant(values, "int32") for head, values in labels.items()}

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(count), seed=_key(seed, epoch, 0))
        uniform = tf.random.stateless_uniform([count, numbers], seed=_key(seed, epoch, 1))
        shuffled = tf.data.Dataset.from_tensor_slices((tf.gather(places, order), tf.gather(uniform, order)))
        return shuffled.batch(batch_size, drop_remainder=True)

    def to_batch(index: tf.Tensor, uniform: tf.Tensor) -> tuple:
        x = augment(tf.gather(memory, index), uniform, augmentation)
        y, weight = {}, {}
        for head, values in targets.items():
            label = tf.gather(values, index)
            y[head] = smooth(label, num_classes[head], label_smoothing)
            weight[head] = tf.cast(label != MISSING, "float32")
        return tf.cast(x, "float32"), y, weight

    # Shuffled epoch by epoch (one epoch's pictures end before the next begin), batched before augmenting (every
    # operation is vectorised), prefetched so that the next batch is made while the network computes.
    epochs = tf.data.Dataset.range(first_epoch, 2**31)
    return epochs.flat_map(one_epoch).map(to_batch, num_parallel_calls=1).prefetch(2)


def make_eval(
    pictures: np.ndarray,
    labels: Mapping[str, np.ndarray] | None = None,
    num_classes: Mapping[str, int] | None = None,
    *,
    batch_size: int = 256,
) -> tf.data.Dataset:
    """Every picture once and in order, as `x` or, with labels, `(x, {head: y}, {head: weight})`."""
    data = tf.data.Dataset.from_tensor_slices(pictures).batch(batch_size).map(lambda x: tf.cast(x, "float32"))
    if labels is not None and num_classes is not None:
        _check_lengths(len(pictures), labels)
        y = {head: smooth(tf.constant(values, "int32"), num_classes[head], 0.0) for head, values in labels.items()}
        weight = {head: (values != MISSING).astype("float32") for head, values in labels.items()}
        data = tf.data.Dataset.zip((data, tf.data.Dataset.from_tensor_slices((y, weight)).batch(batch_size)))
        data = data.map(lambda x, answers: (x, *answers))
    return data.prefetch(2)


def augment(pictures: tf.Tensor, uniform: tf.Tensor, operations: Sequence[Operation]) -> tf.Tensor:
    """Apply the operations in order, each with its own columns of `uniform` [batch, numbers]."""
    column = 0
    for operation in operations:
        choice = operation.draw(uniform[:, column : column + operation.numbers])
        pictures = operation.apply(pictures, choice)
        column += operation.numbers
    return pictures


def smooth(labels: tf.Tensor, classes: int, amount: float) -> tf.Tensor:
    """One-hot float32 rows with 1 - e for the true class and e / (K - 1) for each other; zeros for `MISSING`.

    >>> smooth(tf.constant([1]), 5, 0.2).numpy().round(2)
    array([[0.05, 0.8 , 0.05, 0.05, 0.05]], dtype=float32)
    """
    rest = amount / (classes - 1) if classes > 1 else 0.0
    rows = tf.one_hot(labels, classes, on_value=1.0 - amount if classes > 1 else 1.0, off_value=rest)
    return tf.where((labels == MISSING)[:, None], 0.0, rows)


def _key(seed: int, epoch: tf.Tensor, purpose: int) -> tf.Tensor:
    """A seed for the stateless random functions, different for every (seed, epoch, purpose)."""
    return tf.stack([tf.cast(seed, "int64") * 2 + purpose, tf.cast(epoch, "int64")])


def _check_lengths(count: int, labels: Mapping[str, np.ndarray]) -> None:
    for head, values in labels.items():
        if len(values) != count:
            raise ValueError(f"Head {head!r} has {len(values)} labels for {count} pictures; the numbers must be equal.")
