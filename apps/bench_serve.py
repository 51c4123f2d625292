"""`kerascnn bench serve`: the server beside others with the same SavedModel, and under more than it can answer."""

import base64
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from apps import bench_rivals
from apps.bench import Figure, print_figures
from apps.bench_servers import free_port, ours, publish, requests_of, resources, running
from apps.console import Console
from apps.load_generator import Load, Outcome, ask, post

CLIENTS = (1, 8, 32, 128)
SECONDS = 3.0
PICTURES = 64
CALLS = 2000  # of the model alone
# name: the network, its options, and the (height, width) it sees; the JPEGs are a third larger.
MODELS = {"resnet18": ("resnet18", 224), "mobilenet": ("mobilenet_v2", 96)}
UNDER_SWAPS = 75.0  # seconds of requests while versions change


def bench_serve(rounds: int, console: Console) -> dict[str, list[Figure]]:
    """Requests per second and latencies beside other servers, then overhead, overload, swaps and a long run."""
    tables: dict[str, list[Figure]] = {}
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(1, get_context("spawn")) as pool:
        asked = lambda load: pool.submit(ask, load).result()  # noqa: E731
        for model, (network, side) in MODELS.items():
            folder = Path(name, model)
            export_network(network, side, folder / model / "1")
            pictures = jpegs(side + side // 3)
            tables |= compare(model, folder, pictures, rounds, asked, console)
            if model == "resnet18":
                tables |= overload(model, folder, pictures, asked, console)
        half = Path(name, "plain/half/1")
        export_half_plus_two(half)
        tables |= overhead(half.parents[1], rounds, asked, console)
        tables |= swaps(half.parents[1], pool, console)
    return tables


def export_network(network: str, side: int, folder: Path) -> None:
    """An export of a network with random weights and 10 classes."""
    import kerascnn
    from kerascnn.export import Classifier, export_model
    from pipelines.decode import decode_picture, resize

    keras.utils.set_random_seed(0)
    built = kerascnn.build(network, (side, side, 3), {"label": 10})
    settle(built, jpegs(side))
    folder.mkdir(parents=True)
    metadata = {"classes": {"label": [f"class {number}" for number in range(10)]}, "image_size": [side, side]}
    export_model(Classifier([built], (side, side), decode_picture, resize), folder, metadata, jpegs(side)[:4])


def settle(network: keras.Model, pictures: Sequence[bytes]) -> None:
    """Give BatchNorm the statistics of some pictures, so that random weights answer as calmly as trained ones."""
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in pictures]).astype("float32")
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0
    network(pixels, training=True)


