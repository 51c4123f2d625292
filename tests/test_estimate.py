"""The expected score: its interval holds, and is wider where pictures of a group fail together."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import norm
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge

from apps.calibration import apply_temperature, calibrate
from apps.estimate import Estimate, design_effect, expect_accuracy, expect_score
from apps.scores import FORMULAS, score
from pipelines.split import split


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
    assert estimate.value == 1.0
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


# The widest mean interval that is still of use: by (grouped, val) and score.
WIDEST = {
    (False, 0.25): {"accuracy": 0.12, "macro_f1": 0.13, "log_loss": 0.35, "mean": 0.09},
    (False, 4): {"accuracy": 0.08, "macro_f1": 0.08, "log_loss": 0.25, "mean": 0.06},
    (True, 0.25): {"accuracy": 0.4, "macro_f1": 0.45, "log_loss": 1.3, "mean": 0.35},
    (True, 4): {"accuracy": 0.24, "macro_f1": 0.24, "log_loss": 0.75, "mean": 0.2},
}


@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "groups"])
@pytest.mark.parametrize("val", [0.25, 4], ids=["hold-out", "out-of-fold"])
def test_interval_holds_the_hidden_score_of_digits(grouped, val, record_property) -> None:
    """50 random splits into 600 labelled digits and 600 hidden ones, by the toolkit's own split and calibration.

    Groups are 12 digits of one bad scanner: its stains are the same on all of them, more or less strong. "mean" is the
    mean accuracy of two heads, the digit and whether it is odd. Out of fold, each digit is predicted by one network and
    the hidden ones by the average of four, whose log loss is lower: that the score may be *better* than the interval is
    allowed there more often.
    """
    inside, widths, worse = ({name: [] for name in (*FORMULAS, "mean")} for _ in range(3))
    for seed in range(50):
        for name, (expected, found) in digits_trial(seed, val, grouped).items():
            inside[name].append(expected.holds(found))
            widths[name].append(expected.high - expected.low)
            worse[name].append(found > expected.high if name == "log_loss" else found < expected.low)
    for name, limit in WIDEST[grouped, val].items():
        coverage, width = float(np.mean(inside[name])), float(np.mean(widths[name]))
        record_property(name, f"coverage {coverage:.2f}, mean width {width:.3f}")
        print(f"{name}: coverage {coverage:.2f}, mean width {width:.3f}")  # shown by pytest -s
        assert coverage >= (0.8 if (val, name) == (4, "log_loss") else 0.9), name
        assert np.mean(worse[name]) <= 0.1, name
        assert width <= limit, name


def digits_trial(seed: int, val: float, grouped: bool) -> dict[str, tuple[Estimate, float]]:
    """What was expected of the hidden digits and what came, by score."""
    generator = np.random.default_rng(seed)
    pictures, digits = (values[:1200] for values in shuffled_digits(generator))
    groups = None
    if grouped:
        groups = np.arange(1200) // 12
        strength, stain = generator.uniform(0, 0.7, (100, 1)), generator.normal(size=(100, 64))
        pictures = pictures + (strength * stain)[groups]
        groups = groups[:600]
    labels = {"digit": digits, "odd": digits % 2}
    known = {head: values[:600].astype("int32") for head, values in labels.items()}
    splits = split(known, val, groups=groups, seed=seed)
    held_out = np.concatenate([index for _, index in splits])
    group = None if groups is None else groups[held_out]
    truth, seen, hidden = {}, {}, {}
    for head, values in known.items():
        networks = [ridge(pictures[train], values[train]) for train, _ in splits]
        parts = [network(pictures[index]) for network, (_, index) in zip(networks, splits, strict=True)]
        truth[head] = values[held_out]
        seen[head] = np.concatenate(parts)
        hidden[head] = np.mean([network(pictures[600:]) for network in networks], axis=0)
    calibration = calibrate(seen["digit"], truth["digit"], group, seed)
    seen["digit"] = calibration.probabilities
    hidden["digit"] = apply_temperature(hidden["digit"], calibration.temperature)
    found = {}
    for name in FORMULAS:
        expected = expect_score(
            name, {"digit": seen["digit"]}, {"digit": truth["digit"]}, 600, group, draws=200, seed=seed
        )
        found[name] = (expected, score(name, hidden["digit"], digits[600:]))
    right = np.mean([score("accuracy", hidden[head], values[600:]) for head, values in labels.items()])
    found["mean"] = (expect_score("accuracy", seen, truth, 600, group, draws=200, seed=seed), float(right))
    return found


def shuffled_digits(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    pictures, digits = load_digits(return_X_y=True)
    order = generator.permutation(len(digits))
    return pictures[order] / 16, digits[order]


def ridge(pictures: np.ndarray, labels: np.ndarray):
    """A classifier that is fitted in a moment: from pictures [N, 64] to probabilities [N, K]."""
    model = Ridge(alpha=1.0).fit(pictures, np.eye(labels.max() + 1)[labels])
    return lambda some: softmax(5 * model.predict(some), axis=1)


def test_bootstrap_of_a_mean_is_the_beta_binomial_one() -> None:
    """Two heads that are right on the same pictures: the mean's interval is that of `expect_accuracy` for one."""
    right = np.arange(300) % 10 > 0
    answers = np.eye(2)[(~right).astype(int)]
    zeros = np.zeros(300, int)
    both = expect_score("accuracy", {"a": answers, "b": answers}, {"a": zeros, "b": zeros}, 500, draws=4000)
    one = expect_accuracy(right, 500)
    assert (both.value, both.pictures) == (one.value, one.pictures)
    np.testing.assert_allclose([both.low, both.high], [one.low, one.high], atol=0.008)


