"""Fully convolutional: the classifier's logits at its own size, a map of them at larger sizes."""

import keras
import numpy as np
import pytest
from keras import layers
from test_fold import answers, difference, randomise

import kerascnn
from kerascnn.fold import fold_batch_norm
from kerascnn.fully_convolutional import fully_convolutional


def classifier(ending: str, padding: str = "valid") -> keras.Model:
    """Two convolutions with stride 2: pictures of 20 x 16 give maps of 4 x 3 (5 x 4 when padded)."""
    inputs = keras.Input((20, 16, 3), name="pixels")
    x = layers.Rescaling(1 / 128, -1.0)(inputs)
    x = layers.Conv2D(6, 3, 2, padding=padding, activation="relu")(x)
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, 2, padding=padding)(x)))
    if ending == "flatten":
        x = layers.Dropout(0.5)(layers.Flatten()(x))
        x = layers.Dense(10, activation="relu", name="wide")(x)
        x = layers.Dropout(0.5)(layers.BatchNormalization()(layers.Dense(9, use_bias=False)(x)))
        return keras.Model(inputs, layers.Softmax()(layers.Dense(4)(x)))
    if ending == "average":
        x = layers.LayerNormalization()(layers.GlobalAveragePooling2D()(x))
        return keras.Model(inputs, {"b": layers.Dense(4)(x), "a": layers.Dense(2, activation="tanh")(x)})
    if ending == "maximum":
        x = layers.Flatten()(layers.GlobalMaxPooling2D(keepdims=True)(x))
        return keras.Model(inputs, layers.Rescaling(0.5)(layers.Dense(4)(x)))
    assert ending == "mixed"  # heads that read maps of different sizes
    early = layers.Dense(3)(layers.Flatten()(layers.AveragePooling2D(2)(x)))
    late = layers.Dense(4)(layers.GlobalAveragePooling2D(keepdims=True)(x))
    return keras.Model(inputs, [early, late])


ENDINGS = ["flatten", "average", "maximum"]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_map_is_one_cell_with_the_classifiers_logits_at_its_own_size(ending: str, padding: str) -> None:
    model = classifier(ending, padding)
    pictures = randomise(model, 0)
    converted = fully_convolutional(model)
    assert not any(isinstance(layer, layers.Dense | layers.Flatten) for layer in converted.layers)
    for logits, cells in zip(answers(model, pictures), answers(converted, pictures), strict=True):
        assert cells.shape == (len(pictures), 1, 1, logits.shape[-1])
        np.testing.assert_allclose(cells[:, 0, 0], logits, atol=1e-5 * np.abs(logits).max())


def crops(model: keras.Model, picture: np.ndarray, rows: int, columns: int) -> list[np.ndarray]:
    """The classifier on every crop of 20 x 16 pixels, 4 pixels apart."""
    cut = [
        picture[4 * row : 4 * row + 20, 4 * column : 4 * column + 16]
        for row in range(rows)
        for column in range(columns)
    ]
    return [output.reshape(rows, columns, -1) for output in answers(model, np.stack(cut))]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_cell_is_the_classifier_on_its_crop_when_nothing_is_padded(ending: str) -> None:
    model = classifier(ending)
    randomise(model, 0)
    picture = np.random.default_rng(1).uniform(0, 255, (32, 24, 3)).astype("float32")
    cells = answers(fully_convolutional(model), picture[None])
    for one, other in zip(cells, crops(model, picture, rows=4, columns=3), strict=True):
        assert one.shape == (1, *other.shape)
        np.testing.assert_allclose(one[0], other, atol=1e-5 * np.abs(other).max())


def test_cells_differ_from_their_crops_where_the_network_pads() -> None:
    """The classifier sees zeros around a crop, the map sees the picture."""
    model = classifier("average", padding="same")
    randomise(model, 0)
    picture = np.random.default_rng(1).uniform(0, 255, (32, 24, 3)).astype("float32")
    cells = answers(fully_convolutional(model), picture[None])[0][0]
    other = crops(model, picture, rows=4, columns=3)[0]
    assert cells.shape == other.shape
    assert np.abs(cells - other).max() > 1e-2 * np.abs(other).max()


def test_heads_may_read_maps_of_different_sizes() -> None:
    model = classifier("mixed")
    pictures = randomise(model, 0)
    converted = fully_convolutional(model)
    for logits, cells in zip(answers(model, pictures), answers(converted, pictures), strict=True):
        np.testing.assert_allclose(cells[:, 0, 0], logits.reshape(8, -1), atol=1e-5)
    assert [cells.shape[1:3] for cells in answers(converted, np.zeros((1, 36, 32, 3)))] == [(3, 3), (5, 5)]


