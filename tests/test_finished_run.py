"""A finished run read back from its files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from apps import evaluation
from apps.evaluation import HeldOut, evaluate, validation_table
from apps.finished_run import read_run

CLASSES = {"kind": ["cat", "dog", "owl"], "fold": ["no", "yes"]}


@pytest.fixture
def run(digits_run, tmp_path) -> Path:
    shutil.copytree(digits_run[0] / "runs/digits", tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    return tmp_path / "run"


def write_validation(folder: Path) -> tuple[HeldOut, dict[str, np.ndarray]]:
    """What `compete` writes of 40 pictures with two heads, one of them called "fold", with labels missing."""
    generator = np.random.default_rng(0)
    labels = {head: generator.integers(0, len(names), 60) for head, names in CLASSES.items()}
    labels["fold"][::3] = -1
    answers = {head: generator.dirichlet(np.ones(len(names)), 40) for head, names in CLASSES.items()}
    given = HeldOut(generator.permutation(60)[:40], np.arange(40) % 2 + 1, answers)
    found = evaluate("accuracy", given, labels, hidden=100)
    ids = np.array([f"{number:03d}" for number in range(60)])
    validation_table(found, given, labels, CLASSES, ids, "name").to_csv(folder / "validation.csv", index=False)
    record = json.loads((folder / "classifier.json").read_text())
    record["metadata"]["classes"] = CLASSES
    (folder / "classifier.json").write_text(json.dumps(record))
    return given, labels


def test_digits_run_is_read_as_it_was_written(digits_run) -> None:
    folder = digits_run[0] / "runs/digits"
    run = read_run(folder)
    table = pd.read_csv(folder / "validation.csv", dtype={"label": str, "label_predicted": str})
    assert run.validation.ids.tolist() == table["image"].tolist()
    assert run.validation.truth["label"].tolist() == table["label"].astype(int).tolist()
    assert run.validation.answer["label"].tolist() == table["label_predicted"].astype(int).tolist()
    np.testing.assert_allclose(run.validation.probabilities["label"], table.iloc[:, 4:].to_numpy(float))
    assert list(run.history) == [(1, 1)]
    assert [row["epoch"] for row in run.history[1, 1]] == [1, 2, 3, 4, 5, 6]
    assert all(row["momentum"] == pytest.approx(0.9) for row in run.history[1, 1])


@pytest.mark.parametrize("whole", [True, False])
def test_heads_of_any_name_and_missing_labels_are_read_back(run, monkeypatch, whole) -> None:
    monkeypatch.setattr(evaluation, "MOST_PROBABILITIES", 10_000_000 if whole else 0)
    given, labels = write_validation(run)
    found = read_run(run).validation
    assert found.ids.tolist() == [f"{number:03d}" for number in given.index]
    assert found.fold.tolist() == given.fold.tolist()
    for head, values in labels.items():
        assert found.truth[head].tolist() == values[given.index].tolist()
        assert (found.confidence[head] >= 1 / len(CLASSES[head])).all()
        if whole:
            np.testing.assert_array_equal(found.probabilities[head].argmax(axis=1), found.answer[head])
    assert (found.probabilities is not None) == whole


def test_values_unknown_in_an_epoch_have_no_entry(run) -> None:
    table = pd.read_csv(run / "history.csv")
    table["average_accuracy"] = [np.nan, np.nan, 0.5, 0.6, 0.7, 0.8]
    table.to_csv(run / "history.csv", index=False)
    rows = read_run(run).history[1, 1]
    assert "average_accuracy" not in rows[1]
    assert rows[2]["average_accuracy"] == 0.5


def test_what_is_no_finished_run_says_what_is_missing(run, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is no folder of a run: it has no recipe.json. Name one such as"):
        read_run(tmp_path)
    (run / "result.json").rename(run / "kept.json")
    with pytest.raises(FileNotFoundError, match=r"is not finished: it has no result.json. Go on with it by `--resume`"):
        read_run(run)
    (run / "result.json").write_text("{")
    with pytest.raises(ValueError, match=r"result\.json is damaged"):
        read_run(run)
    (run / "kept.json").replace(run / "result.json")
    table = (run / "validation.csv").read_text()
    (run / "validation.csv").write_text(table.replace(",label,", ",", 1))
    with pytest.raises(ValueError, match="columns, which do not fit the run's classes"):
        read_run(run)
