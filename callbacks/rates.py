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
    """The learning rate at `batch`, counted from 0; of the last batch seen where None, or of the first before any.

    Without a schedule it is the present rate, whatever `batch`.
    """
    schedule = schedule_of(optimizer)
    if schedule is None:
        rate = _inner(optimizer)._learning_rate
        return float(keras.ops.convert_to_numpy(rate() if callable(rate) else rate))
    batch = max(batches_seen(optimizer) - 1, 0) if batch is None else batch
    return float(np.asarray(keras.ops.convert_to_numpy(schedule(batch))))


def set_learning_rate(optimizer: keras.optimizers.Optimizer, rate: float) -> None:
    """Change the learning rate of an optimiser that has no schedule; it holds from the next batch on.

    Raises:
        ValueError: The rate is negative or not finite, or the optimiser's rate is no number that can be changed, or
            it is made of several optimisers.
    """
    if not 0 <= rate < float("inf"):
        raise ValueError(f"`rate` must be at least 0 and finite. Received: rate={rate}.")
    if hasattr(_inner(optimizer), "optimizers"):  # its own rate, which nothing uses, could be set without effect
        raise ValueError(
            f"{type(_inner(optimizer)).__name__} has a learning rate in each of its optimisers, and none that can be "
            "set for all. Give each a schedule, or use one optimiser with `groups`, such as `callbacks.SGD`."
        )
    present = _inner(optimizer)._learning_rate
    if not isinstance(present, keras.Variable):
        raise ValueError(
            f"The learning rate of {optimizer.name} is {type(present).__name__}, which cannot be set. Compile with a "
            "number, or with `Scale(schedule)`, whose `multiplier` can be changed."
        )
    present.assign(float(rate))


def _inner(optimizer: keras.optimizers.Optimizer) -> Any:
    """The optimiser inside Keras' wrapper for float16."""
    return getattr(optimizer, "inner_optimizer", optimizer)
