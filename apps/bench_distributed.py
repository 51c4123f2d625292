"""`kerascnn bench distributed`: two processes that train one network together, beside one that trains it alone."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from apps.bench import Figure, print_figures
from apps.bench_servers import free_port
from apps.console import Console
from apps.recipe import Recipe
from apps.recipes import RECIPES, Choices
from apps.resolve import resolve

FEWEST = 3  # steps of a measurement
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Case:
    """A training: settled fields of its recipe, how many pictures it has, of which size, in how many classes."""

    name: str
    choices: Choices
    pictures: int
    size: tuple[int, int]
    classes: int = 10

    def recipe(self) -> Recipe:
        """What `kerascnn compete` takes for it with JAX on a processor."""
        choices = {**self.choices, "precision": "float32"}
        return resolve(choices, self.pictures, self.size, [[str(number) for number in range(self.classes)]])


CASES = (
    Case("digits", RECIPES["digits"], 1_437, (16, 16)),
    Case("resnet18", {"model": "resnet18", "width": 1.0, "batch_size": 32}, 45_000, (32, 32)),
)


class Worker:
    """A process of `bench_distributed_worker`, which does what `order` says; a context that ends it."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - the process has it as long as it runs
        self._process: Any = subprocess.Popen(
            [sys.executable, "-m", "apps.bench_distributed_worker", json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )

    def tell(self, batch: int, steps: int) -> None:
        """Have it make so many steps; `hear` waits for their end."""
        print(json.dumps({"batch": batch, "steps": steps}), file=self._process.stdin, flush=True)

    def hear(self) -> dict[str, float]:
        """What it says next.

        Raises:
            RuntimeError: It has ended.
        """
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            last = self._errors.read().strip().splitlines()[-1:]
            raise RuntimeError(f"A process of the benchmark has ended: {''.join(last) or 'without a word'}")
        said: dict[str, float] = json.loads(line)
        return said

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        with suppress(BrokenPipeError):
            self._process.__exit__(None, None, None)  # waits, closes the pipes
        self._errors.close()


class Contestant(NamedTuple):
    """Workers that train at the same time, and the pictures in the batch of each."""

    name: str
    workers: Sequence[Worker]
    batch: int

    def seconds(self, steps: int) -> float:
        """How long a step takes, the mean of so many, in the slowest process."""
        for worker in self.workers:
            worker.tell(self.batch, steps)
        return max(worker.hear()["seconds"] for worker in self.workers) / steps


def bench_distributed(
    rounds: int, console: Console, cases: Sequence[Case] = CASES, seconds: float = 2.0
) -> dict[str, list[Figure]]:
    """Speed, efficiency and the cost of the exchange on JAX; every process has a core of its own.

    Args:
        rounds: Measurements of each.
        console: Shows the figures.
        cases: The trainings.
        seconds: About what a measurement of one process alone takes, if that is enough for `FEWEST` steps.

    Raises:
        ValueError: There are too few cores, or JAX is not installed.
    """
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise ValueError(f"`bench distributed` needs two processor cores. Received: {len(cores)}.")
    if importlib.util.find_spec("jax") is None:
        raise ValueError("`bench distributed` trains on JAX, which is not installed: pip install 'kerascnn[jax]'.")
    tables: dict[str, list[Figure]] = {}
    for case in cases:
        found = bench_case(case, rounds, seconds, cores)
        for title, figures in found.items():
            print_figures(title, figures, console, figures[0].name if figures[0].unit == "pictures/s" else None)
        tables |= found
    return tables


def bench_case(case: Case, rounds: int, seconds: float, cores: Sequence[int]) -> dict[str, list[Figure]]:
    """The figures of one training."""
    recipe = case.recipe()
    address = f"127.0.0.1:{free_port()}"
    orders = [
        {"core": core, "number": number, "recipe": asdict(recipe), "classes": case.classes, "asked": asked}
        for together in (False, True)
        for number, core in enumerate(cores)
        for asked in [{"count": len(cores), "number": number, "coordinator": address} if together else None]
    ]
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(order)) for order in orders]
        parameters = {int(worker.hear()["parameters"]) for worker in workers}.pop()
        apart, together = workers[:2], workers[2:]
        whole, half = recipe.batch_size, recipe.batch_size // 2
        contestants = [
            Contestant("alone", apart[:1], whole),
            Contestant("half", apart[:1], half),
            Contestant("beside", apart, half),
            Contestant("shared", together, half),
            Contestant("each", together, whole),
        ]
        first = [contestant.seconds(1) for contestant in contestants]  # compiles all of them
        steps = max(FEWEST, round(seconds / first[0]))
        times = [[contestant.seconds(steps) for contestant in contestants] for _ in range(rounds)]
    title = f"{case.name}, {recipe.image_size[0]}x{recipe.image_size[1]}, {recipe.precision}"
    return tables_of(np.array(times), title, whole, parameters)


def tables_of(times: np.ndarray, title: str, batch: int, parameters: int) -> dict[str, list[Figure]]:
    """What seconds of steps [round, contestant] mean.

    Args:
        times: Of one process with the whole batch and with half of it, of two with half of it each that do not
            exchange anything, and of two that train together with half of it each and with a whole one each.
        title: Of the training.
        batch: Pictures in the whole batch.
        parameters: How many values have gradients.
    """
    alone, half, beside, shared, each = times.T
    half_batch = batch // 2
    exchange = shared - beside
    return {
        f"{title}: training": [
            _figure(f"1 process, batch {batch}", batch / alone),
            _figure(f"1 process, batch {half_batch}", half_batch / half),
            _figure(f"2 processes apart, batch {half_batch} each", 2 * half_batch / beside),
            _figure(f"2 processes together, batch {half_batch} each", 2 * half_batch / shared),
            _figure(f"2 processes together, batch {batch} each", 2 * batch / each),
        ],
        f"{title}: 2 processes together, against 1 with batch {batch}": [
            _figure(f"speed-up, batch {half_batch} each", alone / shared, "x"),
            _figure(f"efficiency, batch {half_batch} each", 50 * alone / shared, "%"),
            _figure(f"speed-up, batch {batch} each", 2 * alone / each, "x"),
            _figure(f"efficiency, batch {batch} each", 100 * alone / each, "%"),
        ],
        f"{title}: a step of 2 processes together, batch {half_batch} each": [
            _figure("all of it", 1e3 * shared, "ms"),
            _figure("computing, as one process alone", 1e3 * half, "ms"),
            _figure("slower beside another process that does the same", 1e3 * (beside - half), "ms"),
            _figure("exchange and waiting", 1e3 * exchange, "ms"),
            _figure("exchange and waiting, share of the step", 100 * exchange / shared, "%"),
            _figure(f"gradients of {parameters:,} parameters, exchanged", np.array(4 * parameters / 1e6), "MB"),
        ],
    }


def _figure(name: str, values: np.ndarray, unit: str = "pictures/s") -> Figure:
    return Figure(name, float(np.median(values)), float(np.min(values)), float(np.max(values)), unit)
