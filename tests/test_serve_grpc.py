"""TensorFlow Serving's gRPC, asked with its own unmodified stubs."""

# ruff: noqa: E402

import asyncio
import base64
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_examples import CLASSES, Server, picture

grpc = pytest.importorskip("grpc")
pytest.importorskip("tensorflow_serving")

import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from apps.serve.batching import Workers
from apps.serve.grpc_service import start_grpc
from apps.serve.loading import load_servable
from apps.serve.metrics import Metrics
from apps.serve.repository import Repository
from apps.serve.settings import Settings

Code = grpc.StatusCode


class Counted(Metrics):
    """Metrics that remember the requests."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str, str, str]] = []

    def request(self, model: str, entrypoint: str, api: str, status: str, seconds: float) -> None:
        self.seen.append((model, entrypoint, api, status))


class Served:
    """A gRPC server in this process, in the event loop of a thread, and stubs for it."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.metrics = settings, Counted()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._await(self._start())
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.rpc.port}")
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(self.channel)

    async def _start(self) -> None:
        workers, decoders = Workers(2), ThreadPoolExecutor(2)
        load = partial(
            load_servable,
            settings=self.settings,
            workers=workers,
            decoders=decoders,
            observe=self.metrics.batch,
        )
        self.repository = Repository(self.settings, load)
        await self.repository.start()
        self.rpc = await start_grpc(self.repository, self.settings, self.metrics)

    def stop(self) -> None:
        self.channel.close()
        self._await(self.rpc.stop(1))
        self._await(self.repository.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _await(self, awaitable: Any) -> None:
        asyncio.run_coroutine_threadsafe(awaitable, self._loop).result(60)


@contextmanager
def serving(**settings: Any) -> Iterator[Served]:
    served = Served(Settings(grpc_port=0, poll_seconds=0, runner="tensorflow", **settings))
    try:
        yield served
    finally:
        served.stop()


@pytest.fixture(scope="module")
def served(models: Path) -> Iterator[Served]:
    with serving(folder=models) as served:
        yield served


def request(name: str, inputs: Mapping[str, object], **more: Any) -> predict_pb2.PredictRequest:
    """A request of arrays or ready messages."""
    asked = predict_pb2.PredictRequest(**more)
    asked.model_spec.name = name
    for key, value in inputs.items():
        ready = isinstance(value, tensor_pb2.TensorProto)
        asked.inputs[key].CopyFrom(value if ready else tf.make_tensor_proto(value))
    return asked


def refused(call: Any, asked: Any, code: Any, words: str = "", **options: Any) -> None:
    """The call fails with that status, and the next one is answered."""
    with pytest.raises(grpc.RpcError) as caught:
        call(asked, timeout=30, **options)
    assert caught.value.code() is code, caught.value.details()
    assert words in caught.value.details()


def arrays(answer: predict_pb2.PredictResponse) -> dict[str, np.ndarray]:
    return {name: tf.make_ndarray(proto) for name, proto in answer.outputs.items()}


def test_predict_answers_in_fields_with_the_model_that_answered(served: Served) -> None:
    answer = served.prediction.Predict(request("half", {"x": np.array([1, 2, np.nan], np.float32)}), timeout=30)
    np.testing.assert_array_equal(answer.outputs["y"].float_val, [2.5, 3, np.nan])
    assert answer.model_spec.name == "half"
    assert answer.model_spec.version.value == 123
    assert answer.model_spec.signature_name == "serving_default"
    assert ("half", "GRPC", "Predict", "OK") in served.metrics.seen


def test_pixels_and_encoded_pictures_get_the_answers_of_rest(served: Served, server: Server) -> None:
    data = picture()
    pixels = np.full((1, 12, 10, 3), (200, 40, 40), np.uint8)
    rest = server.post("/v2/models/tiny/infer", data, {"Content-Type": "image/png"}).json
    expected = {o["name"]: np.array(o["data"], np.float32).reshape(o["shape"]) for o in rest["outputs"]}
    for signature, name, value in (
        ("", "image", pixels),
        ("", "image", [data]),
        ("serving_default", "image", [[data]]),
        ("serving_bytes", "image_bytes", [data]),
    ):
        asked = request("tiny", {name: value})
        asked.model_spec.signature_name = signature
        found = arrays(served.prediction.Predict(asked, timeout=30))
        assert found.keys() == CLASSES.keys()
        for head, probabilities in found.items():
            np.testing.assert_allclose(probabilities, expected[head], rtol=1e-5)
    refused(
        served.prediction.Predict, request("tiny", {"image": [data[:-20]]}), Code.INVALID_ARGUMENT, "cannot be decoded"
    )


def test_versions_labels_and_filters(served: Served) -> None:
    asked = request("tiny", {"image": [picture()]}, output_filter=["size"])
    asked.model_spec.version.value = 1
    assert list(served.prediction.Predict(asked, timeout=30).outputs) == ["size"]
    for names in (["nothing"], ["size", "size"]):
        wrong = request("tiny", {"image": [picture()]}, output_filter=names)
        refused(served.prediction.Predict, wrong, Code.INVALID_ARGUMENT)
    asked.model_spec.version.value = 9
    refused(served.prediction.Predict, asked, Code.NOT_FOUND, "Specific(tiny, 9)")
    asked.model_spec.version_label = "nothing"
    refused(served.prediction.Predict, asked, Code.INVALID_ARGUMENT, "Unrecognized servable version label: nothing")


def proto(dtype: Any, shape: list[int], **values: Any) -> tensor_pb2.TensorProto:
    message = tensor_pb2.TensorProto(dtype=dtype, **values)
    for side in shape:
        message.tensor_shape.dim.add(size=side)
    return message


def test_numbers_may_be_sent_as_bytes_in_fields_or_once_for_all(served: Served) -> None:
    values = np.array([1, 2, 5], np.float32)
    for message, expected in (
        (proto(types_pb2.DT_FLOAT, [3], tensor_content=values.tobytes()), [2.5, 3, 4.5]),
        (proto(types_pb2.DT_FLOAT, [3], float_val=[1, 2, 5]), [2.5, 3, 4.5]),
        (proto(types_pb2.DT_FLOAT, [3], float_val=[2]), [3, 3, 3]),
        (proto(types_pb2.DT_FLOAT, [0]), []),
    ):
        answer = served.prediction.Predict(request("half", {"x": message}), timeout=30)
        np.testing.assert_array_equal(arrays(answer)["y"], np.array(expected, np.float32))


def test_fault_12_tensors_that_do_not_fit_themselves_are_refused(served: Served) -> None:
    unknown = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1])
    unknown.tensor_shape.unknown_rank = True
    for message in (
        proto(types_pb2.DT_FLOAT, [2**60], float_val=[1]),
        proto(types_pb2.DT_FLOAT, [10**9], float_val=[1]),
        proto(types_pb2.DT_FLOAT, [-1], float_val=[1]),
        proto(types_pb2.DT_FLOAT, [1], float_val=[1, 2]),
        proto(types_pb2.DT_FLOAT, [2], tensor_content=bytes(4)),
        proto(types_pb2.DT_FLOAT, [2], tensor_content=bytes(9)),
        proto(types_pb2.DT_FLOAT, [1]),
        proto(types_pb2.DT_FLOAT, [1, 1], float_val=[1]),
        proto(types_pb2.DT_INT32, [1], int_val=[1]),
        proto(types_pb2.DT_FLOAT_REF, [1], float_val=[1]),
        proto(types_pb2.DT_STRING, [1], string_val=[b"1"]),
        proto(types_pb2.DT_RESOURCE, [1]),
        proto(types_pb2.DT_INVALID, [1], float_val=[1]),
        proto(9999, [1], float_val=[1]),
        unknown,
    ):
        refused(served.prediction.Predict, request("half", {"x": message}), Code.INVALID_ARGUMENT)
    for message in (
        proto(types_pb2.DT_STRING, [10**6], string_val=[picture()]),
        proto(types_pb2.DT_STRING, [1], tensor_content=picture()),
        proto(types_pb2.DT_STRING, [2, 2], string_val=[picture()] * 4),
        proto(types_pb2.DT_UINT8, [1, 1, 1, 3], int_val=[1, 2, 300]),
    ):
        refused(served.prediction.Predict, request("tiny", {"image": message}), Code.INVALID_ARGUMENT)
    served.prediction.Predict(request("half", {"x": np.ones(1, np.float32)}), timeout=30)


