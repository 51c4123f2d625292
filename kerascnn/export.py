"""From trained networks to one SavedModel that carries decoding, resizing, normalisation and class names inside."""

import base64
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.layers import BatchNormalization

from kerascnn.grad_cam import heat_maps, with_maps
from kerascnn.model_card import CARD, model_card
from kerascnn.precision import precision_of
from kerascnn.warmup_requests import Call, write_warmup

METADATA = "assets.extra/kerascnn.json"
CANARY = "assets.extra/canary.json"
# What TensorFlow raises where it cannot write a file: full disk, quota or limit, no permission, no such folder.
NOT_WRITTEN = (
    tf.errors.ResourceExhaustedError,
    tf.errors.OutOfRangeError,
    tf.errors.PermissionDeniedError,
    tf.errors.FailedPreconditionError,
    tf.errors.NotFoundError,
    tf.errors.UnknownError,
)


class Classifier(tf.Module):
    """The averaged probabilities of one or several networks, from pixels or from encoded pictures.

    Args:
        models: Networks of `kerascnn.build` with a dict of outputs, built in float32; their probabilities are averaged.
        size: (height, width) of the pictures they were trained on.
        decode: A graph function, one encoded picture and a size to uint8 [height, width, 3].
        resize: A graph function, uint8 [N, height, width, 3] and a size to uint8 [N, *size, 3].
        mirror: Average over the picture and its mirror image as well.
        shift: Average over the picture and the same moved by so many pixels, up and left and down and right, each of
            these with half the weight of the picture itself; 0 for none. What is uncovered mirrors the picture.
        names: What a head is called in the answers, by its name in the models; the same name where none is given.
        weights: How much each network counts, positive; None for all alike.
        temperatures: By a head's name in the models, what its averaged probabilities are calibrated with: p to the
            power of 1 / temperature, so that they sum to 1 again. None, and heads without one: 1.
    """

    def __init__(
        self,
        models: Sequence[keras.Model],
        size: tuple[int, int],
        decode: Callable[[tf.Tensor, tuple[int, int]], tf.Tensor],
        resize: Callable[[tf.Tensor, tuple[int, int]], tf.Tensor],
        mirror: bool = False,
        shift: int = 0,
        names: Mapping[str, str] | None = None,
        weights: Sequence[float] | None = None,
        temperatures: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(name="classifier")
        if not models or not all(isinstance(model.output, dict) for model in models):
            raise ValueError("`models` needs at least one network, each built with `num_classes` as a dict of heads.")
        if not 0 <= shift < min(size):
            raise ValueError(f"`shift` must be 0 or more, and less than a side of {size}. Received: shift={shift}.")
        weights = [1.0] * len(models) if weights is None else [float(weight) for weight in weights]
        if len(weights) != len(models) or not all(0 < weight < math.inf for weight in weights):
            raise ValueError(
                f"`weights` needs a positive number for each of {len(models)} networks. Received: {weights}."
            )
        for head, temperature in (temperatures or {}).items():
            if not 0 < temperature < math.inf:
                raise ValueError(f"`temperatures` must be positive. Received: {head}={temperature}.")
        self.models, self.weights = list(models), weights
        self.temperatures = {head: float(value) for head, value in (temperatures or {}).items()}
        self.size, self.mirror, self.shift = size, mirror, shift
        self.names = {head: (names or {}).get(head, head) for head in self.models[0].output}
        self._decode, self._resize = decode, resize

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="image")])
    def predict_pixels(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Probabilities float32 [N, classes] by head, of uint8 pixels [N, height, width, 3] of any size."""
        return self._probabilities(self._resize(image, self.size))

    @tf.function
    def predict_sized(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """The same of uint8 pixels [N, height, width, 3] that have the networks' size already, as `decode` gives."""
        return self._probabilities(image)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def predict_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Probabilities float32 [N, classes] by head, of N encoded pictures."""
        spec = tf.TensorSpec([*self.size, 3], tf.uint8)
        # One picture at a time: they have different sizes until they are decoded and resized.
        pictures = tf.map_fn(lambda data: self._decode(data, self.size), image_bytes, fn_output_signature=spec)
        return self._probabilities(pictures)

    @tf.function(input_signature=[tf.TensorSpec([], tf.string, name="image_bytes")])
    def decode(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """One encoded picture as uint8 [height, width, 3], decoded and resized as in training."""
        return {"image": self._decode(image_bytes, self.size)}

    def explain(self) -> tf.types.experimental.ConcreteFunction:
        """A function of uint8 pixels [N, height, width, 3] of the networks' size: heat maps by head (`heat_maps`).

        They are float32 [N, height, width] in [0, 1], of the class that `predict_sized` finds likeliest, as the first
        network sees the picture itself.

        Raises:
            ValueError: The network has no feature maps.

        Source: Grad-CAM, https://arxiv.org/abs/1610.02391
        """
        network = with_maps(self.models[0])

        @tf.function(input_signature=[tf.TensorSpec([None, *self.size, 3], tf.uint8, name="image")])
        def explain(image: tf.Tensor) -> dict[str, tf.Tensor]:
            answers = self.predict_sized(image)
            chosen = {head: tf.argmax(answers[name], axis=1) for head, name in self.names.items()}
            maps = heat_maps(network, tf.cast(image, tf.float32), chosen)
            return {name: maps[head] for head, name in self.names.items()}

        return explain.get_concrete_function()

    def describe(self) -> dict[str, Any]:
        """Plain facts: how many networks, their parameters and precision, the views, the calibration."""
        return {
            "networks": len(self.models),
            "network": self.models[0].name,
            "parameters": self.models[0].count_params(),
            "precision": precision_of(self.models[0]),
            "batch_norm_layers": sum(isinstance(layer, BatchNormalization) for layer in self.models[0].layers),
            "mirror": self.mirror,
            "shift": self.shift,
            "temperatures": {self.names[head]: value for head, value in self.temperatures.items()},
        }

    def _probabilities(self, pictures: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = tf.ensure_shape(tf.cast(pictures, tf.float32), [None, *self.size, 3])
        views = [(1.0, pixels)]
        if self.shift:
            views += [(0.5, moved) for moved in self._moved(pixels)]
        if self.mirror:
            views += [(weight, tf.reverse(view, axis=[2])) for weight, view in views]
        answers = [
            (share * weight, model(view, training=False))
            for share, model in zip(self.weights, self.models, strict=True)
            for weight, view in views
        ]
        total = sum(weight for weight, _ in answers)
        averages = {
            head: tf.add_n(
                [tf.nn.softmax(tf.cast(answer[head], tf.float32)) * (weight / total) for weight, answer in answers]
            )
            for head in self.names
        }
        return {name: self._calibrated(head, averages[head]) for head, name in self.names.items()}

    def _calibrated(self, head: str, probabilities: tf.Tensor) -> tf.Tensor:
        temperature = self.temperatures.get(head, 1.0)
        if temperature == 1:
            return probabilities
        # A probability that is 0 in float32 stays as good as 0.
        return tf.nn.softmax(tf.math.log(tf.maximum(probabilities, 1e-30)) / temperature)

    def _moved(self, pixels: tf.Tensor) -> list[tf.Tensor]:
        """Up and left, and down and right."""
        height, width = self.size
        edge, both = [self.shift, self.shift], 2 * self.shift
        padded = tf.pad(pixels, [[0, 0], edge, edge, [0, 0]], "REFLECT")
        return [padded[:, both:, both:], padded[:, :height, :width]]


def export_model(
    classifier: Classifier,
    folder: os.PathLike[str] | str,
    metadata: Mapping[str, object],
    canary: Sequence[bytes] = (),
    explain: bool = False,
) -> None:
    """Write a SavedModel that answers with nothing but TensorFlow, and what belongs to it, into an empty folder.

    Signatures: `serving_default` takes pixels of any size, `serving_bytes` encoded pictures, `decode` makes pixels of
    the networks' size of one of them, `serving_sized` takes pixels of that size: servers decode and resize every
    picture on its own, so that a bad one fails alone, and batch what comes out. `explain`, where it is asked for, gives
    heat maps of pixels of that size (`Classifier.explain`).

    In `assets.extra` are `kerascnn.json` (the metadata and `Classifier.describe`), `MODEL_CARD.md`, and, of the canary
    pictures, `canary.json` and `tf_serving_warmup_requests`: their base64 and the probabilities that a loaded copy must
    give; and the same as requests of `serving_bytes` and `serving_default` with their answers, by which TensorFlow
    Serving warms up.

    Args:
        classifier: What to write. `kerascnn.fold_batch_norm` makes its networks faster.
        folder: Where; see `new_version`.
        metadata: Plain values; "classes" must name the classes of every head. What `kerascnn.model_card` knows of them
            is on the card.
        canary: Encoded pictures.
        explain: Whether to write the signature `explain` too.

    Raises:
        OSError: The files cannot be written, such as onto a full disk.
        ValueError: There are no class names, or nothing to `explain`.

    With `decode` and `resize` of the training (TensorFlow is the backend)::

        classifier = Classifier([kerascnn.fold_batch_norm(model)], (32, 32), decode, resize, mirror=True)
        with new_version("saved_models/animals") as (unfinished, _):
            kerascnn.export_model(classifier, unfinished, {"classes": {"animal": ["cat", "dog"]}}, explain=True)
    """
    if "classes" not in metadata:
        raise ValueError(f"`metadata` must have an entry 'classes'. Received: {sorted(metadata)}.")
    signatures = {
        "serving_default": classifier.predict_pixels,
        "serving_bytes": classifier.predict_bytes,
        "decode": classifier.decode,
        "serving_sized": classifier.predict_sized.get_concrete_function(
            tf.TensorSpec([None, *classifier.size, 3], tf.uint8, name="image")
        ),
    }
    if explain:
        signatures["explain"] = classifier.explain()
    described = {**metadata, "classifier": classifier.describe()}
    extra = Path(folder, METADATA).parent
    try:
        tf.saved_model.save(_weights_of(classifier), os.fspath(folder), signatures=signatures)
        extra.mkdir(exist_ok=True)
        if canary:
            _write_canary(classifier, Path(folder), canary)
    except NOT_WRITTEN as error:
        raise OSError(error.message) from error
    Path(folder, METADATA).write_text(json.dumps(described, indent=1, ensure_ascii=False), encoding="utf-8")
    Path(folder, CARD).write_text(model_card(described), encoding="utf-8")


def _weights_of(classifier: Classifier) -> tf.Module:
    """What a SavedModel of the classifier keeps: its weights alone, each under a name of its own.

    Of Keras' layers TensorFlow would write every variable under two names, of which a session restores only one: such a
    SavedModel answers after `tf.saved_model.load` but not in TensorFlow Serving, which runs it in a session.
    """
    module = tf.Module()
    module.weights = [variable.value for model in classifier.models for variable in model.variables]
    return module


def _write_canary(classifier: Classifier, folder: Path, canary: Sequence[bytes]) -> None:
    """The pictures with the answers they must get: once as JSON, once as requests."""
    answers = {head: values.numpy() for head, values in classifier.predict_bytes(tf.constant(list(canary))).items()}
    calls = []
    for place, data in enumerate(canary):
        answer = {head: values[place : place + 1] for head, values in answers.items()}
        pixels = classifier.decode(tf.constant(data))["image"].numpy()
        calls.append(Call("serving_bytes", {"image_bytes": np.array([data], object)}, answer))
        calls.append(Call("serving_default", {"image": pixels[None]}, answer))
    write_warmup(folder, calls)
    examples = {
        "image_bytes": [base64.b64encode(data).decode() for data in canary],
        "probabilities": {head: values.tolist() for head, values in answers.items()},
    }
    Path(folder, CANARY).write_text(json.dumps(examples), encoding="utf-8")


def read_metadata(saved_model: os.PathLike[str] | str) -> dict[str, Any]:
    """What `export_model` wrote beside the graph.

    Raises:
        FileNotFoundError: The folder holds no SavedModel of this toolkit.
    """
    path = Path(saved_model, METADATA)
    if not path.is_file() or not Path(saved_model, "saved_model.pb").is_file():
        raise FileNotFoundError(
            f"{saved_model} is no SavedModel written by kerascnn: it needs saved_model.pb and {METADATA}."
        )
    return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def new_version(model_folder: os.PathLike[str] | str) -> Iterator[tuple[Path, Path]]:
    """Yield (an empty folder to write into, the version folder it becomes when the block ends without an error).

    Versions are numbered 1, 2, 3, ...; none is ever replaced. Servers pass over the unfinished folder's name.
    """
    parent = Path(model_folder)
    parent.mkdir(parents=True, exist_ok=True)
    version = parent / str(max(versions(parent), default=0) + 1)
    unfinished = parent / f".unfinished-{version.name}-{os.getpid()}"
    for left_over in parent.glob(".unfinished-*"):
        if not Path("/proc", left_over.name.rsplit("-", 1)[-1]).exists() and Path("/proc/self").exists():
            shutil.rmtree(left_over, ignore_errors=True)  # of an export that was killed
    try:
        unfinished.mkdir()
        yield unfinished, version
        unfinished.rename(version)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def versions(model_folder: os.PathLike[str] | str) -> list[int]:
    """The version numbers of the folders in saved_models/NAME, ascending."""
    folder = Path(model_folder)
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted(int(name) for name in names if re.fullmatch(r"\d+", name) and (folder / name).is_dir())
