"""What is better, early stopping from a table of values, snapshots, and a checkpoint that continues exactly."""

import keras
import numpy as np
import pytest

from callbacks import Checkpoint, EarlyStopping, JsonLog, Monitor, OneCycleSchedule, WeightAverage
from callbacks.objective import Objective
from callbacks.snapshots import read_snapshot, write_snapshot


def model_with_weight(value: float = 0.0) -> keras.Model:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[value]])])
    model.stop_training = False
    return model


def feed(stopping: EarlyStopping, values: list[float]) -> int:
    """Give epoch n the weight n and the n-th value; return how many epochs ran."""
    model = model_with_weight()
    stopping.set_model(model)
    stopping.on_train_begin()
    for epoch, value in enumerate(values):
        model.set_weights([np.array([[float(epoch)]])])
        stopping.on_epoch_end(epoch, {"val_accuracy": value})
        if model.stop_training:
            break
    stopping.on_train_end()
    return epoch + 1


@pytest.mark.parametrize(
    ("patience", "min_delta", "values", "epochs", "best"),
    [
        (2, 0.0, [0.5, 0.7, 0.6, 0.7, 0.9], 4, 1),  # an equal value is no improvement
        (3, 0.0, [0.5, 0.7, 0.6, 0.7, 0.9], 5, 4),
        (2, 0.15, [0.5, 0.6, 0.64, 0.9], 3, 0),  # changes below min_delta do not count
        (None, 0.0, [0.9, 0.1, 0.1, 0.1], 4, 0),
        (2, 0.0, [float("nan"), 0.2, float("nan"), 0.3], 4, 3),
    ],
)
def test_stops_after_patience_and_restores_the_best(patience, min_delta, values, epochs, best) -> None:
    stopping = EarlyStopping("val_accuracy", "max", patience, min_delta)
    assert feed(stopping, values) == epochs
    assert stopping.best_epoch == best
    assert float(stopping.model.get_weights()[0][0, 0]) == best


def test_lower_is_better_in_mode_min() -> None:
    stopping = EarlyStopping("val_accuracy", "min", 2)
    assert feed(stopping, [0.5, 0.3, 0.4, 0.35, 0.1]) == 4
    assert stopping.best == 0.3


def test_second_fit_starts_afresh() -> None:
    stopping = EarlyStopping("val_accuracy", "max", 2)
    feed(stopping, [0.9, 0.1, 0.1])
    assert feed(stopping, [0.2, 0.3, 0.1, 0.1]) == 4


def test_best_weights_are_on_disk_when_their_epoch_has_ended(tmp_path) -> None:
    stopping = EarlyStopping("val_accuracy", "max", path=tmp_path / "best.npz")
    model = model_with_weight(7.0)
    stopping.set_model(model)
    stopping.on_train_begin()
    stopping.on_epoch_end(0, {"val_accuracy": 0.5})
    model.set_weights([np.array([[8.0]])])
    stopping.on_epoch_end(1, {"val_accuracy": 0.4})
    (weight,), values = read_snapshot(tmp_path / "best.npz")
    assert (float(weight[0, 0]), values) == (7.0, {"epoch": 0, "value": 0.5})
    assert [path.name for path in tmp_path.iterdir()] == ["best.npz"]


def test_missing_metric_error_lists_the_logs() -> None:
    with pytest.raises(ValueError, match=r"'val_f1'.*\['val_accuracy'\]"):
        feed(EarlyStopping("val_f1"), [0.5])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "auto"}, "'min' or 'max'"),
        ({"patience": 0}, "must be 1, 2"),
        ({"min_delta": -0.1}, "`min_delta` must be at least 0"),
        ({"start_epoch": -1}, "`start_epoch` must be at least 0"),
        ({"average": 0.999}, "must be a WeightAverage"),
        ({"monitor": "val_goodness"}, r"Give `mode`.*\['val_goodness'\]"),
        ({"monitor": lambda logs: 0.0}, "Give `mode`.*a function"),
        ({"monitor": ["val_loss", "val_accuracy"]}, "Give `mode`"),
        ({"monitor": []}, "must name entries"),
    ],
)
def test_early_stopping_refuses_wrong_arguments(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        EarlyStopping(**arguments)


def small_training(
    folder, epochs: int, last_epoch: int, resume: bool = False
) -> tuple[list[np.ndarray], EarlyStopping]:
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
    )
    optimizer = keras.optimizers.SGD(OneCycleSchedule(0.1, 4 * last_epoch), momentum=0.9, nesterov=True)
    model.compile(optimizer, "mse")
    stopping = EarlyStopping("val_loss", "min", patience=5, path=folder / "best.npz")
    checkpoint = Checkpoint(folder / "last.npz", {"stopping": stopping})
    first = checkpoint.restore(model).epoch if resume else 0
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(16, 4)), generator.normal(size=(16, 1))
    model.fit(
        x,
        y,
        batch_size=4,
        shuffle=False,
        epochs=epochs,
        initial_epoch=first,
        validation_data=(x, y),
        verbose=0,
        callbacks=[stopping, checkpoint],
    )
    return model.get_weights(), stopping


