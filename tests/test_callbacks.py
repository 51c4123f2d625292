"""Early stopping from a table of values, and a checkpoint that continues exactly."""

import keras
import numpy as np
import pytest

from callbacks import Checkpoint, EarlyStopping, OneCycleSchedule
from callbacks.snapshots import read_snapshot


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
    ("arguments", "message"), [({"mode": "auto"}, "'min' or 'max'"), ({"patience": 0}, "at least 1")]
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
    first, _ = checkpoint.restore(model) if resume else (0, False)
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
    assert Checkpoint(tmp_path / "last.npz").restore(model) == (0, False)