def test_fault_13_unknown_models_and_names_are_refused(served: Served) -> None:
    x = {"x": np.ones(1, np.float32)}
    refused(served.prediction.Predict, request("none", x), Code.NOT_FOUND, "Latest(none)")
    refused(served.prediction.Predict, request("", x), Code.INVALID_ARGUMENT, "Missing model name")
    refused(served.prediction.Predict, request("half", {}), Code.INVALID_ARGUMENT, "Missing: ['x']")
    refused(served.prediction.Predict, request("half", {**x, "z": 1}), Code.INVALID_ARGUMENT, "not known: ['z']")
    asked = request("half", x)
    asked.model_spec.signature_name = "none"
    refused(served.prediction.Predict, asked, Code.INVALID_ARGUMENT, 'name: "none" not found')
    refused(served.model.GetModelStatus, get_model_status_pb2.GetModelStatusRequest(), Code.INVALID_ARGUMENT)
    assert served.metrics.seen[-1] == ("", "GRPC", "GetModelStatus", "INVALID_ARGUMENT")


def test_fault_18_a_deadline_of_the_client_ends_the_call(served: Served) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        served.prediction.Predict(request("half", {"x": np.ones(1, np.float32)}), timeout=1e-6)
    assert caught.value.code() is Code.DEADLINE_EXCEEDED


