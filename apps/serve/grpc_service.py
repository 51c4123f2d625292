"""TensorFlow Serving's gRPC services, PredictionService and ModelService, in the event loop of the web server.

Source: https://github.com/tensorflow/serving/tree/master/tensorflow_serving/apis. Needs the extra `grpc`.
"""

import asyncio
import hmac
import importlib.util
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.serve.errors import Code, Refusal, invalid
from apps.serve.input_checks import check_names
from apps.serve.metrics import Metrics
from apps.serve.proto_examples import classes_of, read_classify, read_regress, values_of
from apps.serve.repository import Repository
from apps.serve.servable import Servable
from apps.serve.settings import Settings
from apps.serve.signature import Signature
from apps.serve.tensor_protos import read_proto, write_proto

LARGE = 1 << 16  # numbers from which reading and writing leave the event loop
LONGEST_MESSAGE = 1000  # of an error: it travels in a header

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GrpcServer:
    """A running server; `port` is where it listens."""

    port: int
    server: Any  # grpc.aio.Server

    async def stop(self, grace: float | None) -> None:
        """Take no new calls, and end those in flight after so many seconds."""
        await self.server.stop(grace)


async def start_grpc(repository: Repository, settings: Settings, metrics: Metrics) -> GrpcServer:
    """Serve gRPC on `settings.grpc_port`, 0 for a free one, and print where.

    Raises:
        ValueError: The extra `grpc` is not installed.
        OSError: The port is taken, or the files of TLS cannot be read.
    """
    if any(importlib.util.find_spec(name) is None for name in ("grpc", "tensorflow_serving")):
        raise ValueError("gRPC needs packages that are not installed: pip install 'kerascnn[grpc]'.")
    import grpc
    from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", settings.max_body),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # a second server would otherwise share the port without a word
        ],
        maximum_concurrent_rpcs=settings.max_connections,
    )
    service = _Service(repository, settings, metrics)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(service, server)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{host}:{settings.grpc_port}"
    try:
        if settings.certificate is not None and settings.key is not None:
            pair = (Path(settings.key).read_bytes(), Path(settings.certificate).read_bytes())
            port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        else:
            port = server.add_insecure_port(address)
    except RuntimeError:
        raise OSError(f"gRPC cannot listen on {address}: is the port taken?") from None
    await server.start()
    print(f"Serving gRPC on {host}:{port}", flush=True)
    return GrpcServer(port, server)


