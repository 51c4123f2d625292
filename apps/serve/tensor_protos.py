"""TensorFlow's tensors in protocol buffers, from strangers to arrays and back."""

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from apps.serve.binary_tensors import objects
from apps.serve.errors import Code, Refusal, invalid
from apps.serve.input_checks import check_tensor
from apps.serve.signature import TensorSpec

FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "int8": "int_val",
    "int16": "int_val",
    "int32": "int_val",
    "uint8": "int_val",
    "uint16": "int_val",
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
    "object": "string_val",
}


def read_proto(spec: TensorSpec, proto: tensor_pb2.TensorProto, most_bytes: int) -> np.ndarray:
    """The array of an input; blocks.

    As TensorFlow does, the last of fewer numbers than the shape needs is repeated, but not the last of strings.

    Args:
        spec: The input.
        proto: What the client sends for it.
        most_bytes: That numbers sent in fewer bytes may become.

    Raises:
        Refusal: INVALID_ARGUMENT where it does not fit the signature or itself.
    """
    try:
        kind = tf.dtypes.as_dtype(proto.dtype)
        dtype = np.dtype(kind.as_numpy_dtype)
    except (TypeError, KeyError):
        raise invalid(f"Input '{spec.name}' has no known dtype.") from None
    if dtype.kind == "O" and proto.dtype != types_pb2.DT_STRING:
        raise invalid(f"Input '{spec.name}' cannot be {kind.name}.")
    shape = tuple(side.size for side in proto.tensor_shape.dim)
    if proto.tensor_shape.unknown_rank or any(side < 0 for side in shape):
        raise invalid(f"Input '{spec.name}' must have a shape without sides that are not known.")
    check_tensor(spec, dtype, shape, _spell)
    count = math.prod(shape)
    if dtype.kind == "O":
        if len(proto.string_val) != count:
            raise invalid(f"Input '{spec.name}' needs {count} strings. Received: {len(proto.string_val)}.")
        array = objects(list(proto.string_val))
        return array if spec.is_pictures else array.reshape(shape)
    if count * dtype.itemsize > most_bytes:
        raise invalid(f"Input '{spec.name}' of shape {list(shape)} is larger than {most_bytes} bytes.")
    content = proto.tensor_content
    if content and len(content) != count * dtype.itemsize:
        needed = count * dtype.itemsize
        raise invalid(f"Input '{spec.name}' needs {needed} bytes of tensor_content. Received: {len(content)}.")
    if content:
        return np.frombuffer(content, dtype).reshape(shape)
    try:
        if count and not _values(proto):
            raise invalid(f"Input '{spec.name}' has no values.")
        return tf.make_ndarray(proto)
    except (TypeError, ValueError, OverflowError):
        raise invalid(f"The values of input '{spec.name}' do not fit its dtype and shape.") from None


def write_proto(array: np.ndarray) -> tensor_pb2.TensorProto:
    """An array as TensorFlow Serving writes it: in the field of its dtype, which clients read, not as bytes.

    Raises:
        Refusal: UNIMPLEMENTED for a dtype that has no field, such as complex numbers.
    """
    proto = tensor_pb2.TensorProto(dtype=tf.dtypes.as_dtype(array.dtype).as_datatype_enum)
    for side in array.shape:
        proto.tensor_shape.dim.add(size=side)
    if array.dtype.itemsize == 2 and array.dtype.kind in "fV":
        proto.half_val.extend(array.view(np.uint16).ravel().tolist())
    elif array.dtype.name in FIELDS:
        getattr(proto, FIELDS[array.dtype.name]).extend(array.ravel().tolist())
    else:
        raise Refusal(Code.UNIMPLEMENTED, f"There is no way to send {array.dtype}.")
    return proto


def _values(proto: tensor_pb2.TensorProto) -> int:
    return sum(len(getattr(proto, field)) for field in {*FIELDS.values(), "half_val"})


def _spell(dtype: np.dtype) -> str:
    return tf.dtypes.as_dtype(dtype).name
