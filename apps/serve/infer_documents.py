"""The infer request of the Open Inference Protocol as arrays, and its answer, as JSON with or without raw tensors.

Source: https://github.com/kserve/open-inference-protocol and Triton's extensions for binary data and classification.
"""

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from apps.serve.binary_tensors import DATATYPES, datatype_of, objects, read_tensor, write_tensor
from apps.serve.errors import invalid
from apps.serve.input_checks import check_names, check_tensor
from apps.serve.json_text import dump_json, parse_json
from apps.serve.servable import Servable
from apps.serve.signature import TensorSpec

MOST_SIDES = 32  # of an input whose rank the signature leaves open
JSON_TYPES: dict[str, set[type]] = {
    "b": {bool},
    "i": {int},
    "u": {int},
    "f": {int, float},
    "V": {int, float},
    "O": {str, dict},
}


@dataclass(frozen=True)
class Wanted:
    """An output that is asked for: binary or as JSON, the tensor itself (`best` 0) or its best classes."""

    name: str
    binary: bool = False
    best: int = 0


@dataclass(frozen=True)
class InferRequest:
    """What a client asks; `seconds` is how long it may wait in the queue."""

    signature: str
    inputs: Mapping[str, np.ndarray]
    wanted: Sequence[Wanted]
    id: str | None = None
    seconds: float = math.inf


def read_infer(servable: Servable, body: bytes, header_length: int | None) -> InferRequest:
    """A request of JSON, or of JSON of `header_length` bytes and raw tensors behind it; blocks.

    Raises:
        Refusal: INVALID_ARGUMENT for whatever does not fit the protocol or the signature.
    """
    if header_length is not None and header_length > len(body):
        raise invalid(f"Inference-Header-Content-Length says {header_length} bytes, but the body has only {len(body)}.")
    document = parse_json(body if header_length is None else body[:header_length])
    if not isinstance(document, dict):
        raise invalid("The request must be a JSON object with 'inputs'.")
    parameters = _parameters(document, "The request")
    signature = servable.signature(_parameter(parameters, "signature_name", str, None))
    entries = _entries(document, "inputs")
    if not entries:
        raise invalid("The request has no 'inputs'.")
    check_names(signature, [entry["name"] for entry in entries])
    raw, place = memoryview(body), len(body) if header_length is None else header_length
    inputs = {}
    for entry in entries:
        size = _binary_size(entry)
        inputs[entry["name"]] = _read_input(signature.inputs[entry["name"]], entry, size, raw[place:])
        place += size or 0
    if place != len(body):
        raise invalid(f"The body has {len(body) - place} bytes more than its inputs need.")
    identity = document.get("id")
    if identity is not None and not isinstance(identity, str):
        raise invalid("'id' must be a string.")
    timeout = _parameter(parameters, "timeout", int, 0)  # microseconds in the queue, as Triton's clients send it
    return InferRequest(
        signature.name,
        inputs,
        _wanted(_entries(document, "outputs"), list(signature.outputs), parameters),
        identity,
        timeout / 1e6 if timeout > 0 else math.inf,
    )


