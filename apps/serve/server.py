"""Runs the server: one process, ended by SIGTERM without a lost request."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import FrameType
from typing import Any, NoReturn

import uvicorn
from starlette.applications import Starlette

from apps.serve.application import make_application
from apps.serve.background import COMPUTING, step_behind
from apps.serve.batching import Workers
from apps.serve.loading import load_servable
from apps.serve.metrics import Metrics
from apps.serve.processor import cores
from apps.serve.receiving import Receiving
from apps.serve.repository import Repository
from apps.serve.request_log import RequestLog, never_wait_for_readers, take_over_logging
from apps.serve.settings import Settings
from apps.serve.tensorflow_runner import on_gpu

LOCAL = ("127.0.0.1", "::1", "localhost")
SPARE_FILES = 256  # that the process needs beside its connections
FORCED = 1  # exit code of the second signal

logger = logging.getLogger(__name__)


def serve(settings: Settings) -> NoReturn:
    """Serve until SIGTERM or Ctrl-C, then end the process with exit code 0.

    The port is open, and `/v2/health/live` answered, while the models are loaded. A model that hangs, or a load, cannot
    be cancelled, so the process does not wait for its threads in the end.

    Raises:
        ValueError: A setting is wrong, or the address cannot be listened on.
        FileNotFoundError: There is no such folder or file.
    """
    settings.check()
    files = _raise_file_limit(settings.max_connections)
    if files < settings.max_connections + SPARE_FILES:
        _warn(f"{files} open files are allowed, too few for {settings.max_connections} connections (`ulimit -n`)")
    if settings.host not in LOCAL and settings.token is None:
        _warn(f"everybody who reaches {settings.host} can use this server: it asks for no token (KERASCNN_TOKEN)")
    listener = _listen(settings)
    never_wait_for_readers()
    log = RequestLog(settings.log_format, settings.log_requests)
    take_over_logging(log)
    runner = asyncio.Runner(loop_factory=uvicorn.Config(_nothing, log_config=None).get_loop_factory())
    try:
        runner.run(_serve(settings, listener, log))
    finally:
        log.close()
        listener.close()
    sys.stdout.flush()
    os._exit(0)


def make_config(application: Starlette, settings: Settings) -> uvicorn.Config:
    """What uvicorn needs to serve the application within the limits of the settings.

    Raises:
        ValueError: The certificate and the key do not work.
    """
    config = uvicorn.Config(
        application,
        http=partial(Receiving, settings),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_seconds,  # type: ignore[arg-type]
        timeout_graceful_shutdown=settings.drain_seconds,  # type: ignore[arg-type]
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
    )
    try:
        config.load()
    except (ssl.SSLError, OSError) as error:
        raise ValueError(f"--certificate, --key: {error}; PEM files that belong together are expected.") from error
    return config


async def _serve(settings: Settings, listener: socket.socket, log: RequestLog) -> None:
    metrics = Metrics()
    workers = Workers(worker_count(settings))
    decoders = ThreadPoolExecutor(min(4, cores()), "decode", step_behind, (COMPUTING,))
    load = partial(load_servable, settings=settings, workers=workers, decoders=decoders, observe=metrics.batch)
    repository = Repository(settings, load)
    application = make_application(repository, workers, metrics, settings, log)
    server = _Server(make_config(application, settings), application, settings)
    application.state.loading = True
    loading = asyncio.create_task(_load(repository, server))
    try:
        if settings.grpc_port is not None:
            from apps.serve.grpc_service import start_grpc

            server.rpc = await start_grpc(repository, settings, metrics)
        await server.serve([listener])
    finally:
        loading.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(server.seconds_left()):
                await repository.stop()
        workers.close()
        decoders.shutdown(wait=False, cancel_futures=True)
    if server.failure is not None:
        raise server.failure


async def _load(repository: Repository, server: "_Server") -> None:
    """The first look at the folder; what makes it fail ends the server."""
    try:
        await repository.start()
        server.application.state.loading = False
    except Exception as error:
        server.failure = error
        server.should_exit = True


class _Server(uvicorn.Server):
    """uvicorn's, with an end in three steps: not ready, then no new connections, then nothing in flight.

    Args:
        config: See `make_config`.
        application: Whose `state.draining` tells the routes.
        settings: The times.
    """

    def __init__(self, config: uvicorn.Config, application: Starlette, settings: Settings) -> None:
        super().__init__(config)
        self.application = application
        self.failure: Exception | None = None  # what ended it
        self.rpc: Any = None  # a `grpc_service.GrpcServer`, which ends at the same time
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._end = 0.0  # when everything must be over, once the end has begun

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        settings = self._settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        port = sockets[0].getsockname()[1] if sockets else settings.port
        scheme = "http" if settings.certificate is None else "https"
        print(f"Serving {settings.folder} on {scheme}://{host}:{port}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, wait for what is in flight."""
        self.application.state.draining = True
        seconds = self._settings.drain_seconds
        self._end = self._loop.time() + seconds
        ends = [super().shutdown(sockets)]
        if self.rpc is not None:
            ends.append(self.rpc.stop(seconds))
        await asyncio.gather(*ends)

    def seconds_left(self) -> float:
        """Of the time to end; a little where none is left."""
        return max(self._end - self._loop.time(), 0.5)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End at the first signal, leave at the second; uvicorn would raise the first again in the end."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the end, or leave now."""
        if self.application.state.draining:
            os._exit(FORCED)
        self.application.state.draining = True
        delay = 0.0 if sig == signal.SIGINT else self._settings.drain_delay
        self._loop.call_soon_threadsafe(self._loop.call_later, delay, self._stop)
        logger.info("%s: not ready from now on, the end comes in %g s", signal.Signals(sig).name, delay)

    def _stop(self) -> None:
        self.should_exit = True


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]  # Python says the address once more
        raise ValueError(
            f"{settings.host}, port {settings.port}, cannot be listened on: {reason}. "
            "Choose others by --host and --port (0 takes a free one)."
        ) from error


def worker_count(settings: Settings) -> int:
    """How many batches are computed at the same time: one on a GPU, else up to 2, where the settings leave it open."""
    return settings.workers or (1 if on_gpu() else min(2, cores()))


def _raise_file_limit(connections: int) -> int:
    """How many files the process may have open, after asking for enough."""
    try:
        import resource
    except ImportError:  # not Unix
        return sys.maxsize
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    infinity = resource.RLIM_INFINITY
    if soft != infinity and soft < wanted:
        soft = wanted if hard == infinity else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return sys.maxsize if soft == infinity else soft


def _warn(line: str) -> None:
    print(f"kerascnn: warning: {line}", file=sys.stderr, flush=True)


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    """An application for asking uvicorn which event loop there is."""
