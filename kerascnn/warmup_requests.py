"""TensorFlow Serving's warm-up file: recorded requests with their answers, which a server computes before it serves.

The file is a TFRecord of `PredictionLog` messages. Their classes belong to `tensorflow-serving-api`; what is needed of
them are five nested messages, which are written here field by field.

Source: https://www.tensorflow.org/tfx/serving/saved_model_warmup; field numbers: tensorflow_serving/apis/
prediction_log.proto, predict.proto and model.proto; encoding: https://protobuf.dev/programming-guides/encoding/
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

WARMUP = "assets.extra/tf_serving_warmup_requests"
MOST_RECORDS = 1000  # TensorFlow Serving refuses a model that has more

# Numbers of the fields.
PREDICT_LOG = 6  # of PredictionLog
REQUEST, RESPONSE = 1, 2  # of PredictLog
MODEL_SPEC, INPUTS = 1, 2  # of PredictRequest
OUTPUTS, ANSWERING_SPEC = 1, 2  # of PredictResponse
SIGNATURE_NAME = 3  # of ModelSpec
KEY, VALUE = 1, 2  # of an entry of a map


class Call(NamedTuple):
    """One call of a signature: what it is given and what it answers, arrays by name (strings: of dtype object)."""

    signature: str
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]


def write_warmup(saved_model: os.PathLike[str] | str, calls: Iterable[Call]) -> None:
    """Write the calls into the SavedModel's `assets.extra/tf_serving_warmup_requests`.

    Raises:
        ValueError: There are more than TensorFlow Serving takes.
    """
    records = [prediction_log(call) for call in calls]
    if len(records) > MOST_RECORDS:
        raise ValueError(f"TensorFlow Serving takes at most {MOST_RECORDS} warm-up records. Received: {len(records)}.")
    path = Path(saved_model, WARMUP)
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for record in records:
            writer.write(record)


def prediction_log(call: Call) -> bytes:
    """A serialised `PredictionLog` of a `PredictRequest` and its `PredictResponse`, without the name of a model.

    >>> prediction_log(Call("f", {}, {}))
    b'2\\x0e\\n\\x05\\n\\x03\\x1a\\x01f\\x12\\x05\\x12\\x03\\x1a\\x01f'
    """
    spec = field(SIGNATURE_NAME, call.signature.encode())
    request = field(MODEL_SPEC, spec) + tensors(INPUTS, call.inputs)
    response = tensors(OUTPUTS, call.outputs) + field(ANSWERING_SPEC, spec)
    return field(PREDICT_LOG, field(REQUEST, request) + field(RESPONSE, response))


def tensors(number: int, values: Mapping[str, np.ndarray]) -> bytes:
    """A field `map<string, TensorProto>`."""
    entries = [
        field(KEY, name.encode()) + field(VALUE, tf.make_tensor_proto(value).SerializeToString())
        for name, value in values.items()
    ]
    return b"".join(field(number, entry) for entry in entries)


def field(number: int, content: bytes) -> bytes:
    """A field of a message whose value has a length: text, bytes or another message.

    >>> field(2, b"testing")
    b'\\x12\\x07testing'
    """
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """A whole number, 0 or more, seven bits a byte, the lowest first.

    >>> varint(150)
    b'\\x96\\x01'
    """
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
