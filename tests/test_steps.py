"""Epochs to steps and back, with numbers counted by hand; reading and changing an optimiser's rate."""

import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest

from callbacks import ConstantSchedule, CosineSchedule, LinearSchedule, Steps
from callbacks.rates import batches_seen, learning_rate, schedule_of, set_learning_rate


@dataclass
class Growing:
    """A batch size that grows at given epochs."""

    sizes: tuple[int, ...]

    def size_at(self, epoch: int) -> int:
        return self.sizes[min(epoch, len(self.sizes) - 1)]


def test_incomplete_batch_is_a_step_unless_it_is_left_out() -> None:
    # 1000 = 7 * 128 + 104
    assert [Steps(1000, 128).in_epoch(), Steps(1000, 128, drop_remainder=True).in_epoch()] == [8, 7]
    assert [Steps(1024, 128).in_epoch(), Steps(1024, 128, drop_remainder=True).in_epoch()] == [8, 8]
    assert Steps(10, 128).in_epoch() == 1
    assert [Steps(1000, 128, drop_remainder=True).before(10), Steps(1000, 128).last(10)] == [70, 79]


def test_fractions_of_an_epoch_are_rounded_to_whole_steps() -> None:
    steps = Steps(1000, 100)
    assert [steps.before(epoch) for epoch in (0, 0.5, 1, 2.3, 2.34, 2.36, 2.99)] == [0, 5, 10, 23, 23, 24, 30]


def test_growing_batch_makes_later_epochs_shorter() -> None:
    # 100 examples: 10 steps an epoch in epochs 0 and 1, 5 in epoch 2, from epoch 3 on 3 (40 + 40 + 20).
    steps = Steps(100, Growing((10, 10, 20, 40)))
    assert [steps.in_epoch(epoch) for epoch in range(5)] == [10, 10, 5, 3, 3]
    assert [steps.before(epoch) for epoch in range(6)] == [0, 10, 20, 25, 28, 31]
    assert steps.before(2.4) == 22
    assert [steps.epoch_of(step) for step in (0, 5, 20, 22, 25, 28)] == [0, 0.5, 2, 2.4, 3, 4]
    assert Steps(100, Growing((10, 10, 20, 40)), drop_remainder=True).before(5) == 29  # only 2 of 40 fit


@pytest.mark.parametrize("size", [7, Growing((3, 7, 50, 60))])
@pytest.mark.parametrize("drop_remainder", [False, True])
def test_every_step_lies_in_the_epoch_that_it_came_from(size: Any, drop_remainder: bool) -> None:
    steps = Steps(100, size, drop_remainder=drop_remainder)
    for epoch in range(6):
        assert steps.epoch_of(steps.before(epoch)) == epoch
        assert int(steps.epoch_of(steps.last(epoch + 1))) == epoch
        for batch in range(steps.in_epoch(epoch)):
            fraction = epoch + batch / steps.in_epoch(epoch)
            assert steps.before(fraction) == steps.before(epoch) + batch
            assert steps.epoch_of(steps.before(fraction)) == pytest.approx(fraction)


def test_updates_are_the_complete_accumulations() -> None:
    steps = Steps(1000, 128, accumulation=3)  # 8 steps an epoch: 8, 16, 24 of them are 2, 5, 8 updates
    assert [steps.updates(epochs) for epochs in (0, 1, 2, 3)] == [0, 2, 5, 8]
    assert [steps.of_updates(updates) for updates in (0, 1, 8)] == [0, 3, 24]
    assert Steps(1000, 128).updates(2) == 16


def test_numbers_from_numpy_are_taken_and_plain_ones_returned() -> None:
    steps = Steps(np.int64(1000), np.int32(128))
    assert [type(number) for number in (steps.in_epoch(), steps.before(2.5), steps.last(2))] == [int] * 3
    assert steps.before(np.float64(2.5)) == 20


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Steps(0, 10), "`examples` must be a whole number, at least 1. Received: examples=0"),
        (lambda: Steps(math.nan, 10), "`examples` must be a whole number"),
        (lambda: Steps(100, 0), "`batch_size` must be a whole number"),
        (lambda: Steps(100, 12.5), "`batch_size` must be a whole number, at least 1. Received: batch_size=12.5"),
        (lambda: Steps(100, 10, accumulation=0), "`accumulation` must be a whole number"),
        (lambda: Steps(100, 128, drop_remainder=True), "No whole batch of 128 fits into 100 examples"),
        (lambda: Steps(100, Growing((0, 10))), "`batch_size` must be a whole number"),
        (lambda: Steps(100, 10).before(-1), "`epoch` must be at least 0"),
        (lambda: Steps(100, 10).before(math.nan), "`epoch` must be at least 0"),
        (lambda: Steps(100, 10).before(math.inf), "`epoch` must be at least 0 and finite"),
        (lambda: Steps(100, 10).epoch_of(-1), "`step` must be at least 0"),
        (lambda: Steps(100, Growing((10,))).epoch_of(math.inf), "`step` must be at least 0 and finite"),
        (lambda: Steps(100, 10).of_updates(-1), "`updates` must be at least 0"),
    ],
)
def test_wrong_numbers_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_batch_that_outgrows_the_data_is_refused_instead_of_counted_for_ever() -> None:
    steps = Steps(100, Growing((10, 200)), drop_remainder=True)
    for count in (lambda: steps.before(3), lambda: steps.epoch_of(15)):
        with pytest.raises(ValueError, match="No whole batch of 200 fits into 100 examples in epoch 1"):
            count()