def test_resumed_training_ends_with_the_same_weights(tmp_path) -> None:
    """Momentum, schedule position, dropout seeds and the best epoch all belong to the checkpoint."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole, whole_stopping = small_training(tmp_path / "whole", 6, 6)
    small_training(tmp_path / "parts", 3, 6)
    parts, parts_stopping = small_training(tmp_path / "parts", 6, 6, resume=True)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)
    assert whole_stopping.get_state() == parts_stopping.get_state()


def test_checkpoint_of_another_network_is_refused(tmp_path) -> None:
    small_training(tmp_path, 1, 1)
    model = model_with_weight()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="belongs to another network"):
        Checkpoint(tmp_path / "last.npz").restore(model)


def test_no_checkpoint_means_starting_at_epoch_zero(tmp_path) -> None:
    model = model_with_weight()
    model.compile("sgd", "mse")
    assert Checkpoint(tmp_path / "last.npz").restore(model) == (0, 0, False)


# What is better


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("loss", "min"),
        ("val_loss", "min"),
        ("val_accuracy_head_loss", "min"),
        ("val_loss_head_accuracy", "max"),
        ("average_val_sparse_top_5_categorical_accuracy", "max"),
        ("val_mean_absolute_error", "min"),
        ("val_mae", "min"),
        ("val_auc_1", "max"),
        ("val_f1_score", "max"),
        ("val_mean_io_u", "max"),
        ("val_false_positives", "min"),
        ("val_*accuracy", "max"),
        (["val_a_accuracy", "val_b_auc"], "max"),
    ],
)
def test_name_tells_the_mode(name, mode) -> None:
    assert Objective(name).mode == mode
    assert Objective(name, "min").mode == "min"


def test_several_heads_count_as_their_mean() -> None:
    logs = {"val_a_accuracy": 0.5, "val_b_accuracy": 1.0, "a_accuracy": 0.0, "val_loss": 9.0}
    assert Objective("val_*accuracy").value(logs) == 0.75
    assert Objective(["val_a_accuracy", "a_accuracy"]).value(logs) == 0.25
    assert Objective(lambda logs: logs["val_loss"] - 1, "min").value(logs) == 8.0


def test_missing_entry_error_gives_near_names_first() -> None:
    logs = {"accuracy": 1.0, "loss": 1.0, "val_acc": 1.0, "val_loss": 1.0}
    with pytest.raises(
        ValueError, match=r"'val_accuracy'\. There are: \['accuracy', 'val_acc', 'loss', 'val_loss'\]\.$"
    ):
        Objective("val_accuracy").value(logs)
    with pytest.raises(ValueError, match="need `validation_data`"):
        Objective("val_accuracy").value({"accuracy": 1.0})
    with pytest.raises(ValueError, match=r"'val_\*f1'"):
        Objective("val_*f1").value(logs)


def test_metric_that_is_an_array_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"'val_f1' must be one number, but is an array of shape \(3,\)"):
        Objective("val_f1").value({"val_f1": np.zeros(3)})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_what_is_not_finite_is_never_better(mode, value) -> None:
    objective = Objective("x", mode)
    assert not objective.improved(value, objective.worst)
    assert not objective.improved(value, 0.0)
    assert objective.improved(1e30, objective.worst)


# Early stopping in a real fit


def fit_slope(*callbacks: keras.callbacks.Callback, epochs: int = 4, spe: int = 1, start: float = 4.0) -> keras.Model:
    """One weight that loses 0.5 at every step, two steps an epoch; the loss is the weight."""
    model = model_with_weight(start)
    model.compile(keras.optimizers.SGD(0.5), lambda y_true, y_pred: y_pred[:, 0], steps_per_execution=spe)
    ones = np.ones((2, 1), "float32")
    model.fit(ones, ones, 1, epochs, 0, list(callbacks), validation_data=(ones, ones))
    return model


@pytest.mark.parametrize("spe", [1, 2])
def test_real_fit_ends_with_the_best_weights(spe) -> None:
    stopping = EarlyStopping("val_loss", "max", patience=2)
    model = fit_slope(stopping, epochs=9, spe=spe)
    assert float(model.get_weights()[0][0, 0]) == 3.0
    assert (stopping.best_epoch, stopping.best, stopping.stopped_epoch) == (0, 3.0, 2)


def test_epochs_before_the_start_do_not_count() -> None:
    stopping = EarlyStopping("val_loss", "max", patience=2, start_epoch=3)
    model = fit_slope(stopping, epochs=9)
    assert float(model.get_weights()[0][0, 0]) == 0.0  # after epoch 3
    assert (stopping.best_epoch, stopping.stopped_epoch) == (3, 5)


def test_training_without_a_finite_epoch_leaves_the_weights_and_says_so() -> None:
    stopping = EarlyStopping(lambda logs: float("nan"), "max")
    with pytest.warns(UserWarning, match="no epoch with a finite <lambda>"):
        model = fit_slope(stopping)
    assert float(model.get_weights()[0][0, 0]) == 0.0


def test_best_weights_without_a_file_belong_to_the_state(tmp_path) -> None:
    stopping = EarlyStopping("val_loss", "max")
    fit_slope(stopping, Checkpoint(tmp_path / "last.npz", {"stopping": stopping}))
    later = EarlyStopping("val_loss", "max")
    model = model_with_weight()
    model.compile(keras.optimizers.SGD(0.5), "mse")
    assert Checkpoint(tmp_path / "last.npz", {"stopping": later}).restore(model) == (4, 0, False)
    assert float(later.best_weights[0][0, 0]) == 3.0
    ones = np.ones((1, 1))
    model.fit(ones, ones, epochs=5, initial_epoch=4, validation_data=(ones, ones), verbose=0, callbacks=[later])
    assert (later.best_epoch, float(model.get_weights()[0][0, 0])) == (0, 3.0)


def test_best_weights_do_not_change_with_the_training() -> None:
    """On JAX Keras' arrays may share memory with the model."""
    stopping, seen = EarlyStopping("val_loss", "max"), []
    look = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(float(stopping.best_weights[0][0, 0])))
    fit_slope(stopping, look)
    assert seen == [3.0] * 4


