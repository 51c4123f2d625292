"""The web application of the server on a real socket, in a thread of the test's process, and clients that misbehave."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from apps.serve.application import make_application
from apps.serve.batching import Workers
from apps.serve.exchange import read_body
from apps.serve.metrics import Metrics
from apps.serve.repository import Repository
from apps.serve.request_log import RequestLog
from apps.serve.server import make_config
from apps.serve.settings import Settings


async def length(request: Request) -> Response:
    """How long the body was, read twice."""
    first = await read_body(request)
    return PlainTextResponse(str(len(first)) if await read_body(request) is first else "read anew")


def no_load(*_: Any) -> Any:
    """Nothing is loaded in these tests."""
    raise OSError("nothing is loaded here")


def bare_application(
    folder: Path, *routes: BaseRoute, log: RequestLog | None = None, **settings: Any
) -> tuple[Starlette, Settings]:
    """The application without models, with `/length` and other routes before its own."""
    chosen = Settings(folder=folder, **settings)
    application = make_application(Repository(chosen, no_load), Workers(1), Metrics(), chosen, log)
    application.router.routes[:0] = [Route("/length", length, methods=["POST"]), *routes]
    return application, chosen


def ask(
    application: Starlette, method: str, path: str, raise_app_exceptions: bool = True, **options: Any
) -> httpx.Response:
    """One request to the application, without a socket."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(application, raise_app_exceptions=raise_app_exceptions)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **options)

    return asyncio.run(send())


class Wire:
    """The application behind uvicorn and our protocol, until the block ends."""

    def __init__(self, folder: Path, *routes: BaseRoute, log: RequestLog | None = None, **settings: Any) -> None:
        self._folder, self._routes, self._log, self._settings = folder, routes, log, settings
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self.application: Starlette
        self._server: uvicorn.Server

    async def _serve(self) -> None:
        self.application, settings = bare_application(self._folder, *self._routes, log=self._log, **self._settings)
        self._server = uvicorn.Server(make_config(self.application, settings))
        self._started.set()
        await self._server.serve([self._listener])

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        """A connection; with a small buffer the client takes nothing that it does not read."""
        client = socket.socket()
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(20)
        client.connect(("127.0.0.1", self.port))
        return client

    def exchange(self, *parts: bytes) -> bytes:
        """What comes back until the server closes the connection."""
        with self.connect() as client:
            for part in parts:
                client.sendall(part)
            return read_all(client)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(20)


def read_all(client: socket.socket) -> bytes:
    """Everything until the server closes."""
    parts = []
    while True:
        try:
            part = client.recv(1 << 16)
        except ConnectionResetError:
            part = b""
        if not part:
            return b"".join(parts)
        parts.append(part)


def read_answer(client: socket.socket) -> tuple[int, bytes]:
    """Status and body of one answer on a connection that stays open."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = client.recv(1 << 16)
        assert part, data
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    (size,) = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
    while len(body) < size:
        body += client.recv(1 << 16)
    return int(head.split()[1]), body


def drip(client: socket.socket, data: Sequence[bytes], pause: float = 0.1) -> float:
    """Send piece by piece until the server has closed the connection; the seconds that it took, 20 at most."""
    start = time.monotonic()
    client.settimeout(pause)
    for part in data:
        try:
            client.sendall(part)
            while client.recv(1 << 16):
                pass
            break
        except TimeoutError:
            pass
        except OSError:
            break
        if time.monotonic() - start > 20:
            break
    return time.monotonic() - start


@contextmanager
def log_to_file(path: Path, **options: Any) -> Iterator[RequestLog]:
    """A log that writes to a file, whole when the block ends."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    log = RequestLog(descriptor=descriptor, **options)
    try:
        yield log
    finally:
        log.close()
        os.close(descriptor)
