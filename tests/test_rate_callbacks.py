"""Schedules as callbacks: the rates that moved the weights, conflicts, resuming."""

import keras
import numpy as np
import pytest

from callbacks import (
    SGD,
    BatchSizeSchedule,
    ConstantSchedule,
    CyclicLR,
    OneCycle,
    ReduceOnPlateau,
    StepDecay,
    WarmRestarts,
)


def output(y_true, y_pred):
    """A loss whose gradient for a kernel is the input."""
    return keras.ops.mean(y_pred)


class Rates(keras.callbacks.Callback):
    """The rate of every batch of every epoch: batch i has gradient 1 for weight i alone, and moves it by its rate."""

    def __init__(self) -> None:
        super().__init__()
        self.found, self.before = [], 0.0

    def on_epoch_end(self, epoch: int, logs=None) -> None:
        weights = self.model.get_weights()[0][:, 0].astype("float64")
        self.found.append(self.before - weights)
        self.before = weights


def network(optimizer=None, steps: int = 4, **compiled) -> keras.Model:
    model = keras.Sequential([keras.Input((steps,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(optimizer or keras.optimizers.SGD(0.5), output, **compiled)
    return model


def fit(model: keras.Model, *callbacks, epochs: int, known: bool = True, **options) -> np.ndarray:
    """Train; the rates, (epoch, batch). Not `known` is a generator, which lasts for one epoch."""
    steps, rates = model.input_shape[-1], Rates()
    rates.before = model.get_weights()[0][:, 0].astype("float64")
    x, y = np.eye(steps, dtype="float32"), np.zeros((steps, 1), "float32")
    given = {"x": x, "y": y, "batch_size": 1, "shuffle": False}
    if not known:
        given = {"x": ((x[i : i + 1], y[i : i + 1]) for i in range(steps))}
    model.fit(**given, epochs=epochs, verbose=0, callbacks=[*callbacks, rates], **options)
    return np.array(rates.found)


def check(found: np.ndarray, expected) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


# step_size 3 and four batches an epoch; worked out by hand. exp_range with gamma 0.5: the height times 0.5^step.
TRIANGULAR = [[0.1, 0.2, 0.3, 0.4], [0.3, 0.2, 0.1, 0.2], [0.3, 0.4, 0.3, 0.2]]
TRIANGULAR2 = [[0.1, 0.2, 0.3, 0.4], [0.3, 0.2, 0.1, 0.15], [0.2, 0.25, 0.2, 0.15]]
EXP_RANGE = [[0.1, 0.15, 0.15, 0.1375], [0.1125, 0.103125, 0.1, 0.10078125]]


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize(
    ("mode", "expected"), [("triangular", TRIANGULAR), ("triangular2", TRIANGULAR2), ("exp_range", EXP_RANGE)]
)
def test_cyclic_rate_goes_up_and_down(mode, expected, ours) -> None:
    model = network(SGD(0.5) if ours else None)
    callback = CyclicLR(0.1, 0.4, step_size=3, mode=mode, **({"gamma": 0.5} if mode == "exp_range" else {}))
    check(fit(model, callback, epochs=len(expected)), expected)


def test_restart_returns_to_the_maximum() -> None:
    """Cycles of 1 and 2 epochs of four batches: half cosines from 0.4, ..., in the words of the source."""
    found = fit(network(), WarmRestarts(0.4, first_cycle=1, t_mult=2, min_rate=0.0), epochs=4)
    first = [0.4, 0.341421, 0.2, 0.058579]
    second = [0.4, 0.384776, 0.341421, 0.276537, 0.2, 0.123463, 0.058579, 0.015224]
    check(found.ravel(), [*first, *second, 0.4, *found[3, 1:]])


def test_first_cycle_may_be_half_an_epoch() -> None:
    found = fit(network(), WarmRestarts(0.4, first_cycle=0.5, max_decay=0.5), epochs=2)
    check(found, [[0.4, 0.2, 0.2, 0.1], [0.1, 0.05, 0.05, 0.025]])


def test_first_cycle_below_one_batch_is_refused_before_the_first_step() -> None:
    refused(network(), WarmRestarts(0.4, first_cycle=0.1), "`first_cycle` must be at least a batch, 0.25 epochs here")


def test_one_cycle_spans_all_epochs() -> None:
    """Eleven steps are numbered 0 to 10: up to step 4, down to step 8, in the tail to the end."""
    options = {"warmup": 0.4, "tail": 0.2, "start_factor": 0.5, "final_factor": 0.0, "curve": "linear"}
    found = fit(network(steps=11), OneCycle(0.4, **options), epochs=1)
    check(found[0], [0.2, 0.25, 0.3, 0.35, 0.4, 0.35, 0.3, 0.25, 0.2, 0.1, 0.0])
    options = {"warmup": 0.0, "tail": 0.0, "start_factor": 0.5, "final_factor": 0.0, "curve": "linear"}
    check(fit(network(steps=3), OneCycle(0.4, **options), epochs=3).ravel(), 0.4 - 0.05 * np.arange(9))


def test_step_decay_of_the_course() -> None:
    """0.001, times 0.8 every 3 epochs."""
    found = fit(network(steps=2), StepDecay(0.001, 0.8, every=3), epochs=10)
    expected = [0.001] * 3 + [0.0008] * 3 + [0.00064] * 3 + [0.000512]
    np.testing.assert_allclose(found, np.repeat(expected, 2).reshape(10, 2), rtol=1e-3)


def test_step_decay_counts_from_its_start() -> None:
    found = fit(network(steps=2), StepDecay(0.4, 0.5, every=1, start=2), epochs=4)
    check(found[:, 0], [0.4, 0.4, 0.4, 0.2])


@pytest.mark.parametrize(("at_once", "expected"), [(1, [0.4, 0.2, 0.2]), (3, [0.4, 0.2, 0.2]), (4, [0.1, 0.3, 0.3])])
def test_history_has_the_rate_of_the_last_batch(at_once, expected) -> None:
    model = network(steps_per_execution=at_once)
    fit(model, CyclicLR(0.1, 0.4, 3), epochs=3)
    np.testing.assert_allclose(model.history.history["learning_rate"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    "compiled", [{"jit_compile": True}, {"run_eagerly": True}, {"loss": output, "steps_per_execution": 1}]
)
def test_however_the_step_runs_the_rates_are_the_same(compiled) -> None:
    model = network()
    model.compile(**{"optimizer": keras.optimizers.SGD(0.5), "loss": output, **compiled})
    check(fit(model, CyclicLR(0.1, 0.4, 3), epochs=2), TRIANGULAR[:2])


def test_with_several_steps_at_once_the_rate_is_that_of_the_first() -> None:
    """Four batches, three at a time: the rates of batches 0 and 3; and so in every epoch, none is skipped."""
    model = network(steps_per_execution=3)
    callback = CyclicLR(0.1, 0.4, 3)
    check(fit(model, callback, epochs=2), [[0.1, 0.1, 0.1, 0.4], [0.3, 0.3, 0.3, 0.2]])
    assert callback.get_state() == {"batches_done": 8}


def test_under_gradient_accumulation_batches_are_counted() -> None:
    """Two batches make an update, with the rate of the second and half of each gradient."""
    model = network(SGD(0.5, gradient_accumulation_steps=2))
    check(2 * fit(model, CyclicLR(0.1, 0.4, 3), epochs=2), [[0.2, 0.2, 0.4, 0.4], [0.2, 0.2, 0.2, 0.2]])


def test_under_the_wrapper_of_float16() -> None:
    model = network(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5), initial_scale=8.0))
    check(fit(model, CyclicLR(0.1, 0.4, 3), epochs=2), TRIANGULAR[:2])


# ------------------------------------------------------------------------------------------------- resuming, two fits


def test_second_fit_starts_afresh() -> None:
    model, callback = network(), CyclicLR(0.1, 0.4, 3)
    for _ in range(2):
        check(fit(model, callback, epochs=2), TRIANGULAR[:2])


def test_initial_epoch_goes_on_where_that_epoch_lies() -> None:
    model = network()
    check(fit(model, CyclicLR(0.1, 0.4, 3), epochs=3, initial_epoch=1), TRIANGULAR[1:])


def test_state_goes_on_where_it_was_taken() -> None:
    """Also where the epochs had another length: the state counts batches."""
    first = CyclicLR(0.1, 0.4, 3)
    fit(network(steps=5), first, epochs=1)
    assert first.get_state() == {"batches_done": 5}
    second = CyclicLR(0.1, 0.4, 3)
    second.set_state(first.get_state())
    check(fit(network(), second, epochs=2, initial_epoch=1), [[0.2, 0.1, 0.2, 0.3]])
    check(fit(network(), second, epochs=1), TRIANGULAR[:1])


def test_training_stopped_in_an_epoch_counts_its_batches() -> None:
    callback, model = CyclicLR(0.1, 0.4, 3), network()
    stop = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: setattr(model, "stop_training", batch == 1)
    )
    fit(model, callback, stop, epochs=1)
    assert callback.get_state() == {"batches_done": 2}


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({0: 2, 1: 1}, [[0.05, 0.05, 0.1, 0.1], [0.3, 0.4, 0.3, 0.2]]),  # two in a batch: half the gradient for each
        ({0: 1, 1: 2}, [[0.1, 0.2, 0.3, 0.4], [0.15, 0.15, 0.1, 0.1]]),
    ],
)
def test_cyclic_rate_counts_the_batches_of_every_size(sizes, expected) -> None:
    model, rates = network(), Rates()
    data = np.eye(4, dtype="float32"), np.zeros((4, 1), "float32")
    watching = [CyclicLR(0.1, 0.4, 3), rates]
    BatchSizeSchedule(sizes).fit(model, data, 2, callbacks=watching, shuffle=False, verbose=0)
    check(np.array(rates.found), expected)


