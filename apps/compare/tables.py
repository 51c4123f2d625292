"""The figures of runs side by side, as tables for the page and for the console."""

from collections.abc import Sequence
from dataclasses import dataclass

from apps.compare.significance import Pair, show_p
from apps.console import percent
from apps.finished_run import FinishedRun
from apps.scores import FORMULAS

NOTHING = "–"  # not known, or not there


@dataclass(frozen=True)
class Table:
    """Rows of text under headings; `sides` has "<" for a column of words and ">" for one of numbers."""

    headings: Sequence[str]
    sides: str
    rows: Sequence[Sequence[str]]


def difference_table(found: Sequence[tuple[str, Sequence[str]]], names: Sequence[str]) -> Table:
    """What differs, a row each; a column for every run."""
    return Table(("what", *names), "<" * (1 + len(names)), [(what, *values) for what, values in found])


def score_table(runs: Sequence[FinishedRun], names: Sequence[str]) -> Table:
    """A row for every run, or for every head of every run and the mean of its heads."""
    scores = {run.result["score"] for run in runs}
    title = FORMULAS[scores.pop()].title if len(scores) == 1 else "score"
    rows = [row for run, name in zip(runs, names, strict=True) for row in _scores(run, name, title == "score")]
    headings = ("run", "head", f"expected {title}", "95 % interval", "accuracy", "log loss", f"hidden {title}")
    if all(len(run.result["heads"]) == 1 for run in runs) and len({row[1] for row in rows}) == 1:
        return Table((headings[0], *headings[2:]), "<>>>>>", [(row[0], *row[2:]) for row in rows])
    return Table(headings, "<<>>>>>", rows)


def _scores(run: FinishedRun, name: str, with_title: bool) -> list[tuple[str, ...]]:
    formula, heads = FORMULAS[run.result["score"]], run.result["heads"]
    title = f"{formula.title} " if with_title else ""

    def of(expected: dict[str, float] | None) -> tuple[str, str]:
        if expected is None:
            return NOTHING, NOTHING
        return title + formula.show(
            expected["value"]
        ), f"{formula.show(expected['low'])} to {formula.show(expected['high'])}"

    rows: list[tuple[str, ...]] = []
    if len(heads) > 1:
        hidden = formula.show(run.result["hidden_score"]) if "hidden_score" in run.result else NOTHING
        rows.append((name, f"mean of {len(heads)}", *of(run.result["expected"]), NOTHING, NOTHING, hidden))
    for head, found in heads.items():
        accuracy = NOTHING if found["validation_accuracy"] is None else percent(found["validation_accuracy"])
        loss = f"{found['log_loss']['after']:.3f}" if "log_loss" in found else NOTHING
        hidden = formula.show(found["hidden_scores"][run.result["score"]]) if "hidden_scores" in found else NOTHING
        rows.append((name, head, *of(found["expected"]), accuracy, loss, hidden))
    return rows


def cost_table(runs: Sequence[FinishedRun], names: Sequence[str]) -> Table:
    """What every run took, a row each."""
    headings = ("run", "network", "parameters", "trainings", "epochs", "best epoch", "seconds", "pictures/s")
    rows = [
        (
            name,
            str(run.recipe["model"]),
            f"{run.result['parameters']:,}",
            f"{len(run.history)}",
            _from_to([len(epochs) for epochs in run.history.values()]),
            _from_to(run.result["best_epochs"]),
            f"{run.result['seconds']:,.1f}",
            f"{run.result['pictures_per_second']:,.0f}",
        )
        for run, name in zip(runs, names, strict=True)
    ]
    return Table(headings, "<<>>>>>>", rows)


def _from_to(numbers: Sequence[int]) -> str:
    """
    >>> _from_to([7]), _from_to([8, 5, 7])
    ('7', '5 to 8')
    """
    few = sorted({min(numbers), max(numbers)}) if numbers else []
    return " to ".join(map(str, few)) or NOTHING


def pair_table(pairs: Sequence[Pair], names: Sequence[str]) -> Table:
    """The counts of every test, a row each; head and corrected p only where there are several."""
    headings = ["head", "first", "second", "pictures", "first right", "second right", "first only", "second only"]
    rows = [
        [
            pair.head,
            names[pair.first],
            names[pair.second],
            f"{pair.pictures:,}",
            *(f"{right:,}" for right in pair.right),
            f"{pair.only_first:,}",
            f"{pair.only_second:,}",
            *(NOTHING if p is None else show_p(p).lstrip("p =") for p in (pair.p, pair.corrected)),
        ]
        for pair in pairs
    ]
    begin = 0 if len({pair.head for pair in pairs}) > 1 else 1
    end = None if len(names) > 2 else -1
    headings += ["p", "corrected p"]
    return Table(headings[begin:end], "<<<>>>>>>>"[begin:end], [row[begin:end] for row in rows])
