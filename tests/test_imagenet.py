"""Published weights: our networks give the outputs of `keras.applications` once they have its weights."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import ROOT

import kerascnn
from kerascnn.imagenet import PUBLISHED

# Small pictures, to be quick: what both sides take at least.
SIZES = {"inception_v3": 75, "xception": 71}
MODULES = {
    "vgg16": "vgg16",
    "vgg19": "vgg19",
    "inception_v3": "inception_v3",
    "resnet": "resnet",
    "densenet": "densenet",
    "mobilenet_v1": "mobilenet",
    "mobilenet_v2": "mobilenet_v2",
    "xception": "xception",
    "efficientnet": "efficientnet",
    "convnext": "convnext",
}
# In every run one of each way of normalising, padding and branching.
QUICK = ("vgg16", "inception_v3", "resnet50", "mobilenet_v2", "xception", "efficientnet_b0", "convnext_tiny")


# So deep that with statistics of pictures a rounding grows to another answer. With the statistics that norms begin with
# the answer hardly depends on the picture: these are compared in their weights, B0 to B3 in everything.
CHAOTIC = ("efficientnet_b4", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7")


def random_source(name: str, size: int, classes: int = 10, **options: object) -> keras.Model:
    """The model of `keras.applications` with random weights, and statistics of pictures in its norms.

    With statistics of anything else the outputs of a deep network hardly depend on the picture, and agree whatever is
    wrong before the last layers.
    """
    keras.utils.set_random_seed(0)
    builder = getattr(keras.applications, PUBLISHED[name][0])
    source = builder(weights=None, input_shape=(size, size, 3), classes=classes, classifier_activation=None, **options)
    generator = np.random.default_rng(0)
    # Small where gates multiply one another through a hundred blocks: else a rounding grows to another answer.
    scales = (0.1, 0.3) if "efficientnet" in name else (0.3, 0.9)
    for layer in source.layers:
        values = []
        for variable in layer.weights:
            value = variable.numpy()
            if variable.name == "gamma" or type(layer).__name__ == "LayerScale":  # which Keras starts at 1e-6
                value = generator.uniform(*scales, value.shape)
            elif variable.name == "variance":
                value = generator.uniform(1.0, 2.0, value.shape)
            elif variable.name in ("beta", "bias", "mean"):
                value = generator.normal(0.0, 0.1, value.shape)
            values.append(value)
        layer.set_weights(values)
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    pictures = generator.integers(0, 256, (8, size, size, 3)) * generator.uniform(0.2, 1.0, (8, 1, 1, 3))
    if name not in CHAOTIC:
        source(preprocessed(name, pictures), training=True)
    return source


def preprocessed(name: str, pictures: np.ndarray) -> np.ndarray:
    """Raw pixels as the model of `keras.applications` wants them."""
    module = next(module for prefix, module in MODULES.items() if name.startswith(prefix))
    return getattr(keras.applications, module).preprocess_input(pictures.astype("float32"))


def difference(name: str, model: keras.Model, source: keras.Model, size: int) -> float:
    """The largest difference of two networks' outputs on random pictures, relative to the largest output."""
    pictures = np.random.default_rng(1).integers(0, 256, (2, size, size, 3)).astype("float32")
    expected = source(preprocessed(name, pictures), training=False)
    expected, found = (keras.ops.convert_to_numpy(value) for value in (expected, model(pictures, training=False)))
    return float(np.abs(expected - found).max() / np.abs(expected).max())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in PUBLISHED]
)
def test_outputs_are_those_of_keras_applications(name: str) -> None:
    size = SIZES.get(name, 64)
    source = random_source(name, size)
    model = kerascnn.build(name, (size, size, 3), 10)
    before = difference(name, model, source, size)
    kerascnn.load_imagenet(model, source)
    after = difference(name, model, source, size)
    print(f"{name} {after:.1e}")
    assert before > 0.1
    assert after < 1e-4
    pictures = np.random.default_rng(1).integers(0, 256, (2, size, size, 3))
    one, other = keras.ops.convert_to_numpy(source(preprocessed(name, pictures), training=False))
    assert name in CHAOTIC or np.abs(one - other).max() > 0.01 * np.abs(one).max()  # else the comparison means nothing


@pytest.fixture(scope="module")
def mobilenet() -> keras.Model:
    """A source with random weights for ten classes."""
    return random_source("mobilenet_v2", 32)


def test_pixels_are_normalised_as_the_weights_want_them(mobilenet: keras.Model) -> None:
    model = kerascnn.build("mobilenet_v2", (32, 32, 3), 10, mean=(1, 2, 3), std=(4, 5, 6))
    model.predict(np.zeros((1, 32, 32, 3)), verbose=0)  # a step that was compiled before is compiled anew
    kerascnn.load_imagenet(model, mobilenet)
    picture = np.full((1, 32, 32, 3), 255.0, "float32")
    normalised = keras.Model(model.input, model.get_layer("normalise").output)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(normalised(picture)), 1.0)
    np.testing.assert_allclose(model.predict(picture, verbose=0), model(picture, training=False), rtol=1e-4, atol=1e-5)