# Files


def test_snapshot_keeps_arrays_at_any_depth_with_their_dtype(tmp_path) -> None:
    half = keras.ops.convert_to_numpy(keras.ops.convert_to_tensor([1.5, -2.0], "bfloat16"))
    values = {
        "a": [np.arange(3, dtype="int16"), {"b": half}],
        "c": {"d": np.array(2.5), "e": None},
        "f": np.float32(0.5),
    }
    write_snapshot(tmp_path / "file.npz", [half, np.ones((2, 2), "float32")], values)
    arrays, read = read_snapshot(tmp_path / "file.npz")
    assert [array.dtype.name for array in arrays] == ["bfloat16", "float32"]
    assert [float(one) for one in arrays[0]] == [1.5, -2.0]
    assert (read["a"][0].dtype.name, read["a"][0].tolist()) == ("int16", [0, 1, 2])
    assert (read["a"][1]["b"].dtype.name, [float(one) for one in read["a"][1]["b"]]) == ("bfloat16", [1.5, -2.0])
    assert (float(read["c"]["d"]), read["c"]["e"], read["f"]) == (2.5, None, 0.5)


def test_file_of_an_earlier_version_still_reads(tmp_path) -> None:
    np.savez(tmp_path / "old.npz", values=np.array('{"epoch": 3}'), array0=np.ones(2), array1=np.zeros(1))
    arrays, values = read_snapshot(tmp_path / "old.npz")
    assert ([array.tolist() for array in arrays], values) == ([[1.0, 1.0], [0.0]], {"epoch": 3})


def test_failed_write_leaves_the_old_file(tmp_path) -> None:
    write_snapshot(tmp_path / "file.npz", [np.ones(1)], {"epoch": 1})
    with pytest.raises(ValueError, match="not Python objects"):
        write_snapshot(tmp_path / "file.npz", [np.array([object()])], {"epoch": 2})
    assert read_snapshot(tmp_path / "file.npz")[1] == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["file.npz"]


