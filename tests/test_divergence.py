"""Training on an example that is not a number: where it stopped, and what is said about it."""

import warnings

import keras
import numpy as np
import pytest

from callbacks.divergence import TerminateOnDivergence
from callbacks.early_stopping import EarlyStopping
from callbacks.schedules import PiecewiseConstantSchedule


def train(
    bad: int | None,
    steps: int = 7,
    spe: int = 1,
    rate: object = 0.5,
    factor: float | None = None,
    callbacks: tuple[keras.callbacks.Callback, ...] = (),
    **optimizer: object,
) -> tuple[TerminateOnDivergence, keras.callbacks.History]:
    """Three epochs on zeros, of which step number `bad` is not a number."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate, **optimizer), "mse", steps_per_execution=spe)
    x = np.zeros((steps, 1), "float32")
    if bad is not None:
        x[bad - 1] = np.nan
    guard = TerminateOnDivergence(factor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        history = model.fit(
            x, 0 * np.ones((steps, 1)), 1, 3, 0, [guard, *callbacks], shuffle=False, validation_data=(x[:1], x[:1])
        )
    return guard, history


@pytest.mark.parametrize(
    ("bad", "spe", "where"),
    [
        (1, 1, "step 1"),
        (5, 1, "step 5"),
        (7, 1, "step 7"),
        (4, 3, "step 4 to 6"),
        (1, 3, "step 1 to 3"),
        (7, 3, "step 7"),
    ],
)
def test_message_names_the_steps(bad, spe, where) -> None:
    guard, history = train(bad, spe=spe)
    assert f"in epoch 1, {where}, at learning rate 0.5: the loss is nan." in guard.message
    assert "such as 0.05," in guard.message
    assert len(history.epoch) == 1


@pytest.mark.parametrize(("spe", "rates"), [(1, "0.25"), (3, "0.5 to 0.25")])
def test_message_names_the_rates_that_a_schedule_gave_there(spe, rates) -> None:
    guard, _ = train(6, spe=spe, rate=PiecewiseConstantSchedule([4], [0.5, 0.25]))
    assert f"at learning rate {rates}: " in guard.message


def test_rate_is_that_of_the_batch_under_gradient_accumulation() -> None:
    guard, _ = train(6, rate=PiecewiseConstantSchedule([4], [0.5, 0.25]), gradient_accumulation_steps=2)
    assert "step 6, at learning rate 0.25: " in guard.message


def test_no_message_when_all_is_well() -> None:
    guard, history = train(None, factor=1.5)
    assert guard.message is None
    assert len(history.epoch) == 3


def test_message_is_also_a_warning() -> None:
    guard = TerminateOnDivergence()
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="diverged in epoch 1, step 1, at learning rate 0.01"):
        model.fit(np.full((1, 1), np.nan), np.zeros((1, 1)), verbose=0, callbacks=[guard])


def test_rate_that_is_far_too_high_is_noticed_and_the_best_weights_stay_finite() -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e6), "mse")
    guard, x = TerminateOnDivergence(), np.linspace(-1, 1, 16)[:, None].astype("float32")
    with pytest.warns(UserWarning, match="diverged"):
        model.fit(x, x, 1, 50, 0, [guard, EarlyStopping("loss")])
    assert "such as 1e+05," in guard.message


@pytest.mark.parametrize("wrapper", [None, keras.optimizers.LossScaleOptimizer], ids=["alone", "wrapped"])
def test_several_optimisers_have_no_one_rate(wrapper, multi_optimizer) -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    part = keras.optimizers.SGD(0.5)
    optimizer = multi_optimizer(lambda variable: part)
    model.compile(wrapper(optimizer) if wrapper else optimizer, "mse")
    guard = TerminateOnDivergence()
    with pytest.warns(UserWarning, match="step 1: the loss"):
        model.fit(np.full((1, 1), np.nan), np.zeros((1, 1)), verbose=0, callbacks=[guard])
    assert "step 1: the loss is nan. Use a lower learning rate, a warm-up" in guard.message


def fed(factor: float | None, epochs: list[list[float]], val_loss: float = 1.0) -> tuple[TerminateOnDivergence, int]:
    """Give the running means of every epoch by hand, until it stops; how many were taken."""
    guard, taken = TerminateOnDivergence(factor), 0
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    model.stop_training = False
    guard.set_model(model)
    guard.set_params({"steps": 3, "epochs": len(epochs)})
    guard.on_train_begin()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for epoch, means in enumerate(epochs):
            guard.on_epoch_begin(epoch)
            for step, mean in enumerate(means):
                guard.on_train_batch_begin(step)
                guard.on_train_batch_end(step, {"loss": mean})
                taken += 1
                if model.stop_training:
                    return guard, taken
            guard.on_epoch_end(epoch, {"loss": means[-1], "val_loss": val_loss})
    return guard, taken


@pytest.mark.parametrize(
    ("factor", "taken"),
    [(None, 9), (2, 9), (1.5, 8)],  # the best mean is 1.0, of the first epoch; then 1.6 in the second step of the third
)
def test_factor_is_of_the_best_mean_of_an_epoch(factor, taken) -> None:
    guard, count = fed(factor, [[9.0, 2.0, 1.0], [1.2, 1.3, 1.4], [1.5, 1.6, 1.4]])
    assert count == taken
    assert (guard.message is None) == (taken == 9)
    if guard.message:
        assert "epoch 3, step 2, at learning rate 0.5: the loss is 1.6, more than 1.5 times the best" in guard.message


def test_factor_means_nothing_for_negative_losses() -> None:
    assert fed(2, [[-3.0], [-1.0], [0.5]])[0].message is None


def test_last_step_that_broke_the_network_shows_in_the_validation_loss() -> None:
    guard, _ = fed(None, [[1.0, 1.0]], val_loss=float("nan"))
    assert "in epoch 1, its end, at learning rate 0.5: the validation loss is nan" in guard.message
    assert guard.model.stop_training


def test_second_fit_starts_afresh_and_a_resumed_one_knows_the_best_mean() -> None:
    guard, _ = fed(2, [[1.0]])
    state = guard.get_state()
    guard.on_train_begin()
    assert (guard.best, guard.message) == (np.inf, None)
    guard.set_state(state)
    guard.on_train_begin()
    assert guard.best == 1.0


@pytest.mark.parametrize("factor", [1, 0.5, float("nan")])
def test_factor_of_one_or_less_is_refused(factor) -> None:
    with pytest.raises(ValueError, match="`factor` must be above 1"):
        TerminateOnDivergence(factor)
