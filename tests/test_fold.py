"""Folding: equal outputs without BatchNorm, for every kind of layer before it."""

import keras
import numpy as np
import pytest
from keras import layers

import kerascnn
from kerascnn.batch_norm import BatchNorm
from kerascnn.fold import ChannelAffine, fold_batch_norm


def parts(model: keras.Model) -> list[keras.layers.Layer]:
    """All layers, also those of nested models."""
    return [part for layer in model.layers for part in (parts(layer) if isinstance(layer, keras.Model) else [layer])]


def randomise(model: keras.Model, seed: int) -> np.ndarray:
    """Random weights and BatchNorm statistics with outputs of order 1; returns pictures for a comparison.

    The statistics are those of the pictures at every layer, then disturbed, so that no depth makes values explode.
    """
    generator = np.random.default_rng(seed)
    pictures = generator.uniform(0, 255, (8, *model.input_shape[1:])).astype("float32")
    norms = [layer for layer in parts(model) if isinstance(layer, layers.BatchNormalization)]
    for variable in model.trainable_variables:
        old = variable.numpy().astype("float32")
        if variable.name == "gamma":
            variable.assign(generator.uniform(0.5, 1.5, old.shape))
        elif old.ndim < 2:
            variable.assign(generator.normal(0, 0.3, old.shape))
        else:
            variable.assign(generator.normal(0, old.std() or 0.1, old.shape))
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(pictures, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        mean, variance = (value.numpy() for value in (norm.moving_mean, norm.moving_variance))
        norm.moving_mean.assign(mean + generator.normal(0, 0.3, mean.shape) * np.sqrt(variance))
        norm.moving_variance.assign(variance * generator.uniform(0.5, 2, mean.shape) + 0.01)
    return pictures


def answers(model: keras.Model, pictures: np.ndarray) -> list[np.ndarray]:
    return [np.array(keras.ops.cast(output, "float32")) for output in keras.tree.flatten(model(pictures))]


def difference(one: keras.Model, other: keras.Model, pictures: np.ndarray) -> float:
    """Largest difference of the outputs, relative to the largest output of `one`."""
    pairs = list(zip(answers(one, pictures), answers(other, pictures), strict=True))
    assert all(0.1 < np.abs(first).max() < 1e3 for first, _ in pairs)  # else a small difference means nothing
    return max(np.abs(first - second).max() / np.abs(first).max() for first, second in pairs)


def assert_folds(model: keras.Model, affine: int, tolerance: float = 1e-4) -> keras.Model:
    """Random statistics, fold, compare; `affine` BatchNorms must have had nothing to go into."""
    pictures = randomise(model, 0)
    before = model.get_weights()
    folded = fold_batch_norm(model)
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in parts(folded))
    assert sum(isinstance(layer, ChannelAffine) for layer in parts(folded)) == affine
    assert difference(model, folded, pictures) < tolerance
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    return folded


def test_folded_kernel_and_bias_by_hand() -> None:
    """y = 2 x + 1, normalised: 3 (y - 4) / 0.5 + 0.5 = 12 x - 17.5."""
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1), layers.BatchNormalization(epsilon=0.0)])
    model.set_weights([np.array(value) for value in ([[2.0]], [1.0], [3.0], [0.5], [4.0], [0.25])])
    (dense,) = [layer for layer in fold_batch_norm(model).layers if layer.weights]
    assert [weight.tolist() for weight in dense.get_weights()] == [[[12.0]], [-17.5]]


LINEAR = {
    "conv": lambda: layers.Conv2D(6, 3, use_bias=False),
    "biased": lambda: layers.Conv2D(6, 3, strides=2, padding="same"),
    "dilated": lambda: layers.Conv2D(6, 3, dilation_rate=2, padding="same"),
    "grouped": lambda: layers.Conv2D(6, 3, groups=2),
    "depthwise": lambda: layers.DepthwiseConv2D(3, depth_multiplier=3, use_bias=False, padding="same"),
    "separable": lambda: layers.SeparableConv2D(6, 3, depth_multiplier=2),
    "transposed": lambda: layers.Conv2DTranspose(6, 3, strides=2, use_bias=False),
    "dense_per_pixel": lambda: layers.Dense(6, use_bias=False),
}


