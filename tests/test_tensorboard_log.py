"""Logs for TensorBoard: what Keras' own callback writes, without an epoch twice after a resume."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from apps import run_folder, trainings
from apps.console import Console
from apps.resolve import resolve
from apps.tensorboard_log import TensorBoardLog

needs_tensorboard = pytest.mark.skipif(
    find_spec("tensorboard") is None, reason="Needs pip install 'kerascnn[tensorboard]'."
)
ORDER = run_folder.Order("pets", {"targets": None, "group": None, "id_column": None}, {}, "saved_models", False)


def fit(*callbacks: keras.callbacks.Callback, epochs: tuple[int, int] = (0, 3)) -> dict[str, list[float]]:
    """A tiny training with validation and a rate that changes; returns its history."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    rate = keras.optimizers.schedules.PolynomialDecay(0.1, 12)
    model.compile(keras.optimizers.SGD(rate), "mse", metrics=["mae"])
    x, y = np.random.default_rng(0).normal(size=(2, 32, 2)).astype("float32")
    y = y[:, :1]
    begin, end = epochs
    options: dict[str, Any] = {"initial_epoch": begin, "epochs": end, "validation_data": (x[:8], y[:8]), "verbose": 0}
    return model.fit(x, y, batch_size=8, callbacks=list(callbacks), **options).history


def read(folder: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """What TensorBoard sees: by folder and tag, steps with values."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator  # the server's

    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for part in sorted(path.name for path in folder.iterdir()):
        accumulator = EventAccumulator(str(folder / part)).Reload()
        found[part] = {
            tag: [(one.step, float(tf.make_ndarray(one.tensor_proto))) for one in accumulator.Tensors(tag)]
            for tag in accumulator.Tags()["tensors"]
        }
    return found


@needs_tensorboard
def test_epochs_have_the_names_and_values_of_keras(tmp_path) -> None:
    keras_own = keras.callbacks.TensorBoard(str(tmp_path / "keras"), write_graph=False)
    history = fit(TensorBoardLog(tmp_path / "ours"), keras_own)
    ours, theirs = read(tmp_path / "ours"), read(tmp_path / "keras")
    assert set(ours["train"]) == {"epoch_loss", "epoch_mae", "epoch_learning_rate"}
    assert set(ours["validation"]) == {"epoch_loss", "epoch_mae"}
    for part, tags in ours.items():
        for tag, steps in tags.items():
            assert steps == theirs[part][tag]
    assert ours["validation"]["epoch_mae"] == list(enumerate(np.float32(history["val_mae"]).tolist()))
    assert len({value for _, value in ours["train"]["epoch_learning_rate"]}) == 3


@needs_tensorboard
def test_epochs_trained_again_are_there_once(tmp_path) -> None:
    """Killed after the third epoch was logged and before it was kept: the resumed run trains it again."""
    fit(TensorBoardLog(tmp_path), epochs=(0, 3))
    before = read(tmp_path)
    for path in tmp_path.glob("*/events*"):  # as if it had been long ago: TensorBoard reads files by their seconds
        path.rename(path.with_name(re.sub(r"\d{10}", "1000000000", path.name, count=1)))
    again = fit(TensorBoardLog(tmp_path), epochs=(2, 5))
    for part, prefix in (("train", ""), ("validation", "val_")):
        steps = read(tmp_path)[part]["epoch_loss"]
        assert steps[:2] == before[part]["epoch_loss"][:2]
        assert steps[2:] == list(enumerate(np.float32(again[f"{prefix}loss"]).tolist(), start=2))


@needs_tensorboard
def test_epoch_is_on_disk_as_soon_as_it_ends(tmp_path) -> None:
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(len(read(tmp_path)["train"]["epoch_loss"]))
    )
    fit(TensorBoardLog(tmp_path), look)
    assert seen == [1, 2, 3]


def test_without_the_package_nothing_begins(run_here: Callable[..., Any], tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("apps.tensorboard_log.find_spec", lambda name: None)
    answer = run_here("compete", "digits", "--tensorboard")
    assert answer.returncode == 2
    assert answer.stderr == (
        "kerascnn: error: `--tensorboard` needs the package tensorboard: pip install 'kerascnn[tensorboard]'.\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wanted", [True, False])
def test_every_training_has_a_folder_of_its_own(tmp_path, monkeypatch, wanted: bool) -> None:
    given = []
    monkeypatch.setattr(
        trainings, "train", lambda *_, callbacks, **__: given.extend(callbacks) or SimpleNamespace(seconds=1)
    )
    recipe = resolve({"seeds": 2}, 40, (32, 32), [["a", "b"]])
    plan = SimpleNamespace(recipe=recipe, data=None, splits=[([0], [1]), ([1], [0])])
    trainings.train_all(plan, tmp_path, replace(ORDER, tensorboard=wanted), False, Console(quiet=True), None)
    folders = [callback.folder.relative_to(tmp_path).as_posix() for callback in given]
    assert folders == ([f"tensorboard/{name}" for name in ("1-1", "1-2", "2-1", "2-2")] if wanted else [])


def test_resumed_run_keeps_or_gains_its_logs(tmp_path) -> None:
    recipe = {"model": "resnet9"}
    run_folder.write_record(tmp_path, replace(ORDER, tensorboard=True), recipe, {})
    assert run_folder.kept_order(tmp_path, ORDER)[0].tensorboard
    record = json.loads((tmp_path / "recipe.json").read_text())
    del record["tensorboard"]  # as runs begun before there was this
    (tmp_path / "recipe.json").write_text(json.dumps(record))
    assert not run_folder.kept_order(tmp_path, ORDER)[0].tensorboard
    assert run_folder.kept_order(tmp_path, replace(ORDER, tensorboard=True))[0].tensorboard