class _Service:
    """Both services: their methods under the names that the generated code looks for."""

    def __init__(self, repository: Repository, settings: Settings, metrics: Metrics) -> None:
        self._repository, self._settings, self._metrics = repository, settings, metrics
        self.Predict = self._method("Predict", self._predict)
        self.GetModelMetadata = self._method("GetModelMetadata", self._metadata)
        self.GetModelStatus = self._method("GetModelStatus", self._status)
        self.Classify = self._method("Classify", self._classify)
        self.Regress = self._method("Regress", self._regress)
        self.MultiInference = self._method("MultiInference", self._multi_inference)
        self.HandleReloadConfigRequest = self._method("HandleReloadConfigRequest", self._reload_config)

    def _method(self, api: str, answer: Callable[[Any, float], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        """A method of the service: within its deadline, for those who have the token, errors as statuses, counted."""

        async def method(request: Any, context: Any) -> Any:
            begun, remaining = time.perf_counter(), context.time_remaining()
            now = asyncio.get_running_loop().time()
            deadline = now + min(self._settings.request_seconds, math.inf if remaining is None else remaining)
            reply, refusal = None, Refusal(Code.CANCELLED, "The client has left.")
            try:
                self._authorise(context)
                async with asyncio.timeout_at(deadline):
                    reply = await answer(request, deadline)
            except Refusal as error:
                refusal = error
            except TimeoutError:
                refusal = Refusal(Code.DEADLINE_EXCEEDED, "The request was not answered in time.")
            except Exception:
                logger.exception("gRPC %s failed", api)
                refusal = Refusal(Code.INTERNAL, "Internal error.")
            finally:
                name = request.model_spec.name if hasattr(request, "model_spec") else ""
                status = refusal.code.name if reply is None else "OK"
                known = name if reply is not None or name in self._repository.names() else ""
                self._metrics.request(known, "GRPC", api, status, time.perf_counter() - begun)
            if reply is None:
                await self._abort(context, refusal)
            return reply

        return method

    def _authorise(self, context: Any) -> None:
        if self._settings.token is None:
            return
        given = dict(context.invocation_metadata()).get("authorization", "")
        kind, _, token = given.partition(" ")
        expected = self._settings.token.encode()
        if kind.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), expected):
            raise Refusal(Code.UNAUTHENTICATED, "A token is needed: metadata `authorization: Bearer TOKEN`.")

    async def _abort(self, context: Any, refusal: Refusal) -> None:
        import grpc

        code = next(code for code in grpc.StatusCode if code.value[0] == refusal.code.grpc)
        seconds = refusal.retry_after
        if seconds is None and refusal.code is Code.UNAVAILABLE:
            seconds = self._settings.retry_after
        # https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback
        trailer = () if seconds is None else (("grpc-retry-pushback-ms", str(math.ceil(1000 * seconds))),)
        await context.abort(code, refusal.message[:LONGEST_MESSAGE], trailer)

    async def _predict(self, request: Any, deadline: float) -> Any:
        from tensorflow_serving.apis import predict_pb2

        with self._repository.use(*_model(request.model_spec)) as servable:
            signature = servable.signature(request.model_spec.signature_name)
            check_names(signature, request.inputs.keys())
            wanted = _wanted(signature, request.output_filter)
            size = sum(math.prod(side.size for side in proto.tensor_shape.dim) for proto in request.inputs.values())
            limit = self._settings.max_body
            inputs = await _off_loop(
                size,
                lambda: {
                    name: read_proto(spec, request.inputs[name], limit) for name, spec in signature.inputs.items()
                },
            )
            outputs = await servable.predict(signature.name, inputs, deadline)
            size = sum(outputs[name].size for name in wanted)
            protos = await _off_loop(size, lambda: {name: write_proto(outputs[name]) for name in wanted})
            return predict_pb2.PredictResponse(outputs=protos, model_spec=_effective(servable, signature.name))

    async def _metadata(self, request: Any, deadline: float) -> Any:
        from tensorflow_serving.apis import get_model_metadata_pb2

        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid(f"Metadata field {field[:60]} is not supported: 'signature_def' is.")
        with self._repository.use(*_model(request.model_spec)) as servable:
            answer = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=_effective(servable))
            definitions = {name: signature.definition for name, signature in servable.signatures.items()}
            answer.metadata["signature_def"].Pack(get_model_metadata_pb2.SignatureDefMap(signature_def=definitions))
            return answer

    async def _status(self, request: Any, deadline: float) -> Any:
        from tensorflow.core.protobuf import error_codes_pb2
        from tensorflow_serving.apis import get_model_status_pb2

        answer = get_model_status_pb2.GetModelStatusResponse()
        for status in self._repository.status(*_model(request.model_spec)):
            entry = answer.model_version_status.add(version=status.version)
            entry.state = get_model_status_pb2.ModelVersionStatus.State.Value(status.state)
            entry.status.error_code = error_codes_pb2.Code.Value(status.error_code)
            entry.status.error_message = status.error_message
        return answer

    async def _classify(self, request: Any, deadline: float) -> Any:
        from tensorflow_serving.apis import classification_pb2

        with self._repository.use(*_model(request.model_spec)) as servable:
            name, inputs, head = read_classify(servable, request.model_spec.signature_name, request.input)
            rows = classes_of(servable, head, await servable.predict(name, inputs, deadline))
            answer = classification_pb2.ClassificationResponse(model_spec=_effective(servable, name))
            for row in rows:
                classes = answer.result.classifications.add().classes
                for label, score in row:
                    classes.add(label=label, score=score)
            return answer

    async def _regress(self, request: Any, deadline: float) -> Any:
        from tensorflow_serving.apis import regression_pb2

        with self._repository.use(*_model(request.model_spec)) as servable:
            name, inputs, _ = read_regress(servable, request.model_spec.signature_name, request.input)
            values = values_of(await servable.predict(name, inputs, deadline))
            answer = regression_pb2.RegressionResponse(model_spec=_effective(servable, name))
            for value in values:
                answer.result.regressions.add(value=value)
            return answer

    async def _multi_inference(self, request: Any, deadline: float) -> Any:
        raise Refusal(Code.UNIMPLEMENTED, "MultiInference is not offered: Predict answers for every head at once.")

    async def _reload_config(self, request: Any, deadline: float) -> Any:
        raise Refusal(Code.UNIMPLEMENTED, "There is no list of models to reload: the folder is watched.")


def _model(spec: Any) -> tuple[str, int | None, str | None]:
    """Name, version and label."""
    if not spec.name:
        raise invalid("Missing model name in request: model_spec.name is empty.")
    choice = spec.WhichOneof("version_choice")
    return (
        spec.name,
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
    )


def _effective(servable: Servable, signature: str = "") -> Any:
    """The `ModelSpec` of what has answered."""
    from tensorflow_serving.apis import model_pb2

    spec = model_pb2.ModelSpec(name=servable.name, signature_name=signature)
    spec.version.value = servable.version
    return spec


def _wanted(signature: Signature, names: Sequence[str]) -> Collection[str]:
    for name in names:
        if name not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {name[:60]}. There are: {sorted(signature.outputs)}."
            )
    if len(set(names)) < len(names):
        raise invalid("A name is given twice in output_filter.")
    return names or signature.outputs.keys()


async def _off_loop(size: int, function: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(function) if size > LARGE else function()
