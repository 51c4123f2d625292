"""JSON to tensors and back, by TensorFlow Serving's rules, without a server."""

import base64
import json
import math
import random
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tensorflow.core.protobuf import meta_graph_pb2

from apps.serve.errors import Code, Refusal
from apps.serve.json_answers import outputs_json, predictions_json
from apps.serve.json_examples import (
    classifications_json,
    pictures,
    read_examples,
    regressions_json,
    scores_json,
    serialized,
)
from apps.serve.json_tensors import (
    decode_base64,
    json_tensor,
    parse_object,
    request_tensors,
    signature_name,
)
from apps.serve.signature import Signature, TensorSpec

FLOAT, DOUBLE, STRING = np.dtype("float32"), np.dtype("float64"), np.dtype(object)


def spec(dtype: Any = "float32", shape: tuple[int | None, ...] | None = None, name: str = "x") -> TensorSpec:
    return TensorSpec(name, np.dtype(dtype), shape)


def signature(**inputs: TensorSpec) -> Signature:
    return Signature("serving_default", inputs, {}, meta_graph_pb2.SignatureDef())


VECTOR = signature(x=spec(shape=(None,)))
MATRIX = signature(x=spec(shape=(None, 2)))
TWO = signature(a=spec(shape=(None,), name="a"), b=spec("int32", (None, 2), "b"))
PIXELS = signature(image=spec("uint8", (None, None, None, 3), "image"))


def tensors(document: Mapping[str, Any], of: Signature = VECTOR) -> dict[str, np.ndarray]:
    return request_tensors(document, of)[0]


def refused(function: Any, *arguments: Any) -> str:
    """The message of a refusal with 400."""
    with pytest.raises(Refusal) as caught:
        function(*arguments)
    assert caught.value.code.http == 400
    return caught.value.message


# --- parsing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"", b" \n", b"null", b"[1]", b"1", b'"a"', b"{", b"<html>", b"{'a': 1}", b'{"a":1}x']
)
def test_fault_01_only_one_whole_object_is_a_request(body: bytes) -> None:
    message = refused(parse_object, body)
    assert "JSON Parse error: " in message or "Is not object" in message
    if not body.strip():
        assert message == "JSON Parse error: The document is empty"


def test_fault_01_an_error_tells_where() -> None:
    assert refused(parse_object, b'{"a": 1} {"b": 2}') == "JSON Parse error: Extra data at offset: 9"
    assert refused(parse_object, b'{"a": oh}').endswith("at offset: 6")


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"instances":' + b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"instances":[1' + b"1" * 4300 + b"]}",
        b'{"instances":[1e999]}',
        b'{"instances":[NaN, -1e999]}',
        b'{"instances":[' + b"9" * 400 + b".0]}",
        b'{"instances":[1],"instances":[2]}',
        b'{"instances":[{"x":1,"x":2}]}',
        b'{"instances":[{"b64":"YQ==","b64":"Yg=="}]}',
        b'{"instances":[{"x":NaN,"x":2}]}',
        b'\xef\xbb\xbf{"instances":[1]}',
        '{"instances":[1]}'.encode("utf-16"),
        '{"instances":[1]}'.encode("utf-16-le"),
        '{"instances":[1]}'.encode("utf-32"),
        b'{"signature_name":"\\ud800"}',
        b'{"signature_name":"\\udc00\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"signature_name":"\xed\xa0\x80"}',
        b'{"signature_name":"\xff"}',
        b'{"a":"\x00"}',
    ],
)
def test_fault_02_what_parsers_read_differently_is_refused(body: bytes) -> None:
    message = refused(parse_object, body)
    assert message.startswith("JSON Parse error: ")
    assert len(message) < 500


def test_fault_02_the_key_that_is_there_twice_is_named() -> None:
    assert "'x' is given twice" in refused(parse_object, b'{"instances":[{"x":1,"x":2}]}')


def test_colons_in_strings_are_no_second_keys() -> None:
    document = {"a:b": ["::", {"c": ":", "d": {"e": 1.5}}], "f": "x" * 10}
    assert parse_object(json.dumps(document).encode()) == document


def test_numbers_that_are_not_finite_have_tokens() -> None:
    found = parse_object(b'{"instances": [NaN, Infinity, -Infinity, 0.1, 5]}')["instances"]
    assert math.isnan(found[0])
    assert found[1:] == [math.inf, -math.inf, 0.1, 5]
    assert type(found[4]) is int


