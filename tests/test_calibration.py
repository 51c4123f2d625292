"""Temperature scaling: finds what was done to the probabilities, and stays away where it does not help."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from apps.calibration import apply_temperature, calibrate, fit_temperature, reliability


def draw(count: int, temperature: float, classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are too sure by `temperature`, and labels from the true ones."""
    generator = np.random.default_rng(seed)
    logits = 2 * generator.normal(size=(count, classes))
    labels = (softmax(logits, axis=1).cumsum(axis=1) < generator.random((count, 1))).sum(axis=1)
    return softmax(logits * temperature, axis=1), np.minimum(labels, classes - 1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_temperature_is_found(temperature) -> None:
    assert fit_temperature(*draw(20_000, temperature)) == pytest.approx(temperature, rel=0.04)


def test_calibrated_probabilities_are_powers_that_sum_to_one() -> None:
    probabilities, _ = draw(50, 1.0)
    powers = probabilities ** (1 / 0.6)
    np.testing.assert_allclose(apply_temperature(probabilities, 0.6), powers / powers.sum(axis=1, keepdims=True))


def test_calibration_lowers_the_log_loss_of_other_pictures_and_the_calibration_error() -> None:
    probabilities, labels = draw(2000, 2.5)
    others, their_labels = draw(20_000, 2.5, seed=1)
    found = calibrate(probabilities, labels)
    calibrated = apply_temperature(others, found.temperature)
    assert log_loss(their_labels, calibrated) < 0.8 * log_loss(their_labels, others)
    assert reliability(calibrated, their_labels).error < 0.02 < 0.1 < reliability(others, their_labels).error
    # What is said of the held-out pictures themselves holds for others: no picture was in the fit of its temperature.
    expected = log_loss(their_labels, calibrated)
    assert log_loss(labels, found.probabilities) == pytest.approx(expected, rel=0.05)


def test_no_picture_and_none_of_its_group_takes_part_in_its_own_calibration() -> None:
    """Changing the labels of one group changes the probabilities of others, and not its own."""
    probabilities, labels = draw(400, 2.5)
    groups = np.arange(400) // 20
    changed = np.where(groups == 7, (labels + 1) % 5, labels)
    before, after = (calibrate(probabilities, one, groups).probabilities for one in (labels, changed))
    same = (before == after).all(axis=1)
    assert same[groups == 7].all()
    assert not same[groups != 7].all()


def test_answers_never_change() -> None:
    probabilities, labels = draw(1000, 3.0)
    np.testing.assert_array_equal(calibrate(probabilities, labels).probabilities.argmax(1), probabilities.argmax(1))


@pytest.mark.parametrize(
    ("count", "groups"), [(49, None), (400, np.arange(400) // 100), (400, np.zeros(400))], ids=["few", "4", "1"]
)
def test_few_pictures_or_groups_leave_the_temperature_at_1(count, groups) -> None:
    probabilities, labels = draw(count, 2.5)
    found = calibrate(probabilities, labels, groups)
    assert found.temperature == 1
    assert found.probabilities is probabilities


def test_temperature_that_gains_nothing_is_left_at_1() -> None:
    """Of calibrated probabilities, the fit to some mostly harms the others; it may not harm much where it is kept."""
    kept = []
    for seed in range(30):
        probabilities, labels = draw(60, 1.0, seed=seed)
        found = calibrate(probabilities, labels, seed=seed)
        assert log_loss(labels, found.probabilities) <= log_loss(labels, probabilities) + 1e-9
        kept.append(found.temperature)
    assert np.mean(np.array(kept) == 1) > 0.4


def test_all_right_does_not_make_certain() -> None:
    """100 right answers of 80 % each: no temperature of 0.05, at which a mistake would cost 27."""
    probabilities = np.tile([[0.8, 0.2]], (100, 1))
    temperature = calibrate(probabilities, np.zeros(100, int)).temperature
    sure = apply_temperature(probabilities[:1], temperature)[0, 0]
    assert sure == pytest.approx(100.5 / 101, abs=1e-3)  # Jeffreys' estimate of 100 of 100


def test_missing_labels_change_nothing_for_the_others() -> None:
    probabilities, labels = draw(300, 2.0)
    with_gaps = np.concatenate([labels, np.full(50, -1)])
    found = calibrate(np.concatenate([probabilities, probabilities[:50]]), with_gaps)
    alone = calibrate(probabilities, labels)
    assert found.temperature == pytest.approx(alone.temperature)
    np.testing.assert_allclose(found.probabilities[300:], apply_temperature(probabilities[:50], alone.temperature))


def test_calibration_error_by_hand() -> None:
    """Four answers of 0.9 of which two are right, one of 0.6 that is right: (4 * 0.4 + 1 * 0.4) / 5."""
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6], [0.5, 0.5]])
    found = reliability(probabilities, np.array([0, 0, 1, 1, 1, -1]), bins=10)
    assert found.count[[6, 9]].tolist() == [1, 4]
    assert found.error == pytest.approx(0.4)
    assert reliability(np.ones((1, 1)), np.array([0])).count[-1] == 1
