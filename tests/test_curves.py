"""Curves as functions: PyTorch's values, exact ends in compiled graphs, many steps at once, numbers of any kind."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from pytorch_rates import MOMENTA, RATES

from callbacks import (
    ConstantSchedule,
    CosineSchedule,
    CyclicMomentum,
    ExponentialSchedule,
    ExpRangeSchedule,
    InverseSquareRootSchedule,
    LinearSchedule,
    OneCycleSchedule,
    PiecewiseConstantSchedule,
    PolynomialSchedule,
    Sequence,
    StepDecaySchedule,
    Triangular2Schedule,
    TriangularSchedule,
    WarmRestartsSchedule,
    WarmUp,
    curves,
    one_cycle,
)
from callbacks.schedules import Schedule

FRACTIONS = np.arange(20) * 0.375
# PyTorch's first phase of `total_steps=20` ends at step `pct_start * 20 - 1`, so 5 and 7; the second at 14.
TWO = {"warmup": 5 / 19, "tail": 0.0, "start_factor": 0.1, "final_factor": 0.002}
THREE = {"warmup": 7 / 19, "tail": 5 / 19, "start_factor": 0.1, "final_factor": 0.002}
CORRESPONDING: dict[str, Schedule] = {
    "step": StepDecaySchedule(0.001, 0.8, every=3),
    "multi_step": PiecewiseConstantSchedule([2, 5, 9], [0.1, 0.01, 0.001, 0.0001]),
    "exponential": ExponentialSchedule(0.1, -math.log(0.9)),
    "polynomial": PolynomialSchedule(0.1, steps=10, power=2.5),
    "linear_up": WarmUp(ConstantSchedule(0.1), steps=6, factor=0.25),
    "linear_down": LinearSchedule(0.3, steps=7, final_rate=0.06),
    "constant_warmup": WarmUp(ConstantSchedule(0.1), steps=4, factor=0.3, gradual=False),
    "cosine": CosineSchedule(0.1, steps=11, min_rate=0.002),
    "restarts_1": WarmRestartsSchedule(0.1, 7, min_rate=0.003),
    "restarts_2": WarmRestartsSchedule(0.1, 3, t_mult=2, min_rate=0.003),
    "restarts_1_fractional": WarmRestartsSchedule(0.1, 2, min_rate=0.003),
    "restarts_2_fractional": WarmRestartsSchedule(0.1, 1, t_mult=2, min_rate=0.003),
    "triangular": TriangularSchedule(0.01, 0.1, step_size=5),
    "triangular2": Triangular2Schedule(0.01, 0.1, step_size=5),
    "exp_range": ExpRangeSchedule(0.01, 0.1, step_size=5, gamma=0.97),
    "one_cycle_cos_two": OneCycleSchedule(0.3, 20, **TWO),
    "one_cycle_cos_three": OneCycleSchedule(0.3, 20, **THREE),
    "one_cycle_linear_two": OneCycleSchedule(0.3, 20, **TWO, curve="linear"),
    "one_cycle_linear_three": OneCycleSchedule(0.3, 20, **THREE, curve="linear"),
    "inverse_square_root": InverseSquareRootSchedule(0.2),
    "sequential": Sequence(
        [WarmUp(ConstantSchedule(0.1), 4, factor=0.1), CosineSchedule(0.1, steps=6), ConstantSchedule(0.005)], [4, 10]
    ),
}


def compiled(function: Callable[[Any], Any], xla: bool = False) -> Callable[[Any], Any]:
    """The function as part of a training graph; on JAX this is always XLA."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=xla, autograph=False)
    import jax

    return jax.jit(function)


def numbers(values: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(values))


def tensor(values: Any, dtype: str = "int32") -> Any:
    return keras.ops.convert_to_tensor(np.asarray(values, dtype))


