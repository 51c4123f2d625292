"""Snapshots of one weight that falls by 0.5 at every step, and averages of probabilities by hand."""

import keras
import numpy as np
import pytest

from callbacks.checkpoint import Checkpoint
from callbacks.snapshot_ensemble import SnapshotEnsemble
from callbacks.snapshots import read_snapshot

ONES = np.ones((1, 1), "float32")


def falling(dtype: str = "float32") -> keras.Model:
    """One step an epoch: the weight is 3.5, 3, 2.5, ... at the ends of the epochs."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, dtype=dtype)])
    model.set_weights([np.array([[4.0]])])
    model.compile(keras.optimizers.SGD(0.5), lambda y_true, y_pred: y_pred[:, 0])
    return model


def fit(model: keras.Model, epochs: int, *callbacks: keras.callbacks.Callback, first: int = 0) -> None:
    model.fit(ONES, ONES, epochs=epochs, initial_epoch=first, verbose=0, callbacks=list(callbacks))


def weights(ensemble: SnapshotEnsemble) -> list[float]:
    return [float(snapshot[0].reshape(-1)[0]) for snapshot in ensemble.snapshots]


def sigmoid(x: float) -> float:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def test_a_snapshot_at_the_end_of_every_cycle() -> None:
    ensemble = SnapshotEnsemble([1, 3, 2])
    fit(falling(), 6, ensemble)
    assert weights(ensemble) == [3.5, 2.0, 1.0]


@pytest.mark.parametrize("at_once", [2, 3])
def test_snapshots_where_several_steps_are_executed_at_once(at_once) -> None:
    """Two steps an epoch: 3 at the end of the first one, 2 and 1 of the next ones."""
    model, ensemble = falling(), SnapshotEnsemble([1, 2])
    model.compile(keras.optimizers.SGD(0.5), lambda y_true, y_pred: y_pred[:, 0], steps_per_execution=at_once)
    x = np.ones((2, 1), "float32")
    model.fit(x, x, batch_size=1, epochs=3, verbose=0, callbacks=[ensemble])
    assert weights(ensemble) == [3.0, 1.0]


def test_prediction_is_the_mean_of_the_probabilities_not_of_the_outputs() -> None:
    model, ensemble = falling(), SnapshotEnsemble([1, 3, 2])
    fit(model, 6, ensemble)
    model.set_weights([np.array([[9.0]])])
    x = np.array([[-1.0], [2.0]], "float32")
    expected = [[np.mean([sigmoid(w * one) for w in (3.5, 2.0, 1.0)])] for one in (-1, 2)]
    np.testing.assert_allclose(ensemble.predict(x, activation="sigmoid"), expected, rtol=1e-6)
    np.testing.assert_allclose(ensemble.predict(x, activation=None), [[-6.5 / 3], [13 / 3]], rtol=1e-6)
    last_two = ensemble.predict(x, last=2, batch_size=1, activation=lambda outputs: outputs + 1)
    np.testing.assert_allclose(last_two, [[-0.5], [4.0]])
    assert last_two.dtype == np.float32
    assert float(model.get_weights()[0][0, 0]) == 9.0


def test_several_heads_are_averaged_each() -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    heads = {
        "colour": keras.layers.Dense(4, name="colour")(inputs),
        "shape": keras.layers.Dense(2, name="shape")(inputs),
    }
    model = keras.Model(inputs, heads)
    model.compile(
        keras.optimizers.SGD(0.5),
        {name: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for name in heads},
    )
    x = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    labels = {"colour": np.array([0, 1, 2, 3, 0, 1]), "shape": np.array([0, 1, 0, 1, 0, 1])}
    ensemble = SnapshotEnsemble([1, 1])
    model.fit(x, labels, epochs=2, verbose=0, callbacks=[ensemble])
    before = [np.array(array) for array in model.get_weights()]
    found = ensemble.predict(x)
    names = [weight.path.split("/")[0] for weight in model.weights]
    for head in heads:
        at = names.index(head)
        expected = np.mean([softmax(x @ one[at] + one[at + 1]) for one in ensemble.snapshots], axis=0)
        np.testing.assert_allclose(found[head], expected, rtol=1e-5)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_half_precision_outputs_are_averaged_in_float32() -> None:
    ensemble = SnapshotEnsemble([1, 1])
    fit(falling("mixed_bfloat16"), 2, ensemble)
    found = ensemble.predict(ONES, activation="sigmoid")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[(sigmoid(3.5) + sigmoid(3.0)) / 2]], rtol=1e-6)


def test_schedule_falls_in_every_cycle() -> None:
    schedule = SnapshotEnsemble([1, 2]).schedule(0.5, steps_per_epoch=4, min_rate=0.1)
    rates = [float(schedule(step)) for step in range(13)]
    half = (1 + np.cos(np.pi / 4)) / 2
    assert rates[:5] == pytest.approx([0.5, 0.1 + 0.4 * half, 0.3, 0.5 - 0.4 * half, 0.5])
    assert (rates[6], rates[8], rates[12]) == pytest.approx((0.1 + 0.4 * half, 0.3, 0.1))


def test_schedule_begins_every_cycle_where_the_one_before_ends() -> None:
    schedule = SnapshotEnsemble([1, 3, 2]).schedule(0.5, steps_per_epoch=2)
    middles_and_starts = [float(schedule(step)) for step in (0, 1, 2, 5, 8, 10)]
    assert middles_and_starts == pytest.approx([0.5, 0.25, 0.5, 0.25, 0.5, 0.25])


def test_schedule_of_one_cycle() -> None:
    assert float(SnapshotEnsemble([3]).schedule(0.5, 2)(3)) == pytest.approx(0.25)


@pytest.mark.parametrize("epochs", [5, 7])
def test_epochs_that_do_not_fit_are_an_error_before_the_first_step(epochs) -> None:
    model = falling()
    with pytest.raises(ValueError, match=rf"need 6 epochs, but `fit` runs for {epochs}"):
        fit(model, epochs, SnapshotEnsemble([1, 3, 2]))
    assert float(model.get_weights()[0][0, 0]) == 4.0


def test_files_hold_the_snapshots(tmp_path) -> None:
    fit(falling(), 3, SnapshotEnsemble([1, 1, 1], tmp_path / "snapshots"))
    files = sorted((tmp_path / "snapshots").iterdir())
    assert [path.name for path in files] == ["cycle-01.npz", "cycle-02.npz", "cycle-03.npz"]
    assert [float(read_snapshot(path)[0][0][0, 0]) for path in files] == [3.5, 3.0, 2.5]


def test_only_the_last_snapshots_are_kept(tmp_path) -> None:
    ensemble = SnapshotEnsemble([1, 1, 1, 1], tmp_path, keep=2)
    fit(falling(), 4, ensemble)
    assert weights(ensemble) == [2.5, 2.0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cycle-03.npz", "cycle-04.npz"]


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize("keep", [None, 2])
def test_resumed_training_has_all_snapshots(tmp_path, on_disk, keep) -> None:
    model, made = falling(), []
    for epochs in (3, 4):

        class Stop(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None, epochs=epochs) -> None:
                if epoch + 1 == epochs:
                    raise InterruptedError

        ensemble = SnapshotEnsemble([1, 1, 2], tmp_path / "snapshots" if on_disk else None, keep)
        checkpoint = Checkpoint(tmp_path / "last.npz", {"ensemble": ensemble})
        first = checkpoint.restore(model).epoch
        with pytest.raises(InterruptedError):
            fit(model, 4, ensemble, checkpoint, Stop(), first=first)
        made.append(weights(ensemble))
    assert made == ([[3.5, 3.0], [3.5, 3.0, 2.0]] if keep is None else [[3.5, 3.0], [3.0, 2.0]])


def test_beginning_in_the_middle_without_the_state_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 cycles end before epoch 3, where `fit` begins; 0 snapshots are known"):
        fit(falling(), 4, SnapshotEnsemble([1, 1, 2]), first=3)


def test_second_fit_starts_afresh() -> None:
    model, ensemble = falling(), SnapshotEnsemble([1, 1])
    fit(model, 2, ensemble)
    fit(model, 2, ensemble)
    assert weights(ensemble) == [2.5, 2.0]


def test_cut_off_cycle_gives_no_snapshot_and_a_warning() -> None:
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None) -> None:
            self.model.stop_training = epoch == 1

    ensemble = SnapshotEnsemble([1, 2])
    with pytest.warns(UserWarning, match="after 1 of 2 cycles"):
        fit(falling(), 3, ensemble, Stop())
    assert weights(ensemble) == [3.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cycles": []}, "`cycles` must list"),
        ({"cycles": [2, 0]}, "each at least 1"),
        ({"cycles": 3}, r"such as \[10, 10, 20\]"),
        ({"cycles": [1], "keep": 0}, "`keep` must be at least 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        SnapshotEnsemble(**arguments)


@pytest.mark.parametrize("last", [None, 0, 3])
def test_more_snapshots_than_there_are_is_an_error(last) -> None:
    ensemble = SnapshotEnsemble([1, 1])
    if last is not None:
        fit(falling(), 2, ensemble)
    with pytest.raises(ValueError, match=f"There are {0 if last is None else 2} snapshots"):
        ensemble.predict(ONES, last=last)
