"""The Open Inference Protocol: requests as arrays, answers, and what a real server says."""

import asyncio
import base64
import dataclasses
import json
import struct
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import httpx
import numpy as np
import pytest
from serving_examples import CLASSES, Answer, Server, picture
from tensorflow.core.protobuf import meta_graph_pb2

from apps.serve.application import make_application
from apps.serve.batching import Workers
from apps.serve.binary_tensors import DATATYPES, objects, read_tensor, write_tensor
from apps.serve.errors import Code, Refusal
from apps.serve.infer_documents import InferRequest, Wanted, read_infer, read_raw, write_infer
from apps.serve.metrics import Metrics
from apps.serve.repository import Repository
from apps.serve.servable import Servable
from apps.serve.settings import Settings
from apps.serve.signature import Signature, TensorSpec

LENGTH = "Inference-Header-Content-Length"
Shape = Sequence[int | None] | None


def servable(
    inputs: Mapping[str, tuple[str, Shape]],
    outputs: Mapping[str, tuple[str, Shape]] | None = None,
    classes: Mapping[str, Sequence[str]] | None = None,
) -> Servable:
    """A model that is never computed, from the dtypes and shapes of its inputs and outputs."""

    def specs(tensors: Mapping[str, tuple[str, Shape]]) -> dict[str, TensorSpec]:
        return {
            name: TensorSpec(name, np.dtype(dtype), None if shape is None else tuple(shape))
            for name, (dtype, shape) in tensors.items()
        }

    default = Signature(
        "serving_default", specs(inputs), specs(outputs or {"y": ("float32", [None])}), meta_graph_pb2.SignatureDef()
    )
    other = dataclasses.replace(default, name="other")
    signatures = {"serving_default": default, "other": other}
    nothing: Any = None
    return Servable("m", 7, signatures, {"classes": classes or {}}, nothing, nothing, nothing, Settings())


def read(model: Servable, document: object, raw: bytes = b"", header_length: int | None = None) -> InferRequest:
    """`read_infer` of a document and raw tensors behind it."""
    header = json.dumps(document).encode()
    return read_infer(model, header + raw, (header_length or len(header)) if raw or header_length else None)


def refused(model: Servable, document: object, raw: bytes = b"") -> str:
    """The message of the refusal."""
    with pytest.raises(Refusal) as caught:
        read(model, document, raw)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value.message


def tensor(name: str, datatype: str, shape: Sequence[int], data: object = None, **more: object) -> dict[str, Any]:
    """An input's entry."""
    return {
        "inputs": [
            {
                "name": name,
                "datatype": datatype,
                "shape": list(shape),
                **({} if data is None else {"data": data}),
                **more,
            }
        ]
    }


VECTOR = servable({"x": ("float32", [None])})
PICTURES = servable({"image": ("uint8", [None, None, None, 3])}, {"kind": ("float32", [None, 2])})

VALUES = {
    "BOOL": [[True, False]],
    "UINT8": [[0, 255]],
    "UINT16": [[0, 65535]],
    "UINT32": [[0, 2**32 - 1]],
    "UINT64": [[0, 2**64 - 1]],
    "INT8": [[-128, 127]],
    "INT16": [[-32768, 32767]],
    "INT32": [[-(2**31), 2**31 - 1]],
    "INT64": [[-(2**63), 2**63 - 1]],
    "FP16": [[0.5, 65504.0]],
    "BF16": [[0.5, -3.0]],
    "FP32": [[0.1, 3e38]],
    "FP64": [[0.1, 1e308]],
    "BYTES": [["ü", ""]],
}


@pytest.mark.parametrize("datatype", VALUES)
def test_every_datatype_is_read_from_json_and_from_bytes(datatype: str) -> None:
    dtype, values = DATATYPES[datatype], VALUES[datatype]
    expected = np.array([["ü".encode(), b""]], object) if datatype == "BYTES" else np.array(values, dtype)
    model = servable({"x": (dtype.name, [None, 2])} if dtype.name != "bfloat16" else {"x": (dtype, [None, 2])})
    raw = write_tensor(expected)
    for request in (
        read(model, tensor("x", datatype, [1, 2], values)),
        read(model, tensor("x", datatype, [1, 2], values[0])),
        read(model, tensor("x", datatype, [1, 2], parameters={"binary_data_size": len(raw)}), raw),
    ):
        assert request.inputs["x"].dtype == dtype
        np.testing.assert_array_equal(request.inputs["x"], expected)


