"""Trainings that end on time whatever the speed of the machine, and the schedule whose pace makes that possible."""

import keras
import numpy as np
import pytest

import callbacks.deadline
from callbacks import SGD, Checkpoint, Deadline, LinearSchedule, OneTraining, Paced
from callbacks.rates import batches_seen, learning_rate

STEPS = 4  # an epoch


class Clock(keras.callbacks.Callback):
    """A clock that only steps move: those of each epoch by its number of seconds together, the very first by more."""

    def __init__(self, monkeypatch, *seconds: float, compiling: float = 0.0) -> None:
        super().__init__()
        self.now, self.seconds, self.epochs, self.compiling = 1000.0, seconds, 0, compiling
        monkeypatch.setattr(callbacks.deadline.time, "monotonic", lambda: self.now)

    def on_train_batch_end(self, batch, logs=None) -> None:
        self.now += self.seconds[min(self.epochs, len(self.seconds) - 1)] / STEPS + self.compiling
        self.compiling = 0.0

    def on_epoch_end(self, epoch, logs=None) -> None:
        self.epochs += 1


class Rates(keras.callbacks.Callback):
    """The rate of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []

    def on_train_batch_end(self, batch, logs=None) -> None:
        self.rates.append(learning_rate(self.model.optimizer))


def model(planned: int) -> keras.Model:
    one = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    one.compile(SGD(Paced(LinearSchedule(1.0, planned * STEPS))), "mse")
    return one


def fit(one: keras.Model, *called: keras.callbacks.Callback, first: int = 0, epochs: int = 100) -> None:
    ones = np.zeros((STEPS, 1), "float32")
    one.fit(ones, ones, 1, epochs, 0, list(called), initial_epoch=first)


@pytest.mark.parametrize(
    ("seconds", "compiling", "expected"),
    [
        ((10,), 0, 10),  # as planned
        ((10,), 20, 8),  # compiling takes the time of two epochs
        ((20,), 0, 5),  # half as fast as planned
        ((5,), 0, 20),  # twice as fast
        ((1,), 0, 30),  # so fast that there may be no more epochs: the schedule ends with them
        ((60,), 0, 2),  # so slow that the first epoch takes most of the time
        ((10, 10, 10, 10, 10, 30), 0, 7),  # the machine slows down: 110 s, and not 200
    ],
)
def test_training_ends_when_the_time_is_up_and_the_rate_at_its_end(monkeypatch, seconds, compiling, expected) -> None:
    one, clock = model(10), Clock(monkeypatch, *seconds, compiling=compiling)
    deadline = Deadline(seconds=100, epochs=10, steps=10 * STEPS, most=30)
    fit(one, clock, deadline)
    assert clock.epochs == expected
    assert batches_seen(one.optimizer) == clock.epochs * STEPS
    # A step more, and the linear rate would be 0; it falls by the pace of the last epochs a step.
    assert learning_rate(one.optimizer, batches_seen(one.optimizer)) == pytest.approx(0.0, abs=1e-4)
    assert deadline.epochs == clock.epochs


def test_rate_never_jumps_where_the_pace_changes(monkeypatch) -> None:
    one, clock = model(10), Clock(monkeypatch, 10, 10, 10, 20, 5, 30, 10)
    look = Rates()
    fit(one, clock, look, Deadline(seconds=100, epochs=10, steps=10 * STEPS))
    falls = -np.diff(look.rates)
    assert (falls > 0).all()
    assert falls.max() < 0.12  # 0.025 a step as planned


def test_resumed_training_keeps_its_pace_and_the_time_it_has_spent(monkeypatch, tmp_path) -> None:
    whole, first, rest = model(10), model(10), model(10)
    ended = Deadline(100, 10, 10 * STEPS)
    fit(whole, Clock(monkeypatch, 20), ended)
    begun = Deadline(100, 10, 10 * STEPS)
    fit(first, Clock(monkeypatch, 20), begun, Checkpoint(tmp_path / "last.npz", {"deadline": begun}), epochs=3)
    goes_on = Deadline(100, 10, 10 * STEPS)
    position = Checkpoint(tmp_path / "last.npz", {"deadline": goes_on}).restore(rest)
    assert (position.epoch, goes_on.spent, goes_on.epochs) == (3, 60.0, 5)
    fit(rest, Clock(monkeypatch, 20), goes_on, first=3)
    assert goes_on.epochs == ended.epochs == 5
    steps = np.arange(20)
    for step in steps:
        assert learning_rate(rest.optimizer, step) == pytest.approx(learning_rate(whole.optimizer, step))


def test_rest_of_an_epoch_tells_the_time_of_a_whole_one(monkeypatch, tmp_path) -> None:
    """Resumed after two of four steps: the first compiles, the last takes 5 s, an epoch therefore 20 s."""
    one, deadline = model(10), Deadline(100, 10, 10 * STEPS)
    deadline.set_state({"seconds": 100.0, "epochs": 10, "spent": 20.0, "recent": []})
    clock = Clock(monkeypatch, 20)
    ones = np.zeros((2, 1), "float32")
    together = OneTraining([clock, deadline], add_history=True, model=one, verbose=0)
    together.set_params({"steps": 2, "epochs": 100})
    one.fit(ones, ones, 1, 2, 0, together, initial_epoch=1)
    assert deadline.recent == [20.0]


def test_pace_reaches_the_weights_and_not_only_the_reports(monkeypatch) -> None:
    """The rate is read in the compiled step: a constant gradient moves the weight by the sum of the rates."""
    one = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    one.compile(SGD(Paced(LinearSchedule(1.0, 10 * STEPS))), lambda y_true, y_pred: y_pred[:, 0])
    one.set_weights([np.zeros((1, 1))])
    look = Rates()
    ones = np.ones((STEPS, 1), "float32")
    clock = Clock(monkeypatch, 20)
    one.fit(ones, ones, 1, 100, 0, [clock, look, Deadline(100, 10, 10 * STEPS)])
    assert float(one.get_weights()[0][0, 0]) == pytest.approx(-sum(look.rates), rel=1e-5)
    assert sum(look.rates) < 15  # as planned it would be 20.5


def test_other_rates_and_numbers_are_refused() -> None:
    one = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    one.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"compile with `Paced\(schedule\)`"):
        fit(one, Deadline(10, 2, 8))
    with pytest.raises(ValueError, match="must be positive"):
        Deadline(0, 2, 8)
    with pytest.raises(ValueError, match=r"`line` must be \(step, position, pace\) with a positive pace"):
        Paced(LinearSchedule(1.0, 8), (0, 0, 0))
    with pytest.raises(ValueError, match="`pace` must be positive"):
        Paced(LinearSchedule(1.0, 8)).set_pace(2, 0.0)
