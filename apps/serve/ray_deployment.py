"""The server as a deployment of Ray Serve: several replicas, on one machine or on many, behind Ray's own proxy.

`serve run apps.serve.ray_deployment:app models=/data/saved_models replicas=2`
"""

import dataclasses
import difflib
import os
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from starlette.applications import Starlette

from apps.serve.settings import Settings

if TYPE_CHECKING:
    from ray.serve import Application

FOLDER = "KERASCNN_MODELS"  # variable of the environment
# What Ray's proxy does instead: listening, TLS, slow connections, shutting down.
NOT_HERE = {
    "folder",
    "host",
    "port",
    "grpc_port",
    "max_connections",
    "header_seconds",
    "body_seconds",
    "keep_alive_seconds",
    "drain_delay",
    "drain_seconds",
    "certificate",
    "key",
    "log_format",
    "log_requests",
}


def app(arguments: Mapping[str, Any]) -> "Application":
    """The application that `serve run` and Ray's configuration files name; each replica has its own models in memory.

    Args:
        arguments: "models", the folder, which every machine must see (or the variable `KERASCNN_MODELS`); "replicas"
            (2); "cpus", of each replica (1); and fields of `Settings` by name, such as "max_batch".

    Raises:
        ImportError: Ray is not installed.
        FileNotFoundError: There is no such folder.
        ValueError: An argument is unknown or wrong.
    """
    try:
        from ray import serve
    except ImportError as error:
        raise ImportError("Ray is needed: pip install 'kerascnn[ray]'") from error

    settings, replicas, cpus = read_arguments(arguments)

    def application() -> Starlette:
        return make_replica(settings)

    class Replica:
        """One process with every model."""

        app: Starlette

        def check_health(self) -> None:
            """Ray replaces a replica that hangs."""
            if self.app.state.hangs():
                raise RuntimeError(f"A batch takes longer than {settings.hang_seconds:g} s.")

    # Requests wait in the replica's own queue, which joins them into batches and refuses what is too much.
    deployment = serve.deployment(
        name="kerascnn",
        num_replicas=replicas,
        ray_actor_options={"num_cpus": cpus},
        max_ongoing_requests=2 * settings.most_queued_rows,
        graceful_shutdown_timeout_s=settings.drain_seconds,
    )
    return deployment(serve.ingress(application)(Replica)).bind()


def read_arguments(arguments: Mapping[str, Any]) -> tuple[Settings, int, float]:
    """(settings, replicas, processors of each) from texts, as a command line gives them, or values.

    Raises:
        FileNotFoundError, ValueError: See `app`.
    """
    given = dict(arguments)
    folder = given.pop("models", None) or os.environ.get(FOLDER)
    if not folder:
        raise ValueError(f"The folder of the models is missing: models=FOLDER, or the variable {FOLDER}.")
    replicas = _number("replicas", int, given.pop("replicas", 2))
    cpus = _number("cpus", float, given.pop("cpus", 1))
    if replicas < 1 or cpus <= 0:
        raise ValueError(f"At least one replica with some of a processor is expected, not {replicas} with {cpus:g}.")
    kinds = {field.name: get_type_hints(Settings)[field.name] for field in dataclasses.fields(Settings)}
    known = [name for name in kinds if name not in NOT_HERE]
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, ["models", "replicas", "cpus", *known], 1)
            hint = f"did you mean {near[0]}?" if near else f"models, replicas, cpus, {', '.join(known)} are."
            raise ValueError(f"{name} is no argument here; {hint}")
        if name == "formats":
            values[name] = tuple(value.split(",") if isinstance(value, str) else value)
        elif kinds[name] is bool:
            values[name] = str(value).lower() in ("true", "yes", "1")
        else:
            values[name] = _number(name, kinds[name], value) if kinds[name] in (int, float) else value
    settings = Settings(folder=Path(folder).resolve(), **values)
    settings.check()
    return settings, replicas, cpus


def make_replica(settings: Settings) -> Starlette:
    """The same application as `kerascnn serve`, with models, workers and limits of its own.

    `application.state.hangs()` tells whether a batch takes too long.
    """
    from apps.serve.application import make_application
    from apps.serve.batching import Workers
    from apps.serve.loading import load_servable
    from apps.serve.metrics import Metrics
    from apps.serve.repository import Repository

    metrics, workers = Metrics(), Workers(settings.workers or 1)
    decoders = ThreadPoolExecutor(2, thread_name_prefix="decode")
    load = partial(load_servable, settings=settings, workers=workers, decoders=decoders, observe=metrics.batch)
    repository = Repository(settings, load)
    application = make_application(repository, workers, metrics, settings)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await repository.start()
        try:
            yield
        finally:
            await repository.stop()
            workers.close()
            decoders.shutdown(wait=False, cancel_futures=True)

    application.router.lifespan_context = lifespan
    application.state.hangs = lambda: workers.longest() >= settings.hang_seconds
    return application


def _number(name: str, kind: type, value: Any) -> Any:
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: a number is expected, not {value!r}.") from None
