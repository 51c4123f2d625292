"""What compete says of the held-out pictures: by head and over all heads, in files and on the page."""

import json
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import coo_array

from apps.calibration import apply_temperature
from apps.evaluation import HeldOut, class_table, evaluate, validation_table
from apps.report.heads import matrix
from apps.scores import mean_score, score
from apps.submission import score_submission

CLASSES = {"kind": ["cat", "dog", "owl"], "fold": ["no", "yes"]}


def held_out(count: int = 300) -> tuple[HeldOut, dict[str, np.ndarray]]:
    """Too sure predictions of every second picture of `2 * count`, in two folds; a quarter has no second label."""
    generator = np.random.default_rng(0)
    labels = {head: generator.integers(0, len(names), 2 * count) for head, names in CLASSES.items()}
    labels["fold"][::4] = -1
    index = generator.permutation(np.arange(0, 2 * count, 2))
    answers = {}
    for head, names in CLASSES.items():
        truth = np.eye(len(names))[np.maximum(labels[head][index], 0)]
        logits = 2 * truth + 1.5 * generator.normal(size=truth.shape)
        answers[head] = apply_temperature(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), 0.4)
    return HeldOut(index, np.arange(count) % 2 + 1, answers), labels


@pytest.fixture
def evaluated():
    given, labels = held_out()
    return evaluate("macro_f1", given, labels, hidden=500), given, labels


def test_evaluation_scores_calibrated_probabilities_by_the_formula_that_counts(evaluated) -> None:
    evaluation, given, labels = evaluated
    truth = {head: values[given.index] for head, values in labels.items()}
    assert evaluation.expected.value == pytest.approx(mean_score("macro_f1", given.probabilities, truth))
    for head, one in evaluation.heads.items():
        assert one.expected.value == pytest.approx(score("macro_f1", given.probabilities[head], truth[head]))
        assert one.accuracy.value == pytest.approx(score("accuracy", given.probabilities[head], truth[head]))
        assert one.scores["log_loss"] == pytest.approx(score("log_loss", one.calibration.probabilities, truth[head]))
        assert one.scores["log_loss"] < one.log_loss_before
        assert one.after.error < one.before.error
        assert one.calibration.temperature > 1.5
        assert one.accuracy.pictures == one.after.count.sum() == (truth[head] != -1).sum()
    first = evaluation.lines()[0]
    assert first.startswith("expected  mean of 2 heads: macro F1 ")
    assert "on 300 held-out pictures; hidden score between" in first
    json.dumps([one.describe() for one in evaluation.heads.values()], allow_nan=False)


def test_one_head_counts_alone_and_one_without_labels_leaves_the_mean_unknown() -> None:
    given, labels = held_out()
    alone = evaluate(
        "accuracy",
        HeldOut(given.index, given.fold, {"kind": given.probabilities["kind"]}),
        {"kind": labels["kind"]},
        hidden=500,
    )
    assert alone.expected == alone.heads["kind"].expected == alone.heads["kind"].accuracy
    labels["fold"][:] = -1
    without = evaluate("accuracy", given, labels, hidden=500)
    assert (without.expected, list(without.heads)) == (None, ["kind"])


def test_nothing_held_out_expects_nothing() -> None:
    nothing = HeldOut(np.array([], int), np.array([], int), {"kind": np.zeros((0, 3))})
    evaluation = evaluate("log_loss", nothing, {"kind": np.arange(6) % 3}, hidden=10)
    assert (evaluation.expected, evaluation.heads, evaluation.lines(), evaluation.temperatures) == (None, {}, [], {})


def test_validation_table_gives_the_estimate_again(evaluated) -> None:
    evaluation, given, labels = evaluated
    ids = np.array([f"{number:03d}" for number in range(600)])
    table = validation_table(evaluation, given, labels, CLASSES, ids, "name")
    assert table.columns.tolist()[:7] == ["name", "fold", "kind", "kind_predicted", "kind_cat", "kind_dog", "kind_owl"]
    assert table.columns.tolist()[7:] == ["fold_", "fold_predicted", "fold_no", "fold_yes"]  # a head called "fold"
    assert table["name"].tolist() == [f"{number:03d}" for number in given.index]
    assert (table["kind"] == table["kind_predicted"]).mean() == pytest.approx(evaluation.heads["kind"].accuracy.value)
    assert (table["fold_"] == "").sum() == (labels["fold"][given.index] == -1).sum()
    np.testing.assert_allclose(table[["kind_cat", "kind_dog", "kind_owl"]].sum(axis=1), 1)
    first = table.iloc[0]
    assert first["kind"] == CLASSES["kind"][labels["kind"][given.index[0]]]


def test_class_table_counts_as_scikit_learn() -> None:
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    generator = np.random.default_rng(0)
    truth, answers = generator.integers(0, 3, 100), generator.integers(0, 4, 100)
    rows = class_table(confusion_matrix(truth, answers, labels=range(4)), ["a", "b", "c", "d"])
    expected = precision_recall_fscore_support(truth, answers, labels=range(4), zero_division=0)
    found = [[row[name] or 0 for row in rows] for name in ("precision", "recall", "f1", "pictures")]
    np.testing.assert_allclose(found, expected)
    assert rows[3]["recall"] is None
    assert rows[3]["rival"] is None


