"""Lower rates on a plateau: from a table of values, and in real trainings."""

import keras
import numpy as np
import pytest

import callbacks
from callbacks import ConstantSchedule, LinearSchedule, ReduceOnPlateau, Scale, WarmUp


def model_with(optimizer) -> keras.Model:
    """One weight whose gradient is 1."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(optimizer, loss=lambda truth, output: output)
    return model


def feed(callback: ReduceOnPlateau, values: list[float], rate: float = 1.0) -> list[float]:
    """The rate after every epoch."""
    model = model_with(keras.optimizers.SGD(rate))
    callback.set_model(model)
    callback.on_train_begin()
    found = []
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"val_loss": value})
        found.append(round(float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)), 6))
    return found


NAN = float("nan")


@pytest.mark.parametrize(
    ("options", "values", "expected"),
    [
        ({"patience": 2}, [3, 2, 2, 2, 2, 2], [1, 1, 1, 0.5, 0.5, 0.25]),
        ({"patience": 1, "factor": 0.1}, [3, 3, 2, 2], [1, 0.1, 0.1, 0.01]),
        ({"patience": 1, "cooldown": 2}, [3, 3, 3, 3, 3], [1, 0.5, 0.5, 0.5, 0.25]),
        ({"patience": 1, "min_delta": 0.5}, [3, 2.6, 2.4], [1, 0.5, 0.5]),
        ({"patience": 1, "min_rate": 0.3}, [3, 3, 3, 3], [1, 0.5, 0.3, 0.3]),
        ({"patience": 1}, [NAN, NAN, 3, 2], [0.5, 0.25, 0.25, 0.25]),
        ({"patience": 1, "mode": "max"}, [1, 2, 2], [1, 1, 0.5]),
    ],
)
def test_rate_falls_after_patience(options, values, expected) -> None:
    assert feed(ReduceOnPlateau("val_loss", **options), values) == expected


def test_second_fit_starts_afresh_and_a_state_goes_on() -> None:
    callback = ReduceOnPlateau(patience=2)
    feed(callback, [3, 3])
    assert feed(callback, [3, 3]) == [1, 1]
    again = ReduceOnPlateau(patience=2)
    again.set_state(callback.get_state())
    assert feed(again, [3]) == [0.5]


@pytest.mark.parametrize("maker", [callbacks.SGD, keras.optimizers.SGD])
def test_weights_of_a_real_training_move_by_the_schedule_times_the_reductions(maker) -> None:
    model = model_with(maker(Scale(LinearSchedule(0.8, steps=8))))
    ones = np.ones((2, 1), "float32")
    # The loss falls, and "max" calls that no improvement: halved after epochs 2 and 3 (the first is the best).
    model.fit(
        ones, ones, batch_size=1, epochs=4, verbose=0, callbacks=[ReduceOnPlateau("loss", patience=1, mode="max")]
    )
    moved = 0.8 + 0.7 + 0.6 + 0.5 + (0.4 + 0.3) / 2 + (0.2 + 0.1) / 4
    assert float(model.get_weights()[0][0, 0]) == pytest.approx(-moved, rel=1e-5)


def test_saved_model_keeps_the_multiplier(tmp_path) -> None:
    model = model_with(callbacks.SGD(Scale(ConstantSchedule(0.5))))
    ones = np.ones((2, 1), "float32")
    model.fit(ones, ones, epochs=2, verbose=0, callbacks=[ReduceOnPlateau("loss", patience=1, mode="max")])
    schedule = model.optimizer._learning_rate
    assert keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))(0) == 0.25


@pytest.mark.parametrize("schedule", [LinearSchedule(0.1, 10), WarmUp(Scale(LinearSchedule(0.1, 10)), 5)])
def test_schedule_without_a_multiplier_is_an_error_before_the_first_step(schedule) -> None:
    model, ones = model_with(callbacks.SGD(schedule)), np.ones((2, 1), "float32")
    with pytest.raises(ValueError, match=f"cannot change the optimiser's schedule, {type(schedule).__name__}"):
        model.fit(ones, ones, verbose=0, callbacks=[ReduceOnPlateau("loss")])
    assert float(model.get_weights()[0][0, 0]) == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"factor": 1.0}, "`factor` must lie in"), ({"patience": 0}, "`patience` must be at least 1")],
)
def test_wrong_arguments_are_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        ReduceOnPlateau(**arguments)