def test_numbers_of_a_binary_tensor_are_not_copied_where_their_place_allows_it() -> None:
    body = bytes(3) + struct.pack("<2f", 1, 2)
    assert not read_tensor("x", np.dtype("uint8"), (8,), memoryview(body)[3:]).flags.owndata
    unaligned = read_tensor("x", np.dtype("float32"), (2,), memoryview(body)[3:])
    assert unaligned.flags.aligned
    assert unaligned.tolist() == [1, 2]


def test_bytes_tensor_is_lengths_and_bytes() -> None:
    raw = b"\x03\0\0\0abc\0\0\0\0\x01\0\0\0\0"
    elements = read_tensor("x", np.dtype(object), (3,), memoryview(raw))
    assert elements.tolist() == [b"abc", b"", b"\0"]
    assert write_tensor(elements) == raw


def test_two_binary_inputs_follow_each_other() -> None:
    model = servable({"a": ("int16", [None]), "b": ("uint8", [None])})
    document = {
        "inputs": [
            {"name": "b", "datatype": "UINT8", "shape": [2], "parameters": {"binary_data_size": 2}},
            {"name": "a", "datatype": "INT16", "shape": [2], "parameters": {"binary_data_size": 4}},
        ]
    }
    request = read(model, document, b"\x01\x02\x03\0\xff\xff")
    assert request.inputs["b"].tolist() == [1, 2]
    assert request.inputs["a"].tolist() == [3, -1]


def test_request_parameters_choose_the_signature_and_the_time_in_the_queue() -> None:
    document = tensor("x", "FP32", [1], [1]) | {"parameters": {"signature_name": "other", "timeout": 2_500_000}}
    request = read(VECTOR, document)
    assert request.signature == "other"
    assert request.seconds == 2.5
    message = refused(VECTOR, tensor("x", "FP32", [1], [1]) | {"parameters": {"signature_name": "none"}})
    assert message == 'Serving signature name: "none" not found in signature def'


def test_outputs_are_those_asked_for_in_that_order() -> None:
    model = servable({"x": ("float32", [None])}, {"a": ("float32", [None]), "b": ("float32", [None])})
    document = tensor("x", "FP32", [1], [1])
    assert read(model, document).wanted == [Wanted("a"), Wanted("b")]
    assert read(model, document | {"outputs": []}).wanted == [Wanted("a"), Wanted("b")]
    asked = document | {
        "outputs": [
            {"name": "b", "parameters": {"classification": 2}},
            {"name": "a", "parameters": {"binary_data": False}},
        ],
        "parameters": {"binary_data_output": True},
    }
    assert read(model, asked).wanted == [Wanted("b", True, 2), Wanted("a", False)]
    for outputs in (
        [{"name": "c"}],
        [{"name": "a"}, {"name": "a"}],
        {"name": "a"},
        ["a"],
        [{"name": 1}],
        [{"name": "a", "parameters": {"classification": 0}}],
        [{"name": "a", "parameters": {"classification": "3"}}],
        [{"name": "a", "parameters": {"classification": True}}],
        [{"name": "a", "parameters": {"binary_data": 1}}],
        [{"name": "a", "parameters": {"shared_memory_region": "r"}}],
        [{"name": "a", "parameters": []}],
    ):
        refused(model, document | {"outputs": outputs})


def test_encoded_pictures_are_let_in_where_pixels_are_expected() -> None:
    data = picture()
    for shape in ([1], [1, 1]):
        raw = struct.pack("<I", len(data)) + data
        request = read(PICTURES, tensor("image", "BYTES", shape, parameters={"binary_data_size": len(raw)}), raw)
        assert request.inputs["image"].tolist() == [data]
    text = base64.b64encode(data).decode()
    assert read(PICTURES, tensor("image", "BYTES", [1], [{"b64": text}])).inputs["image"].tolist() == [data]
    for element in ({"b64": "?"}, {"b64": 1}, {"b64": text, "more": 1}, {}, 1, None, [text]):
        refused(PICTURES, tensor("image", "BYTES", [1], [element]))


