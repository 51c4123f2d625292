"""What the server counts, for Prometheus: TensorFlow Serving's names and our own."""

import os
import threading
from collections.abc import Iterator
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from apps.serve.batching import BatchDone, Workers
from apps.serve.errors import Refusal
from apps.serve.repository import AVAILABLE, Repository

# TensorFlow Serving's, in microseconds (servables/tensorflow/util.cc).
MICROSECONDS = tuple(10 * 1.8**power for power in range(33))
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROWS = tuple(1 << power for power in range(11))
SERVING = ":tensorflow:serving:"


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        disable_created_metrics()
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        def latency(name: str, what: str, *labels: str) -> Histogram:
            text = f"Distribution of wall time (in microseconds) {what}."
            return Histogram(SERVING + name, text, labels, registry=registry, buckets=MICROSECONDS)

        def distribution(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"kerascnn_{name}", text, ["model"], registry=registry, buckets=buckets)

        def count(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"kerascnn_{name}", text, labels, registry=registry)

        self._requests = _PlainCounter(
            Counter(f"{SERVING}request_count", "The total number of requests.", ["model_name", "status"], registry=None)
        )
        registry.register(self._requests)
        self._latency = latency("request_latency", "of requests", "model_name", "API", "entrypoint")
        self._runtime = latency("runtime_latency", "of the model, per batch", "model_name", "API", "runtime")
        self._examples = Counter(
            f"{SERVING}request_example_count", "The total number of examples.", ["model"], registry=registry
        )
        self._refusals = count("refusals", "Requests that were not answered.", "entrypoint", "reason")
        self._rows = distribution("batch_rows", "Rows of requests in a batch, padding apart.", ROWS)
        self._requests_joined = distribution("batch_requests", "Requests that a batch answered.", ROWS)
        self._waited = distribution("wait_seconds", "How long a request waited for a worker.", SECONDS)
        self._computed = distribution("compute_seconds", "How long a batch took.", SECONDS)
        self._padding = count("padding_rows", "Rows added to batches to reach an allowed size.", "model")
        self._failed = count("failed_batches", "Batches whose model raised.", "model")

    def batch(self, model: str, done: BatchDone) -> None:
        """A batch of a model was computed."""
        self._rows.labels(model).observe(done.rows)
        self._requests_joined.labels(model).observe(done.requests)
        self._computed.labels(model).observe(done.computed)
        self._runtime.labels(model, "Predict", "kerascnn").observe(done.computed * 1e6)
        self._examples.labels(model).inc(done.rows)
        self._padding.labels(model).inc(done.padding)
        waited = self._waited.labels(model)
        for seconds in done.waited:
            waited.observe(seconds)
        if done.failed:
            self._failed.labels(model).inc()

    def request(self, model: str, entrypoint: str, api: str, status: str, seconds: float) -> None:
        """A request was answered.

        Args:
            model: Its name, "" where it names no model that is known.
            entrypoint: "REST" or "GRPC".
            api: "Predict", "Classify", "Regress", "Infer", "GetModelStatus", "GetModelMetadata" and the like; "" for
                what is about no model, of which only refusals are counted.
            status: "OK" or the name of an `errors.Code`.
            seconds: From the end of its header to the answer.
        """
        if api:
            self._requests.counter.labels(model, status).inc()
            self._latency.labels(model, api, entrypoint).observe(seconds * 1e6)
        if status != "OK":
            self._refusals.labels(entrypoint, status).inc()

    def watch(self, repository: Repository, workers: Workers, state: Any) -> None:
        """Also report the models, the queues and whether the server is ready (`application.state`) when asked."""
        self.registry.register(_Now(repository, workers, state))

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)


class _PlainCounter:
    """A counter whose name does not end in `_total`, as one of TensorFlow Serving's does not."""

    def __init__(self, counter: Counter) -> None:
        self.counter = counter

    def collect(self) -> Iterator[Metric]:
        for family in self.counter.collect():
            metric = Metric(family.name, family.documentation, "unknown")
            for sample in family.samples:
                metric.add_sample(family.name, sample.labels, sample.value)
            yield metric


class _Now:
    """What is read when the metrics are."""

    def __init__(self, repository: Repository, workers: Workers, state: Any) -> None:
        self._repository, self._workers, self._state = repository, workers, state

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("kerascnn_ready", "1 where requests are welcome.", float(self._state.ready()))
        yield GaugeMetricFamily(
            "kerascnn_loading", "1 until the models found at the start are loaded.", float(self._state.loading)
        )
        yield GaugeMetricFamily("kerascnn_received_bytes", "Bodies in memory.", self._state.received)
        yield GaugeMetricFamily(
            "kerascnn_longest_batch_seconds", "How long the oldest batch runs.", self._workers.longest()
        )
        yield GaugeMetricFamily("kerascnn_threads", "Threads of the process.", _threads())
        states = GaugeMetricFamily(
            "kerascnn_model_version", "1 for the state of a version.", labels=["model", "version", "state", "runner"]
        )
        queue = GaugeMetricFamily("kerascnn_queue_rows", "Rows that wait.", labels=["model", "version"])
        for model in self._repository.names():
            try:
                versions = self._repository.status(model)
            except Refusal:  # gone meanwhile
                continue
            for version in versions:
                runner, number = "", str(version.version)
                if version.state == AVAILABLE:
                    try:
                        with self._repository.use(model, version.version) as servable:
                            runner = servable.runner.name
                            queue.add_metric([model, number], servable.batcher.waiting)
                    except Refusal:
                        continue
                states.add_metric([model, number, version.state, runner], 1)
        yield states
        yield queue


def _threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()
