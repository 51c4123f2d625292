"""Networks: the counts of the papers, float32 logits, heads, and a BatchNorm that equals Keras' own."""

import keras
import numpy as np
import pytest

import kerascnn
from kerascnn.batch_norm import BatchNorm
from kerascnn.registry import lookup, register


@pytest.mark.parametrize("name", kerascnn.list_models())
def test_parameter_count_is_the_published_one(name: str) -> None:
    assert kerascnn.describe(name)["trainable_parameters"] == lookup(name).parameters


@pytest.mark.parametrize("name", ["resnet9", "resnet18", "resnet50"])
def test_logits_are_float32_under_mixed_bfloat16(name: str) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = kerascnn.build(name, (32, 32, 3), {"label": 4, "kids": 2}, width=0.125)
    finally:
        keras.config.set_dtype_policy("float32")
    logits = model(np.full((2, 32, 32, 3), 200.0, "float32"))
    assert {
        head: (tuple(value.shape), keras.backend.standardize_dtype(value.dtype)) for head, value in logits.items()
    } == {
        "label": ((2, 4), "float32"),
        "kids": ((2, 2), "float32"),
    }
    assert all(np.isfinite(value).all() for value in logits.values())


def test_every_trainable_variable_has_a_gradient() -> None:
    import tensorflow as tf

    for name in ("resnet9", "resnet18"):
        model = kerascnn.build(name, (32, 32, 3), 3, width=0.125)
        pictures = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("float32")
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(pictures, training=True) ** 2)
        gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
        assert all(gradient is not None for gradient in gradients)


def test_first_layer_takes_raw_pixels_to_zero_mean_and_unit_variance() -> None:
    model = kerascnn.build("resnet9", (8, 8, 3), 2, width=0.125, mean=(100, 110, 120), std=(50, 20, 10))
    normalised = keras.Model(model.input, model.get_layer("normalise").output)
    pixel = np.tile(np.array([150, 70, 120], "float32"), (1, 8, 8, 1))
    np.testing.assert_allclose(normalised(pixel)[0, 0, 0], [1.0, -2.0, 0.0], atol=1e-6)


def test_head_names_may_be_any_text() -> None:
    heads = {"hair colour/tone": 3, "größe": 2, "pool": 5}
    model = kerascnn.build("resnet9", (16, 16, 3), heads, width=0.125)
    assert {head: logits.shape[1] for head, logits in model.output.items()} == heads


def test_unknown_network_error_names_near_ones() -> None:
    with pytest.raises(ValueError, match="Did you mean resnet"):
        kerascnn.build("resnt9", (32, 32, 3), 10)


def test_unknown_option_is_an_error_before_building() -> None:
    with pytest.raises(ValueError, match=r"no option 'stem'.*Did you mean se\?|no option 'stem'"):
        kerascnn.build("resnet9", (32, 32, 3), 10, stem="small")


def test_a_name_cannot_be_registered_twice() -> None:
    with pytest.raises(ValueError, match="registered already"):
        register("resnet9", lookup("resnet9"))


def test_too_small_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="needs 8 pixels"):
        kerascnn.build("resnet9", (4, 4, 3), 10)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_batch_norm_equals_keras_batch_norm(dtype: str) -> None:
    """Outputs, gradients and running statistics, in training and in inference."""
    import tensorflow as tf

    generator = np.random.default_rng(1)
    pictures = tf.constant(generator.normal(3, 2, (8, 5, 6, 4)).astype("float32"))
    weights = [generator.normal(size=4), generator.normal(size=4), generator.normal(size=4), generator.uniform(1, 2, 4)]
    layers = [kind(momentum=0.9, epsilon=1e-5, dtype=dtype) for kind in (BatchNorm, keras.layers.BatchNormalization)]
    answers = []
    for layer in layers:
        layer.build(pictures.shape)
        layer.set_weights(weights)
        with tf.GradientTape() as tape:
            tape.watch(pictures)
            trained = layer(pictures, training=True)
            loss = tf.reduce_sum(tf.cast(trained, "float32") ** 3)
        gradient = tape.gradient(loss, [pictures, *[variable.value for variable in layer.trainable_variables]])
        answers.append([trained, *gradient, *layer.get_weights(), layer(pictures, training=False)])
    for ours, theirs in zip(*answers, strict=True):
        ours, theirs = np.array(ours, "float32"), np.array(theirs, "float32")
        tolerance = 2e-4 if dtype == "float32" else 4e-2 * np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=tolerance)


def test_frozen_batch_norm_uses_and_keeps_its_running_statistics() -> None:
    layer = BatchNorm()
    pictures = np.random.default_rng(0).normal(5, 3, (4, 3, 3, 2)).astype("float32")
    layer.build(pictures.shape)
    layer.trainable = False
    before = layer.get_weights()
    np.testing.assert_allclose(layer(pictures, training=True), pictures / np.sqrt(1 + 1e-3), rtol=1e-5)
    np.testing.assert_array_equal(before, layer.get_weights())


def test_model_survives_the_keras_file_format(tmp_path) -> None:
    model = kerascnn.build("resnet18", (32, 32, 3), {"label": 3}, width=0.125, stem="small")
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(model(pictures)["label"], again(pictures)["label"])
