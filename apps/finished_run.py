"""What a finished run says of itself, read back from its folder: for its report, for comparisons, for explanations."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from apps.run_folder import read_record
from pipelines.labels import MISSING


@dataclass(frozen=True)
class Validation:
    """The held-out pictures, as validation.csv has them.

    Attributes:
        ids: Of the pictures [N].
        fold: In which each was held out [N].
        truth: Class numbers by head [N], -1 where there is no label.
        answer: The likeliest class by head [N].
        confidence: Its calibrated probability by head [N].
        probabilities: Of all classes by head [N, K]; None where the file has only those of the answers.
    """

    ids: np.ndarray
    fold: np.ndarray
    truth: dict[str, np.ndarray]
    answer: dict[str, np.ndarray]
    confidence: dict[str, np.ndarray]
    probabilities: dict[str, np.ndarray] | None


@dataclass(frozen=True)
class FinishedRun:
    """A run as its files tell it.

    Attributes:
        folder: Where it lies.
        record: recipe.json.
        result: result.json.
        classes: Names of the classes by head.
        history: By (fold, network), each counted from 1: the epochs of its training, with what is known of each.
        validation: None where nothing was held out.
    """

    folder: Path
    record: dict[str, Any]
    result: dict[str, Any]
    classes: dict[str, list[str]]
    history: dict[tuple[int, int], list[dict[str, float]]]
    validation: Validation | None

    @property
    def recipe(self) -> dict[str, Any]:
        """Every field of the recipe."""
        return self.record["recipe"]


def read_run(folder: Path, result: Mapping[str, Any] | None = None) -> FinishedRun:
    """Read a finished run.

    Args:
        folder: Such as runs/digits.
        result: What result.json will say, where it is not written yet.

    Raises:
        FileNotFoundError: It is no run, is not finished, or a file is missing.
        ValueError: A file is damaged.
    """
    if not (folder / "recipe.json").is_file():
        raise FileNotFoundError(f"{folder} is no folder of a run: it has no recipe.json. Name one such as runs/digits.")
    if result is None and not (folder / "result.json").is_file():
        raise FileNotFoundError(f"{folder} is not finished: it has no result.json. Go on with it by `--resume`.")
    record = read_record(folder)
    found = _read_json(folder / "result.json") if result is None else dict(result)
    classes = _read_json(folder / "classifier.json")["metadata"]["classes"]
    return FinishedRun(
        folder, record, found, classes, _read_history(folder / "history.csv"), _read_validation(folder, classes)
    )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the run was finished by an older version, or the file was lost.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error


def _read_history(path: Path) -> dict[tuple[int, int], list[dict[str, float]]]:
    """What is not known in an epoch, such as the score of an average before it begins, has no entry there."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing.")
    found: dict[tuple[int, int], list[dict[str, float]]] = {}
    for row in pd.read_csv(path).to_dict("records"):
        rows = found.setdefault((int(row.pop("fold")), int(row.pop("network"))), [])
        rows.append({str(name): float(value) for name, value in row.items() if not np.isnan(value)})
    return found


def _read_validation(folder: Path, classes: Mapping[str, list[str]]) -> Validation | None:
    path = folder / "validation.csv"
    if not path.is_file():
        return None
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    # By place: names of columns give way to others of the same name.
    sizes = [len(names) for names in classes.values()]
    if table.shape[1] not in (2 + sum(2 + size for size in sizes), 2 + 3 * len(sizes)):
        raise ValueError(f"{path} has {table.shape[1]} columns, which do not fit the run's classes: it was changed.")
    whole = table.shape[1] == 2 + sum(2 + size for size in sizes)
    columns = [table.iloc[:, place].to_numpy() for place in range(table.shape[1])]
    found = Validation(columns[0], columns[1].astype(int), {}, {}, {}, {} if whole else None)
    place = 2
    for head, names in classes.items():
        numbers = {name: number for number, name in enumerate(names)} | {"": MISSING}
        try:
            found.truth[head] = np.array([numbers[name] for name in columns[place]], int)
            found.answer[head] = np.array([numbers[name] for name in columns[place + 1]], int)
        except KeyError as error:
            raise ValueError(f"{path} has a class {error} that the run does not know: it was changed.") from error
        values = np.stack(
            [column.astype(float) for column in columns[place + 2 : place + 2 + (len(names) if whole else 1)]]
        )
        found.confidence[head] = values.max(axis=0)
        if found.probabilities is not None:
            found.probabilities[head] = values.T
        place += 2 + len(values)
    return found
