"""One classifier for several runtimes: each gives the SavedModel's answers for the same pixels."""

from importlib.util import find_spec

import keras
import numpy as np
import pytest
from keras import layers

from kerascnn import export_formats
from kerascnn.batch_norm import BatchNorm
from kerascnn.export import Classifier
from kerascnn.export_formats import FORMATS, answering_model, check_format, write_format
from kerascnn.fold import fold_batch_norm

SIZE = (6, 8)
OPTIONS = {
    "mirror": True,
    "shift": 1,
    "names": {"a": "hair colour/tone", "b": "größe"},
    "weights": [3.0, 1.0],
    "temperatures": {"b": 0.4},
}


def network(seed: int) -> keras.Model:
    """Everything that a converter has stumbled over: normalisation, GELU, BatchNorm, a nested network, two heads."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((*SIZE, 3), name="pixels")
    x = layers.Normalization(mean=[120.0, 110.0, 100.0], variance=[60.0**2, 50.0**2, 40.0**2])(inputs)
    x = layers.Activation("gelu")(BatchNorm()(layers.Conv2D(8, 3, activation="gelu", name="conv")(x)))
    x = keras.Sequential([keras.Input(x.shape[1:]), layers.Conv2D(8, 3), layers.GlobalAveragePooling2D()], name="end")(
        x
    )
    start = keras.initializers.RandomNormal(0, 2, seed=seed)
    heads = {head: layers.Dense(size, kernel_initializer=start)(x) for head, size in (("a", 3), ("b", 4))}
    return keras.Model(inputs, heads, name="network")


@pytest.fixture(scope="module")
def example() -> tuple[keras.Model, np.ndarray, dict[str, np.ndarray]]:
    """The model for the exporters, pixels, and what the classifier of the SavedModel says of them."""
    models = [fold_batch_norm(network(seed)) for seed in (0, 1)]
    pixels = np.random.default_rng(0).integers(0, 256, (5, *SIZE, 3)).astype("uint8")
    classifier = Classifier(models, SIZE, decode=None, resize=lambda x, size: x, **OPTIONS)
    expected = {head: values.numpy() for head, values in classifier.predict_pixels(pixels).items()}
    return answering_model(models, SIZE, **OPTIONS), pixels, expected


def test_keras_model_answers_as_the_saved_model_with_all_networks_and_views(example) -> None:
    model, pixels, expected = example
    answers = model(pixels)
    assert set(answers) == {"hair colour/tone", "größe"}
    for head, values in expected.items():
        assert np.ptp(values, axis=0).min() > 1e-3  # answers that depend on the picture
        np.testing.assert_allclose(answers[head], values, atol=1e-6)


@pytest.mark.parametrize("name", FORMATS)
def test_each_runtime_gives_the_same_probabilities_for_any_number_of_pictures(name, example, tmp_path) -> None:
    for package in FORMATS[name].packages:
        pytest.importorskip(package)
    model, pixels, expected = example
    path = write_format(model, name, tmp_path)
    assert path.name == FORMATS[name].file
    for count in (1, 5):
        answers = FORMATS[name].run(path, pixels[:count])
        for head, values in expected.items():
            np.testing.assert_allclose(answers[head], values[:count], atol=1e-5)


def test_a_missing_extra_is_named(monkeypatch) -> None:
    monkeypatch.setattr(export_formats, "find_spec", lambda name: None if name == "tf2onnx" else find_spec("numpy"))
    with pytest.raises(ValueError, match=r"The format onnx needs tf2onnx: pip install 'kerascnn\[onnx\]'"):
        check_format("onnx")
    check_format("saved_model")


def test_an_unknown_format_is_answered_with_a_near_one() -> None:
    with pytest.raises(ValueError, match=r"one of saved_model, onnx, openvino, litert. Did you mean onnx\?"):
        check_format("onx")
