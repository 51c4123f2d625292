"""Warm-up before any schedule, several in a row, a multiplier that acts while training, momentum against the rate."""

import math
from typing import Any

import keras
import numpy as np
import pytest

from callbacks import (
    ConstantSchedule,
    CosineSchedule,
    CyclicMomentum,
    HalvingSchedule,
    InverseSquareRootSchedule,
    LinearSchedule,
    OneCycleSchedule,
    PiecewiseConstantSchedule,
    Scale,
    Sequence,
    StepDecaySchedule,
    TriangularSchedule,
    WarmRestartsSchedule,
    WarmUp,
)
from callbacks.rates import LearningRateSchedule, set_learning_rate
from callbacks.schedules import Schedule

KERAS = keras.optimizers.schedules


def rates(schedule: LearningRateSchedule, steps: int) -> list[float]:
    return [float(schedule(step)) for step in range(steps)]


LINEAR = LinearSchedule(0.8, steps=4)  # 0.8, 0.6, 0.4, 0.2, 0.0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # 0.2 of 0.8 is 0.16; four equal parts of 0.16 to 0.8.
        ({"factor": 0.2}, [0.16, 0.32, 0.48, 0.64, 0.8, 0.6, 0.4, 0.2, 0.0]),
        ({"factor": 0.0}, [0.0, 0.2, 0.4, 0.6, 0.8, 0.6, 0.4, 0.2, 0.0]),
        ({"factor": 1.0}, [0.8, 0.8, 0.8, 0.8, 0.8, 0.6, 0.4, 0.2, 0.0]),
        ({"factor": 0.5, "gradual": False}, [0.4, 0.4, 0.4, 0.4, 0.8, 0.6, 0.4, 0.2, 0.0]),
    ],
)
def test_delayed_schedule_begins_with_its_first_rate_after_the_warmup(arguments: Any, expected: list[float]) -> None:
    np.testing.assert_allclose(rates(WarmUp(LINEAR, steps=4, **arguments), 9), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # At step 2 the rate is 0.4; 0.25 of it is 0.1, and half-way lies 0.25.
        ({"factor": 0.25}, [0.1, 0.25, 0.4, 0.2, 0.0, 0.0]),
        ({"factor": 0.25, "gradual": False}, [0.1, 0.1, 0.4, 0.2, 0.0, 0.0]),
    ],
)
def test_schedule_without_delay_loses_the_steps_of_the_warmup(arguments: Any, expected: list[float]) -> None:
    np.testing.assert_allclose(rates(WarmUp(LINEAR, steps=2, delay=False, **arguments), 6), expected, rtol=1e-6)


AFTER_WARMUP: list[LearningRateSchedule] = [
    ConstantSchedule(0.4),
    CosineSchedule(0.4, steps=30, min_rate=0.01),
    StepDecaySchedule(0.4, 0.5, every=4),
    WarmRestartsSchedule(0.4, 6, t_mult=1.5),
    PiecewiseConstantSchedule([3, 9], [0.4, 0.1, 0.2]),
    WarmUp(LinearSchedule(0.4, steps=30), steps=3),
    KERAS.CosineDecay(0.4, 30),
    KERAS.CosineDecay(0.1, 30, warmup_target=0.4, warmup_steps=3),
    KERAS.PiecewiseConstantDecay([3, 9], [0.4, 0.1, 0.2]),
    KERAS.PolynomialDecay(0.4, 30, cycle=True),
    KERAS.CosineDecayRestarts(0.4, 6),
    KERAS.ExponentialDecay(0.4, 10, 0.5),
    KERAS.InverseTimeDecay(0.4, 10, 0.5),
]
after_warmup = pytest.mark.parametrize(
    "schedule", AFTER_WARMUP, ids=[f"{number}-{type(one).__name__}" for number, one in enumerate(AFTER_WARMUP)]
)


