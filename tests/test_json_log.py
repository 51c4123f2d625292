"""The JSON log: every epoch stands once, whatever happened to the training."""

import json
from datetime import UTC, datetime

import keras
import numpy as np
import pytest

from callbacks.json_log import JsonLog, plain, read_log

X, Y = np.ones((20, 2), "float32"), np.ones((20, 1), "float32")


def build(rate=0.125, **options) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate), "mse", **options)
    return model


def train(model: keras.Model, log: JsonLog, epochs: int, first: int = 0, size: int = 2) -> dict[str, list[float]]:
    options = {"initial_epoch": first, "epochs": epochs, "batch_size": size, "shuffle": False, "verbose": 0}
    return model.fit(X, Y, **options, validation_data=(X[:4], Y[:4]), callbacks=[log]).history


def test_one_line_an_epoch_with_all_logs(tmp_path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    history = train(build(), JsonLog(tmp_path / "log.jsonl"), 3)
    lines = read_log(tmp_path / "log.jsonl")
    assert [(line["epoch"], line["step"]) for line in lines] == [(0, 10), (1, 20), (2, 30)]
    assert [line["logs"]["val_loss"] for line in lines] == history["val_loss"]
    assert {name for line in lines for name in line["logs"]} == {"loss", "val_loss"}
    assert all(line["not_finite"] == [] and line["seconds"] > 0 for line in lines)
    assert all(before <= datetime.fromisoformat(line["time"]) <= datetime.now(UTC) for line in lines)


def test_learning_rate_is_that_of_the_last_step(tmp_path) -> None:
    """The rate is the number of the step, counted from 0: epoch 0 ends with step 9, epoch 1 with step 19."""
    schedule = keras.optimizers.schedules.PolynomialDecay(0.0, 1000, 1000.0)
    train(build(schedule), JsonLog(tmp_path / "log.jsonl", every=5), 2)
    rates = [(line.get("batch"), line["learning_rate"]) for line in read_log(tmp_path / "log.jsonl")]
    assert rates == [(5, 4.0), (10, 9.0), (None, 9.0), (5, 14.0), (10, 19.0), (None, 19.0)]


@pytest.mark.parametrize("wrapper", [None, keras.optimizers.LossScaleOptimizer], ids=["alone", "wrapped"])
def test_several_optimisers_have_several_rates(tmp_path, wrapper, multi_optimizer) -> None:
    model = build()
    groups = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.125), {".*bias": keras.optimizers.SGD(0.25)})
    optimizer = multi_optimizer(groups)
    model.compile(wrapper(optimizer) if wrapper else optimizer, "mse")
    train(model, JsonLog(tmp_path / "log.jsonl"), 1)
    (line,) = read_log(tmp_path / "log.jsonl")
    assert (sorted(line["learning_rate"]), line["step"]) == ([0.125, 0.25], 10)


@pytest.mark.parametrize(
    ("every", "execution", "batches"),
    [(4, 1, [4, 8]), (4, 3, [6, 9]), (3, 4, [4, 8, 10]), (1, 4, [4, 8, 10]), (11, 4, [])],
)
def test_lines_of_batches_stand_at_the_first_hook_after_each_multiple(tmp_path, every, execution, batches) -> None:
    """10 batches in an epoch; with 4 in an execution Keras ends them as number 3, 7 and 11."""
    train(build(steps_per_execution=execution), JsonLog(tmp_path / "log.jsonl", every), 2)
    lines = [line for line in read_log(tmp_path / "log.jsonl") if "batch" in line]
    expected = [(epoch, batch, 10 * epoch + batch) for epoch in (0, 1) for batch in batches]
    assert [(line["epoch"], line["batch"], line["step"]) for line in lines] == expected


def test_steps_are_batches_also_under_gradient_accumulation(tmp_path) -> None:
    model = build()
    model.compile(keras.optimizers.SGD(0.125, gradient_accumulation_steps=4), "mse")
    train(model, JsonLog(tmp_path / "log.jsonl", every=5), 1)
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [5, 10, 10]


def test_values_that_are_no_numbers_stand_as_null_and_are_named(tmp_path) -> None:
    log = JsonLog(tmp_path / "log.jsonl")
    log.set_model(build())
    log.set_params({"steps": 1})
    log.on_train_begin()
    log.on_epoch_begin(0)
    values = {
        "loss": float("nan"),
        "f1": np.array([0.5, np.inf]),
        "n": np.int64(3),
        "b": np.float32(0.25),
        "c": X[0, 0],
    }
    log.on_epoch_end(0, values)
    line = json.loads((tmp_path / "log.jsonl").read_text())
    assert line["logs"] == {"loss": None, "f1": [0.5, None], "n": 3, "b": 0.25, "c": 1.0}
    assert line["not_finite"] == ["f1", "loss"]