def test_a_whole_surrogate_pair_is_a_character_in_both_parsers() -> None:
    assert parse_object(b'{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}
    assert parse_object(b'{"a": "\\ud83d\\ude00", "b": Infinity}') == {"a": "\U0001f600", "b": math.inf}


def test_random_bodies_are_read_or_refused() -> None:
    """Pieces of JSON in any order: nothing but a refusal with 400 ever comes out, or what `json` reads."""
    pieces = [
        '{"instances":',
        "[",
        "]",
        "{",
        "}",
        ",",
        "1",
        "-",
        "2.5e3",
        '"b64"',
        ":",
        "NaN",
        "null",
        '"a"',
        "\\u",
        " ",
    ]
    chooser = random.Random(0)
    for _ in range(3000):
        body = "".join(chooser.choices(pieces, k=chooser.randint(1, 12))).encode()
        try:
            document = parse_object(body)
        except Refusal as refusal:
            assert refusal.code.http == 400
        else:
            assert json.dumps(json.loads(body)) == json.dumps(document)
            try:
                request_tensors(document, VECTOR)
            except Refusal as refusal:
                assert refusal.code.http == 400


# --- requests ---------------------------------------------------------------------------------------------------------


def test_fault_03_there_is_one_of_instances_and_inputs() -> None:
    assert "Not formatted correctly expecting only one of" in refused(tensors, {"instances": [1], "inputs": [1]})
    assert refused(tensors, {}) == "Missing 'inputs' or 'instances' key"
    assert "No values in 'instances' array" in refused(tensors, {"instances": []})
    for value in (None, 1, {"x": [1]}, "a"):
        assert "Excepting 'instances' to be an list/array" in refused(tensors, {"instances": value})
    assert "Type: Null is not of expected type: float" in refused(tensors, {"inputs": None})


@pytest.mark.parametrize(("value", "kind"), [("a", "String"), (None, "Null"), (True, "True"), ({"b64": ""}, "Object")])
def test_fault_03_a_number_is_a_number(value: Any, kind: str) -> None:
    message = refused(tensors, {"instances": [1.0, value]})
    assert message.startswith("Failed to process element: 1 of 'instances' list. Error: JSON Value: ")
    assert message.endswith(f"Type: {kind} is not of expected type: float")
    assert f"Type: {kind} is not of expected type: float" in refused(tensors, {"inputs": [1.0, value]})


def test_fault_03_the_name_of_a_signature_is_a_string() -> None:
    assert signature_name({}) is None
    assert signature_name({"signature_name": "a"}) == "a"
    for value in (None, 1, ["a"]):
        assert "'signature_name' key must be a string value." in refused(signature_name, {"signature_name": value})


def test_rows_of_one_input_are_plain_or_named() -> None:
    for rows in ([[1, 2], [3, 4.5]], [{"x": [1, 2]}, {"x": [3, 4.5]}]):
        found = tensors({"instances": rows}, MATRIX)
        np.testing.assert_array_equal(found["x"], np.array([[1, 2], [3, 4.5]], "float32"), strict=True)
    assert request_tensors({"instances": [1.0]}, VECTOR)[1] is True
    assert request_tensors({"inputs": [1.0]}, VECTOR)[1] is False


def test_rows_of_several_inputs_are_named() -> None:
    found = tensors({"instances": [{"a": 1, "b": [2, 3]}, {"b": [4, 5], "a": 0.5}]}, TWO)
    np.testing.assert_array_equal(found["a"], np.array([1, 0.5], "float32"), strict=True)
    np.testing.assert_array_equal(found["b"], np.array([[2, 3], [4, 5]], "int32"), strict=True)


def test_columns_are_plain_or_named_and_other_names_are_passed_over() -> None:
    for inputs in ([[1, 2]], {"x": [[1, 2]]}, {"x": [[1, 2]], "other": "a"}):
        np.testing.assert_array_equal(tensors({"inputs": inputs}, MATRIX)["x"], np.array([[1, 2]], "float32"))
    found = tensors({"inputs": {"a": [1, 2], "b": [[2, 3], [4, 5]]}}, TWO)
    assert {name: array.shape for name, array in found.items()} == {"a": (2,), "b": (2, 2)}


def test_a_tensor_without_rows_has_its_shape() -> None:
    assert tensors({"inputs": []})["x"].shape == (0,)
    assert tensors({"inputs": [[], []]}, signature(x=spec(shape=(None, None))))["x"].shape == (2, 0)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[1, 2], [3]], "element: 1 of 'instances' list. Error: Expecting tensor size: 2 but got: 1"),
        ([[[1, 2]], [[1], [2]]], "element: 1 of 'instances' list. Error: Expecting shape [1,2] but got: [2,1]"),
        ([json.loads("[" * 900 + "1" + "]" * 900)], "Encountered list at unexpected level: 32 expected < 32"),
        ([[1, [2]]], "element: 0 of 'instances' list. Error: Encountered list at unexpected level: 1 expected < 1"),
        ([[[1], 2]], "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 3"),
        ([[[1, 2], [3]]], "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ([[1, 2, 3]], "Expecting shape [-1,2] for input x but got: [1,3]"),
        ([1, 2], "Expecting shape [-1,2] for input x but got: [2]"),
        ([[[1, 2]]], "Expecting shape [-1,2] for input x but got: [1,1,2]"),
        ([{"y": [1, 2]}], "does not have named input: y"),
        ([{"x": [1, 2], "y": 1}], "keys must be equal to: x"),
        ([{}], "keys must be equal to: x"),
        ([{"x": [1, 2]}, [1, 2]], "Expecting object but got list at item 1 of input list"),
        ([[1, 2], {"x": [1, 2]}], "Expecting value/list but got object at item 1 of input list"),
    ],
)
def test_fault_04_rows_that_do_not_fit_are_refused(rows: Any, words: str) -> None:
    assert words in refused(tensors, {"instances": rows}, MATRIX)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([[1, 2], [3]], "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ([1, 2], "Expecting shape [-1,2] for input x but got: [2]"),
        (1, "Expecting shape [-1,2] for input x but got: []"),
        ({"y": [[1, 2]]}, "Missing named input: x in 'inputs' object."),
        ({}, "Missing named input: x in 'inputs' object."),
    ],
)
def test_fault_04_columns_that_do_not_fit_are_refused(inputs: Any, words: str) -> None:
    assert words in refused(tensors, {"inputs": inputs}, MATRIX)


