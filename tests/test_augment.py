"""Every random operation against numpy, pixel by pixel."""

import numpy as np
import pytest
import tensorflow as tf

from pipelines import augment


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 7, 9, 3)).astype("uint8")


def both_ways(operation: augment.Operation, pictures: np.ndarray, choice) -> np.ndarray:
    """Apply eagerly and inside `Dataset.map`; both must agree."""
    choice = tf.constant(choice)
    eager = operation.apply(tf.constant(pictures), choice).numpy()
    data = tf.data.Dataset.from_tensors((pictures, choice)).map(operation.apply)
    np.testing.assert_array_equal(eager, next(iter(data)).numpy())
    assert eager.dtype == pictures.dtype
    return eager


def test_flip_mirrors_exactly_the_chosen_pictures(pictures) -> None:
    chosen = [True, False, True, False, False, True]
    flipped = both_ways(augment.horizontal_flip(), pictures, chosen)
    for before, after, mirrored in zip(pictures, flipped, chosen, strict=True):
        np.testing.assert_array_equal(after, before[:, ::-1] if mirrored else before)


def test_flip_is_drawn_with_its_probability() -> None:
    uniform = tf.constant(np.random.default_rng(0).uniform(size=(20_000, 1)).astype("float32"))
    assert augment.horizontal_flip(0.3).draw(uniform).numpy().mean() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("padding", [0, 1, 3, 6])
def test_crop_is_a_window_of_numpy_reflect_padding(pictures, padding) -> None:
    corners = np.random.default_rng(1).integers(0, 2 * padding + 1, (6, 2)).astype("int32")
    cut = both_ways(augment.random_crop(padding), pictures, corners)
    padded = np.pad(pictures, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode="reflect")
    for number, (top, left) in enumerate(corners):
        np.testing.assert_array_equal(cut[number], padded[number, top : top + 7, left : left + 9])


def test_crop_draws_every_corner_equally_often_and_no_other() -> None:
    uniform = tf.constant(np.random.default_rng(0).uniform(size=(50_000, 2)).astype("float32"))
    counts = np.bincount(augment.random_crop(2).draw(uniform).numpy().reshape(-1))
    assert len(counts) == 5
    np.testing.assert_allclose(counts / counts.sum(), 0.2, atol=0.01)


def test_cutout_zeroes_a_square_that_may_overlap_the_border(pictures) -> None:
    pictures = np.maximum(pictures, 1)
    # The centre is a fraction of the side: 0 is the first pixel, 0.5 of 7 rows is row 3, 0.99 of 9 columns is column 8.
    cut = both_ways(augment.cutout(4), pictures[:3], np.array([[0, 0], [0.5, 0.5], [0.99, 0.99]], "float32"))
    expected = pictures[:3].copy()
    expected[0, 0:2, 0:2] = 0
    expected[1, 1:5, 2:6] = 0
    expected[2, 4:7, 6:9] = 0
    np.testing.assert_array_equal(cut, expected)


def test_affine_without_change_is_the_identity(pictures) -> None:
    choice = np.tile(np.array([0, 0, 1, 0, 0], "float32"), (6, 1))
    np.testing.assert_array_equal(both_ways(augment.affine(), pictures, choice), pictures)


def test_affine_moves_by_whole_pixels_and_repeats_the_edge(pictures) -> None:
    choice = np.tile(np.array([0, 0, 1, 2 / 7, 3 / 9], "float32"), (6, 1))  # two rows down, three columns right
    moved = both_ways(augment.affine(fill="edge"), pictures, choice)
    padded = np.pad(pictures, ((0, 0), (2, 0), (3, 0), (0, 0)), mode="edge")[:, :7, :9]
    np.testing.assert_array_equal(moved, padded)


def test_affine_turns_by_a_right_angle() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3)).astype("uint8")
    turned = both_ways(augment.affine(), picture, np.array([[np.pi / 2, 0, 1, 0, 0]], "float32"))
    candidates = [np.rot90(picture, turns, axes=(1, 2)) for turns in (1, 3)]
    assert any(np.abs(turned.astype(int) - candidate).max() <= 1 for candidate in candidates)


def test_affine_agrees_with_scipy() -> None:
    """Rotation, slant and zoom at once; bilinear, edges repeated."""
    from scipy import ndimage

    picture = ndimage.gaussian_filter(np.random.default_rng(0).uniform(0, 255, (1, 20, 20, 1)), (0, 2, 2, 0))
    angle, slant, scale = 0.3, 0.1, 1.2
    choice = np.array([[angle, slant, scale, 0, 0]], "float32")
    ours = augment.affine().apply(tf.constant(picture.astype("float32")), tf.constant(choice)).numpy()
    # Output (x, y) reads input (a x + b y, c x + d y), about the centre.
    a, b = np.cos(angle) / scale, -np.sin(angle + slant) / scale
    c, d = np.sin(angle) / scale, np.cos(angle + slant) / scale
    matrix = np.array([[d, c], [b, a]])  # scipy counts rows first
    centre = np.array([9.5, 9.5])
    theirs = ndimage.affine_transform(picture[0, :, :, 0], matrix, centre - matrix @ centre, order=1, mode="nearest")
    np.testing.assert_allclose(ours[0, :, :, 0], theirs, atol=0.01)


def test_affine_draws_stay_in_their_ranges() -> None:
    uniform = tf.constant(np.random.default_rng(0).uniform(size=(10_000, 5)).astype("float32"))
    drawn = augment.affine(rotation=10, zoom=0.25, shear=5, translation=0.1).draw(uniform).numpy()
    largest = np.abs(drawn).max(axis=0)
    np.testing.assert_allclose(largest[[0, 1, 3, 4]], [np.radians(10), np.radians(5), 0.1, 0.1], rtol=1e-2)
    np.testing.assert_allclose([drawn[:, 2].min(), drawn[:, 2].max()], [0.8, 1.25], rtol=1e-2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: augment.random_crop(-1), "must not be negative"),
        (lambda: augment.cutout(0), "at least 1 pixel"),
        (lambda: augment.affine(fill="nearest"), "`fill` must be one of"),
    ],
)
def test_operations_refuse_wrong_arguments(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