def export_half_plus_two(folder: Path) -> None:
    """A SavedModel whose computation takes no time: y = x / 2 + 2."""
    import tensorflow as tf

    module = tf.Module()
    module.predict = tf.function(lambda x: {"y": x / 2 + 2}, input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    tf.saved_model.save(module, os.fspath(folder), signatures=module.predict)


def jpegs(side: int) -> list[bytes]:
    """Squares cut from scikit-learn's two photographs, as JPEG of quality 90."""
    from sklearn.datasets import load_sample_images

    generator, found = np.random.default_rng(0), []
    for number in range(PICTURES):
        photograph = load_sample_images().images[number % 2]
        top, left = (int(generator.integers(0, length - side)) for length in photograph.shape[:2])
        file = io.BytesIO()
        Image.fromarray(photograph[top : top + side, left : left + side]).save(file, "JPEG", quality=90)
        found.append(file.getvalue())
    return found


def compare(
    model: str,
    folder: Path,
    pictures: Sequence[bytes],
    rounds: int,
    asked: Callable[[Load], Outcome],
    console: Console,
) -> dict[str, list[Figure]]:
    """Each server in turn, round after round: the servers that wait use no processor."""
    theirs = [
        post("/predict", json.dumps({"image": base64.b64encode(data).decode()}).encode(), "application/json")
        for data in pictures
    ]
    tables: dict[str, list[Figure]] = {}
    with ExitStack() as stack:
        rivals = [stack.enter_context(ours(folder, model, requests_of(model, pictures)))]
        for name, title in bench_rivals.RIVALS.items():
            if not bench_rivals.installed(name):
                console.say(bench_rivals.INSTALL)
                continue
            port = free_port()
            command = [sys.executable, "-m", "apps.bench_rivals", name, str(folder / model / "1"), str(port)]
            rivals.append(stack.enter_context(running(title, command, port, theirs)))
        measured: dict[tuple[str, int], list[Outcome]] = {}
        bare: dict[str, list[float]] = {}
        runner = BareRunner(folder, model, pictures)
        for _ in range(rounds):
            for name, speed in runner.speeds().items():
                bare.setdefault(name, []).append(speed)
            for rival in rivals:
                for clients in CLIENTS:
                    outcome = asked(Load(rival.port, rival.requests, clients, SECONDS, before=SECONDS))
                    measured.setdefault((rival.name, clients), []).append(outcome)
        runner.close()
    for clients in CLIENTS:
        title = f"{model}, {clients} clients"
        found = [(rival.name, measured[rival.name, clients]) for rival in rivals]
        tables[title] = [figure(name, [one.goodput for one in outcomes], "requests/s") for name, outcomes in found]
        tables[title] += [
            figure(f"{name}, p{share}", [1e3 * one.quantile(share / 100) for one in outcomes], "ms")
            for name, outcomes in found
            for share in (50, 99)
        ]
        print_figures(title, tables[title], console)
    title = f"{model}, the bare runner ({runner.name}) on full batches"
    tables[title] = [figure(name, speeds, "pictures/s") for name, speeds in bare.items()]
    print_figures(title, tables[title], console)
    at_32 = statistics.median(one.goodput for one in measured[rivals[0].name, 32])
    for one in tables[title]:
        console.say(f"  of {one.name}, the server reaches {at_32 / one.median:.2f} at 32 clients")
    return tables


class BareRunner:
    """What the chosen runner computes without a server: full batches, from as many threads as the server has."""

    def __init__(self, folder: Path, model: str, pictures: Sequence[bytes]) -> None:
        from apps.serve.batching import Workers
        from apps.serve.loading import load_servable
        from apps.serve.server import worker_count
        from apps.serve.settings import Settings

        settings = Settings(folder)
        self._workers = Workers(worker_count(settings))
        self._threads = ThreadPoolExecutor(self._workers.count)
        self._servable = load_servable(
            folder / model / "1",
            model,
            1,
            settings=settings,
            workers=self._workers,
            decoders=self._threads,
            observe=lambda *_: None,
        )
        self.name = self._servable.runner.name
        self._pictures = [pictures[number % len(pictures)] for number in range(settings.max_batch)]
        self._pixels = self._decoded()

    def _decoded(self) -> np.ndarray:
        run = self._servable.runner.run
        return np.stack([run("decode", {"image_bytes": np.array(data, object)})["image"] for data in self._pictures])

    def speeds(self) -> dict[str, float]:
        """Pictures per second: of pixels, and of JPEGs that are decoded first."""
        run = self._servable.runner.run
        return {
            "pixels": self._speed(lambda: run("serving_sized", {"image": self._pixels})),
            "JPEG, decoded before": self._speed(lambda: run("serving_sized", {"image": self._decoded()})),
        }

    def _speed(self, step: Callable[[], object]) -> float:
        step()
        end = time.perf_counter() + SECONDS

        def steps() -> int:
            count = 0
            while time.perf_counter() < end:
                step()
                count += 1
            return count

        start = time.perf_counter()
        counts = [self._threads.submit(steps) for _ in range(self._workers.count)]
        done = sum(count.result() for count in counts)
        return done * len(self._pixels) / (time.perf_counter() - start)

    def close(self) -> None:
        """Give the memory back."""
        self._servable.runner.close()
        self._threads.shutdown()
        self._workers.close()


def overhead(folder: Path, rounds: int, asked: Callable[[Load], Outcome], console: Console) -> dict[str, list[Figure]]:
    """Processor time of the server for a request whose model costs next to nothing, and that of the model alone."""
    from apps.serve.tensorflow_runner import TensorFlowRunner

    requests = [post("/v1/models/half:predict", b'{"instances": [1.0]}', "application/json")]
    title = "Processor time of a request to y = x / 2 + 2, computed by TensorFlow"
    runner, row = TensorFlowRunner(folder / "half/1"), {"x": np.array([1.0], "float32")}
    alone: list[float] = []
    for _ in range(rounds + 1):
        start = time.process_time()
        for _ in range(CALLS):
            runner.run("serving_default", row)
        alone.append(1e3 * (time.process_time() - start) / CALLS)
    figures = [figure("the model alone, one row", alone[1:], "ms")]
    with ours(folder, "half", requests, "--runner", "tensorflow") as server:
        for clients in CLIENTS:
            spent = []
            for _ in range(rounds):
                asked(Load(server.port, requests, clients, SECONDS / 3))
                before = server.process.cpu_times()
                outcome = asked(Load(server.port, requests, clients, SECONDS))
                after = server.process.cpu_times()
                seconds = after.user + after.system - before.user - before.system
                spent.append(1e3 * seconds / outcome.asked)
            figures.append(figure(f"{clients} clients, with the model", spent, "ms"))
    print_figures(title, figures, console)
    return {title: figures}


def overload(
    model: str, folder: Path, pictures: Sequence[bytes], asked: Callable[[Load], Outcome], console: Console
) -> dict[str, list[Figure]]:
    """Ten times as many requests as can be answered, by the clock."""
    requests = requests_of(model, pictures)
    with ours(folder, model, requests) as server:
        capacity = asked(Load(server.port, requests, 32, 10.0, before=SECONDS)).goodput
        before = server.process.memory_info().rss
        outcome = asked(Load(server.port, requests, 1000, 20.0, before=SECONDS, rate=10 * capacity))
        middle = server.process.memory_info().rss
        asked(Load(server.port, requests, 1000, 20.0, rate=10 * capacity))
        after = server.process.memory_info().rss
    refused = max((status for status in outcome.statuses if status != 200), default=503)
    title = f"{model}, asked 10 times as often as it can answer ({10 * capacity:,.0f} requests/s)"
    figures = [
        once("capacity, 32 clients", capacity, "requests/s"),
        once("answered", outcome.goodput, "requests/s"),
        once("answered, share of the capacity", outcome.goodput / capacity, ""),
        once("answered, p99", 1e3 * outcome.quantile(0.99), "ms"),
        once(f"refused with {refused}", outcome.statuses[refused] / outcome.seconds, "requests/s"),
        once("refused, p50", 1e3 * outcome.quantile(0.5, refused), "ms"),
        once("refused, p99", 1e3 * outcome.quantile(0.99, refused), "ms"),
        once("connections broken", outcome.broken, ""),
        once("not asked, all 1,000 connections busy", outcome.unsent, ""),
        once("memory before", before / 2**20, "MiB"),
        once("memory after 20 s", middle / 2**20, "MiB"),
        once("memory after 40 s", after / 2**20, "MiB"),
    ]
    print_figures(title, figures, console)
    return {title: figures}


def swaps(folder: Path, pool: ProcessPoolExecutor, console: Console) -> dict[str, list[Figure]]:
    """One new version after the other under load: nothing may fail and nothing grow."""
    requests = [post("/v1/models/half:predict", b'{"instances": [1.0]}', "application/json")]
    model = folder / "half"
    with ours(folder, "half", requests, "--poll-seconds", "0.1") as server:
        publish(model, 2, server.port)
        before = resources(server.process)
        times: list[float] = []
        load = pool.submit(ask, Load(server.port, requests, 512, UNDER_SWAPS, rate=200.0))
        while not load.done():
            start = time.perf_counter()
            publish(model, 3 + len(times), server.port)
            times.append(time.perf_counter() - start)
        outcome, after = load.result(), resources(server.process)
    failed = outcome.broken + sum(count for status, count in outcome.statuses.items() if status != 200)
    title = f"{len(times)} new versions under 200 requests/s"
    figures = [
        once("requests", sum(outcome.statuses.values()), ""),
        once("failed", failed, ""),
        figure("a version, from its renaming to its first answer", times, "s"),
        once("p50", 1e3 * outcome.quantile(0.5), "ms"),
        once("p99", 1e3 * outcome.quantile(0.99), "ms"),
        *(once(f"{name}, after the first", before[name], "") for name in before),
        *(once(f"{name}, after the last", after[name], "") for name in after),
    ]
    print_figures(title, figures, console)
    return {title: figures}


def figure(name: str, values: Sequence[float], unit: str) -> Figure:
    """The median of several measurements."""
    return Figure(name, statistics.median(values), min(values), max(values), unit)


def once(name: str, value: float, unit: str) -> Figure:
    """Measured once."""
    return figure(name, [value], unit)
