"""From JSON to tensors, by the rules of TensorFlow Serving's REST interface.

Source: https://www.tensorflow.org/tfx/serving/api_rest; tensorflow_serving/util/json_tensor.cc for the words.
"""

import binascii
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from apps.serve.errors import Code, Refusal, invalid
from apps.serve.input_checks import check_rows
from apps.serve.json_text import parse_json
from apps.serve.signature import Signature, TensorSpec

MOST_SIDES = 32  # of a tensor; TensorFlow has up to 254, NumPy 64
SHOWN = 200  # characters of a value that an error message repeats
# What TensorFlow calls the types of NumPy.
TYPE_NAMES = {"float32": "float", "float64": "double", "object": "string", "float16": "half"}
JSON_NAMES = {
    dict: "Object",
    list: "Array",
    str: "String",
    int: "Number",
    float: "Number",
    type(None): "Null",
    bool: "True",
}

Tensors = dict[str, np.ndarray]


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a request; what else `parse_json` may find is refused.

    Raises:
        Refusal: INVALID_ARGUMENT.

    >>> parse_object(b'{"instances": [1, NaN]}')
    {'instances': [1, nan]}
    """
    document = parse_json(body)
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {_shown(document)} Is not object")
    return document


def signature_name(document: Mapping[str, Any]) -> str | None:
    """The signature that a request names.

    Raises:
        Refusal: It is no string.
    """
    if "signature_name" not in document:
        return None
    name = document["signature_name"]
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {_shown(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def request_tensors(document: Mapping[str, Any], signature: Signature) -> tuple[Tensors, bool]:
    """The inputs of a predict request, and whether it is in row form.

    In row form ("instances") every element is one example; in column form ("inputs") every value is a whole tensor.
    Where a signature expects pixels, `{"b64": ...}` objects are encoded pictures: the tensor is then an array of bytes
    of rank 1, and `Servable.predict` decodes it.

    Args:
        document: The request.
        signature: What it asks for.

    Raises:
        Refusal: INVALID_ARGUMENT, or UNIMPLEMENTED for a dtype that JSON has no numbers for.
    """
    if "instances" in document and "inputs" in document:
        raise invalid(
            f"JSON Value: {_shown(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' keys"
            " to exist"
        )
    if not signature.inputs:
        raise invalid(f"Failed to get input map for signature: {signature.name}")
    if "instances" in document:
        tensors = _from_rows(document["instances"], signature.inputs)
    elif "inputs" in document:
        tensors = _from_columns(document["inputs"], signature.inputs)
    else:
        raise invalid("Missing 'inputs' or 'instances' key")
    for name, array in tensors.items():
        _check_shape(array, signature.inputs[name])
    check_rows(signature, tensors)
    return tensors, "instances" in document


def _from_rows(rows: Any, inputs: Mapping[str, TensorSpec]) -> Tensors:
    if not isinstance(rows, list):
        raise invalid(f"JSON Value: {_shown(rows)} Excepting 'instances' to be an list/array")
    if not rows:
        raise invalid("No values in 'instances' array")
    if _is_named(rows[0]):
        names = set(inputs)
        for number, row in enumerate(rows):
            if not _is_named(row):
                raise invalid(f"Expecting object but got list at item {number} of input list")
            if row.keys() != names:
                odd = next((f"JSON object: does not have named input: {key} " for key in row if key not in names), "")
                raise invalid(
                    f"Failed to process element: {number} of 'instances' list. {odd}JSON object: {_shown(row)} "
                    f"keys must be equal to: {','.join(inputs)}"
                )
        return {name: _stack([row[name] for row in rows], spec, f" key: {name}") for name, spec in inputs.items()}
    if len(inputs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required: "
            f"{','.join(inputs)}"
        )
    for number, row in enumerate(rows):
        if _is_named(row):
            raise invalid(f"Expecting value/list but got object at item {number} of input list")
    ((name, spec),) = inputs.items()
    return {name: _stack(rows, spec)}


def _stack(rows: Sequence[Any], spec: TensorSpec, where: str = "") -> np.ndarray:
    """One tensor of rows that have equal shapes; an error says which row is the first that is different."""
    try:
        return json_tensor(rows, spec)
    except Refusal as refusal:
        whole = refusal
    first: np.ndarray | None = None
    for number, row in enumerate(rows):
        prefix = f"Failed to process element: {number}{where} of 'instances' list. Error: "
        try:
            array = json_tensor(row, spec)
        except Refusal as refusal:
            raise Refusal(refusal.code, prefix + refusal.message) from None
        first = array if first is None else first
        if array.size != first.size:
            raise invalid(f"{prefix}Expecting tensor size: {first.size} but got: {array.size}")
        if array.shape != first.shape:
            raise invalid(f"{prefix}Expecting shape {_sides(first.shape)} but got: {_sides(array.shape)}")
    raise whole


def _from_columns(value: Any, inputs: Mapping[str, TensorSpec]) -> Tensors:
    if not _is_named(value):
        if len(inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required: "
                f"{','.join(inputs)}"
            )
        ((name, spec),) = inputs.items()
        return {name: json_tensor(value, spec)}
    for name in inputs:
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: json_tensor(value[name], spec) for name, spec in inputs.items()}


def _is_named(value: Any) -> bool:
    """Whether it is an object of inputs by name, not one of encoded bytes."""
    return isinstance(value, dict) and not _is_encoded(value)


def _is_encoded(value: Mapping[str, Any]) -> bool:
    return len(value) == 1 and isinstance(value.get("b64"), str)


def json_tensor(value: Any, spec: TensorSpec) -> np.ndarray:
    """A JSON value as a tensor of the dtype of `spec`; encoded pictures where it expects pixels stay bytes.

    Integers must be JSON integers in the dtype's range; floats take integers too, as far as they are exact; booleans
    are only true and false; nothing is null.

    Raises:
        Refusal: INVALID_ARGUMENT for lists of different lengths, other values and numbers out of range; UNIMPLEMENTED
            for a dtype that JSON has no numbers for.

    >>> json_tensor([[1, 2.5]], TensorSpec("x", np.dtype("float32"), (None, 2)))
    array([[1. , 2.5]], dtype=float32)
    """
    shape: list[int] = []
    level: Sequence[Any] = [value]
    while level and isinstance(level[0], list):
        sizes = {len(part) if type(part) is list else -1 for part in level}
        if len(sizes) > 1:
            raise _ragged(level, len(shape))
        if len(shape) == MOST_SIDES:
            raise invalid(f"Encountered list at unexpected level: {MOST_SIDES} expected < {MOST_SIDES}")
        shape.append(sizes.pop())
        level = list(chain.from_iterable(level))
    kinds = set(map(type, level))
    if list in kinds:
        raise invalid(f"Encountered list at unexpected level: {len(shape)} expected < {len(shape)}")
    if spec.is_bytes or (dict in kinds and spec.is_pictures):
        return _byte_array(level, spec, shape)
    return _numbers(level, kinds, spec).reshape(shape)


def _ragged(level: Sequence[Any], depth: int) -> Refusal:
    expected = len(level[0])
    for part in level:
        if not isinstance(part, list):
            return invalid(
                f"JSON Value: {_shown(part)} found at incorrect level: {depth + 1} in the JSON DOM. "
                f"Expected at level: {depth + 2}"
            )
        if len(part) != expected:
            return invalid(
                f"Encountered list at unexpected size: {len(part)} at level: {depth} expected size: {expected}"
            )
    raise ValueError("These lists have equal lengths.")


def _numbers(values: Sequence[Any], kinds: set[type], spec: TensorSpec) -> np.ndarray:
    kind = spec.dtype.kind
    allowed: set[type]
    if kind == "f" and spec.dtype.itemsize >= 4:
        allowed = {int, float}
    elif kind in "iu":
        allowed = {int}
    elif kind == "b":
        allowed = {bool}
    else:
        shown = _shown(values[0]) if values else ""
        raise Refusal(Code.UNIMPLEMENTED, f"Conversion of JSON Value: {shown} to type: {_type(spec)}")
    if not kinds <= allowed:
        raise _wrong_type(next(value for value in values if type(value) not in allowed), spec)
    try:
        # A number that a float32 cannot hold becomes infinite, which is looked at below.
        with np.errstate(over="ignore"):
            array = np.array(values, spec.dtype)
    except OverflowError:
        raise _out_of_range(values, spec) from None
    if kind == "f" and (not np.isfinite(array).all() or (int in kinds and _rounds(array))):
        _check_floats(values, spec)
    return array


def _rounds(array: np.ndarray) -> bool:
    """Whether there may be an integer that floats of this dtype round."""
    return bool((np.abs(array) >= 2 ** (np.finfo(array.dtype).nmant + 1)).any())


def _check_floats(values: Iterable[Any], spec: TensorSpec) -> None:
    info = np.finfo(spec.dtype)
    exact, most = 2 ** (info.nmant + 1), float(info.max)
    for value in values:
        if abs(value) > exact if type(value) is int else most < abs(value) < math.inf:
            raise invalid(f"Cannot convert JSON value: {_shown(value)} to {_type(spec)} without loss of precision.")


def _out_of_range(values: Iterable[Any], spec: TensorSpec) -> Refusal:
    if spec.dtype.kind == "f":
        largest = max(values, key=abs)
        return invalid(f"Cannot convert JSON value: {_shown(largest)} to {_type(spec)} without loss of precision.")
    low, high = int(np.iinfo(spec.dtype).min), int(np.iinfo(spec.dtype).max)
    value = next(value for value in values if not low <= value <= high)
    return invalid(
        f"JSON Value: {_shown(value)} Type: Number is not of expected type: {_type(spec)}, which holds {low} to {high}"
    )


def _byte_array(values: Sequence[Any], spec: TensorSpec, shape: Sequence[int]) -> np.ndarray:
    """An array of bytes; plain strings are let in where strings are expected, not where pixels are."""
    array = np.empty(len(values), object)
    for index, value in enumerate(values):
        if type(value) is str and spec.is_bytes:
            array[index] = value.encode()
        elif type(value) is dict:
            array[index] = decode_base64(value)
        else:
            raise _wrong_type(value, spec)
    return array.reshape(shape)


def decode_base64(value: Mapping[str, Any]) -> bytes:
    """The bytes of `{"b64": "..."}`; white space is passed over, and the padding may be left out.

    Raises:
        Refusal: INVALID_ARGUMENT for another object, or text that is not base64.

    >>> decode_base64({"b64": "aGk="})
    b'hi'
    """
    if not _is_encoded(value):
        raise invalid(f"JSON Value: {_shown(value)} not formatted correctly for base64 data")
    text = value["b64"]
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # binascii.Error is one
        pass
    text = "".join(text.split()).rstrip("=")
    try:
        return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError as error:
        raise invalid(f"Unable to base64 decode: {error}") from None


def _check_shape(array: np.ndarray, spec: TensorSpec) -> None:
    expected = (None,) if spec.is_pictures and array.dtype == object else spec.shape
    if expected is None:
        return
    if len(expected) != array.ndim or any(
        side is not None and side != received for side, received in zip(expected, array.shape, strict=True)
    ):
        raise invalid(
            f"Expecting shape {_sides(expected)} for input {spec.name} but got: {_sides(array.shape)} (-1: any length)"
        )


def _wrong_type(value: Any, spec: TensorSpec) -> Refusal:
    kind = "False" if value is False else JSON_NAMES[type(value)]
    return invalid(f"JSON Value: {_shown(value)} Type: {kind} is not of expected type: {_type(spec)}")


def _type(spec: TensorSpec) -> str:
    return TYPE_NAMES.get(spec.dtype.name, spec.dtype.name)


def _sides(shape: Sequence[int | None]) -> str:
    return f"[{','.join('-1' if side is None else str(side) for side in shape)}]"


def _shown(value: Any) -> str:
    """A value's JSON, cut where it is long."""
    if isinstance(value, (dict, list)):
        value = _cut(value)
    elif isinstance(value, str):
        value = value[:SHOWN]
    elif isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 512:
        return "an integer of more than 150 digits"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _cut(value: Any, depth: int = 3) -> Any:
    """Its beginning, so that showing a large value costs nothing."""
    if isinstance(value, dict) and depth:
        return {key[:SHOWN]: _cut(part, depth - 1) for key, part in list(value.items())[:8]}
    if isinstance(value, list) and depth:
        return [_cut(part, depth - 1) for part in value[:8]]
    if isinstance(value, str):
        return value[:SHOWN]
    if isinstance(value, (dict, list)):
        return "..."
    return value
