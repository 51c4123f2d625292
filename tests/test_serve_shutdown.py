"""Fault 25: how the server begins and ends, in processes of its own."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from serving_examples import ROOT, Server
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from wire import Wire, bare_application, read_answer

from apps.serve.exchange import while_connected

# The server with a model that can be made to hang, by 13, and with a load that can.
SCRIPT = """
import sys, time
from pathlib import Path
import apps.serve.server as server
from apps.serve.settings import Settings
from apps.serve.tensorflow_runner import TensorFlowRunner

run, load = TensorFlowRunner.run, server.load_servable

def run_or_hang(self, signature, inputs):
    if 13 in inputs.get("x", ()):
        time.sleep(600)
    return run(self, signature, inputs)

def hang(*_, **__):
    time.sleep(600)

TensorFlowRunner.run = run_or_hang
options = eval(sys.argv[2])
server.load_servable = hang if options.pop("hanging_load", False) else load
server.serve(Settings(Path(sys.argv[1]), port=0, runner="tensorflow", **options))
"""


class Script(Server):
    """That server."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder), repr(options)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        self.port = int(line.rsplit(":", 1)[1])
        self.url = f"http://127.0.0.1:{self.port}"


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def status(server: Server, path: str) -> int:
    try:
        return server.get(path).status
    except OSError:
        return 0


@contextmanager
def half_sent(server: Server, body: bytes) -> Iterator[Callable[[], tuple[int, bytes]]]:
    """A request whose second half is sent when the answer is asked for."""
    with socket.create_connection(("127.0.0.1", server.port), 30) as client:
        head = f"POST /v1/models/half:predict HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body[:9])

        def finish() -> tuple[int, bytes]:
            client.sendall(body[9:])
            return read_answer(client)

        yield finish


def test_fault_25_sigterm_ends_without_a_lost_request(models: Path) -> None:
    with Server(models, "--drain-delay", 2, "--drain-seconds", 60, "--body-seconds", 120) as server:
        until(lambda: status(server, "/v2/health/ready") == 200, 60)
        with half_sent(server, b'{"instances": [1.0, 2.0]}') as finish:
            time.sleep(0.2)
            server.process.send_signal(signal.SIGTERM)
            until(lambda: status(server, "/v2/health/ready") == 503)
            assert status(server, "/v2/health/live") == 200
            last = server.post("/v1/models/half:predict", {"instances": [5.0]})  # the delay is for those who come late
            assert (last.status, last.json) == (200, {"predictions": [4.5]})
            assert last.headers["connection"] == "close"
            until(lambda: status(server, "/v2/health/live") == 0)
            code, body = finish()
            assert (code, json.loads(body)) == (200, {"predictions": [2.5, 3.0]})
        start = time.monotonic()
        assert server.process.wait(60) == 0
        assert time.monotonic() - start < 40
        assert server.process.stdout.read() == ""
        server.errors.seek(0)
        lines = [json.loads(line) for line in server.errors.read().splitlines()]
    assert any("SIGTERM" in line.get("message", "") for line in lines)
    answered = [line for line in lines if line.get("path") == "/v1/models/half:predict"]
    assert [(line["status"], line["bytes"]) for line in answered] == [
        (200, 20),
        (200, 25),
    ]


def test_fault_25_sigterm_while_loading(models: Path) -> None:
    with Script(models, hanging_load=True, drain_delay=0.0, drain_seconds=2.0) as server:
        assert status(server, "/v2/health/live") == 200
        assert status(server, "/v2/health/ready") == 503
        start = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - start < 20


def test_fault_19_hanging_model_is_504_alive_and_not_ready_and_fault_25_a_second_sigterm_forces(models: Path) -> None:
    times = {"request_seconds": 1.5, "hang_seconds": 0.5, "drain_delay": 600.0}
    with Script(models, workers=2, **times) as server:
        until(lambda: status(server, "/v2/health/ready") == 200, 60)
        late = server.post("/v1/models/half:predict", {"instances": [13.0]})
        assert (late.status, "error" in late.json) == (504, True)
        assert status(server, "/v2/health/live") == 200
        assert status(server, "/v2/health/ready") == 503
        assert server.post("/v1/models/half:predict", {"instances": [1.0]}).json == {"predictions": [2.5]}
        assert b"kerascnn_ready 0.0" in server.get("/metrics").body
        server.process.send_signal(signal.SIGTERM)
        time.sleep(1.0)
        assert server.process.poll() is None
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 1
        assert time.monotonic() - start < 10


def test_fault_25_ctrl_c_without_models_and_fault_29_with_a_full_disk_for_the_log(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "apps.cli", "serve", str(tmp_path), "--port", "0", "--drain-delay", "600"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERASCNN_TOKEN": "secret"}
    with open("/dev/full", "w") as full:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=full, text=True)
    try:
        line = process.stdout.readline()
        assert line.startswith(f"Serving {tmp_path} on http://127.0.0.1:")
        with httpx.Client(base_url=line.split(" on ")[1].strip()) as client:
            assert client.get("/v2/health/live").status_code == 200
            assert [client.get("/metrics").status_code for _ in range(50)] == [401] * 50
            metrics = client.get("/metrics", headers={"Authorization": "Bearer secret"}).text
        assert 'reason="UNAUTHENTICATED"} 50.0' in metrics
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stdout.read() == ""
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def sleep(request: Request) -> Response:
    await while_connected(request, asyncio.sleep(20))
    return Response()


def test_fault_25_request_that_outlasts_the_end_is_told(tmp_path: Path) -> None:
    with Wire(tmp_path, Route("/sleep", sleep), drain_seconds=0.3) as wire, wire.connect() as client:
        client.sendall(b"GET /sleep HTTP/1.1\r\nHost: test\r\n\r\n")
        time.sleep(0.3)
        wire.application.state.draining = wire.server.should_exit = True
        code, body = read_answer(client)
    assert (code, json.loads(body)) == (503, {"error": "The server is going down."})


def test_not_ready_while_the_first_look_at_the_folder_lasts(tmp_path: Path) -> None:
    application, _ = bare_application(tmp_path)
    application.state.loading = True
    assert not application.state.ready()
