"""TensorFlow Serving's REST interface, asked as its clients do: a real server, and stand-ins for other SavedModels."""

import asyncio
import base64
import json
import math
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import httpx
import numpy as np
import pytest
from serving_examples import CLASSES, Answer, Server, picture
from tensorflow.core.protobuf import meta_graph_pb2

from apps.serve.application import make_application
from apps.serve.batching import Workers
from apps.serve.errors import Code, Refusal, invalid, not_found
from apps.serve.metrics import Metrics
from apps.serve.repository import Repository, VersionStatus
from apps.serve.settings import Settings
from apps.serve.signature import Signature, TensorSpec

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def encoded(data: bytes = b"") -> dict[str, str]:
    """As JSON carries it; a red picture where none is given."""
    return {"b64": base64.b64encode(data or picture()).decode()}


def error(answer: Answer, status: int = 400) -> str:
    """The message of an answer that is an error."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json) == ["error"]
    return answer.json["error"]


def predict(server: Server, document: object, model: str = "half") -> Answer:
    return server.post(f"/v1/models/{model}:predict", document)


@pytest.fixture(scope="module")
def server(server: Server) -> Server:
    """The shared one, once its models are loaded."""
    end = time.monotonic() + 60
    while server.get("/v2/health/ready").status != 200 and time.monotonic() < end:
        time.sleep(0.05)
    return server


@pytest.fixture(autouse=True)
def the_next_request_is_answered(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test sent to the real server."""
    yield
    if "server" in request.fixturenames:
        answer = predict(request.getfixturevalue("server"), {"instances": [1.0]})
        assert (answer.status, answer.body) == (200, b'{"predictions":[2.5]}')


# --- stand-ins --------------------------------------------------------------------------------------------------------


class Model:
    """A loaded version that answers what it is told."""

    version = 7

    def __init__(
        self,
        outputs: Mapping[str, np.ndarray] | Refusal,
        method: str = "tensorflow/serving/predict",
        **inputs: TensorSpec,
    ) -> None:
        definition = meta_graph_pb2.SignatureDef(method_name=method)
        self.name, self.outputs = "model", outputs
        self.signatures = {"serving_default": Signature("serving_default", inputs, {}, definition)}
        self.classes: Mapping[str, list[str]] = {}
        self.received: Mapping[str, np.ndarray] = {}

    def signature(self, name: str | None) -> Signature:
        return self.signatures[name or "serving_default"]

    async def predict(
        self, _: str | None, inputs: Mapping[str, np.ndarray], deadline: float
    ) -> Mapping[str, np.ndarray]:
        self.received = inputs
        if isinstance(self.outputs, Refusal):
            raise self.outputs
        return self.outputs

    def check_room(self) -> None:
        """There is always room."""


