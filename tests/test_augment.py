"""Operations in general, and those that move pixels, against numpy and scipy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage, stats

from pipelines import augment
from pipelines.batches import augment_batch
from pipelines.randomness import example_seeds

SCIPY_MODES = {
    "constant": "grid-constant",
    "edge": "nearest",
    "reflect": "mirror",
    "symmetric": "reflect",
    "wrap": "grid-wrap",
}


def seeds_for(count: int, seed: int = 0) -> tf.Tensor:
    return example_seeds(seed, tf.constant(0), tf.range(count))


def both_ways(operation: augment.Operation, pictures: np.ndarray, choice: Any) -> np.ndarray:
    """Apply eagerly and inside `Dataset.map`, where the number of pictures is not known; both must agree."""
    choice = tf.nest.map_structure(tf.constant, choice)

    def in_graph(pictures: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        return operation.apply(pictures, tf.nest.map_structure(lambda values: tf.gather(values, places), choice))

    eager = operation.apply(tf.constant(pictures), choice).numpy()
    assert eager.dtype == pictures.dtype
    slices = tf.data.Dataset.from_tensor_slices((pictures, np.arange(len(pictures))))
    data = slices.batch(len(pictures)).map(in_graph)
    assert data.element_spec.shape.as_list() == [None, *eager.shape[1:]]
    (mapped,) = data
    np.testing.assert_allclose(mapped.numpy(), eager, rtol=0, atol=1e-3)
    return eager


@pytest.fixture(params=["uint8", "float32"])
def pictures(request: pytest.FixtureRequest) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 7, 9, 3)).astype(request.param)


OPERATIONS: dict[str, Callable[[], augment.Operation]] = {
    "horizontal_flip": augment.horizontal_flip,
    "alternating_flip": augment.alternating_flip,
    "vertical_flip": augment.vertical_flip,
    "random_crop": lambda: augment.random_crop(3),
    "random_resized_crop": lambda: augment.random_resized_crop((8, 12)),
    "affine": lambda: augment.affine(20, 0.3, 10, 0.2, fill="symmetric"),
    "brightness": lambda: augment.brightness(0.4),
    "contrast": lambda: augment.contrast(0.4),
    "saturation": lambda: augment.saturation(0.4),
    "hue": lambda: augment.hue(0.3),
    "grayscale": lambda: augment.grayscale(0.5),
    "gaussian_noise": lambda: augment.gaussian_noise(10),
    "cutout": lambda: augment.cutout(4, "noise"),
    "random_erasing": augment.random_erasing,
    "one_of": lambda: augment.one_of([augment.hue(0.3), augment.cutout(4)]),
    "with_probability": lambda: augment.with_probability(0.5, augment.random_crop(3)),
    "randaugment": lambda: augment.randaugment(2, 20),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_happens_to_a_picture_does_not_depend_on_its_batch(name) -> None:
    operation = OPERATIONS[name]()
    pictures = np.random.default_rng(0).integers(0, 256, (12, 8, 12, 3)).astype("uint8")
    seeds = seeds_for(12)

    def treat(pictures: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        return operation.apply(pictures, operation.draw(seeds, (8, 12, 3)))

    whole = treat(tf.constant(pictures), seeds).numpy()
    assert whole.dtype == pictures.dtype
    assert not np.array_equal(whole, pictures)
    parts = tf.data.Dataset.from_tensor_slices((pictures, seeds)).batch(5).map(treat)
    np.testing.assert_array_equal(np.concatenate([part.numpy() for part in parts]), whole)
    np.testing.assert_array_equal(treat(tf.constant(pictures[7:8]), seeds[7:8]).numpy(), whole[7:8])


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_takes_float_pictures_and_a_batch_without_any(name) -> None:
    operation = OPERATIONS[name]()
    pictures = tf.constant(np.random.default_rng(0).uniform(0, 255, (3, 8, 12, 3)).astype("float32"))
    for count in (3, 0):
        treated = operation.apply(pictures[:count], operation.draw(seeds_for(count), (8, 12, 3)))
        assert treated.dtype == tf.float32
        assert treated.shape == (count, 8, 12, 3)
        assert count == 0 or 0 <= treated.numpy().min() <= treated.numpy().max() <= 255


def test_operations_of_one_list_have_numbers_of_their_own() -> None:
    """Two flips across each other show all four combinations equally often, as do two of the same kind."""
    picture = np.zeros((2, 2, 1), "uint8")
    picture[0, 0] = 1
    pictures = tf.constant(np.tile(picture, (4000, 1, 1, 1)))
    steps = [augment.horizontal_flip(), augment.vertical_flip()]
    flipped, _, _ = augment_batch(pictures, {}, {}, seeds_for(4000), steps)
    corner = flipped.numpy().reshape(4000, 4).argmax(axis=1)
    assert stats.chisquare(np.bincount(corner, minlength=4)).pvalue > 0.001

    steps = [augment.horizontal_flip(), augment.horizontal_flip()]
    twice, _, _ = augment_batch(pictures, {}, {}, seeds_for(4000), steps)
    assert twice.numpy()[:, 0, 0, 0].mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(("make", "axis"), [(augment.horizontal_flip, 2), (augment.vertical_flip, 1)])
def test_flip_mirrors_exactly_the_chosen_pictures(pictures, make, axis) -> None:
    chosen = np.array([True, False, True, False, False, True])
    expected = pictures.copy()
    expected[chosen] = np.flip(pictures, axis)[chosen]
    np.testing.assert_array_equal(both_ways(make(), pictures, chosen), expected)


@pytest.mark.parametrize("make", [augment.horizontal_flip, augment.vertical_flip])
@pytest.mark.parametrize("probability", [0, 0.3, 1])
def test_flip_is_drawn_with_its_probability(make, probability) -> None:
    assert make(probability).draw(seeds_for(20_000), (4, 4, 3)).numpy().mean() == pytest.approx(probability, abs=0.01)


@pytest.mark.parametrize("fill", augment.FILL_MODES)
@pytest.mark.parametrize("padding", [0, 1, 3, 20])
def test_crop_is_a_window_of_numpy_padding(pictures, fill, padding) -> None:
    corners = np.random.default_rng(1).integers(0, 2 * padding + 1, (6, 2)).astype("int32")
    corners[:2] = [[0, 2 * padding], [2 * padding, 0]]
    cut = both_ways(augment.random_crop(padding, fill, value=9), pictures, corners)
    sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(pictures, sides, mode=fill, **({"constant_values": 9} if fill == "constant" else {}))
    expected = [padded[n, top : top + 7, left : left + 9] for n, (top, left) in enumerate(corners)]
    np.testing.assert_array_equal(cut, expected)


@pytest.mark.parametrize("fill", augment.FILL_MODES)
def test_crop_of_a_single_row_is_a_window_of_numpy_padding(fill) -> None:
    pictures = np.arange(10, dtype="uint8").reshape(2, 1, 5, 1)
    cut = augment.random_crop(2, fill).apply(tf.constant(pictures), tf.constant([[0, 1], [2, 4]])).numpy()
    padded = np.pad(pictures, ((0, 0), (2, 2), (2, 2), (0, 0)), mode=fill)
    np.testing.assert_array_equal(cut, [padded[0, 0:1, 1:6], padded[1, 2:3, 4:9]])


def test_crop_draws_every_corner_equally_often_and_no_other() -> None:
    corners = augment.random_crop(2).draw(seeds_for(25_000), (32, 32, 3)).numpy()
    counts = np.bincount(5 * corners[:, 0] + corners[:, 1])
    assert len(counts) == 25
    assert stats.chisquare(counts).pvalue > 0.001


def affine_by_scipy(picture: np.ndarray, choice: np.ndarray, fill: str, value: float) -> np.ndarray:
    """Every output pixel (x, y), seen from the centre and moved back, reads the input where the matrix says."""
    height, width, channels = picture.shape
    angle, slant, scale, down, right = choice.astype("float64")
    y, x = np.mgrid[:height, :width].astype("float64")
    y, x = y - (height - 1) / 2 - down * height, x - (width - 1) / 2 - right * width
    source_x = (np.cos(angle) * x - np.sin(angle + slant) * y) / scale + (width - 1) / 2
    source_y = (np.sin(angle) * x + np.cos(angle + slant) * y) / scale + (height - 1) / 2
    planes = [
        ndimage.map_coordinates(
            picture[:, :, channel], [source_y, source_x], order=1, mode=SCIPY_MODES[fill], cval=value, output="float64"
        )
        for channel in range(channels)
    ]
    return np.stack(planes, axis=-1)


@pytest.mark.parametrize("fill", augment.FILL_MODES)
@pytest.mark.parametrize("size", [(12, 12), (9, 17), (20, 6)])
def test_affine_agrees_with_scipy_at_every_pixel(fill, size) -> None:
    """Also far outside the picture, for the largest values of every range at once: no margin is too small."""
    rng = np.random.default_rng(0)
    pictures = rng.uniform(0, 255, (24, *size, 2)).astype("float32")
    for rotation, zoom, shear, translation in [(20, 0.2, 10, 0.1), (0, 3, 0, 0), (45, 1, 70, 1), (180, 0.5, 30, 0.3)]:
        drawn = rng.uniform(-1, 1, (24, 5))
        drawn[:16] = np.sign(drawn[:16])
        choice = drawn * [np.radians(rotation), np.radians(shear), np.log(1 + zoom), translation, translation]
        choice[:, 2] = np.exp(choice[:, 2])
        choice = choice.astype("float32")
        operation = augment.affine(rotation, zoom, shear, translation, fill, value=50)
        moved = operation.apply(tf.constant(pictures), tf.constant(choice)).numpy()
        expected = [affine_by_scipy(*both, fill, 50) for both in zip(pictures, choice, strict=True)]
        np.testing.assert_allclose(moved, expected, rtol=0, atol=0.01)


@pytest.mark.parametrize("fill", ["reflect", "symmetric", "wrap"])
def test_affine_reads_far_enough_at_the_worst_angle_of_a_large_picture(fill) -> None:
    """Turned by 45 degrees, the corners read 83.05 pixels outside; by 42 or 48 degrees 82.7 pixels."""
    picture = np.random.default_rng(0).uniform(0, 255, (1, 402, 402, 1)).astype("float32")
    choice = np.array([[np.pi / 4, 0, 1, 0, 0]], "float32")
    moved = augment.affine(rotation=180, fill=fill).apply(tf.constant(picture), tf.constant(choice)).numpy()
    np.testing.assert_allclose(moved[0], affine_by_scipy(picture[0], choice[0], fill, 0), rtol=0, atol=0.1)


@pytest.mark.parametrize("fill", augment.FILL_MODES)
def test_affine_is_the_same_for_both_kinds_of_pixels_and_in_a_graph(pictures, fill) -> None:
    operation = augment.affine(30, 0.5, 20, 0.3, fill)
    choice = operation.draw(seeds_for(6), (7, 9, 3)).numpy()
    moved = both_ways(operation, pictures, choice)
    expected = [affine_by_scipy(*both, fill, 0) for both in zip(pictures.astype(float), choice, strict=True)]
    np.testing.assert_allclose(moved, expected, rtol=0, atol=0.51 if pictures.dtype == "uint8" else 0.01)


@pytest.mark.parametrize("fill", augment.FILL_MODES)
def test_affine_by_whole_pixels_is_a_window_of_numpy_padding(pictures, fill) -> None:
    shifts = np.array([[2, 3], [-2, 1], [0, -9], [7, 0], [10, -12], [-14, 18]])  # rows down, columns right
    choice = np.array([[0, 0, 1, down / 7, right / 9] for down, right in shifts], "float32")
    moved = both_ways(augment.affine(translation=2, fill=fill, value=9), pictures, choice)
    sides = ((0, 0), (18, 18), (18, 18), (0, 0))
    padded = np.pad(pictures, sides, mode=fill, **({"constant_values": 9} if fill == "constant" else {}))
    expected = [padded[n, 18 - down : 25 - down, 18 - right : 27 - right] for n, (down, right) in enumerate(shifts)]
    np.testing.assert_allclose(moved, expected, rtol=0, atol=0 if pictures.dtype == "uint8" else 0.01)


@pytest.mark.parametrize("fill", augment.FILL_MODES)
def test_affine_without_change_is_the_identity(pictures, fill) -> None:
    choice = np.tile(np.array([0, 0, 1, 0, 0], "float32"), (6, 1))
    np.testing.assert_array_equal(both_ways(augment.affine(20, 0.2, 5, 0.1, fill), pictures, choice), pictures)


def test_affine_turns_against_the_clock() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3)).astype("uint8")
    turned = both_ways(augment.affine(rotation=90), picture, np.array([[np.pi / 2, 0, 1, 0, 0]], "float32"))
    np.testing.assert_array_equal(turned, np.rot90(picture, axes=(1, 2)))


def test_affine_with_a_scale_above_one_enlarges() -> None:
    ramp = np.tile(np.array([0, 10, 20, 30], "float32")[None, None, :, None], (1, 4, 1, 1))
    larger = augment.affine(zoom=1).apply(tf.constant(ramp), tf.constant([[0, 0, 2, 0, 0]], "float32")).numpy()
    np.testing.assert_allclose(larger[0, :, :, 0], np.tile([7.5, 12.5, 17.5, 22.5], (4, 1)), rtol=1e-5)


def test_affine_resamples_once_whatever_it_combines() -> None:
    """Noise turned back and forth by two operations is blurred; the same combined in one is not."""
    picture = np.random.default_rng(0).uniform(0, 255, (1, 16, 16, 1)).astype("float32")
    operation = augment.affine(rotation=10, zoom=0.2)
    turn, enlarge, both = (tf.constant([[a, 0, s, 0, 0]], "float32") for a, s in ((0.17, 1), (0, 1.2), (0.17, 1.2)))
    once = operation.apply(tf.constant(picture), both).numpy()[0]
    np.testing.assert_allclose(once, affine_by_scipy(picture[0], both.numpy()[0], "edge", 0), rtol=0, atol=0.01)
    assert np.abs(operation.apply(operation.apply(tf.constant(picture), turn), enlarge).numpy()[0] - once).mean() > 10


def test_affine_draws_evenly_from_its_ranges() -> None:
    drawn = augment.affine(rotation=10, zoom=0.25, shear=5, translation=0.1).draw(seeds_for(10_000), (9, 9, 3)).numpy()
    drawn[:, 2] = np.log(drawn[:, 2])
    for values, largest in zip(drawn.T, [np.radians(10), np.radians(5), np.log(1.25), 0.1, 0.1], strict=True):
        assert stats.kstest(values, stats.uniform(-largest, 2 * largest).cdf).pvalue > 0.001
        assert np.abs(values).max() <= largest * (1 + 1e-6)
    correlations = np.corrcoef(drawn.T)[np.triu_indices(5, 1)]
    assert np.abs(correlations).max() < 0.04


def test_resized_crop_draws_windows_inside_evenly_in_area_and_log_aspect() -> None:
    """In this picture every window of these ranges fits, so none is rejected."""
    operation = augment.random_resized_crop((8, 8), area=(0.1, 0.3), aspect=(0.5, 2))
    top, left, height, width = operation.draw(seeds_for(5000), (1000, 1200, 3)).numpy().T.astype(float)
    assert top.min() >= 0
    assert left.min() >= 0
    assert (top + height).max() <= 1000
    assert (left + width).max() <= 1200
    assert stats.kstest(height * width / 1_200_000, stats.uniform(0.1, 0.2).cdf).pvalue > 0.001
    assert stats.kstest(np.log2(width / height), stats.uniform(-1, 2).cdf).pvalue > 0.001
    # A place among n is uniform once it is smeared over its pixel.
    smear = np.random.default_rng(0).uniform(size=(2, 5000))
    for place, room in (((top + smear[0]), 1001 - height), ((left + smear[1]), 1201 - width)):
        assert stats.kstest(place / room, "uniform").pvalue > 0.001


def test_resized_crop_of_small_pictures_stays_inside_and_in_range() -> None:
    windows = augment.random_resized_crop((8, 8)).draw(seeds_for(5000), (20, 31, 3)).numpy()
    top, left, height, width = windows.T
    assert windows.min() >= 0
    assert ((top + height <= 20) & (left + width <= 31)).all()
    for first, last in ((top, 20 - top - height), (left, 31 - left - width)):
        assert first.min() == last.min() == 0
    # Sides are rounded by up to half a pixel.
    assert ((height + 0.5) * (width + 0.5) >= 0.08 * 620).all()
    assert ((width + 0.5) / (height - 0.5) >= 3 / 4).all()
    assert ((width - 0.5) / (height + 0.5) <= 4 / 3).all()


def test_resized_crop_takes_the_first_of_ten_windows_that_fits() -> None:
    """Squares of a share s of 10 x 20 pixels have the side sqrt(200 s) and fit up to 10.5, which is s = 0.55125.

    One in 0.1025 of them does, one of ten with probability 0.661, and that one lies in any of 11 places but the
    middle in 10 cases out of 11: 0.601. Where none fits, the window is in the middle.
    """
    windows = augment.random_resized_crop((8, 8), (0.5, 1), (1, 1)).draw(seeds_for(20_000), (10, 20, 3)).numpy()
    assert set(map(tuple, windows[:, [0, 2, 3]])) == {(0, 10, 10)}
    assert set(windows[:, 1]) == set(range(11))
    assert (windows[:, 1] != 5).mean() == pytest.approx(0.601, abs=0.012)


@pytest.mark.parametrize(
    ("picture", "aspect", "window"),
    [
        ((10, 100), (1, 1), (0, 45, 10, 10)),
        ((100, 10), (1, 1), (45, 0, 10, 10)),
        ((10, 100), (3 / 4, 4 / 3), (0, 43, 10, 13)),  # 13.3 wide, 87 / 2 to its left
        ((100, 10), (3 / 4, 4 / 3), (43, 0, 13, 10)),
        ((3, 20), (50, 60), (1, 0, 1, 20)),  # 20 / 50 of a row would be none
    ],
)
def test_resized_crop_falls_back_to_the_central_window(picture, aspect, window) -> None:
    drawn = augment.random_resized_crop((4, 4), (1, 1), aspect).draw(seeds_for(3), (*picture, 3)).numpy()
    np.testing.assert_array_equal(drawn, [window] * 3)


def test_resized_crop_of_the_whole_picture_is_a_plain_resize(pictures) -> None:
    windows = np.tile(np.array([0, 0, 7, 9], "int32"), (6, 1))
    for size in ((7, 9), (5, 8), (12, 20)):
        resized = both_ways(augment.random_resized_crop(size), pictures, windows)
        expected = tf.image.resize(pictures, size).numpy()
        np.testing.assert_allclose(resized, expected, rtol=0, atol=1 if pictures.dtype == "uint8" else 1e-3)


def test_resized_crop_is_a_resize_of_the_window(pictures) -> None:
    operation = augment.random_resized_crop((5, 6))
    windows = operation.draw(seeds_for(6), (7, 9, 3)).numpy()
    windows[0] = [6, 8, 1, 1]
    resized = both_ways(operation, pictures, windows)
    for picture, (top, left, height, width), result in zip(pictures, windows, resized, strict=True):
        window = picture[top : top + height, left : left + width]
        expected = tf.image.resize(window, (5, 6)).numpy()
        np.testing.assert_allclose(result, expected, rtol=0, atol=1 if pictures.dtype == "uint8" else 1e-3)


def overlaps(length: int, parts: int) -> np.ndarray:
    """What share of every one of the equal parts of a line lies on every pixel: [parts, length]."""
    ends = np.arange(parts + 1) * length / parts
    pixels = np.arange(length)
    shared = np.minimum(ends[1:, None], pixels + 1) - np.maximum(ends[:-1, None], pixels)
    return np.maximum(shared, 0) * parts / length


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
def test_resized_crop_averages_areas_of_windows_more_than_twice_as_large(dtype, channels) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (4, 40, 40, channels)).astype(dtype)
    windows = np.array([[0, 0, 24, 24], [3, 4, 17, 16], [11, 2, 8, 37], [0, 0, 40, 40]], "int32")
    resized = both_ways(augment.random_resized_crop((8, 8)), pictures, windows)
    for picture, (top, left, height, width), result in zip(pictures, windows, resized, strict=True):
        window = picture[top : top + height, left : left + width]
        expected = np.einsum("ij,jkc,lk->ilc", overlaps(height, 8), window.astype(float), overlaps(width, 8))
        np.testing.assert_allclose(result, expected, rtol=0, atol=0.51 if dtype == "uint8" else 1e-3)


@pytest.mark.parametrize("window", [(0, 0, 16, 16), (5, 6, 9, 11), (0, 0, 40, 5), (2, 30, 3, 20)])
def test_resized_crop_reads_other_windows_bilinearly_however_large_the_picture(window) -> None:
    """Up to twice as large, or larger one way and smaller the other."""
    picture = np.random.default_rng(0).uniform(0, 255, (1, 60, 60, 3)).astype("float32")
    top, left, height, width = window
    resized = augment.random_resized_crop((8, 8)).apply(tf.constant(picture), tf.constant([window])).numpy()
    expected = tf.image.resize(picture[:, top : top + height, left : left + width], (8, 8)).numpy()
    np.testing.assert_allclose(resized, expected, rtol=0, atol=1e-3)


def test_one_of_treats_every_picture_by_the_operation_it_chose(pictures) -> None:
    operations = [
        augment.horizontal_flip(),
        augment.one_of([augment.brightness(0.9), augment.vertical_flip(1)]),
        augment.cutout(3, "noise"),
        augment.affine(40, 0.2, fill="wrap"),
        augment.random_resized_crop((7, 9)),
    ]
    either = augment.one_of(operations)
    _, choices = either.draw(seeds_for(6), (7, 9, 3))
    alone = [
        operation.apply(tf.constant(pictures), own).numpy() for operation, own in zip(operations, choices, strict=True)
    ]
    for which in ([0, 1, 2, 3, 4, 1], [4, 4, 2, 2, 0, 0], [1] * 6):
        treated = both_ways(either, pictures, (np.array(which, "int32"), choices))
        expected = [alone[operation][picture] for picture, operation in enumerate(which)]
        np.testing.assert_allclose(treated, expected, rtol=0, atol=1e-3)
        first = tf.nest.map_structure(lambda values: values[:1], (tf.constant(which), choices))
        np.testing.assert_allclose(both_ways(either, pictures[:1], first), expected[:1], rtol=0, atol=1e-3)


def test_one_of_chooses_every_operation_equally_often_and_apart_from_its_own_choice() -> None:
    operations = [augment.brightness(1), augment.brightness(1), augment.brightness(1)]
    which, choices = augment.one_of(operations).draw(seeds_for(12_000), (4, 4, 3))
    assert stats.chisquare(np.bincount(which, minlength=3)).pvalue > 0.001
    for number, factors in enumerate(choices):
        assert stats.kstest(factors.numpy()[which.numpy() == number], stats.uniform(0, 2).cdf).pvalue > 0.001
    assert np.abs(np.corrcoef(np.array(choices))[np.triu_indices(3, 1)]).max() < 0.04


def test_with_probability_leaves_the_other_pictures_as_they_are(pictures) -> None:
    inverted = augment.with_probability(0.5, augment.vertical_flip(1))
    wanted = np.array([True, True, False, True, False, False])
    treated = both_ways(inverted, pictures, (wanted, np.ones(6, bool)))
    np.testing.assert_array_equal(treated[wanted], pictures[wanted][:, ::-1])
    np.testing.assert_array_equal(treated[~wanted], pictures[~wanted])


@pytest.mark.parametrize("probability", [0, 0.3, 1])
def test_with_probability_draws_with_its_probability_and_apart_from_the_operation(probability) -> None:
    wanted, flipped = augment.with_probability(probability, augment.horizontal_flip()).draw(
        seeds_for(20_000), (4, 4, 3)
    )
    wanted, flipped = wanted.numpy(), flipped.numpy()
    assert wanted.mean() == pytest.approx(probability, abs=0.01)
    assert probability == 0 or flipped[wanted].mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: augment.horizontal_flip(1.5), r"`probability` must lie in \[0, 1\]. Received: probability=1.5"),
        (lambda: augment.vertical_flip(-0.1), r"`probability` must lie in \[0, 1\]"),
        (lambda: augment.random_crop(-1), "`padding` must not be negative. Received: padding=-1"),
        (lambda: augment.random_crop(1, "mirror"), "`fill` must be one of constant, edge, reflect, symmetric, wrap"),
        (lambda: augment.affine(fill="nearest"), "`fill` must be one of .* Received: fill='nearest'"),
        (lambda: augment.affine(rotation=-1), "must not be negative.*rotation=-1"),
        (lambda: augment.affine(zoom=-0.1), "must not be negative.*zoom=-0.1"),
        (lambda: augment.affine(translation=-0.1), "must not be negative.*translation=-0.1"),
        (lambda: augment.affine(shear=90), "`shear` less than 90 degrees"),
        (lambda: augment.random_resized_crop((8, 8), area=(0, 1)), r"`area` must be a range in \(0, 1\]"),
        (lambda: augment.random_resized_crop((8, 8), area=(0.5, 1.1)), r"`area` must be a range in \(0, 1\]"),
        (lambda: augment.random_resized_crop((8, 8), area=(0.5, 0.4)), r"`area` must be a range in \(0, 1\]"),
        (lambda: augment.random_resized_crop((8, 8), aspect=(2, 1)), "`aspect` a range of positive numbers"),
        (lambda: augment.random_resized_crop((8, 8), aspect=(0, 1)), "`aspect` a range of positive numbers"),
        (lambda: augment.random_resized_crop((0, 8)), "`size` must be at least 1 pixel"),
        (lambda: augment.one_of([]), "`operations` needs at least one operation"),
        (lambda: augment.with_probability(2, augment.hue(0.1)), r"`probability` must lie in \[0, 1\]"),
    ],
)
def test_operations_refuse_wrong_arguments(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_shrinking_takes_the_mean_of_the_area_a_pixel_covers() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3)).astype("uint8")
    operation = augment.shrink((4, 3))
    found = operation.apply(tf.constant(pictures), operation.draw(seeds_for(3), (8, 12, 3))).numpy()
    expected = pictures.reshape(3, 4, 2, 3, 4, 3).mean(axis=(2, 4))
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 0.5
    one_channel = operation.apply(tf.constant(pictures[..., :1].astype("float32")), tf.zeros([3])).numpy()
    np.testing.assert_allclose(one_channel, expected[..., :1], rtol=1e-5)


def test_shrinking_to_a_larger_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`shrink` to \(4, 9\) needs larger pictures. Received: 4x8"):
        augment.shrink((4, 9)).draw(seeds_for(1), (4, 8, 3))
    with pytest.raises(ValueError, match="`size` must be at least 1 pixel"):
        augment.shrink((0, 4))


def test_what_follows_the_epochs_cannot_be_drawn_within_another_operation() -> None:
    for wrap in (lambda one: augment.with_probability(0.5, one), lambda one: augment.one_of([one])):
        with pytest.raises(ValueError, match="`alternating_flip` follows the epochs"):
            wrap(augment.alternating_flip())
