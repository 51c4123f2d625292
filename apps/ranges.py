"""What a search may choose from: ranges of numbers and lists of values, as `--over` says them."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from apps.recipe import Recipe, check_choices

RATES = ("lr", "weight_decay", "bias_rate", "head_rate", "l1", "l2")  # their scale is logarithmic
AROUND = 10.0  # a rate without a range is searched from a tenth to ten times of what the recipe has
MARGIN = 0.1  # of a range's width: what lies nearer to its end is at the border
# What a trial, one short training that is scored as it is, cannot tell apart or compare: why not, by field.
NOT_TRIED = {
    "epochs": "`--epochs` and `--coarse` say how long trials are",
    "val": "scores are measured on it",
    "score": "trials are compared by one, that of `--score`",
    "seeds": "a trial trains one network for every split",
    "select": "a trial has no networks to choose from",
    "views": "only predictions after the training see shifted pictures, and the score of a trial does not change",
    "deterministic": "the same training to the last bit is no better one",
}
WIDENING = 0.5  # of a range's width is added beyond a border
NARROWING = 0.125  # of a range's width is kept around the best values


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included: on log scale or not, whole or not."""

    low: float
    high: float
    log: bool
    whole: bool

    def __str__(self) -> str:
        return f"{self.low:.3g} to {self.high:.3g}{' (log)' if self.log else ''}"

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def position(self, value: float) -> float:
        """Where a value lies on the range's scale: 0 is `low`, 1 is `high`.

        >>> Range(0.01, 1.0, log=True, whole=False).position(0.1)
        0.5
        >>> Range(2, 2, log=False, whole=True).position(2)
        0.5
        """
        if self.low == self.high:
            return 0.5
        low, high, at = (math.log(one) if self.log else one for one in (self.low, self.high, value))
        return (at - low) / (high - low)

    def at(self, position: float) -> float:
        """The value at a position, which may lie outside of 0 to 1.

        >>> Range(8, 32, log=True, whole=True).at(1.5)
        64
        """
        if self.log:
            value = self.low * (self.high / self.low) ** position
        else:
            value = self.low + position * (self.high - self.low)
        return round(value) if self.whole else float(f"{value:.12g}")