def test_hidden_scores_count_a_class_that_was_never_seen_as_wrong(capsys) -> None:
    from types import SimpleNamespace

    from apps.console import Console

    answers = pd.DataFrame({"label": ["x", "y", "z", ""]}, index=["1", "2", "3", "4"])
    competition = SimpleNamespace(answers=lambda: answers, targets=("label",), classes={"label": ["x", "y"]})
    probabilities = {"label": np.array([[0.75, 0.25], [0.75, 0.25], [0.5, 0.5]])}
    found = score_submission(np.array(["1", "2", "3"]), probabilities, competition, Console())["label"]
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["macro_f1"] == pytest.approx((2 * 1 / 4 + 0 + 0) / 3)
    assert found["log_loss"] == pytest.approx(-(np.log(0.75) + np.log(0.25) + np.log(1e-15)) / 3)
    assert "'z' occurs only in the test part" in capsys.readouterr().err


def test_run_writes_every_held_out_picture_and_what_its_calibration_did(digits_run) -> None:
    run = digits_run[0] / "runs/digits"
    result = json.loads((run / "result.json").read_text())
    one = result["heads"]["label"]
    table = pd.read_csv(run / "validation.csv", dtype={"label": str, "label_predicted": str})
    assert (table["label"] == table["label_predicted"]).mean() == pytest.approx(one["validation_accuracy"])
    assert len(table) == one["expected"]["pictures"]
    true = table.to_numpy()[np.arange(len(table)), 4 + table["label"].astype(int)].astype(float)
    assert -np.log(true).mean() == pytest.approx(one["log_loss"]["after"], rel=1e-3)
    assert one["log_loss"]["after"] < one["log_loss"]["before"]  # labels were smoothed: too cautious
    assert one["calibration_error"]["after"] < one["calibration_error"]["before"]
    assert one["temperature"] < 1
    assert result["expected"] == one["expected"] == one["expected_accuracy"]
    assert result["hidden_score"] == one["hidden_accuracy"] == one["hidden_scores"]["accuracy"]
    answers = pd.read_csv(run / "probabilities.csv", index_col="image")
    calibrated = table.iloc[:, 4:].max(axis=1).mean()
    assert answers.max(axis=1).mean() == pytest.approx(calibrated, abs=0.03)  # as sure as the calibrated ones
    after = one["reliability"]["after"]
    assert sum(after["count"]) == len(table)
    gaps = np.abs(np.array(after["confidence"]) - np.array(after["accuracy"]))
    assert np.array(after["count"]) @ gaps / len(table) == pytest.approx(one["calibration_error"]["after"])


def test_many_classes_take_little_time_and_memory() -> None:
    """20,000 classes and 5,000 pictures: matrix and table are as small as what they hold."""
    generator = np.random.default_rng(0)
    truth, answers = generator.integers(0, 20_000, 5000), generator.integers(0, 20_000, 5000)
    answers[::2] = truth[::2]
    confusion = coo_array((np.ones(5000, int), (truth, answers)), shape=(20_000, 20_000)).tocsr()
    names = [str(number) for number in range(20_000)]
    tracemalloc.start()
    rows = class_table(confusion, names)
    assert len(matrix(confusion, names)["cells"]) == 30
    assert tracemalloc.get_traced_memory()[1] < 200 * 2**20
    tracemalloc.stop()
    assert sum(row["pictures"] for row in rows) == 5000
    assert rows[truth[0]]["recall"] >= 1 / rows[truth[0]]["pictures"]
    assert rows[truth[1]]["rival"] is not None


def test_validation_table_of_very_many_probabilities_has_those_of_the_answers(evaluated, monkeypatch) -> None:
    evaluation, given, labels = evaluated
    ids = np.arange(600).astype(str)
    whole = validation_table(evaluation, given, labels, CLASSES, ids, "name")
    monkeypatch.setattr("apps.evaluation.MOST_PROBABILITIES", 300 * 5 - 1)
    table = validation_table(evaluation, given, labels, CLASSES, ids, "name")
    assert table.columns.tolist() == [
        *("name", "fold", "kind", "kind_predicted", "kind_probability"),
        *("fold_", "fold_predicted", "fold_probability"),
    ]
    np.testing.assert_array_equal(table["kind_probability"], whole[["kind_cat", "kind_dog", "kind_owl"]].max(axis=1))


def test_page_names_every_field_of_the_result(digits_run) -> None:
    result = json.loads((digits_run[0] / "runs/digits/result.json").read_text())
    page = (Path(__file__).parent.parent / "apps/README.md").read_text(encoding="utf-8")
    table = page[page.index("### result.json") : page.index("## Recipes")]
    named = set(re.findall(r"`(\w+)`", table))
    assert {*result, *result["heads"]["label"], *result["networks"][0], *result["expected"]} <= named
