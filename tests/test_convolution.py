"""The convolution with its own filter gradient: the values and gradients of Keras' layer, and where it is used."""

import keras
import numpy as np
import pytest

from kerascnn.convolution import Conv2D

if keras.backend.backend() != "tensorflow":
    pytest.skip("The gradient is TensorFlow's; elsewhere the layer is Keras' own.", allow_module_level=True)

import tensorflow as tf

# kernel, stride, padding, size of the picture: odd and even, oblong, with rows that the stride leaves over
CASES = [
    *((3, 1, "same", (8, 6)), (3, 2, "valid", (17, 17)), (3, 2, "valid", (18, 18)), (5, 1, "same", (7, 7))),
    *((4, 1, "same", (7, 7)), (3, 3, "valid", (11, 13)), ((1, 7), 1, "same", (8, 8)), ((3, 5), 1, "valid", (8, 8))),
]


def outputs_and_gradients(layer: keras.layers.Layer, x: tf.Tensor) -> list[np.ndarray]:
    """The outputs, and the gradients of the sum of their squares by inputs and kernel, in a graph as in training."""

    @tf.function
    def compute() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(tf.cast(y, "float32") ** 2)
        return [y, *tape.gradient(loss, [x, layer.kernel.value])]

    return [tf.cast(value, "float32").numpy() for value in compute()]


@pytest.mark.parametrize("pictures", [8, 12, 16, 24])
@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), CASES)
def test_gradients_are_those_of_keras(
    kernel: int | tuple[int, int], stride: int, padding: str, size: tuple[int, int], pictures: int
) -> None:
    x = tf.constant(np.random.default_rng(0).normal(size=(pictures, *size, 12)).astype("float32"))
    answers = []
    for kind, dtype in (
        (Conv2D, "mixed_bfloat16"),
        (keras.layers.Conv2D, "mixed_bfloat16"),
        (keras.layers.Conv2D, "float32"),
    ):
        layer = kind(16, kernel, stride, padding=padding, dtype=dtype)
        layer.build(x.shape)
        values = np.random.default_rng(1).normal(size=layer.kernel.shape)
        layer.set_weights([values.astype("float32"), np.full(16, 0.5)])
        answers.append(outputs_and_gradients(layer, x))
    ours, keras_bfloat16, keras_float32 = answers
    np.testing.assert_array_equal(ours[0], keras_bfloat16[0])
    np.testing.assert_array_equal(ours[1], keras_bfloat16[1])
    # The sums are rounded once either way: both are as near to the float32 gradient as 8 bits are.
    for found in (ours[2], keras_bfloat16[2]):
        assert np.abs(found - keras_float32[2]).max() < 0.01 * np.abs(keras_float32[2]).max()


@pytest.mark.parametrize(
    ("size", "dtype", "options", "own"),
    [
        (8, "mixed_bfloat16", {}, True),
        (9, "mixed_bfloat16", {}, False),  # 81 pixels
        (8, "float32", {}, False),
        (8, "mixed_bfloat16", {"kernel_size": 1}, False),
        (8, "mixed_bfloat16", {"dilation_rate": 2}, False),
        (8, "mixed_bfloat16", {"strides": 2}, False),  # "same" pads one side only
    ],
)
def test_own_gradient_is_for_small_maps_in_bfloat16(size: int, dtype: str, options: dict[str, int], own: bool) -> None:
    layer = Conv2D(**{"filters": 4, "kernel_size": 3, "padding": "same", "dtype": dtype, **options})
    layer.build((None, size, size, 2))

    @tf.function
    def gradient(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x))
        return tape.gradient(loss, layer.kernel.value)

    graph = gradient.get_concrete_function(tf.TensorSpec((None, size, size, 2))).graph
    assert ("Conv2DBackpropFilter" not in {operation.type for operation in graph.get_operations()}) == own


def test_groups_are_convolved_as_by_keras() -> None:
    x = tf.constant(np.random.default_rng(0).normal(size=(4, 8, 8, 6)).astype("float32"))
    answers = []
    for kind in (Conv2D, keras.layers.Conv2D):
        layer = kind(8, 3, padding="same", groups=2, dtype="mixed_bfloat16")
        layer.build(x.shape)
        values = np.random.default_rng(1).normal(size=layer.kernel.shape)
        layer.set_weights([values.astype("float32"), np.full(8, 0.5)])
        answers.append(outputs_and_gradients(layer, x))
    for ours, of_keras in zip(*answers, strict=True):
        np.testing.assert_array_equal(ours, of_keras)


def test_pictures_of_unknown_size_are_convolved_as_by_keras() -> None:
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, Conv2D(3, 3, padding="same", dtype="mixed_bfloat16")(inputs))
    assert model(np.zeros((1, 5, 7, 2))).shape == (1, 5, 7, 3)
