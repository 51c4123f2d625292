"""Transforms of other libraries in the same list: they see pictures alone, in the dtype they need, reproducibly."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations
import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines import augment, make_train
from pipelines.randomness import uniform

PICTURES = np.random.default_rng(0).integers(0, 256, (8, 12, 10, 3)).astype("uint8")
LABELS = {"label": np.arange(8)}


def batches(step, count: int = 4, **options) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures and class numbers of some batches of 4."""
    data = make_train(PICTURES, LABELS, {"label": 8}, batch_size=4, augmentation=[step], **options)
    return [(x.numpy(), y["label"].numpy().argmax(axis=1)) for x, y, _ in data.take(count)]


def test_keras_layer_changes_pictures_and_leaves_labels() -> None:
    for x, classes in batches(keras.layers.RandomFlip("horizontal")):
        for picture, number in zip(x, classes, strict=True):
            assert any(np.array_equal(picture, one) for one in (PICTURES[number], PICTURES[number][:, ::-1]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.layers.RandomRotation(0.2),
        lambda: keras.layers.RandomBrightness(0.5),
        lambda: keras.layers.RandAugment(num_ops=2),
        lambda: keras.Sequential([keras.layers.RandomFlip(), keras.layers.RandomContrast(0.5)]),
    ],
    ids=["rotation", "brightness", "randaugment", "sequential"],
)
def test_keras_layer_is_repeatable_and_can_be_resumed(make) -> None:
    """Each time a new layer with another seed of its own, as in another process."""
    first, second = batches(make(), 6), batches(make(), 6)
    resumed = batches(make(), 2, first_epoch=2)  # two batches an epoch
    for (a, _), (b, _) in [*zip(first, second, strict=True), *zip(first[4:], resumed, strict=True)]:
        np.testing.assert_array_equal(a, b)
    assert len({x.tobytes() for x, _ in first}) == 6


def test_keras_layer_computes_in_float32_under_a_bfloat16_policy() -> None:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        (x, classes), *_ = batches(keras.layers.RandomTranslation(0.0, 0.0, fill_mode="nearest"))
    finally:
        keras.config.set_dtype_policy(policy)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, PICTURES[classes], atol=1e-3)  # bfloat16 would round 255 values to 8 bits of each


def test_layer_of_ones_own_and_keras_cv_are_accepted() -> None:
    class Invert(keras.layers.Layer):
        def call(self, x):
            return 255 - x

    for x, classes in batches(Invert()):
        np.testing.assert_array_equal(x, 255.0 - PICTURES[classes])
    keras_cv = pytest.importorskip("keras_cv")
    for x, classes in batches(keras_cv.layers.Grayscale(output_channels=3)):
        assert (x[..., 0] == x[..., 1]).all()
        np.testing.assert_allclose(x[..., 0], PICTURES[classes] @ [0.299, 0.587, 0.114], atol=1)


def test_albumentations_sees_single_uint8_pictures_and_is_repeatable() -> None:
    step = albumentations.Compose([albumentations.HorizontalFlip(p=0.5), albumentations.RandomBrightnessContrast(p=1)])
    first, second = batches(step, 6), batches(step, 6)
    for (a, _), (b, _) in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    resumed = batches(step, 2, first_epoch=2)
    np.testing.assert_array_equal(resumed[1][0], first[5][0])
    for x, classes in batches(albumentations.VerticalFlip(p=1)):
        np.testing.assert_array_equal(x, PICTURES[classes][:, ::-1])


def test_albumentations_may_change_the_size() -> None:
    ((x, _), *_) = batches(albumentations.RandomCrop(6, 5))
    assert x.shape == (4, 6, 5, 3)


def test_function_sees_the_batch_in_float32_and_may_ask_for_seeds() -> None:
    def darker(pictures):
        assert pictures.dtype == tf.float32
        return pictures / 2

    for x, classes in batches(darker):
        np.testing.assert_array_equal(x, PICTURES[classes] / 2)

    def dim(pictures, seeds):
        return pictures * uniform(seeds, 1)[:, :, None, None]

    for (a, _), (b, _) in zip(batches(dim), batches(dim), strict=True):
        np.testing.assert_array_equal(a, b)


def test_foreign_and_own_steps_stand_in_one_list() -> None:
    steps = [augment.random_crop(2), keras.layers.RandomFlip("horizontal"), albumentations.VerticalFlip(), lambda x: x]
    data = make_train(PICTURES, LABELS, {"label": 8}, batch_size=4, augmentation=[*steps, augment.mixup(1.0)])
    x, y, _ = next(iter(data))
    assert x.shape == (4, 12, 10, 3)
    np.testing.assert_allclose(y["label"].numpy().sum(axis=1), 1, rtol=1e-5)


def test_what_is_no_transform_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"must be one of pipelines\.augment, a Keras or KerasCV layer, .* Received: 'flip'"
    ):
        batches("flip")
    with pytest.raises(TypeError, match="must take pictures, or pictures and seeds"):
        batches(lambda x, y, z: x)
    with pytest.raises(ValueError, match="must return a batch of pictures"):
        batches(lambda x: tf.reduce_mean(x, axis=[1, 2, 3]))


@pytest.mark.parametrize("layer", [keras.layers.MixUp, keras.layers.CutMix])
def test_layer_that_mixes_pictures_is_refused_since_labels_would_stay(layer) -> None:
    with pytest.raises(
        TypeError, match=r"mixes pictures and would leave their labels as they are\. Use augment\.mixup"
    ):
        batches(layer())
    with pytest.raises(TypeError, match="would leave their labels"):
        batches(keras.Sequential([layer()]))
