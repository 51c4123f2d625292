"""What differs between runs before any of them was trained: recipe, data, validation split, versions."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from apps.finished_run import FinishedRun

UNKNOWN = "not known"
# Parts of the fingerprint of the data (`apps.plan.Plan.fingerprint`).
LABELLED = ("labelled ids", "labels", "labelled pictures")
SPLIT = ("validation split",)
HIDDEN = ("hidden ids", "hidden pictures")
FINGERPRINT = (*LABELLED, *SPLIT, *HIDDEN)
IN_THE_LOSS = ("head_weights", "head_loss", "l1", "l2")  # fields that decide what a validation loss is made of


def differences(runs: Sequence[FinishedRun]) -> list[tuple[str, list[str]]]:
    """What is not the same in all runs, with the value of every run: first the data, then the recipe, then versions."""
    found = _differing(runs, lambda run: {"data": run.record["data"], **run.record["columns"]})
    found += _differing(runs, lambda run: {part: _checked(run.record["fingerprint"][part]) for part in FINGERPRINT})
    found += _differing(runs, lambda run: run.recipe)
    found += _differing(runs, lambda run: run.record["versions"])
    return found + _differing(runs, lambda run: {"commit": (run.result.get("commit") or UNKNOWN)[:12]})


def _differing(
    runs: Sequence[FinishedRun], of: Callable[[FinishedRun], Mapping[str, Any]]
) -> list[tuple[str, list[str]]]:
    """Entries that some runs lack, such as fields that came later, differ from those that others have."""
    tables = [of(run) for run in runs]
    names = dict.fromkeys(name for table in tables for name in table)
    rows = [(name, [_show(table[name]) if name in table else UNKNOWN for table in tables]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _show(value: Any) -> str:
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _checked(part: str) -> str:
    """A number and a checksum, told apart.

    >>> _checked("1,437, 618f6a267f38")
    '1,437 (checksum 618f6a)'
    """
    number, _, checksum = part.rpartition(", ")
    return f"{number} (checksum {checksum[:6]})"


def differ_in(runs: Sequence[FinishedRun], parts: Sequence[str]) -> bool:
    """Whether the fingerprints of the data differ in any of these parts."""
    return any(len({run.record["fingerprint"].get(part) for run in runs}) > 1 for part in parts)


def cautions(runs: Sequence[FinishedRun], names: Sequence[str]) -> list[str]:
    """What keeps the runs from being compared like with like, a sentence each."""
    found = []
    if differ_in(runs, LABELLED):
        found.append(
            "The labelled pictures are not the same in all runs: the scores are of different tasks, and pictures are "
            "matched by their ids alone."
        )
    if differ_in(runs, SPLIT) or differ_in(runs, LABELLED):
        found.append(
            "The runs held out different pictures: a part of the difference of their scores and curves comes from "
            "that. The test is on the pictures that both of a pair held out."
        )
    if differ_in(runs, HIDDEN):
        found.append("The hidden pictures are not the same in all runs: their hidden scores cannot be compared.")
    if any(len({json.dumps(run.recipe.get(field)) for run in runs}) > 1 for field in IN_THE_LOSS):
        found.append(f"The validation losses are not sums of the same ({', '.join(IN_THE_LOSS)}).")
    if len({run.recipe["score"] for run in runs}) > 1:
        found.append("The runs were to be good by different scores: their expected scores cannot be compared.")
    return found + _of_the_test(runs, names)


def _of_the_test(runs: Sequence[FinishedRun], names: Sequence[str]) -> list[str]:
    """What the significance does not know."""
    found = []
    if any(grouped(run) for run in runs):
        found.append(
            "The pictures come in groups. Those of one group are right or wrong together, which the test does not "
            "know: it is too sure."
        )
    choosing = [name for name, run in zip(names, runs, strict=True) if chose_its_epoch(run)]
    if choosing:
        who = "Every run" if len(choosing) == len(runs) else ", ".join(choosing)
        found.append(
            f"{who} kept the epoch that was best on the pictures held out: the accuracy there is a little too high, "
            "the more so the more epochs there were to choose from."
        )
    return found


def grouped(run: FinishedRun) -> bool:
    """Whether pictures belong to groups, such as all of one person."""
    given = run.record.get("group_column") or run.record["columns"].get("group")
    return given not in (None, "none")


def chose_its_epoch(run: FinishedRun) -> bool:
    """Whether the held-out pictures decided which epoch was kept; snapshots are kept as they come."""
    several = any(len(epochs) > 1 for epochs in run.history.values())
    return run.validation is not None and several and run.recipe.get("snapshots", 1) == 1
