"""A network in bfloat16: the same weights, float32 where 8 bits are too few, nearly the same answers."""

import keras
import numpy as np
from keras import layers

import kerascnn
from kerascnn.precision import in_bfloat16, precision_of


def test_bfloat16_keeps_weights_and_answers_nearly_the_same() -> None:
    keras.utils.set_random_seed(0)
    model = kerascnn.fold_batch_norm(kerascnn.build("airbench94", (16, 16, 3), {"a": 4, "b": 3}, width=0.25))
    rounded = in_bfloat16(model)
    for old, new in zip(model.get_weights(), rounded.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    policies = {layer.name: layer.dtype_policy.name for layer in rounded.layers}
    # Of `build` under this policy the same layers are float32, and no others.
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        built = kerascnn.fold_batch_norm(kerascnn.build("airbench94", (16, 16, 3), {"a": 4, "b": 3}, width=0.25))
    finally:
        keras.config.set_dtype_policy("float32")
    kept = {layer.name for layer in built.layers if layer.dtype_policy.name == "float32" and layer.weights}
    assert {layer.name for layer in rounded.layers if policies[layer.name] == "float32" and layer.weights} == kept
    pictures = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype("float32")
    for head, logits in rounded(pictures).items():
        assert keras.backend.standardize_dtype(logits.dtype) == "float32"
        expected = np.array(model(pictures)[head])
        assert 0 < np.abs(np.array(logits) - expected).max() < 0.03 * np.abs(expected).max()
    assert (precision_of(model), precision_of(rounded)) == ("float32", "bfloat16")


def test_nested_networks_are_converted_too() -> None:
    inner = keras.Sequential([keras.Input((6, 6, 3)), layers.Conv2D(4, 3, name="conv"), layers.Flatten()], name="inner")
    inputs = keras.Input((6, 6, 3))
    model = keras.Model(inputs, {"label": layers.Dense(3, name="last")(layers.ReLU()(inner(inputs)))})
    rounded = in_bfloat16(model)
    assert rounded.get_layer("inner").get_layer("conv").compute_dtype == "bfloat16"
    assert rounded.get_layer("last").compute_dtype == "float32"
    for old, new in zip(model.get_weights(), rounded.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
