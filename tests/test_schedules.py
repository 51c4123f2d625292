"""Every schedule against numbers worked out by hand, and the contract that all of them keep."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import callbacks
from callbacks import (
    ConstantSchedule,
    CosineSchedule,
    CyclicMomentum,
    ExponentialSchedule,
    ExpRangeSchedule,
    HalvingSchedule,
    InverseSquareRootSchedule,
    InverseTimeSchedule,
    LinearSchedule,
    OneCycleSchedule,
    Paced,
    PiecewiseConstantSchedule,
    PolynomialSchedule,
    Scale,
    Sequence,
    StepDecaySchedule,
    Steps,
    Triangular2Schedule,
    TriangularSchedule,
    WarmRestartsSchedule,
    WarmUp,
)
from callbacks.gallery import draw_gallery, examples
from callbacks.schedules import Schedule

ROOT_HALF = math.sqrt(0.5)
COS_30 = math.sqrt(3) / 2

# Schedule, and the rates at some steps.
BY_HAND: dict[str, tuple[Schedule, dict[float, float]]] = {
    "constant": (ConstantSchedule(0.3), {0: 0.3, 1: 0.3, 10**6: 0.3}),
    "step decay, counting from a start": (
        StepDecaySchedule(0.4, 0.5, every=2, start=3),
        {0: 0.4, 4: 0.4, 5: 0.2, 6: 0.2, 7: 0.1, 9: 0.05},
    ),
    "step decay of ImageNet": (
        StepDecaySchedule(0.1, 0.1, every=30),
        {0: 0.1, 29: 0.1, 30: 0.01, 59: 0.01, 60: 0.001, 89: 0.001, 90: 0.0001},
    ),
    "piecewise constant": (
        PiecewiseConstantSchedule([2, 3, 7], [0.4, 0.0, 0.5, 0.1]),
        {0: 0.4, 1: 0.4, 2: 0.0, 3: 0.5, 6: 0.5, 7: 0.1, 10**6: 0.1},
    ),
    "exponential": (
        ExponentialSchedule(0.2, math.log(2) / 10),
        {0: 0.2, 5: 0.2 * ROOT_HALF, 10: 0.1, 20: 0.05, 100: 0.2 / 1024},
    ),
    "halving": (HalvingSchedule(0.4, every=7), {0: 0.4, 6: 0.4, 7: 0.2, 13: 0.2, 14: 0.1, 70: 0.000390625}),
    "inverse": (InverseTimeSchedule(0.3, 0.5), {0: 0.3, 1: 0.2, 2: 0.15, 4: 0.1, 10: 0.05}),
    "linear": (LinearSchedule(0.8, steps=8), {0: 0.8, 1: 0.7, 3: 0.5, 7: 0.1, 8: 0.0, 9: 0.0}),
    "linear to a rate": (LinearSchedule(0.8, steps=6, final_rate=0.2), {0: 0.8, 1: 0.7, 5: 0.3, 6: 0.2, 7: 0.2}),
    "polynomial": (
        PolynomialSchedule(0.5, steps=5, power=2.0),
        {0: 0.5, 1: 0.32, 2: 0.18, 3: 0.08, 4: 0.02, 5: 0.0, 6: 0.0},
    ),
    "root, to a rate": (PolynomialSchedule(0.5, steps=4, power=0.5, final_rate=0.1), {0: 0.5, 3: 0.3, 4: 0.1, 5: 0.1}),
    "inverse square root": (InverseSquareRootSchedule(0.6), {0: 0.6, 1: 0.6, 4: 0.3, 9: 0.2, 36: 0.1}),
    "inverse square root, held": (
        InverseSquareRootSchedule(0.6, hold=4),
        {0: 0.6, 4: 0.6, 9: 0.4, 16: 0.3, 36: 0.2},
    ),
    "cosine": (
        CosineSchedule(0.5, steps=6, min_rate=0.1),
        {0: 0.5, 1: 0.3 + 0.2 * COS_30, 2: 0.4, 3: 0.3, 4: 0.2, 5: 0.3 - 0.2 * COS_30, 6: 0.1, 7: 0.1, 100: 0.1},
    ),
    "triangular": (
        TriangularSchedule(0.1, 0.5, step_size=4),
        {0: 0.1, 1: 0.2, 2: 0.3, 4: 0.5, 6: 0.3, 8: 0.1, 9: 0.2, 12: 0.5, 16: 0.1},
    ),
    "triangular2": (
        Triangular2Schedule(0.1, 0.5, step_size=4),
        {0: 0.1, 4: 0.5, 8: 0.1, 10: 0.2, 12: 0.3, 16: 0.1, 20: 0.2, 24: 0.1, 28: 0.15},
    ),
    "exp range": (
        ExpRangeSchedule(0.1, 0.5, step_size=2, gamma=0.9),
        {0: 0.1, 1: 0.28, 2: 0.424, 3: 0.2458, 4: 0.1, 6: 0.1 + 0.4 * 0.531441},
    ),
    # Equal cycles of 4; T_cur is a fraction at steps that are fractions.
    "restarts": (
        WarmRestartsSchedule(0.5, 4, min_rate=0.1),
        {0: 0.5, 0.5: 0.3 + 0.2 * math.cos(math.pi / 8), 1: 0.3 + 0.2 * ROOT_HALF, 2: 0.3, 3: 0.3 - 0.2 * ROOT_HALF}
        | {3.75: 0.3 - 0.2 * math.cos(math.pi / 16), 4: 0.5, 6: 0.3, 8: 0.5},
    ),
    # Cycles begin at 0, 4, 10, 19, 32.5 and 52.75; their middles are 2, 7, 14.5, 25.75 and 42.625.
    "restarts, T_mult 1.5": (
        WarmRestartsSchedule(0.5, 4, t_mult=1.5, min_rate=0.1),
        {0: 0.5, 4: 0.5, 10: 0.5, 19: 0.5, 32.5: 0.5, 52.75: 0.5, 2: 0.3, 7: 0.3, 14.5: 0.3, 25.75: 0.3, 42.625: 0.3}
        | {5: 0.3 + 0.2 * COS_30, 9: 0.3 - 0.2 * COS_30, 13: 0.4, 16: 0.2}
        | {32: 0.3 - 0.2 * math.cos(math.pi / 27), 33: 0.3 + 0.2 * math.cos(math.pi * 2 / 81)},
    ),
    # Cycles begin at 0, 3, 9, 21 and 45.
    "restarts, T_mult 2": (
        WarmRestartsSchedule(0.5, 3, t_mult=2, min_rate=0.1),
        {0: 0.5, 1: 0.4, 2: 0.2, 3: 0.5, 4: 0.3 + 0.2 * COS_30, 5: 0.4, 6: 0.3, 8: 0.3 - 0.2 * COS_30, 9: 0.5}
        | {15: 0.3, 21: 0.5, 33: 0.3, 45: 0.5},
    ),
    "restarts from lower and lower maxima": (
        WarmRestartsSchedule(0.8, 2, t_mult=2, min_rate=0.1, max_decay=0.5),
        {0: 0.8, 1: 0.45, 2: 0.4, 4: 0.25, 6: 0.2, 10: 0.15, 14: 0.1},
    ),
    # 101 steps: the peak at 45, back at the start's rate at 90, the final one at 100. 0.02 -> 0.5 -> 0.02 -> 0.0002.
    "one cycle": (
        OneCycleSchedule(0.5, 101),
        {0: 0.02, 15: 0.14, 22.5: 0.26, 30: 0.38, 45: 0.5, 60: 0.38, 67.5: 0.26, 75: 0.14, 90: 0.02}
        | {95: 0.0101, 100: 0.0002, 101: 0.0002, 10**6: 0.0002},
    ),
    "one cycle, linear": (
        OneCycleSchedule(0.5, 101, curve="linear"),
        {0: 0.02, 9: 0.116, 18: 0.212, 45: 0.5, 54: 0.404, 72: 0.212, 90: 0.02, 95: 0.0101, 100: 0.0002, 101: 0.0002},
    ),
    # 11 steps without a tail: 0.2 -> 1.0 in four equal parts of 0.2, then 1.0 -> 0.04 in six of 0.16.
    "one cycle, linear, without a tail": (
        OneCycleSchedule(1.0, 11, warmup=0.4, tail=0.0, start_factor=0.2, final_factor=0.04, curve="linear"),
        dict(enumerate([0.2, 0.4, 0.6, 0.8, 1.0, 0.84, 0.68, 0.52, 0.36, 0.2, 0.04, 0.04])),
    ),
    "one cycle, without warm-up": (
        OneCycleSchedule(0.8, 101, warmup=0.0, tail=0.0, final_factor=0.0),
        {0: 0.8, 25: 0.4 + 0.4 * ROOT_HALF, 50: 0.4, 75: 0.4 - 0.4 * ROOT_HALF, 100: 0.0},
    ),
}

# One of each class for the contract: schedule, lowest and highest rate of steps 0 to 39.
CONTRACT: list[tuple[Schedule, float, float]] = [
    (ConstantSchedule(0.3), 0.3, 0.3),
    (StepDecaySchedule(0.3, 0.5, every=10, start=4), 0.0375, 0.3),
    (PiecewiseConstantSchedule([5, 9], [0.3, 0.2, 0.1]), 0.1, 0.3),
    (ExponentialSchedule(0.3, 0.05), 0.3 * math.exp(-1.95), 0.3),
    (HalvingSchedule(0.3, every=10), 0.0375, 0.3),
    (InverseTimeSchedule(0.3, 0.1), 0.3 / 4.9, 0.3),
    (PolynomialSchedule(0.3, steps=31, power=2.5, final_rate=0.003), 0.003, 0.3),
    (LinearSchedule(0.3, steps=31, final_rate=0.003), 0.003, 0.3),
    (InverseSquareRootSchedule(0.3, hold=3), 0.3 / math.sqrt(13), 0.3),
    (CosineSchedule(0.3, steps=31, min_rate=0.003), 0.003, 0.3),
    (TriangularSchedule(0.003, 0.3, step_size=7), 0.003, 0.3),
    (Triangular2Schedule(0.003, 0.3, step_size=7), 0.003, 0.3),
    (ExpRangeSchedule(0.003, 0.3, step_size=7, gamma=0.9), 0.003, 0.003 + 0.297 * 0.4782969),
    (WarmRestartsSchedule(0.3, 8, t_mult=1.5, min_rate=0.003, max_decay=0.9), 0.003 + 0.24 * 0.00759612349, 0.3),
    (OneCycleSchedule(0.3, 31, warmup=0.4, tail=0.2, final_factor=0.001, curve="linear"), 0.0003, 0.3),
    (
        WarmUp(CosineSchedule(0.3, steps=20, min_rate=0.003), steps=5, factor=0.1, delay=False),
        0.003,
        0.1515 + 0.1485 * ROOT_HALF,
    ),
    (Sequence([LinearSchedule(0.3, steps=9), CosineSchedule(0.2, steps=9)], boundaries=[11]), 0.0, 0.3),
    (Scale(LinearSchedule(0.4, steps=31, final_rate=0.004), multiplier=0.75), 0.003, 0.3),
    (Paced(LinearSchedule(0.3, steps=62, final_rate=0.003), line=(0.0, 0.0, 2.0)), 0.003, 0.3),
    (CyclicMomentum(OneCycleSchedule(0.3, 41), low=0.8, high=0.9), 0.8, 0.9),
]
contract = pytest.mark.parametrize(
    ("schedule", "low", "high"), CONTRACT, ids=[type(schedule).__name__ for schedule, _, _ in CONTRACT]
)
every_schedule = pytest.mark.parametrize(
    "schedule", [entry[0] for entry in CONTRACT], ids=[type(schedule).__name__ for schedule, _, _ in CONTRACT]
)


def number(value: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(value))


def compiled(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function as part of a training graph."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False)
    import jax

    return jax.jit(function)


def all_subclasses(parent: type) -> set[type]:
    return {one for child in parent.__subclasses__() for one in {child, *all_subclasses(child)}}


@keras.saving.register_keras_serializable(package="tests")
def negative_output(truth: Any, output: Any) -> Any:
    """A loss that moves weight `t` by exactly the rate when input `t` is 1 and the others are 0."""
    return keras.ops.mean(-output, axis=-1)


def model_of_one_weight_a_step(steps: int) -> keras.Model:
    return keras.Sequential(
        [keras.Input((steps,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", dtype="float32")]
    )


def rates_of_a_fit(optimizer: keras.optimizers.Optimizer, steps: int, **compiling: Any) -> np.ndarray:
    """Train with one example a batch; the rate of step `t` is where weight `t` went, the only one it could move."""
    model = model_of_one_weight_a_step(steps)
    model.compile(optimizer, loss=negative_output, **compiling)
    model.fit(np.eye(steps), np.zeros((steps, 1)), batch_size=1, shuffle=False, verbose=0)
    return model.get_weights()[0][:, 0]


@pytest.mark.parametrize("name", BY_HAND)
def test_rates_are_those_worked_out_by_hand(name: str) -> None:
    schedule, expected = BY_HAND[name]
    rates = [float(schedule(step)) for step in expected]
    np.testing.assert_allclose(rates, list(expected.values()), rtol=2e-6, atol=1e-9)


def test_step_decay_table_of_the_courses_in_epochs() -> None:
    steps = Steps(examples=1000, batch_size=128)  # 8 steps an epoch
    schedule = StepDecaySchedule(0.001, 0.8, every=steps.before(3))
    table = [0.001] * 3 + [0.0008] * 3 + [0.00064] * 3 + [0.000512] * 3
    for epoch, rate in enumerate(table):
        first_and_last = schedule.values([steps.before(epoch), steps.last(epoch + 1)])
        np.testing.assert_allclose(first_and_last, [rate, rate], rtol=1e-6)


def test_one_cycle_rises_and_falls_in_two_equal_parts_by_default() -> None:
    rates = OneCycleSchedule(0.5, 201).values(np.arange(181))
    np.testing.assert_allclose(rates, rates[::-1], rtol=1e-5)
    assert rates.argmax() == 90


def test_every_schedule_class_is_under_contract() -> None:
    classes = {one for one in all_subclasses(Schedule) if one.__module__.startswith("callbacks.")}
    public = {one for one in classes if not one.__name__.startswith("_")}
    assert {type(schedule) for schedule, _, _ in CONTRACT} == public
    for one in public:
        assert getattr(callbacks, one.__name__) is one
        assert one.__doc__


@contract
def test_lowest_and_highest_rate_are_those_of_the_arguments(schedule: Schedule, low: float, high: float) -> None:
    for rates in (schedule.values(np.arange(40)), number(compiled(schedule)(keras.ops.arange(40)))):
        assert rates.min() == pytest.approx(low, rel=1e-6)
        assert rates.max() == pytest.approx(high, rel=1e-6)


@every_schedule
def test_every_kind_of_step_gives_the_same_float32_scalar(schedule: Schedule) -> None:
    expected = number(schedule(13))
    assert (expected.shape, expected.dtype) == ((), np.float32)
    steps = [13.0, np.int64(13), np.float32(13), np.array(13)]
    steps += [keras.ops.convert_to_tensor(13, dtype) for dtype in ("int32", "int64", "float32")]
    steps += [keras.Variable(13, dtype="int32", trainable=False)]
    for step in steps:
        rate = number(schedule(step))
        assert (rate.shape, rate.dtype) == ((), np.float32), step
        np.testing.assert_allclose(rate, expected, rtol=1e-6)


@every_schedule
def test_many_steps_at_once_give_what_they_give_alone(schedule: Schedule) -> None:
    alone = [float(schedule(step)) for step in range(0, 40, 3)]
    together = schedule.values(range(0, 40, 3))
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, alone, rtol=1e-6)
    np.testing.assert_allclose(number(compiled(schedule)(keras.ops.arange(0, 40, 3))), alone, rtol=2e-6, atol=1e-9)


@every_schedule
def test_late_steps_are_fine(schedule: Schedule) -> None:
    rates = schedule.values([2**20, 2**23 + 1, 2**24])
    assert np.isfinite(rates).all()
    assert (rates >= 0).all()


@pytest.fixture(params=["mixed_bfloat16", "float64", "bfloat16"])
def other_precision(request: pytest.FixtureRequest) -> Iterator[str]:
    """A policy, or a float of all of Keras, other than the usual one."""
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    if request.param.startswith("mixed"):
        keras.config.set_dtype_policy(request.param)
    else:
        keras.config.set_floatx(request.param)
    yield request.param
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


@every_schedule
def test_rate_is_float32_whatever_the_precision_of_the_network(schedule: Schedule, other_precision: str) -> None:
    rate = number(schedule(13))
    assert rate.dtype == np.float32
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    np.testing.assert_array_equal(rate, number(schedule(13)))


@every_schedule
def test_config_is_plain_and_gives_the_schedule_back(schedule: Schedule) -> None:
    plain = json.loads(json.dumps(keras.saving.serialize_keras_object(schedule)))
    again = keras.saving.deserialize_keras_object(plain)
    assert type(again) is type(schedule)
    assert again.get_config() == schedule.get_config()
    np.testing.assert_array_equal(again.values(range(40)), schedule.values(range(40)))
    direct = type(schedule).from_config(schedule.get_config())
    np.testing.assert_array_equal(direct.values(range(40)), schedule.values(range(40)))


X, Y = np.random.default_rng(0).normal(size=(2, 8, 3)).astype("float32")


def saved_and_loaded(schedule: Schedule, path: Path) -> tuple[keras.Model, keras.Model]:
    """A model trained for four steps, and the same from its file."""
    keras.utils.set_random_seed(5)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.SGD(schedule, momentum=0.9), "mse")
    model.fit(X, Y, batch_size=2, shuffle=False, verbose=0)
    model.save(path)
    return model, keras.saving.load_model(path)


@every_schedule
def test_loaded_model_has_its_schedule_its_step_and_its_slots(schedule: Schedule, tmp_path: Path) -> None:
    model, again = saved_and_loaded(schedule, tmp_path / "model.keras")
    assert int(again.optimizer.iterations) == 4
    assert float(again.optimizer.learning_rate) == float(schedule(4))
    for one, other in zip(model.optimizer.variables, again.optimizer.variables, strict=True):
        np.testing.assert_array_equal(number(one), number(other))


@pytest.mark.parametrize("entry", [9, 16])
def test_loaded_model_goes_on_as_the_saved_one(entry: int, tmp_path: Path) -> None:
    models = saved_and_loaded(CONTRACT[entry][0], tmp_path / "model.keras")
    for model in models:
        model.fit(X, Y, batch_size=2, shuffle=False, verbose=0)
    for one, other in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@every_schedule
def test_plot_shows_every_step_and_writes_a_picture(schedule: Schedule, tmp_path: Path) -> None:
    figure = schedule.plot(25, tmp_path / "rates.png")
    (line,) = figure.axes[0].lines
    np.testing.assert_array_equal(line.get_xdata(), np.arange(25))
    np.testing.assert_array_equal(line.get_ydata(), schedule.values(range(25)))
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["rates.png"]
    label = "momentum" if isinstance(schedule, CyclicMomentum) else "learning rate"
    assert figure.axes[0].get_ylabel() == label


def test_plot_of_a_long_training_shows_2000_steps_and_both_ends() -> None:
    (line,) = LinearSchedule(0.5, steps=10**6 - 1).plot(10**6).axes[0].lines
    assert len(line.get_xdata()) == 2000
    assert list(line.get_xdata()[[0, -1]]) == [0, 10**6 - 1]
    assert list(line.get_ydata()[[0, -1]]) == [0.5, 0.0]


def test_plot_takes_one_step_and_refuses_none() -> None:
    assert len(ConstantSchedule(0.1).plot(1).axes[0].lines[0].get_xdata()) == 1
    for steps in (0, -3, 2.5, math.nan):
        with pytest.raises(ValueError, match="`steps` must be a whole number"):
            ConstantSchedule(0.1).plot(steps)


def test_failed_plot_leaves_the_earlier_picture(tmp_path: Path) -> None:
    path = tmp_path / "rates.nothing"
    path.write_text("earlier")
    with pytest.raises(ValueError, match="nothing"):
        ConstantSchedule(0.1).plot(3, path)
    assert path.read_text() == "earlier"
    assert len(list(tmp_path.iterdir())) == 1


def test_gallery_shows_every_schedule_of_the_package(tmp_path: Path) -> None:
    figure = draw_gallery(tmp_path / "schedules.png")
    assert (tmp_path / "schedules.png").read_bytes().startswith(b"\x89PNG")
    assert len(figure.axes) == len(examples())
    shown = {type(schedule).__name__ for schedule in examples().values()}
    public = {name for name in callbacks.__all__ if issubclass(type(getattr(callbacks, name)), type)}
    assert shown == {name for name in public if issubclass(getattr(callbacks, name), Schedule)}


@every_schedule
def test_compiled_fit_moves_the_weights_by_the_rates(schedule: Schedule) -> None:
    if isinstance(schedule, (Scale, Paced)) and keras.backend.backend() == "jax":
        pytest.skip("JAX makes a constant of a variable that the optimiser does not hold; see test_combinators.py")
    moved = rates_of_a_fit(keras.optimizers.SGD(schedule), 35, steps_per_execution=3)
    np.testing.assert_allclose(moved, schedule.values(range(35)), rtol=2e-6, atol=1e-9)


def test_fit_with_several_steps_an_execution_moves_by_the_triangle() -> None:
    moved = rates_of_a_fit(keras.optimizers.SGD(TriangularSchedule(0.125, 0.5, step_size=3)), 8, steps_per_execution=3)
    np.testing.assert_allclose(moved, [0.125, 0.25, 0.375, 0.5, 0.375, 0.25, 0.125, 0.25], rtol=1e-6)


def test_fit_with_accumulation_moves_every_second_batch_by_the_rate_of_that_batch() -> None:
    """The mean of two gradients, so half the rate each; the rate is that of the batch which completes the pair."""
    optimizer = keras.optimizers.SGD(TriangularSchedule(0.125, 0.5, step_size=3), gradient_accumulation_steps=2)
    moved = rates_of_a_fit(optimizer, 9, steps_per_execution=3)
    np.testing.assert_allclose(moved, [0.125, 0.125, 0.25, 0.25, 0.125, 0.125, 0.125, 0.125, 0.0], rtol=1e-6)


def test_fit_in_mixed_precision_moves_by_the_rates_unrounded() -> None:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        moved = rates_of_a_fit(keras.optimizers.SGD(LinearSchedule(0.7, steps=7)), 8)
    finally:
        keras.config.set_dtype_policy(policy)
    np.testing.assert_allclose(moved, [0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0], rtol=1e-6, atol=1e-9)


def test_second_fit_goes_on_with_the_step_of_the_first() -> None:
    model = model_of_one_weight_a_step(4)
    model.compile(keras.optimizers.SGD(LinearSchedule(0.8, steps=8)), loss=negative_output)
    for _ in range(2):
        model.fit(np.eye(4), np.zeros((4, 1)), batch_size=1, shuffle=False, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0][:, 0], [0.8 + 0.4, 0.7 + 0.3, 0.6 + 0.2, 0.5 + 0.1], rtol=1e-6)


@every_schedule
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, -1])
def test_no_argument_may_be_negative_or_not_finite(schedule: Schedule, wrong: float) -> None:
    plain = {
        name: value
        for name, value in schedule.config.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    if isinstance(schedule, Scale):
        plain = {"multiplier": 0.75}
    assert plain or isinstance(schedule, (PiecewiseConstantSchedule, Sequence, Paced))
    for name in plain:
        with pytest.raises(ValueError, match=f"`{name}`"):
            type(schedule)(**{**schedule.config, name: wrong})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConstantSchedule(0.0), r"`rate` must be above 0 and finite. Received: rate=0.0"),
        (lambda: ConstantSchedule("0.1"), "`rate` must be above 0 and finite. Received: rate='0.1'"),
        (lambda: ConstantSchedule(None), "`rate` must be above 0 and finite. Received: rate=None"),
        (lambda: ConstantSchedule([0.1, 0.2]), "`rate` must be above 0 and finite"),
        (lambda: StepDecaySchedule(0.1, 0.5, "3"), "`every` must be a whole number.*Received: every='3'"),
        (lambda: StepDecaySchedule(0.1, "0.5", 3), r"`factor` must lie in \(0, 1\]. Received: factor='0.5'"),
        (lambda: PiecewiseConstantSchedule(3, [0.1]), "`boundaries` must be a list. Received: boundaries=3"),
        (lambda: PiecewiseConstantSchedule(["3"], [0.3, 0.1]), "`boundaries` must be whole numbers above 0"),
        (lambda: OneCycleSchedule(0.1, 5, curve=["cosine"]), "`curve` must be 'cosine' or 'linear'"),
        (lambda: StepDecaySchedule(0.0, 0.5, 3), "`initial_rate` must be above 0"),
        (lambda: StepDecaySchedule(0.1, 0.0, 3), r"`factor` must lie in \(0, 1\]. Received: factor=0.0"),
        (lambda: StepDecaySchedule(0.1, 1.5, 3), r"`factor` must lie in \(0, 1\]"),
        (lambda: StepDecaySchedule(0.1, 0.5, 0), "`every` must be a whole number of steps, at least 1"),
        (lambda: StepDecaySchedule(0.1, 0.5, 2.5), "`every` must be a whole number.*Received: every=2.5"),
        (lambda: StepDecaySchedule(0.1, 0.5, 3, start=0.5), "`start` must be 0, 1, 2"),
        (lambda: PiecewiseConstantSchedule([3], [0.1]), "`rates` must have one entry more"),
        (lambda: PiecewiseConstantSchedule([3, 3], [0.3, 0.2, 0.1]), "`boundaries` must be whole numbers above 0"),
        (lambda: PiecewiseConstantSchedule([0], [0.3, 0.2]), "`boundaries` must be whole numbers above 0"),
        (lambda: PiecewiseConstantSchedule([2.5], [0.3, 0.2]), "`boundaries` must be whole numbers above 0"),
        (lambda: PiecewiseConstantSchedule([math.nan], [0.3, 0.2]), "`boundaries` must be whole numbers above 0"),
        (lambda: PiecewiseConstantSchedule([math.inf], [0.3, 0.2]), "`boundaries` must be whole numbers above 0"),
        (lambda: PiecewiseConstantSchedule([3], [0.3, -0.1]), "`rates` must be at least 0 and finite"),
        (lambda: PiecewiseConstantSchedule([3], [0.3, math.inf]), "`rates` must be at least 0 and finite"),
        (lambda: HalvingSchedule(0.1, 0), "`every` must be a whole number"),
        (lambda: PolynomialSchedule(0.1, 5, power=0.0), "`power` must be above 0"),
        (
            lambda: PolynomialSchedule(0.1, 5, final_rate=0.2),
            "`final_rate` must be at least 0 and below `initial_rate`",
        ),
        (lambda: LinearSchedule(0.1, 5, final_rate=0.1), "`final_rate` must be at least 0 and below `initial_rate`"),
        (lambda: LinearSchedule(0.1, 5.5), "`steps` must be a whole number"),
        (lambda: InverseSquareRootSchedule(0.1, hold=0), "`hold` must be a whole number"),
        (lambda: CosineSchedule(0.1, 0), "`steps` must be a whole number"),
        (lambda: CosineSchedule(0.1, 5, min_rate=0.3), "`min_rate` must be at least 0 and below `max_rate`"),
        (lambda: TriangularSchedule(0.5, 0.1, 5), "`base_rate` must be at least 0 and below `max_rate`"),
        (lambda: TriangularSchedule(0.1, 0.5, 0), "`step_size` must be a whole number"),
        (lambda: ExpRangeSchedule(0.1, 0.5, 5, gamma=0.0), r"`gamma` must lie in \(0, 1\]"),
        (lambda: ExpRangeSchedule(0.1, 0.5, 5, gamma=1.1), r"`gamma` must lie in \(0, 1\]"),
        (lambda: WarmRestartsSchedule(0.1, 0.5), "`first_cycle` must be at least 1"),
        (lambda: WarmRestartsSchedule(0.1, 5, t_mult=0.5), "`t_mult` must be 1, or at least 1.01"),
        (lambda: WarmRestartsSchedule(0.1, 5, t_mult=1.001), "`t_mult` must be 1, or at least 1.01"),
        (lambda: WarmRestartsSchedule(0.1, 5, min_rate=0.1), "`min_rate` must be at least 0 and below `max_rate`"),
        (lambda: WarmRestartsSchedule(0.1, 5, max_decay=0.0), r"`max_decay` must lie in \(0, 1\]"),
        (lambda: OneCycleSchedule(0.0, 5), "`max_rate` must be above 0"),
        (lambda: OneCycleSchedule(0.1, 0), "`total_steps` must be a whole number of steps, at least 1"),
        (lambda: OneCycleSchedule(0.1, 5, warmup=1.0), "`warmup` is a fraction"),
        (lambda: OneCycleSchedule(0.1, 5, tail=1.0), "`tail` is a fraction"),
        (lambda: OneCycleSchedule(0.1, 5, warmup=0.6, tail=0.4), "`warmup` and `tail` must leave time to fall"),
        (lambda: OneCycleSchedule(0.1, 5, start_factor=0.0), "`start_factor` must lie"),
        (lambda: OneCycleSchedule(0.1, 5, final_factor=1.5), "`final_factor` must lie"),
        (lambda: OneCycleSchedule(0.1, 5, curve="cubic"), "'cosine' or 'linear'. Received: curve='cubic'"),
    ],
)
def test_wrong_arguments_are_refused(make: Callable[[], Schedule], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_whole_numbers_may_come_as_floats_or_from_numpy() -> None:
    for steps in (10, 10.0, np.int64(10), np.float32(10)):
        schedule = CosineSchedule(np.float64(0.5), steps)
        assert json.dumps(schedule.get_config()) == '{"max_rate": 0.5, "steps": 10, "min_rate": 0.0}'
