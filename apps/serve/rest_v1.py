"""TensorFlow Serving's REST interface, version 1.

Source: https://www.tensorflow.org/tfx/serving/api_rest; model_servers/http_rest_api_util.cc for the paths. Where it
differs on purpose: `GET /v1/models` lists the models, as KServe's protocol V1 has it (TensorFlow Serving answers 400);
what comes after the JSON document, a key that is there twice and an integer out of range are refused; HEAD is GET.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from google.protobuf import json_format
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from apps.serve.errors import invalid
from apps.serve.exchange import deadline_of, name_request, read_body, while_connected
from apps.serve.json_answers import outputs_json, predictions_json
from apps.serve.json_examples import (
    CLASSIFY,
    REGRESS,
    classifications_json,
    head_of,
    pictures,
    read_examples,
    regressions_json,
    scores_json,
    serialized,
    signature_for,
)
from apps.serve.json_tensors import Tensors, parse_object, request_tensors
from apps.serve.json_tensors import signature_name as name_in
from apps.serve.json_text import dump_json
from apps.serve.repository import Repository
from apps.serve.servable import BYTES, Servable

WHICH = r"(?:/versions/([0-9]+)|/labels/([^/:]+))?"
CALL = re.compile(rf"models/([^/:]+){WHICH}:(predict|classify|regress)", re.IGNORECASE)
LOOK = re.compile(rf"models(?:/([^/:]+))?{WHICH}(/metadata)?", re.IGNORECASE)
INLINE = 1 << 18  # bytes; what is larger is read and written in a thread, for other requests' sake
APIS = {"predict": "Predict", "classify": "Classify", "regress": "Regress"}

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def routes(repository: Repository) -> list[BaseRoute]:
    """The routes under /v1/; a path or method that is none of them answers 400, as TensorFlow Serving does."""
    interface = RestV1(repository)

    async def answer(request: Request) -> Response:
        return await interface.answer(request)

    return [AnyCase("/v1/{rest:path}", answer)]


class AnyCase(Route):
    """A route for every method, in upper or lower case."""

    def __init__(self, path: str, endpoint: Callable[..., Any]) -> None:
        super().__init__(path, endpoint)
        self.path_regex = re.compile(self.path_regex.pattern, re.IGNORECASE)
        self.methods = None


class RestV1:
    """Answers the requests for the models of a repository."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._calls = {"predict": self._predict, "classify": self._classify, "regress": self._regress}

    async def answer(self, request: Request) -> Response:
        """One request.

        Raises:
            Refusal: It cannot be answered.
        """
        path = request.path_params["rest"]
        if request.method == "POST" and (found := CALL.fullmatch(path)):
            name, version, label, verb = found.groups()
            verb = verb.lower()
            name_request(request, name, APIS[verb])
            with self._repository.use(name, _number(version), label) as servable:
                servable.check_room()
            body = await read_body(request)
            with self._repository.use(name, _number(version), label) as servable:
                return _json(await self._calls[verb](request, servable, body))
        if request.method in ("GET", "HEAD") and (found := LOOK.fullmatch(path)):
            name, version, label, metadata = found.groups()
            if name is None:
                if version or label or metadata:
                    raise invalid("Missing model name in request.")
                return _json(dump_json({"models": self._repository.names()}))
            name_request(request, name, "GetModelMetadata" if metadata else "GetModelStatus")
            tell = self._metadata if metadata else self._status
            return _json(tell(name, _number(version), label))
        raise invalid(f"Malformed request: {request.method} /v1/{path[:200]}")

    def _status(self, name: str, version: int | None, label: str | None) -> bytes:
        statuses = [
            {
                "version": str(status.version),
                "state": status.state,
                "status": {"error_code": status.error_code, "error_message": status.error_message},
            }
            for status in self._repository.status(name, version, label)
        ]
        return dump_json({"model_version_status": statuses})

    def _metadata(self, name: str, version: int | None, label: str | None) -> bytes:
        with self._repository.use(name, version, label) as servable:
            definitions = {
                signature.name: json_format.MessageToDict(
                    signature.definition, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
                )
                for signature in servable.signatures.values()
            }
            spec = {"name": servable.name, "signature_name": "", "version": str(servable.version)}
        return dump_json({"model_spec": spec, "metadata": {"signature_def": {"signature_def": definitions}}})

    async def _predict(self, request: Request, servable: Servable, body: bytes) -> bytes:
        def read() -> tuple[str, Tensors, bool]:
            document = parse_object(body)
            signature = servable.signature(name_in(document))
            return signature.name, *request_tensors(document, signature)

        signature, inputs, by_row = await _off_the_loop(len(body), read)
        outputs = await while_connected(request, servable.predict(signature, inputs, deadline_of(request)))
        size = sum(array.nbytes for array in outputs.values())
        return await _off_the_loop(size, predictions_json if by_row else outputs_json, outputs)

    async def _classify(self, request: Request, servable: Servable, body: bytes) -> bytes:
        def read() -> tuple[str | None, str, Tensors]:
            document = parse_object(body)
            examples = read_examples(document)
            head = head_of(servable, document)
            if head is not None:
                return head, BYTES, {"image_bytes": pictures(examples)}
            return None, signature_for(servable, document, CLASSIFY).name, {"inputs": serialized(examples)}

        head, signature, inputs = await _off_the_loop(len(body), read)
        outputs = await while_connected(request, servable.predict(signature, inputs, deadline_of(request)))
        if head is not None:
            return scores_json(servable.classes[head], outputs[head])
        return classifications_json(outputs, len(inputs["inputs"]))

    async def _regress(self, request: Request, servable: Servable, body: bytes) -> bytes:
        def read() -> tuple[str, Tensors]:
            document = parse_object(body)
            examples = read_examples(document)
            return signature_for(servable, document, REGRESS).name, {"inputs": serialized(examples)}

        signature, inputs = await _off_the_loop(len(body), read)
        outputs = await while_connected(request, servable.predict(signature, inputs, deadline_of(request)))
        return regressions_json(outputs, len(inputs["inputs"]))


async def _off_the_loop(
    size: int, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    if size <= INLINE:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)


def _number(version: str | None) -> int | None:
    if version is None:
        return None
    digits = version.lstrip("0") or "0"
    if len(digits) > 19 or int(digits) >= 1 << 63:
        raise invalid(f"Failed to convert version: {version[:100]} to numeric.")
    return int(digits)


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")
