"""The same classifier for other runtimes: ONNX, OpenVINO and LiteRT files through Keras' exporters, and their answers.

Such a file takes pixels of the networks' size, uint8 [N, height, width, 3], and gives probabilities by head. Networks,
their weights, mirrored and moved views and the calibration are inside; decoding and resizing are not, since these
runtimes have no decoders: what they are given must be what the SavedModel's `decode` gives.
"""

import difflib
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from kerascnn.fold import ChannelAffine
from kerascnn.graph import copy_weights, functional

SAVED_MODEL = "saved_model"
INPUT = "image"


class Format(NamedTuple):
    """A kind of file.

    Attributes:
        file: Its name; OpenVINO writes the weights beside it, with the ending "bin".
        packages: What writing and running it needs, all in the extra of the format's name.
        run: (file, pixels) to probabilities by head, with the format's own runtime on the processor, in float32.
    """

    file: str
    packages: tuple[str, ...]
    run: Callable[[Path, np.ndarray], dict[str, np.ndarray]]


def run_onnx(path: Path, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Probabilities by head from an ONNX file, of uint8 pixels [N, height, width, 3], by ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {INPUT: pixels}), strict=True))


def run_openvino(path: Path, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """The same from an OpenVINO file; in float32, since it takes bfloat16 by itself where the processor has it."""
    import openvino

    model = openvino.Core().compile_model(os.fspath(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answers = model({INPUT: pixels})
    return {name: np.array(values) for output, values in answers.items() for name in output.get_names()}


def run_litert(path: Path, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """The same from a LiteRT file."""
    from ai_edge_litert.interpreter import Interpreter

    return dict(Interpreter(os.fspath(path)).get_signature_runner()(**{INPUT: pixels}))


FORMATS = {
    "onnx": Format("model.onnx", ("onnx", "onnxruntime", "tf2onnx"), run_onnx),
    "openvino": Format("model.xml", ("openvino",), run_openvino),
    "litert": Format("model.tflite", ("ai_edge_litert",), run_litert),
}


def check_format(name: str) -> None:
    """Raise a `ValueError` for an unknown format, or one whose packages are not installed."""
    known = [SAVED_MODEL, *FORMATS]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"`format` must be one of {', '.join(known)}.{meant} Received: format={name!r}.")
    needed = FORMATS[name].packages if name in FORMATS else ()
    if missing := [package for package in needed if find_spec(package) is None]:
        raise ValueError(f"The format {name} needs {', '.join(missing)}: pip install 'kerascnn[{name}]'")


def answering_model(
    models: Sequence[keras.Model],
    size: tuple[int, int],
    mirror: bool = False,
    shift: int = 0,
    names: Mapping[str, str] | None = None,
    weights: Sequence[float] | None = None,
    temperatures: Mapping[str, float] | None = None,
) -> keras.Model:
    """One Keras model that does what `kerascnn.export.Classifier` does with pixels of the networks' size.

    Its input `image` is uint8 [N, height, width, 3], its outputs are probabilities float32 [N, classes] by head. The
    arguments are those of `Classifier`.
    """
    weights = [1.0] * len(models) if weights is None else list(weights)
    plain = [_convertible(model) for model in models]
    # Networks of one ensemble have the same name, which the parts of a model must not.
    networks = [keras.Model(one.input, one.output, name=f"network{number}") for number, one in enumerate(plain)]
    image = keras.Input((*size, 3), dtype="uint8", name=INPUT)
    pixels = ops.cast(image, "float32")
    views = [(1.0, pixels)]
    if shift:
        height, width = size
        padded = ops.pad(pixels, [[0, 0], [shift, shift], [shift, shift], [0, 0]], mode="reflect")
        views += [(0.5, padded[:, 2 * shift :, 2 * shift :]), (0.5, padded[:, :height, :width])]
    if mirror:
        views += [(weight, ops.flip(view, axis=2)) for weight, view in views]
    every = ops.concatenate([view for _, view in views], axis=0)  # one batch: a file holds each network once
    of_views = np.array([weight for weight, _ in views], "float32")[:, None, None]
    answers = [(share, network(every)) for share, network in zip(weights, networks, strict=True)]
    total = float(sum(weights) * of_views.sum())
    outputs = {}
    for head in models[0].output:
        classes = models[0].output[head].shape[-1]
        mean = sum(
            ops.sum(
                ops.reshape(ops.softmax(answer[head]), (len(views), -1, classes)) * of_views * (share / total), axis=0
            )
            for share, answer in answers
        )
        if (temperature := (temperatures or {}).get(head, 1.0)) != 1:
            mean = ops.softmax(ops.log(ops.maximum(mean, 1e-30)) / temperature)
        outputs[(names or {}).get(head, head)] = mean
    return keras.Model(image, outputs, name="classifier")


def write_format(model: keras.Model, name: str, folder: os.PathLike[str] | str) -> Path:
    """Write a model of `answering_model` into an existing folder; the file.

    Raises:
        ValueError: The format is unknown, or its packages are not installed.
    """
    check_format(name)
    path = Path(folder, FORMATS[name].file)
    model(np.zeros((1, *model.input_shape[1:]), "uint8"))  # Keras writes ONNX only of a model that was called
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converters' own, of old names in NumPy
        model.export(os.fspath(path), format=name, verbose=False)
    return path


def gelu(x: keras.KerasTensor) -> keras.KerasTensor:
    """GELU by the error function. Source: https://arxiv.org/abs/1606.08415, section 2."""
    return 0.5 * x * (1.0 + ops.erf(x / math.sqrt(2.0)))


def _convertible(model: keras.Model) -> keras.Model:
    """The same network without what tf2onnx cannot write.

    The constants of a normalisation, which it takes for inputs, become weights; GELU, which TensorFlow computes by an
    operation of its own, is written as its definition.
    """
    plain = functional(model)

    def clone(layer: layers.Layer) -> layers.Layer:
        if isinstance(layer, keras.Model):
            return _convertible(layer)
        if isinstance(layer, layers.Normalization):
            return ChannelAffine(name=layer.name)
        copy = type(layer).from_config(layer.get_config())
        if getattr(copy, "activation", None) is keras.activations.gelu:
            copy.activation = gelu
        return copy

    cloned = keras.models.clone_model(plain, clone_function=clone)
    for layer in plain.layers:
        if isinstance(layer, keras.Model | layers.InputLayer):
            continue
        weights: list[Any] = layer.get_weights()
        if isinstance(layer, layers.Normalization):
            mean, variance = (np.array(value, "float64").reshape(-1) for value in (layer.mean, layer.variance))
            scale = 1 / np.maximum(np.sqrt(variance), keras.config.epsilon())
            weights = [scale, -mean * scale]
        copy_weights(weights, cloned.get_layer(layer.name))
    return cloned