def test_raw_body_is_the_picture_or_the_numbers() -> None:
    assert read_raw(PICTURES, picture()).inputs["image"].tolist() == [picture()]
    assert read_raw(servable({"s": ("object", [None])}), b"abc").inputs["s"].tolist() == [b"abc"]
    assert read_raw(VECTOR, struct.pack("<3f", 1, 2, 3)).inputs["x"].tolist() == [1, 2, 3]
    table = read_raw(servable({"x": ("int16", [None, 2])}), struct.pack("<4h", 1, 2, 3, 4)).inputs["x"]
    assert table.tolist() == [[1, 2], [3, 4]]
    for model, body, is_picture in (
        (VECTOR, b"", False),
        (VECTOR, bytes(5), False),
        (VECTOR, picture(), True),
        (servable({"x": ("float32", [None, None])}), bytes(4), False),
        (servable({"x": ("float32", None)}), bytes(4), False),
        (servable({"x": ("float32", [3])}), bytes(4), False),
        (servable({"x": ("float32", [None, 0])}), bytes(4), False),
        (servable({"s": ("object", [2])}), b"abc", False),
        (servable({"a": ("float32", [None]), "b": ("float32", [None])}), bytes(4), False),
        (PICTURES, b"", True),
    ):
        with pytest.raises(Refusal) as caught:
            read_raw(model, body, is_picture)
        assert caught.value.code is Code.INVALID_ARGUMENT


def answer_of(model: Servable, wanted: Wanted, array: np.ndarray, identity: str | None = None) -> tuple[Any, bytes]:
    """The JSON and the raw tensors of an answer with one output."""
    content, length = write_infer(model, InferRequest("serving_default", {}, [wanted], identity), {wanted.name: array})
    size = len(content) if length is None else length
    return json.loads(content[:size]), content[size:]


def test_best_classes_are_value_index_and_label() -> None:
    model = servable({"x": ("float32", [None])}, classes={"kind": ["cat", "dog"]})
    scores = np.array([[0.25, 0.5, 0.25], [np.nan, 1, 4]], np.float32)
    document, _ = answer_of(model, Wanted("kind", best=2), scores)
    assert document["outputs"] == [
        {
            "name": "kind",
            "datatype": "BYTES",
            "shape": [2, 2],
            "data": ["0.500000:1:dog", "0.250000:0:cat", "4.000000:2", "1.000000:1:dog"],
        }
    ]
    document, _ = answer_of(model, Wanted("kind", best=9), scores[:1])
    assert document["outputs"][0]["shape"] == [1, 3]
    document, raw = answer_of(model, Wanted("other", True, 1), scores[:1])
    assert document["outputs"][0]["parameters"] == {"binary_data_size": 14}
    assert raw == b"\x0a\0\0\0" + b"0.500000:1"
    document, _ = answer_of(model, Wanted("other", best=1), np.zeros((0, 3), np.float32))
    assert document["outputs"][0]["shape"] == [0, 1]
    for array in (np.array(1.0), objects([b"a"])):
        with pytest.raises(Refusal):
            answer_of(model, Wanted("kind", best=1), array)


def test_bytes_that_json_cannot_carry_are_refused_or_sent_as_they_are() -> None:
    array = objects([b"\xff"])
    with pytest.raises(Refusal, match="binary_data"):
        answer_of(VECTOR, Wanted("y"), array)
    assert answer_of(VECTOR, Wanted("y", True), array)[1] == b"\x01\0\0\0\xff"


def test_fault_05_wrong_kinds_and_ranges_of_numbers_are_refused() -> None:
    for datatype, values in {
        "BOOL": (0, 1.0, "true", None),
        "UINT8": (300, -1, 1.0, True, "1", None),
        "INT8": (128, -129),
        "INT64": (2**63, 1.0),
        "UINT64": (2**64, -1),
        "FP16": (70000, True, "1", None),
        "BF16": (3.5e38,),
        "FP32": (1e39, True, [1.0, 2.0]),
        "FP64": ("NaN", {}),
    }.items():
        model = servable({"x": (DATATYPES[datatype], [None])})
        for value in values:
            refused(model, tensor("x", datatype, [1], [value]))
    refused(servable({"x": ("bool", [None])}), tensor("x", "BOOL", [1], parameters={"binary_data_size": 1}), b"\x02")


