"""Reading and changing an optimiser's learning rate, whatever it is made of."""

from typing import Any

import keras
import numpy as np

LearningRateSchedule = keras.optimizers.schedules.LearningRateSchedule


def unwrapped(optimizer: keras.optimizers.Optimizer) -> Any:
    """The optimiser inside Keras' wrapper for float16."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def schedule_of(optimizer: keras.optimizers.Optimizer) -> Any:
    """The optimiser's schedule; None where its learning rate is a number."""
    rate = unwrapped(optimizer)._learning_rate
    return rate if isinstance(rate, LearningRateSchedule) else None


def batches_seen(optimizer: keras.optimizers.Optimizer) -> int:
    """How many batches the optimiser has seen, which is what schedules count, also under gradient accumulation."""
    return int(keras.ops.convert_to_numpy(unwrapped(optimizer)._iterations))


def learning_rate(optimizer: keras.optimizers.Optimizer, batch: int | None = None) -> float:
    """The learning rate at `batch`, counted from 0; of the last batch seen where None, or of the first before any.

    Without a schedule it is the present rate, whatever `batch`.
    """
    schedule = schedule_of(optimizer)
    if schedule is None:
        rate = unwrapped(optimizer)._learning_rate
        return float(keras.ops.convert_to_numpy(rate() if callable(rate) else rate))
    batch = max(batches_seen(optimizer) - 1, 0) if batch is None else batch
    return float(np.asarray(keras.ops.convert_to_numpy(schedule(batch))))


def momentum(optimizer: keras.optimizers.Optimizer, batch: int | None = None) -> float | None:
    """The momentum at `batch`, as `learning_rate` counts it: SGD's, or Adam's beta_1; None where there is none."""
    inner = unwrapped(optimizer)
    value = getattr(inner, "momentum", getattr(inner, "beta_1", None))
    if callable(value):
        batch = max(batches_seen(optimizer) - 1, 0) if batch is None else batch
        value = keras.ops.convert_to_numpy(value(batch))
    return None if value is None else float(np.asarray(value))


def set_learning_rate(optimizer: keras.optimizers.Optimizer, rate: float) -> None:
    """Change the learning rate of an optimiser that has no schedule; it holds from the next batch on.

    Raises:
        ValueError: The rate is negative or not finite, or the optimiser's rate is no number that can be changed, or
            it is made of several optimisers.
    """
    if not 0 <= rate < float("inf"):
        raise ValueError(f"`rate` must be at least 0 and finite. Received: rate={rate}.")
    if hasattr(unwrapped(optimizer), "optimizers"):  # its own rate, which nothing uses, could be set without effect
        raise ValueError(
            f"{type(unwrapped(optimizer)).__name__} has a learning rate in each of its optimisers, and none that can "
            "be set for all. Give each a schedule, or use one optimiser with `groups`, such as `callbacks.SGD`."
        )
    present = unwrapped(optimizer)._learning_rate
    if not isinstance(present, keras.Variable):
        raise ValueError(
            f"The learning rate of {optimizer.name} is {type(present).__name__}, which cannot be set. Compile with a "
            "number, or with `Scale(schedule)`, whose `multiplier` can be changed."
        )
    present.assign(float(rate))


def claim_rate(callback: keras.callbacks.Callback, alone: bool = True) -> None:
    """Note in `on_train_begin` that a callback sets the rate.

    Raises:
        ValueError: Another one of the same `fit` does too, and one of them must be `alone`.
    """
    # Keras gives the callbacks of one `fit` one and the same `params`. Through `vars`, so that nothing is tracked.
    attributes = vars(callback.model)
    params, claims = attributes.get("_rate_claims", (None, []))
    others = [one for one in claims if one[0] is not callback] if params is callback.params else []
    for other, other_alone in others:
        if alone or other_alone:
            raise ValueError(
                f"{type(other).__name__} and {type(callback).__name__} would both set the learning rate. Keep one; "
                "for a reduction on top of a schedule, give the optimiser `Scale(schedule)` and use `ReduceOnPlateau`."
            )
    attributes["_rate_claims"] = callback.params, [*others, (callback, alone)]
