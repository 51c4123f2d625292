"""Probabilities that mean what they say: temperature scaling, fitted on held-out pictures, and how far off they are."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from apps.scores import losses
from pipelines.labels import MISSING

BOUNDS = (0.05, 20.0)  # of a temperature
FEWEST = 50  # labelled pictures that a temperature may be fitted on
FOLDS = 5
SMALLEST = 1e-30  # what `kerascnn.export.Classifier` takes a smaller probability for


@dataclass(frozen=True)
class Calibration:
    """The temperature of one head, and its probabilities with temperatures fitted without the picture itself.

    Attributes:
        temperature: What the classifier divides ln p by; 1 where nothing was gained, or too little is known.
        probabilities: [N, K], calibrated by the temperature that the pictures of the *other* folds ask for; judged by
            these, the calibration is not judged by what it was fitted on. Those received where `temperature` is 1.
    """

    temperature: float
    probabilities: np.ndarray


def calibrate(
    probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None, seed: int = 0
) -> Calibration:
    """Fit a temperature to held-out pictures, if that lowers the log loss of pictures it was not fitted on.

    The pictures are dealt into five folds, groups staying together. Each fold is calibrated by the temperature of the
    other four; where the log loss of all does not fall by this, or less than 50 labelled pictures or five groups are
    there, the temperature stays 1. The one that the classifier gets is fitted on all pictures.

    Args:
        probabilities: [N, K], of networks that have not seen the pictures.
        labels: Class numbers [N], -1 where there is none.
        groups: [N]; equal ones belong together.
        seed: Of the folds.

    Source: Guo et al., On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599.

    >>> generator = np.random.default_rng(0)
    >>> logits = generator.normal(size=(5000, 3))
    >>> true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    >>> labels = (true.cumsum(axis=1) < generator.random((5000, 1))).sum(axis=1)
    >>> bool(abs(calibrate(apply_temperature(true, 0.5), labels).temperature - 2) < 0.15)
    True
    """
    known = np.flatnonzero(labels != MISSING)
    _, unit = np.unique(known if groups is None else groups[known], return_inverse=True)
    units = int(unit.max()) + 1 if len(known) else 0
    if len(known) < FEWEST or units < FOLDS:
        return Calibration(1.0, probabilities)
    fold = np.random.default_rng(seed).permutation(units)[unit] % FOLDS
    calibrated = np.array(probabilities, float)
    without_label = labels == MISSING
    for number in range(FOLDS):
        others = known[fold != number]
        fitted = fit_temperature(probabilities[others], labels[others])
        calibrated[known[fold == number]] = apply_temperature(probabilities[known[fold == number]], fitted)
    if losses(calibrated, labels).sum() >= losses(probabilities, labels).sum():
        return Calibration(1.0, probabilities)
    temperature = fit_temperature(probabilities[known], labels[known])
    calibrated[without_label] = apply_temperature(probabilities[without_label], temperature)
    return Calibration(temperature, calibrated)


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature from 0.05 to 20 of lowest log loss, of probabilities [N, K] and labels [N], none missing.

    Half a picture that is right and half a wrong one are added (all pictures' likeliest and second likeliest classes,
    in equal shares): where all of a few are right, no temperature would be too low. The log loss is convex in
    1 / temperature, so that there is only one minimum.
    """
    if probabilities.shape[1] < 2:
        return 1.0
    logarithms = _logarithms(probabilities)
    count = len(labels)
    second, first = np.partition(logarithms, -2, axis=1)[:, -2:].T
    of_truth = (count * logarithms[np.arange(count), labels] + 0.5 * (first + second)) / (count + 1)

    def loss(log_temperature: float) -> float:
        scaled = logarithms / np.exp(log_temperature)
        highest = scaled.max(axis=1)
        total = highest + np.log(np.exp(scaled - highest[:, None]).sum(axis=1))
        return float(np.mean(total - of_truth / np.exp(log_temperature)))

    low, high = np.log(BOUNDS)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """p to the power of 1 / temperature, so that each row [N, K] sums to 1 again: flatter above 1, sharper below.

    >>> apply_temperature(np.array([[0.8, 0.2]]), 0.5).round(3)
    array([[0.941, 0.059]])
    """
    scaled = _logarithms(probabilities) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Reliability:
    """How often answers of some confidence are right: bins of equal width over the likeliest class's probability.

    Attributes:
        confidence: Mean probability of the answers [bins]; 0 in empty bins.
        accuracy: Share of them that is right [bins]; 0 in empty bins.
        count: How many there are [bins].
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray

    def describe(self) -> dict[str, list[float]]:
        """The same as plain lists."""
        return {name: values.tolist() for name, values in vars(self).items()}

    @property
    def error(self) -> float:
        """The expected calibration error: the mean distance of confidence and accuracy over the pictures, in [0, 1]."""
        return float(self.count @ np.abs(self.accuracy - self.confidence) / max(self.count.sum(), 1))


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> Reliability:
    """Confidence against accuracy, of probabilities [N, K] and labels [N]; pictures without a label are left out.

    >>> found = reliability(np.array([[0.9, 0.1], [0.7, 0.3], [0.3, 0.7]]), np.array([0, 0, 0]), bins=5)
    >>> found.count, found.accuracy.round(2), round(found.error, 3)
    (array([0, 0, 0, 2, 1]), array([0. , 0. , 0. , 0.5, 1. ]), 0.167)
    """
    known = labels != MISSING
    confidence = probabilities[known].max(axis=1).astype(float)
    right = probabilities[known].argmax(axis=1) == labels[known]
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    some = np.maximum(count, 1)
    return Reliability(
        np.bincount(place, weights=confidence, minlength=bins) / some,
        np.bincount(place, weights=right, minlength=bins) / some,
        count,
    )


def _logarithms(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(np.asarray(probabilities, float), SMALLEST))
