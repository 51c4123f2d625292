"""Checkpoints within an epoch: a training that goes on there is the uninterrupted one; damaged files are told."""

from pathlib import Path

import keras
import numpy as np
import pytest

from callbacks import Checkpoint, EarlyStopping, OneCycleSchedule, OneTraining
from callbacks.snapshots import read_snapshot, write_snapshot

EPOCHS, STEPS, BATCH = 3, 5, 4


class StopAt(keras.callbacks.Callback):
    """An end of the process after one step of one epoch."""

    def __init__(self, epoch: int, step: int) -> None:
        super().__init__()
        self.at, self.now = (epoch, step), 0

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None) -> None:
        if (self.now, batch + 1) == self.at:
            raise KeyboardInterrupt


def training(folder: Path, *more: keras.callbacks.Callback) -> tuple[list[np.ndarray], list[dict], EarlyStopping]:
    """Go on with what `folder` holds, in batches that are a function of epoch and step; weights, logs of its epochs."""
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    optimizer = keras.optimizers.SGD(OneCycleSchedule(0.1, EPOCHS * STEPS), momentum=0.9, nesterov=True)
    model.compile(optimizer, "mse", metrics=["mae"])
    stopping = EarlyStopping("val_loss", "min", path=folder / "best.npz")
    checkpoint = Checkpoint(folder / "last.npz", {"stopping": stopping}, seconds=0)
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(EPOCHS, STEPS * BATCH, 4)), generator.normal(size=(EPOCHS, STEPS * BATCH, 1))
    begin = checkpoint.restore(model, (x[0, :1], y[0, :1]))
    logs = []
    log = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, values: logs.append(dict(values)))
    callbacks = OneTraining([log, stopping, checkpoint, *more], add_history=True, model=model, verbose=0)
    for epoch in range(begin.epoch, EPOCHS):
        first = BATCH * (begin.step if epoch == begin.epoch else 0)
        callbacks.set_params({"steps": STEPS - first // BATCH, "epochs": EPOCHS})
        model.fit(
            *(x[epoch, first:], y[epoch, first:], BATCH),
            initial_epoch=epoch,
            epochs=epoch + 1,
            shuffle=False,
            verbose=0,
            validation_data=(x[0], y[0]),
            callbacks=callbacks,
        )
    callbacks.finish()
    return model.get_weights(), logs, stopping


def test_training_stopped_within_an_epoch_goes_on_to_the_same_weights_and_logs(tmp_path) -> None:
    """Stopped after the first step, in the middle, before the last step, and twice in one epoch."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    weights, logs, stopping = training(tmp_path / "whole")
    for epoch, step in ((0, 1), (1, 2), (1, 2), (2, 4)):
        with pytest.raises(KeyboardInterrupt):
            training(tmp_path / "parts", StopAt(epoch, step))
    again, logs_again, stopping_again = training(tmp_path / "parts")
    for found, expected in zip(again, weights, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert logs_again == logs[-1:]  # the mean over the whole epoch, not over what was left of it
    assert stopping_again.get_state() == stopping.get_state()


def test_the_position_counts_the_steps_of_an_epoch_that_was_interrupted_twice(tmp_path) -> None:
    for expected in ((1, 2), (1, 4)):
        with pytest.raises(KeyboardInterrupt):
            training(tmp_path, StopAt(1, 2))
        position = read_snapshot(tmp_path / "last.npz")[1]["position"]
        assert (position["epoch"], position["step"]) == expected


def test_two_files_are_kept_and_the_one_before_stands_in_for_a_damaged_one(tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path, StopAt(1, 3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["before-last.npz", "best.npz", "last.npz"]
    positions = [read_snapshot(tmp_path / name)[1]["position"]["step"] for name in ("last.npz", "before-last.npz")]
    assert positions == [3, 2]
    content = bytearray((tmp_path / "last.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "last.npz").write_bytes(content)
    with pytest.warns(UserWarning, match=r"last\.npz is damaged.*Going on from .*before-last\.npz"):
        weights, _, _ = training(tmp_path)
    (tmp_path / "whole").mkdir()
    for found, expected in zip(weights, training(tmp_path / "whole")[0], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_without_a_newest_file_the_one_before_is_taken(tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path, StopAt(0, 3))
    (tmp_path / "last.npz").unlink()  # as between the two renamings of a write
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path, StopAt(0, 1))
    assert read_snapshot(tmp_path / "last.npz")[1]["position"]["step"] == 3


def test_two_damaged_files_are_an_error_and_never_a_silent_new_start(tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path, StopAt(0, 3))
    (tmp_path / "last.npz").write_bytes(b"")
    (tmp_path / "before-last.npz").write_bytes((tmp_path / "before-last.npz").read_bytes()[:-100])
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(ValueError, match="There is no whole checkpoint to go on from"),
    ):
        training(tmp_path)


@pytest.mark.parametrize("what", ["array0.npy", "values.npy"])
def test_contents_that_differ_from_their_hash_are_damage(tmp_path, what) -> None:
    """Also where the archive itself is sound, as after a copy of another file's entry."""
    import zipfile

    path = tmp_path / "one.npz"
    write_snapshot(path, [np.arange(3.0)], {"epoch": 1})
    write_snapshot(tmp_path / "other.npz", [np.arange(3.0) + 1], {"epoch": 2})
    with zipfile.ZipFile(path) as file, zipfile.ZipFile(tmp_path / "other.npz") as other:
        entries = {name: (other if name == what else file).read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    with pytest.raises(ValueError, match=r"one\.npz is damaged: its SHA-256"):
        read_snapshot(path)


def test_interval_is_refused_when_negative(tmp_path) -> None:
    with pytest.raises(ValueError, match="`seconds` must be 0 or more, or None"):
        Checkpoint(tmp_path / "last.npz", seconds=-1)
