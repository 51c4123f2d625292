"""Train a compiled model for a moment with another optimiser, and leave everything exactly as it was."""

import contextlib
import functools
import random
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

# What Keras compiles once and then keeps, and the steps it compiles.
FUNCTIONS = ("train_function", "test_function", "predict_function")
STEPS = ("train_step", "test_step")


@contextlib.contextmanager
def borrowed(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Inside, `model.train_on_batch` uses `optimizer`, one step a call.

    Afterwards weights, BatchNorm statistics, seeds, metrics, the model's own optimiser with its slots and step count,
    the compiled functions, `stop_training` and the global random numbers of Python and numpy are bit by bit as before,
    also after an error. Not covered: random numbers that a layer draws without a seed generator of its own.

    In the middle of a `fit`, call it from a callback and give it `callback.model`.

    Args:
        model: Built and compiled.
        optimizer: Used inside. Kept for another time with the same compiled model it does not compile again; its own
            slots and step count are where the last time left them. Under mixed_float16 scale the loss yourself
            (`loss_scale_factor`): it gets no `LossScaleOptimizer` around it.

    Raises:
        ValueError: The model is not built or not compiled, or the optimiser belongs to other weights.
    """
    _check(model, optimizer)
    if hasattr(model, "jax_state_sync"):  # on JAX the state lives outside the variables during an epoch
        model.jax_state_sync()
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    # Through `vars`, so that TensorFlow does not track the borrowed optimiser as a part of the model.
    attributes = vars(model)
    before = {name: attributes[name] for name in ("optimizer", "steps_per_execution", "stop_training", *FUNCTIONS)}
    generators = random.getstate(), np.random.get_state()
    variables = [*model.variables, *model.metrics_variables]
    values = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
    attributes.update({"optimizer": optimizer, "steps_per_execution": 1, **_functions_of(optimizer, model)})
    # New objects: JAX would find the compiled step of the model's own optimiser again, whatever `optimizer` is.
    own_steps = {name: attributes[name] for name in STEPS if name in attributes}
    attributes.update({name: functools.partial(getattr(model, name)) for name in STEPS})
    try:
        yield
    finally:
        vars(optimizer)["_borrowed"] = (model._compile_config, {name: attributes[name] for name in FUNCTIONS})
        for name in STEPS:
            del attributes[name]
        attributes.update({**before, **own_steps})
        if hasattr(model, "jax_state_sync"):  # after an error in a step there is a state nobody must put back
            model._jax_state_synced = True
        model.reset_metrics()  # metrics are built when the first batch comes: those that came inside start anew
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        random.setstate(generators[0])
        np.random.set_state(generators[1])


def _check(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    if not model.built:
        raise ValueError("The model has no weights yet. Begin it with `keras.Input(shape)`, or call it on a batch.")
    if getattr(model, "optimizer", None) is None:
        raise ValueError("The model is not compiled. Call `model.compile(optimizer, loss)` first.")
    known = getattr(optimizer, "_trainable_variables", None)
    if optimizer.built and known and [id(one) for one in known] != [id(one) for one in model.trainable_variables]:
        raise ValueError(
            "`optimizer` was built for other weights: another model, or layers frozen or unfrozen since. "
            "Make a new optimiser for this model."
        )


def _functions_of(optimizer: keras.optimizers.Optimizer, model: keras.Model) -> dict[str, Any]:
    """What the optimiser's last time compiled; nothing where the model was compiled anew since."""
    compiled, functions = vars(optimizer).get("_borrowed", (None, {}))
    return functions if compiled is model._compile_config else dict.fromkeys(FUNCTIONS)
