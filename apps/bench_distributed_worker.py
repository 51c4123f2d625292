"""One process of `kerascnn bench distributed`: on one core, alone or together with others, it trains when told to.

It speaks in lines of JSON: {"parameters": ...} when it is ready, then for every {"batch": ..., "steps": ...} on its
standard input {"seconds": ..., "loss": ...}. It ends when its standard input does.
"""

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from apps.bench_jax import Batch
    from apps.recipe import Recipe


def main(order: Mapping[str, Any]) -> None:
    """Do what `bench_distributed.Worker` asks for.

    Args:
        order: The "core" to stay on, the "number" that its pictures depend on, all fields of a "recipe", how many
            "classes" there are, and "asked", the fields of `hosts.Asked` for one of several processes that train
            together, None for one alone.
    """
    os.sched_setaffinity(0, {order["core"]})  # first of all: libraries start a thread for every core that they find
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # where JAX's exchange prints too
    from apps.startup import import_tensorflow

    import_tensorflow(devices=False)
    from apps.devices import open_devices
    from apps.hosts import Asked, join, leave
    from apps.recipe import Recipe, check_choices

    hosts = join(order["asked"] and Asked(**order["asked"]))
    with open_devices(None, hosts).scope():
        work(Recipe(**check_choices(order["recipe"])), order["classes"], order["number"], answers)
    leave(hosts)


def work(recipe: "Recipe", classes: int, number: int, answers: TextIO) -> None:
    """Train on batches of random pictures, others in every process, for as long as there are orders."""

    def say(**values: float) -> None:
        print(json.dumps(values), file=answers)

    import keras

    from apps.bench_jax import Training, on_devices
    from apps.data import Data
    from apps.network import build_network, compile_network

    keras.utils.set_random_seed(recipe.seed)
    batch = random_batch(recipe, classes, recipe.batch_size, number)
    data = Data(
        batch[0].astype("uint8"), {"label": batch[1]["label"].argmax(1)}, {"label": [*map(str, range(classes))]}
    )
    model = build_network(recipe, data, recipe.precision)
    compile_network(model, recipe, data.num_classes, 1_000)
    say(parameters=sum(math.prod(one.shape) for one in model.trainable_variables))
    training = Training(model, batch)
    for line in sys.stdin:
        asked = json.loads(line)
        batch = on_devices(random_batch(recipe, classes, asked["batch"], number))
        training(batch, 1)  # compiles where the size is new, and waits for the other processes
        begun = time.perf_counter()
        loss = training(batch, asked["steps"])
        say(seconds=time.perf_counter() - begun, loss=loss)


def random_batch(recipe: "Recipe", classes: int, size: int, number: int) -> "Batch":
    """Pictures of noise, and their labels."""
    import numpy as np

    generator = np.random.default_rng(number)
    pictures = generator.integers(0, 256, (size, *recipe.image_size, 3)).astype("float32")
    return pictures, {"label": np.eye(classes, dtype="float32")[generator.integers(0, classes, size)]}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
