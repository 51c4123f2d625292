"""What makes a network learn fast from the first step: whitened patches, identity kernels, frozen scales."""

import keras
import numpy as np
import pytest
from keras import ops

import kerascnn
from kerascnn.batch_norm import BatchNorm
from kerascnn.initializers import Dirac, get_initializer
from kerascnn.whitening import PatchWhitening


def smooth_pictures(count: int = 60, size: int = 12) -> np.ndarray:
    """Pictures whose neighbouring pixels are alike, as those of photographs are."""
    noise = np.random.default_rng(0).normal(size=(count, size + 4, size + 4, 3))
    blurred = sum(noise[:, i : i + size, j : j + size] for i in range(5) for j in range(5)) / 5
    return (128 + 40 * blurred).clip(0, 255).astype("uint8")


def whitened(model: keras.Model, pictures: np.ndarray) -> np.ndarray:
    layer = keras.Model(model.inputs[0], model.get_layer("whitening").output)
    return ops.convert_to_numpy(layer(pictures.astype("float32")))


def test_whitened_patches_are_uncorrelated_and_of_unit_variance() -> None:
    pictures = smooth_pictures()
    model = kerascnn.build("resnet9", (12, 12, 3), 2, width=0.125, whitening=2, mean=[128] * 3, std=[40] * 3)
    kerascnn.fit_whitening(model, pictures)
    found = whitened(model, pictures)
    assert found.shape == (60, 11, 11, 24)  # 2 x 2 x 3 values of a patch, with both signs
    np.testing.assert_allclose(found[..., 12:], -found[..., :12], atol=1e-5)
    values = found[..., :12].reshape(-1, 12)
    # The second moments of the network's own pixels, computed anew: eigenvalue / (eigenvalue + epsilon).
    np.testing.assert_allclose(values.T @ values / len(values), np.eye(12), atol=0.05)


def test_a_patch_of_one_value_is_divided_by_its_root_mean_square() -> None:
    layer = PatchWhitening(channels=1, kernel_size=1, epsilon=0.25)
    pixels = np.array([-1.0, 1.0, 2.0, -2.0, 0.0, 1.5], "float32").reshape(1, 2, 3, 1)
    layer.build(pixels.shape)
    layer.fit(pixels)
    # Mean square 12.25 / 6; the sign of an eigenvector is free.
    expected = 1 / np.sqrt(12.25 / 6 + 0.25)
    np.testing.assert_allclose(np.abs(layer.get_weights()[0].ravel()), [expected, expected], rtol=1e-6)
    assert layer.get_weights()[0].sum() == 0


def test_whitening_is_not_trained_and_stays_in_the_file(tmp_path) -> None:
    pictures = smooth_pictures(8)
    model = kerascnn.build("airbench94", (12, 12, 3), 2, width=0.125)
    kerascnn.fit_whitening(model, pictures)
    before = model.get_layer("whitening").get_weights()[0]
    model.trainable = True
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(pictures.astype("float32"), np.arange(8) % 2, batch_size=4, epochs=1, verbose=0)
    assert not [one.path for one in model.trainable_variables if "whitening" in one.path]
    np.testing.assert_array_equal(model.get_layer("whitening").get_weights()[0], before)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.get_layer("whitening").get_weights()[0], before)
    np.testing.assert_allclose(loaded(pictures[:2]), model(pictures[:2]), rtol=1e-6)


def test_whitening_hands_patches_on_until_it_is_fitted() -> None:
    pixels = np.random.default_rng(0).normal(size=(1, 3, 3, 2)).astype("float32")
    found = ops.convert_to_numpy(PatchWhitening(channels=2)(pixels))
    expected = np.stack([pixels[0, :2, :2], pixels[0, :2, 1:], pixels[0, 1:, :2], pixels[0, 1:, 1:]], axis=2)
    np.testing.assert_allclose(found[0, ..., :8], expected.reshape(2, 2, 8), rtol=1e-6)
    np.testing.assert_allclose(found[..., 8:], -found[..., :8])


def test_whitening_of_many_pictures_uses_some_of_them(monkeypatch) -> None:
    from kerascnn import whitening

    pictures = smooth_pictures(60)
    monkeypatch.setattr(whitening, "PIXELS", 20 * 12 * 12)
    kernels = []
    for part in (pictures, pictures[::3]):
        model = kerascnn.build("airbench94", (12, 12, 3), 2, width=0.125)
        kerascnn.fit_whitening(model, part)
        kernels.append(model.get_layer("whitening").get_weights()[0])
    np.testing.assert_array_equal(*kernels)


