"""Classify and regress requests of gRPC: their examples, and the answers, by the rules of json_examples.py."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from apps.serve.binary_tensors import objects
from apps.serve.errors import Code, Refusal, invalid
from apps.serve.json_examples import CLASSIFY, REGRESS, head_of, pictures, signature_for
from apps.serve.servable import BYTES, Servable

Question = tuple[str, dict[str, np.ndarray], str | None]


def read_classify(servable: Servable, name: str, given: Any) -> Question:
    """What to ask for a `tensorflow.serving.Input`: signature, its inputs, and the head where it is one of ours.

    Raises:
        Refusal: INVALID_ARGUMENT.
    """
    examples, document = _examples(servable, given), _document(name)
    head = head_of(servable, document)
    if head is not None:
        return BYTES, {"image_bytes": pictures([_features(example) for example in examples])}, head
    return signature_for(servable, document, CLASSIFY).name, {"inputs": _serialized(examples)}, None


def read_regress(servable: Servable, name: str, given: Any) -> Question:
    """The same for a regress request; only a signature made for it can answer one.

    Raises:
        Refusal: INVALID_ARGUMENT.
    """
    signature = signature_for(servable, _document(name), REGRESS)
    return signature.name, {"inputs": _serialized(_examples(servable, given))}, None


def classes_of(
    servable: Servable, head: str | None, outputs: Mapping[str, np.ndarray]
) -> list[list[tuple[str, float]]]:
    """For every example its labels and scores: of a head the highest first, else in the model's order.

    Raises:
        Refusal: The outputs are not those of a classification signature.
    """
    if head is not None:
        scores, labels = outputs[head], servable.classes[head]
        order = np.argsort(-scores, axis=1, kind="stable")
        return [
            [(labels[index] if index < len(labels) else "", float(row[index])) for index in indices]
            for row, indices in zip(scores, order, strict=True)
        ]
    given = [outputs[name] for name in ("classes", "scores") if name in outputs]
    if not given:
        raise Refusal(
            Code.FAILED_PRECONDITION,
            'Expected classification signature outputs to contain at least one of "classes" or "scores"',
        )
    if any(array.ndim != 2 or array.shape != given[0].shape for array in given):
        raise invalid("Expected Tensor shape: [batch_size num_classes]")
    names = outputs["classes"] if "classes" in outputs else np.full(given[0].shape, b"", object)
    values = outputs["scores"] if "scores" in outputs else np.zeros(given[0].shape, np.float32)
    return [
        [(label.decode("utf-8", "replace"), float(value)) for label, value in zip(*row, strict=True)]
        for row in zip(names, values, strict=True)
    ]


def values_of(outputs: Mapping[str, np.ndarray]) -> list[float]:
    """The number of every example.

    Raises:
        Refusal: The outputs are not those of a regression signature.
    """
    values = outputs.get("outputs")
    if values is None:
        raise Refusal(Code.FAILED_PRECONDITION, "No regression outputs found in SignatureDef")
    if values.dtype.kind != "f" or values.ndim not in (1, 2) or values.shape[1:] not in ((), (1,)):
        raise invalid("Expected output Tensor shape to be either [batch_size] or [batch_size, 1]")
    return [float(value) for value in values.ravel()]


def _document(name: str) -> dict[str, str]:
    """What the same request would say in JSON."""
    return {"signature_name": name} if name else {}


def _examples(servable: Servable, given: Any) -> Sequence[tf.train.Example]:
    """The examples, each with the features of the context that it has not itself."""
    if given.WhichOneof("kind") == "example_list_with_context":
        together, examples = given.example_list_with_context, []
        if len(together.examples) * together.context.ByteSize() > servable.settings.max_body:
            raise invalid("The context, repeated for every example, is larger than a request may be.")
        for example in together.examples:
            whole = tf.train.Example()
            whole.CopyFrom(together.context)
            for name, feature in example.features.feature.items():
                whole.features.feature[name].CopyFrom(feature)
            examples.append(whole)
    else:
        examples = list(given.example_list.examples)
    if not examples:
        raise invalid("Input is empty.")
    return examples


def _features(example: tf.train.Example) -> dict[str, list[Any]]:
    found = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        found[name] = [] if kind is None else list(getattr(feature, kind).value)
    return found


def _serialized(examples: Sequence[tf.train.Example]) -> np.ndarray:
    return objects([example.SerializeToString() for example in examples])
