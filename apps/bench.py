"""`kerascnn bench NAME`: speed, measured side by side in one process."""

import contextlib
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from apps.console import Console

# TensorFlow is imported by what needs it: `apps.bench_accelerator` works without.

WARM_UP = 5
PACKAGES = ("kerascnn", "tensorflow", "jax", "torch", "keras", "numpy")


@dataclass(frozen=True)
class Contestant:
    """Something to measure.

    Attributes:
        name: As printed.
        pictures: How many a step works on.
        start: Makes ready and returns the step. What it starts in the background ends when the step is forgotten, so
            that nothing is prepared in the others' time.
        seconds: How long a measurement takes.
        warm_up: Steps before each measurement.
    """

    name: str
    pictures: int
    start: Callable[[], Callable[[], object]]
    seconds: float = 1.0
    warm_up: int = WARM_UP


@dataclass(frozen=True)
class Figure:
    """The median of the measurements, the lowest and the highest."""

    name: str
    median: float
    low: float
    high: float
    unit: str = "pictures/s"


def bench(name: str, json_file: Path | None, rounds: int, console: Console) -> None:
    """Run a benchmark and print its figures.

    Raises:
        ValueError: There is no such benchmark.
    """
    from apps import files
    from apps.bench_accelerator import bench_accelerator
    from apps.bench_callbacks import bench_callbacks
    from apps.bench_distributed import bench_distributed
    from apps.bench_networks import bench_building, bench_networks
    from apps.bench_pipeline import bench_pipeline
    from apps.bench_serve import bench_serve
    from apps.bench_step import bench_step
    from apps.bench_train import bench_train

    known = {
        "pipeline": bench_pipeline,
        "callbacks": bench_callbacks,
        "networks": bench_networks,
        "building": bench_building,
        "train": bench_train,
        "step": bench_step,
        "serve": bench_serve,
        "distributed": bench_distributed,
        "accelerator": bench_accelerator,
    }
    if name not in known:
        raise ValueError(f"There is no benchmark {name!r}. Benchmarks: {', '.join(known)}.")
    if json_file is not None:
        files.require_folder_of(json_file)
    console.say(describe_machine())
    tables = known[name](rounds, console)
    if json_file is not None:
        files.write_json(json_file, record(name, rounds, tables))


def describe_machine() -> str:
    """Cores and versions in a line."""
    return f"{os.cpu_count()} cores, {platform.machine()}, {versions()}"


def versions() -> dict[str, str]:
    """Of those packages that are installed."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def record(name: str, rounds: int, tables: Mapping[str, Sequence[Figure]]) -> dict[str, Any]:
    """What a benchmark's JSON file says."""
    return {
        "benchmark": name,
        "cores": os.cpu_count(),
        "versions": versions(),
        "rounds": rounds,
        "figures": {title: [asdict(figure) for figure in table] for title, table in tables.items()},
    }


def measure(contestants: Sequence[Contestant], rounds: int) -> list[Figure]:
    """Measure all contestants in turn, round after round, so that a slow moment of the machine meets all of them."""
    speeds: list[list[float]] = [[] for _ in contestants]
    for _ in range(rounds):
        for contestant, speed in zip(contestants, speeds, strict=True):
            speed.append(_speed(contestant))
    return [
        Figure(contestant.name, statistics.median(speed), min(speed), max(speed))
        for contestant, speed in zip(contestants, speeds, strict=True)
    ]


def print_figures(title: str, figures: Iterable[Figure], console: Console, reference: str | None = None) -> None:
    """A table: the figures, their range, and their ratio to the one named `reference`."""
    figures = list(figures)
    base = next((figure.median for figure in figures if figure.name == reference), None)
    console.say()
    console.say(title)
    for figure in figures:
        ratio = f"{figure.median / base:7.1%}" if base else ""
        places = 0 if figure.median >= 100 else 1 if figure.median >= 1 else 3
        spread = f"({figure.low:,.{places}f} to {figure.high:,.{places}f})"
        console.say(f"  {figure.name:<52} {figure.median:>10,.{places}f} {figure.unit} {spread:<22} {ratio}".rstrip())


def _speed(contestant: Contestant) -> float:
    """Pictures a second, of one measurement."""
    step = contestant.start()
    for _ in range(contestant.warm_up):
        step()
    start, steps = time.perf_counter(), 0
    while (seconds := time.perf_counter() - start) < contestant.seconds:
        step()
        steps += 1
    return contestant.pictures * steps / seconds