def test_normalisation_survives_the_keras_file(mobilenet: keras.Model, tmp_path) -> None:
    model = kerascnn.load_imagenet(kerascnn.build("mobilenet_v2", (32, 32, 3), 10), mobilenet)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert difference("mobilenet_v2", again, mobilenet, 32) < 1e-4


def test_other_heads_keep_their_random_weights(mobilenet: keras.Model) -> None:
    model = kerascnn.build("mobilenet_v2", (32, 32, 3), {"label": 10, "kids": 2})
    heads = [layer for layer in model.layers if layer.name.startswith("head_")]
    before = [layer.get_weights() for layer in heads]
    kerascnn.load_imagenet(model, mobilenet)
    for layer, weights in zip(heads, before, strict=True):
        np.testing.assert_array_equal(layer.get_weights()[0], weights[0])
    body = model.get_layer("stage7_block1_project_conv").get_weights()[0]
    np.testing.assert_array_equal(body, mobilenet.get_layer("block_16_project").get_weights()[0])


def test_weights_of_another_network_are_refused_and_nothing_is_changed(mobilenet: keras.Model) -> None:
    for options, match in (
        ({"width": 0.5}, "instead of .*full width"),
        ({"stem": "small"}, "instead of .*options it was published with"),
        ({"norm": "none"}, "options that add or remove layers"),
    ):
        model = kerascnn.build("mobilenet_v2", (32, 32, 3), 10, **options)
        before = model.get_weights()
        with pytest.raises(ValueError, match=match):
            kerascnn.load_imagenet(model, mobilenet)
        for value, was in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(value, was)


def test_networks_without_published_weights_are_named() -> None:
    with pytest.raises(ValueError, match=r"No weights are published for 'resnet9'.*vgg16"):
        kerascnn.load_imagenet(kerascnn.build("resnet9", (32, 32, 3), 10, width=0.125))
    with pytest.raises(ValueError, match="3 channels"):
        kerascnn.load_imagenet(kerascnn.build("mobilenet_v2", (32, 32, 1), 10))


@pytest.mark.slow
def test_without_a_network_the_error_says_where_the_file_belongs(tmp_path) -> None:
    """In a process of its own: Keras' home folder is empty, and no host can be reached."""
    code = (
        "import kerascnn\n"
        "model = kerascnn.build('mobilenet_v2', (224, 224, 3), 1000)\n"
        "try: kerascnn.load_imagenet(model)\n"
        "except ConnectionError as error: print('one line:', str(error).count(chr(10)), error)\n"
    )
    environment = {**os.environ, "KERAS_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment |= dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "one line: 0 The published weights of 'mobilenet_v2' are not here and cannot be downloaded" in done.stdout
    assert "folder `models` of Keras' home" in done.stdout


def test_epsilon_of_the_network_may_differ_from_that_of_the_weights() -> None:
    """Keras' ResNet has 1.001e-5."""
    source = random_source("resnet50", 32)
    for layer in source.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(keras.ops.ones_like(layer.moving_variance) * 0.5)
    model = kerascnn.load_imagenet(kerascnn.build("resnet50", (32, 32, 3), 10, epsilon=0.1), source)
    norm, other = model.get_layer("stem_norm"), source.get_layer("conv1_bn")
    np.testing.assert_allclose(norm.moving_variance, other.moving_variance + 1.001e-5 - 0.1, rtol=1e-5)
    assert difference("resnet50", model, source, 32) < 1e-4


def test_a_difference_in_later_layers_leaves_weights_and_normalisation_as_they_were() -> None:
    model = kerascnn.build("resnet50", (32, 32, 3), 10, downsample="3x3", mean=[1, 2, 3], std=[4, 5, 6])
    source = random_source("resnet50", 32)
    was = model.get_weights()
    picture = np.full((1, 32, 32, 3), 99.0, "float32")
    pixels = keras.Model(model.input, model.get_layer("normalise").output)
    normalised = keras.ops.convert_to_numpy(pixels(picture))
    with pytest.raises(ValueError, match=r"stage2_block1_1_conv.*instead of \(2,"):  # the first stage fits
        kerascnn.load_imagenet(model, source)
    for value, before_it in zip(model.get_weights(), was, strict=True):
        np.testing.assert_array_equal(value, before_it)
    again = keras.Model(model.input, model.get_layer("normalise").output)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(again(picture)), normalised)


def test_compiled_steps_use_the_new_normalisation() -> None:
    model = kerascnn.build("mobilenet_v2", (32, 32, 3), 10, mean=(1, 2, 3), std=(4, 5, 6))
    source = random_source("mobilenet_v2", 32)
    pixels = keras.Model(model.input, model.get_layer("normalise").output)
    picture = np.full((1, 32, 32, 3), 255.0, "float32")
    model.predict(picture, verbose=0)
    kerascnn.load_imagenet(model, source)
    assert model.predict_function is None
    np.testing.assert_allclose(keras.ops.convert_to_numpy(pixels(picture)), 1.0)


def test_download_is_in_float32_and_leaves_the_policy(monkeypatch) -> None:
    from kerascnn.imagenet import download

    seen = []

    def builder(weights: str) -> None:
        seen.append((weights, keras.config.dtype_policy().name))

    monkeypatch.setattr(keras.applications, "VGG16", builder)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        download("vgg16")
        assert seen == [("imagenet", "float32")]
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