def test_fault_04_all_inputs_have_the_same_number_of_rows() -> None:
    message = refused(tensors, {"inputs": {"a": [1], "b": [[2, 3], [4, 5]]}}, TWO)
    assert "same number of rows" in message


def test_fault_04_several_inputs_have_names() -> None:
    assert "instances is a plain list, but expecting list of objects" in refused(tensors, {"instances": [1]}, TWO)
    assert "inputs is a plain value/list, but expecting an object" in refused(tensors, {"inputs": [1]}, TWO)
    assert "keys must be equal to: a,b" in refused(tensors, {"instances": [{"a": 1}]}, TWO)
    message = refused(tensors, {"instances": [{"a": 1, "b": [1, 2]}, {"a": [1], "b": [1, 2]}]}, TWO)
    assert message.startswith("Failed to process element: 1 key: a of 'instances' list. Error: ")


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        *((1, "bool"), (0.0, "bool"), ("true", "bool"), (True, "int32"), (False, "float32"), (1.0, "int32")),
        *((300, "uint8"), (-1, "uint8"), (256, "uint8"), (128, "int8"), (-129, "int8"), (65536, "uint16")),
        *((1 << 31, "int32"), (-(1 << 31) - 1, "int32"), (-1, "uint32"), (1 << 63, "int64"), (-1, "uint64")),
        *((1 << 64, "uint64"), (10**30, "int64"), (10**400, "int64"), (10**400, "float32"), (10**400, "float64")),
        *((1e39, "float32"), (-3.5e38, "float32"), ((1 << 24) + 1, "float32"), ((1 << 53) + 1, "float64")),
    ],
)
def test_fault_05_numbers_that_the_type_does_not_hold_are_refused(value: Any, dtype: str) -> None:
    message = refused(json_tensor, [value], spec(dtype))
    assert "is not of expected type" in message or "without loss of precision" in message
    assert len(message) < 300
    assert np.dtype(dtype).name.replace("float32", "float").replace("float64", "double") in message


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_the_ends_of_every_integer_type_are_let_in(dtype: str) -> None:
    ends = [int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)]
    found = json_tensor(parse_object(json.dumps({"x": ends}).encode())["x"], spec(dtype))
    assert found.dtype == dtype
    assert found.tolist() == ends


