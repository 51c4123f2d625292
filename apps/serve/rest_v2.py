"""The Open Inference Protocol, version 2, over HTTP, with Triton's extensions for models and repositories.

Source: https://github.com/kserve/open-inference-protocol. Every mistake of a client is answered with 400, also where
Triton says 500.
"""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from apps.serve import repository as states
from apps.serve.binary_tensors import datatype_of
from apps.serve.errors import Code, Refusal, invalid
from apps.serve.exchange import deadline_of, name_request, read_body, while_connected
from apps.serve.infer_documents import InferRequest, read_infer, read_raw, write_infer
from apps.serve.json_text import dump_json, parse_json
from apps.serve.repository import Repository, VersionStatus
from apps.serve.servable import Servable
from apps.serve.signature import TensorSpec

HEADER = "Inference-Header-Content-Length"
LARGE = 1 << 16  # bytes from which reading and writing leave the event loop
INT64 = (1 << 63) - 1
MODEL = "/v2/models/{name}"
VERSION = MODEL + "/versions/{version}"
STATES = {
    states.START: "LOADING",
    states.LOADING: "LOADING",
    states.AVAILABLE: "READY",
    states.UNLOADING: "UNLOADING",
    states.END: "UNAVAILABLE",
}
CONFIG_TYPES = {"BYTES": "STRING"}  # what Triton's configurations call them; the others are equal
Result = TypeVar("Result")


def routes(repository: Repository) -> list[BaseRoute]:
    """The routes under /v2."""
    models = _Models(repository)
    return [
        Route("/v2", _server),
        Route("/v2/health/live", _live),
        Route("/v2/health/ready", _ready),
        Route("/v2/models", models.names),
        Route("/v2/models/stats", models.all_statistics),
        Route("/v2/repository/index", models.index, methods=["POST"]),
        Route("/v2/repository/models/{name}/load", models.load, methods=["POST"]),
        Route("/v2/repository/models/{name}/unload", models.unload, methods=["POST"]),
        *(
            Route(path + suffix, handler, methods=[method])
            for path in (MODEL, VERSION)
            for suffix, handler, method in (
                ("", models.metadata, "GET"),
                ("/ready", models.ready, "GET"),
                ("/config", models.config, "GET"),
                ("/stats", models.statistics, "GET"),
                ("/infer", models.infer, "POST"),
            )
        ),
    ]


@dataclass
class _Counts:
    """What version 2 of the protocol was asked for one version of a model: requests, nanoseconds and rows."""

    success: int = 0
    success_ns: int = 0
    fail: int = 0
    fail_ns: int = 0
    rows: int = 0
    last: int = 0  # milliseconds since 1970


