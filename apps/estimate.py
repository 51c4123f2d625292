"""What score to expect on pictures whose labels are hidden, from those held out of training."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import betabinom, norm, t


@dataclass(frozen=True)
class Estimate:
    """Accuracy on `pictures` held-out pictures and the interval that holds the hidden accuracy 19 times in 20."""

    accuracy: float
    low: float
    high: float
    pictures: int


def expect_accuracy(
    correct: Sequence[bool] | np.ndarray, hidden: int, groups: np.ndarray | None = None, confidence: float = 0.95
) -> Estimate:
    """Predict the accuracy on `hidden` further pictures of the same kind.

    The number of right answers among them, given those among the held-out ones, follows a beta-binomial distribution
    (Jeffreys' prior). It covers both accidents: which pictures were held out, and which are hidden.

    Pictures of one group succeed and fail together, so they count for fewer: both numbers are divided by the design
    effect, the ratio of the variance of the accuracy between groups to the one that independent pictures would have
    (Kish, Survey Sampling, 1965).

    >>> estimate = expect_accuracy([True] * 90 + [False] * 10, hidden=1000)
    >>> round(estimate.low, 3), round(estimate.high, 3)
    (0.827, 0.95)
    """
    correct = np.asarray(correct, bool)
    if not len(correct):
        raise ValueError("`correct` is empty: without held-out pictures nothing can be expected.")
    accuracy, count = float(correct.mean()), len(correct)
    effect = design_effect(correct, groups) if groups is not None else 1.0
    if groups is not None:
        # A variance known from few groups is itself uncertain: Student's distribution instead of the normal one.
        freedom = max(len(np.unique(groups)) - 1, 1)
        effect *= float(t.ppf((1 + confidence) / 2, freedom) / norm.ppf((1 + confidence) / 2)) ** 2
    effect = min(effect, count)
    right = accuracy * count / effect
    trials = max(1, round((hidden or count) / effect))
    spread = betabinom(trials, right + 0.5, count / effect - right + 0.5)
    low, high = (float(spread.ppf(quantile)) / trials for quantile in ((1 - confidence) / 2, (1 + confidence) / 2))
    return Estimate(accuracy, low, high, count)


def design_effect(correct: np.ndarray, groups: np.ndarray) -> float:
    """How many times more the accuracy varies than for independent pictures; at least 1."""
    accuracy, count = correct.mean(), len(correct)
    _, group = np.unique(groups, return_inverse=True)
    sizes = np.bincount(group)
    if len(sizes) < 2 or not 0 < accuracy < 1:
        return 1.0
    residuals = np.bincount(group, weights=correct.astype(float)) - sizes * accuracy
    between = len(sizes) / (len(sizes) - 1) * np.sum(residuals**2) / count**2
    return float(max(1.0, between / (accuracy * (1 - accuracy) / count)))
