"""Operations on the values of pixels against Pillow and colorsys."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats
from test_augment import both_ways, seeds_for

from pipelines import augment, colour
from pipelines.operation import Operation

ADJUSTMENTS = {
    "brightness": (augment.brightness(1), ImageEnhance.Brightness),
    "contrast": (augment.contrast(1), ImageEnhance.Contrast),
    "saturation": (augment.saturation(1), ImageEnhance.Color),
    "sharpness": (Operation("sharpness", lambda seeds, size: seeds, colour.adjust_sharpness), ImageEnhance.Sharpness),
}


def varied(size: tuple[int, int] = (11, 13)) -> np.ndarray:
    """Noise of high and low contrast, single colours, two values, a ramp: uint8 [10, height, width, 3]."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (10, *size, 3))
    pictures[1] = pictures[1] // 4 + 90
    pictures[2] = rng.integers(100, 103, pictures[2].shape)
    pictures[3], pictures[4], pictures[5] = 0, 255, (10, 200, 30)
    pictures[6] = np.where(rng.random((*size, 1)) < 0.9, (255, 0, 9), (3, 250, 10))
    pictures[7] = np.linspace(0, 255, size[1]).astype(int)[None, :, None]
    pictures[8, :, :, 1] = 77
    return pictures.astype("uint8")


@pytest.fixture(params=["uint8", "float32"])
def pictures(request: pytest.FixtureRequest) -> np.ndarray:
    return varied().astype(request.param)


def by_pillow(function, pictures: np.ndarray, *amounts) -> np.ndarray:
    """Every picture by Pillow, each with its amount if there are any."""
    images = [Image.fromarray(picture) for picture in pictures.astype("uint8")]
    return np.array([np.array(function(*both)) for both in zip(images, *amounts, strict=True)]).astype(float)


def without_choice(function) -> Operation:
    return Operation("", lambda seeds, size: seeds[:, 0], lambda pictures, choice: function(pictures))


@pytest.mark.parametrize("name", ADJUSTMENTS)
def test_factors_do_what_pillow_does_within_one_level(pictures, name) -> None:
    """Pillow cuts the fraction off, ours rounds."""
    operation, enhancer = ADJUSTMENTS[name]
    rng = np.random.default_rng(1)
    for factors in (rng.uniform(0, 2, 10), rng.permutation([0, 0.1, 0.3, 0.5, 0.9, 1, 1.1, 1.5, 1.9, 3])):
        adjusted = both_ways(operation, pictures, factors.astype("float32"))
        expected = by_pillow(lambda image, factor: enhancer(image).enhance(factor), pictures, factors)
        np.testing.assert_allclose(adjusted, expected, rtol=0, atol=1.001)
        # Within a level, but not a level off everywhere: fractions cut off are half a level on average.
        assert -0.1 < (adjusted - expected).mean() < 0.7


@pytest.mark.parametrize("name", ADJUSTMENTS)
def test_factor_one_changes_nothing(pictures, name) -> None:
    adjusted = ADJUSTMENTS[name][0].apply(tf.constant(pictures), tf.ones(10))
    np.testing.assert_allclose(adjusted, pictures, rtol=0, atol=0 if pictures.dtype == "uint8" else 1e-4)


@pytest.mark.parametrize("name", ADJUSTMENTS)
def test_factor_zero_is_exactly_pillows(pictures, name) -> None:
    """Black, the mean grey, the greys and the blurred picture: the other ends of the blends, rounded as in Pillow."""
    operation, enhancer = ADJUSTMENTS[name]
    expected = by_pillow(lambda image: enhancer(image).enhance(0), pictures)
    np.testing.assert_array_equal(operation.apply(tf.constant(pictures), tf.zeros(10)), expected)


def test_halves_of_grey_go_up_as_in_pillow() -> None:
    """The mean of a picture half 100, half 101 is 101; many colours have a grey of almost or exactly a half."""
    halves = np.full((1, 2, 2, 3), 100, "uint8")
    halves[0, 0] = 101
    np.testing.assert_array_equal(colour.adjust_contrast(tf.constant(halves), tf.zeros(1)), np.full_like(halves, 101))
    every = np.random.default_rng(0).integers(0, 256, (1, 400, 400, 3)).astype("uint8")
    grey = colour.adjust_saturation(tf.constant(every), tf.zeros(1)).numpy()
    np.testing.assert_array_equal(grey[0, :, :, 0], np.array(Image.fromarray(every[0]).convert("L")))