@dataclass(frozen=True)
class Values:
    """One of several values, of any type that a recipe has."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return ", ".join("null" if value is None else str(value) for value in self.values)

    def __contains__(self, value: object) -> bool:
        return value in self.values


Space = dict[str, Range | Values]


def parse_over(texts: Sequence[str]) -> dict[str, Range | Values | None]:
    """What each field of a recipe may be; None is a range around what the recipe has.

    `NAME` (a rate), `NAME=LOW..HIGH` with `:log` or `:linear` (rates are on log scale, others are not), `NAME=A,B,C`
    or `NAME=[A, B, C]` in JSON.

    Raises:
        ValueError: There is no such field, or it cannot have these values.

    >>> parse_over(["lr", "label_smoothing=0..0.2", "batch_size=32,64", "model=resnet9,airbench94"])["batch_size"]
    Values(values=(32, 64))
    >>> parse_over(["lr=1e-3..1"])
    {'lr': Range(low=0.001, high=1.0, log=True, whole=False)}
    """
    space: dict[str, Range | Values | None] = {}
    kinds = {field.name: field.type for field in fields(Recipe)}
    for text in texts:
        name, equals, said = (part.strip() for part in text.partition("="))
        if name not in kinds:
            check_choices({name: None})  # says which name is near
        if name in space:
            raise ValueError(f"`--over {name}` is given twice. Give one range, or all values in one list.")
        if name in NOT_TRIED:
            raise ValueError(f"`--over {name}` is not possible: {NOT_TRIED[name]}.")
        if not equals:
            if name not in RATES:
                raise ValueError(
                    f"`--over {name}` needs a range: {name}=LOW..HIGH[:log], or values: {name}=A,B. Without one only "
                    f"rates are searched: {', '.join(RATES)}."
                )
            space[name] = None
        else:
            space[name] = _range(name, said, kinds[name]) if ".." in said else _values(name, said)
    return space


def around(name: str, value: Any) -> Range:
    """The range of a rate around the recipe's.

    >>> print(around("lr", 0.05))
    0.005 to 0.5 (log)
    """
    if not value:
        raise ValueError(f"`--over {name}` needs a range, such as {name}=1e-5..1e-1: the recipe has {value!r}.")
    return Range(value / AROUND, value * AROUND, log=True, whole=False)


def border(found: Range, value: float) -> str:
    """Which end of a range a value lies at: "low", "high" or "" for neither."""
    position = found.position(value)
    return "low" if position < MARGIN else "high" if position > 1 - MARGIN else ""


def widened(found: Range, side: str, fits: Callable[[float], bool]) -> Range | None:
    """The range, longer by half of its width at one side, as far as values fit; None where it ends already.

    >>> widened(Range(0.01, 1.0, log=True, whole=False), "high", lambda value: value > 0)
    Range(low=0.01, high=10.0, log=True, whole=False)
    >>> widened(Range(0.1, 0.5, log=False, whole=False), "low", lambda value: value >= 0)
    Range(low=0.0, high=0.5, log=False, whole=False)
    """
    end = _reach(found, 0.0, -WIDENING, fits) if side == "low" else _reach(found, 1.0, 1 + WIDENING, fits)
    low, high = (end, found.high) if side == "low" else (found.low, end)
    longer = Range(low, high, found.log, found.whole)
    kept = abs(longer.position(found.high) - longer.position(found.low))
    return longer if kept < 0.99 else None


def narrowed(found: Range | Values, best: Sequence[Any], fits: Callable[[float], bool]) -> Range | Values:
    """What lies around the best values: an eighth of the range's width beyond them, as far as values fit.

    Whole numbers keep their neighbours in the range.

    >>> print(narrowed(Range(0, 4, log=False, whole=True), [1], lambda value: value >= 0))
    0 to 2
    """
    if isinstance(found, Values):
        return Values(tuple(value for value in found.values if value in best))
    low, high = found.position(min(best)), found.position(max(best))
    beside = 1 if found.whole else 0
    return Range(
        min(_reach(found, low, low - NARROWING, fits), max(found.low, min(best) - beside)),
        max(_reach(found, high, high + NARROWING, fits), min(found.high, max(best) + beside)),
        found.log,
        found.whole,
    )


def space_to_json(space: Space) -> str:
    """A space as text that `space_from_json` reads."""
    return json.dumps({name: asdict(one) for name, one in space.items()})


def space_from_json(text: str) -> Space:
    """The space that `space_to_json` wrote."""
    read: Mapping[str, dict[str, Any]] = json.loads(text)
    return {name: Values(_tuples(one["values"])) if "values" in one else Range(**one) for name, one in read.items()}


def _reach(found: Range, inside: float, outside: float, fits: Callable[[float], bool]) -> float:
    """The value at position `outside`, or the last one that fits on the way to it from `inside`, which does."""
    if fits(found.at(outside)):
        return found.at(outside)
    for _ in range(50):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if fits(found.at(middle)) else (inside, middle)
    end = found.at(inside)
    nice = end if found.log else round(end, 6)
    return nice if abs(end - nice) < 1e-6 and fits(nice) else end


def _range(name: str, said: str, kind: Any) -> Range:
    ends, _, scale = said.partition(":")
    low, _, high = ends.partition("..")
    whole = kind is int or kind == (int | None)
    try:
        first, last = (int(end) if whole else float(end) for end in (low, high))
    except ValueError:
        number = "whole numbers" if whole else "numbers"
        raise ValueError(f"`--over {name}` needs LOW..HIGH, two {number}. Received: {name}={said}.") from None
    for end in (first, last):
        check_choices({name: end})
    if scale not in ("", "log", "linear"):
        raise ValueError(f"`--over {name}` has the scale `:log` or `:linear`. Received: {name}={said}.")
    log = scale == "log" or (not scale and name in RATES)
    if first >= last:
        raise ValueError(f"`--over {name}` needs LOW..HIGH with LOW below HIGH. Received: {name}={said}.")
    if log and first <= 0:
        raise ValueError(
            f"`--over {name}` is on log scale, which begins above 0 (or say `:linear`). Received: {name}={said}."
        )
    return Range(first, last, log, whole)


def _values(name: str, said: str) -> Values:
    if said.startswith("["):
        try:
            values = json.loads(said)
        except ValueError as error:
            raise ValueError(f"`--over {name}` has a list that is not JSON: {error}. Received: {said}.") from None
    else:
        values = [_plain(one.strip()) for one in said.split(",")]
    different: list[Any] = []
    for value in values:
        if (checked := _tuples(check_choices({name: value})[name])) not in different:
            different.append(checked)
    if len(different) < 2:
        raise ValueError(f"`--over {name}` needs two values or a range, LOW..HIGH. Received: {name}={said}.")
    return Values(tuple(different))


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