@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}], ids=["full", "no_scale", "no_center"])
def test_batch_norm_goes_into_the_layer_before_it(kind: str, options: dict[str, bool]) -> None:
    inputs = keras.Input((7, 8, 4))
    folded = assert_folds(keras.Model(inputs, BatchNorm(**options)(LINEAR[kind]()(inputs))), affine=0)
    assert len(folded.layers) == 2


def not_foldable(case: str) -> keras.Model:
    inputs = keras.Input((6, 6, 4), name="pixels")
    conv, norm = layers.Conv2D(4, 3, padding="same", name="conv"), layers.BatchNormalization(name="norm")
    x = conv(inputs)
    if case == "addition":
        outputs = norm(layers.add([x, inputs]))
    elif case == "concatenation":
        outputs = norm(layers.concatenate([x, inputs]))
    elif case == "padding":
        outputs = norm(layers.ZeroPadding2D()(x))
    elif case == "input":
        outputs = norm(inputs)
    elif case == "activation":
        outputs = norm(layers.Conv2D(4, 3, activation="relu")(inputs))
    elif case == "used_twice":
        outputs = layers.add([norm(x), x])
    elif case == "is_an_output":
        outputs = {"plain": x, "normal": norm(x)}
    elif case == "shared_conv":
        outputs = norm(conv(layers.ReLU()(x)))
    elif case == "shared_norm":
        outputs = norm(layers.Conv2D(4, 3, padding="same")(norm(x)))
    elif case == "other_dtype":
        outputs = layers.BatchNormalization(dtype="mixed_bfloat16")(x)
    elif case == "conv_1d":
        outputs = norm(layers.Conv1D(4, 3)(layers.Reshape((36, 4))(x)))
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize(
    "case",
    [
        "addition",
        "concatenation",
        "padding",
        "input",
        "activation",
        "used_twice",
        "is_an_output",
        "shared_conv",
        "shared_norm",
        "other_dtype",
        "conv_1d",
    ],
)
def test_batch_norm_with_nothing_to_go_into_becomes_a_multiply_add(case: str) -> None:
    model = not_foldable(case)
    folded = assert_folds(model, affine=1, tolerance=1e-2 if case == "other_dtype" else 1e-4)
    assert [layer.name for layer in folded.layers] == [layer.name for layer in model.layers]
    assert [tensor.dtype for tensor in folded.outputs] == [tensor.dtype for tensor in model.outputs]


@pytest.mark.parametrize(("name", "heads"), [("resnet18", 10), ("resnet9", {"b": 3, "a": 5})])
def test_networks_fold_whole_and_keep_names_and_heads(name: str, heads: int | dict[str, int], tmp_path) -> None:
    model = kerascnn.build(name, (32, 32, 3), heads, width=0.125)
    folded = assert_folds(model, affine=0)
    gone = [layer.name for layer in model.layers if isinstance(layer, BatchNorm)]
    assert [layer.name for layer in folded.layers] == [layer.name for layer in model.layers if layer.name not in gone]
    assert (folded.name, folded.input_shape, folded.input.name) == (model.name, model.input_shape, model.input.name)
    if isinstance(heads, dict):
        assert {head: logits.shape[1] for head, logits in folded.output.items()} == heads
    folded.save(tmp_path / "folded.keras")
    pictures = np.random.default_rng(1).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    assert difference(folded, keras.models.load_model(tmp_path / "folded.keras"), pictures) == 0


def test_multiply_add_survives_the_keras_file_format(tmp_path) -> None:
    model = folded = assert_folds(not_foldable("addition"), affine=1)
    for name in ("once.keras", "twice.keras"):
        model.save(tmp_path / name)
        model = keras.models.load_model(tmp_path / name)
    pictures = np.random.default_rng(1).normal(size=(2, 6, 6, 4)).astype("float32")
    assert difference(folded, model, pictures) == 0


