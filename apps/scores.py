"""What a competition counts: accuracy, macro F1 or log loss of probabilities, the mean over the heads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from pipelines.labels import MISSING

SMALLEST = 1e-15  # a probability of 0 for the true class would cost an infinite log loss


@dataclass(frozen=True)
class Formula:
    """A score that depends on the pictures only through sums over them, which makes resampling them cheap.

    Attributes:
        title: For people.
        higher_is_better: Which direction is better; the range of values is then 0 to 1, else 0 and more.
        tallies: From probabilities [N, K] and labels [N] to the addends [N, S] of every picture.
        value: From sums [..., S] of these to scores [...].
        is_mean: Whether it is a mean over the pictures.
    """

    title: str
    higher_is_better: bool
    tallies: Callable[[np.ndarray, np.ndarray], csr_array]
    value: Callable[[np.ndarray], np.ndarray]
    is_mean: bool

    def show(self, value: float) -> str:
        """A value for people: a percentage, or a log loss with three digits."""
        return f"{100 * value:.1f} %" if self.higher_is_better else f"{value:.3f}"


def score(name: str, probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The score of one head; pictures whose label is missing (-1) are left out.

    Args:
        name: "accuracy", the share of pictures whose likeliest class is right; "macro_f1", the mean over classes of
            2 TP / (2 TP + FP + FN), over those that occur in truth or answers, as scikit-learn does; "log_loss", the
            mean of -ln p of the true class.
        probabilities: [N, K].
        labels: Class numbers [N].

    Raises:
        ValueError: There is no such formula, or no label.

    >>> probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.5, 0.5]])
    >>> labels = np.array([0, 1, 1, MISSING])
    >>> [round(score(name, probabilities, labels), 3) for name in FORMULAS]
    [0.667, 0.667, 0.415]
    """
    formula = find_formula(name)
    labels = np.asarray(labels)
    if not (labels != MISSING).any():
        raise ValueError("`labels` holds no label, so there is nothing to score.")
    return float(formula.value(formula.tallies(np.asarray(probabilities), labels).sum(axis=0)))


def mean_score(name: str, probabilities: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> float:
    """The mean of the heads' scores, of probabilities [N, K] and labels [N] by head."""
    return float(np.mean([score(name, probabilities[head], labels[head]) for head in labels]))


def find_formula(name: str) -> Formula:
    """The formula of a name; a `ValueError` where there is none."""
    if name not in FORMULAS:
        raise ValueError(f"`score` must be one of {', '.join(FORMULAS)}. Received: {name!r}.")
    return FORMULAS[name]


def _of_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> csr_array:
    """Whether it is right, and that it counts."""
    right = probabilities.argmax(axis=1) == labels
    return csr_array(np.stack([right, labels != MISSING], axis=1).astype(float))


def _of_macro_f1(probabilities: np.ndarray, labels: np.ndarray) -> csr_array:
    """For every class, 2 TP, and 2 TP + FP + FN: once for the truth and once for the answer."""
    count, classes = probabilities.shape
    rows = np.flatnonzero(labels != MISSING)
    truth, answers = labels[rows], probabilities[rows].argmax(axis=1)
    right = rows[truth == answers]
    places = np.concatenate([rows, rows, right])
    columns = np.concatenate([classes + truth, classes + answers, labels[right]])
    values = np.concatenate([np.ones(2 * len(rows)), np.full(len(right), 2.0)])
    return csr_array((values, (places, columns)), shape=(count, 2 * classes))  # equal places are added


def _macro_f1(sums: np.ndarray) -> np.ndarray:
    twice_right, all_of_class = np.split(sums, 2, axis=-1)
    occurs = all_of_class > 0
    f1 = np.divide(twice_right, all_of_class, out=np.zeros_like(twice_right), where=occurs)
    return f1.sum(axis=-1) / np.maximum(occurs.sum(axis=-1), 1)


def losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-ln p [N] of the true class, float64; 0 where the label is missing."""
    known = labels != MISSING
    true = probabilities[np.arange(len(labels)), np.where(known, labels, 0)].astype(float)
    return np.where(known, -np.log(np.clip(true, SMALLEST, 1.0)), 0.0)


def _of_log_loss(probabilities: np.ndarray, labels: np.ndarray) -> csr_array:
    return csr_array(np.stack([losses(probabilities, labels), labels != MISSING], axis=1).astype(float))


def _mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / np.maximum(sums[..., 1], np.finfo(float).tiny)


FORMULAS: dict[str, Formula] = {
    "accuracy": Formula("accuracy", True, _of_accuracy, _mean, True),
    "macro_f1": Formula("macro F1", True, _of_macro_f1, _macro_f1, False),
    "log_loss": Formula("log loss", False, _of_log_loss, _mean, True),
}