def test_floats_take_integers_and_all_that_is_not_finite() -> None:
    found = json_tensor([1, 0.1, math.nan, math.inf, -math.inf, 1 << 24, -(1 << 24)], spec())
    expected = np.array([1, 0.1, np.nan, np.inf, -np.inf, 2**24, -(2**24)], "float32")
    np.testing.assert_array_equal(found, expected, strict=True)
    assert json_tensor([True, False], spec("bool")).tolist() == [True, False]


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "complex64"])
def test_types_without_json_numbers_are_not_implemented(dtype: Any) -> None:
    with pytest.raises(Refusal, match="Conversion of JSON Value: 1 to type: ") as caught:
        json_tensor([1], spec(dtype))
    assert caught.value.code is Code.UNIMPLEMENTED


# --- bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [b"", b"a", b"ab", b"abc", bytes(range(256))])
def test_base64_is_decoded_with_or_without_padding_and_line_ends(value: bytes) -> None:
    text = base64.b64encode(value).decode()
    assert decode_base64({"b64": text}) == value
    assert decode_base64({"b64": text.rstrip("=")}) == value
    assert decode_base64({"b64": base64.encodebytes(value).decode()}) == value


@pytest.mark.parametrize("text", ["!!!!", "YQ==YQ==", "Y", "YWJj\u00e9", "YWJ-", "YW=J", "data:image/png;base64,YQ=="])
def test_fault_07_what_is_not_base64_is_refused(text: str) -> None:
    assert "Unable to base64 decode" in refused(decode_base64, {"b64": text})


def test_fault_07_other_objects_are_no_bytes() -> None:
    strings = signature(x=spec(object, (None,)))
    for value in ({"b64": 1}, {"b64": None}, {"b64": "YQ==", "a": 1}, {"b65": "YQ=="}):
        refused(tensors, {"instances": [value]}, strings)
        refused(tensors, {"instances": ["a", value]}, strings)
        refused(tensors, {"instances": [{"x": value}, {"x": value}]}, strings)
        refused(tensors, {"inputs": [value]}, strings)
        refused(tensors, {"instances": [value]}, PIXELS)
    assert "not formatted correctly for base64 data" in refused(tensors, {"inputs": [{"b64": 1}]}, strings)


def test_strings_are_bytes() -> None:
    strings = signature(x=spec(object, (None,)))
    for found in (
        tensors({"instances": ["a", {"b64": "/w=="}, "\u00e9"]}, strings),
        tensors({"instances": [{"x": "a"}, {"x": {"b64": "/w=="}}, {"x": "\u00e9"}]}, strings),
        tensors({"inputs": ["a", {"b64": "/w=="}, "\u00e9"]}, strings),
    ):
        assert found["x"].dtype == object
        assert found["x"].tolist() == [b"a", b"\xff", "\u00e9".encode()]
    grid = tensors({"inputs": [["a", "b"], ["c", {"b64": ""}]]}, signature(x=spec(object, (None, 2))))
    assert grid["x"].tolist() == [[b"a", b"b"], [b"c", b""]]
    assert tensors({"inputs": {"b64": "YQ=="}}, signature(x=spec(object, ())))["x"].tolist() == b"a"
    assert "Type: Number is not of expected type: string" in refused(tensors, {"instances": [1]}, strings)


def test_encoded_pictures_are_let_in_where_pixels_are_expected() -> None:
    for document in (
        {"instances": [{"b64": "YQ=="}, {"b64": "Yg=="}]},
        {"instances": [{"image": {"b64": "YQ=="}}, {"image": {"b64": "Yg=="}}]},
        {"inputs": [{"b64": "YQ=="}, {"b64": "Yg=="}]},
        {"inputs": {"image": [{"b64": "YQ=="}, {"b64": "Yg=="}]}},
    ):
        assert tensors(document, PIXELS)["image"].tolist() == [b"a", b"b"]
    pixels = [[[[1, 2, 3], [4, 5, 6]]]]
    np.testing.assert_array_equal(
        tensors({"instances": pixels}, PIXELS)["image"], np.array(pixels, "uint8"), strict=True
    )
    assert "Expecting shape [-1]" in refused(tensors, {"inputs": {"b64": "YQ=="}}, PIXELS)
    assert "is not of expected type: uint8" in refused(tensors, {"instances": ["YQ=="]}, PIXELS)
    refused(tensors, {"instances": [{"b64": "YQ=="}, pixels[0]]}, PIXELS)


