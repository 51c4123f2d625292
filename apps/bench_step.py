"""`kerascnn bench step`: where the time of a training step goes, by kind of operation, from TensorFlow's own trace."""

import itertools
import re
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from apps.batches import training_batches
from apps.bench import Figure, print_figures
from apps.bench_train import CLASSES, PICTURES, our_model, random_data
from apps.console import Console
from apps.phases import phases
from apps.recipe import Recipe
from apps.recipes import RECIPES, Choices
from apps.resolve import resolve

STEPS = 3  # traced in each round
# The network as published, in Keras: GELU, SGD, every picture in full.
PLAIN: Choices = {
    "activation": None,
    "frozen_scale": None,
    "optimizer": "nesterov",
    "bias_rate": 1.0,
    "head_rate": 1.0,
    "scales": (),
}
# By a part of the class of a layer, or of the kernel where an operation (a gradient, mostly) is of no layer.
KINDS = {
    "Conv": "convolutions",
    "PatchWhitening": "convolutions",
    "BatchNorm": "BatchNorm",
    **dict.fromkeys(("Activation", "Sigmoid", "Swish", "Gelu", "Erf", "Relu"), "activations"),
    "Pool": "pooling",
}
OPTIMISER, PIPELINE, REST, WAITING = "optimiser", "pipeline", "everything else", "Python, waiting"


class Operation(NamedTuple):
    """One call of a kernel: "path/of/the/node:Kernel", and when it ran, in seconds."""

    name: str
    start: float
    end: float


def bench_step(rounds: int, console: Console) -> dict[str, list[Figure]]:
    """Microseconds a picture of every kind of operation: of a plain port of airbench94 and of `cifar10-fast`."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError("`bench step` reads TensorFlow's trace: set KERAS_BACKEND=tensorflow.")
    tables = {}
    for title, changes in (("airbench94, plain port", PLAIN), ("cifar10-fast", {})):
        choices = {**RECIPES["cifar10-fast"], **changes, "val": 0.0}
        recipe = resolve(choices, PICTURES, (32, 32), list(CLASSES.values()))
        for size in dict.fromkeys(phase.size for phase in phases(recipe)):
            height, width = size or recipe.image_size
            name = f"{title}: {height}x{width}, batch {recipe.batch_size}, {recipe.precision}"
            tables[name] = figures_of(recipe, size, rounds)
            print_figures(name, tables[name], console, "all")
    return tables


def figures_of(recipe: Recipe, size: tuple[int, int] | None, rounds: int) -> list[Figure]:
    """Microseconds a picture by kind of operation, the largest first, and of all together."""
    model, data = our_model(recipe, random_data(10 * recipe.batch_size), size)
    batches = iter(training_batches(recipe, data, np.arange(len(data.pictures)), size=size))
    batch = next(batches)
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(2):  # compile, warm up
        model.train_on_batch(*batch)
    for _ in range(rounds):
        operations, traced = trace(lambda: model.train_on_batch(*batch), STEPS)
        alone = seconds_of(lambda: model.train_on_batch(*batch), STEPS)
        with_pipeline = seconds_of(lambda: model.train_on_batch(*next(batches)), STEPS)
        for kind, spent in by_kind(operations, model, traced).items():
            seconds[kind].append(spent * alone / traced)  # the trace takes time of its own
        seconds[PIPELINE].append(with_pipeline - alone)
        seconds["all"].append(with_pipeline)
    figures = []
    for kind, measured in seconds.items():
        each = np.array(measured) / STEPS / recipe.batch_size * 1e6
        figures.append(Figure(kind, float(np.median(each)), float(each.min()), float(each.max()), "us/picture"))
    return sorted(figures, key=lambda figure: -figure.median)


def seconds_of(step: Callable[[], object], steps: int) -> float:
    """How long so many steps take."""
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    return time.perf_counter() - begun


def trace(step: Callable[[], object], steps: int) -> tuple[list[Operation], float]:
    """What TensorFlow's kernels did in so many steps, and how long these took in seconds."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            whole = seconds_of(step, steps)
        (path,) = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    operations = []
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                if re.fullmatch(r"[^:]+:_?\w+", name):
                    start = line.timestamp_ns * 1e-9 + event.offset_ps * 1e-12
                    operations.append(Operation(name, start, start + event.duration_ps * 1e-12))
    return operations, whole


def by_kind(operations: Iterable[Operation], model: keras.Model, whole: float) -> dict[str, float]:
    """Seconds by kind of operation, of `whole`; those that run at the same time share it."""
    kind_of = kinds_of_scopes(model)
    changes = []  # (when, 1 or -1 running, of which kind)
    for name, start, end in operations:
        path, _, kernel = name.partition(":")
        # Nodes of a graph that was made a second time are called layer_1.
        found = (kind_of.get(scope) or kind_of.get(re.sub(r"_\d+$", "", scope)) for scope in path.split("/"))
        kind = next(filter(None, found), None) or kind_of_type(kernel) or REST
        changes += [(start, 1, kind), (end, -1, kind)]
    changes.sort()
    seconds: dict[str, float] = defaultdict(float)
    running: Counter[str] = Counter()
    for (when, change, kind), (until, _, _) in itertools.pairwise(changes):
        running[kind] += change
        for one, count in running.items():
            if count:
                seconds[one] += (until - when) * count / running.total()
    return {**seconds, WAITING: whole - sum(seconds.values())}


def kinds_of_scopes(model: keras.Model) -> dict[str, str]:
    """By name of a layer, or of the optimiser, what kind of operations happen under it."""
    kinds = {layer.name: kind for layer in model.layers if (kind := kind_of_type(type(layer).__name__))}
    return {**kinds, model.optimizer.name: OPTIMISER}


def kind_of_type(name: str) -> str | None:
    """What kind of operation a class of layers or a kernel is, if one of those that are told apart."""
    return next((kind for part, kind in KINDS.items() if part in name), None)