def test_fault_28_more_rows_than_a_batch(served: Served) -> None:
    values = np.arange(100, dtype=np.float32)
    answer = served.prediction.Predict(request("half", {"x": values}), timeout=30)
    np.testing.assert_array_equal(arrays(answer)["y"], values / 2 + 2)


def test_large_messages_pass_and_too_large_ones_do_not(served: Served) -> None:
    pixels = np.zeros((1, 1500, 1500, 3), np.uint8)  # 7 MB, and what gRPC lets in by default is 4
    assert served.prediction.Predict(request("tiny", {"image": pixels}), timeout=60).outputs.keys() == CLASSES.keys()
    larger = np.zeros((1, 3400, 3400, 3), np.uint8)  # 35 MB
    refused(served.prediction.Predict, request("tiny", {"image": larger}), Code.RESOURCE_EXHAUSTED)


def test_metadata_and_status(served: Served) -> None:
    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    asked.model_spec.name = "half"
    answer = served.prediction.GetModelMetadata(asked, timeout=30)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def["serving_default"].inputs["x"].dtype == types_pb2.DT_FLOAT
    assert answer.model_spec.version.value == 123
    for fields in ([], ["nothing"]):
        wrong = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
        wrong.model_spec.name = "half"
        refused(served.prediction.GetModelMetadata, wrong, Code.INVALID_ARGUMENT)
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "half"
    (entry,) = served.model.GetModelStatus(status, timeout=30).model_version_status
    assert (entry.version, entry.state) == (123, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
    assert entry.status.error_code == 0


def example(**features: Any) -> tf.train.Example:
    message = tf.train.Example()
    for name, value in features.items():
        feature = message.features.feature[name]
        (feature.bytes_list if isinstance(value, bytes) else feature.float_list).value.append(value)
    return message


def test_classify_names_the_classes_of_a_picture(served: Served, server: Server) -> None:
    data, text = picture(), base64.b64encode(picture()).decode()
    for head in ("", "size"):
        asked = classification_pb2.ClassificationRequest()
        asked.model_spec.name, asked.model_spec.signature_name = "tiny", head
        asked.input.example_list.examples.append(example(image=data))
        asked.input.example_list.examples.append(example(image=picture((40, 200, 40))))
        answer = served.prediction.Classify(asked, timeout=30)
        rows = [[[entry.label, entry.score] for entry in row.classes] for row in answer.result.classifications]
        body = {"examples": [{"image": {"b64": text}}]} | ({"signature_name": head} if head else {})
        (expected,) = server.post("/v1/models/tiny:classify", body).json["results"]
        assert len(rows) == 2
        assert [label for label, _ in rows[0]] == [label for label, _ in expected]
        np.testing.assert_allclose([score for _, score in rows[0]], [score for _, score in expected], rtol=1e-5)
    shared = classification_pb2.ClassificationRequest()
    shared.model_spec.name = "tiny"
    shared.input.example_list_with_context.context.CopyFrom(example(image=data))
    shared.input.example_list_with_context.examples.add()
    assert len(served.prediction.Classify(shared, timeout=30).result.classifications) == 1
    shared.input.example_list_with_context.context.CopyFrom(example(image=bytes(10**6)))
    shared.input.example_list_with_context.examples.extend([tf.train.Example()] * 1000)
    refused(served.prediction.Classify, shared, Code.INVALID_ARGUMENT, "larger than a request")


def test_classify_and_regress_refuse_what_no_signature_answers(served: Served) -> None:
    empty = classification_pb2.ClassificationRequest()
    empty.model_spec.name = "tiny"
    refused(served.prediction.Classify, empty, Code.INVALID_ARGUMENT, "empty")
    for asked, call in (
        (classification_pb2.ClassificationRequest(), served.prediction.Classify),
        (regression_pb2.RegressionRequest(), served.prediction.Regress),
    ):
        asked.model_spec.name = "half"
        asked.input.example_list.examples.append(example(x=1.0))
        refused(call, asked, Code.INVALID_ARGUMENT, "signature method_name to be tensorflow/serving/")
    refused(
        served.prediction.MultiInference, inference_pb2.MultiInferenceRequest(), Code.UNIMPLEMENTED, "Predict answers"
    )
    refused(
        served.model.HandleReloadConfigRequest,
        model_management_pb2.ReloadConfigRequest(),
        Code.UNIMPLEMENTED,
        "the folder is watched",
    )


def test_a_token_is_asked_for(tmp_path: Path) -> None:
    with serving(folder=tmp_path, token="secret") as served:
        asked = request("half", {"x": np.ones(1, np.float32)})
        for header in (None, "secret", "Bearer wrong", "Bearer ", "Basic secret"):
            metadata = [] if header is None else [("authorization", header)]
            refused(served.prediction.Predict, asked, Code.UNAUTHENTICATED, "token", metadata=metadata)
        right = [("authorization", "Bearer secret")]
        refused(served.prediction.Predict, asked, Code.NOT_FOUND, metadata=right)


def test_a_taken_port_is_told(served: Served) -> None:
    taken = Settings(grpc_port=served.rpc.port)
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{served.rpc.port}"):
        asyncio.run(start_grpc(served.repository, taken, served.metrics))


def test_tls_is_spoken_with_a_certificate(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("There is no openssl.")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    folder = tmp_path / "models"
    folder.mkdir()
    with serving(folder=folder, certificate=certificate, key=key) as served:
        trust = grpc.ssl_channel_credentials(certificate.read_bytes())
        with grpc.secure_channel(f"127.0.0.1:{served.rpc.port}", trust) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            refused(stub.Predict, request("half", {}), Code.NOT_FOUND)
        assert ssl.get_server_certificate(("127.0.0.1", served.rpc.port)) == certificate.read_text()
