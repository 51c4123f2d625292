"""`kerascnn bench networks` and `kerascnn bench building`: a step of training and of inference, beside PyTorch's."""

import fnmatch
import functools
import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np

import kerascnn
from apps import bench_pytorch
from apps.bench import Contestant, Figure, measure, print_figures
from apps.console import Console
from kerascnn.registry import lookup

OURS, PYTORCH = "kerascnn", "PyTorch"
INSTALL = "PyTorch is not installed, the figures are of kerascnn alone. For both: pip install 'kerascnn[torch]'."
TOO_LARGE = "efficientnet_b[5-7]"


@dataclass(frozen=True)
class Case:
    """A network, what it works on, and its number of parameters on both sides."""

    name: str
    size: int
    batch: int
    classes: int
    parameters: int
    options: Mapping[str, str] = field(default_factory=dict)  # of our builder

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """One batch of random pictures and classes."""
        generator = np.random.default_rng(0)
        pictures = generator.integers(0, 256, (self.batch, self.size, self.size, 3)).astype("float32")
        return pictures, generator.integers(0, self.classes, self.batch)


CASES = (
    Case("resnet18", 32, 256, 10, 11_173_962, {"stem": "small"}),
    Case("resnet50", 224, 16, 1000, 25_557_032, {"downsample": "3x3"}),
)


def bench_networks(
    rounds: int,
    console: Console,
    cases: Sequence[Case] = CASES,
    precisions: Sequence[str] = ("bfloat16", "float32"),
    seconds: float = 5.0,
) -> dict[str, list[Figure]]:
    """Training steps and inference of the same networks, ours and PyTorch's, with as many threads."""
    if bench_pytorch.INSTALLED:
        bench_pytorch.torch.set_num_threads(os.cpu_count())
        console.say(f"PyTorch {bench_pytorch.torch.__version__}, {bench_pytorch.torch.get_num_threads()} threads")
    else:
        console.say(INSTALL)
    tables = {}
    for case in cases:
        for precision in precisions:
            for work, ours, pytorch in (
                ("training step", our_training, pytorch_training),
                ("inference", our_inference, pytorch_inference),
            ):
                contestants = [_contestant(OURS, ours, case, precision, seconds)]
                if bench_pytorch.INSTALLED:
                    contestants.append(_contestant(PYTORCH, pytorch, case, precision, seconds))
                title = f"{case.name}, {case.size}x{case.size}, batch {case.batch}, {precision}: {work}"
                tables[title] = measure(contestants, rounds)
                print_figures(title, tables[title], console, PYTORCH)
                gc.collect()
    return tables


def our_model(case: Case, precision: str) -> keras.Model:
    """Built and compiled."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    try:
        model = kerascnn.build(case.name, (case.size, case.size, 3), case.classes, **case.options)
    finally:
        keras.config.set_dtype_policy(policy)
    _check_count(case, sum(math.prod(weight.shape) for weight in model.trainable_variables))
    sgd = keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True)
    model.compile(sgd, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def our_training(case: Case, precision: str) -> Callable[[], object]:
    """What `fit` calls for every batch."""
    model = our_model(case, precision)
    x, y = (keras.ops.convert_to_tensor(array) for array in case.data())
    return lambda: model.train_on_batch(x, y)


def our_inference(case: Case, precision: str) -> Callable[[], object]:
    """What `predict` calls for every batch."""
    model = our_model(case, precision)
    x = keras.ops.convert_to_tensor(case.data()[0])
    return lambda: model.predict_on_batch(x)


def pytorch_training(case: Case, precision: str) -> Callable[[], object]:
    """The same step in PyTorch."""
    return bench_pytorch.training_step(pytorch_model(case), *case.data(), precision)


def pytorch_inference(case: Case, precision: str) -> Callable[[], object]:
    """The same in PyTorch."""
    return bench_pytorch.inference_step(pytorch_model(case), case.data()[0], precision)


def bench_building(rounds: int, console: Console, pattern: str = "*") -> dict[str, list[Figure]]:
    """Seconds that building a network takes, with its initial weights; the slowest first."""
    figures = []
    for name in kerascnn.list_models(pattern):
        if not fnmatch.fnmatch(name, TOO_LARGE):
            taken = [_seconds_to_build(name) for _ in range(rounds)]
            figures.append(Figure(name, statistics.median(taken), min(taken), max(taken), unit="s"))
    figures.sort(key=lambda figure: -figure.median)
    title = "Building a network"
    print_figures(title, figures, console)
    return {title: figures}


def _contestant(
    name: str, make: Callable[[Case, str], Callable[[], object]], case: Case, precision: str, seconds: float
) -> Contestant:
    """Made in the first round and kept, so that it is compiled only once."""
    step = functools.cache(functools.partial(make, case, precision))
    return Contestant(name, case.batch, step, seconds, warm_up=1)


def pytorch_model(case: Case) -> object:
    """Built, its parameters counted."""
    model = bench_pytorch.resnet(case.name, case.classes, case.options.get("stem", "imagenet"))
    _check_count(case, bench_pytorch.count_parameters(model))
    return model


def _check_count(case: Case, count: int) -> None:
    if count != case.parameters:
        raise ValueError(f"{case.name} needs {case.parameters:,} parameters to be comparable. Received: {count:,}.")


def _seconds_to_build(name: str) -> float:
    network = lookup(name)
    gc.collect()
    start = time.perf_counter()
    kerascnn.build(name, network.input_shape, network.classes)
    return time.perf_counter() - start
