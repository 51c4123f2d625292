"""What the held-out pictures say: expected scores, temperatures, and which classes are taken for which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array, dia_array

from apps.calibration import Calibration, Reliability, calibrate, reliability
from apps.estimate import Estimate, expect_score
from apps.scores import FORMULAS, score
from pipelines.labels import MISSING

MOST_PROBABILITIES = 10_000_000  # that validation.csv holds; of more only the answers'


@dataclass(frozen=True)
class HeldOut:
    """Predictions of the held-out pictures, each by the networks that never saw it.

    Attributes:
        index: Which of the labelled pictures, [N].
        fold: In which fold each was held out, counted from 1, [N].
        probabilities: [N, K] by head.
    """

    index: np.ndarray
    fold: np.ndarray
    probabilities: dict[str, np.ndarray]


@dataclass(frozen=True)
class HeadEvaluation:
    """One head on its labelled held-out pictures.

    Attributes:
        expected: By the score that counts.
        accuracy: By accuracy, whatever counts.
        scores: By every formula, after calibration.
        log_loss_before: The log loss before calibration.
        calibration: The temperature, and the probabilities that all other figures are of.
        before, after: Confidence against accuracy, before and after calibration.
    """

    expected: Estimate
    accuracy: Estimate
    scores: dict[str, float]
    log_loss_before: float
    calibration: Calibration
    before: Reliability
    after: Reliability

    def describe(self) -> dict[str, Any]:
        """What result.json says of the head."""
        return {
            "expected": vars(self.expected),
            "expected_accuracy": vars(self.accuracy),
            "validation_scores": self.scores,
            "temperature": self.calibration.temperature,
            "log_loss": {"before": self.log_loss_before, "after": self.scores["log_loss"]},
            "calibration_error": {"before": self.before.error, "after": self.after.error},
            "reliability": {"before": self.before.describe(), "after": self.after.describe()},
        }


@dataclass(frozen=True)
class Evaluation:
    """What the held-out pictures say of all heads.

    Attributes:
        score: The name of the formula that counts.
        expected: The mean over the heads by it; None unless every head has a labelled held-out picture.
        heads: Those that have one.
    """

    score: str
    expected: Estimate | None
    heads: dict[str, HeadEvaluation]

    @property
    def temperatures(self) -> dict[str, float]:
        """By head, what the classifier calibrates its averaged probabilities with."""
        return {head: one.calibration.temperature for head, one in self.heads.items()}

    def lines(self) -> list[str]:
        """For the console: the score that counts first, then the heads."""
        formula = FORMULAS[self.score]
        title = "" if self.score == "accuracy" else f"{formula.title} "
        lines = []
        if self.expected is not None and len(self.heads) > 1:
            lines.append(f"expected  mean of {len(self.heads)} heads: {_sentence(self.score, self.expected, title)}")
        for head, one in self.heads.items():
            lines.append(f"expected  {head}: {_sentence(self.score, one.expected, title)}")
            if self.score != "accuracy":
                lines.append(f"          {head}: {_sentence('accuracy', one.accuracy, 'accuracy ')}")
            if one.calibration.temperature != 1:
                lines.append(
                    f"          {head}: temperature {one.calibration.temperature:.2f} makes its log loss "
                    f"{one.scores['log_loss']:.3f} instead of {one.log_loss_before:.3f}, its calibration error "
                    f"{100 * one.after.error:.1f} instead of {100 * one.before.error:.1f} %"
                )
        return lines


def _sentence(name: str, expected: Estimate, title: str) -> str:
    show = FORMULAS[name].show
    return (
        f"{title}{show(expected.value)} on {expected.pictures:,} held-out pictures; hidden score between "
        f"{show(expected.low)} and {show(expected.high)} (95 %)"
    )


def evaluate(
    name: str,
    held_out: HeldOut,
    labels: Mapping[str, np.ndarray],
    hidden: int,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> Evaluation:
    """Calibrate every head and estimate its hidden score, and the mean over the heads.

    Args:
        name: Of the formula that counts (`apps.scores`).
        held_out: Predictions.
        labels: Class numbers of *all* labelled pictures by head, -1 where there is none.
        hidden: How many pictures are hidden.
        groups: Of all labelled pictures; equal ones belong together.
        seed: Of the folds of calibration and of the bootstrap.
    """
    truth = {head: values[held_out.index] for head, values in labels.items()}
    group = None if groups is None else groups[held_out.index]
    heads: dict[str, HeadEvaluation] = {}
    for head, values in truth.items():
        if not (values != MISSING).any():
            continue
        before = held_out.probabilities[head]
        calibration = calibrate(before, values, group, seed)
        after = calibration.probabilities
        accuracy = expect_score("accuracy", {head: after}, {head: values}, hidden, group)
        heads[head] = HeadEvaluation(
            accuracy
            if name == "accuracy"
            else expect_score(name, {head: after}, {head: values}, hidden, group, seed=seed),
            accuracy,
            {formula: score(formula, after, values) for formula in FORMULAS},
            score("log_loss", before, values),
            calibration,
            reliability(before, values),
            reliability(after, values),
        )
    expected = None
    if heads and len(heads) == len(labels):
        expected = next(iter(heads.values())).expected
        if len(heads) > 1:
            after_all = {head: one.calibration.probabilities for head, one in heads.items()}
            expected = expect_score(name, after_all, truth, hidden, group, seed=seed)
    return Evaluation(name, expected, heads)


def class_table(confusion: np.ndarray | csr_array, names: Sequence[str]) -> list[dict[str, Any]]:
    """By class: pictures, precision, recall and F1 (None where there is nothing to divide by), and its worst rival.

    >>> class_table(np.array([[8, 2], [1, 9]]), ["cat", "dog"])[0]["rival"]
    ('dog', 2)
    """
    confusion = csr_array(confusion)
    right = confusion.diagonal()
    mistakes = confusion - dia_array((right[None], [0]), shape=confusion.shape)
    columns = (
        right,
        confusion.sum(axis=1),
        confusion.sum(axis=0),
        mistakes.argmax(axis=1),
        mistakes.max(axis=1).toarray(),
    )
    table = []
    for name, *row in zip(names, *(np.ravel(column).tolist() for column in columns), strict=True):
        correct, pictures, answers, rival, taken = row
        table.append(
            {
                "name": name,
                "pictures": pictures,
                "answers": answers,
                "precision": correct / answers if answers else None,
                "recall": correct / pictures if pictures else None,
                "f1": 2 * correct / (pictures + answers) if pictures + answers else None,
                "rival": (names[rival], taken) if taken > 0 else None,
            }
        )
    return table


def validation_table(
    evaluation: Evaluation,
    held_out: HeldOut,
    labels: Mapping[str, np.ndarray],
    classes: Mapping[str, Sequence[str]],
    ids: np.ndarray,
    id_column: str,
) -> pd.DataFrame:
    """A row for every held-out picture: its id, its fold, and by head the true class, the answer, the probabilities.

    A missing label is empty. The probabilities are those that the estimate is of: calibrated without the picture. Where
    they are more than ten million numbers, only that of the answer is in the table.
    """
    numbers = len(held_out.index) * sum(len(names) for names in classes.values())
    columns: dict[str, Any] = {id_column: ids[held_out.index]}

    def add(name: str, values: Any) -> None:
        while name in columns:
            name += "_"
        columns[name] = values

    add("fold", held_out.fold)
    for head, names in classes.items():
        one = evaluation.heads.get(head)
        probabilities = held_out.probabilities[head] if one is None else one.calibration.probabilities
        add(head, np.array([*names, ""], object)[labels[head][held_out.index]])  # the last for -1, which is missing
        add(f"{head}_predicted", np.array(names, object)[probabilities.argmax(axis=1)])
        if numbers > MOST_PROBABILITIES:
            add(f"{head}_probability", probabilities.max(axis=1))
            continue
        for number, name in enumerate(names):
            add(name if len(classes) == 1 else f"{head}_{name}", probabilities[:, number])
    return pd.DataFrame(columns)