# --- answers ----------------------------------------------------------------------------------------------------------


def test_floats_have_the_shortest_text_and_whole_numbers_a_point() -> None:
    values = np.array([0.1, 1, 2.5, 1e20, 1e-7, 1 / 3, -0.0, 16777216], "float32")
    assert predictions_json({"y": values}) == b'{"predictions":[0.1,1.0,2.5,1e+20,1e-7,0.33333334,-0.0,16777216.0]}'
    assert predictions_json({"y": values.astype("float64")[2:3]}) == b'{"predictions":[2.5]}'


def test_every_float_reads_back_as_the_same_float() -> None:
    bits = np.random.default_rng(0).integers(0, 1 << 32, 2000, "uint32")
    values = bits.view("float32").reshape(20, 100)
    back = np.array(json.loads(outputs_json({"y": values}))["outputs"])
    np.testing.assert_array_equal(back.astype("float32"), values)
    assert not np.isfinite(values).all()
    finite = np.where(np.isfinite(values), values, 0).astype("float32")
    np.testing.assert_array_equal(np.array(json.loads(outputs_json({"y": finite}))["outputs"], "float32"), finite)


def test_fault_06_what_is_not_finite_goes_out_as_tokens() -> None:
    values = np.array([[0.1, np.nan], [np.inf, -np.inf]], "float32")
    assert outputs_json({"y": values}) == b'{"outputs":[[0.1,NaN],[Infinity,-Infinity]]}'
    both = {"y": values, "n": np.array([1, 2])}
    assert predictions_json(both) == (b'{"predictions":[{"y":[0.1,NaN],"n":1},{"y":[Infinity,-Infinity],"n":2}]}')


def test_rows_are_bare_with_one_output_and_objects_with_several() -> None:
    one = {"y": np.array([[1, 2], [3, 4]], "int32")}
    assert json.loads(predictions_json(one)) == {"predictions": [[1, 2], [3, 4]]}
    assert json.loads(outputs_json(one)) == {"outputs": [[1, 2], [3, 4]]}
    two = {**one, "z": np.array([True, False])}
    assert json.loads(predictions_json(two)) == {"predictions": [{"y": [1, 2], "z": True}, {"y": [3, 4], "z": False}]}
    assert json.loads(outputs_json(two)) == {"outputs": {"y": [[1, 2], [3, 4]], "z": [True, False]}}
    assert predictions_json({"y": np.zeros((0, 3))}) == b'{"predictions":[]}'
    assert outputs_json({"y": np.float32(2)[()] + np.zeros((), "float32")}) == b'{"outputs":2.0}'


def test_rows_need_equal_numbers() -> None:
    assert "Tensor name: z has inconsistent batch size: 3 expecting: 2" in refused(
        predictions_json, {"y": np.zeros(2), "z": np.zeros(3)}
    )
    assert "Tensor name: y has no shape information" in refused(predictions_json, {"y": np.zeros(())})


def test_other_layouts_and_types_are_written() -> None:
    turned = np.arange(6, dtype="float32").reshape(2, 3).T
    assert json.loads(outputs_json({"y": turned})) == {"outputs": turned.tolist()}
    assert outputs_json({"y": np.array([0.5, 1], ml_dtypes.bfloat16)}) == b'{"outputs":[0.5,1.0]}'
    assert outputs_json({"y": np.array([0.5, np.nan], ml_dtypes.bfloat16)}) == b'{"outputs":[0.5,NaN]}'
    assert json.loads(outputs_json({"y": np.array([1 << 63], "uint64")})) == {"outputs": [1 << 63]}
    with pytest.raises(Refusal, match="Failed to write JSON value for tensor type: complex64"):
        outputs_json({"y": np.zeros(2, "complex64")})


def test_bytes_are_text_unless_the_name_says_otherwise() -> None:
    values = np.array([b"caf\xc3\xa9", b"b"], object)
    assert json.loads(predictions_json({"name": values})) == {"predictions": ["caf\u00e9", "b"]}
    assert json.loads(predictions_json({"image_bytes": values})) == {
        "predictions": [{"b64": "Y2Fmw6k="}, {"b64": "Yg=="}]
    }
    assert json.loads(predictions_json({"name": np.array([b"\xff"], object)})) == {"predictions": [{"b64": "/w=="}]}


# --- examples ---------------------------------------------------------------------------------------------------------