@pytest.mark.parametrize("name", RATES)
def test_rates_are_those_of_pytorch(name: str) -> None:
    steps = FRACTIONS if "fractional" in name else np.arange(len(RATES[name]))
    np.testing.assert_allclose(CORRESPONDING[name].values(steps), RATES[name], rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", MOMENTA)
def test_momenta_are_those_of_pytorch(name: str) -> None:
    low = 0.85 if name.startswith("one_cycle") else 0.8
    momentum = CyclicMomentum(CORRESPONDING[name], low=low, high=0.95)
    np.testing.assert_allclose(momentum.values(np.arange(len(MOMENTA[name]))), MOMENTA[name], rtol=1e-5)


# Both 1 / 41 and its likes, which rounding makes too small, and lengths for which it does not.
LENGTHS = [1, 3, 41, 49, 55, 97, 391]


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_compiled_cycles_restart_at_their_step_and_at_the_maximum(xla: bool) -> None:
    """Compilers divide by a constant by multiplying with its reciprocal, and floor(41 * (1 / 41)) is 0."""
    for length in LENGTHS:
        restarts = np.arange(1, 6) * length
        rates = compiled(lambda step, n=length: curves.warm_restarts(step, 0.7, n, min_rate=0.1), xla)
        assert (numbers(rates(tensor(restarts))) == np.float32(0.7)).all(), length
        assert length == 1 or (numbers(rates(tensor(restarts - 1))) < 0.26).all(), length


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_compiled_steps_drop_neither_early_nor_late(xla: bool) -> None:
    for every in LENGTHS:
        drops = np.arange(1, 6) * every
        halve = compiled(lambda step, n=every: curves.halving(step, 0.8, n), xla)
        expected = np.float32(0.8) * np.float32([0.5, 0.25, 0.125, 0.0625, 0.03125])
        np.testing.assert_array_equal(numbers(halve(tensor(drops))), expected, str(every))
        np.testing.assert_array_equal(numbers(halve(tensor(drops - 1))), 2 * expected, str(every))


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_compiled_triangles_have_exact_corners(xla: bool) -> None:
    for size in LENGTHS:
        corners = np.arange(7) * size
        rates = compiled(lambda step, n=size: curves.triangular2(step, 0.003, 0.7, n), xla)
        top = np.float32([0.7, 0.3515, 0.17725])
        found = numbers(rates(tensor(corners)))
        assert (found[::2] == np.float32(0.003)).all(), size
        assert found[1] == np.float32(0.7), size
        np.testing.assert_allclose(found[1::2], top, rtol=1e-6)


ENDING: dict[str, Callable[[Any, int], Any]] = {
    "cosine": lambda step, last: curves.cosine(step, 0.7, last, 0.003),
    "linear": lambda step, last: curves.linear(step, 0.7, last, 0.003),
    "polynomial": lambda step, last: curves.polynomial(step, 0.7, last, 0.5, 0.003),
    "cosine to zero": lambda step, last: curves.cosine(step, 0.7, last),
    "linear to zero": lambda step, last: curves.linear(step, 0.7, last),
    "one cycle": lambda step, last: curves.one_cycle(step, 0.7, last + 1, final_factor=0.003 / 0.7),
    "one cycle, linear": lambda step, last: curves.one_cycle(
        step, 0.7, last + 1, final_factor=0.003 / 0.7, curve="linear"
    ),
    "one cycle without a tail": lambda step, last: curves.one_cycle(
        step, 0.7, last + 1, tail=0.0, final_factor=0.003 / 0.7
    ),
}


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("name", ENDING)
def test_compiled_curve_ends_on_its_minimum_exactly_and_stays(name: str, xla: bool) -> None:
    minimum = np.float32(0.0 if "zero" in name else 0.003)
    for last in LENGTHS:
        curve = compiled(lambda step, n=last: ENDING[name](step, n), xla)
        rates = numbers(curve(tensor([last - 1, last, last + 1, 10**6])))
        assert (rates[1:] == minimum).all(), (last, rates)
        assert rates[0] > minimum, (last, rates)


@pytest.mark.parametrize("name", ENDING)
def test_falling_part_never_rises_and_never_leaves_its_range(name: str) -> None:
    last = 977
    rates = numbers(compiled(lambda step: ENDING[name](step, last))(tensor(np.arange(last + 5))))
    peak = int(rates.argmax())
    assert peak == (440 if "one cycle" in name else 0)  # 0.45 * 977 = 439.65
    assert (np.diff(rates[:peak]) >= 0).all()
    assert (np.diff(rates[peak:]) <= 0).all()
    assert rates.max() <= np.float32(0.7)
    assert rates.min() == rates[-1]


def test_both_ends_are_exact_for_any_two_rates() -> None:
    """In float32 `low + (high - low)` is not `high` for these."""
    for low, high in ((1e-5, 1e-4), (0.0025, 0.015), (0.0055, 0.093), (0.022, 0.28), (0.049, 0.12), (0.17, 0.47)):
        expected = np.float32([high, low])
        np.testing.assert_array_equal(numbers(curves.cosine([0, 10], high, 10, low)), expected)
        np.testing.assert_array_equal(numbers(curves.triangular([10, 20], low, high, 10)), expected)


def test_last_steps_of_a_long_cosine_keep_their_precision() -> None:
    """(1 + cos) / 2 in float32 is wrong by 100 % here: the rate is below the spacing of its numbers near 1."""
    total = 100_000
    steps = total - np.array([1, 2, 10, 100])
    exact = [math.sin(math.pi / 2 * (total - step) / total) ** 2 for step in steps.tolist()]
    np.testing.assert_allclose(numbers(curves.cosine(steps, 1.0, total)), exact, rtol=1e-6)


def test_gamma_near_one_keeps_its_precision_over_many_steps() -> None:
    # 0.99994^100000 = e^(100000 * ln 0.99994) = e^-6.000180007 = 0.00247830603; the peak of a cycle of 2 * 20000.
    rate = float(curves.exp_range(100_000, 0.0, 1.0, 20_000, 0.99994))
    assert rate == pytest.approx(0.00247830603, rel=1e-5)


@pytest.mark.parametrize(("first_cycle", "t_mult"), [(1, 2), (5, 2), (3, 3), (7, 2), (16, 1.5), (64, 1.25)])
def test_growing_cycles_restart_at_their_step_and_at_the_maximum(first_cycle: int, t_mult: float) -> None:
    """As many cycles as have whole lengths, or until step 2^24, from which on float32 leaves out steps."""
    starts, length = [0], first_cycle
    while starts[-1] + length < 2**24 and length == int(length):
        starts.append(starts[-1] + int(length))
        length = length * t_mult
    assert len(starts) >= 4
    rates = compiled(lambda step: curves.warm_restarts(step, 0.7, first_cycle, t_mult, min_rate=0.1))
    assert (numbers(rates(tensor(starts))) == np.float32(0.7)).all()
    just_before = numbers(rates(tensor(np.array(starts[2:]) - 1)))
    assert (just_before < 0.7).all()
    fractions = tensor(np.array(starts[1:5]) - 2.0**-6, "float32")
    assert (numbers(rates(fractions)) < 0.101).all()


def test_decaying_maximum_stops_at_the_minimum_instead_of_turning_the_cosine_over() -> None:
    # Maxima 0.8, 0.4, 0.2, 0.1 and then 0.05, which is below the minimum of 0.06.
    rates = numbers(curves.warm_restarts(np.arange(0, 24, 2), 0.8, 4, min_rate=0.06, max_decay=0.5))
    np.testing.assert_allclose(rates[:8], [0.8, 0.43, 0.4, 0.23, 0.2, 0.13, 0.1, 0.08], rtol=1e-6)
    np.testing.assert_array_equal(rates[8:], np.full(4, np.float32(0.06)))


def test_one_cycle_of_a_single_step_has_the_final_rate() -> None:
    assert float(one_cycle(0, 0.5, 1, final_factor=0.25)) == 0.125


def test_one_cycle_peaks_exactly_at_the_maximum_wherever_the_peak_is() -> None:
    for curve in ("linear", "cosine"):
        for peak in range(90):
            rate = one_cycle(peak, 0.7, 98, warmup=peak / 97, tail=0.05, curve=curve)
            assert float(rate) == pytest.approx(0.7, rel=2e-7), (curve, peak)


def test_one_cycle_refuses_an_unknown_shape() -> None:
    with pytest.raises(KeyError, match="cubic"):
        one_cycle(0, 0.5, 10, curve="cubic")


def test_cycle_longer_than_any_training_is_a_cosine() -> None:
    np.testing.assert_allclose(numbers(curves.warm_restarts([0, 2.0**31], 0.5, 2.0**32, t_mult=2.0)), [0.5, 0.25])


CURVES: dict[str, Callable[[Any], Any]] = {
    "constant": lambda step: curves.constant(step, np.float64(0.3)),
    "step_decay": lambda step: curves.step_decay(step, np.float64(0.3), np.float64(0.5), np.int64(3), np.int64(2)),
    "piecewise": lambda step: curves.piecewise_constant(step, np.array([3, 6]), np.array([0.3, 0.2, 0.1])),
    "exponential": lambda step: curves.exponential(step, np.float64(0.3), np.float64(0.05)),
    "halving": lambda step: curves.halving(step, np.float64(0.3), np.int64(4)),
    "inverse_time": lambda step: curves.inverse_time(step, np.float64(0.3), np.float64(0.5)),
    "polynomial": lambda step: curves.polynomial(step, np.float64(0.3), np.int64(9), np.float64(2), np.float64(0.1)),
    "inverse_square_root": lambda step: curves.inverse_square_root(step, np.float64(0.3), np.int64(4)),
    "cosine": lambda step: curves.cosine(step, np.float64(0.3), np.int64(9), np.float64(0.1)),
    "triangular": lambda step: curves.triangular(step, np.float64(0.1), np.float64(0.3), np.int64(4), np.float64(0.5)),
    "exp_range": lambda step: curves.exp_range(step, np.float64(0.1), np.float64(0.3), np.int64(4), np.float64(0.9)),
    "restarts": lambda step: curves.warm_restarts(step, np.float64(0.3), np.int64(3), np.float64(1), np.float64(0.1)),
    "growing": lambda step: curves.warm_restarts(step, np.float64(0.3), np.int64(3), np.float64(1.5), np.float64(0.1)),
    "one_cycle": lambda step: curves.one_cycle(step, np.float64(0.3), np.int64(12), np.float64(0.4), np.float64(0.2)),
}


@pytest.mark.parametrize("name", CURVES)
def test_many_steps_at_once_give_what_they_give_alone(name: str) -> None:
    """In an array of two dimensions, with numpy's numbers as arguments, in float32."""
    together = numbers(CURVES[name](np.arange(12).reshape(3, 4)))
    alone = [numbers(CURVES[name](step)) for step in range(12)]
    assert together.shape == (3, 4)
    assert together.dtype == np.float32
    assert {(one.shape, one.dtype) for one in alone} == {((), np.dtype("float32"))}
    np.testing.assert_allclose(together.ravel(), alone, rtol=1e-6)