@pytest.mark.parametrize("callback", [WarmRestarts(0.4, 1), OneCycle(0.4), StepDecay(0.4, 0.5, 1)])
def test_what_counts_epochs_refuses_batches_that_grow_before_the_first_step(callback) -> None:
    model, data = network(), (np.eye(4, dtype="float32"), np.zeros((4, 1), "float32"))
    with pytest.raises(ValueError, match=rf"{type(callback).__name__} takes all epochs for equally long.*`Steps\("):
        BatchSizeSchedule({0: 1, 1: 2}).fit(model, data, 2, callbacks=[callback], verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], 0)


# --------------------------------------------------------------------------------------------- unknown number of steps


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("at_once", [1, 3])
def test_cyclic_rate_with_a_generator_counts_what_came(at_once) -> None:
    model, callback = network(steps_per_execution=at_once), CyclicLR(0.1, 0.4, 3)
    expected = TRIANGULAR if at_once == 1 else [[0.1, 0.1, 0.1, 0.4], [0.3, 0.3, 0.3, 0.2]]
    check(fit(model, callback, epochs=1, known=False), expected[:1])
    np.testing.assert_allclose(model.history.history["learning_rate"], [0.4], rtol=1e-6)
    assert callback.get_state() == {"batches_done": 4}
    callback.set_state(callback.get_state())
    check(fit(model, callback, epochs=2, initial_epoch=1, known=False), expected[1:2])


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_initial_epoch_with_a_generator_goes_on_with_the_count_of_the_optimiser() -> None:
    model = network()
    fit(model, epochs=1)
    check(fit(model, CyclicLR(0.1, 0.4, 3), epochs=2, initial_epoch=1, known=False), TRIANGULAR[1:2])


