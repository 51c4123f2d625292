"""Whether a loaded version's answers are right: recorded examples, or numbers of any kind where there are none."""

import base64
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from apps.serve.errors import Refusal
from apps.serve.runner import Runner
from apps.serve.servable import BYTES, DECODE, DEFAULT, SIZED
from apps.serve.signature import Signature, TensorSpec

LOG = logging.getLogger(__name__)
EXAMPLES = "assets.extra/canary.json"
RECORDS = "assets.extra/tf_serving_warmup_requests"
MOST_RECORDS = 1000  # as TensorFlow Serving
FREE_SIDE = 64  # pixels, of pictures of any size
# How far an answer may be from the recorded one; where that has values beyond 1, so many times its largest.
TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-2, "float16": 2e-2}


@dataclass(frozen=True)
class Example:
    """Inputs of a signature, and what must come out.

    Args:
        signature: Its name.
        inputs: By name.
        outputs: By name; None where they are not known.
        tolerance: How exact `outputs` are themselves.
    """

    signature: str
    inputs: Mapping[str, np.ndarray] = field(repr=False)
    outputs: Mapping[str, np.ndarray] | None = field(repr=False, default=None)
    tolerance: float = TOLERANCE["float32"]


def recorded_examples(
    folder: Path, signatures: Mapping[str, Signature], metadata: Mapping[str, Any], runner: Runner
) -> list[Example]:
    """The examples with known answers that a version brings along; none for most SavedModels of others.

    This toolkit's exports have `assets.extra/canary.json`: encoded pictures and probabilities by head. Others may have
    requests for TensorFlow Serving's warm-up, which are read where the extra `grpc` is installed; their answers count
    where they were logged.

    Args:
        folder: Of the version.
        signatures: Its signatures.
        metadata: Of `kerascnn.json`, which tells the precision.
        runner: Decodes the pictures.

    Raises:
        ValueError: The files are damaged, or the pictures in them cannot be decoded.
    """
    precision = (metadata.get("classifier") or {}).get("precision", "float32")
    tolerance = TOLERANCE["bfloat16" if "16" in str(precision) else "float32"]
    if (folder / EXAMPLES).is_file():
        return [_toolkit_example(folder / EXAMPLES, signatures, runner, tolerance)]
    if (folder / RECORDS).is_file():
        return list(_logged_examples(folder / RECORDS, tolerance))
    return []


def _toolkit_example(path: Path, signatures: Mapping[str, Signature], runner: Runner, tolerance: float) -> Example:
    try:
        content = json.loads(path.read_bytes())
        pictures = [base64.b64decode(text, validate=True) for text in content["image_bytes"]]
        answers = {head: np.asarray(rows, "float32") for head, rows in content["probabilities"].items()}
        if not pictures or not answers or any(len(rows) != len(pictures) for rows in answers.values()):
            raise ValueError("there is not one answer for each picture")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"canary.json is damaged: {error}") from error
    if DECODE not in signatures or SIZED not in signatures:
        return Example(BYTES, {"image_bytes": np.array(pictures, object)}, answers, tolerance)
    try:
        pixels = [runner.run(DECODE, {"image_bytes": np.array(data, object)})["image"] for data in pictures]
    except Refusal as refusal:
        raise ValueError(f"A picture of canary.json cannot be decoded: {refusal.message}") from refusal
    (name,) = signatures[SIZED].inputs
    return Example(SIZED, {name: np.stack(pixels)}, answers, tolerance)


def _logged_examples(path: Path, tolerance: float) -> Iterator[Example]:
    try:
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError:
        LOG.info("%s is not read: that needs the extra, pip install 'kerascnn[grpc]'.", path.name)
        return
    try:
        for record in tf.data.TFRecordDataset(str(path)).take(MOST_RECORDS).as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(record)
            if not log.HasField("predict_log"):
                continue  # classify, regress: the same functions under other names
            request, response = log.predict_log.request, log.predict_log.response
            inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
            outputs = {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}
            yield Example(request.model_spec.signature_name or DEFAULT, inputs, outputs or None, tolerance)
    except Exception as error:  # of the file, of protocol buffers, of the tensors
        raise ValueError(f"{path.name} is damaged: {type(error).__name__}.") from error


def made_up_example(signature: Signature, rows: int) -> Example | None:
    """Finite inputs of any kind, always the same: pixels from 0 to 255, other numbers from 0 to 1; None for strings."""
    generator = np.random.default_rng(0)
    inputs = {}
    for name, spec in signature.inputs.items():
        if spec.is_bytes or spec.shape is None or not np.issubdtype(spec.dtype, np.number):
            return None
        inputs[name] = _numbers(spec, rows, generator)
    return Example(signature.name, inputs) if inputs and signature.batched else None