@pytest.mark.parametrize("name", ["resnet18", "resnet9"])
def test_networks_convert_with_their_heads_and_names(name: str) -> None:
    model = kerascnn.build(name, (32, 32, 3), {"b": 3, "a": 5}, width=0.125)
    pictures = randomise(model, 0)
    converted = fully_convolutional(model)
    assert [layer.name for layer in converted.layers] == [layer.name for layer in model.layers]
    assert {head: cells.shape for head, cells in converted.output.items()} == {
        "b": (None, None, None, 3),
        "a": (None, None, None, 5),
    }
    for logits, cells in zip(answers(model, pictures), answers(converted, pictures), strict=True):
        np.testing.assert_allclose(cells[:, 0, 0], logits, atol=1e-5 * np.abs(logits).max())


def test_squeeze_and_excitation_looks_at_the_whole_picture() -> None:
    inputs = keras.Input((9, 9, 3))
    x = layers.Conv2D(4, 3)(inputs)
    gate = layers.Dense(4, activation="sigmoid")(layers.Dense(2, activation="relu")(layers.GlobalAveragePooling2D()(x)))
    x = layers.multiply([x, layers.Reshape((1, 1, 4))(gate)])
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    pictures = randomise(model, 0)
    converted = fully_convolutional(model)
    assert sum(isinstance(layer, layers.GlobalAveragePooling2D) for layer in converted.layers) == 1
    np.testing.assert_allclose(converted(pictures)[:, 0, 0], model(pictures), atol=1e-5)
    assert converted(np.zeros((1, 12, 10, 3))).shape == (1, 4, 2, 2)


def test_folded_networks_convert() -> None:
    model = classifier("average")
    pictures = randomise(model, 0)
    cells = answers(fully_convolutional(fold_batch_norm(model)), pictures)
    for logits, cell in zip(answers(model, pictures), cells, strict=True):
        np.testing.assert_allclose(cell[:, 0, 0], logits, atol=1e-4 * np.abs(logits).max())


def test_converted_network_keeps_dtypes_and_survives_the_keras_file_format(tmp_path) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = kerascnn.build("resnet9", (16, 16, 3), 4, width=0.125)
    finally:
        keras.config.set_dtype_policy("float32")
    converted = fully_convolutional(model)
    for layer in converted.layers[1:]:
        assert layer.dtype_policy.name == model.get_layer(layer.name).dtype_policy.name
    converted.save(tmp_path / "converted.keras")
    pictures = randomise(model, 0)
    assert difference(converted, keras.models.load_model(tmp_path / "converted.keras"), pictures) == 0


def broken(case: str) -> keras.Model:
    inputs = keras.Input((None, None, 3) if case == "free" else (8, 8, 3), name="pixels")
    x = layers.Conv2D(4, 3, name="features")(inputs)
    if case == "nested":
        x = keras.Sequential([keras.Input((6, 6, 4)), layers.Conv2D(4, 3)], name="inner")(x)
    if case == "no_pooling":
        return keras.Model(inputs, x)
    if case == "no_dense":
        return keras.Model(inputs, layers.Flatten(name="flat")(x))
    if case == "softmax":
        return keras.Model(inputs, layers.Dense(2)(layers.Activation("softmax", name="soft")(layers.Flatten()(x))))
    if case == "axis":
        x = layers.BatchNormalization(axis=1, name="norm")(layers.GlobalAveragePooling2D()(x))
        return keras.Model(inputs, layers.Dense(2)(x))
    if case == "per_feature":
        return keras.Model(inputs, layers.Dense(2)(layers.LayerNormalization(name="norm")(layers.Flatten()(x))))
    if case == "merge":
        x = layers.GlobalAveragePooling2D()(x)
        return keras.Model(inputs, layers.Concatenate(name="join")([layers.Dense(2)(x), x]))
    if case == "fixed":
        x = layers.Conv2D(4, 1)(layers.GlobalAveragePooling2D(keepdims=True)(x))
        return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize(
    ("case", "match"),
    [
        ("free", r"one input of a fixed size.*\(None, None, 3\)"),
        ("nested", "nested model, 'inner'"),
        ("no_pooling", "No global pooling and no `Flatten`"),
        ("no_dense", "'flat'.*expected a dense layer"),
        ("softmax", "Activation 'soft' on a flattened map of 6 x 6"),
        ("axis", "BatchNormalization 'norm' in a head"),
        ("per_feature", "LayerNormalization 'norm' on a flattened map of 6 x 6"),
        ("merge", "'join' of a head must be called once, on one tensor"),
        ("fixed", "fixed size remains"),
    ],
)
def test_what_has_no_convolutional_equal_is_refused(case: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        fully_convolutional(broken(case))
