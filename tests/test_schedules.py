"""The one-cycle schedule against numbers worked out by hand."""

import keras
import numpy as np
import pytest

from callbacks import OneCycleSchedule


def rates(schedule: OneCycleSchedule, steps: list[int]) -> list[float]:
    return [float(schedule(step)) for step in steps]


def test_linear_cycle_goes_through_its_corners() -> None:
    # 11 steps, peak at step 4: 0.2 -> 1.0 in four equal parts of 0.2; then 1.0 -> 0.04 in six equal parts of 0.16.
    schedule = OneCycleSchedule(1.0, 11, warmup=0.4, start_factor=0.2, final_factor=0.04, curve="linear")
    expected = [0.2, 0.4, 0.6, 0.8, 1.0, 0.84, 0.68, 0.52, 0.36, 0.2, 0.04]
    np.testing.assert_allclose(rates(schedule, list(range(11))), expected, rtol=1e-6)


def test_cosine_cycle_is_half_way_in_the_middle_of_each_part() -> None:
    schedule = OneCycleSchedule(0.8, 101, warmup=0.5, start_factor=0.25, final_factor=0.0)
    np.testing.assert_allclose(rates(schedule, [0, 25, 50, 75, 100]), [0.2, 0.5, 0.8, 0.4, 0.0], atol=1e-7)


def test_rate_stays_at_its_final_value_after_the_last_step() -> None:
    for curve in ("linear", "cosine"):
        schedule = OneCycleSchedule(0.5, 20, final_factor=0.01, curve=curve)
        np.testing.assert_allclose(rates(schedule, [19, 20, 1000]), [0.005] * 3, rtol=1e-5)


def test_without_warmup_the_first_rate_is_the_highest() -> None:
    assert rates(OneCycleSchedule(0.3, 10, warmup=0.0), [0]) == [pytest.approx(0.3)]


def test_agrees_with_pytorch() -> None:
    # torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10, pct_start=0.3, div_factor=25,
    # final_div_factor=40, cycle_momentum=False), PyTorch 2.13.0: peak at step 0.3 * 10 - 1 = 2, which is our
    # warmup = 2 / 9; torch's final rate is start / 40 = 1e-4.
    recorded = [
        0.004,
        0.052,
        0.1,
        0.095053395,
        0.081193316,
        0.061164921,
        0.038935079,
        0.018906684,
        0.005046605,
        0.0001,
    ]
    schedule = OneCycleSchedule(0.1, 10, warmup=2 / 9, start_factor=1 / 25, final_factor=1e-3)
    np.testing.assert_allclose(rates(schedule, list(range(10))), recorded, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_rate": 0.0, "total_steps": 5}, "`max_rate` must be positive"),
        ({"max_rate": 1.0, "total_steps": 0}, "`total_steps` must be at least 1"),
        ({"max_rate": 1.0, "total_steps": 5, "warmup": 1.0}, "`warmup` is a fraction"),
        ({"max_rate": 1.0, "total_steps": 5, "start_factor": 0.0}, "`start_factor` must lie"),
        ({"max_rate": 1.0, "total_steps": 5, "curve": "cubic"}, "'cosine' or 'linear'"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OneCycleSchedule(**arguments)


def test_saved_optimizer_gets_its_schedule_back() -> None:
    optimizer = keras.optimizers.SGD(OneCycleSchedule(0.7, 50, warmup=0.2, curve="linear"))
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again._learning_rate.get_config() == optimizer._learning_rate.get_config()


def test_rate_in_the_training_graph_follows_the_curve() -> None:
    """One weight with gradient 1: every step must move it by exactly that step's rate."""
    schedule = OneCycleSchedule(0.5, 6, warmup=0.4, start_factor=0.1, curve="linear")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(schedule), loss=lambda truth, output: output, steps_per_execution=3)
    model.fit(np.ones((6, 1)), np.ones((6, 1)), batch_size=1, verbose=0)
    # 0.05 -> 0.5 at step 2, then down in three equal parts to 0.5e-4.
    moved = 0.05 + 0.275 + 0.5 + 0.33335 + 0.1667 + 0.00005
    np.testing.assert_allclose(float(model.get_weights()[0][0, 0]), -moved, rtol=1e-5)
