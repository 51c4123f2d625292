"""Whether one run is right more often than another by more than chance: McNemar's exact test on the same pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy.stats import binomtest

from apps.finished_run import FinishedRun, Validation
from pipelines.labels import MISSING

LEVEL = 0.05
FEWEST = 6  # pictures in common; of fewer the smallest p-value, 2 / 2^5, is above the level


@dataclass(frozen=True)
class Pair:
    """Two runs on the labelled pictures that both held out.

    Attributes:
        head: The target.
        first, second: Places of the runs in their list.
        pictures: How many both held out, with the same label in both.
        relabelled: How many more they have, but with different labels.
        right: How many each is right on.
        only_first, only_second: On how many one is right where the other is wrong.
        p: Of the two-sided test; None where `why` says what is in its way.
        corrected: The same by Holm's method for all pairs of the head that were tested.
        tests: How many these are.
        why: The reason that there is no test.
    """

    head: str
    first: int
    second: int
    pictures: int = 0
    relabelled: int = 0
    right: tuple[int, int] = (0, 0)
    only_first: int = 0
    only_second: int = 0
    p: float | None = None
    corrected: float | None = None
    tests: int = 1
    why: str = ""

    @property
    def better(self) -> int | None:
        """The place of the run that is better by more than chance; None where that cannot be said."""
        if self.corrected is None or self.corrected >= LEVEL:
            return None
        return self.first if self.only_first > self.only_second else self.second


def mcnemar(only_first: int, only_second: int) -> float:
    """The p-value of McNemar's exact test, two-sided: how likely so unequal counts are if both are right equally often.

    Of the pictures on which just one of two is right, each is then the first's or the second's with equal chance
    (McNemar, https://doi.org/10.1007/BF02295996). The test takes the networks as they are: it has few false alarms
    where each is trained once, but does not see how another training would differ (Dietterich,
    https://doi.org/10.1162/089976698300017197).

    Args:
        only_first: Pictures on which the first is right and the second wrong.
        only_second: The other way round.

    >>> mcnemar(1, 9), mcnemar(0, 0)
    (0.021484375, 1.0)
    """
    differing = only_first + only_second
    return float(binomtest(only_first, differing).pvalue) if differing else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number: the chance of any false alarm among all stays below the level.

    Holm's step-down method: the smallest is multiplied by their number, the next by one less, and so on; none becomes
    smaller than one before it (https://www.jstor.org/stable/4615733).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, largest = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = min(1.0, max(largest, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def compare_pairs(runs: Sequence[FinishedRun]) -> list[Pair]:
    """Every pair of runs on every head that both have, the p-values of a head corrected for its pairs."""
    found = []
    for head in dict.fromkeys(head for run in runs for head in run.classes):
        having = [place for place, run in enumerate(runs) if head in run.classes]
        pairs = [compare_pair(runs, head, *both) for both in combinations(having, 2)]
        tested = [place for place, pair in enumerate(pairs) if pair.p is not None]
        for place, p in zip(tested, holm([pairs[place].p or 0.0 for place in tested]), strict=True):
            pairs[place] = replace(pairs[place], corrected=p, tests=len(tested))
        found += pairs
    return found


def compare_pair(runs: Sequence[FinishedRun], head: str, first: int, second: int) -> Pair:
    """One head of two runs, uncorrected."""
    pair, one, other = Pair(head, first, second), runs[first], runs[second]
    if one.validation is None or other.validation is None:
        return replace(pair, why="nothing was held out")
    if set(one.classes[head]) != set(other.classes[head]):
        return replace(pair, why="their classes are not the same")
    _, *places = np.intersect1d(one.validation.ids, other.validation.ids, return_indices=True)
    truth, right = _labels(one.validation, one.classes[head], head, places[0])
    other_truth, other_right = _labels(other.validation, other.classes[head], head, places[1])
    labelled = (truth != "") & (other_truth != "")
    same = labelled & (truth == other_truth)
    first_right, second_right = right[same], other_right[same]
    pair = replace(
        pair,
        pictures=int(same.sum()),
        relabelled=int((labelled & ~same).sum()),
        right=(int(first_right.sum()), int(second_right.sum())),
        only_first=int((first_right & ~second_right).sum()),
        only_second=int((~first_right & second_right).sum()),
    )
    if pair.relabelled > pair.pictures:
        return replace(pair, why="most pictures of the same name have another label: they are not the same pictures")
    if pair.pictures < FEWEST:
        return replace(pair, why=f"{pair.pictures or 'no'} labelled pictures were held out by both, too few for a test")
    return replace(pair, p=mcnemar(pair.only_first, pair.only_second))


def _labels(
    validation: Validation, classes: Sequence[str], head: str, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of some held-out pictures the name of the class, "" where there is no label, and whether the answer is right."""
    truth, answer = validation.truth[head][places], validation.answer[head][places]
    return np.array([*classes, ""], object)[truth], (truth == answer) & (truth != MISSING)  # the last for -1


def in_words(pair: Pair, names: Sequence[str]) -> str:
    """What a pair says, in one sentence.

    >>> pair = Pair("label", 0, 1, pictures=500, only_first=12, only_second=30, p=0.008, corrected=0.008)
    >>> in_words(pair, ["a", "b"])  # doctest: +NORMALIZE_WHITESPACE
    'Of 500 pictures that both held out, a is right on 12 where b is wrong, b on 30 where a is wrong:
     p = 0.008, b is better.'
    """
    first, second = names[pair.first], names[pair.second]
    more = f" {pair.relabelled:,} more have another label in each, and do not count." if pair.relabelled else ""
    if pair.p is None or pair.corrected is None:
        return f"{first} and {second}: no test, {pair.why}.{more}"
    of = f"Of {pair.pictures:,} pictures that both held out, "
    if not pair.only_first + pair.only_second:
        return f"{of}{first} and {second} are right on the same: no difference is seen.{more}"
    verdict = "no difference is shown, which does not mean that there is none"
    if pair.better is not None:
        verdict = f"{names[pair.better]} is better"
    corrected = f", corrected for {pair.tests} pairs {show_p(pair.corrected)}" if pair.tests > 1 else ""
    return (
        f"{of}{first} is right on {pair.only_first:,} where {second} is wrong, {second} on {pair.only_second:,} where "
        f"{first} is wrong: {show_p(pair.p)}{corrected}, {verdict}.{more}"
    )


def show_p(p: float) -> str:
    """A p-value in two digits.

    >>> show_p(0.021484375), show_p(1.0), show_p(1e-7)
    ('p = 0.021', 'p = 1', 'p < 0.001')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
