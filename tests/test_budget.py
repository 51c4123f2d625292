"""What fits into a time: epochs, size and width for a machine of any speed, which these tests invent."""

import math
from functools import partial

import pytest

from apps import budget
from apps.budget import Speed, Workload, can_be_paced, suit_time
from apps.console import Console
from apps.recipe import Recipe
from apps.resolve import resolve

PICTURES = 4_000
CLASSES = {"label": ["a shirt", "a shoe"]}
SUITED = 50  # epochs that suit so many pictures


@pytest.fixture
def speed(monkeypatch):
    """A machine that takes a second for an epoch of what suits the data, 2 s to compile, nothing to predict."""

    def measured(recipe: Recipe, data: object) -> Speed:
        cost = math.prod(recipe.image_size) * recipe.width**2 / (64 * 48 * 0.58**2)
        step = cost / (3_600 // recipe.batch_size + 400 / recipe.batch_size / 3)
        sizes = [tuple(round(scale * side) for side in recipe.image_size) for scale, _ in recipe.scales]
        return Speed(2.0, {**dict.fromkeys(sizes, step / 2), None: step}, 0.0)

    monkeypatch.setattr(budget, "measure_speed", measured)


settle = partial(resolve, pictures=PICTURES, size=(64, 48), classes=list(CLASSES.values()))


def suit(seconds: float, fill: bool = True, **choices: object) -> Recipe:
    work = Workload.of(settle(choices), PICTURES, 1_000)
    return suit_time(choices, settle, seconds, work, CLASSES, Console(quiet=True), fill)[0]


def test_what_suits_the_data_is_trained_for_as_long_as_there_is_time(speed) -> None:
    """Of 91 s, 2 compile, 19 export; 70 epochs of a second are left."""
    recipe = suit(91)
    assert (recipe.image_size, recipe.width, recipe.epochs) == ((64, 48), 0.58, 70)
    assert recipe.lr == pytest.approx(0.02 * math.sqrt(70))  # as suits so many epochs
    assert recipe.patience == 0


def test_little_time_makes_pictures_smaller_before_epochs_become_too_few(speed) -> None:
    """20 s are 20 epochs at 64x48, fewer than 0.6 of 50; at 48x32 (3/4 in multiples of 8) 40, at 32x24 80."""
    recipe = suit(41)
    assert (recipe.image_size, recipe.width, recipe.epochs) == ((48, 32), 0.58, 40)
    assert suit(26).image_size == (32, 24)


def test_much_time_makes_the_network_wider_and_the_pictures_larger(speed) -> None:
    """1.4 times the width costs 1.96 times as much, and must leave 75 epochs."""
    recipe = suit(21 + 75 * 1.97)
    assert (recipe.image_size, recipe.width) == ((64, 48), pytest.approx(1.4 * 0.58))
    assert recipe.epochs == 75
    assert suit(21 + 75 * 3.5).image_size == (80, 64)


def test_more_epochs_than_help_are_not_trained(speed) -> None:
    assert suit(100_000).epochs == 4 * SUITED


def test_settled_fields_stay(speed) -> None:
    for seconds in (26, 500):
        recipe = suit(seconds, image_size=(64, 48), width=0.58, patience=7)
        assert (recipe.image_size, recipe.width, recipe.patience) == ((64, 48), 0.58, 7)
    assert suit(500, image_size=(64, 48)).width > 0.58
    assert suit(500, epochs=9).epochs == 9


def test_smaller_pictures_keep_the_network(speed) -> None:
    """`resnet18` has its small stem up to 64 pixels: that of 128 pixels stays what it is when they become 64."""
    recipe = suit(5_000, model="resnet18", image_size=(128, 96))
    assert recipe.stem is None
    forms = budget._forms({"model": "resnet18"}, partial(settle, size=(128, 96))({"model": "resnet18"}), settle)
    assert {form.stem for form in forms} == {None}
    assert min(form.image_size for form in forms) == (64, 48)


def test_default_only_does_less_than_suits_the_data(speed) -> None:
    assert suit(10_000, fill=False) == settle({})
    less = suit(53, fill=False)
    assert (less.image_size, less.epochs, less.patience) == ((64, 48), 32, settle({}).patience)
    assert suit(1, fill=False).epochs == 2  # late rather than not at all


def test_too_little_time_is_refused_with_the_time_that_it_takes(speed) -> None:
    with pytest.raises(
        ValueError, match=r"20 s are too few to train on 3,600 pictures here: 2 epochs take about 2\d s"
    ):
        suit(20)


@pytest.mark.parametrize("choices", [{"scales": ((0.5, 0.05),)}, {"snapshots": 5}, {"val": 5.0, "seeds": 2}])
def test_sizes_snapshots_and_folds_are_counted(speed, choices) -> None:
    for seconds in (200, 700):
        recipe = suit(seconds, **choices)
        work = Workload.of(recipe, PICTURES, 1_000)
        measured = budget.measure_speed(recipe, None)
        needed = measured.of_training(recipe, work) + measured.of_the_rest(work)
        assert needed <= 1.03 * seconds
        assert needed >= 0.9 * seconds or recipe.epochs == 4 * SUITED


def test_workload_counts_every_network() -> None:
    recipe = settle({"val": 5.0, "seeds": 2, "snapshots": 3})
    assert Workload.of(recipe, 1_000, 50) == Workload([800] * 10, [200] * 10, 50, snapshots=3)
    assert Workload.of(settle({"val": 0.2}), 1_000, 50) == Workload([800], [200], 50)
    assert Workload.of(settle({"val": 0.0}), 1_000, 50) == Workload([1000], [0], 50)


def test_the_clock_decides_nothing_where_bits_or_epochs_are_settled() -> None:
    assert can_be_paced(settle({}))
    assert can_be_paced(settle({"average": "ema"}))
    for choices in (
        {"deterministic": True},
        {"snapshots": 2},
        {"average": "swa"},
        {"hardest": 0.5},
        {"scales": ((0.5, 0.2),)},
    ):
        assert not can_be_paced(settle(choices))


def test_real_steps_and_a_real_prediction_are_measured() -> None:
    recipe = settle({"width": 0.125, "image_size": (16, 16), "batch_size": 8, "scales": ((0.75, 0.5),)})
    measured = budget.measure_speed(recipe, budget.random_data(recipe, CLASSES), steps=2)
    assert set(measured.step) == {(12, 12), None}
    assert all(0 < step < measured.first_step for step in measured.step.values())
    assert measured.prediction > 0
