"""BatchNorm of parts of a batch, against numpy; on both backends."""

import keras
import numpy as np
import pytest

from kerascnn.batch_norm import BatchNorm


@pytest.mark.parametrize("shape", [(6, 4, 5, 3), (6, 3)])
def test_each_part_has_its_own_statistics_and_the_running_ones_are_their_mean(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(3, 2, shape).astype("float32")
    layer = BatchNorm(parts=3, momentum=0.75, epsilon=0.5)
    layer.build(shape)
    layer.set_weights([np.array(values, "float32") for values in ([1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 1, 1])])
    found = keras.ops.convert_to_numpy(layer(x, training=True))

    parts = x.reshape(3, 2, *shape[1:])
    axes = tuple(range(1, parts.ndim - 1))
    mean, variance = parts.mean(axes, keepdims=True), parts.var(axes, keepdims=True)
    expected = (parts - mean) / np.sqrt(variance + 0.5) * [1, 2, 3] + [4, 5, 6]
    np.testing.assert_allclose(found, expected.reshape(shape), rtol=1e-4, atol=1e-4)
    running, spread = layer.get_weights()[2:]
    np.testing.assert_allclose(running, 0.75 * np.array([7, 8, 9]) + 0.25 * mean.reshape(3, 3).mean(0), rtol=1e-5)
    np.testing.assert_allclose(spread, 0.75 + 0.25 * variance.reshape(3, 3).mean(0), rtol=1e-5)


def test_one_part_is_the_whole_batch_and_answers_know_no_parts() -> None:
    x = np.random.default_rng(0).normal(3, 2, (6, 4, 5, 3)).astype("float32")
    whole, parts = BatchNorm(), BatchNorm(parts=2)
    for layer in (whole, parts):
        layer.build(x.shape)
    np.testing.assert_allclose(
        *(keras.ops.convert_to_numpy(layer(x, training=False)) for layer in (whole, parts)), rtol=1e-5
    )
    reference = keras.layers.BatchNormalization()
    np.testing.assert_allclose(
        *(keras.ops.convert_to_numpy(layer(x, training=True)) for layer in (whole, reference)), rtol=1e-4, atol=1e-4
    )


def test_parts_are_kept_with_the_layer_and_must_be_positive() -> None:
    assert BatchNorm.from_config(BatchNorm(parts=4).get_config()).parts == 4
    with pytest.raises(ValueError, match=r"at least 1\. Received: parts=0"):
        BatchNorm(parts=0)