def test_nested_models_fold_too() -> None:
    inner_input = keras.Input((6, 6, 4))
    inner = keras.Sequential([keras.Input((6, 6, 4)), layers.Conv2D(4, 3), BatchNorm(name="deepest")], name="inner")
    middle = keras.Model(inner_input, BatchNorm(name="deep")(inner(inner_input)), name="middle")
    inputs = keras.Input((6, 6, 4))
    model = keras.Model(inputs, BatchNorm()(layers.Conv2D(3, 1)(middle(inputs))))
    folded = assert_folds(model, affine=1)
    assert "middle" in [layer.name for layer in folded.layers]


def test_dtype_policies_and_input_dtype_stay_under_mixed_bfloat16() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        inputs = keras.Input((8, 8, 3), dtype="uint8")
        x = layers.Conv2D(8, 3, name="conv")(layers.Rescaling(1 / 255)(inputs))
        x = BatchNorm(name="alone")(layers.add([BatchNorm()(x), x]))
        model = keras.Model(inputs, layers.Dense(3, dtype="float32")(layers.Flatten()(x)))
    finally:
        keras.config.set_dtype_policy("float32")
    pictures = randomise(model, 0).astype("uint8")
    folded = fold_batch_norm(model)
    assert folded.input.dtype == "uint8"
    for layer in folded.layers[1:]:
        assert layer.dtype_policy.name == model.get_layer(layer.name).dtype_policy.name
    assert folded.get_layer("alone").scale.dtype == "float32"
    assert difference(model, folded, pictures) < 2e-2


def test_multiply_add_rounds_only_its_result_to_bfloat16() -> None:
    """3.01 * 1.0078125 + 0.003 = 3.0365..., nearest bfloat16 3.03125; a bfloat16 scale of 3.015625 gives 3.046875."""
    layer = ChannelAffine(dtype="mixed_bfloat16")
    layer.build((None, 1))
    layer.set_weights([np.array([3.01]), np.array([0.003])])
    result = layer(keras.ops.cast([[1.0078125]], "bfloat16"))
    assert keras.backend.standardize_dtype(result.dtype) == "bfloat16"
    assert float(keras.ops.cast(result, "float32")[0, 0]) == 3.03125


def test_folding_works_in_float64() -> None:
    """(20000.25 - 20000) * 0.7 + 0.1: float32 products near 14000 would be off by up to 0.0005."""
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1), layers.BatchNormalization(epsilon=0.0)])
    model.set_weights([np.array(value) for value in ([[1.0]], [20000.25], [0.7], [0.1], [20000.0], [1.0])])
    assert fold_batch_norm(model).get_weights()[1][0] == pytest.approx(0.275, abs=1e-6)


def test_adapted_normalisation_keeps_its_statistics() -> None:
    normalise = layers.Normalization()
    normalise.adapt(np.random.default_rng(0).normal(50, 20, (64, 4)).astype("float32"))
    model = keras.Sequential([keras.Input((4,)), normalise, layers.Dense(3), layers.BatchNormalization()])
    assert_folds(model, affine=0)


@pytest.mark.parametrize(
    ("case", "match"),
    [
        ("subclass", "hidden in its `call`"),
        ("axis", "'norm' must work on the last axis"),
        ("training", "'norm' always works in training mode"),
        ("inside", "'frames' has a BatchNorm inside"),
    ],
)
def test_what_cannot_be_folded_is_refused(case: str, match: str) -> None:
    class Hidden(keras.Model):
        pass

    inputs = keras.Input((6, 6, 4))
    if case == "subclass":
        model = Hidden()
    elif case == "axis":
        model = keras.Model(inputs, layers.BatchNormalization(axis=1, name="norm")(inputs))
    elif case == "training":
        model = keras.Model(inputs, BatchNorm(name="norm")(layers.Conv2D(2, 3)(inputs), training=True))
    else:
        model = keras.Model(inputs, layers.TimeDistributed(layers.BatchNormalization(), name="frames")(inputs))
    with pytest.raises(ValueError, match=match):
        fold_batch_norm(model)
