"""Finished runs without a training: the files of a run folder, with what a test wants to stand in them."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from apps.recipe import Recipe
from apps.run_folder import Order

RECIPE = {"model": "resnet9", "width": 1.0, "image_size": (16, 16), "epochs": 2, "batch_size": 8, "lr": 0.1}
RECIPE |= {"flip": False, "crop": 0, "precision": "float32", "val": 0.1}
RECIPE |= {"cutout": 0, "rotation": 0.0, "zoom": 0.0, "translation": 0.0}
FINGERPRINT = {
    "labelled ids": "60, aaaaaaaaaaaa",
    "labels": "60, bbbbbbbbbbbb",
    "labelled pictures": "60, cccccccccccc",
    "validation split": "1, dddddddddddd",
    "hidden ids": "9, eeeeeeeeeeee",
    "hidden pictures": "9, ffffffffffff",
}
CLASSES = {"label": ("cat", "dog")}
Answers = Mapping[str, Sequence[tuple[str, str]]]  # by head, truth ("" for none) and answer of every held-out picture


def make_run(
    folder: Path,
    answers: Answers | None = None,
    classes: Mapping[str, Sequence[str]] = CLASSES,
    ids: Sequence[str] | None = None,
    history: Sequence[Mapping[str, float]] | None = None,
    recipe: Mapping[str, Any] | None = None,
    record: Mapping[str, Any] | None = None,
    result: Mapping[str, Any] | None = None,
    **fingerprint: str,
) -> Path:
    """Write a finished run.

    Args:
        folder: Which is made.
        answers: Of the held-out pictures; None holds out nothing.
        classes: Names by head.
        ids: Of the held-out pictures; "0", "1", ... unless given.
        history: Rows of history.csv; two epochs of one training unless given.
        recipe, record, result: What is different from a plain run.
        fingerprint: Of the data, by the part's name with "_" for " ".
    """
    folder.mkdir(parents=True)
    columns = {"targets": None, "group": None, "id_column": None}
    versions = {"kerascnn": "0.1.0", "tensorflow": "2.21.0"}
    written = {
        **asdict(Order("pets", columns, {}, "saved_models", False)),
        "recipe": asdict(Recipe(**{**RECIPE, **(recipe or {})})),
        "fingerprint": FINGERPRINT | {name.replace("_", " "): value for name, value in fingerprint.items()},
        "group_column": None,
        "command": "kerascnn compete pets",
        "versions": versions,
        **(record or {}),
    }
    write(folder / "recipe.json", written)
    write(folder / "classifier.json", {"metadata": {"classes": classes}})
    write_validation(folder, answers, classes, ids)
    history = history or [
        {
            "fold": 1,
            "network": 1,
            "epoch": 1,
            "lr": 0.1,
            "accuracy": 0.5,
            "loss": 0.9,
            "val_accuracy": 0.6,
            "val_loss": 0.8,
        },
        {
            "fold": 1,
            "network": 1,
            "epoch": 2,
            "lr": 0.0,
            "accuracy": 0.7,
            "loss": 0.6,
            "val_accuracy": 0.8,
            "val_loss": 0.5,
        },
    ]
    write_csv(folder / "history.csv", list(dict.fromkeys(name for row in history for name in row)), history)
    heads = {head: describe((answers or {}).get(head, ())) for head in classes}
    known = all(head["expected"] for head in heads.values())
    described = {
        "score": "accuracy",
        "expected": next(iter(heads.values()))["expected"] if known else None,
        "heads": heads,
        "parameters": 1_648_352,
        "seconds": 12.34,
        "pictures_per_second": 987.6,
        "best_epochs": [2],
        "seed": 0,
        "commit": "0123456789abcdef",
        "versions": versions,
        **(result or {}),
    }
    write(folder / "result.json", described)
    return folder


def describe(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What result.json says of a head."""
    labelled = [truth == answer for truth, answer in pairs if truth]
    if not labelled:
        return {"validation_accuracy": None, "largest_class": 0.5, "expected": None}
    value = sum(labelled) / len(labelled)
    estimate = {"value": value, "low": value - 0.1, "high": value + 0.1, "pictures": len(labelled)}
    return {
        "validation_accuracy": value,
        "largest_class": 0.5,
        "expected": estimate,
        "expected_accuracy": estimate,
        "validation_scores": {"accuracy": value, "macro_f1": value, "log_loss": 0.25},
        "temperature": 1.0,
        "log_loss": {"before": 0.5, "after": 0.25},
        "calibration_error": {"before": 0.1, "after": 0.05},
    }


def write_validation(
    folder: Path, answers: Answers | None, classes: Mapping[str, Sequence[str]], ids: Sequence[str] | None
) -> None:
    """validation.csv, every answer with a probability of 0.9."""
    if answers is None:
        return
    count = len(next(iter(answers.values())))
    rows = []
    for place in range(count):
        row: list[object] = [ids[place] if ids is not None else str(place), 1]
        for head, names in classes.items():
            truth, answer = answers[head][place]
            rest = 0.1 / (len(names) - 1)
            row += [truth, answer, *(0.9 if name == answer else rest for name in names)]
        rows.append(row)
    headings = ["image", "fold"]
    for head, names in classes.items():
        headings += [head, f"{head}_predicted", *(f"{head}_{name}" for name in names)]
    with (folder / "validation.csv").open("w", newline="") as file:
        csv.writer(file).writerows([headings, *rows])


def write_csv(path: Path, headings: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """A table; what a row lacks is empty."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, headings)
        writer.writeheader()
        writer.writerows(rows)


def write(path: Path, value: object) -> None:
    """A JSON file."""
    path.write_text(json.dumps(value), encoding="utf-8")