class Recorder(keras.callbacks.Callback):
    """The rate of every epoch's last batch."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.rates.append(learning_rate(self.model.optimizer))


def train(optimizer: Any, examples: int, batch_size: int, epochs: int, **compiling: Any) -> tuple[float, list[float]]:
    """Where a weight with gradient -1 ends, and the rates at the ends of the epochs."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(optimizer, loss=lambda truth, output: -output, **compiling)
    recorder, ones = Recorder(), np.ones((examples, 1))
    model.fit(ones, ones, batch_size=batch_size, epochs=epochs, verbose=0, callbacks=[recorder])
    return float(model.get_weights()[0][0, 0]), recorder.rates


def test_cosine_of_the_last_step_ends_on_its_minimum_with_the_last_batch() -> None:
    steps = Steps(examples=22, batch_size=5)  # 5 steps an epoch, the last of 2 examples; 10 in two epochs
    optimizer = keras.optimizers.SGD(CosineSchedule(0.5, steps.last(2), min_rate=0.125))
    weight, rates = train(optimizer, 22, 5, 2, steps_per_execution=2)
    assert steps.last(2) == 9
    assert rates[-1] == 0.125
    assert rates[0] > 0.3  # step 4 of 9, before the middle
    assert batches_seen(optimizer) == 10
    assert weight == pytest.approx(10 * 0.3125, rel=1e-6)  # the ten rates lie symmetrically around their middle


def test_accumulated_cosine_ends_on_its_minimum_with_the_last_update() -> None:
    steps = Steps(examples=16, batch_size=2, accumulation=4)
    optimizer = keras.optimizers.SGD(LinearSchedule(0.75, steps.last(2), 0.125), gradient_accumulation_steps=4)
    weight, rates = train(optimizer, 16, 2, 2)
    assert (steps.last(2), steps.updates(2), steps.of_updates(4)) == (15, 4, 16)
    assert [batches_seen(optimizer), int(optimizer.iterations)] == [16, 4]
    # Updates happen in batches 3, 7, 11 and 15 of 0.75 - 0.625 * batch / 15.
    assert rates == [pytest.approx(0.75 - 0.625 * 7 / 15), 0.125]
    assert weight == pytest.approx(0.75 * 4 - 0.625 * (3 + 7 + 11 + 15) / 15, rel=1e-6)


def test_rate_of_a_number_is_read_and_set_between_batches_of_a_compiled_training() -> None:
    optimizer = keras.optimizers.SGD(0.5)
    assert schedule_of(optimizer) is None
    assert [learning_rate(optimizer), learning_rate(optimizer, batch=7)] == [0.5, 0.5]
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(optimizer, loss=lambda truth, output: -output)
    ones = np.ones((2, 1))
    for rate in (0.5, 0.125):
        set_learning_rate(model.optimizer, rate)
        model.fit(ones, ones, batch_size=1, verbose=0)
        assert learning_rate(model.optimizer) == rate
    assert float(model.get_weights()[0][0, 0]) == 2 * 0.5 + 2 * 0.125


def test_rate_of_a_schedule_is_that_of_the_last_batch_or_of_the_one_asked_for() -> None:
    schedule = LinearSchedule(1.0, steps=8)
    optimizer = keras.optimizers.SGD(schedule)
    assert schedule_of(optimizer) is schedule
    assert [learning_rate(optimizer), learning_rate(optimizer, batch=2)] == [1.0, 0.75]
    _, rates = train(optimizer, 4, 2, 3, steps_per_execution=2)
    assert rates == [0.875, 0.625, 0.375]
    assert learning_rate(optimizer, batch=6) == 0.25


def test_rate_is_counted_in_batches_under_accumulation() -> None:
    optimizer = keras.optimizers.SGD(LinearSchedule(1.0, steps=8), gradient_accumulation_steps=2)
    _, rates = train(optimizer, 4, 1, 1)
    assert rates == [0.625]  # batch 3, not update 1
    assert batches_seen(optimizer) == 4


def test_rate_is_found_inside_the_wrapper_for_float16() -> None:
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5))
    set_learning_rate(optimizer, 0.25)
    assert learning_rate(optimizer) == 0.25
    assert float(optimizer.inner_optimizer.learning_rate) == 0.25
    scheduled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(ConstantSchedule(0.5)))
    assert [learning_rate(scheduled), batches_seen(scheduled)] == [0.5, 0]


def test_rate_of_a_schedule_cannot_be_set() -> None:
    with pytest.raises(ValueError, match="LinearSchedule, which cannot be set"):
        set_learning_rate(keras.optimizers.SGD(LinearSchedule(0.5, steps=3)), 0.1)


@pytest.mark.parametrize("rate", [-0.1, math.nan, math.inf])
def test_rate_must_be_a_finite_number(rate: float) -> None:
    with pytest.raises(ValueError, match="`rate` must be at least 0 and finite"):
        set_learning_rate(keras.optimizers.SGD(0.5), rate)
