"""JSON from strangers: what is refused, and what numbers become on the way in and out."""

import json
import math
from typing import Any

import numpy as np
import pytest

from apps.serve.errors import Code, Refusal
from apps.serve.json_text import dump_json, parse_json


def refused(body: bytes) -> str:
    with pytest.raises(Refusal) as caught:
        parse_json(body)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value.message


@pytest.mark.parametrize(
    "body", [b"", b" \n", b"{", b"[1,]", b"{'a': 1}", b"[1] x", b"[1]\x00", b"hello", b"\xff\xd8\xff"]
)
def test_fault_01_what_is_no_json_is_refused(body: bytes) -> None:
    assert refused(body).startswith("JSON Parse error: ")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000,
        b"[NaN," + b"[" * 100_000,
        b"1" * 4301,
        b"[NaN, " + b"1" * 4301 + b"]",
        b"[1e999]",
        b"[NaN, -1e999]",
        b'{"a": 1, "a": 2}',
        b'[[{"b": {"a": 1, "a": 2}}]]',
        b'[1, {"a": 1, "a": 2}]',
        b"\xef\xbb\xbf[1]",
        "[1]".encode("utf-16"),
        "[1]".encode("utf-16-le"),
        "[1]".encode("utf-32"),
        b'["\\ud800"]',
        b'[NaN, "\\ud800"]',
        b'{"\\udc00": 1}',
        b'["\xed\xa0\x80"]',
    ],
    ids=lambda body: body[:12].decode("latin-1"),
)
def test_fault_02_hostile_json_is_refused(body: bytes) -> None:
    refused(body)


@pytest.mark.parametrize(
    "value",
    [
        {"a:": [1, -2.5, None, True, "ü:\u0000"]},
        {"a": {"a": {"a": [{}, {"b": 1}]}}},
        [[[]]],
        [1, {"a": 1}, {"a": 1}],
        "\U0001f600",
        "\\ud800 is a text of six characters",
    ],
)
def test_documents_are_read_as_the_standard_library_reads_them(value: Any) -> None:
    for ascii_only in (False, True):
        assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


def test_numbers_are_the_same_whichever_parser_reads_them() -> None:
    texts = "[0, -1, 1.0, 1e-400, 18446744073709551615, 18446744073709551616, -9223372036854775809, 1e308"
    quick, strict = parse_json(f"{texts}]".encode()), parse_json(f"{texts}, NaN]".encode())[:-1]
    assert quick == strict
    assert [type(value) for value in quick] == [type(value) for value in strict]
    assert type(quick[4]) is int
    assert type(quick[5]) is float


def test_fault_06_tokens_for_numbers_that_are_not_finite_are_read_and_written() -> None:
    values = parse_json(b"[NaN, Infinity, -Infinity, 1]")
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf, 1]
    for written in (values, np.array(values), np.array(values, np.float32), np.array(values, np.float16)):
        assert dump_json({"a": written}).startswith(b'{"a":[NaN,Infinity,-Infinity,1')


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("nan", [False, True])
def test_written_floats_are_read_as_the_same_floats(dtype: str, nan: bool) -> None:
    random = np.random.default_rng(0)
    values = (random.normal(size=1000) * 10.0 ** random.integers(-4, 4, 1000)).astype(dtype)
    values[0] = np.nan if nan else 1 / 3
    again = np.array(parse_json(dump_json([values]))[0], dtype)
    np.testing.assert_array_equal(again, values)


def test_float32_is_written_in_its_own_digits() -> None:
    values = np.array([0.1, 3], np.float32)
    assert dump_json(values) == b"[0.1,3.0]"
    assert dump_json([values, math.nan]) == b"[[0.1,3.0],NaN]"


def test_arrays_of_every_layout_are_written() -> None:
    table = np.arange(6).reshape(2, 3)
    assert dump_json(table.T) == b"[[0,3],[1,4],[2,5]]"
    assert dump_json([np.array(1.5, np.float32), np.zeros((2, 0)), np.array([b"a", "ü".encode()], object)]) == (
        '[1.5,[[],[]],["a","ü"]]'.encode()
    )