def test_resumed_training_has_every_epoch_once(tmp_path) -> None:
    """The first part was killed in epoch 3, and goes on from epoch 2."""
    path = tmp_path / "log.jsonl"
    train(build(), JsonLog(path, every=5), 4)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:40])
    assert [line["epoch"] for line in read_log(path)] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3]
    train(build(), JsonLog(path, every=5), 5, first=2)
    assert [line["epoch"] for line in read_log(path) if "batch" not in line] == [0, 1, 2, 3, 4]
    assert [line["batch"] for line in read_log(path) if "batch" in line] == [5, 10] * 5
    assert path.read_bytes().splitlines(keepends=True)[:6] == lines[:6]
    assert [file.name for file in tmp_path.iterdir()] == ["log.jsonl"]


def test_training_that_goes_on_within_an_epoch_keeps_its_lines_and_counts_on(tmp_path) -> None:
    """Killed after 7 of 10 steps of the third epoch, whose checkpoint was written after 5."""
    path = tmp_path / "log.jsonl"
    train(build(), JsonLog(path, every=2), 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:15]))  # five and an epoch's, twice; then three
    assert [line["step"] for line in read_log(path)][-3:] == [22, 24, 26]
    model = build()
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(25)
    log = JsonLog(path, every=2)
    log.set_model(model)
    log.set_params({"steps": 5})
    log.on_train_begin()
    log.on_epoch_begin(2)
    for batch in range(5):
        log.on_train_batch_end(batch, {"loss": 1.0})
    found = [(line["batch"], line["step"]) for line in read_log(path)[12:]]
    assert found == [(2, 22), (4, 24), (6, 26), (8, 28), (10, 30)]


def test_half_line_is_cut_off_even_where_all_whole_lines_stay(tmp_path) -> None:
    path = tmp_path / "log.jsonl"
    train(build(), JsonLog(path), 2)
    with path.open("a") as file:
        file.write('{"epoch": 2, "st')
    train(build(), JsonLog(path), 3, first=2)
    assert [line["epoch"] for line in read_log(path)] == [0, 1, 2]


def test_new_training_does_not_overwrite_a_log(tmp_path) -> None:
    path = tmp_path / "log.jsonl"
    train(build(), JsonLog(path), 2)
    text = path.read_bytes()
    with pytest.raises(ValueError, match="2 lines of a training before"):
        train(build(), JsonLog(path), 1)
    assert path.read_bytes() == text
    train(build(), JsonLog(path, overwrite=True), 1)
    assert [line["epoch"] for line in read_log(path)] == [0]


def test_training_killed_in_its_first_epoch_can_begin_again(tmp_path) -> None:
    path = tmp_path / "log.jsonl"
    train(build(), JsonLog(path, every=5), 1)
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    train(build(), JsonLog(path), 1)
    assert [(line["epoch"], line["step"]) for line in read_log(path)] == [(0, 10)]


def test_every_line_is_on_disk_when_its_hook_returns(tmp_path) -> None:
    path = tmp_path / "log.jsonl"
    seen = []
    look = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(len(read_log(path))))
    build().fit(X, Y, epochs=3, verbose=0, callbacks=[JsonLog(path), look])
    assert seen == [1, 2, 3]


def test_damaged_log_is_refused_with_the_line(tmp_path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"epoch": 0}\nnonsense\n')
    with pytest.raises(ValueError, match="line 2, is no JSON object"):
        read_log(path)
    with pytest.raises(ValueError, match="line 2, is no JSON object"):
        train(build(), JsonLog(path), 3, first=2)


def test_file_of_another_kind_is_refused_and_left_alone(tmp_path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text('{"name": 1}\n')
    with pytest.raises(ValueError, match="another kind of file: a line has no 'epoch'"):
        train(build(), JsonLog(path), 3, first=2)
    assert path.read_text() == '{"name": 1}\n'


def test_refuses_wrong_arguments(tmp_path) -> None:
    with pytest.raises(ValueError, match="at least 1 batch"):
        JsonLog(tmp_path / "log.jsonl", every=0)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        JsonLog(tmp_path / "missing" / "log.jsonl")


def test_plain_keeps_what_json_can_hold() -> None:
    assert plain({"a": True, "b": None, "c": "x", "d": (1, 2.5), "e": np.float64("-inf")}) == {
        "a": True,
        "b": None,
        "c": "x",
        "d": [1, 2.5],
        "e": None,
    }
