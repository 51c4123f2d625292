"""The logs of a training: that they tell what happened, go on after a stop, and change nothing."""

from pathlib import Path

import numpy as np
import pytest
from test_training import StopAt, data, train  # noqa: F401  (`data` is a fixture)

from apps import logs
from apps.logs import LogFiles
from callbacks import read_log

CHOICES = {"epochs": 2, "scales": (), "momentum": 0.85}


@pytest.fixture
def files(tmp_path, monkeypatch) -> LogFiles:
    monkeypatch.setattr(logs, "FEWEST_STEPS", 10)
    return LogFiles.of(tmp_path, "1", layers=True)


def test_training_is_the_same_with_and_without_logs(data, files, tmp_path) -> None:  # noqa: F811
    with_logs = train(data, tmp_path / "with", logs=files, **CHOICES)
    without = train(data, tmp_path / "without", **CHOICES)
    for one, other in zip(with_logs.model.get_weights(), without.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    lines = read_log(files.training)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 10]
    epochs = [line for line in lines if "batch" not in line]
    assert [line["logs"]["loss"] for line in epochs] == pytest.approx([row["loss"] for row in with_logs.history])
    assert [row["momentum"] for row in with_logs.history] == pytest.approx([0.85, 0.85])
    records = read_log(files.layers)
    assert [record["step"] for record in records] == list(range(10))
    assert {record["examples"] for record in records} == {8}  # no more than a batch


def test_interrupted_logs_go_on_and_have_everything_once(data, files, tmp_path) -> None:  # noqa: F811
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "run", logs=files, seconds=0, callbacks=(StopAt(1, 2),), **CHOICES)
    train(data, tmp_path / "run", logs=files, resume=True, **CHOICES)
    lines = read_log(files.training)
    assert [(line["epoch"], line["step"]) for line in lines if "batch" not in line] == [(0, 5), (1, 10)]
    batches = [(line["epoch"], line["batch"], line["step"]) for line in lines if "batch" in line]
    assert batches == [(step // 5, step % 5 + 1, step + 1) for step in range(10)]
    train(data, tmp_path / "whole", logs=LogFiles.of(tmp_path / "other", "1", layers=False), **CHOICES)
    whole = read_log(tmp_path / "other/logs/training-1.jsonl")
    assert [line["logs"] for line in lines] == [line["logs"] for line in whole]  # also the means of the cut epoch
    steps = [record["step"] for record in read_log(files.layers)]
    assert steps == list(range(10))


def test_layers_of_a_short_training_are_not_looked_at(data, tmp_path) -> None:  # noqa: F811
    files = LogFiles.of(tmp_path, "1-2", layers=True)
    train(data, tmp_path / "run", logs=files, **CHOICES)
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["training-1-2.jsonl"]


def test_other_networks_of_a_run_have_no_file_for_layers() -> None:
    assert LogFiles.of(Path("run"), "2", layers=False) == LogFiles(Path("run/logs/training-2.jsonl"), None)