def test_dirac_kernels_hand_their_inputs_on() -> None:
    keras.utils.set_random_seed(0)
    pictures = np.random.default_rng(0).normal(size=(2, 5, 5, 4)).astype("float32")
    for filters in (3, 4, 6):
        layer = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, kernel_initializer=Dirac())
        found = ops.convert_to_numpy(layer(pictures))
        np.testing.assert_array_equal(found[..., :4], pictures[..., :filters])
    rest = layer.get_weights()[0][..., 4:]
    assert 0.9 / 6 < np.abs(rest).max() <= 1 / 6  # 1 / sqrt(3 * 3 * 4 inputs)
    assert len(np.unique(rest)) == rest.size


def test_dirac_kernels_of_groups_and_of_single_channels_hand_theirs_on() -> None:
    keras.utils.set_random_seed(0)
    pictures = np.random.default_rng(0).normal(size=(2, 5, 5, 4)).astype("float32")
    grouped = keras.layers.Conv2D(
        6, 3, padding="same", use_bias=False, groups=2, kernel_initializer=get_initializer("dirac", 2)
    )
    grouped.build(pictures.shape)
    kernel = grouped.get_weights()[0]  # inputs 0 and 1 for filters 0 to 2, inputs 2 and 3 for filters 3 to 5
    for filters in (kernel[..., :3], kernel[..., 3:]):
        np.testing.assert_array_equal(filters[1, 1, :, :2], np.eye(2))
        assert np.abs(filters[..., :2]).sum() == 2
        assert len(np.unique(filters[..., 2])) == 18
    model = kerascnn.build("resnext50_32x4d", (32, 32, 3), 2, width=0.25, blocks=(1, 1, 1, 1), initializer="dirac")
    layer = next(one for one in model.layers if isinstance(one, keras.layers.Conv2D) and one.groups > 1)
    centre = layer.get_weights()[0][1, 1]  # as many inputs as filters in every group
    np.testing.assert_array_equal(centre, np.tile(np.eye(len(centre)), layer.groups))
    model = kerascnn.build("mobilenet_v2", (32, 32, 3), 2, width=0.25, initializer="dirac")
    depthwise = next(layer for layer in model.layers if isinstance(layer, keras.layers.DepthwiseConv2D))
    delta = np.zeros(depthwise.kernel.shape)
    delta[1, 1] = 1
    np.testing.assert_array_equal(depthwise.get_weights()[0], delta)


def test_dirac_of_a_network_is_drawn_by_the_seed() -> None:
    kernels = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        model = kerascnn.build("airbench94", (16, 16, 3), 2, width=0.5)
        kernels.append(model.get_layer("group1_1_conv").get_weights()[0])
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert kernels[0].shape == (3, 3, 24, 32)
    np.testing.assert_array_equal(kernels[0][..., :24], kernels[2][..., :24])
    assert not np.array_equal(kernels[0][..., 24:], kernels[2][..., 24:])


@pytest.mark.parametrize("shape", [(16, 6, 6, 3), (16, 3)])  # the fused kernel, and Keras' own
def test_frozen_scale_stays_where_it_is_and_the_shift_learns(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(3.0, 2.0, shape).astype("float32")
    model = keras.Sequential([keras.Input(shape[1:]), BatchNorm(frozen_scale=1.5, gamma_initializer="zeros")])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    first = ops.convert_to_numpy(model(x, training=True))
    np.testing.assert_allclose(first.reshape(-1, 3).std(axis=0), [1.5] * 3, rtol=1e-3)
    model.trainable = True
    model.fit(x, x, batch_size=16, verbose=0)
    (layer,) = model.layers
    assert [one.name for one in model.trainable_variables] == ["beta"]
    np.testing.assert_array_equal(layer.gamma, [1.5] * 3)
    assert ops.convert_to_numpy(layer.beta).all()
    again = keras.Sequential.from_config(model.get_config())
    assert [one.name for one in again.trainable_variables] == ["beta"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"whitening": -1}, "`whitening` must be a whole number, 0 or more. Received: whitening=-1"),
        ({"whitening": 20}, "`whitening` needs 20 pixels in height and width. Received: 16x16"),
        ({"whitening": 1.5}, "`whitening` must be a whole number"),
        ({"frozen_scale": -1.0}, "`frozen_scale` must be 0 or more"),
        ({"frozen_scale": 1.0, "norm": "layer"}, "`frozen_scale` must be 0 unless the norm is 'batch'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kerascnn.build("resnet9", (16, 16, 3), 2, width=0.125, **options)
