"""What a diagnosis rests on: the curves of one training, measured."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from callbacks.training_curves import TrainingCurves, Windows

# Fewer epochs than this have no course: a first epoch can be a warm-up, a second one chance.
FEW = 3
# No better than chance: less than twice its accuracy, and less than a tenth of the way from it to 1. Both are far
# beyond what the best of some epochs on a few hundred pictures reaches by luck.
TWICE, TENTH = 2.0, 0.1
# Less than this share of the loss, or this accuracy, is little.
LITTLE = 0.5
# Examples in a window whose mean is to be believed: single losses of wrong answers are many times their mean.
WINDOW_EXAMPLES = 64
# Accuracy in training and validation apart by ten points.
GAP = 0.1
LONG = 30  # epochs of a schedule that is none of a short trial
USUAL_BATCH = 32  # Keras' own, where none is told
SMALL_BATCH = 16  # with a larger one, the loss within epochs moves by the rate rather than by the choice of examples
# The median of the absolute value of normal noise, in standard deviations; noise turns at two of three values.
MEDIAN, TURNS = 0.6745, 0.5
# An epoch's mean above the beginning by half, or a window's by as much again, is no noise.
JUMP, WINDOW_JUMP = 1.5, 2.0


class Diagnosis(NamedTuple):
    """One finding.

    Attributes:
        kind: "bug", "rate too high", "rate too low", "over-fitting", "under-fitting", "not converged", "noisy" or
            "healthy".
        title: The finding in a few words.
        evidence: The numbers and epochs it rests on.
        advice: What to try.
    """

    kind: str
    title: str
    evidence: str
    advice: str


@dataclass(frozen=True)
class Case:
    """Curves of the epochs with a training loss, and what else is known."""

    curves: TrainingCurves
    inner: Windows
    batch_size: int | None
    updates: float | None

    @cached_property
    def windows(self) -> Windows:
        """Wide enough that their means are to be believed."""
        return self.joined(WINDOW_EXAMPLES)

    def joined(self, examples: int) -> Windows:
        """Windows of at least so many examples."""
        return self.inner.joined(examples / (self.batch_size or USUAL_BATCH))

    @cached_property
    def begin(self) -> float:
        """The first loss that is known."""
        return float(self.windows.loss[0] if len(self.windows.loss) else self.curves.loss[0])

    @cached_property
    def fall(self) -> float:
        """From there to the lowest training loss of an epoch."""
        return self.begin - float(np.min(self.curves.loss))

    @cached_property
    def way(self) -> np.ndarray:
        """Where every epoch ended: the share of all learning rate spent, from 0 after the first epoch to 1."""
        rate = self.curves.rate
        spent = np.cumsum(rate[1:] if np.isfinite(rate).all() and np.sum(rate[1:]) > 0 else np.ones(len(rate) - 1))
        return np.concatenate([[0.0], spent / spent[-1]]) if len(spent) else np.ones(1)

    def at(self, values: np.ndarray, way: float) -> float:
        """`values` at a share of the way."""
        return float(np.interp(way, self.way, values))

    @cached_property
    def learned(self) -> float:
        """The way from chance to 1 in the last accuracy, training's or validation's; NaN where unknown."""
        last = [values[-1] for values in (self.curves.accuracy, self.curves.val_accuracy)]
        return beyond_chance(float(np.nanmax(last)), self.curves.chance) if np.isfinite(last).any() else math.nan

    @cached_property
    def mixed(self) -> bool:
        """Whether training accuracy lies far below validation's: mixed or augmented examples make it hard to judge."""
        return bool(self.curves.val_accuracy[-1] - self.curves.accuracy[-1] > GAP)

    @cached_property
    def long_schedule(self) -> bool:
        """Whether many epochs led to a rate near zero, or to one that is unknown: the loss falls at their end."""
        unknown = not np.isfinite(self.curves.rate).all()
        return len(self.curves.epochs) >= LONG and len(self.curves.cycles) == 1 and (unknown or self.curves.spent)

    def epoch(self, row: int) -> str:
        """In words."""
        return f"epoch {self.curves.epochs[row]}"

    def rate(self, row: int, before: str = " at learning rate ") -> str:
        """In words; nothing where it is unknown."""
        rate = self.curves.rate[row]
        return f"{before}{rate:.2g}" if math.isfinite(rate) else ""


def peak_of(case: Case) -> tuple[float, str]:
    """The highest loss, and where; 0 where none lies far above the beginning."""
    curves, wide = case.curves, case.windows
    start = np.nanmax([case.begin, curves.uniform])
    if len(wide.loss) and np.max(wide.loss) > WINDOW_JUMP * start:
        row = int(np.argmax(wide.loss))
        return float(wide.loss[row]), f"the steps up to {wide.step[row]:.0f}"
    row = int(np.argmax(curves.loss))
    if curves.loss[row] > JUMP * start:
        return float(curves.loss[row]), case.epoch(row)
    return 0.0, ""


def late(values: np.ndarray) -> float:
    """Mean of the later half of what is known; NaN where nothing is."""
    known = values[np.isfinite(values)]
    return float(np.mean(known[len(known) // 2 :])) if len(known) else math.nan


def wiggle(values: np.ndarray) -> float:
    """Standard deviation of the later half about a course that is nearly straight: second differences take that out."""
    half = values[len(values) // 2 :]
    return float(np.sqrt(np.mean(np.diff(half, 2) ** 2) / 6)) if len(half) > 2 else 0.0


def swing(values: np.ndarray) -> float:
    """The same, by the median, which single steps of the course do not move; 0 where it seldom turns up and down."""
    half = values[len(values) // 2 :]
    if len(half) <= 3:
        return 0.0
    turns = np.mean(np.diff(np.sign(np.diff(half))) != 0)
    return float(np.median(np.abs(np.diff(half, 2))) / (MEDIAN * math.sqrt(6))) if turns >= TURNS else 0.0


def beyond_chance(accuracy: float, chance: float) -> float:
    """The share of the way from chance, 0 where it is unknown, to 1."""
    chance = chance if math.isfinite(chance) else 0.0
    return (accuracy - chance) / (1 - chance)


def limit_of_chance(classes: int | None) -> float:
    """The accuracy up to which an output is no better than chance; NaN where unknown."""
    chance = 1 / classes if classes else math.nan
    return min(TWICE * chance, chance + TENTH * (1 - chance))


def percent(share: float, digits: int = 1) -> str:
    """A share in words.

    >>> percent(0.674), percent(0.5, 0)
    ('67.4 %', '50 %')
    """
    return f"{100 * share:.{digits}f} %"


def from_to(begin: float, end: float) -> str:
    """The course of a loss in words.

    >>> from_to(1.25, 1.221), from_to(1.2241, 1.2239)
    ('went from 1.25 to 1.22', 'stood still at 1.22')
    """
    first, last = f"{begin:.3g}", f"{end:.3g}"
    return f"went from {first} to {last}" if first != last else f"stood still at {first}"


def updates_in_words(case: Case) -> str:
    """In words, where they are known."""
    if case.updates is None:
        return ""
    return f" A step moves the kernels by {case.updates:.0e} of their size; about 1e-03 is usual."
