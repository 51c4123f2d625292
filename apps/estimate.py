"""What score to expect on pictures whose labels are hidden, from those held out of training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import block_diag, coo_array, csr_array, hstack, vstack
from scipy.stats import betabinom, norm, t

from apps.scores import find_formula
from pipelines.labels import MISSING

DRAWN_AT_A_TIME = 2**22  # numbers in memory


@dataclass(frozen=True)
class Estimate:
    """The score on `pictures` held-out pictures and the interval that holds the hidden score 19 times in 20."""

    value: float
    low: float
    high: float
    pictures: int

    def holds(self, score: float) -> bool:
        """Whether a score lies in the interval."""
        return self.low <= score <= self.high


def expect_score(
    name: str,
    probabilities: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    hidden: int,
    groups: np.ndarray | None = None,
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Predict the mean over the heads of a score on `hidden` further pictures of the same kind.

    The accuracy of one head is left to `expect_accuracy`. Everything else is a bootstrap by group (without groups,
    every picture is one), which keeps together what fails together, pictures of a group as well as the heads of a
    picture. It draws both accidents, which pictures were held out and which are hidden:

    - A score that is a mean over pictures: a population is drawn (the Bayesian bootstrap: Rubin,
      https://doi.org/10.1214/aos/1176345338), then the hidden pictures from it. Half a picture that is right and half
      a wrong one (by log loss as bad as the worst picture or group, at least ln K) are added, without which nothing
      could go wrong that has not gone wrong before: for the accuracy that is Jeffreys' prior, and the same
      distribution that `expect_accuracy` computes.
    - Macro F1 is biased, and the more so the fewer pictures of a class there are: twice the pictures are drawn, as many
      as were held out and as many as are hidden, and the difference of the two scores is added to the one observed.
      The halves are added for every class that occurs.

    Draws without any label of a head say nothing of it. Few groups, of the head that has labels in the fewest, widen
    the interval as Student's distribution asks. Not covered: classes of which nothing was held out;
    that an average of several networks is better than each of them, which alone predicted its held-out pictures.

    Args:
        name: "accuracy", "macro_f1" or "log_loss" (`apps.scores`).
        probabilities: Of the held-out pictures, [N, K] by head, from networks that have not seen them.
        labels: Their class numbers [N] by head, -1 where there is none; every head needs one at least.
        hidden: How many pictures are hidden; 0 for as many as were held out.
        groups: [N]; equal ones belong together.
        confidence: Of the interval.
        draws, seed: Of the bootstrap.

    >>> probabilities = {"label": np.tile([[0.8, 0.2], [0.3, 0.7]], (50, 1))}
    >>> labels = {"label": np.array([0, 1] * 45 + [1, 0] * 5)}
    >>> estimate = expect_score("log_loss", probabilities, labels, hidden=1000)
    >>> round(estimate.low, 2), round(estimate.value, 2), round(estimate.high, 2)
    (0.34, 0.4, 0.49)
    """
    formula = find_formula(name)
    rows = np.flatnonzero(np.any([values != MISSING for values in labels.values()], axis=0))
    labels = {head: values[rows] for head, values in labels.items()}
    if not len(rows) or not all((values != MISSING).any() for values in labels.values()):
        raise ValueError("`labels` has a head without any label: without held-out pictures nothing can be expected.")
    probabilities = {head: probabilities[head][rows] for head in labels}
    if name == "accuracy" and len(labels) == 1:
        ((head, truth),) = labels.items()
        right = probabilities[head].argmax(axis=1) == truth
        return expect_accuracy(right, hidden, None if groups is None else groups[rows], confidence)
    unit = np.arange(len(rows)) if groups is None else np.unique(groups[rows], return_inverse=True)[1].reshape(-1)
    units = int(unit.max()) + 1
    belongs = csr_array((np.ones(len(rows)), (unit, np.arange(len(rows)))), shape=(units, len(rows)))
    tallies = [belongs @ formula.tallies(probabilities[head], labels[head]) for head in labels]
    priors = [
        _prior_of_mean(name, table.toarray(), probabilities[head].shape[1])
        if formula.is_mean
        else _prior_of_classes(labels[head], unit, probabilities[head].shape[1])
        for head, table in zip(labels, tallies, strict=True)
    ]
    pool = vstack([hstack(tallies), block_diag([prior.tallies for prior in priors])], format="csr")
    answers = vstack([csr_array((units, len(priors))), block_diag([prior.answers[:, None] for prior in priors])])
    answers = answers.tocsr()
    mass = np.concatenate([np.ones(units), np.full(pool.shape[0] - units, 0.5)])
    ends = np.cumsum([table.shape[1] for table in tallies])[:-1]

    def values_of(draw: np.ndarray) -> np.ndarray:
        """[draws, heads], not a number where there is no label of the head."""
        columns = []
        parts = zip(np.split(draw @ pool, ends, axis=1), (draw @ answers).T, priors, strict=True)
        for sums, wrong, prior in parts:
            sums[:, sums.shape[1] // 2 :] += wrong[:, None] * prior.frequency
            counts = sums[:, sums.shape[1] // 2 :].sum(axis=1)
            columns.append(np.where(counts > 0, formula.value(sums), np.nan))
        return np.stack(columns, axis=1)

    by_head = np.array([formula.value(np.asarray(table.sum(axis=0))) for table in tallies], float)
    value = float(by_head.mean())
    drawn = max(1, round((hidden or len(rows)) * units / len(rows)))
    generator = np.random.default_rng(seed)
    at_a_time = max(1, DRAWN_AT_A_TIME // max(pool.shape))
    parts = []
    for begin in range(0, draws, at_a_time):
        count = min(at_a_time, draws - begin)
        if formula.is_mean:
            shares = generator.standard_gamma(mass, (count, len(mass)))
            shares /= shares.sum(axis=1, keepdims=True)
            parts.append(values_of(generator.multinomial(drawn, shares)))
        else:
            shares = mass / mass.sum()
            held_out, others = (values_of(generator.multinomial(size, shares, count)) for size in (units, drawn))
            parts.append(by_head + others - held_out)
    values = _without_gaps(np.concatenate(parts), by_head, generator).mean(axis=1)
    freedom = max(min(len(np.unique(unit[known != MISSING])) for known in labels.values()) - 1, 1)
    wider = float(t.ppf((1 + confidence) / 2, freedom) / norm.ppf((1 + confidence) / 2))
    limits = value + wider * (values - value)
    low, high = np.quantile(limits, [(1 - confidence) / 2, (1 + confidence) / 2])
    most = 1.0 if formula.higher_is_better else np.inf
    low, high = min(max(float(low), 0.0), value), max(min(float(high), most), value)
    return Estimate(value, low, high, len(rows))


@dataclass(frozen=True)
class _Prior:
    """What the halves that are added tally, P of them: of as many pictures as a group has, on average.

    Attributes:
        tallies: [P, S], without the wrong answers, which would fill all of it.
        answers: How many wrong answers each has [P].
        frequency: How these are shared out among the last S / 2 tallies.
    """

    tallies: csr_array
    answers: np.ndarray
    frequency: np.ndarray


def _prior_of_mean(name: str, sums: np.ndarray, classes: int) -> _Prior:
    """Of a score that is a mean; `sums` are the tallies of the units."""
    sums = sums[sums[:, 1] > 0]
    worst = 0.0 if name == "accuracy" else max(np.log(classes), (sums[:, 0] / sums[:, 1]).max())
    halves = sums[:, 1].mean() * np.array([[1.0 if name == "accuracy" else 0.0, 1.0], [worst, 1.0]])
    return _Prior(csr_array(halves), np.zeros(2), np.zeros(1))


def _prior_of_classes(labels: np.ndarray, unit: np.ndarray, classes: int) -> _Prior:
    """Of macro F1, for every class that occurs; a wrong answer is any class, by frequency."""
    known = labels != MISSING
    counts = np.bincount(labels[known], minlength=classes)
    groups = coo_array((np.ones(known.sum()), (unit[known], labels[known])), shape=(unit.max() + 1, classes)).tocsr()
    occurs = np.flatnonzero(counts)
    pictures = counts[occurs] / (groups > 0).sum(axis=0)[occurs]
    truth = csr_array((pictures, (np.arange(len(occurs)), occurs)), shape=(len(occurs), classes))
    tallies = vstack([hstack([2 * truth, 2 * truth]), hstack([csr_array(truth.shape), truth])])
    return _Prior(tallies, np.append(np.zeros(len(occurs)), pictures), counts / counts.sum())


def _without_gaps(values: np.ndarray, by_head: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The values [draws, heads] with others of the same head, drawn at random, for those that are not a number."""
    for column, value in zip(values.T, by_head, strict=True):
        gaps = np.isnan(column)
        if gaps.any():
            column[gaps] = value if gaps.all() else generator.choice(column[~gaps], gaps.sum())
    return values


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