@after_warmup
@pytest.mark.parametrize("delay", [True, False])
def test_warmup_meets_any_schedule_without_a_leap(schedule: LearningRateSchedule, delay: bool) -> None:
    warm = WarmUp(schedule, steps=8, factor=0.25, delay=delay)
    joint = float(schedule(0 if delay else 8))
    for step, part in ((0, 0.25), (2, 0.4375), (4, 0.625), (8, 1.0)):
        assert float(warm(step)) == pytest.approx(joint * part, rel=1e-6)
    for step in (9, 17, 40):
        assert float(warm(step)) == pytest.approx(float(schedule(step - 8 if delay else step)), rel=1e-6)


@pytest.mark.parametrize("schedule", [AFTER_WARMUP[3], AFTER_WARMUP[7]], ids=["ours", "of Keras"])
def test_combination_can_be_saved_and_drawn(schedule: LearningRateSchedule) -> None:
    """Keras' `CosineDecay` with a warm-up takes one step at a time."""
    whole = Scale(Sequence([WarmUp(schedule, steps=2), schedule], [5]), multiplier=0.5)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(whole))
    steps = [0, 2, 4, 5, 6]
    expected = [float(whole(step)) for step in steps]
    np.testing.assert_array_equal([float(again(step)) for step in steps], expected)
    np.testing.assert_allclose(whole.values(steps), expected, rtol=1e-6)
    np.testing.assert_allclose(whole.plot(3).axes[0].lines[0].get_ydata()[::2], expected[:2], rtol=1e-6)


def test_inverse_square_root_after_warmup_is_the_rate_of_the_transformer() -> None:
    """https://arxiv.org/abs/1706.03762: proportional to min(1 / sqrt(step), step * warm-up^-1.5)."""
    schedule = WarmUp(InverseSquareRootSchedule(0.5, hold=25), steps=25, factor=0.0, delay=False)
    peak = 1 / math.sqrt(25)
    for step in (1, 10, 24, 25, 26, 100, 400):
        assert float(schedule(step)) == pytest.approx(0.5 / peak * min(1 / math.sqrt(step), step * 25**-1.5), rel=1e-6)


def test_sequence_lets_every_schedule_count_from_its_own_zero() -> None:
    schedule = Sequence([LINEAR, HalvingSchedule(0.6, every=2), CosineSchedule(0.4, steps=2)], boundaries=[2, 6])
    expected = [0.8, 0.6, 0.6, 0.6, 0.3, 0.3, 0.4, 0.2, 0.0, 0.0]
    np.testing.assert_allclose(rates(schedule, 10), expected, rtol=1e-6, atol=1e-8)


def test_sequence_of_one_schedule_is_that_schedule() -> None:
    assert rates(Sequence([LINEAR], []), 6) == rates(LINEAR, 6)


def test_combination_of_one_that_never_ends_is_not_spoilt_by_a_part_that_is_not_used() -> None:
    """Every part is worked out at every step, also outside of its time."""
    schedule = Sequence([KERAS.ExponentialDecay(0.4, 1, 2.0), ConstantSchedule(0.3)], [4])
    assert float(schedule(100_000)) == pytest.approx(0.3)  # 2^100000 is inf


class Tracking(keras.optimizers.SGD):
    """An optimiser that holds its schedule's variables, which JAX needs."""

    def build(self, variables: Any) -> None:
        super().build(variables)
        for variable in self._learning_rate.variables:
            self._track_variable(variable)


