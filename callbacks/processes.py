"""Callbacks in a training by several processes or devices: who writes files, and predictions that all make alike."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras


def is_first_process() -> bool:
    """Whether this process is the first, or only, one of those that share a `keras.distribution.DataParallel`.

    Inside the distribution's scope. The other processes have the same weights and write none of them.

    >>> is_first_process()
    True
    """
    distribution = keras.distribution.distribution()
    return distribution is None or distribution.data_shard_id == 0


@contextmanager
def not_distributed() -> Iterator[None]:
    """Inside, batches are no shares of a larger one: every process computes the same on the same examples."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def predict_batch(model: keras.Model, x: Any) -> Any:
    """`model.predict_on_batch(x)`, each example once, also while the model trains on several devices or processes."""
    strategy = getattr(model, "distribute_strategy", None)
    if getattr(strategy, "num_replicas_in_sync", 1) > 1:  # TensorFlow's would give all of the batch to every device
        return keras.tree.map_structure(keras.ops.convert_to_numpy, model(x, training=False))
    with not_distributed():
        return model.predict_on_batch(x)