def test_fault_06_numbers_that_are_not_finite_are_let_in() -> None:
    request = read(VECTOR, tensor("x", "FP32", [3], [float("nan"), float("inf"), -float("inf")]))
    np.testing.assert_array_equal(request.inputs["x"], np.array([np.nan, np.inf, -np.inf], np.float32))


def test_fault_12_sizes_are_checked_before_anything_is_allocated() -> None:
    table = servable({"x": ("float32", [None, None])})
    words = servable({"x": ("object", [None])})
    for shape in (
        [2**60],
        [2**31, 2**31],
        [2**63, 2**63],
        [-1],
        [-1, -4],
        [1, 2],
        [True],
        [1.0],
        ["1"],
        4,
        None,
        [1] * 40,
    ):
        model = VECTOR if not isinstance(shape, list) or len(shape) == 1 else table
        document = {"inputs": [{"name": "x", "datatype": "FP32", "shape": shape, "data": [1.0, 2, 3, 4][:4]}]}
        refused(model, document)
        del document["inputs"][0]["data"]
        document["inputs"][0]["parameters"] = {"binary_data_size": 16}
        refused(model, document, bytes(16))
    for size in (-1, 3, 5, 2**40, "4", 4.0, True):
        refused(VECTOR, tensor("x", "FP32", [1], parameters={"binary_data_size": size}), bytes(4))
    refused(VECTOR, tensor("x", "FP32", [1], parameters={"binary_data_size": 4}), bytes(5))
    refused(VECTOR, tensor("x", "FP32", [1], [1.0]), bytes(1))
    refused(VECTOR, tensor("x", "FP32", [1], [1.0], parameters={"binary_data_size": 4}), bytes(4))
    refused(VECTOR, tensor("x", "FP32", [1]))
    for count, raw in (
        (1, b"\x05\0\0\0abcd"),
        (1, b"\xff\xff\xff\xff"),
        (1, b"\x01\0"),
        (1, b"\x01\0\0\0a\0\0"),
        (2, b"\x01\0\0\0a"),
        (1, b"\0\0\0\0\0\0\0\0"),
        (2**60, b"\0\0\0\0"),
        (1, b"\x01"),
    ):
        refused(words, tensor("x", "BYTES", [count], parameters={"binary_data_size": len(raw)}), raw)


@pytest.mark.parametrize("header_length", [10**6, 5])
def test_fault_11_header_length_that_does_not_fit_is_refused(header_length: int) -> None:
    with pytest.raises(Refusal):
        read_infer(VECTOR, json.dumps(tensor("x", "FP32", [1], [1])).encode(), header_length)


def test_nested_data_must_have_the_shape() -> None:
    table = servable({"x": ("float32", [None, None])})
    for data in ([[1, 2], [3, 4]], [1, 2, 3, 4]):
        assert read(table, tensor("x", "FP32", [2, 2], data)).inputs["x"].tolist() == [[1, 2], [3, 4]]
    for data in (
        [[1, 2], [3]],
        [[1, 2, 3, 4]],
        [1, [2], 3, 4],
        [[1, 2], 3, 4],
        [1, 2, 3],
        [[[1, 2]], [[3, 4]]],
        1,
        "1",
        {},
    ):
        refused(table, tensor("x", "FP32", [2, 2], data))
    assert read(table, tensor("x", "FP32", [0, 3], [])).inputs["x"].shape == (0, 3)
    assert read(table, tensor("x", "FP32", [1, 0], [[]])).inputs["x"].shape == (1, 0)


def test_requests_that_do_not_fit_the_signature_are_refused() -> None:
    good = tensor("x", "FP32", [1], [1])["inputs"][0]
    assert "Received: INT32" in refused(VECTOR, tensor("x", "INT32", [1], [1]))
    for document in (
        [],
        1,
        {},
        {"inputs": []},
        {"inputs": good},
        {"inputs": [1]},
        {"inputs": [good, good]},
        {"inputs": [good, good | {"name": "z"}]},
        {"inputs": [good | {"name": "z"}]},
        {"inputs": [good | {"name": 1}]},
        {"inputs": [good | {"datatype": "FLOAT"}]},
        {"inputs": [good | {"datatype": 1}]},
        {"inputs": [good | {"shape": [1, 1]}]},
        {"inputs": [good | {"parameters": 1}]},
        {"inputs": [good], "id": 1},
        {"inputs": [good], "parameters": 1},
        {"inputs": [good], "parameters": {"signature_name": 1}},
        {"inputs": [good], "parameters": {"timeout": "1"}},
    ):
        refused(VECTOR, document)


