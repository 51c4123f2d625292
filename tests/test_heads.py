"""Losses of several heads: fixed weights, learned weights, labels that are missing."""

import json
import math
import tomllib
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tomli_w

from apps import training
from apps.compete import make_classifier, out_of_fold, weigh
from apps.console import Console
from apps.data import Data
from apps.ensemble import Ensemble
from apps.evaluation import evaluate
from apps.heads import check_heads, in_keras_names, loss_weights
from apps.network import build_network, check_network, compile_network, make_optimizer
from apps.recipe import Recipe, check_choices, parse_settings
from apps.resolve import resolve
from apps.submission import predict_pictures
from callbacks import read_snapshot
from pipelines import make_eval
from pipelines.labels import MISSING

# In this order the heads are neither sorted as Keras sorts dicts nor named as Keras names losses.
CLASSES = {"label": ["dark", "light"], "hair colour": ["x", "y", "z"]}
SMALL = {"model": "lenet5", "epochs": 3, "batch_size": 8, "precision": "float32", "image_size": (32, 32)}


@pytest.fixture
def data() -> Data:
    """The first head is told by the brightness, the second by the colour."""
    generator = np.random.default_rng(0)
    label, hair = np.arange(48) % 2, np.arange(48) // 2 % 3
    pictures = generator.integers(0, 60, (48, 32, 32, 3)) + 100 * label[:, None, None, None]
    pictures[np.arange(48), :, :, hair] += 90
    return Data(
        pictures.astype("uint8"), {"label": label.astype("int32"), "hair colour": hair.astype("int32")}, CLASSES
    )


def recipe_of(**choices: object) -> Recipe:
    return resolve({**SMALL, **choices}, 40, (32, 32), list(CLASSES.values()))


def train(data: Data, folder: Path, recipe: Recipe, resume: bool = False, callbacks: tuple = ()) -> training.Trained:
    index = np.arange(48)
    quiet = Console(quiet=True)
    return training.train(recipe, data, index[:40], index[40:], folder, quiet, resume=resume, callbacks=callbacks)


def losses(model: keras.Model, data: Data) -> dict[str, np.ndarray]:
    """Cross-entropy of every picture with a label, by numpy."""
    logits = model.predict(data.pictures.astype("float32"), verbose=0)
    found = {}
    for head, labels in data.labels.items():
        known = labels != MISSING
        values = logits[head][known].astype("float64")
        found[head] = np.log(np.exp(values).sum(axis=1)) - values[np.arange(known.sum()), labels[known]]
    return found


def test_weights_are_divided_by_their_sum_and_heads_not_named_have_one() -> None:
    assert loss_weights(recipe_of(), ("a", "b", "c")) == {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}  # bit by bit
    assert loss_weights(recipe_of(head_weights={"b": 3}), ("a", "b")) == {"a": 0.25, "b": 0.75}


@pytest.mark.parametrize("missing", [0, 40])
def test_loss_is_the_weighted_sum_of_means_over_labelled_pictures(data, missing) -> None:
    data.labels["hair colour"][:missing] = MISSING
    recipe, named = in_keras_names(recipe_of(head_weights={"hair colour": 3}, label_smoothing=0.0), data)
    model = build_network(recipe, named, "float32")
    compile_network(model, recipe, named.num_classes, 10)
    logs = model.evaluate(make_eval(named.pictures, named.labels, named.num_classes), verbose=0, return_dict=True)
    alone = losses(model, named)
    expected = 0.25 * alone["label"].mean() + 0.75 * alone["hair_colour_1"].mean()
    assert logs["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            {"head_weights": {"labe": 2}},
            r"entry for 'labe', which is no head\. Did you mean 'label'\? Heads: label, hair",
        ),
        ({"head_weights": {"label": 0}}, "`head_weights` must be positive numbers by head"),
        ({"head_weights": {"label": "2"}}, "`head_weights` must be a number. Received: head_weights='2'"),
        ({"head_weights": [1, 2]}, r'must be numbers by head, such as \{"label": 2\}. Received: head_weights=\[1, 2\]'),
        ({"head_loss": "learned"}, "`head_loss` must be one of fixed, uncertainty"),
        ({"head_loss": "uncertainty", "head_weights": {"label": 2}}, "fixes what `head_loss=uncertainty` learns"),
    ],
)
def test_weights_that_cannot_be_are_refused_before_a_network_is_built(choices, message) -> None:
    with pytest.raises(ValueError, match=message):
        check_network(recipe_of(**choices), {head: len(names) for head, names in CLASSES.items()})


def test_one_head_has_nothing_to_learn_weights_for() -> None:
    with pytest.raises(ValueError, match="learns how much each of several heads counts, and there is only one: label"):
        check_heads(recipe_of(head_loss="uncertainty"), ["label"])


def test_unknown_head_is_one_line_before_any_picture_is_decoded(colours, run_here) -> None:
    process = run_here("compete", colours, "--set", 'head_weights={"Label": 2}')
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert "no head. Did you mean 'label'? Heads: label" in process.stderr
    assert "decoded" not in process.stdout


