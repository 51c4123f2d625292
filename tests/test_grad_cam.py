"""Heat maps of an export: Grad-CAM by another computation, of the class that is answered."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerascnn
from kerascnn.export import Classifier
from kerascnn.grad_cam import last_maps
from kerascnn.layer_table import without_values

SIZE = (8, 12)


def pooled(seed: int, head: str = "label", classes: int = 5) -> keras.Model:
    """A convolution with negative values too, a global mean, one dense layer."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((*SIZE, 3))
    maps = layers.Conv2D(6, 3, strides=2, padding="same", name="maps")(layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, {head: layers.Dense(classes, name=head)(layers.GlobalAveragePooling2D()(maps))})


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, *SIZE, 3)).astype("uint8")


def explain(models: list[keras.Model], pictures: np.ndarray, **options: object) -> dict[str, np.ndarray]:
    classifier = Classifier(models, SIZE, decode=None, resize=lambda x, size: x, **options)
    return {head: maps.numpy() for head, maps in classifier.explain()(tf.constant(pictures)).items()}


def class_activation(model: keras.Model, pictures: np.ndarray, classes: np.ndarray, head: str = "label") -> np.ndarray:
    """CAM (https://arxiv.org/abs/1512.04150): maps weighted by the dense layer's kernel; positive, enlarged, to 1."""
    maps = keras.Model(model.input, model.get_layer("maps").output)(pictures.astype("float32")).numpy()
    kernel = model.get_layer(head).kernel.numpy()
    weighted = np.maximum(np.einsum("nhwc,nc->nhw", maps, kernel[:, classes].T), 0)
    enlarged = np.stack([bilinear(one) for one in weighted])
    largest = enlarged.max(axis=(1, 2), keepdims=True)
    return np.divide(enlarged, largest, out=np.zeros_like(enlarged), where=largest > 0)


def bilinear(values: np.ndarray) -> np.ndarray:
    """Enlarged to `SIZE` along one side, then the other; pixel centres, constant beyond the edges."""
    for axis, size in enumerate(SIZE):
        old = values.shape[axis]
        centres = (np.arange(size) + 0.5) * old / size - 0.5
        values = np.apply_along_axis(
            lambda line, at, count: np.interp(at, np.arange(count), line), axis, values, centres, old
        )
    return values


def test_heat_maps_equal_class_activation_maps_where_only_a_mean_and_a_dense_layer_follow(pictures) -> None:
    model = pooled(0)
    likeliest = model(pictures.astype("float32"))["label"].numpy().argmax(axis=1)
    found = explain([model], pictures)["label"]
    assert (found.shape, found.dtype) == ((7, *SIZE), np.float32)
    np.testing.assert_allclose(found, class_activation(model, pictures, likeliest), atol=1e-5)
    assert found.min() == 0
    np.testing.assert_allclose(found.max(axis=(1, 2)), 1)


def test_heat_maps_are_of_the_class_that_all_networks_together_answer(pictures) -> None:
    one, other = pooled(0, classes=3), pooled(1, classes=3)
    other.get_layer("label").bias.assign([0.0, 0.0, 9.0])
    found = explain([one, other], pictures, weights=[1, 9], mirror=True, names={"label": "größe"})["größe"]
    np.testing.assert_allclose(found, class_activation(one, pictures, np.full(7, 2)), atol=1e-5)


def test_a_picture_where_nothing_speaks_for_the_class_has_zeros(pictures) -> None:
    model = pooled(0, classes=2)
    kernel = np.zeros((6, 2), "float32")
    model.get_layer("label").set_weights([kernel, np.array([1.0, 0.0], "float32")])
    np.testing.assert_array_equal(explain([model], pictures)["label"], 0)


def test_every_head_has_the_maps_of_its_own_branch_also_where_nothing_is_trained(pictures) -> None:
    one, other = pooled(0, "a"), pooled(1, "b")
    inputs = keras.Input((*SIZE, 3))
    towers = {}
    for tower in (one, other):
        x = inputs
        for layer in tower.layers[1:]:
            x = layer(x)
        towers[tower.layers[-1].name] = keras.layers.Activation("linear")(x)
    other.get_layer("maps").name = "other_maps"
    both = keras.Model(inputs, towers)
    both.trainable = False
    found = explain([both], pictures)
    for head, tower in (("a", one), ("b", other)):
        np.testing.assert_allclose(found[head], explain([tower], pictures)[head], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "size", "maps"),
    [
        ("resnet18", 64, (2, 2)),
        ("vgg11", 32, (2, 2)),
        ("lenet5", 32, (10, 10)),
        ("airbench94", 32, (3, 3)),
        ("convnext_tiny", 64, (2, 2)),
        ("efficientnet_b0", 64, (2, 2)),
        ("densenet121", 64, (2, 2)),
        ("preact_resnet18", 32, (4, 4)),
    ],
)
def test_maps_are_the_last_before_pooling(name, size, maps) -> None:
    model = without_values(lambda: kerascnn.build(name, (size, size, 3), 4))
    assert last_maps(model).shape[1:3] == maps


def test_a_network_without_maps_cannot_be_explained() -> None:
    inputs = keras.Input((*SIZE, 3))
    model = keras.Model(inputs, {"label": layers.Dense(2)(layers.Flatten()(inputs))})
    with pytest.raises(ValueError, match="`explain` needs a network with feature maps"):
        Classifier([model], SIZE, decode=None, resize=None).explain()