@pytest.mark.parametrize("name", ["macro_f1", "log_loss"])
def test_groups_widen_the_interval_of_every_score(name) -> None:
    generator = np.random.default_rng(0)
    labels = np.tile(np.arange(5), 80)
    hard = np.repeat(generator.random(40) < 0.3, 10)
    answers = np.where(hard & (generator.random(400) < 0.8), (labels + 1) % 5, labels)
    given = {"a": 0.9 * np.eye(5)[answers] + 0.02}, {"a": labels}
    alone, grouped = expect_score(name, *given, 1000), expect_score(name, *given, 1000, np.arange(400) // 10)
    assert grouped.high - grouped.low > 1.7 * (alone.high - alone.low)


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "log_loss"])
@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("count", [1, 4, 40])
def test_all_right_and_all_wrong_leave_room(name, right, count) -> None:
    """Of few pictures that are all alike: no certainty, and no value that cannot be."""
    labels = np.arange(count) % 2
    answers = 0.98 * np.eye(2)[labels if right else 1 - labels] + 0.01
    for groups in (None, np.arange(count) // 4):
        found = expect_score(name, {"a": answers}, {"a": labels}, 200, groups)
        assert 0 <= found.low <= found.value <= found.high
        assert found.high <= (np.inf if name == "log_loss" else 1)
        assert found.high - found.low > 0.5 / count
        assert np.isfinite(found.high)


def test_heads_with_missing_labels_are_resampled_together() -> None:
    """The mean of two heads that are right on the same pictures varies more than of two independent ones."""
    generator = np.random.default_rng(0)
    right = [generator.random(400) < 0.7 for _ in range(2)]
    labels = {"a": np.zeros(400, int), "b": np.where(np.arange(400) % 4 == 0, -1, 0)}

    def width(second: np.ndarray) -> float:
        answers = {"a": np.eye(2)[1 - right[0]], "b": np.eye(2)[1 - second]}
        found = expect_score("accuracy", answers, labels, 400)
        return found.high - found.low

    same, independent = width(right[0]), width(right[1])
    assert 1.2 < same / independent < 1.6  # the root of 2, if none were missing


def test_expected_score_is_the_same_every_time_and_needs_a_label() -> None:
    answers, labels = {"a": np.tile([[0.7, 0.3]], (20, 1))}, {"a": np.arange(20) % 2}
    assert expect_score("log_loss", answers, labels, 50) == expect_score("log_loss", answers, labels, 50)
    with pytest.raises(ValueError, match="a head without any label"):
        expect_score("log_loss", answers, {"a": np.full(20, -1)}, 50)


def test_macro_f1_of_very_many_classes_takes_little_memory() -> None:
    generator = np.random.default_rng(0)
    labels, answers = generator.integers(0, 20_000, 500), np.zeros((500, 20_000), "float32")
    answers[np.arange(500), np.where(np.arange(500) % 4, labels, 0)] = 1
    tracemalloc.start()
    found = expect_score("macro_f1", {"a": answers}, {"a": labels}, 500, draws=100)
    assert tracemalloc.get_traced_memory()[1] < 400 * 2**20  # 20,000 x 20,000 numbers would be 3.2 GB
    tracemalloc.stop()
    assert found.low < found.value < found.high


def test_draws_without_a_label_of_a_head_do_not_count_as_perfect() -> None:
    """A tenth of 400 pictures has a label of the second head: 20 hidden ones have none of it one time in eight."""
    labels = {"a": np.arange(400) % 2, "b": np.where(np.arange(400) < 40, np.arange(400) % 2, -1)}
    answers = {head: np.tile([[0.6, 0.4], [0.4, 0.6]], (200, 1)) for head in labels}
    found = expect_score("log_loss", answers, labels, 20)
    assert found.value == pytest.approx(-np.log(0.6))
    assert found.low > 0.35  # with a perfect second head it would be half of the value
    right = expect_score("accuracy", answers, labels, 20)
    assert right.low > 0.7  # with none right of the second head, a half


def test_head_with_the_fewest_labels_decides_how_wide_student_makes_it(monkeypatch) -> None:
    """Six labels of the second head: five degrees of freedom, 2.57 standard errors instead of 1.96."""
    truth, answers = np.arange(400) % 2, np.tile([[0.6, 0.4], [0.4, 0.6]], (200, 1))
    answers[::5] = answers[::5, ::-1]
    given = {"a": answers, "b": answers}, {"a": truth, "b": np.where(np.arange(400) < 6, truth, -1)}
    found = expect_score("log_loss", *given, 400)
    monkeypatch.setattr("apps.estimate.t", SimpleNamespace(ppf=lambda quantile, freedom: norm.ppf(quantile)))
    normal = expect_score("log_loss", *given, 400)
    assert (found.high - found.low) / (normal.high - normal.low) == pytest.approx(2.5706 / 1.9600, rel=1e-3)
