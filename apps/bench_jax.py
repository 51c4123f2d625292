"""Steps of Keras' networks on JAX for the benchmarks: begun without waiting for one another, the last is waited for.

Without JAX this module can be imported, and nothing else.
"""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

jax: Any = importlib.import_module("jax") if importlib.util.find_spec("jax") else None
Batch = tuple[Any, Any]  # pictures, and their labels as the loss takes them


class Training:
    """The step that `fit` makes, without what `fit` does between steps.

    Args:
        model: Compiled, on JAX; its own weights are of no use afterwards.
        batch: To make everything ready with; other batches may be of other sizes.
    """

    def __init__(self, model: keras.Model, batch: Batch) -> None:
        model.train_on_batch(*batch)
        parts = [model.trainable_variables, model.non_trainable_variables]
        parts += [model.optimizer.variables, model.metrics_variables]
        self._state = tuple([variable.value for variable in variables] for variables in parts)
        self._step = model.train_function

    def __call__(self, batch: Batch, steps: int) -> float:
        """So many steps on a batch that lies on the devices (`on_devices`); the mean loss of all steps so far."""
        logs: dict[str, Any] = {}
        for _ in range(steps):
            logs, self._state = self._step(self._state, iter([batch]))
        jax.block_until_ready(self._state)
        return float(logs["loss"])


def inference(model: keras.Model, pictures: Any) -> Callable[[int], Any]:
    """A function that predicts pictures so many times and returns the last logits."""
    weights = [[one.value for one in part] for part in (model.trainable_variables, model.non_trainable_variables)]
    predict = jax.jit(lambda weights, x: model.stateless_call(*weights, x, training=False)[0])

    def run(steps: int) -> Any:
        logits = None
        for _ in range(steps):
            logits = predict(weights, pictures)
        return jax.block_until_ready(logits)

    return run


def on_devices(batch: Batch) -> Batch:
    """This process's part of a batch on its device, or on those that train together (`DataParallel`)."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return jax.tree.map(jax.device_put, batch)
    mesh = distribution.device_mesh.backend_mesh
    divided = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(distribution.batch_dim_name))
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(divided, np.asarray(array)), batch)
