"""Server processes for `kerascnn bench serve`: started, asked until they answer, ended with their children."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from apps.load_generator import Load, ask, post

STARTED = 120.0  # seconds that a server or a version has to answer


@dataclass(frozen=True)
class Rival:
    """A running server and the requests it understands."""

    name: str
    port: int
    process: psutil.Process
    requests: Sequence[bytes]


@contextmanager
def running(name: str, command: Sequence[str], port: int, requests: Sequence[bytes]) -> Iterator[Rival]:
    """A server process that answers already; ended with its children when the block ends.

    Raises:
        RuntimeError: It does not answer within two minutes, or has ended.
    """
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - the process has it as long as it runs
    process = psutil.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    try:
        limit = time.monotonic() + STARTED
        while not answers(port, requests[0]):
            if process.poll() is not None or time.monotonic() > limit:
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip().splitlines()[-1:]
                raise RuntimeError(f"{name} does not answer ({' '.join(command)}): {''.join(said)}")
            time.sleep(0.2)
        yield Rival(name, port, process, requests)
    finally:
        if process.poll() is None:
            for one in [*process.children(recursive=True), process]:
                one.kill()
            process.wait()
        errors.close()


def answers(port: int, request: bytes) -> bool:
    """Whether a server answers a request with 200."""
    try:
        return 200 in ask(Load(port, [request], 1, seconds=20.0, most=1)).latencies
    except OSError:
        return False


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def ours(folder: Path, model: str, requests: Sequence[bytes], *options: str) -> AbstractContextManager[Rival]:
    """`kerascnn serve`."""
    port = free_port()
    command = [sys.executable, "-m", "apps.cli", "serve", os.fspath(folder), "--port", str(port), "--quiet", *options]
    return running(f"kerascnn serve, {model}", command, port, requests)


def requests_of(model: str, pictures: Sequence[bytes]) -> list[bytes]:
    """TensorFlow Serving's REST form."""
    bodies = [json.dumps({"instances": [{"b64": base64.b64encode(data).decode()}]}).encode() for data in pictures]
    return [post(f"/v1/models/{model}:predict", body, "application/json") for body in bodies]


def publish(model: Path, version: int, port: int) -> None:
    """A copy of version 1 under its own number, whole at once; returns when the server answers with it.

    Raises:
        RuntimeError: It does not within two minutes.
    """
    unfinished = model / f".unfinished-{version}"
    shutil.copytree(model / "1", unfinished)
    unfinished.rename(model / str(version))
    request = post(f"/v1/models/{model.name}/versions/{version}:predict", b'{"instances": [1.0]}', "application/json")
    limit = time.monotonic() + STARTED
    while not answers(port, request):
        if time.monotonic() > limit:
            raise RuntimeError(f"version {version} is not served")
        time.sleep(0.05)


def resources(process: psutil.Process) -> dict[str, float]:
    """MiB of memory, threads and open files."""
    return {
        "memory in MiB": process.memory_info().rss / 2**20,
        "threads": process.num_threads(),
        "file descriptors": process.num_fds(),
    }
