"""How often an optimiser has changed the weights, also where it is made of several."""

from typing import Any

import keras

from callbacks.rates import unwrapped


def parts_of(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    """The optimisers inside Keras' wrappers for float16 and for groups of weights; without these the optimiser."""
    inner = unwrapped(optimizer)
    return list(getattr(inner, "optimizers", None) or [inner])


def build_optimizer(model: keras.Model) -> None:
    """Let the optimiser know its weights before the first step: until then a `MultiOptimizer` has no parts."""
    if model.built and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def updates_done(optimizer: keras.optimizers.Optimizer) -> int:
    """How often the optimiser has changed the weights: under gradient accumulation fewer times than batches."""
    return max(int(keras.ops.convert_to_numpy(part.iterations)) for part in parts_of(optimizer))


def refuse_optimizer_average(model: keras.Model, name: str) -> None:
    """Raise a ValueError when the optimiser averages too: `fit` puts that average in before the callbacks' end."""
    if getattr(model, "optimizer", None) is None:
        return
    build_optimizer(model)
    if any(part.use_ema for part in parts_of(model.optimizer)):
        raise ValueError(
            f"{name} does not go together with the optimiser's `use_ema=True`, which overwrites the weights at the "
            "end of `fit`. Use `use_ema=False` and the callback WeightAverage."
        )