@pytest.mark.parametrize("callback", [WarmRestarts(0.4, 1), OneCycle(0.4), StepDecay(0.4, 0.5, 1)])
def test_what_counts_epochs_refuses_an_unknown_number_of_steps_before_the_first_step(callback) -> None:
    refused(network(), callback, r"number of batches of an epoch is not known.*steps_per_epoch", known=False)


# ----------------------------------------------------------------------------------------------------------- conflicts


def refused(model: keras.Model, *callbacks, known: bool = True) -> None:
    *callbacks, message = callbacks
    with pytest.raises(ValueError, match=message):
        fit(model, *callbacks, epochs=1, known=known)
    np.testing.assert_array_equal(model.get_weights()[0], 0)
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 0


@pytest.mark.parametrize(
    "callback", [CyclicLR(0.1, 0.4, 3), WarmRestarts(0.4, 1), OneCycle(0.4), StepDecay(0.4, 0.5, 1)]
)
@pytest.mark.parametrize("kind", [SGD, keras.optimizers.SGD])
def test_schedule_in_the_optimiser_is_an_error_before_the_first_step(callback, kind) -> None:
    message = f"{type(callback).__name__} sets the learning rate itself, but.*ConstantSchedule"
    refused(network(kind(ConstantSchedule(0.1))), callback, message)


