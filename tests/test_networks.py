"""Names, inputs and heads of networks, and a BatchNorm that equals Keras' own."""

import keras
import numpy as np
import pytest

import kerascnn
from kerascnn.batch_norm import BatchNorm
from kerascnn.registry import lookup, register


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
    with pytest.raises(ValueError, match=r"Network 'resnet9' has no option 'stem'.*Options: mean, std, width"):
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
