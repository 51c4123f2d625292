"""What an audit of pictures says: findings in words, each with its weight, examples and what to do."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

SERIOUS, WARNING, NOTE = SEVERITIES = ("serious", "warning", "note")
EXAMPLES = 5  # at most so many
Ids = Sequence[str] | np.ndarray


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: A short name of what was looked for, such as "near duplicates of hidden pictures".
        severity: "serious" (the score will mislead, or is there to be gained otherwise), "warning" or "note".
        what: What was found, a sentence with numbers.
        count: How many pictures (groups, classes) it concerns.
        examples: Ids of some of them.
        advice: What to do; empty where there is nothing to do.
    """

    kind: str
    severity: str
    what: str
    count: int
    examples: tuple[str, ...] = ()
    advice: str = ""


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """The most serious first, else in their order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def some(values: Iterable[object]) -> tuple[str, ...]:
    """The first few as text."""
    return tuple(str(value) for value, _ in zip(values, range(EXAMPLES), strict=False))


def share(part: float, whole: float) -> str:
    """A part of a whole as a percentage.

    >>> share(1, 8), share(1, 6000)
    ('12.5 %', '0.02 %')
    """
    value = 100 * part / max(whole, 1)
    return f"{value:.2f} %" if 0 < value < 1 else f"{value:.1f} %"