def _numbers(spec: TensorSpec, rows: int, generator: np.random.Generator) -> np.ndarray:
    free = FREE_SIDE if spec.is_pictures else 1
    shape = [rows, *(free if side is None else side for side in (spec.shape or ())[1:])]
    if spec.is_pictures:
        return generator.integers(0, 256, shape).astype(spec.dtype)
    if np.issubdtype(spec.dtype, np.integer):
        return generator.integers(0, 2, shape).astype(spec.dtype)
    return generator.random(shape).astype(spec.dtype)


def answer(runner: Runner, example: Example, signature: Signature, most: int) -> dict[str, np.ndarray]:
    """What a runner gives for an example, `most` rows at a time.

    Raises:
        Refusal: Of the runner.
    """
    rows = len(next(iter(example.inputs.values()))) if signature.batched else 1
    if rows <= most:
        return runner.run(example.signature, example.inputs)
    parts = [
        runner.run(example.signature, {name: value[start : start + most] for name, value in example.inputs.items()})
        for start in range(0, rows, most)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def check(example: Example, signature: Signature, outputs: Mapping[str, np.ndarray], precision: str) -> None:
    """Raise a `ValueError` in words for people unless outputs are as the signature says, finite and the known ones.

    Made-up numbers may lie outside what a model is defined for, so that of these only an output without any finite
    value is wrong, unless they are pixels: a network that is not broken answers every picture.

    Args:
        example: What was asked.
        signature: Of the same name.
        outputs: What came.
        precision: What they were computed in: "float32", "bfloat16", "float16".
    """
    for name, spec in signature.outputs.items():
        value = outputs.get(name)
        where = f"output {name} of signature {signature.name}"
        if value is None or value.dtype != spec.dtype or not _has_shape(value, spec):
            raise ValueError(f"The {where} is not {spec.dtype} {spec.shape}, as the signature says.")
        if np.issubdtype(spec.dtype, np.floating):
            _check_finite(value, where, example, signature)
    tolerance = max(example.tolerance, TOLERANCE[precision])
    for name, wanted in (example.outputs or {}).items():
        if name not in outputs:
            raise ValueError(f"There is a recorded answer for {name}, which is no output of {signature.name}.")
        _compare(outputs[name], np.asarray(wanted), tolerance, f"output {name} of signature {signature.name}")


def _has_shape(value: np.ndarray, spec: TensorSpec) -> bool:
    return spec.shape is None or (
        value.ndim == len(spec.shape)
        and all(side in (None, found) for side, found in zip(spec.shape, value.shape, strict=True))
    )


def _check_finite(value: np.ndarray, where: str, example: Example, signature: Signature) -> None:
    finite = np.isfinite(value.astype("float64"))
    pictures = any(spec.is_pictures or spec.is_bytes for spec in signature.inputs.values())
    known = example.outputs is not None or pictures
    if value.size and not (finite.all() if known else finite.any()):
        raise ValueError(f"The {where} has {int((~finite).sum())} of {value.size} values that are not finite numbers.")


def _compare(value: np.ndarray, wanted: np.ndarray, tolerance: float, where: str) -> None:
    if value.shape != wanted.shape:
        raise ValueError(f"The {where} has the shape {value.shape}; recorded is {wanted.shape}.")
    if not np.issubdtype(wanted.dtype, np.number):
        if not np.array_equal(value, wanted):
            raise ValueError(f"The {where} is another than the recorded one.")
        return
    if not wanted.size:
        return
    value, wanted = value.astype("float64"), wanted.astype("float64")
    allowed = tolerance * max(1.0, float(np.abs(wanted).max()))
    difference = float(np.abs(value - wanted).max())
    if not difference <= allowed:
        raise ValueError(f"The {where} differs from the recorded answer by {difference:.2g}; allowed is {allowed:.2g}.")
    if wanted.ndim == 2 and wanted.shape[1] > 1:
        upper = np.sort(wanted, axis=1)
        clear = upper[:, -1] - upper[:, -2] > allowed
        if (value.argmax(1) != wanted.argmax(1))[clear].any():
            raise ValueError(f"The {where} has another likeliest class than the recorded answer.")


def wrong(
    runner: Runner, examples: Sequence[Example], signatures: Mapping[str, Signature], precision: str, most: int
) -> str | None:
    """Why a runner's answers to examples are wrong, in words for people; None where all are right.

    Args:
        runner: Is asked.
        examples: With known answers or without.
        signatures: Of the version.
        precision: In which the runner computes.
        most: Rows that are computed together.
    """
    for example in examples:
        if example.signature not in signatures:
            return f"There is an example for the signature {example.signature}, which is not there."
        signature = signatures[example.signature]
        try:
            check(example, signature, answer(runner, example, signature, most), precision)
        except Refusal as refusal:
            return f"The signature {example.signature} fails on an example: {refusal.message}"
        except ValueError as error:
            return str(error)
    return None