def read_raw(servable: Servable, body: bytes, picture: bool = False) -> InferRequest:
    """A request whose body is nothing but its one tensor: an encoded picture, or numbers with at most one free side.

    Args:
        servable: What is asked.
        body: The encoded picture as its file holds it, the one element of BYTES, or little-endian numbers.
        picture: Whether the client says that it is a picture.

    Raises:
        Refusal: INVALID_ARGUMENT.
    """
    signature = servable.signature(None)
    wanted = [Wanted(name) for name in signature.outputs]
    if len(signature.inputs) != 1:
        raise invalid(f"Only a model with one input takes a raw body. It has: {sorted(signature.inputs)}.")
    ((name, spec),) = signature.inputs.items()
    if not body:
        raise invalid("The body is empty.")
    if spec.is_pictures or spec.is_bytes:
        shape = tuple(side or 1 for side in spec.shape or (1,)) if spec.is_bytes else (1,)
        if math.prod(shape) != 1:
            raise invalid(f"Input '{name}' takes more than one element: a raw body holds one.")
        return InferRequest(signature.name, {name: objects([body]).reshape(shape)}, wanted)
    if picture:
        raise invalid(f"Model '{servable.name}' takes no encoded pictures, but {datatype_of(spec.dtype)}.")
    if spec.shape is None or spec.shape.count(None) > 1:
        raise invalid(f"The shape of input '{name}' does not follow from a raw body: send it with JSON.")
    known = math.prod(side for side in spec.shape if side is not None) * spec.dtype.itemsize
    shape = tuple(len(body) // max(known, 1) if side is None else side for side in spec.shape)
    return InferRequest(signature.name, {name: read_tensor(name, spec.dtype, shape, memoryview(body))}, wanted)


def write_infer(
    servable: Servable, request: InferRequest, outputs: Mapping[str, np.ndarray]
) -> tuple[bytes, int | None]:
    """The answer's body, and how many bytes of it are JSON where raw tensors follow; blocks.

    Raises:
        Refusal: INVALID_ARGUMENT where an output cannot be written in the way it was asked for.
    """
    entries, raw = [], []
    for wanted in request.wanted:
        array = outputs[wanted.name]
        if wanted.best:
            array = _best(wanted, array, servable.classes.get(wanted.name, ()))
        entry: dict[str, Any] = {
            "name": wanted.name,
            "datatype": datatype_of(array.dtype),
            "shape": list(array.shape),
        }
        if wanted.binary:
            raw.append(write_tensor(array))
            entry["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            entry["data"] = _texts(wanted.name, array) if array.dtype.kind == "O" else array.ravel()
        entries.append(entry)
    answer: dict[str, Any] = {"model_name": servable.name, "model_version": str(servable.version)}
    if request.id is not None:
        answer["id"] = request.id
    header = dump_json({**answer, "outputs": entries})
    return b"".join([header, *raw]), len(header) if raw else None


def _parameters(entry: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    parameters = entry.get("parameters", {})
    if not isinstance(parameters, dict):
        raise invalid(f"{what} must have an object as 'parameters'.")
    if any(name.startswith("shared_memory") for name in parameters):
        raise invalid("There is no shared memory here: send the tensors themselves.")
    return parameters


def _parameter(parameters: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    value = parameters.get(name, default)
    if value is not default and type(value) is not kind:
        raise invalid(f"Parameter '{name}' must be of type {kind.__name__}.")
    return value


def _entries(document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The inputs or outputs, each with a name of its own."""
    entries = document.get(key, [])
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in entries
    ):
        raise invalid(f"'{key}' must be a list of objects, each with a string as 'name'.")
    names = [entry["name"] for entry in entries]
    if len(set(names)) < len(names):
        raise invalid(f"A name is given twice in '{key}'.")
    return entries


def _binary_size(entry: Mapping[str, Any]) -> int | None:
    size = _parameter(_parameters(entry, f"Input '{entry['name']}'"), "binary_data_size", int, None)
    if size is not None and size < 0:
        raise invalid(f"Input '{entry['name']}' has a negative 'binary_data_size'.")
    return size


def _read_input(spec: TensorSpec, entry: Mapping[str, Any], size: int | None, raw: memoryview) -> np.ndarray:
    name, datatype, sides = entry["name"], entry.get("datatype"), entry.get("shape")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise invalid(f"Input '{name}' must have one of these as 'datatype': {', '.join(DATATYPES)}.")
    if not isinstance(sides, list) or len(sides) > MOST_SIDES or not all(type(side) is int for side in sides):
        raise invalid(f"Input '{name}' must have a list of at most {MOST_SIDES} whole numbers as 'shape'.")
    if any(side < 0 for side in sides):
        raise invalid(f"Input '{name}' has a negative side in its 'shape': {sides}.")
    dtype, shape = DATATYPES[datatype], tuple(sides)
    check_tensor(spec, dtype, shape, datatype_of)
    if (size is None) == ("data" not in entry):
        raise invalid(f"Input '{name}' needs either 'data' or the parameter 'binary_data_size'.")
    if size is None:
        array = _from_json(name, dtype, shape, entry["data"])
    elif size > len(raw):
        raise invalid(f"Input '{name}' says {size} bytes of binary data. The body has {len(raw)} left.")
    else:
        array = read_tensor(name, dtype, shape, raw[:size])
    return array.reshape(-1) if spec.is_pictures and dtype.kind == "O" else array


def _from_json(name: str, dtype: np.dtype, shape: tuple[int, ...], data: Any) -> np.ndarray:
    values = _flat(name, shape, data)
    allowed = JSON_TYPES[dtype.kind]
    if not set(map(type, values)) <= allowed:
        wrong = next(value for value in values if type(value) not in allowed)
        shown = "an object" if isinstance(wrong, dict) else repr(wrong)[:60]
        raise invalid(f"Input '{name}' of datatype {datatype_of(dtype)} cannot hold {shown}.")
    if dtype.kind == "O":
        return objects([_bytes(name, value) for value in values]).reshape(shape)
    if dtype.kind in "iu" and values:
        limits = np.iinfo(dtype)
        if min(values) < limits.min or max(values) > limits.max:
            raise invalid(f"Input '{name}' of datatype {datatype_of(dtype)} goes from {limits.min} to {limits.max}.")
    if dtype.kind not in "fV":
        return np.array(values, dtype).reshape(shape)
    exact = np.array(values, np.float64)
    with np.errstate(over="ignore"):
        array = exact.astype(dtype).reshape(shape)
    if np.isinf(array).sum() != np.isinf(exact).sum():
        raise invalid(f"Input '{name}' has a number that does not fit {datatype_of(dtype)}.")
    return array


def _flat(name: str, shape: tuple[int, ...], data: Any) -> list[Any]:
    """The elements of data that are flat already, or nested exactly as the shape says."""
    if not isinstance(data, list):
        raise invalid(f"Input '{name}' must have a list as 'data'.")
    count = math.prod(shape)
    if len(data) == count and list not in set(map(type, data)):
        return data
    values = [data]
    for side in shape:
        if not set(map(type, values)) <= {list} or not set(map(len, values)) <= {side}:
            break
        values = list(chain.from_iterable(values))
    if len(values) != count or list in set(map(type, values)):
        raise invalid(
            f"Input '{name}' of shape {list(shape)} must have {count} elements as 'data', flat or nested as the shape "
            "says."
        )
    return values


def _bytes(name: str, value: str | dict[str, Any]) -> bytes:
    """A string as UTF-8, or {"b64": text} decoded."""
    if isinstance(value, str):
        return value.encode()
    try:
        if value.keys() == {"b64"} and isinstance(value["b64"], str):
            return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError):
        pass
    raise invalid(f"Input '{name}' must have strings or {{\"b64\": base64}} as its elements.")


def _wanted(entries: list[dict[str, Any]], names: list[str], parameters: Mapping[str, Any]) -> list[Wanted]:
    binary = _parameter(parameters, "binary_data_output", bool, False)
    if not entries:
        return [Wanted(name, binary) for name in names]
    wanted = []
    for entry in entries:
        if entry["name"] not in names:
            raise invalid(f"There is no output '{entry['name'][:60]}'. There are: {names}.")
        own = _parameters(entry, f"Output '{entry['name']}'")
        best = _parameter(own, "classification", int, 0)
        if best < 1 and "classification" in own:
            raise invalid(f"Output '{entry['name']}': 'classification' must be 1 or more. Received: {best}.")
        wanted.append(Wanted(entry["name"], _parameter(own, "binary_data", bool, binary), best))
    return wanted


def _best(wanted: Wanted, array: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """For every row its largest values as "value:index" or "value:index:label", the largest first; [N, best]."""
    if array.ndim == 0 or array.dtype.kind not in "biufV":
        raise invalid(f"Output '{wanted.name}' has no classes: it must be rows of numbers.")
    rows = array.reshape(len(array), math.prod(array.shape[1:])).astype(np.float64)
    order = np.argsort(-rows, axis=1, kind="stable")[:, : wanted.best]
    texts = [
        f"{row[index]:f}:{index}" + (f":{classes[index]}" if index < len(classes) else "")
        for row, indices in zip(rows, order, strict=True)
        for index in indices
    ]
    return objects([text.encode() for text in texts]).reshape(order.shape)


def _texts(name: str, array: np.ndarray) -> list[str]:
    try:
        return [element.decode() for element in array.flat]
    except UnicodeDecodeError:
        raise invalid(f"Output '{name}' is not UTF-8: ask for it with the parameter \"binary_data\": true.") from None
