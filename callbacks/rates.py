"""Reading and changing an optimiser's learning rate, whatever it is made of."""

from typing import Any

import keras
import numpy as np

LearningRateSchedule = keras.optimizers.schedules.LearningRateSchedule


def schedule_of(optimizer: keras.optimizers.Optimizer) -> Any:
    """The optimiser's schedule; None where its learning rate is a number."""
    rate = _inner(optimizer)._learning_rate
    return rate if isinstance(rate, LearningRateSchedule) else None


def batches_seen(optimizer: keras.optimizers.Optimizer) -> int:
    """How many batches the optimiser has seen, which is what schedules count, also under gradient accumulation."""
    return int(keras.ops.convert_to_numpy(_inner(optimizer)._iterations))


def learning_rate(optimizer: keras.optimizers.Optimizer, batch: int | None = None) -> float:
    """The learning rate at `batch`, counted from 0; of the last batch seen where None."""
    schedule = schedule_of(optimizer)
    if schedule is None:
        return float(keras.ops.convert_to_numpy(_inner(optimizer)._learning_rate))
    batch = max(batches_seen(optimizer) - 1, 0) if batch is None else batch
    return float(np.asarray(keras.ops.convert_to_numpy(schedule(batch))))


def set_learning_rate(optimizer: keras.optimizers.Optimizer, rate: float) -> None:
    """Change the learning rate of an optimiser that has no schedule; it holds from the next batch on."""
    _inner(optimizer).learning_rate = float(rate)


def _inner(optimizer: keras.optimizers.Optimizer) -> Any:
    """The optimiser inside Keras' wrapper for float16."""
    return getattr(optimizer, "inner_optimizer", optimizer)
