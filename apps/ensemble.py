"""Ensembles: what the networks of a split say together, and how much each of them counts by the held-out pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import keras
import numpy as np

from apps import scores
from apps.training import Trained
from pipelines.labels import MISSING

Answers = Mapping[str, np.ndarray]  # probabilities [N, classes] by head
Labels = Mapping[str, np.ndarray]  # class numbers [N] by head, `MISSING` where there is none

MOST_ADDED = 50  # networks added to the first ones; more would move weights by less than a fiftieth


@dataclass(frozen=True)
class Ensemble:
    """The networks of one split, and how much each counts.

    Attributes:
        trained: Their trainings, one for every seed; each yields one network or several.
        weights: For each of `models` a share of 1; 0 for one that was not chosen.
        held_out: What they say of the pictures held out of the split, without having been chosen by the picture in
            question: where they were chosen, `cross_fitted`, else their average. None where nothing is held out.
        alone: By head, the accuracy of each network on these pictures; empty where nothing is held out.
        together: By head, the accuracy of the average with these weights, which were chosen by the same pictures.
        expected: By head, the accuracy of `held_out`.
        labelled: By head, how many of these pictures have a label.
    """

    trained: Sequence[Trained]
    weights: Sequence[float]
    held_out: Answers | None = None
    alone: Sequence[Mapping[str, float]] = ()
    together: Mapping[str, float] = field(default_factory=dict)
    expected: Mapping[str, float] = field(default_factory=dict)
    labelled: Mapping[str, int] = field(default_factory=dict)

    @property
    def models(self) -> list[keras.Model]:
        """All networks of the split, in float32."""
        return [model for one in self.trained for model in one.models]


def make_ensemble(
    trained: Sequence[Trained],
    answers: Sequence[Answers] = (),
    labels: Labels | None = None,
    groups: np.ndarray | None = None,
    choose: bool = True,
    formula: str = "accuracy",
    seed: int = 0,
) -> Ensemble:
    """The networks of a split with their weights.

    Args:
        trained: Their trainings.
        answers: What each network says of the held-out pictures; empty where nothing is held out, and all count alike.
        labels: Of these pictures.
        groups: Of these pictures; None without groups.
        choose: `select` among several networks, or let all count alike.
        formula: Of `scores.FORMULAS`, by which they are chosen.
        seed: Of the halves of `cross_fitted`.
    """
    alike = [1] * sum(len(one.models) for one in trained)
    if not answers or labels is None:
        return Ensemble(trained, _shares(alike))
    chosen = choose and len(answers) > 1 and any((values != MISSING).any() for values in labels.values())
    counts = select(answers, labels, formula) if chosen else alike
    held_out = cross_fitted(answers, labels, groups, formula, seed) if chosen else average(answers, alike)
    return Ensemble(
        trained,
        _shares(counts),
        held_out,
        [accuracies(one, labels) for one in answers],
        accuracies(average(answers, counts), labels),
        accuracies(held_out, labels),
        {head: int((values != MISSING).sum()) for head, values in labels.items()},
    )


def flatten(ensembles: Sequence[Ensemble]) -> tuple[list[keras.Model], list[float]]:
    """The chosen networks of all splits and their weights; each split counts alike."""
    pairs = [pair for one in ensembles for pair in zip(one.models, one.weights, strict=True) if pair[1] > 0]
    return [model for model, _ in pairs], [weight for _, weight in pairs]


def average(answers: Sequence[Answers], counts: Sequence[int]) -> dict[str, np.ndarray]:
    """The mean of the probabilities, each network's as often as its count.

    >>> average([{"label": np.array([[1.0, 0.0]])}, {"label": np.array([[0.5, 0.5]])}], [3, 1])
    {'label': array([[0.875, 0.125]])}
    """
    shares = _shares(counts)
    return {
        head: np.sum([share * one[head] for share, one in zip(shares, answers, strict=True)], axis=0)
        for head in answers[0]
    }


def accuracies(answers: Answers, labels: Labels) -> dict[str, float]:
    """The share of right answers by head, of the pictures with a label; heads without any are left out."""
    known = [head for head, values in labels.items() if (values != MISSING).any()]
    return {head: scores.score("accuracy", answers[head], labels[head]) for head in known}


def score(answers: Answers, labels: Labels, formula: str = "accuracy") -> tuple[float, float]:
    """What makes one average better than another: the mean score of the heads, then the mean log loss, negative.

    Pictures without a label do not count, nor heads without any.

    >>> score({"label": np.array([[0.5, 0.5], [0.0, 1.0]])}, {"label": np.array([0, 1])})
    (1.0, -0.34657359027997264)
    """
    known = {head: values for head, values in labels.items() if (values != MISSING).any()}
    if not known:
        return 0.0, 0.0
    value, loss = scores.mean_score(formula, answers, known), scores.mean_score("log_loss", answers, known)
    return (value if scores.FORMULAS[formula].higher_is_better else -value), -loss


def select(answers: Sequence[Answers], labels: Labels, formula: str = "accuracy") -> list[int]:
    """How often to count each network: greedy selection with replacement by validation.

    It starts with the best network, or with so many of the best as are best together, and adds, time after time, the
    network that improves the average most, one that is in it already included, until none does. So the result is on
    these pictures at least as good by `score` as every single network and as the average of all.

    Source: Caruana et al., Ensemble Selection from Libraries of Models, https://doi.org/10.1145/1015330.1015432

    Args:
        answers: What every network says of the same pictures, none of which it was trained on.
        labels: Of these pictures.
        formula: Of `scores.FORMULAS`.

    Returns:
        A whole number for every network, 0 for those left out.

    >>> right, wrong = np.array([[0.9, 0.1]]), np.array([[0.2, 0.8]])
    >>> select([{"label": wrong}, {"label": right}], {"label": np.array([0])})
    [0, 1]
    """
    best_first = sorted(range(len(answers)), key=lambda place: score(answers[place], labels, formula), reverse=True)
    counts, best = [0] * len(answers), (-np.inf, -np.inf)
    for number in range(1, len(answers) + 1):
        first = [int(place in best_first[:number]) for place in range(len(answers))]
        if (found := score(average(answers, first), labels, formula)) > best:
            counts, best = first, found
    for _ in range(MOST_ADDED):
        present, size = average(answers, counts), sum(counts)
        tried = [score(average([present, one], [size, 1]), labels, formula) for one in answers]
        place = max(range(len(answers)), key=tried.__getitem__)
        if not tried[place] > best:
            break
        counts[place] += 1
        best = tried[place]
    return counts


def cross_fitted(
    answers: Sequence[Answers],
    labels: Labels,
    groups: np.ndarray | None = None,
    formula: str = "accuracy",
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """What the ensemble says of every picture when only the other half of the pictures chooses the networks.

    Their accuracy is not made hopeful by the choice. Pictures of one group are in the same half.
    """
    first = halves(np.arange(len(next(iter(labels.values())))) if groups is None else groups, seed)
    said = average(answers, [1] * len(answers))
    for half in (first, ~first):
        of_others = [{head: values[~half] for head, values in one.items()} for one in answers]
        counts = select(of_others, {head: values[~half] for head, values in labels.items()}, formula)
        for head, values in average(answers, counts).items():
            said[head][half] = values[half]
    return said


def halves(groups: np.ndarray, seed: int) -> np.ndarray:
    """Whether each picture is in the first of two halves, with as many groups in each (one more in the second)."""
    names, group_of = np.unique(groups, return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(names)) < len(names) // 2)[group_of]


def gains(ensembles: Sequence[Ensemble]) -> dict[str, dict[str, float]]:
    """By head, over the held-out pictures of all splits, what several networks reach together and alone.

    "expected" is the accuracy of `held_out`, "together" that of the average which is exported; they differ where the
    networks were chosen, there by other pictures, here by the same. "alone" is the mean of the accuracies of the
    networks that the trainings end with, "worst_alone" and "best_alone" are the worst and best of these in each split.
    Empty where a split has one network, or nothing is held out.
    """
    if any(len(one.models) < 2 or one.held_out is None for one in ensembles):
        return {}
    found: dict[str, dict[str, float]] = {}
    for head in ensembles[0].labelled:
        parts = [one for one in ensembles if one.labelled[head]]
        alone = [
            [one.alone[end - 1][head] for end in accumulate(len(training.models) for training in one.trained)]
            for one in parts
        ]
        columns: dict[str, list[float]] = {
            "together": [one.together[head] for one in parts],
            "expected": [one.expected[head] for one in parts],
            "alone": [float(np.mean(values)) for values in alone],
            "worst_alone": [min(values) for values in alone],
            "best_alone": [max(values) for values in alone],
        }
        counts = [one.labelled[head] for one in parts]
        if parts:
            found[head] = {name: float(np.average(values, weights=counts)) for name, values in columns.items()}
    return found


def _shares(counts: Sequence[int]) -> list[float]:
    return [count / sum(counts) for count in counts]