def test_computed_values_are_rounded_and_clipped() -> None:
    for dtype, expected in (("uint8", [13, 3, 255]), ("float32", [12.7, 2.54, 255])):
        pixels = tf.cast(tf.reshape([10, 2, 250], [1, 1, 1, 3]), dtype)
        brighter = colour.adjust_brightness(pixels, tf.constant([1.27])).numpy()
        np.testing.assert_allclose(brighter.ravel(), expected, rtol=1e-6)


@pytest.mark.parametrize("make", [augment.brightness, augment.contrast, augment.saturation])
@pytest.mark.parametrize("amount", [0.3, 1])
def test_factors_are_drawn_evenly_around_one(make, amount) -> None:
    factors = make(amount).draw(seeds_for(10_000), (4, 4, 3)).numpy()
    assert np.abs(factors - 1).max() <= amount
    assert stats.kstest(factors, stats.uniform(1 - amount, 2 * amount).cdf).pvalue > 0.001
    np.testing.assert_array_equal(make(0).draw(seeds_for(5), (4, 4, 3)), np.ones(5))


def test_hue_turns_every_pixel_as_colorsys_does(pictures) -> None:
    turns = np.array([0, 0.5, -0.5, 0.25, 1 / 3, -1 / 3, 0.01, -0.2, 0.4, -0.45], "float32")
    turned = both_ways(augment.hue(0.5), pictures, turns)
    expected = np.zeros(pictures.shape)
    for place in np.ndindex(pictures.shape[:3]):
        h, s, v = colorsys.rgb_to_hsv(*(pictures[place] / 255))
        expected[place] = colorsys.hsv_to_rgb((h + turns[place[0]]) % 1, s, v)
    np.testing.assert_allclose(turned, expected * 255, rtol=0, atol=0.51 if pictures.dtype == "uint8" else 0.01)


def test_hue_turns_red_into_green_and_blue_by_thirds() -> None:
    red = np.zeros((2, 1, 1, 3), "uint8")
    red[..., 0] = 200
    turned = both_ways(augment.hue(0.5), red, np.array([1 / 3, -1 / 3], "float32"))
    np.testing.assert_array_equal(turned[:, 0, 0], [[0, 200, 0], [0, 0, 200]])


def test_hue_is_drawn_evenly_either_way() -> None:
    turns = augment.hue(0.2).draw(seeds_for(10_000), (4, 4, 3)).numpy()
    assert stats.kstest(turns, stats.uniform(-0.2, 0.4).cdf).pvalue > 0.001


def test_grayscale_is_pillows_for_exactly_the_chosen_pictures(pictures) -> None:
    chosen = np.arange(10) % 3 != 0
    treated = both_ways(augment.grayscale(), pictures, chosen)
    expected = by_pillow(lambda image: image.convert("L").convert("RGB"), pictures)
    np.testing.assert_array_equal(treated[chosen], expected[chosen])
    np.testing.assert_array_equal(treated[~chosen], pictures[~chosen])


@pytest.mark.parametrize("probability", [0, 0.1, 1])
def test_grayscale_is_drawn_with_its_probability(probability) -> None:
    chosen = augment.grayscale(probability).draw(seeds_for(20_000), (4, 4, 3)).numpy()
    assert chosen.mean() == pytest.approx(probability, abs=0.008)


@pytest.mark.parametrize("size", [(11, 13), (20, 20), (40, 41)])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_equalize_is_exactly_pillows(size, dtype) -> None:
    """Too few pixels for a step, one pixel for a step, several."""
    pictures = varied(size).astype(dtype)
    equalized = both_ways(without_choice(colour.equalize), pictures, np.zeros(10))
    np.testing.assert_array_equal(equalized, by_pillow(ImageOps.equalize, pictures))


