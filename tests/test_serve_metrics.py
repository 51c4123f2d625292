"""What Prometheus and the readers of the log are told."""

import asyncio
import json
import os
import threading
import time
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from wire import ask, bare_application, log_to_file

from apps.serve.batching import BatchDone
from apps.serve.errors import not_found
from apps.serve.exchange import name_request, read_body
from apps.serve.metrics import Metrics
from apps.serve.request_log import MOST_LINES, RequestLine, RequestLog, never_wait_for_readers

LINE = RequestLine(1_800_000_000.5, "id-1", "POST", b"/v1/models/m:predict", "m", 200, 12, 3.14159, "127.0.0.1")


def samples(metrics: Metrics | str) -> dict[tuple[str, ...], float]:
    """Value by name and labels, as Prometheus reads them."""
    text = metrics if isinstance(metrics, str) else metrics.exposition().decode()
    return {
        (sample.name, *(f"{label}={value}" for label, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_names_of_tensorflow_serving_are_there() -> None:
    metrics = Metrics()
    metrics.request("half", "REST", "Predict", "OK", 20e-6)
    metrics.request("half", "GRPC", "Predict", "NOT_FOUND", 5.0)
    metrics.batch("half", BatchDone(rows=3, padding=1, requests=2, waited=(0.0002, 0.2), computed=0.004))
    found = samples(metrics)
    assert found[(":tensorflow:serving:request_count", "model_name=half", "status=OK")] == 1
    assert found[(":tensorflow:serving:request_count", "model_name=half", "status=NOT_FOUND")] == 1
    latency = ":tensorflow:serving:request_latency"
    rest = ["API=Predict", "entrypoint=REST"]
    buckets = {float(key[3][3:]): value for key, value in found.items() if key[:3] == (f"{latency}_bucket", *rest)}
    assert list(buckets) == pytest.approx([10 * 1.8**power for power in range(33)] + [float("inf")])
    assert list(buckets.values()) == [0, 0] + [1] * 32  # 20 us are more than 18 and less than 32.4
    assert found[(f"{latency}_count", *rest, "model_name=half")] == 1
    assert found[(f"{latency}_sum", *rest, "model_name=half")] == pytest.approx(20)
    runtime = ("API=Predict", "model_name=half", "runtime=kerascnn")
    assert found[(":tensorflow:serving:runtime_latency_sum", *runtime)] == pytest.approx(4000)
    assert found[(":tensorflow:serving:request_example_count_total", "model=half")] == 3


def test_batches_are_counted() -> None:
    metrics = Metrics()
    metrics.batch("m", BatchDone(rows=3, padding=1, requests=2, waited=(0.0002, 0.2), computed=0.004))
    metrics.batch("m", BatchDone(rows=9, padding=0, requests=1, waited=(0.0,), computed=0.5, failed=True))
    found = samples(metrics)
    assert found[("kerascnn_batch_rows_bucket", "le=4.0", "model=m")] == 1
    assert found[("kerascnn_batch_rows_sum", "model=m")] == 12
    assert found[("kerascnn_batch_requests_sum", "model=m")] == 3
    assert found[("kerascnn_wait_seconds_count", "model=m")] == 3
    assert found[("kerascnn_wait_seconds_bucket", "le=0.0005", "model=m")] == 2
    assert found[("kerascnn_compute_seconds_sum", "model=m")] == pytest.approx(0.504)
    assert found[("kerascnn_padding_rows_total", "model=m")] == 1
    assert found[("kerascnn_failed_batches_total", "model=m")] == 1


async def known(request: Request) -> Response:
    name_request(request, "half", "Predict")
    return PlainTextResponse(str(len(await read_body(request))))


async def unknown(request: Request) -> Response:
    name_request(request, request.path_params["name"], "Predict")
    raise not_found("Servable not found")


ROUTES = Route("/known", known, methods=["POST"]), Route("/unknown/{name}", unknown)


@pytest.mark.parametrize("path", ["/metrics", "/monitoring/prometheus/metrics"])
def test_requests_are_counted_and_unknown_names_are_not_told_apart(tmp_path: Path, path: str) -> None:
    application, _ = bare_application(tmp_path, *ROUTES)
    assert ask(application, "POST", "/known", content=b"abc").text == "3"
    for index in range(20):
        assert ask(application, "GET", f"/unknown/model{index}").status_code == 404
    assert ask(application, "GET", "/nothing").status_code == 404
    answer = ask(application, "GET", path)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = samples(answer.text)
    count = ":tensorflow:serving:request_count"
    assert {key: value for key, value in found.items() if key[0] == count} == {
        (count, "model_name=half", "status=OK"): 1,
        (count, "model_name=", "status=NOT_FOUND"): 20,
    }
    assert found[("kerascnn_refusals_total", "entrypoint=REST", "reason=NOT_FOUND")] == 21
    assert found[("kerascnn_received_bytes",)] == 0
    if os.path.exists("/proc/self"):
        assert found[("kerascnn_threads",)] == pytest.approx(len(os.listdir("/proc/self/task")), abs=3)
        assert found[("process_open_fds",)] > 0


def test_models_and_queues_are_shown(models: Path, tmp_path: Path) -> None:
    from functools import partial

    from apps.serve.application import make_application
    from apps.serve.batching import Workers
    from apps.serve.loading import load_servable
    from apps.serve.repository import Repository
    from apps.serve.settings import Settings

    (tmp_path / "half").symlink_to(models / "half")

    async def shown() -> dict[tuple[str, ...], float]:
        settings, metrics, workers = (
            Settings(tmp_path, runner="tensorflow", poll_seconds=0),
            Metrics(),
            Workers(1),
        )
        load = partial(load_servable, settings=settings, workers=workers, decoders=None, observe=metrics.batch)
        repository = Repository(settings, load)
        make_application(repository, workers, metrics, settings)
        await repository.start()
        try:
            return samples(metrics)
        finally:
            await repository.stop()
            workers.close()

    found = asyncio.run(shown())
    version = [key for key in found if key[0] == "kerascnn_model_version"]
    assert version == [("kerascnn_model_version", "model=half", "runner=tensorflow", "state=AVAILABLE", "version=123")]
    assert found[("kerascnn_queue_rows", "model=half", "version=123")] == 0
    assert found[("kerascnn_ready",)] == 1


def test_every_request_is_one_line_of_json(tmp_path: Path) -> None:
    with log_to_file(tmp_path / "log") as log:
        application, _ = bare_application(tmp_path, *ROUTES, log=log)
        ask(application, "POST", "/known?secret=1", content=b"abc", headers={"X-Request-Id": "mine"})
        ask(application, "GET", "/unknown/%0Aevil%22")
    first, second = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert set(first) == {"time", "id", "method", "path", "model", "status", "bytes", "ms", "client"}
    assert {name: first[name] for name in ("id", "method", "path", "model", "status", "bytes", "client")} == {
        "id": "mine",
        "method": "POST",
        "path": "/known",
        "model": "half",
        "status": 200,
        "bytes": 3,
        "client": "127.0.0.1",
    }
    assert 0 <= first["ms"] < 60_000
    assert (second["status"], second["model"], second["path"]) == (404, '\nevil"', "/unknown/%0Aevil%22")


def test_time_of_a_request_is_exact_on_uvloop_too(tmp_path: Path) -> None:
    """Its clock has whole milliseconds alone."""
    uvloop = pytest.importorskip("uvloop")
    with log_to_file(tmp_path / "log") as log:
        application, _ = bare_application(tmp_path, *ROUTES, log=log)

        async def send() -> None:
            transport = httpx.ASGITransport(application)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                for _ in range(8):
                    await client.post("/known", content=b"abc")

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(send())
    times = [json.loads(line)["ms"] for line in (tmp_path / "log").read_text().splitlines()]
    assert len(times) == 8
    assert any(time % 1 for time in times)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {},
            '{"time":"2027-01-15T08:00:00.500+00:00","id":"id-1","method":"POST","path":"/v1/models/m:predict",'
            '"model":"m","status":200,"bytes":12,"ms":3.14,"client":"127.0.0.1"}\n',
        ),
        ({"format": "text"}, "08:00:00 POST /v1/models/m:predict 200 3.14 ms 12 bytes 127.0.0.1 id-1\n"),
        ({"requests": False}, ""),
    ],
)
def test_lines_have_the_format_that_was_asked_for(tmp_path: Path, options: dict[str, object], text: str) -> None:
    with log_to_file(tmp_path / "log", **options) as log:
        log.request(LINE)
    assert (tmp_path / "log").read_text() == text


