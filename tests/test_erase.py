"""Cutout and random erasing: which pixels go, what comes in their place, and how rectangles are distributed."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from test_augment import both_ways, seeds_for

from pipelines import augment


@pytest.fixture(params=["uint8", "float32"])
def pictures(request: pytest.FixtureRequest) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (5, 7, 9, 3)).astype(request.param)


# Top, left, height, width; the last two lie outside or are empty.
BOXES = np.array([[-2, -2, 4, 4], [1, 2, 4, 4], [4, 6, 4, 4], [7, 3, 4, 4], [2, 2, 0, 0]], "int32")


def holes() -> np.ndarray:
    hole = np.zeros((5, 7, 9), bool)
    hole[0, 0:2, 0:2] = hole[1, 1:5, 2:6] = hole[2, 4:7, 6:9] = True
    return hole


MAKERS = {
    "cutout": lambda **options: augment.cutout(4, **options),
    "random_erasing": lambda **options: augment.random_erasing(**options),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("value", [0.0, 7, [1, 20, 255]])
def test_a_value_fills_exactly_the_rectangle(pictures, make, value) -> None:
    operation = make(filling="constant", value=value)
    _, prepared = operation.draw(seeds_for(5), (7, 9, 3))
    expected = pictures.copy()
    expected[holes()] = value
    np.testing.assert_array_equal(both_ways(operation, pictures, (BOXES, prepared)), expected)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_mean_colour_of_each_picture_fills_its_rectangle(pictures, make) -> None:
    operation = make(filling="mean")
    _, prepared = operation.draw(seeds_for(5), (7, 9, 3))
    filled = both_ways(operation, pictures, (BOXES, prepared))
    np.testing.assert_array_equal(filled[~holes()], pictures[~holes()])
    for number in range(3):
        colours = np.unique(filled[number][holes()[number]], axis=0)
        assert len(colours) == 1
        mean = pictures[number].astype(float).mean(axis=(0, 1))
        np.testing.assert_allclose(colours[0], mean, rtol=0, atol=0.501 if pictures.dtype == "uint8" else 1e-3)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_noise_fills_exactly_the_rectangle(pictures, make) -> None:
    operation = make(filling="noise")
    _, noise = operation.draw(seeds_for(5), (7, 9, 3))
    filled = both_ways(operation, pictures, (BOXES, noise))
    np.testing.assert_array_equal(filled[~holes()], pictures[~holes()])
    np.testing.assert_array_equal(filled[holes()], noise.numpy()[holes()])


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_noise_is_every_level_equally_often_and_unrelated_between_pixels(make) -> None:
    _, noise = make(filling="noise").draw(seeds_for(30), (40, 40, 3))
    noise = noise.numpy()
    assert noise.shape == (30, 40, 40, 3)
    assert stats.chisquare(np.bincount(noise.astype(int).ravel(), minlength=256)).pvalue > 0.001
    np.testing.assert_array_equal(noise, np.floor(noise))
    planes = noise[:4].transpose(0, 3, 1, 2)
    rows = np.concatenate([planes.reshape(12, 1600), np.roll(planes, 1, axis=3).reshape(12, 1600)])
    assert np.abs(np.corrcoef(rows)[np.triu_indices(24, 1)]).max() < 0.11


@pytest.mark.parametrize("size", [1, 3, 4])
def test_cutout_is_centred_on_every_pixel_equally_often(size) -> None:
    boxes, _ = augment.cutout(size).draw(seeds_for(30_000), (5, 6, 3))
    boxes = boxes.numpy()
    assert (boxes[:, 2:] == size).all()
    centre = boxes[:, :2] + size // 2
    assert centre.min() == 0
    assert centre[:, 0].max() == 4
    assert centre[:, 1].max() == 5
    assert stats.chisquare(np.bincount(6 * centre[:, 0] + centre[:, 1])).pvalue > 0.001


def test_cutout_overlaps_the_border_and_takes_less_there() -> None:
    """A square of 3 on 4 x 4 pixels loses a row or column for a centre on the border: 4, 6 or 9 pixels are left."""
    operation = augment.cutout(3)
    white = tf.fill([16_000, 4, 4, 1], tf.constant(1, "uint8"))
    taken = 16 - operation.apply(white, operation.draw(seeds_for(16_000), (4, 4, 1))).numpy().sum(axis=(1, 2, 3))
    values, counts = np.unique(taken, return_counts=True)
    assert values.tolist() == [4, 6, 9]
    assert stats.chisquare(counts, [4000, 8000, 4000]).pvalue > 0.001


def test_erasing_draws_rectangles_inside_evenly_in_area_aspect_and_place() -> None:
    """Every rectangle of these ranges fits."""
    boxes, _ = augment.random_erasing(1, (0.02, 0.2), (0.5, 2), "constant").draw(seeds_for(5000), (1000, 1200, 3))
    top, left, height, width = boxes.numpy().T.astype(float)
    assert min(top.min(), left.min()) >= 0
    assert (top + height).max() <= 1000
    assert (left + width).max() <= 1200
    assert stats.kstest(height * width / 1_200_000, stats.uniform(0.02, 0.18).cdf).pvalue > 0.001
    assert stats.kstest(height / width, stats.uniform(0.5, 1.5).cdf).pvalue > 0.001
    smear = np.random.default_rng(0).uniform(size=(2, 5000))
    for place, room in ((top + smear[0], 1001 - height), (left + smear[1], 1201 - width)):
        assert stats.kstest(place / room, "uniform").pvalue > 0.001


def test_erasing_of_small_pictures_stays_inside_and_reaches_every_border() -> None:
    boxes, _ = augment.random_erasing(1).draw(seeds_for(5000), (12, 17, 3))
    top, left, height, width = boxes.numpy().T
    for first, last in ((top, 12 - top - height), (left, 17 - left - width)):
        assert first.min() == last.min() == 0
    assert min(height.min(), width.min()) > 0
    # Sides are rounded by up to half a pixel.
    assert ((height - 0.5) * (width - 0.5) <= 0.4 * 204).all()
    assert ((height + 0.5) * (width + 0.5) >= 0.02 * 204).all()
    assert ((height + 0.5) / (width - 0.5) >= 0.3).all()
    assert ((height - 0.5) / (width + 0.5) <= 1 / 0.3).all()


@pytest.mark.parametrize("probability", [0, 0.3, 1])
def test_erasing_happens_with_its_probability(probability) -> None:
    operation = augment.random_erasing(probability, filling="constant")
    white = tf.fill([10_000, 8, 8, 1], tf.constant(1, "uint8"))
    erased = operation.apply(white, operation.draw(seeds_for(10_000), (8, 8, 1))).numpy().min(axis=(1, 2, 3)) == 0
    assert erased.mean() == pytest.approx(probability, abs=0.015)


def test_erasing_takes_the_first_of_sixteen_rectangles_that_fits() -> None:
    """Squares of a share s of 20 x 20 pixels have the side 20 sqrt(s) and fit below 19.5, which is s = 0.950625.

    One in 0.0125 of them does, one of sixteen with probability 1 - 0.9875^16 = 0.182. The others take nothing.
    """
    boxes, _ = augment.random_erasing(1, (0.95, 1), (1, 1), "constant").draw(seeds_for(20_000), (20, 20, 3))
    boxes = boxes.numpy()
    assert set(map(tuple, boxes[:, 2:])) == {(19, 19), (0, 0)}
    assert (boxes[:, 2] == 19).mean() == pytest.approx(0.182, abs=0.01)


def test_erasing_never_takes_a_rectangle_without_pixels() -> None:
    """A share of 0.005 of 8 x 8 pixels would be a third of a pixel."""
    boxes, _ = augment.random_erasing(1, (0.005, 0.05), filling="constant").draw(seeds_for(5000), (8, 8, 3))
    assert boxes.numpy()[:, 2:].min() == 1


def test_erasing_that_never_fits_leaves_the_picture_whole(pictures) -> None:
    operation = augment.random_erasing(1, (0.5, 0.5), (100, 100))
    np.testing.assert_array_equal(both_ways(operation, pictures, operation.draw(seeds_for(5), (7, 9, 3))), pictures)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: augment.cutout(0), "`size` must be at least 1 pixel. Received: size=0"),
        (lambda: augment.cutout(4, "black"), "`filling` must be one of constant, mean, noise. Received: .*'black'"),
        (lambda: augment.random_erasing(filling="black"), "`filling` must be one of constant, mean, noise"),
        (lambda: augment.random_erasing(1.1), r"`probability` must lie in \[0, 1\]"),
        (lambda: augment.random_erasing(area=(0, 0.1)), r"`area` be a range in \(0, 1\]"),
        (lambda: augment.random_erasing(area=(0.3, 0.1)), r"`area` be a range in \(0, 1\]"),
        (lambda: augment.random_erasing(area=(0.3, 1.1)), r"`area` be a range in \(0, 1\]"),
        (lambda: augment.random_erasing(aspect=(0, 1)), "`aspect` a range of positive numbers"),
        (lambda: augment.random_erasing(aspect=(2, 1)), "`aspect` a range of positive numbers"),
    ],
)
def test_operations_refuse_wrong_arguments(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
