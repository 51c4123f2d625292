"""`kerascnn bench train`: the step of `cifar10-fast`, beside that of the fastest public recipe in PyTorch."""

import functools
import os
from collections.abc import Callable

import keras
import numpy as np

from apps import bench_pytorch
from apps.batches import training_batches
from apps.bench import Contestant, Figure, measure, print_figures
from apps.bench_networks import INSTALL
from apps.console import Console, duration
from apps.data import Data
from apps.network import build_network, compile_network
from apps.phases import phases, steps_of
from apps.recipe import Recipe
from apps.recipes import RECIPES
from apps.resolve import resolve

PICTURES = 45_000  # to train on, in the competition that both are compared by
RECIPE = "cifar10-fast"
CLASSES = {"label": [f"class {number}" for number in range(10)]}
# airbench94, https://arxiv.org/abs/2404.00498: 9.9 epochs in batches of 1024.
REFERENCE_EPOCHS, REFERENCE_BATCH = 9.9, 1024
REFERENCE = "PyTorch, airbench94"


def bench_train(rounds: int, console: Console) -> dict[str, list[Figure]]:
    """Speed of both steps, ours with its pipeline and at every size of picture, and the time of both trainings."""
    recipe = resolve({**RECIPES[RECIPE], "val": 0.0}, PICTURES, (32, 32), list(CLASSES.values()))
    pictures: dict[tuple[int, int] | None, int] = {}  # trained on in the whole training, by size
    for phase in phases(recipe):
        seen = (phase.epochs[1] - phase.epochs[0]) * steps_of(recipe, phase, PICTURES) * recipe.batch_size
        pictures[phase.size] = pictures.get(phase.size, 0) + seen
    contestants = [contestant(recipe, size) for size in pictures]
    if bench_pytorch.INSTALLED:
        bench_pytorch.torch.set_num_threads(os.cpu_count())
        start = functools.cache(functools.partial(reference_step, recipe.precision))
        contestants.append(Contestant(REFERENCE, REFERENCE_BATCH, start, seconds=10.0, warm_up=1))
    else:
        console.say(INSTALL)
    speeds = measure(contestants, rounds)
    title = f"Training steps on CIFAR-10, {recipe.precision}"
    print_figures(title, speeds, console, REFERENCE)
    ours = sum(seen / figure.median for seen, figure in zip(pictures.values(), speeds, strict=False))
    times = [Figure(f"kerascnn, {RECIPE}: {recipe.epochs} epochs", ours, ours, ours, unit="s")]
    if bench_pytorch.INSTALLED:
        theirs = REFERENCE_EPOCHS * PICTURES / speeds[-1].median
        times.append(Figure(f"{REFERENCE}: {REFERENCE_EPOCHS} epochs", theirs, theirs, theirs, unit="s"))
    whole = f"Projected time of the whole training, {PICTURES:,} pictures"
    print_figures(whole, times, console, times[-1].name)
    console.say(f"kerascnn trains in {duration(ours)}. What these epochs reach: apps/README.md, Recipes.")
    return {title: speeds, whole: times}


def contestant(recipe: Recipe, size: tuple[int, int] | None) -> Contestant:
    """Our step with pictures of `size` (None: their own), made and compiled when it is first measured."""
    shown = size or recipe.image_size
    name = f"kerascnn, {shown[0]}x{shown[1]}, batch {recipe.batch_size}"
    made = functools.cache(functools.partial(our_model, recipe, random_data(), size))

    def start() -> Callable[[], object]:
        model, data = made()
        batches = iter(training_batches(recipe, data, np.arange(len(data.pictures)), size=size))
        return lambda: model.train_on_batch(*next(batches))

    return Contestant(name, recipe.batch_size, start, seconds=10.0, warm_up=2)


def our_model(recipe: Recipe, data: Data, size: tuple[int, int] | None) -> tuple[keras.Model, Data]:
    """The recipe's network, compiled as `kerascnn compete` does."""
    model = build_network(recipe, data, recipe.precision, any_size=bool(recipe.scales))
    compile_network(model, recipe, data.num_classes, 1_000)
    return model, data


def random_data(count: int = 5_000) -> Data:
    """Pictures of noise."""
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (count, 32, 32, 3), dtype="uint8")
    return Data(pictures, {"label": generator.integers(0, 10, count).astype("int32")}, CLASSES)


def reference_step(precision: str) -> Callable[[], float]:
    """PyTorch's step on one fixed batch, without a pipeline."""
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (REFERENCE_BATCH, 32, 32, 3)).astype("float32")
    labels = generator.integers(0, 10, REFERENCE_BATCH)
    return bench_pytorch.training_step(bench_pytorch.airbench94(), pictures, labels, precision)