class OneModel:
    """A repository with the versions 3 (unloaded) and 7 of one model, which the label "stable" names."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def names(self) -> list[str]:
        return ["model"]

    def ready(self) -> bool:
        return True

    def status(self, name: str, version: int | None = None, label: str | None = None) -> list[VersionStatus]:
        if name != "model" or version not in (None, 3, 7):
            raise not_found(f"Could not find any versions of model {name}")
        if label not in (None, "stable"):
            raise invalid(f"Unrecognized servable version label: {label}")
        every = [VersionStatus(7, "AVAILABLE"), VersionStatus(3, "END", "UNKNOWN", "It is damaged.")]
        return [status for status in every if version in (None, status.version)]

    @contextmanager
    def use(self, name: str, version: int | None = None, label: str | None = None) -> Iterator[Model]:
        if name != "model" or version not in (None, 7):
            raise not_found(f"Servable not found for request: Specific({name}, {version})")
        if label not in (None, "stable"):
            raise invalid(f"Unrecognized servable version label: {label}")
        yield self.model


def ask(model: Model, method: str, path: str, body: object | None = None) -> httpx.Response:
    """One request to a server with that model, in this process."""
    workers = cast(Workers, SimpleNamespace(longest=lambda: 0.0))
    application = make_application(cast(Repository, OneModel(model)), workers, Metrics(), Settings())

    async def request() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://test") as client:
            content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            return await client.request(method, path, content=content)

    return asyncio.run(request())


X = TensorSpec("x", np.dtype("float32"), (None,))
SERIALIZED = TensorSpec("inputs", np.dtype(object), (None,))
ONES = Model({"y": np.ones(2, "float32")}, x=X)


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/models/half:predict", "/v1/models/half/versions/123:predict", "/v1/models/half/versions/000123:predict"),
        *("/v1/models/half%3Apredict", "/V1/Models/half:PREDICT", "/v1/models/half/Versions/123%3apredict"),
    ],
)
def test_a_model_has_many_paths(server: Server, path: str) -> None:
    answer = server.post(path, {"instances": [1.0, 2.0, 5.0]})
    assert (answer.status, answer.body) == (200, b'{"predictions":[2.5,3.0,4.5]}')
    assert answer.headers["content-type"] == "application/json"


def test_labels_are_passed_on() -> None:
    answer = ask(ONES, "POST", "/v1/models/model/labels/stable:predict", {"instances": [1, 1]})
    assert (answer.status_code, answer.json()) == (200, {"predictions": [1.0, 1.0]})
    answer = ask(ONES, "POST", "/v1/models/model/labels/other:predict", {"instances": [1, 1]})
    assert (answer.status_code, answer.json()) == (400, {"error": "Unrecognized servable version label: other"})
    assert ask(ONES, "GET", "/v1/models/model/labels/stable").status_code == 200
    assert ask(ONES, "GET", "/v1/models/model/labels/stable/metadata").status_code == 200


def test_models_are_listed(server: Server) -> None:
    answer = server.get("/v1/models")
    assert (answer.status, answer.json) == (200, {"models": ["half", "tiny"]})


def test_fault_13_unknown_names_are_refused(server: Server) -> None:
    body = {"instances": [1.0]}
    assert error(server.post("/v1/models/no:predict", body), 404) == "Servable not found for request: Latest(no)"
    message = error(server.post("/v1/models/half/versions/99:predict", body), 404)
    assert message == "Servable not found for request: Specific(half, 99)"
    message = error(predict(server, {**body, "signature_name": "other"}))
    assert message == 'Serving signature name: "other" not found in signature def'
    for version in (1 << 63, 10**30, "1" * 5000):
        for call in (
            server.post(f"/v1/models/half/versions/{version}:predict", body),
            server.get(f"/v1/models/half/versions/{version}"),
        ):
            assert error(call).startswith("Failed to convert version: 1" if version != 1 << 63 else "Failed to convert")
            assert error(call).endswith(" to numeric.")


def test_fault_13_unknown_names_of_statuses_are_refused() -> None:
    for path, status in (("no", 404), ("model/versions/9", 404), ("model/labels/no", 400)):
        for suffix in ("", "/metadata"):
            answer = ask(ONES, "GET", f"/v1/models/{path}{suffix}")
            assert answer.status_code == status
            assert list(answer.json()) == ["error"]


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/v1/",
            "/v1/foo",
            "/v1/models/",
            "/v1/models/half/",
            "/v1/models/half/versions/",
            "/v1/models/half:predict/",
        ),
        *(
            "/v1/models/half/versions/x",
            "/v1/models/half/versions/-1",
            "/v1/models/half/labels/",
            "/v1/models/:predict",
        ),
        *(
            "/v1/models/half/versions/1/labels/a",
            "/v1/models//half",
            "/v1/models/half/metadata/x",
            "/v1/models/..%2f..%2fx",
        ),
    ],
)
def test_fault_13_other_paths_are_malformed(server: Server, path: str) -> None:
    assert error(server.get(path)).startswith("Malformed request: GET /v1/")
    assert error(server.post(path, b"{}")).startswith("Malformed request: POST /v1/")


def test_fault_13_paths_cannot_leave_the_folder(server: Server) -> None:
    for name in ("..%2f..%2fetc", "%2e%2e", "half%00", "..", "half%0a", "h%ffalf", "%2fetc%2fpasswd"):
        for answer in (
            server.post(f"/v1/models/{name}:predict", {"instances": [1.0]}),
            server.post(f"/v1/models/half/labels/{name}:predict", {"instances": [1.0]}),
        ):
            assert answer.status in (400, 404)
    assert error(server.get("/v1/models/versions/1")) != ""


def test_fault_13_outside_of_v1_there_is_nothing(server: Server) -> None:
    assert server.get("/v7/models/half").status == 404


def test_fault_14_other_methods_are_malformed(server: Server) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        for path in ("/v1/models/half:predict", "/v1/models/half"):
            assert error(server.request(method, path)) == f"Malformed request: {method} {path}"
    assert error(server.get("/v1/models/half:predict")) == "Malformed request: GET /v1/models/half:predict"
    assert error(server.post("/v1/models/half", b"{}")) == "Malformed request: POST /v1/models/half"


def test_fault_14_head_is_get_without_a_body(server: Server) -> None:
    answer = server.request("HEAD", "/v1/models/half")
    assert (answer.status, answer.body) == (200, b"")
    assert server.request("HEAD", "/v1/models/half:predict").status == 400


# --- status and metadata ----------------------------------------------------------------------------------------------


def test_the_status_has_tensorflow_servings_form(server: Server) -> None:
    status = {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in ("/v1/models/half", "/v1/models/half/versions/123"):
        answer = server.get(path)
        assert (answer.status, answer.json) == (200, {"model_version_status": [status]})
        assert answer.headers["content-type"] == "application/json"


def test_statuses_are_tensorflow_servings_message() -> None:
    get_model_status_pb2 = pytest.importorskip("tensorflow_serving.apis.get_model_status_pb2")
    from google.protobuf import json_format

    answer = ask(ONES, "GET", "/v1/models/model")
    message = json_format.Parse(answer.text, get_model_status_pb2.GetModelStatusResponse())
    assert [(item.version, item.state, item.status.error_message) for item in message.model_version_status] == [
        (7, 30, ""),
        (3, 50, "It is damaged."),
    ]
    back = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    assert back == answer.json()
    only = ask(ONES, "GET", "/v1/models/model/versions/3").json()["model_version_status"]
    assert [item["version"] for item in only] == ["3"]


def test_the_metadata_have_tensorflow_servings_form(server: Server) -> None:
    answer = server.get("/v1/models/half/versions/123/metadata")
    assert answer.status == 200
    assert answer.json["model_spec"] == {"name": "half", "signature_name": "", "version": "123"}
    definitions = answer.json["metadata"]["signature_def"]["signature_def"]
    default = definitions["serving_default"]
    shape = {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    assert default["inputs"]["x"] == {"dtype": "DT_FLOAT", "tensor_shape": shape, "name": "serving_default_x:0"}
    assert set(default) == {"inputs", "outputs", "method_name", "defaults"}
    assert default["method_name"] == "tensorflow/serving/predict"
    assert list(default["outputs"]) == ["y"]
    assert default["defaults"] == {}


def test_metadata_are_tensorflow_servings_message(server: Server) -> None:
    get_model_metadata_pb2 = pytest.importorskip("tensorflow_serving.apis.get_model_metadata_pb2")
    from google.protobuf import json_format

    answer = server.get("/v1/models/tiny/metadata").json
    message = get_model_metadata_pb2.SignatureDefMap()
    json_format.ParseDict(answer["metadata"]["signature_def"], message)
    assert set(message.signature_def) >= {"serving_default", "serving_bytes", "decode"}
    image = message.signature_def["serving_default"].inputs["image"]
    assert [side.size for side in image.tensor_shape.dim] == [-1, -1, -1, 3]


# --- predict ----------------------------------------------------------------------------------------------------------


def test_rows_and_columns_are_answered_alike(server: Server) -> None:
    for instances in ([1.0, 2], [{"x": 1.0}, {"x": 2}]):
        assert predict(server, {"instances": instances}).body == b'{"predictions":[2.5,3.0]}'
    for inputs in ([1.0, 2], {"x": [1.0, 2]}, {"x": [1.0, 2], "other": "a"}):
        assert predict(server, {"inputs": inputs}).body == b'{"outputs":[2.5,3.0]}'
    document = {"signature_name": "serving_default", "instances": [1.0]}
    assert predict(server, document).body == b'{"predictions":[2.5]}'


def test_a_picture_gives_the_probabilities_of_every_head(server: Server) -> None:
    """Encoded where bytes are expected, encoded where pixels are, as rows and as columns, and as pixels."""
    red, green = picture(), picture((40, 200, 40), kind="JPEG")
    first = predict(server, {"signature_name": "serving_bytes", "instances": [encoded(red), encoded(green)]}, "tiny")
    assert first.status == 200
    rows = first.json["predictions"]
    assert [set(row) for row in rows] == [set(CLASSES)] * 2
    assert len(rows[0]["colour"]) == 3
    assert sum(rows[0]["colour"]) == pytest.approx(1)
    for document in (
        {"instances": [encoded(red), encoded(green)]},
        {"instances": [{"image": encoded(red)}, {"image": encoded(green)}]},
        {
            "signature_name": "serving_bytes",
            "instances": [{"image_bytes": encoded(red)}, {"image_bytes": encoded(green)}],
        },
    ):
        answer = predict(server, document, "tiny")
        assert answer.status == 200
        for row, expected in zip(answer.json["predictions"], rows, strict=True):
            for head, values in expected.items():
                assert row[head] == pytest.approx(values, abs=1e-6)
    for inputs in ([encoded(red), encoded(green)], {"image": [encoded(red), encoded(green)]}):
        outputs = predict(server, {"inputs": inputs}, "tiny").json["outputs"]
        assert outputs["colour"][1] == pytest.approx(rows[1]["colour"], abs=1e-6)
    pixels = [[[200, 40, 40]] * 8] * 8
    answer = predict(server, {"instances": [pixels]}, "tiny")
    assert answer.json["predictions"][0]["colour"] == pytest.approx(rows[0]["colour"], abs=1e-6)


def test_a_large_body_of_numbers_is_read(server: Server) -> None:
    """1.5 MB, which a thread reads."""
    values = np.random.default_rng(0).normal(size=80_000)
    answer = predict(server, {"inputs": values.tolist()})
    np.testing.assert_allclose(answer.json["outputs"], values / 2 + 2, atol=1e-6)
    assert "is not of expected type: float" in error(predict(server, {"inputs": [*values.tolist(), "a"]}))


BODIES = {
    1: [b"", b"not JSON", b"[1.0]", b'{"instances": [1.0]} and more', b'{"instances": [1.0]}{', b"{"],
    2: [
        b'{"instances":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"instances":[' + b"1" * 4301 + b"]}",
        b'{"instances":[1e999]}',
        b'{"instances":[1.0],"instances":[2.0]}',
        b'\xef\xbb\xbf{"instances":[1.0]}',
        '{"instances":[1.0]}'.encode("utf-16"),
        b'{"instances":["\\ud800"]}',
    ],
    3: [
        b'{"instances":[1.0],"inputs":[1.0]}',
        b"{}",
        b'{"instances":[]}',
        b'{"instances":null}',
        b'{"inputs":null}',
        b'{"instances":["a"]}',
        b'{"instances":[null]}',
        b'{"signature_name":3,"instances":[1.0]}',
    ],
    4: [
        b'{"instances":[1.0,[2.0]]}',
        b'{"instances":[[1.0],[2.0]]}',
        b'{"inputs":1.0}',
        b'{"inputs":[[1.0]]}',
        b'{"instances":[{"z":1.0}]}',
        b'{"instances":[{"x":1.0,"z":1.0}]}',
        b'{"instances":[{}]}',
        b'{"inputs":{"z":[1.0]}}',
        b'{"instances":[{"x":1.0},1.0]}',
        b'{"instances":[1.0,{"x":1.0}]}',
    ],
    5: [b'{"instances":[true]}', b'{"instances":[1e39]}', b'{"instances":[16777217]}'],
    7: [
        b'{"instances":[{"b64":"!"}]}',
        b'{"instances":[{"b64":1}]}',
        b'{"instances":[{"b64":"YQ==","a":1}]}',
        b'{"instances":[{"b64":""}]}',
    ],
}


@pytest.mark.parametrize("fault", BODIES)
def test_faults_01_to_07_of_a_body_are_refused(server: Server, fault: int) -> None:
    for body in BODIES[fault]:
        for model in ("half", "tiny"):
            assert error(predict(server, body, model))


def test_fault_05_numbers_that_a_pixel_does_not_hold_are_refused(server: Server) -> None:
    for value in (300, -1, 1.0, True, "1", None, 1 << 70):
        pixels = [[[value, 0, 0]] * 8] * 8
        assert "is not of expected type: uint8" in error(predict(server, {"instances": [pixels]}, "tiny"))


def test_fault_06_what_is_not_finite_comes_and_goes_as_tokens(server: Server) -> None:
    answer = predict(server, b'{"instances": [NaN, Infinity, -Infinity, 1.0]}')
    assert (answer.status, answer.body) == (200, b'{"predictions":[NaN,Infinity,-Infinity,2.5]}')
    answer = predict(server, b'{"inputs": [NaN]}')
    assert math.isnan(answer.json["outputs"][0])


def test_fault_07_bad_base64_is_refused(server: Server) -> None:
    for signature, name in (("serving_default", "image"), ("serving_bytes", "image_bytes")):
        for value in ({"b64": "!!!"}, {"b64": 1}, {**encoded(), "a": 1}, {"b64": ""}, {"b64": None}, {"a": "YQ=="}):
            for rows in ([value], [{name: value}], [encoded(), value]):
                assert error(predict(server, {"signature_name": signature, "instances": rows}, "tiny"))
            assert error(predict(server, {"signature_name": signature, "inputs": [value]}, "tiny"))
    assert "empty: 0 bytes" in error(predict(server, {"instances": [{"b64": ""}]}, "tiny"))


def test_fault_08_damaged_pictures_are_refused(server: Server) -> None:
    png, jpeg = picture(size=(40, 40)), picture(size=(40, 40), kind="JPEG")
    damaged = [png[:-30], png[: len(png) // 2], png[:20], jpeg[: len(jpeg) // 2], jpeg[:-2], jpeg[:100], b"\0" * 50]
    damaged += [b"some text, no picture", b"<html><body>404</body></html>", png[:33] + bytes(len(png) - 33)]
    damaged += [picture(kind="GIF"), picture(kind="BMP"), picture(kind="WEBP"), b"\xff\x0a" + bytes(30)]
    for data in damaged:
        for signature in ("serving_default", "serving_bytes"):
            message = error(predict(server, {"signature_name": signature, "instances": [encoded(data)]}, "tiny"))
            assert "picture" in message or "this server accepts" in message
    assert "The data are GIF; this server accepts JPEG and PNG." in error(
        predict(server, {"instances": [encoded(picture(kind="GIF"))]}, "tiny")
    )


def test_fault_09_a_picture_of_too_many_pixels_is_413(server: Server) -> None:
    header = bytearray(picture())
    header[16:24] = (12_000).to_bytes(4, "big") * 2
    message = error(predict(server, {"instances": [encoded(bytes(header))]}, "tiny"), 413)
    assert "12000x12000 pixels (width x height), 144,000,000 in all" in message


def test_refusals_keep_their_status() -> None:
    for code, status in (
        *((Code.NOT_FOUND, 404), (Code.UNAVAILABLE, 503), (Code.DEADLINE_EXCEEDED, 504), (Code.INTERNAL, 500)),
        *((Code.RESOURCE_EXHAUSTED, 429), (Code.UNIMPLEMENTED, 501), (Code.TOO_LARGE, 413)),
    ):
        answer = ask(Model(Refusal(code, "Words."), x=X), "POST", "/v1/models/model:predict", {"instances": [1]})
        assert (answer.status_code, answer.json()) == (status, {"error": "Words."})


def test_full_queue_refuses_before_the_body_is_read(monkeypatch) -> None:
    full = Refusal(Code.UNAVAILABLE, "The queue is full: 4 of at most 4 rows wait.", 2.0)
    model = Model({"y": np.ones(1, "float32")}, x=X)
    assert ask(model, "POST", "/v1/models/model:predict", b"no JSON").status_code == 400
    monkeypatch.setattr(model, "check_room", Mock(side_effect=full))
    for verb in ("predict", "classify", "regress"):
        answer = ask(model, "POST", f"/v1/models/model:{verb}", b"no JSON")
        assert (answer.status_code, answer.json()) == (503, {"error": full.message})
        assert answer.headers["retry-after"] == "2"


def test_answers_that_have_no_rows_are_refused_in_row_form_only() -> None:
    scalar = Model({"y": np.zeros((), "float32")}, x=X)
    answer = ask(scalar, "POST", "/v1/models/model:predict", {"instances": [1]})
    assert (answer.status_code, answer.json()) == (400, {"error": "Tensor name: y has no shape information"})
    assert ask(scalar, "POST", "/v1/models/model:predict", {"inputs": [1]}).json() == {"outputs": 0.0}


def test_bytes_come_back_as_base64_or_text() -> None:
    model = Model({"name": np.array([b"a"], object), "map_bytes": np.array([b"\xff"], object)}, x=X)
    answer = ask(model, "POST", "/v1/models/model:predict", {"instances": [1]})
    assert answer.json() == {"predictions": [{"name": "a", "map_bytes": {"b64": "/w=="}}]}


# --- classify and regress ---------------------------------------------------------------------------------------------


def classify(server: Server, document: object, model: str = "tiny") -> Answer:
    return server.post(f"/v1/models/{model}:classify", document)


def test_classify_names_the_classes_highest_first(server: Server) -> None:
    rows = predict(server, {"instances": [encoded()]}, "tiny").json["predictions"][0]
    for name, head in (
        (None, "colour"),
        ("size", "size"),
        ("colour", "colour"),
        ("serving_default", "colour"),
        ("", "colour"),
    ):
        document = {"examples": [{"image_bytes": encoded()}, {"image": [encoded()]}], "context": {"n": 1}}
        if name is not None:
            document["signature_name"] = name
        answer = classify(server, document)
        assert answer.status == 200
        assert list(answer.json) == ["results"]
        for result in answer.json["results"]:
            assert dict(result) == {
                label: pytest.approx(value, abs=1e-6) for label, value in zip(CLASSES[head], rows[head], strict=True)
            }
            scores = [score for _, score in result]
            assert scores == sorted(scores, reverse=True)


def test_classify_refuses_what_it_cannot_answer(server: Server) -> None:
    document = {"examples": [{"image": encoded()}]}
    message = error(classify(server, {**document, "signature_name": "taste"}))
    assert message == "No signature was found with the name: taste; the heads of this model are colour, size."
    assert "needs one encoded picture" in error(classify(server, {"examples": [{"pixels": [1]}]}))
    assert "key 'examples' is expected" in error(classify(server, {"instances": [1]}))
    assert "base64 text" in error(classify(server, {"examples": [{"image": encoded()["b64"]}]}))
    assert error(classify(server, b"no"))
    assert error(classify(server, document, "half")) == (
        f"Expected classification signature method_name to be {CLASSIFY}. Was: tensorflow/serving/predict"
    )
    assert (
        error(classify(server, {**document, "signature_name": "x"}, "half"))
        == "No signature was found with the name: x"
    )


def test_regress_needs_a_signature_for_it(server: Server) -> None:
    for model in ("half", "tiny"):
        assert error(server.post(f"/v1/models/{model}:regress", {"examples": [{"x": 1.0}]})) == (
            f"Expected regression signature method_name to be {REGRESS}. Was: tensorflow/serving/predict"
        )


def test_signatures_for_classify_and_regress_are_given_examples() -> None:
    import tensorflow as tf

    document = {"context": {"b": 2}, "examples": [{"a": 1.0}, {"a": 2.0}]}
    outputs = {"classes": np.array([[b"x", b"y"]] * 2, object), "scores": np.array([[0.25, 0.75]] * 2, "float32")}
    model = Model(outputs, CLASSIFY, inputs=SERIALIZED)
    answer = ask(model, "POST", "/v1/models/model:classify", document)
    assert answer.json() == {"results": [[["x", 0.25], ["y", 0.75]]] * 2}
    features = [tf.train.Example.FromString(data).features.feature for data in model.received["inputs"]]
    assert [(one["a"].float_list.value[:], one["b"].int64_list.value[:]) for one in features] == [
        ([1.0], [2]),
        ([2.0], [2]),
    ]
    model = Model({"outputs": np.array([[0.1], [2]], "float32")}, REGRESS, inputs=SERIALIZED)
    assert ask(model, "POST", "/v1/models/model:regress", document).json() == {"results": [0.1, 2.0]}
    model = Model({"outputs": np.zeros((2, 3), "float32")}, REGRESS, inputs=SERIALIZED)
    assert ask(model, "POST", "/v1/models/model:regress", document).status_code == 400
    model = Model(outputs, CLASSIFY, x=X)
    assert "Expected one input Tensor" in ask(model, "POST", "/v1/models/model:classify", document).json()["error"]


# --- curl -------------------------------------------------------------------------------------------------------------


def curl(*arguments: str, body: Any = None) -> Any:
    process = subprocess.run(
        ["curl", "-s", "--max-time", "60", *arguments], input=body, capture_output=True, text=True, check=True
    )
    return json.loads(process.stdout)


def test_curl_is_answered(server: Server) -> None:
    """The examples of the documentation."""
    data = json.dumps(encoded())
    url = f"{server.url}/v1/models"
    assert curl(url) == {"models": ["half", "tiny"]}
    status = curl(f"{url}/tiny")["model_version_status"]
    assert [(one["version"], one["state"]) for one in status] == [("1", "AVAILABLE")]
    assert curl("-d", '{"instances": [1.0, 2.0, 5.0]}', f"{url}/half:predict") == {"predictions": [2.5, 3.0, 4.5]}
    assert curl("-d", '{"inputs": {"x": [1.0, 2.0, 5.0]}}', f"{url}/half:predict") == {"outputs": [2.5, 3.0, 4.5]}
    rows = curl("-d", "@-", f"{url}/tiny:predict", body=f'{{"instances": [{data}]}}')["predictions"]
    columns = curl("-d", "@-", f"{url}/tiny:predict", body=f'{{"inputs": [{data}]}}')["outputs"]
    assert [rows[0][head] for head in CLASSES] == [columns[head][0] for head in CLASSES]
    results = curl("-d", "@-", f"{url}/tiny:classify", body=f'{{"examples": [{{"image": {data}}}]}}')["results"]
    assert {label for label, _ in results[0]} == set(CLASSES["colour"])