def test_fault_29_log_that_nobody_reads_stops_nothing_and_stays_bounded() -> None:
    reading, writing = os.pipe()
    log = RequestLog(descriptor=writing)
    start = time.monotonic()
    for _ in range(3 * MOST_LINES):
        log.request(LINE)
    time.sleep(0.3)
    for _ in range(3 * MOST_LINES):
        log.request(LINE)
    assert time.monotonic() - start < 20
    assert len(log._lines) <= MOST_LINES
    log.close()  # gives up after a second
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("broken", ["closed", "full"])
def test_fault_29_log_that_cannot_be_written_stops_nothing(broken: str) -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    if broken == "closed":
        reading, descriptor = os.pipe()
        os.close(reading)
    log = RequestLog(descriptor=descriptor)
    for _ in range(3):
        log.request(LINE)
        time.sleep(0.15)
    assert any(thread.name == "log" and thread.is_alive() for thread in threading.enumerate())
    assert not log._lines
    log.close()
    os.close(descriptor)


def test_fault_29_full_pipe_holds_nobody_who_writes_to_it() -> None:
    """libjpeg writes to standard error; others with the same pipe, such as the process that started us, still wait."""
    reading, writing = os.pipe()
    others = os.dup(writing)
    never_wait_for_readers(writing)
    with pytest.raises(BlockingIOError):
        for _ in range(1000):
            os.write(writing, b"x" * 4096)
    assert os.get_blocking(others)
    for descriptor in (reading, writing, others):
        os.close(descriptor)


def test_fault_29_standard_error_that_is_no_pipe_stays_as_it_is(tmp_path) -> None:
    with (tmp_path / "log").open("w") as file:
        never_wait_for_readers(file.fileno())
        assert os.get_blocking(file.fileno())