class _Models:
    """The handlers of models and of the repository."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._counts: dict[tuple[str, int], _Counts] = {}

    async def infer(self, request: Request) -> Response:
        name, version = _model(request, "Infer")
        with self._repository.use(name, version) as servable:
            servable.check_room()
        body = await read_body(request)
        length = _header_length(request)
        picture = length is None and request.headers.get("content-type", "").lower().startswith("image/")
        with self._repository.use(name, version) as servable:
            counts = self._counts.setdefault((servable.name, servable.version), _Counts())
            began = time.monotonic_ns()
            try:
                if length == 0 or picture:
                    asked = await _off_loop(len(body), lambda: read_raw(servable, body, picture))
                else:
                    asked = await _off_loop(len(body), lambda: read_infer(servable, body, length))
                answer = await while_connected(request, _answer(servable, asked, deadline_of(request)))
            except BaseException:
                counts.fail += 1
                counts.fail_ns += time.monotonic_ns() - began
                raise
            counts.success += 1
            counts.success_ns += time.monotonic_ns() - began
            counts.rows += _rows(asked)
            counts.last = round(time.time() * 1000)
            return answer

    async def metadata(self, request: Request) -> Response:
        with self._repository.use(*_model(request, "GetModelMetadata")) as servable:
            signature = servable.signature(None)
            return _json(
                {
                    "name": servable.name,
                    "versions": [str(number) for number in reversed(self._available(servable.name))],
                    "platform": "tensorflow_savedmodel",
                    "inputs": [_described(spec) for spec in signature.inputs.values()],
                    "outputs": [_described(spec) for spec in signature.outputs.values()],
                }
            )

    async def config(self, request: Request) -> Response:
        with self._repository.use(*_model(request, "GetModelConfig")) as servable:
            signature = servable.signature(None)
            batched = signature.batched
            return _json(
                {
                    "name": servable.name,
                    "platform": "tensorflow_savedmodel",
                    "backend": "tensorflow",
                    "max_batch_size": servable.settings.max_batch if batched else 0,
                    "input": [_configured(spec, batched) for spec in signature.inputs.values()],
                    "output": [_configured(spec, batched) for spec in signature.outputs.values()],
                }
            )

    async def ready(self, request: Request) -> Response:
        name, version = _model(request, "GetModelStatus")
        statuses = self._repository.status(name, version)
        ready = any(status.state == states.AVAILABLE for status in statuses)
        return _json({"name": name, "ready": ready}, 200 if ready else Code.UNAVAILABLE.http)

    async def statistics(self, request: Request) -> Response:
        name, version = _model(request, "GetModelStatistics")
        with self._repository.use(name, version) as servable:
            versions = self._available(servable.name) if version is None else [version]
        return _json({"model_stats": [self._counted(name, number) for number in versions]})

    async def all_statistics(self, request: Request) -> Response:
        names = self._repository.names()
        return _json(
            {"model_stats": [self._counted(name, number) for name in names for number in self._available(name)]}
        )

    async def names(self, request: Request) -> Response:
        return _json({"models": self._repository.names()})

    async def index(self, request: Request) -> Response:
        document = _object(await read_body(request))
        only_ready = document.get("ready", False)
        if not isinstance(only_ready, bool):
            raise invalid("'ready' must be true or false.")
        entries = []
        for name in self._repository.names():
            statuses = self._repository.status(name)
            entries += [_indexed(name, status) for status in statuses]
            if not statuses:
                entries.append({"name": name, "state": "UNAVAILABLE", "reason": "There is no version."})
        return _json([entry for entry in entries if entry["state"] == "READY" or not only_ready])

    async def load(self, request: Request) -> Response:
        name, _ = _model(request, "LoadModel")
        if _object(await read_body(request)).get("parameters"):
            raise Refusal(Code.UNIMPLEMENTED, "A model is loaded as it is in the folder: without parameters.")
        await self._repository.load(name)
        return _json({"name": name, "load": True})

    async def unload(self, request: Request) -> Response:
        name, _ = _model(request, "UnloadModel")
        _object(await read_body(request))  # `unload_dependents`, which Triton's clients send: no model has any
        await self._repository.unload(name)
        return _json({"name": name, "unload": True})

    def _available(self, name: str) -> list[int]:
        """The versions that are served, the highest first."""
        return [status.version for status in self._repository.status(name) if status.state == states.AVAILABLE]

    def _counted(self, name: str, version: int) -> dict[str, Any]:
        counts = self._counts.get((name, version), _Counts())
        return {
            "name": name,
            "version": str(version),
            "last_inference": counts.last,
            "inference_count": counts.rows,
            "inference_stats": {
                "success": {"count": counts.success, "ns": counts.success_ns},
                "fail": {"count": counts.fail, "ns": counts.fail_ns},
            },
        }


async def _server(request: Request) -> Response:
    try:
        number = metadata.version("kerascnn")
    except metadata.PackageNotFoundError:
        number = "unknown"
    extensions = ["classification", "binary_tensor_data", "model_repository", "model_configuration", "statistics"]
    return _json({"name": "kerascnn", "version": number, "extensions": extensions})


async def _live(request: Request) -> Response:
    return _json({"live": True})


async def _ready(request: Request) -> Response:
    ready = request.app.state.ready()
    return _json({"ready": ready}, 200 if ready else Code.UNAVAILABLE.http)


async def _answer(servable: Servable, asked: InferRequest, deadline: float) -> Response:
    loop = asyncio.get_running_loop()
    outputs = await servable.predict(asked.signature, asked.inputs, min(deadline, loop.time() + asked.seconds))
    size = sum(array.nbytes for array in outputs.values())
    content, length = await _off_loop(size, lambda: write_infer(servable, asked, outputs))
    if length is None:
        return Response(content, media_type="application/json")
    return Response(content, headers={HEADER: str(length)}, media_type="application/octet-stream")


async def _off_loop(size: int, function: Callable[[], Result]) -> Result:
    return await asyncio.to_thread(function) if size > LARGE else function()


def _model(request: Request, api: str) -> tuple[str, int | None]:
    """The model's name and version of the path, which the metrics and the log are told."""
    name, given = request.path_params["name"], request.path_params.get("version")
    name_request(request, name, api)
    if given is None:
        return name, None
    digits = given.lstrip("0") or "0"  # Python refuses to read thousands of zeros
    if not re.fullmatch("[0-9]{1,19}", digits) or int(digits) > INT64:
        raise invalid(f"Failed to convert version: {given[:60]} to numeric.")
    return name, int(digits)


def _header_length(request: Request) -> int | None:
    given = request.headers.get(HEADER)
    if given is None:
        return None
    if not re.fullmatch("[0-9]{1,18}", given):
        raise invalid(f"{HEADER} must be a number of bytes. Received: {given[:60]!r}.")
    return int(given)


def _object(body: bytes) -> dict[str, Any]:
    """A JSON object; an empty one for an empty body."""
    document = parse_json(body) if body.strip() else {}
    if not isinstance(document, dict):
        raise invalid("The request must be a JSON object.")
    return document


def _rows(asked: InferRequest) -> int:
    shape = next(iter(asked.inputs.values())).shape
    return shape[0] if shape else 1


def _sides(spec: TensorSpec) -> list[int]:
    return [-1] if spec.shape is None else [-1 if side is None else side for side in spec.shape]


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": datatype_of(spec.dtype), "shape": _sides(spec)}


def _configured(spec: TensorSpec, batched: bool) -> dict[str, Any]:
    datatype = datatype_of(spec.dtype)
    return {
        "name": spec.name,
        "data_type": f"TYPE_{CONFIG_TYPES.get(datatype, datatype)}",
        "dims": _sides(spec)[1:] if batched else _sides(spec),
    }


def _indexed(name: str, status: VersionStatus) -> dict[str, Any]:
    return {
        "name": name,
        "version": str(status.version),
        "state": STATES[status.state],
        "reason": status.error_message,
    }


def _json(value: Any, status: int = 200) -> Response:
    return Response(dump_json(value), status, media_type="application/json")
