"""Runs the server: one process, ended by SIGTERM without a lost request."""

import gc
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

import uvicorn
from starlette.applications import Starlette

from apps.serve.application import make_application
from apps.serve.batching import Workers
from apps.serve.loading import load_servable
from apps.serve.metrics import Metrics
from apps.serve.repository import Repository
from apps.serve.settings import Settings


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or Ctrl-C; the exit code."""
    metrics = Metrics()
    workers, decoders = Workers(settings.workers or 2), ThreadPoolExecutor(2, thread_name_prefix="decode")
    load = partial(load_servable, settings=settings, workers=workers, decoders=decoders, observe=metrics.batch)
    repository = Repository(settings, load)
    application = make_application(repository, workers, metrics, settings)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await repository.start()
        yield
        await repository.stop()

    application.router.lifespan_context = lifespan
    gc.freeze()  # TensorFlow's own objects stay anyway; without them a collection takes milliseconds, not 0.3 s
    listener = socket.create_server((settings.host, settings.port))
    print(f"Serving {settings.folder} on http://{settings.host}:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(application, log_level="warning")).run([listener])
    return 0
