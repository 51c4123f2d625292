"""Labels as the loss wants them: smoothed rows, and weights that leave out what is missing and balance the classes."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

MISSING = -1  # the label of a picture that has none for this head; its loss gets weight 0
SMOOTHINGS = ("others", "all")


def check_labels(count: int, labels: Mapping[str, np.ndarray], num_classes: Mapping[str, int]) -> None:
    """Raise a `ValueError` unless every head has one class number below its number of classes for every picture."""
    for head, values in labels.items():
        if len(values) != count:
            raise ValueError(f"Head {head!r} has {len(values)} labels for {count} pictures; the numbers must be equal.")
        if head not in num_classes:
            raise ValueError(f"`num_classes` has no entry for head {head!r}. Received: {dict(num_classes)}.")
        if count and not (values.min() >= MISSING and values.max() < num_classes[head]):
            raise ValueError(
                f"Head {head!r} must have class numbers from 0 to {num_classes[head] - 1}, or {MISSING} where one is "
                f"missing. Received: {values.min()} to {values.max()}."
            )


def smooth(labels: tf.Tensor, classes: int, amount: float, smoothing: str = "others") -> tf.Tensor:
    """Float32 rows [B, classes] that sum to 1; zeros for `MISSING`.

    Args:
        labels: Class numbers [B].
        classes: K.
        amount: e, in [0, 1).
        smoothing: "others" gives the true class 1 - e and each other e / (K - 1); "all" gives every class e / K and
            the true one 1 - e on top, as Keras does.

    >>> smooth(tf.constant([1]), 5, 0.2).numpy().round(2)
    array([[0.05, 0.8 , 0.05, 0.05, 0.05]], dtype=float32)
    >>> smooth(tf.constant([1]), 5, 0.2, "all").numpy().round(2)
    array([[0.04, 0.84, 0.04, 0.04, 0.04]], dtype=float32)
    """
    if smoothing not in SMOOTHINGS:
        raise ValueError(f"`smoothing` must be one of {', '.join(SMOOTHINGS)}. Received: {smoothing!r}.")
    if not 0 <= amount < 1:
        raise ValueError(f"`amount` must lie in [0, 1). Received: amount={amount}.")
    if classes == 1:
        amount = 0.0
    rest = amount / (max(classes - 1, 1) if smoothing == "others" else classes)
    true = 1.0 - amount if smoothing == "others" else 1.0 - amount + rest
    rows = tf.one_hot(labels, classes, on_value=true, off_value=rest)
    return tf.where((labels == MISSING)[:, None], 0.0, rows)


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """float32 [classes]: N / (K n) for a class that occurs n times, K classes that occur; the mean over labels is 1.

    >>> class_weights(np.array([0, 0, 0, 1]), 2).round(2)
    array([0.67, 2.  ], dtype=float32)
    """
    counts = np.bincount(labels[labels != MISSING], minlength=classes)
    weights = counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1)) if counts.any() else counts
    return np.where(counts > 0, weights, 0).astype("float32")


def example_weights(labels: Mapping[str, np.ndarray], num_classes: Mapping[str, int]) -> np.ndarray:
    """float64 [N]: the mean over the heads of the weights of an example's classes; 1 for a missing label."""
    heads = []
    for head, values in labels.items():
        weights = class_weights(values, num_classes[head])
        heads.append(np.where(values == MISSING, 1.0, weights[np.maximum(values, 0)]))
    return np.mean(heads, axis=0, dtype="float64")
