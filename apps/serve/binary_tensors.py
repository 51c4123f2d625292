"""Tensors as the Open Inference Protocol writes them into bodies: datatypes, shapes and little-endian bytes.

Source: https://github.com/kserve/open-inference-protocol and Triton's extension for binary tensor data.
"""

import math
import struct
from collections.abc import Iterator
from itertools import islice

import numpy as np
import tensorflow as tf

from apps.serve.errors import Code, Refusal, invalid

DATATYPES = {
    "BOOL": np.dtype(bool),
    **{f"UINT{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    "FP16": np.dtype(np.float16),
    "BF16": np.dtype(tf.bfloat16.as_numpy_dtype),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}
NAMES = {dtype: name for name, dtype in DATATYPES.items()}
LENGTH = struct.Struct("<I")  # in front of every element of BYTES


def datatype_of(dtype: np.dtype) -> str:
    """The protocol's name of a dtype of NumPy.

    >>> datatype_of(np.dtype("float32"))
    'FP32'

    Raises:
        Refusal: UNIMPLEMENTED; the protocol has no complex numbers, for example.
    """
    if dtype not in NAMES:
        raise Refusal(Code.UNIMPLEMENTED, f"The Open Inference Protocol has no datatype for {dtype}.")
    return NAMES[dtype]


def read_tensor(name: str, dtype: np.dtype, shape: tuple[int, ...], data: memoryview) -> np.ndarray:
    """An array of the bytes of one tensor, read-only and without a copy where its place in memory allows that.

    >>> read_tensor("x", np.dtype("int16"), (2,), memoryview(bytes([1, 0, 255, 255])))
    array([ 1, -1], dtype=int16)

    Args:
        name: For the messages.
        dtype: One of `DATATYPES`.
        shape: Sides of any size; nothing is allocated for them before the bytes are known to be there.
        data: Row-major, little-endian; for BYTES every element behind its length as uint32.

    Raises:
        Refusal: INVALID_ARGUMENT where the bytes do not fit the shape.
    """
    count = math.prod(shape)
    if dtype.kind == "O":
        return _elements(name, count, data).reshape(shape)
    if count * dtype.itemsize != len(data):
        raise invalid(
            f"Input '{name}' of shape {list(shape)} and datatype {datatype_of(dtype)} needs {count * dtype.itemsize} "
            f"bytes. Received: {len(data)}."
        )
    if dtype.kind == "b" and np.frombuffer(data, np.uint8).max(initial=0) > 1:
        raise invalid(f"Input '{name}' of datatype BOOL must have bytes 0 and 1.")
    array = np.frombuffer(data, dtype).reshape(shape)
    return array if array.flags.aligned else array.copy()


def write_tensor(array: np.ndarray) -> bytes:
    """The bytes of an array, as `read_tensor` reads them.

    >>> write_tensor(np.array([b"ab", b""], object))
    b'\\x02\\x00\\x00\\x00ab\\x00\\x00\\x00\\x00'
    """
    if array.dtype.kind == "O":
        return b"".join(part for element in array.flat for part in (LENGTH.pack(len(element)), element))
    return array.tobytes()


def objects(values: list[bytes]) -> np.ndarray:
    """A vector of byte strings, which `np.array` alone would not make of strings of one length."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _elements(name: str, count: int, data: memoryview) -> np.ndarray:
    # Every element has a length of 4 bytes at least: so many cannot be there.
    if count * LENGTH.size > len(data):
        raise invalid(f"Input '{name}' needs {count} elements of BYTES. Received: {len(data)} bytes.")
    values = list(islice(_split(name, data), count + 1))
    if len(values) != count:
        received = len(values) if len(values) < count else "more"
        raise invalid(f"Input '{name}' needs {count} elements of BYTES. Received: {received}.")
    return objects(values)


def _split(name: str, data: memoryview) -> Iterator[bytes]:
    place = 0
    while place < len(data):
        start = place + LENGTH.size
        if start > len(data):
            raise invalid(f"Input '{name}' ends inside the length of an element.")
        place = start + LENGTH.unpack_from(data, start - LENGTH.size)[0]
        if place > len(data):
            raise invalid(f"Input '{name}' has an element of {place - start} bytes, which ends behind the buffer.")
        yield bytes(data[start:place])
