"""The scores of competitions, against scikit-learn; which epoch is the best by each of them."""

from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn import metrics

from apps import training
from apps.console import Console
from apps.data import Data
from apps.recipe import SCORES, check_choices
from apps.resolve import resolve
from apps.scores import FORMULAS, find_formula, mean_score, score
from callbacks import MacroF1


def some(count: int = 200, classes: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels; the last class occurs in neither."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes - 1, count)
    logits = generator.normal(size=(count, classes)) + 1.5 * np.eye(classes)[labels]
    logits[:, -1] = -20
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


def test_scores_are_those_of_scikit_learn() -> None:
    probabilities, labels = some()
    answers = probabilities.argmax(axis=1)
    assert score("accuracy", probabilities, labels) == pytest.approx(metrics.accuracy_score(labels, answers))
    assert score("macro_f1", probabilities, labels) == pytest.approx(metrics.f1_score(labels, answers, average="macro"))
    expected = metrics.log_loss(labels, probabilities, labels=range(6))
    assert score("log_loss", probabilities, labels) == pytest.approx(expected)


def test_macro_f1_counts_classes_that_are_only_answered_or_only_true() -> None:
    truth, answers = np.array([0, 0, 1, 3]), np.array([0, 2, 1, 1])
    expected = metrics.f1_score(truth, answers, average="macro", zero_division=0)
    assert score("macro_f1", np.eye(5)[answers], truth) == pytest.approx(expected)
    assert expected == pytest.approx((2 / 3 + 2 / 3 + 0 + 0) / 4)


@pytest.mark.parametrize("name", SCORES)
def test_missing_labels_are_left_out(name) -> None:
    probabilities, labels = some()
    gaps = np.where(np.arange(200) % 3 == 0, -1, labels)
    known = gaps != -1
    assert score(name, probabilities, gaps) == pytest.approx(score(name, probabilities[known], labels[known]))
    with pytest.raises(ValueError, match="holds no label"):
        score(name, probabilities, np.full(200, -1))


def test_mean_over_heads_counts_every_head_alike() -> None:
    answers = {"a": np.eye(2)[[0, 1, 1, 1]], "b": np.eye(3)[[2, 2, 2, 2]]}
    labels = {"a": np.array([0, 1, 1, 1]), "b": np.array([2, -1, -1, 0])}
    assert mean_score("accuracy", answers, labels) == pytest.approx((1 + 1 / 2) / 2)


def test_impossible_answer_costs_much_and_not_everything() -> None:
    assert score("log_loss", np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(-np.log(1e-15))


def test_names_and_directions_of_scores() -> None:
    assert tuple(FORMULAS) == SCORES
    assert [formula.higher_is_better for formula in FORMULAS.values()] == [True, True, False]
    with pytest.raises(ValueError, match=r"`score` must be one of accuracy, macro_f1, log_loss. Received: 'f1'"):
        find_formula("f1")
    with pytest.raises(ValueError, match="`score` must be one of accuracy, macro_f1, log_loss"):
        check_choices({"score": "f1"})


def test_metric_of_macro_f1_is_that_of_scikit_learn_over_batches() -> None:
    probabilities, labels = some()
    weights = (np.arange(200) % 4 > 0).astype("float32")
    rows = np.eye(6)[labels] * 0.9 + 0.1 / 6
    metric = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(MacroF1(6)))
    assert float(metric.result()) == 0
    for part in (slice(0, 80), slice(80, 200)):
        metric.update_state(rows[part], np.log(probabilities[part]), weights[part])
    known = weights > 0
    expected = metrics.f1_score(labels[known], probabilities[known].argmax(axis=1), average="macro")
    assert float(metric.result()) == pytest.approx(expected, abs=1e-6)
    metric.reset_state()
    assert float(metric.result()) == 0


@pytest.mark.parametrize("name", ["macro_f1", "log_loss"])
def test_best_epoch_is_that_of_the_chosen_score(tmp_path: Path, name) -> None:
    """Two heads, one with missing labels: the log's values are those of the network's own answers."""
    generator = np.random.default_rng(0)
    labels = {"kind": np.arange(60) % 3, "side": np.where(np.arange(60) % 5 == 0, -1, np.arange(60) % 2)}
    pictures = (generator.integers(0, 120, (60, 12, 12, 3)) + 60 * labels["kind"][:, None, None, None]).astype("uint8")
    classes = {"kind": ["a", "b", "c"], "side": ["x", "y"]}
    chosen = {"model": "resnet9", "width": 0.125, "epochs": 3, "batch_size": 10, "precision": "float32"}
    recipe = resolve({**chosen, "score": name, "image_size": (12, 12)}, 40, (12, 12), list(classes.values()))
    data = Data(pictures, {head: values.astype("int32") for head, values in labels.items()}, classes)
    index = np.arange(60)
    trained = training.train(recipe, data, index[:40], index[40:], tmp_path, Console(quiet=True))
    means = [np.mean([row[f"val_{head}_{name}"] for head in classes]) for row in trained.history]
    best = int(np.argmin(means) if name == "log_loss" else np.argmax(means))
    assert trained.best_epoch == best + 1
    answers = trained.model.predict(pictures[40:].astype("float32"), verbose=0)
    probabilities = {head: keras.ops.convert_to_numpy(keras.ops.softmax(answers[head])) for head in classes}
    held_out = {head: values[40:] for head, values in labels.items()}
    assert means[best] == pytest.approx(mean_score(name, probabilities, held_out), abs=1e-4)