# The real server.


def infer(server: Server, name: str, document: object, raw: bytes | None = None, **headers: str) -> Answer:
    header = json.dumps(document).encode()
    if raw is not None:
        headers = {LENGTH: str(len(header)), **headers}
    return server.post(f"/v2/models/{name}/infer", header + (raw or b""), headers)


def half(values: Sequence[float]) -> dict[str, Any]:
    return tensor("x", "FP32", [len(values)], list(values))


def test_health_is_told_with_and_without_a_body(server: Server) -> None:
    for path, body in {
        "/v2/health/live": {"live": True},
        "/v2/health/ready": {"ready": True},
        "/v2/models/half/ready": {"name": "half", "ready": True},
        "/v2/models/half/versions/123/ready": {"name": "half", "ready": True},
    }.items():
        answer = server.get(path)
        assert (answer.status, answer.json) == (200, body)
        head = server.request("HEAD", path)
        assert (head.status, head.body) == (200, b"")


def test_server_and_models_describe_themselves(server: Server) -> None:
    assert server.get("/v2").json["name"] == "kerascnn"
    assert server.get("/v2/models").json == {"models": ["half", "tiny"]}
    for path in ("/v2/models/tiny", "/v2/models/tiny/versions/1"):
        assert server.get(path).json == {
            "name": "tiny",
            "versions": ["1"],
            "platform": "tensorflow_savedmodel",
            "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}],
            "outputs": [
                {"name": "colour", "datatype": "FP32", "shape": [-1, 3]},
                {"name": "size", "datatype": "FP32", "shape": [-1, 2]},
            ],
        }
    assert server.get("/v2/models/half/config").json == {
        "name": "half",
        "platform": "tensorflow_savedmodel",
        "backend": "tensorflow",
        "max_batch_size": 32,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": []}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": []}],
    }


def test_repository_lists_its_versions(server: Server) -> None:
    expected = [
        {"name": "half", "version": "123", "state": "READY", "reason": ""},
        {"name": "tiny", "version": "1", "state": "READY", "reason": ""},
    ]
    assert server.post("/v2/repository/index", b"").json == expected
    assert server.post("/v2/repository/index", {"ready": True}).json == expected
    assert server.post("/v2/repository/index", {"ready": 1}).status == 400
    assert server.post("/v2/repository/models/half/load", b"{}").json == {"name": "half", "load": True}
    assert server.post("/v2/repository/models/half/load", {"parameters": {"config": "{}"}}).status == 501


def test_infer_answers_json_with_the_id(server: Server) -> None:
    answer = infer(server, "half", half([1, 2, 5]) | {"id": "ü"})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {
        "model_name": "half",
        "model_version": "123",
        "id": "ü",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [3], "data": [2.5, 3.0, 4.5]}],
    }
    assert "id" not in infer(server, "half", half([1])).json
    assert infer(server, "half/versions/123", half([1])).json["outputs"][0]["data"] == [2.5]


def test_infer_answers_in_bytes_where_asked(server: Server) -> None:
    document = tensor("x", "FP32", [2], parameters={"binary_data_size": 8}) | {
        "parameters": {"binary_data_output": True}
    }
    answer = infer(server, "half", document, struct.pack("<2f", 1, np.nan))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    size = int(answer.headers[LENGTH.lower()])
    assert json.loads(answer.body[:size])["outputs"] == [
        {"name": "y", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}
    ]
    np.testing.assert_array_equal(np.frombuffer(answer.body[size:], np.float32), [2.5, np.nan])


