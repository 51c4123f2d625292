"""RandAugment: each of the fourteen operations against Pillow, and which pictures get which."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage, stats
from test_augment import SCIPY_MODES, both_ways, seeds_for

from pipelines import augment
from pipelines.randaugment import fourteen_operations

HEIGHT, WIDTH = 40, 80
NAMES = [operation.name for operation in fourteen_operations(1)]
GEOMETRIC = ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"]


def named(strength: float, **options) -> dict[str, augment.Operation]:
    return {operation.name: operation for operation in fourteen_operations(strength, **options)}


def framed() -> np.ndarray:
    """Noise in a black frame, so that what lies outside is black whichever way it is found: [height, width, 3]."""
    picture = np.zeros((HEIGHT, WIDTH, 3), "uint8")
    picture[3:-3, 3:-3] = np.random.default_rng(0).integers(20, 230, (HEIGHT - 6, WIDTH - 6, 3))
    return picture


def counterparts(
    factors: tuple[float, float], threshold: int, bits: int, angle: float, slant: float, rows: int, columns: int
) -> dict[str, list[Callable[[Image.Image], Image.Image]]]:
    """What Pillow makes of an image by each operation: one result, or two for those that go either way."""

    def enhance(enhancer) -> list:
        return [lambda image, factor=factor: enhancer(image).enhance(factor) for factor in factors]

    def affine(*maps: tuple[float, ...]) -> list:
        """Every output pixel (x, y) reads (a x + b y + c, d x + e y + f)."""
        return [
            lambda image, map=map: image.transform(image.size, Image.Transform.AFFINE, map, Image.Resampling.BILINEAR)
            for map in maps
        ]

    return {
        "identity": [lambda image: image],
        "autocontrast": [ImageOps.autocontrast],
        "equalize": [ImageOps.equalize],
        "solarize": [lambda image: ImageOps.solarize(image, threshold)],
        "posterize": [lambda image: ImageOps.posterize(image, bits)],
        "contrast": enhance(ImageEnhance.Contrast),
        "colour": enhance(ImageEnhance.Color),
        "brightness": enhance(ImageEnhance.Brightness),
        "sharpness": enhance(ImageEnhance.Sharpness),
        "rotate": [
            lambda image: image.rotate(angle, Image.Resampling.BILINEAR),
            lambda image: image.rotate(-angle, Image.Resampling.BILINEAR),
        ],
        "shear_x": affine((1, slant, -slant * HEIGHT / 2, 0, 1, 0), (1, -slant, slant * HEIGHT / 2, 0, 1, 0)),
        "shear_y": affine((1, 0, 0, slant, 1, -slant * WIDTH / 2), (1, 0, 0, -slant, 1, slant * WIDTH / 2)),
        "translate_x": affine((1, 0, columns, 0, 1, 0), (1, 0, -columns, 0, 1, 0)),
        "translate_y": affine((1, 0, 0, 0, 1, rows), (1, 0, 0, 0, 1, -rows)),
    }


STRENGTHS = {
    1.0: counterparts((0.1, 1.9), threshold=0, bits=4, angle=30, slant=0.3, rows=18, columns=36),
    0.5: counterparts((0.55, 1.45), threshold=128, bits=6, angle=15, slant=0.15, rows=9, columns=18),
}


def test_there_are_the_fourteen_operations_of_the_paper() -> None:
    assert sorted(NAMES) == sorted(STRENGTHS[1.0])
    assert len(NAMES) == 14


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("name", NAMES)
def test_operation_is_pillows_within_one_level_and_goes_either_way(name, strength, dtype) -> None:
    operation = named(strength)[name]
    pictures = np.tile(framed(), (24, 1, 1, 1)).astype(dtype)
    treated = both_ways(operation, pictures, operation.draw(seeds_for(24), (HEIGHT, WIDTH, 3)))
    image = Image.fromarray(framed())
    expected = np.array([np.array(function(image)) for function in STRENGTHS[strength][name]]).astype(float)
    differences = np.abs(treated[:, None] - expected[None]).max(axis=(2, 3, 4))
    assert differences.min(axis=1).max() <= 1.01
    assert set(differences.argmin(axis=1)) == set(range(len(expected)))


@pytest.mark.parametrize("fill", augment.FILL_MODES)
@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometric_operation_fills_as_scipy_does(name, fill) -> None:
    picture = np.random.default_rng(0).uniform(0, 255, (13, 22, 1)).astype("float32")
    operation = named(1, fill=fill, value=99)[name]
    choice = operation.draw(seeds_for(12), (13, 22, 1))
    moved = operation.apply(tf.constant(np.tile(picture, (12, 1, 1, 1))), choice).numpy()
    y, x = np.mgrid[:13, :22].astype(float) - np.array([6, 10.5])[:, None, None]
    cos, sin = np.sqrt(3) / 2, 0.5
    reads = {
        "rotate": lambda way: (way * sin * x + cos * y, cos * x - way * sin * y),
        "shear_x": lambda way: (y, x + way * 0.3 * y),
        "shear_y": lambda way: (y + way * 0.3 * x, x),
        "translate_x": lambda way: (y, x - way * 0.45 * 22),
        "translate_y": lambda way: (y - way * 0.45 * 13, x),
    }[name]
    expected = []
    for way in (-1, 1):
        places = np.array(reads(way)) + np.array([6, 10.5])[:, None, None]
        mode = SCIPY_MODES[fill]
        expected.append(ndimage.map_coordinates(picture[:, :, 0], places, order=1, mode=mode, cval=99))
    differences = np.abs(moved[:, None, :, :, 0] - np.array(expected)[None]).max(axis=(2, 3))
    assert differences.min(axis=1).max() < 0.01
    assert set(differences.argmin(axis=1)) == {0, 1}


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("autocontrast", "equalize")])
def test_magnitude_zero_changes_nothing_that_has_a_strength(name, dtype) -> None:
    operation = named(0, fill="reflect")[name]
    pictures = np.random.default_rng(0).integers(0, 256, (4, 7, 9, 3)).astype(dtype)
    treated = operation.apply(tf.constant(pictures), operation.draw(seeds_for(4), (7, 9, 3))).numpy()
    np.testing.assert_allclose(treated, pictures, rtol=0, atol=0 if dtype == "uint8" else 1e-3)


def test_operations_of_the_count_are_applied_one_after_another() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (12, 8, 12, 3)).astype("uint8")
    operation = augment.randaugment(3, 15, "wrap")
    choices = operation.draw(seeds_for(12), (8, 12, 3))
    assert len(choices) == 3
    fourteen = fourteen_operations(0.5, "wrap")
    expected = []
    for number in range(12):
        picture = tf.constant(pictures[number : number + 1])
        for which, own in choices:
            chosen = int(which[number])
            picture = fourteen[chosen].apply(picture, own[chosen][number : number + 1])
        expected.append(picture.numpy()[0])
    np.testing.assert_array_equal(operation.apply(tf.constant(pictures), choices), expected)


def test_every_picture_of_a_batch_has_a_choice_of_its_own() -> None:
    """Nine operations that go either way and five that do not make 23 pictures of one; 15 is half the strength."""
    pictures = tf.constant(np.tile(framed()[::2, ::2], (600, 1, 1, 1)))

    def results(operation: augment.Operation, count: int) -> set[bytes]:
        treated = operation.apply(pictures[:count], operation.draw(seeds_for(count), (20, 40, 3)))
        return {picture.tobytes() for picture in treated.numpy()}

    alone = set().union(*(results(operation, 30) for operation in fourteen_operations(0.5)))
    assert len(alone) == 23
    assert results(augment.randaugment(1, 15), 600) == alone


def test_every_operation_is_chosen_equally_often_in_every_step_whatever_came_before() -> None:
    (first, _), (second, _) = augment.randaugment(2, 9).draw(seeds_for(20_000), (8, 8, 3))
    table = np.histogram2d(first, second, 14, [[0, 14], [0, 14]])[0]
    assert stats.chisquare(table, axis=None).pvalue > 0.001
    assert table.sum() == 20_000


@pytest.mark.parametrize("name", [*GEOMETRIC, "contrast", "colour", "brightness", "sharpness"])
def test_both_ways_are_equally_likely(name) -> None:
    drawn = named(1)[name].draw(seeds_for(10_000), (8, 8, 3)).numpy()
    values, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(values) == 2
    assert stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: augment.randaugment(0), "`count` must be at least 1 .* Received: count=0, magnitude=9"),
        (lambda: augment.randaugment(2, 31), r"`magnitude` lie in \[0, 30\]. Received: count=2, magnitude=31"),
        (lambda: augment.randaugment(2, -1), r"`magnitude` lie in \[0, 30\]"),
        (lambda: augment.randaugment(fill="black"), "`fill` must be one of .* Received: fill='black'"),
    ],
)
def test_randaugment_refuses_wrong_arguments(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
