"""The examples of classify and regress requests, and the answers, by the rules of TensorFlow Serving.

An example has features by name, each a list of numbers or of byte strings. What TensorFlow Serving asks of a model for
this, a signature that takes serialized `tf.train.Example`, is served as it does; the exports of this toolkit have none,
and are asked through `serving_bytes`: an example is then one encoded picture, `image_bytes` or `image`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from apps.serve.errors import Code, Refusal, invalid
from apps.serve.json_tensors import JSON_NAMES, decode_base64, signature_name
from apps.serve.json_text import dump_json, parse_json
from apps.serve.servable import BYTES, Servable
from apps.serve.signature import Signature

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
WORDS = {CLASSIFY: "classification", REGRESS: "regression"}
PICTURES = ("image_bytes", "image")  # features that hold an encoded picture

LARGEST = float(np.finfo(np.float32).max)

Example = dict[str, list[Any]]


def read_examples(document: Mapping[str, Any]) -> list[Example]:
    """The examples of a request, each with the features of "context" that it has not itself.

    Values are bytes (of strings and `{"b64": ...}`), ints (also of booleans) or floats, one kind for each feature.

    Raises:
        Refusal: INVALID_ARGUMENT.

    >>> read_examples({"context": {"size": 2}, "examples": [{"age": [1.5]}, {"age": 2.0, "size": 3}]})
    [{'size': [2], 'age': [1.5]}, {'size': [3], 'age': [2.0]}]
    """
    context = _features(document["context"]) if "context" in document else {}
    if "examples" not in document:
        raise invalid("When method is classify, key 'examples' is expected and was not found")
    examples = document["examples"]
    if not isinstance(examples, list):
        raise invalid("Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid("'examples' value is an empty array")
    return [{**context, **_features(example)} for example in examples]


def _features(example: Any) -> Example:
    if not isinstance(example, dict):
        raise invalid(f"Example must be JSON object but got JSON {JSON_NAMES[type(example)]}")
    features: Example = {}
    for name, content in example.items():
        values = [_feature_value(name, value) for value in (content if isinstance(content, list) else [content])]
        if len(set(map(type, values))) > 1:
            kinds = {bytes: "bytes", int: "int64", float: "float"}
            raise invalid(
                f"Unexpected element type in feature: {name} expecting type: {kinds[type(values[0])]} of all elements"
            )
        features[name] = values
    return features


def _feature_value(name: str, value: Any) -> bytes | int | float:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict):
        return decode_base64(value)
    if isinstance(value, float):
        if LARGEST < abs(value) < math.inf:
            raise invalid(f"Cannot convert JSON value: {value} to float without loss of precision.")
        return value
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
        return int(value)
    raise invalid(f"Feature: {name} has element with unexpected JSON type: {JSON_NAMES[type(value)]}")


def serialized(examples: Sequence[Example]) -> np.ndarray:
    """Each as a serialized `tf.train.Example`: an array of bytes [N]."""
    array = np.empty(len(examples), object)
    for index, example in enumerate(examples):
        message = tf.train.Example()
        for name, values in example.items():
            feature = message.features.feature[name]
            if not values:
                continue
            kind = {bytes: feature.bytes_list, int: feature.int64_list, float: feature.float_list}[type(values[0])]
            kind.value.extend(values)
        array[index] = message.SerializeToString()
    return array


def pictures(examples: Sequence[Example]) -> np.ndarray:
    """The encoded picture of each example: an array of bytes [N].

    Raises:
        Refusal: INVALID_ARGUMENT for an example without exactly one.
    """
    array = np.empty(len(examples), object)
    for index, example in enumerate(examples):
        found = [value for name in PICTURES for value in example.get(name, ())]
        if len(found) != 1 or not isinstance(found[0], bytes):
            raise invalid(
                f'Example {index} needs one encoded picture, as the feature "image_bytes" or "image": '
                f'{{"b64": "..."}}. Received the features: {", ".join(example) or "none"}.'
            )
        array[index] = found[0]
    return array


def head_of(servable: Servable, document: Mapping[str, Any]) -> str | None:
    """The head that a classify request asks for by `signature_name`, the first one where it names none.

    None where the model is to be asked through a signature of its own for it: where it has one, or where there are
    neither class names nor encoded pictures.

    Raises:
        Refusal: INVALID_ARGUMENT for a name that neither a head nor a signature has.
    """
    name = signature_name(document)
    heads = list(servable.classes)
    if not heads or BYTES not in servable.signatures:
        return None
    if name in heads:
        return name
    if name and name not in servable.signatures:
        raise invalid(f"No signature was found with the name: {name}; the heads of this model are {', '.join(heads)}.")
    if servable.signature(name).definition.method_name == CLASSIFY:
        return None
    return heads[0]


def signature_for(servable: Servable, document: Mapping[str, Any], method: str) -> Signature:
    """The signature that a request names, which must be made for `method`.

    Raises:
        Refusal: INVALID_ARGUMENT, with TensorFlow Serving's words.
    """
    name = signature_name(document) or "serving_default"
    if name not in servable.signatures:
        raise invalid(f"No signature was found with the name: {name}")
    signature = servable.signatures[name]
    if signature.definition.method_name != method:
        raise invalid(
            f"Expected {WORDS[method]} signature method_name to be {method}. Was: {signature.definition.method_name}"
        )
    if list(signature.inputs) != ["inputs"] or not signature.inputs["inputs"].is_bytes:
        raise invalid(f"Expected one input Tensor, named inputs and of strings. Found: {', '.join(signature.inputs)}")
    return signature


def scores_json(labels: Sequence[str], scores: np.ndarray) -> bytes:
    """`{"results": [[[label, score], ...], ...]}`, the highest score first.

    Args:
        labels: Of the classes; what is missing is "".
        scores: [N, classes].

    >>> scores_json(["cat", "dog"], np.array([[0.25, 0.75]], "float32"))
    b'{"results":[[["dog",0.75],["cat",0.25]]]}'
    """
    named = [*labels, *[""] * (scores.shape[1] - len(labels))]
    order = np.argsort(-scores, axis=1, kind="stable")
    rows = zip(order.tolist(), _lists(np.take_along_axis(scores, order, 1)), strict=True)
    results = [[[named[index], score] for index, score in zip(*row, strict=True)] for row in rows]
    return dump_json({"results": results})


def classifications_json(outputs: Mapping[str, np.ndarray], examples: int) -> bytes:
    """The same of the outputs "classes" (strings) and "scores" of a classification signature, in the model's order.

    Raises:
        Refusal: INVALID_ARGUMENT where it has neither, or they do not fit.
    """
    classes, scores = outputs.get("classes"), outputs.get("scores")
    given = [array for array in (classes, scores) if array is not None]
    if not given:
        raise Refusal(
            Code.FAILED_PRECONDITION,
            'Expected classification signature outputs to contain at least one of "classes" or "scores"',
        )
    if any(array.ndim != 2 or array.shape != given[0].shape or len(array) != examples for array in given):
        shapes = " and ".join(str(list(array.shape)) for array in given)
        raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {shapes}")
    if scores is None:
        scores = np.zeros(given[0].shape, np.float32)
    labels = np.full(scores.shape, b"", object) if classes is None else classes
    rows = zip(labels.tolist(), _lists(scores), strict=True)
    results = [[[label.decode("utf-8", "replace"), score] for label, score in zip(*row, strict=True)] for row in rows]
    return dump_json({"results": results})


def regressions_json(outputs: Mapping[str, np.ndarray], examples: int) -> bytes:
    """`{"results": [value, ...]}` of the output "outputs" of a regression signature.

    Raises:
        Refusal: INVALID_ARGUMENT where there is none, or not one number for each example.
    """
    values = outputs.get("outputs")
    if values is None:
        raise Refusal(Code.FAILED_PRECONDITION, "No regression outputs found in SignatureDef")
    if values.shape not in ((examples,), (examples, 1)) or values.dtype.kind != "f":
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{list(values.shape)} of {values.dtype}"
        )
    return dump_json({"results": values.ravel()})


def _lists(scores: np.ndarray) -> list[list[float]]:
    """Each float32 as the float64 of the same, shortest text."""
    lists: list[list[float]] = parse_json(dump_json(np.ascontiguousarray(scores)))
    return lists
