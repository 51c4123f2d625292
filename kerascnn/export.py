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
import tensorflow as tf

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
            head: tf.add_n([tf.nn.softmax(answer[head]) * (weight / total) for weight, answer in answers])
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
) -> None:
    """Write a SavedModel with the signatures `serving_default`, `serving_bytes` and `decode` into an empty folder.

    A fourth one, `serving_sized`, takes pixels that have the networks' size already: servers decode and resize every
    picture on its own, so that a bad one fails alone, and batch what comes out.

    Args:
        classifier: What to write.
        folder: Where; see `new_version`.
        metadata: Plain values, written as `assets.extra/kerascnn.json`; "classes" must name the classes of every head.
        canary: Encoded pictures, kept in `assets.extra/canary.json` (base64) with the probabilities a loaded copy
            must give for them.

    Raises:
        OSError: The files cannot be written, such as onto a full disk.
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
    try:
        tf.saved_model.save(classifier, os.fspath(folder), signatures=signatures)
    except NOT_WRITTEN as error:
        raise OSError(error.message) from error
    path = Path(folder, METADATA)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(metadata, indent=1, ensure_ascii=False), encoding="utf-8")
    if canary:
        answers = classifier.predict_bytes(tf.constant(list(canary)))
        examples = {
            "image_bytes": [base64.b64encode(data).decode() for data in canary],
            "probabilities": {head: values.numpy().tolist() for head, values in answers.items()},
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