@pytest.mark.parametrize("what", ["loss", "weights"])
def test_epoch_that_is_not_finite_does_not_replace_the_checkpoint(tmp_path, what) -> None:
    model = model_with_weight(3.0)
    model.compile("sgd", "mse")
    checkpoint = Checkpoint(tmp_path / "last.npz")
    checkpoint.set_model(model)
    checkpoint.on_epoch_end(0, {"loss": 1.0})
    model.set_weights([np.array([[np.nan if what == "weights" else 5.0]])])
    with pytest.warns(UserWarning, match="Epoch 2 has no finite loss or weights"):
        checkpoint.on_epoch_end(1, {"loss": float("nan") if what == "loss" else 1.0})
    assert checkpoint.restore(model) == (1, 0, False)
    assert float(model.get_weights()[0][0, 0]) == 3.0


@pytest.mark.parametrize("frozen_at", ["writing", "restoring"])
def test_frozen_layer_changes_neither_order_nor_number_of_arrays(tmp_path, frozen_at) -> None:
    def network(seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        layers = [
            keras.layers.Dense(2),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(2),
        ]
        model = keras.Sequential([keras.Input((2,)), *layers])
        model.compile(keras.optimizers.Adam(), "mse")
        model.optimizer.build(model.trainable_variables)
        return model

    written, restored = network(1), network(2)
    for variable in written.optimizer.variables:
        variable.assign(np.full(variable.shape, 7))
    checkpoint = Checkpoint(tmp_path / "last.npz")
    checkpoint.set_model(written)
    for layer in (written if frozen_at == "writing" else restored).layers[:2]:
        layer.trainable = False
    checkpoint.on_epoch_end(0, {"loss": 1.0})
    checkpoint.restore(restored)
    pairs = [*zip(written.variables, restored.variables, strict=True)]
    pairs += zip(written.optimizer.variables, restored.optimizer.variables, strict=True)
    assert len(pairs) == 8 + 1 + 14  # weights, the dropout's seed; two slots for six weights, iterations, rate
    for one, other in pairs:
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other))


def test_bfloat16_network_goes_through_a_checkpoint(tmp_path) -> None:
    def network(seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, dtype="bfloat16")])
        model.compile(keras.optimizers.SGD(momentum=0.9), "mse")
        return model

    written, restored = network(1), network(2)
    written.optimizer.build(written.trainable_variables)
    checkpoint = Checkpoint(tmp_path / "last.npz")
    checkpoint.set_model(written)
    written.stop_training = False
    checkpoint.on_epoch_end(0, {"loss": 1.0})
    assert checkpoint.restore(restored) == (1, 0, False)
    for one, other in zip(written.get_weights(), restored.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_checkpoint_without_the_state_of_a_callback_is_refused(tmp_path) -> None:
    small_training(tmp_path, 1, 1)
    model = model_with_weight()
    model.compile("sgd", "mse")
    checkpoint = Checkpoint(tmp_path / "one.npz", {"stopping": EarlyStopping()})
    checkpoint.set_model(model)
    model.optimizer.build(model.trainable_variables)
    checkpoint.on_epoch_end(0, {"loss": 1.0})
    with pytest.raises(ValueError, match=r"no state for \['average'\], but for \['stopping'\]"):
        Checkpoint(tmp_path / "one.npz", {"average": EarlyStopping()}).restore(model)


def test_path_that_cannot_be_written_is_refused_before_the_training(tmp_path) -> None:
    stopping = EarlyStopping()
    makes = (
        lambda path: EarlyStopping(path=path),
        lambda path: WeightAverage(path=path),
        lambda path: Monitor(np.ones((1, 1)), path=path),
        Checkpoint,
        JsonLog,
    )
    for make in makes:
        with pytest.raises(
            FileNotFoundError, match=r"best\.npz cannot be written: the folder .*nowhere does not exist"
        ):
            make(tmp_path / "nowhere" / "best.npz")
        with pytest.raises(ValueError, match=r"is a folder\. Give the path of a file"):
            make(tmp_path)
    with pytest.raises(ValueError, match=r"LambdaCallback has no state to keep\. Leave 'other' out"):
        Checkpoint(tmp_path / "last.npz", {"stopping": stopping, "other": keras.callbacks.LambdaCallback()})
    with pytest.raises(ValueError, match="`states` must be a dict"):
        Checkpoint(tmp_path / "last.npz", [stopping])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patience": "5"}, r"`patience` must be 1, 2.*Received: patience='5'"),
        ({"patience": 2.5}, r"`patience` must be 1, 2"),
        ({"patience": 0}, r"`patience` must be 1, 2"),
        ({"monitor": None}, r"`monitor` must name entries of the logs. Received: monitor=None"),
        ({"monitor": 5}, r"`monitor` must name entries of the logs"),
    ],
)
def test_arguments_of_another_kind_are_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        EarlyStopping(**arguments)