def test_examples_are_tensorflows() -> None:
    import tensorflow as tf

    document = {
        "context": {"place": "here", "size": [1]},
        "examples": [
            {"a": [1.5, 2.0], "b": {"b64": "/w=="}, "size": 3},
            {"a": NAN, "b": ["x", "y"], "c": [True], "d": []},
        ],
    }
    examples = read_examples(document)
    parsed = [tf.train.Example.FromString(data).features.feature for data in serialized(examples)]
    assert parsed[0]["a"].float_list.value[:] == [1.5, 2.0]
    assert parsed[0]["b"].bytes_list.value[:] == [b"\xff"]
    assert [features["size"].int64_list.value[:] for features in parsed] == [[3], [1]]
    assert [features["place"].bytes_list.value[:] for features in parsed] == [[b"here"]] * 2
    assert math.isnan(parsed[1]["a"].float_list.value[0])
    assert parsed[1]["c"].int64_list.value[:] == [1]
    assert parsed[1]["d"].WhichOneof("kind") is None


NAN = math.nan


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "key 'examples' is expected and was not found"),
        ({"examples": {}}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
        ({"examples": [1]}, "Example must be JSON object but got JSON Number"),
        ({"examples": [{}], "context": []}, "Example must be JSON object but got JSON Array"),
        ({"examples": [{"a": None}]}, "Feature: a has element with unexpected JSON type: Null"),
        ({"examples": [{"a": [[1]]}]}, "Feature: a has element with unexpected JSON type: Array"),
        ({"examples": [{"a": {"b": 1}}]}, "not formatted correctly for base64 data"),
        ({"examples": [{"a": [1, 1.5]}]}, "Unexpected element type in feature: a expecting type: int64"),
        ({"examples": [{"a": [1 << 63]}]}, "Only int64 is supported."),
        ({"examples": [{"a": 1e39}]}, "to float without loss of precision"),
    ],
)
def test_other_examples_are_refused(document: Any, words: str) -> None:
    assert words in refused(read_examples, document)


def test_an_example_is_one_picture() -> None:
    examples = read_examples({"examples": [{"image": {"b64": "YQ=="}, "n": 1}, {"image_bytes": [{"b64": "Yg=="}]}]})
    assert pictures(examples).tolist() == [b"a", b"b"]
    for example in (
        {},
        {"n": 1},
        {"image": []},
        {"image": 5},
        {"image": ["a", "b"]},
        {"image": "a", "image_bytes": "b"},
    ):
        assert "Example 0 needs one encoded picture" in refused(pictures, read_examples({"examples": [example]}))


def test_scores_are_sorted_and_equal_ones_stay_in_order() -> None:
    scores = np.array([[0.1, 0.6, 0.1], [0.5, 0.25, 0.25]], "float32")
    assert scores_json(["a", "b", "c"], scores) == (
        b'{"results":[[["b",0.6],["a",0.1],["c",0.1]],[["a",0.5],["b",0.25],["c",0.25]]]}'
    )
    assert b'["",0.6]' in scores_json(["a"], scores)
    assert scores_json(["a", "b"], np.array([[np.nan, 1]], "float32")) == b'{"results":[[["b",1.0],["a",NaN]]]}'


def test_a_models_own_classifications_keep_its_order() -> None:
    outputs = {"classes": np.array([[b"a", b"b"]], object), "scores": np.array([[0.25, 0.75]], "float32")}
    assert classifications_json(outputs, 1) == b'{"results":[[["a",0.25],["b",0.75]]]}'
    assert classifications_json({"scores": outputs["scores"]}, 1) == b'{"results":[[["",0.25],["",0.75]]]}'
    assert classifications_json({"classes": outputs["classes"]}, 1) == b'{"results":[[["a",0.0],["b",0.0]]]}'
    for bad in ({}, {"scores": np.zeros(2, "float32")}, {"scores": np.zeros((3, 2), "float32")}):
        refused(classifications_json, bad, 1)


def test_regressions_are_one_number_each() -> None:
    for shape in ((2,), (2, 1)):
        outputs = {"outputs": np.array([0.1, 2], "float32").reshape(shape)}
        assert regressions_json(outputs, 2) == b'{"results":[0.1,2.0]}'
    for bad in ({}, {"outputs": np.zeros((2, 2), "float32")}, {"outputs": np.zeros(3, "float32")}):
        refused(regressions_json, bad, 2)