def test_pictures_get_the_same_answers_on_every_way(server: Server) -> None:
    data, text = picture(), base64.b64encode(picture()).decode()
    first = server.post("/v1/models/tiny:predict", {"signature_name": "serving_bytes", "instances": [{"b64": text}]})
    pixels = np.full((1, 12, 10, 3), (200, 40, 40), np.uint8)
    length = struct.pack("<I", len(data))
    ways = {
        "raw": server.post("/v2/models/tiny/infer", data, {LENGTH: "0"}),
        "curl": server.post("/v2/models/tiny/infer", data, {"Content-Type": "image/png"}),
        "base64": infer(server, "tiny", tensor("image", "BYTES", [1], [{"b64": text}])),
        "bytes": infer(
            server, "tiny", tensor("image", "BYTES", [1], parameters={"binary_data_size": len(data) + 4}), length + data
        ),
        "signature": infer(
            server,
            "tiny",
            tensor("image_bytes", "BYTES", [1], [{"b64": text}]) | {"parameters": {"signature_name": "serving_bytes"}},
        ),
        "pixels": infer(server, "tiny", tensor("image", "UINT8", pixels.shape, pixels.tolist())),
    }
    answers = {}
    for way, answer in ways.items():
        assert answer.status == 200, (way, answer.body)
        answers[way] = {output["name"]: output["data"] for output in answer.json["outputs"]}
        assert answers[way].keys() == CLASSES.keys()
    assert len({json.dumps(answer) for way, answer in answers.items() if way != "pixels"}) == 1
    for head, values in answers["pixels"].items():  # resized by TensorFlow; the others may be computed in bfloat16
        np.testing.assert_allclose(values, answers["raw"][head], atol=2e-2)
    assert first.json["predictions"] == [answers["raw"]]


def test_best_classes_of_a_picture(server: Server) -> None:
    document = tensor("image", "BYTES", [1], [{"b64": base64.b64encode(picture()).decode()}])
    values = infer(server, "tiny", document).json["outputs"][0]["data"]
    asked = document | {"outputs": [{"name": "colour", "parameters": {"classification": 2}}]}
    (output,) = infer(server, "tiny", asked).json["outputs"]
    best = sorted(range(3), key=lambda index: -values[index])[:2]
    assert output["shape"] == [1, 2]
    assert output["data"] == [f"{values[index]:f}:{index}:{CLASSES['colour'][index]}" for index in best]


def test_statistics_count_requests_and_rows(server: Server) -> None:
    (before,) = server.get("/v2/models/half/stats").json["model_stats"]
    infer(server, "half", half([1, 2, 5]))
    infer(server, "half", {})
    (after,) = server.get("/v2/models/half/versions/123/stats").json["model_stats"]
    assert (after["name"], after["version"]) == ("half", "123")
    assert after["inference_count"] - before["inference_count"] == 3
    for kind in ("success", "fail"):
        assert after["inference_stats"][kind]["count"] - before["inference_stats"][kind]["count"] == 1
    assert [entry["name"] for entry in server.get("/v2/models/stats").json["model_stats"]] == ["half", "tiny"]


@pytest.mark.parametrize(("room", "status"), [(None, 400), (Refusal(Code.UNAVAILABLE, "The queue is full."), 503)])
def test_full_queue_refuses_before_the_body_is_read(room: Refusal | None, status: int) -> None:
    model = servable({"x": ("float32", [None])})
    with patch.object(model, "check_room", side_effect=room):
        repository = cast(Repository, SimpleNamespace(use=lambda *_: nullcontext(model), names=lambda: ["m"]))
        workers = cast(Workers, SimpleNamespace(longest=lambda: 0.0))
        application = make_application(repository, workers, Metrics(), Settings())

        async def request() -> httpx.Response:
            transport = httpx.ASGITransport(application)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.post("/v2/models/m/infer", content=b"no JSON")

        answer = asyncio.run(request())
    assert answer.status_code == status
    assert room is None or answer.json() == {"error": room.message}


def test_fault_01_what_is_no_request_is_refused(server: Server) -> None:
    for body in (b"", b"not JSON", b"[1]", b'{"inputs": 1} x', b"{}", b"\xff\xd8\xff\xe0"):
        answer = server.post("/v2/models/half/infer", body)
        assert answer.status == 400
        assert answer.json.keys() == {"error"}


def test_fault_06_numbers_that_are_not_finite_go_through(server: Server) -> None:
    answer = server.post(
        "/v2/models/half/infer",
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[3],"data":[NaN,Infinity,-Infinity]}]}',
    )
    assert answer.status == 200
    assert b"[NaN,Infinity,-Infinity]" in answer.body