def one_weight_model(steps: int) -> keras.Model:
    """Weight `t` moves only in batch `t` of an epoch, by the rate of that batch."""
    return keras.Sequential([keras.Input((steps,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])


def moved_in_an_epoch(model: keras.Model) -> np.ndarray:
    steps = model.input_shape[1]
    before = model.get_weights()[0][:, 0]
    model.fit(np.eye(steps), np.zeros((steps, 1)), batch_size=1, shuffle=False, verbose=0)
    return model.get_weights()[0][:, 0] - before


class HalveAfter(keras.callbacks.Callback):
    """Halve the multiplier after the first epoch."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == 0:
            multiplier = self.model.optimizer._learning_rate.multiplier
            multiplier.assign(0.5 * float(keras.ops.convert_to_numpy(multiplier)))


@pytest.mark.parametrize("kind", [keras.optimizers.SGD, Tracking])
def test_multiplier_acts_in_the_compiled_training(kind: type) -> None:
    if kind is not Tracking and keras.backend.backend() == "jax":
        pytest.skip("on JAX a variable that the optimiser does not hold is a constant of the compiled step")
    model = one_weight_model(4)
    model.compile(kind(Scale(LinearSchedule(0.8, steps=8))), loss=lambda truth, output: -output, steps_per_execution=2)
    np.testing.assert_allclose(moved_in_an_epoch(model), [0.8, 0.7, 0.6, 0.5], rtol=1e-6)
    model.optimizer._learning_rate.multiplier.assign(0.5)
    np.testing.assert_allclose(moved_in_an_epoch(model), [0.2, 0.15, 0.1, 0.05], rtol=1e-5)


@pytest.mark.parametrize("kind", [keras.optimizers.SGD, Tracking])
def test_multiplier_changed_by_a_callback_acts_in_the_next_epoch(kind: type) -> None:
    if kind is not Tracking and keras.backend.backend() == "jax":
        pytest.skip("on JAX a variable that the optimiser does not hold is a constant of the compiled step")
    model = one_weight_model(2)
    model.compile(kind(Scale(ConstantSchedule(0.8), multiplier=0.5)), loss=lambda truth, output: -output)
    x, y = np.eye(2), np.zeros((2, 1))
    model.fit(x, y, batch_size=1, epochs=3, shuffle=False, verbose=0, callbacks=[HalveAfter()])
    np.testing.assert_allclose(model.get_weights()[0][:, 0], [0.4 + 0.2 + 0.2] * 2, rtol=1e-6)


def test_multiplier_is_saved_as_it_is_now() -> None:
    schedule = Scale(LINEAR)
    schedule.multiplier.assign(0.25)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert float(again(0)) == pytest.approx(0.2)
    again.multiplier.assign(1.0)
    assert float(schedule(0)) == pytest.approx(0.2)


def test_nested_multipliers_multiply_and_are_all_found() -> None:
    inner, outer = Scale(ConstantSchedule(0.8), 0.5), ConstantSchedule(0.1)
    whole = Scale(WarmUp(Sequence([inner, outer], [5]), steps=2), multiplier=0.25)
    assert [
        variable is one for variable, one in zip(whole.variables, (whole.multiplier, inner.multiplier), strict=True)
    ]
    assert float(whole(3)) == pytest.approx(0.1)
    assert WarmUp(KERAS.CosineDecay(0.1, 5), steps=2).variables == []


def test_momentum_falls_while_the_rate_rises() -> None:
    # Rate 0.1 -> 0.5 -> 0.1 in 3 + 3 steps; the momentum's way between 0.95 and 0.8 is the same upside down.
    momentum = CyclicMomentum(TriangularSchedule(0.1, 0.5, step_size=3), low=0.8, high=0.95)
    np.testing.assert_allclose(rates(momentum, 7), [0.95, 0.9, 0.85, 0.8, 0.85, 0.9, 0.95], rtol=1e-6)


def test_momentum_stays_high_in_the_tail_of_one_cycle() -> None:
    momentum = CyclicMomentum(OneCycleSchedule(0.3, 101), low=0.85, high=0.95)
    steps = [0, 45, 90, 95, 100, 200]
    np.testing.assert_allclose(momentum.values(steps), [0.95, 0.85, 0.95, 0.95, 0.95, 0.95], rtol=1e-6)


def test_momentum_of_a_restart_is_low_at_once() -> None:
    momentum = CyclicMomentum(WarmRestartsSchedule(0.3, 4, min_rate=0.1), low=0.75, high=0.95)
    np.testing.assert_allclose(rates(momentum, 5)[::2], [0.75, 0.85, 0.75], rtol=1e-6)


@pytest.mark.parametrize("schedule", [ConstantSchedule(0.1), LINEAR, WarmUp(TriangularSchedule(0.1, 0.5, 3), 2)])
@pytest.mark.parametrize("scaled", [False, True])
def test_momentum_needs_a_schedule_with_cycles(schedule: Schedule, scaled: bool) -> None:
    message = f"{type(schedule).__name__} does not say where its cycles are: take a triangular"
    with pytest.raises(ValueError, match=message):
        CyclicMomentum(Scale(schedule) if scaled else schedule)


def test_momentum_against_a_scaled_rate_is_that_against_the_rate() -> None:
    scaled = CyclicMomentum(Scale(TriangularSchedule(0.1, 0.5, step_size=3), 0.25), low=0.8, high=0.95)
    np.testing.assert_allclose(rates(scaled, 4), [0.95, 0.9, 0.85, 0.8], rtol=1e-6)
    with pytest.raises(ValueError, match="Scale does not say where its cycles are"):
        CyclicMomentum(Scale(keras.optimizers.schedules.CosineDecay(0.1, 5)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WarmUp(0.1, 5), "`schedule` must be a LearningRateSchedule.*Received: 0.1"),
        (lambda: WarmUp(LINEAR, 0), "`steps` must be a whole number"),
        (lambda: WarmUp(LINEAR, "5"), "`steps` must be a whole number.*Received: steps='5'"),
        (lambda: WarmUp(LINEAR, 5, factor="0.1"), r"`factor` must lie in \[0, 1\]. Received: factor='0.1'"),
        (lambda: Sequence(LINEAR, [1]), "`schedules` must be a list. Received: schedules=<"),
        (lambda: WarmUp(LINEAR, 2.5), "`steps` must be a whole number"),
        (lambda: WarmUp(LINEAR, 5, factor=1.1), r"`factor` must lie in \[0, 1\]"),
        (
            lambda: WarmUp(LINEAR, 5, gradual="constant"),
            "`gradual` must be True or False. Received: gradual='constant'",
        ),
        (lambda: WarmUp(LINEAR, 5, delay=3), "`delay` must be True or False"),
        (lambda: Sequence([LINEAR, 0.1], [3]), "`schedules` must be a LearningRateSchedule"),
        (lambda: Sequence([LINEAR, LINEAR], []), "`schedules` must have one entry more than `boundaries`"),
        (lambda: Sequence([], []), "`schedules` must have one entry more"),
        (lambda: Sequence([LINEAR] * 3, [5, 3]), "`boundaries` must be whole numbers above 0 that ascend"),
        (lambda: Sequence([LINEAR] * 2, [math.nan]), "`boundaries` must be whole numbers"),
        (lambda: Sequence([LINEAR] * 2, [2.5]), "`boundaries` must be whole numbers"),
        (lambda: Scale(0.1), "`schedule` must be a LearningRateSchedule"),
        (lambda: Scale(LINEAR, 0.0), "`multiplier` must be above 0"),
        (lambda: CyclicMomentum(KERAS.CosineDecayRestarts(0.1, 5)), "`schedule` must be a cyclic schedule"),
        (lambda: CyclicMomentum(OneCycleSchedule(0.1, 9), low=0.9, high=0.9), "`low` and `high` must satisfy"),
        (lambda: CyclicMomentum(OneCycleSchedule(0.1, 9), low=0.9, high=1.0), "`low` and `high` must satisfy"),
    ],
)
def test_wrong_arguments_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_multiplier_is_named_where_a_rate_cannot_be_set() -> None:
    with pytest.raises(ValueError, match=r"is Scale, which cannot be set.*`multiplier` can be changed"):
        set_learning_rate(keras.optimizers.SGD(Scale(LINEAR)), 0.1)
