"""The expected score: its interval holds, and is wider where pictures of a group fail together."""

import numpy as np
import pytest

from apps.estimate import design_effect, expect_accuracy


def test_interval_holds_the_hidden_score_19_times_in_20() -> None:
    generator = np.random.default_rng(0)
    inside = []
    for _ in range(2000):
        accuracy = generator.uniform(0.5, 0.99)
        estimate = expect_accuracy(generator.random(150) < accuracy, hidden=300)
        hidden = (generator.random(300) < accuracy).mean()
        inside.append(estimate.low <= hidden <= estimate.high)
    assert np.mean(inside) == pytest.approx(0.955, abs=0.015)


def test_interval_is_the_beta_binomial_one() -> None:
    """Against drawing: an accuracy from Beta(45.5, 5.5) for 45 of 50 right, then 200 hidden pictures."""
    estimate = expect_accuracy([True] * 45 + [False] * 5, hidden=200)
    generator = np.random.default_rng(0)
    drawn = generator.binomial(200, generator.beta(45.5, 5.5, size=200_000)) / 200
    np.testing.assert_allclose([estimate.low, estimate.high], np.quantile(drawn, [0.025, 0.975]), atol=0.0051)


def test_perfect_validation_does_not_promise_a_perfect_score() -> None:
    estimate = expect_accuracy([True] * 100, hidden=1000)
    assert estimate.accuracy == 1.0
    assert estimate.low < 0.98


def test_groups_that_fail_together_count_as_one() -> None:
    """20 groups of 10 equal pictures are 20 independent trials: the design effect is 10."""
    generator = np.random.default_rng(0)
    effects = []
    for _ in range(200):
        correct = np.repeat(generator.random(20) < 0.7, 10)
        effects.append(design_effect(correct, np.repeat(np.arange(20), 10)))
    assert np.mean(effects) == pytest.approx(10, rel=0.08)


def test_independent_pictures_have_no_design_effect() -> None:
    correct = np.random.default_rng(0).random(4000) < 0.8
    assert design_effect(correct, np.arange(4000) // 10) == pytest.approx(1, abs=0.15)


def test_groups_widen_the_interval() -> None:
    correct = np.repeat(np.random.default_rng(0).random(40) < 0.7, 10)
    alone, grouped = expect_accuracy(correct, 1000), expect_accuracy(correct, 1000, np.arange(400) // 10)
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


@pytest.mark.parametrize("number", [6, 20])
def test_interval_holds_with_few_unequal_groups(number) -> None:
    """`number` groups of 1 to 60 pictures, each with its own accuracy; hidden are 300 other groups of the kind."""
    generator = np.random.default_rng(0)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        sizes = generator.integers(1, 61, count)
        groups = np.repeat(np.arange(count), sizes)
        return generator.random(len(groups)) < generator.beta(6, 3, count)[groups], groups

    inside = []
    for _ in range(400):
        correct, groups = draw(number)
        hidden = draw(300)[0]
        estimate = expect_accuracy(correct, len(hidden), groups)
        inside.append(estimate.low <= hidden.mean() <= estimate.high)
    assert np.mean(inside) >= 0.9


def test_nothing_can_be_expected_of_nothing() -> None:
    with pytest.raises(ValueError, match="empty"):
        expect_accuracy([], 100)