def test_fault_11_wrong_header_lengths_are_refused(server: Server) -> None:
    body = json.dumps(half([1])).encode()
    for given in (
        "-1",
        str(len(body) + 1),
        "2147483648",
        "9" * 30,
        "1e1",
        "abc",
        "",
        " ",
        "0x10",
        "٣".encode().decode("latin-1"),
    ):
        answer = server.post("/v2/models/half/infer", body, {LENGTH: given})
        assert answer.status == 400, given
        assert answer.json.keys() == {"error"}
    assert server.post("/v2/models/half/infer", body, {LENGTH: str(len(body))}).status == 200


def test_fault_12_sizes_that_do_not_fit_are_refused(server: Server) -> None:
    for document in (
        tensor("x", "FP32", [2**60], [1]),
        tensor("x", "FP32", [-1], [1]),
        tensor("x", "FP32", [2], [1]),
    ):
        assert infer(server, "half", document).status == 400
    document = tensor("x", "FP32", [2], parameters={"binary_data_size": 4})
    assert infer(server, "half", document, bytes(4)).status == 400
    document = tensor("image", "BYTES", [1], parameters={"binary_data_size": 8})
    assert infer(server, "tiny", document, b"\xff\xff\xff\x7f" + bytes(4)).status == 400
    assert infer(server, "half", half([1])).status == 200


def test_fault_13_unknown_models_versions_and_paths(server: Server) -> None:
    for path in ("none", "half/versions/9", "ha%00lf", "..%2fhalf", "half%2f..%2f..", "HALF"):
        answer = infer(server, path, half([1]))
        assert answer.status == 404, path
        assert answer.json.keys() == {"error"}
    for path in ("none", "..%2fhalf", "..", "a%00b"):
        assert server.post(f"/v2/repository/models/{path}/load", b"").status == 404, path
    assert infer(server, "half/versions/000123", half([1])).status == 200
    assert server.get("/v2/models/none").status == 404
    assert server.get("/v2/models/none/ready").status == 404
    assert server.get("/v2/models/half/versions/9/ready").status == 404
    for version in ("99999999999999999999", "9223372036854775808", "abc", "-1", "1.0"):
        assert infer(server, f"half/versions/{version}", half([1])).status == 400
    for path in ("/v2/nothing", "/v2/models/half/nothing", "/v2/health"):
        assert server.get(path).status == 404
        assert server.get(path).json.keys() == {"error"}


def test_fault_14_wrong_methods_are_refused(server: Server) -> None:
    for method, path in (
        ("GET", "/v2/models/half/infer"),
        ("PUT", "/v2/models/half/infer"),
        ("DELETE", "/v2/models/half"),
        ("POST", "/v2/health/live"),
        ("GET", "/v2/repository/index"),
    ):
        answer = server.request(method, path)
        assert answer.status == 405
        assert answer.json.keys() == {"error"}
        assert answer.headers["allow"]


def test_fault_28_no_rows_and_more_rows_than_a_batch(server: Server) -> None:
    assert infer(server, "half", half([])).json["outputs"][0] == {
        "name": "y",
        "datatype": "FP32",
        "shape": [0],
        "data": [],
    }
    many = list(range(100))
    assert infer(server, "half", half(many)).json["outputs"][0]["data"] == [value / 2 + 2 for value in many]
    pixels = tensor("image", "UINT8", [0, 8, 8, 3], [])
    assert [output["shape"] for output in infer(server, "tiny", pixels).json["outputs"]] == [[0, 3], [0, 2]]


@pytest.mark.parametrize("shape", [[0, 20000, 20000], [10**12, 0, 0], [1, 0, 1 << 62], [0, 1 << 63, 1]])
def test_sides_of_what_has_no_elements_are_limited(shape: list[int]) -> None:
    """No bytes are needed for them, but a row of such sides would be."""
    model = servable({"x": ("float32", [None, None, None])})
    assert "no elements, but sides that are too large" in refused(model, tensor("x", "FP32", shape, []))
    assert read(model, tensor("x", "FP32", [0, 512, 512], [])).inputs["x"].shape == (0, 512, 512)


def test_versions_may_have_any_number_of_zeros_in_front(server: Server) -> None:
    assert server.get(f"/v2/models/half/versions/{'0' * 5000}123/ready").status == 200
    assert server.get(f"/v2/models/half/versions/{'0' * 5000}{1 << 63}/ready").status == 400