def test_weights_survive_json_toml_and_the_command_line() -> None:
    weights = {"hair colour": 2.0, "label": 0.5}
    recipe = asdict(recipe_of(head_weights=weights))
    known = {name: value for name, value in recipe.items() if value is not None}  # TOML has no null
    for read in (json.loads(json.dumps(recipe)), tomllib.loads(tomli_w.dumps(known))):
        assert check_choices(read)["head_weights"] == weights
    assert parse_settings(['head_weights={"label": 2}']) == {"head_weights": {"label": 2}}


@pytest.mark.parametrize("optimizer", ["nesterov", "muon_sgd", "adamw"])
def test_log_variances_have_a_rate_of_their_own_and_no_decay(optimizer) -> None:
    chosen = {"head_loss": "uncertainty", "optimizer": optimizer, "warmup": 0.0, "weight_decay": 0.5, "batch_size": 32}
    recipe = recipe_of(**chosen)
    variables = [keras.Variable(np.ones(shape, "float32"), name=name) for shape, name in SHAPES]
    made = make_optimizer(recipe, 10**6, heads=2)
    zeros = [np.zeros(shape, "float32") for shape, _ in SHAPES]
    made.apply([keras.ops.convert_to_tensor(zero) for zero in zeros], variables)
    learned, kernel = (keras.ops.convert_to_numpy(one) for one in variables[:2])
    np.testing.assert_array_equal(learned, [1, 1])
    assert (kernel < 1).all()
    gradients = [keras.ops.convert_to_tensor(zero + 0.5 * (zero.shape == (2,))) for zero in zeros]
    for _ in range(100):
        made.apply(gradients, variables)
    before = keras.ops.convert_to_numpy(variables[0])
    made.apply(gradients, variables)
    step = before - keras.ops.convert_to_numpy(variables[0])
    # A tenth of the gradient of the sum over two heads, which is twice that of the mean; Adam's steps have one size.
    np.testing.assert_allclose(step, 0.01 if optimizer == "adamw" else 0.1 * 2 * 0.5, rtol=0.02)


# What the recipe's groups look for: the weights of a network with two heads.
SHAPES = [((2,), "log_variances"), ((4, 3), "head_label_kernel"), ((3,), "bias")]


class Stop(keras.callbacks.Callback):
    """As Ctrl-C at the beginning of the third epoch."""

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        if epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("optimizer", ["nesterov", "adamw"])
def test_learned_weights_fall_from_one_while_losses_are_high(data, tmp_path, optimizer) -> None:
    """Above a loss of 1 / 2 log-variances rise, to log(2 L) at most, and by 0.01 a step with AdamW."""
    recipe = recipe_of(head_loss="uncertainty", optimizer=optimizer, warmup=0.0, epochs=1)
    train(data, tmp_path, recipe)
    learned = read_snapshot(tmp_path / "best.npz")[0][0]
    assert (learned > 0).all()
    assert (learned < (0.051 if optimizer == "adamw" else math.log(2 * 3))).all()


def test_learned_weights_resume_bit_by_bit_and_stay_out_of_the_network(data, tmp_path) -> None:
    recipe = recipe_of(head_loss="uncertainty", optimizer="muon_sgd", warmup=0.0)
    whole = train(data, tmp_path / "whole", recipe)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "part", recipe, callbacks=(Stop(),))
    resumed = train(data, tmp_path / "part", recipe, resume=True)
    kept = [read_snapshot(tmp_path / name / "last.npz")[0] for name in ("whole", "part")]
    for found, expected in zip(*kept, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert kept[0][0].all()  # the log-variances
    assert resumed.history[-1]["loss"] == whole.history[-1]["loss"]
    assert not any("log_variances" in weight.path for weight in resumed.model.weights)
    classifier = make_classifier(SimpleNamespace(recipe=recipe, data=data), [Ensemble([resumed], [1.0])])
    answers = predict_pictures(classifier, data.pictures[40:])
    assert {head: values.shape for head, values in answers.items()} == {"label": (8, 2), "hair colour": (8, 3)}


def test_a_head_with_few_labels_is_validated_and_estimated_on_these(data, tmp_path) -> None:
    labels = data.labels["hair colour"]
    labels[np.arange(48) % 4 != 0] = MISSING
    recipe = recipe_of(epochs=4, flip=False, views=0)
    trained = train(data, tmp_path, recipe)
    held_out = np.arange(40, 48)
    logits = trained.model.predict(data.pictures[held_out].astype("float32"), verbose=0)["hair_colour_1"]
    known = labels[held_out] != MISSING
    right = float((logits.argmax(axis=1) == labels[held_out])[known].mean())
    assert trained.history[trained.best_epoch - 1]["val_hair_colour_1_accuracy"] == pytest.approx(right)
    plan = SimpleNamespace(
        recipe=recipe, data=data, splits=[(np.arange(40), held_out)], groups=None, test_readable=np.ones(5, bool)
    )
    heads = evaluate("accuracy", out_of_fold(plan, weigh(plan, [[trained]])), data.labels, 5).heads
    assert {head: one.expected.pictures for head, one in heads.items()} == {"label": 8, "hair colour": 2}
    assert heads["hair colour"].expected.value == pytest.approx(right)
