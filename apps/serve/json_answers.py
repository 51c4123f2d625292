"""From tensors to the JSON of TensorFlow Serving's REST interface."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from apps.serve.errors import Code, Refusal, invalid
from apps.serve.json_text import dump_json


def predictions_json(outputs: Mapping[str, np.ndarray]) -> bytes:
    """`{"predictions": [...]}`: one value for each row, an object by name where there are several outputs.

    Raises:
        Refusal: INVALID_ARGUMENT for outputs without rows, or with different numbers of them; UNIMPLEMENTED for a dtype
            that JSON has no numbers for.

    >>> predictions_json({"y": np.array([0.1, 2, np.inf], "float32")})
    b'{"predictions":[0.1,2.0,Infinity]}'
    """
    rows = -1
    for name, array in outputs.items():
        if not array.ndim:
            raise invalid(f"Tensor name: {name} has no shape information")
        if rows >= 0 and len(array) != rows:
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {rows}")
        rows = len(array)
    columns = {name: _writable(name, array) for name, array in outputs.items()}
    if len(columns) == 1:
        return dump_json({"predictions": next(iter(columns.values()))})
    return dump_json({"predictions": [{name: values[row] for name, values in columns.items()} for row in range(rows)]})


def outputs_json(outputs: Mapping[str, np.ndarray]) -> bytes:
    """`{"outputs": ...}`: a tensor, or an object of tensors by name where there are several.

    Raises:
        Refusal: UNIMPLEMENTED for a dtype that JSON has no numbers for.
    """
    columns = {name: _writable(name, array) for name, array in outputs.items()}
    return dump_json({"outputs": next(iter(columns.values())) if len(columns) == 1 else columns})


def _writable(name: str, array: np.ndarray) -> Any:
    """What `dump_json` can write."""
    if array.dtype.kind in "OSU":
        return _strings(array.tolist(), as_base64=name.endswith("_bytes"))
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise Refusal(Code.UNIMPLEMENTED, f"Failed to write JSON value for tensor type: {array.dtype.name}")
    return np.ascontiguousarray(array) if array.ndim else array[()]


def _strings(value: Any, as_base64: bool) -> Any:
    if isinstance(value, list):
        return [_strings(part, as_base64) for part in value]
    data = value.encode() if isinstance(value, str) else value
    if not as_base64:
        try:
            return data.decode()
        except UnicodeDecodeError:
            pass  # JSON has no other way to carry it
    return {"b64": base64.b64encode(data).decode()}