def test_rate_that_is_a_function_is_an_error_before_the_first_step() -> None:
    refused(network(keras.optimizers.SGD(lambda: 0.1)), CyclicLR(0.1, 0.4, 3), "cannot be set")


def test_several_optimisers_in_one_are_an_error_before_the_first_step(multi_optimizer) -> None:
    """The rate of the whole could be set, and nothing would change."""
    one = keras.optimizers.SGD(0.1)
    refused(network(multi_optimizer(lambda variable: one)), CyclicLR(0.1, 0.4, 3), "in each of its")


def test_rate_that_is_rounded_to_bfloat16_is_not_taken_for_that_of_another() -> None:
    usual = keras.config.floatx()
    keras.config.set_floatx("bfloat16")
    try:
        model = network()
        model.fit(
            np.zeros((4, 4)), np.zeros((4, 1)), batch_size=1, epochs=2, verbose=0, callbacks=[CyclicLR(0.1, 0.4, 3)]
        )
    finally:
        keras.config.set_floatx(usual)
    assert model.optimizer.learning_rate.dtype == "bfloat16"


@pytest.mark.parametrize("order", [1, -1])
def test_another_callback_that_sets_the_rate_is_an_error_before_the_first_step(order) -> None:
    other = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.25)
    refused(network(), *[CyclicLR(0.1, 0.4, 3), other][::order], "CyclicLR had left the learning rate at 0.5, and now")


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("other", [OneCycle(0.4), ReduceOnPlateau("loss")])
def test_two_callbacks_of_this_package_are_an_error_before_the_first_step(other, order) -> None:
    model, cyclic = network(), CyclicLR(0.1, 0.4, 3)
    names = [type(one).__name__ for one in [cyclic, other][::order]]
    refused(model, *[cyclic, other][::order], f"{names[0]} and {names[1]} would both set the learning rate")
    check(fit(model, cyclic, epochs=1), TRIANGULAR[:1])  # alone, after the error, it may


def test_one_callback_after_the_other_and_two_reductions_are_no_conflict() -> None:
    model = network()
    fit(model, CyclicLR(0.1, 0.4, 3), epochs=1)
    fit(model, OneCycle(0.4), epochs=1)
    fit(model, ReduceOnPlateau("loss"), ReduceOnPlateau("learning_rate", mode="min"), epochs=1)


def test_reduction_by_another_callback_is_an_error_in_the_next_epoch() -> None:
    model = network()
    other = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: model.optimizer.learning_rate.assign(0.01) and None
    )
    with pytest.raises(ValueError, match=r"had left the learning rate at 0.4, and now it is 0.01.*Scale\(schedule\)"):
        fit(model, CyclicLR(0.1, 0.4, 3), other, epochs=2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CyclicLR(0.1, 0.4, 3, mode="sine"), "`mode` must be one of.*Received: mode='sine'"),
        (lambda: CyclicLR(0.4, 0.1, 3), "`base_rate` must be"),
        (lambda: CyclicLR(0.1, 0.4, 0), "`step_size` must be"),
        (lambda: CyclicLR(0.1, 0.4, 3, "exp_range", gamma=1.5), "`gamma` must lie"),
        (lambda: CyclicLR(0.1, 0.4, 3, gamma=0.5), "`gamma` is for mode='exp_range' only. Received: gamma=0.5"),
        (lambda: OneCycle(0.4, total_steps=5), "leave `total_steps` out"),
        (lambda: WarmRestarts(0.4, 0), "`first_cycle` must be above 0"),
        (lambda: WarmRestarts(0.4, 1, t_mult=0.5), "`t_mult` must be"),
        (lambda: OneCycle(-1.0), "`max_rate` must be"),
        (lambda: OneCycle(0.4, curve="sine"), "`curve` must be"),
        (lambda: StepDecay(0.4, 2.0, 1), "`factor` must lie"),
        (lambda: StepDecay(0.4, 0.5, 0), "`every` must be"),
    ],
)
def test_wrong_arguments_are_refused(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