def test_autocontrast_is_pillows_within_one_level(pictures) -> None:
    """Pillow's own product may fall short of a whole number by a rounding error, and is cut off."""
    stretched = both_ways(without_choice(colour.autocontrast), pictures, np.zeros(10))
    expected = by_pillow(ImageOps.autocontrast, pictures)
    np.testing.assert_allclose(stretched, expected, rtol=0, atol=1)
    assert (stretched != expected).mean() < 0.01


def test_autocontrast_reaches_black_and_white_and_leaves_a_single_colour(pictures) -> None:
    stretched = colour.autocontrast(tf.constant(pictures)).numpy()
    for picture, result in zip(pictures, stretched, strict=True):
        for channel in range(3):
            before, after = picture[:, :, channel], result[:, :, channel]
            if before.min() == before.max():
                np.testing.assert_array_equal(after, before)
            else:
                assert (after.min(), after.max()) == (0, 255)


def test_solarize_is_exactly_pillows(pictures) -> None:
    thresholds = [0, 1, 128, 255, 256, 100, 101, 102, 200, 10]
    solarized = both_ways(Operation("", None, colour.solarize), pictures, np.array(thresholds, "float32"))
    np.testing.assert_array_equal(solarized, by_pillow(ImageOps.solarize, pictures, thresholds))


def test_posterize_is_exactly_pillows(pictures) -> None:
    bits = [1, 2, 3, 4, 5, 6, 7, 8, 4, 1]
    posterized = both_ways(Operation("", None, colour.posterize), pictures, np.array(bits, "float32"))
    np.testing.assert_array_equal(posterized, by_pillow(ImageOps.posterize, pictures, bits))
    assert not colour.posterize(tf.constant(pictures), tf.zeros(10)).numpy().any()


def test_noise_is_normal_and_has_the_asked_deviation() -> None:
    operation = augment.gaussian_noise(12)
    grey = np.full((20, 30, 40, 3), 128, "float32")
    choice = operation.draw(seeds_for(20), (30, 40, 3)).numpy()
    noise = both_ways(operation, grey, choice) - 128
    assert stats.kstest(noise.ravel(), stats.norm(0, 12).cdf).pvalue > 0.001
    for picture in noise:
        assert picture.std() == pytest.approx(12, rel=0.06)
        assert picture.mean() == pytest.approx(0, abs=1)
    rounded = operation.apply(tf.constant(grey.astype("uint8")), choice).numpy() - 128.0
    np.testing.assert_allclose(rounded, noise, rtol=0, atol=0.501)


def test_noise_of_every_picture_channel_and_pixel_is_its_own() -> None:
    noise = augment.gaussian_noise(1).draw(seeds_for(4), (60, 60, 3)).numpy()
    planes = noise.transpose(0, 3, 1, 2)
    rows = np.concatenate([planes.reshape(12, 3600), np.roll(planes, 1, axis=3).reshape(12, 3600)])
    assert np.abs(np.corrcoef(rows)[np.triu_indices(24, 1)]).max() < 0.08


def test_noise_stays_within_the_range_of_pixels(pictures) -> None:
    operation = augment.gaussian_noise(60)
    noise = operation.draw(seeds_for(10), (11, 13, 3)).numpy()
    noisy = both_ways(operation, pictures, noise)
    expected = np.clip(pictures + noise.astype(float), 0, 255)
    np.testing.assert_allclose(noisy, expected, rtol=0, atol=0.501 if pictures.dtype == "uint8" else 1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: augment.brightness(-0.1), r"`amount` must lie in \[0, 1\]. Received: amount=-0.1"),
        (lambda: augment.contrast(1.5), r"`amount` must lie in \[0, 1\]"),
        (lambda: augment.saturation(2), r"`amount` must lie in \[0, 1\]"),
        (lambda: augment.hue(0.6), r"`amount` must lie in \[0, 0.5\] of a turn. Received: amount=0.6"),
        (lambda: augment.hue(-0.1), r"`amount` must lie in \[0, 0.5\]"),
        (lambda: augment.grayscale(1.1), r"`probability` must lie in \[0, 1\]"),
        (lambda: augment.gaussian_noise(-1), "`deviation` must not be negative. Received: deviation=-1"),
    ],
)
def test_operations_refuse_wrong_amounts(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
