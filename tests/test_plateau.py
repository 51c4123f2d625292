"""Lower rates when a metric stops improving: a table of values first, then the weights of real fits."""

import keras
import numpy as np
import pytest

from callbacks import SGD, ConstantSchedule, LinearSchedule, ReduceOnPlateau, Scale, Sequence, WarmUp

NAN = float("nan")


def output(y_true, y_pred):
    """A loss whose gradient for a kernel is the input."""
    return keras.ops.mean(y_pred)


def network(optimizer, outputs: int = 1, **compiled) -> keras.Model:
    """One weight for each output, all 0, whose gradient is 1."""
    inputs = keras.Input((1,))
    made = [
        keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name=f"head_{number}")(inputs)
        for number in range(outputs)
    ]
    model = keras.Model(inputs, {f"head_{number}": one for number, one in enumerate(made)})
    model.compile(optimizer, {f"head_{number}": output for number in range(outputs)}, **compiled)
    return model


def fed(values, metric: str = "val_loss", rate: float = 1.0, **options) -> list[float]:
    """The rates with which the epochs of these values were trained, from a table without a fit."""
    model = network(keras.optimizers.SGD(rate))
    callback = ReduceOnPlateau(metric, **{"factor": 0.5, **options})
    callback.set_model(model)
    callback.on_train_begin()
    rates = []
    for epoch, value in enumerate(values):
        logs = {metric: value}
        callback.on_epoch_end(epoch, logs)
        rates.append(logs["learning_rate"])
    return rates


# Values of the epochs, options, rate of each epoch: a reduction shows in the epoch after it.
TABLE = {
    "patience 1": ([5, 5, 4, 4], {"patience": 1}, [1, 1, 0.5, 0.5]),
    "patience 2": ([5, 5, 5, 5, 5, 5], {"patience": 2}, [1, 1, 1, 0.5, 0.5, 0.25]),
    "an improvement starts the count again": ([5, 6, 4, 6, 6, 6], {"patience": 2}, [1, 1, 1, 1, 1, 0.5]),
    "the best counts, not the last": ([5, 3, 4, 3.5, 3, 1], {"patience": 3}, [1, 1, 1, 1, 1, 0.5]),
    "two epochs of cooldown": ([5, 5, 5, 5, 5, 5], {"patience": 1, "cooldown": 2}, [1, 1, 0.5, 0.5, 0.5, 0.25]),
    "the best is kept in a cooldown": ([5, 5, 1, 3, 3], {"patience": 1, "cooldown": 1}, [1, 1, 0.5, 0.5, 0.25]),
    "what is less than min_delta is none": ([5, 4.6, 4.6, 4.4], {"patience": 2, "min_delta": 0.5}, [1, 1, 1, 0.5]),
    "not below min_rate": ([5] * 6, {"patience": 1, "min_rate": 0.2}, [1, 1, 0.5, 0.25, 0.2, 0.2]),
    "a rate below min_rate stays": ([5] * 3, {"patience": 1, "min_rate": 2.0}, [1, 1, 1]),
    "nan is no improvement": ([NAN, NAN, NAN, 5, 4], {"patience": 2}, [1, 1, 0.5, 0.5, 0.5]),
    "nan is not kept as the best": ([NAN, 5, 5, 5], {"patience": 2}, [1, 1, 1, 1]),
    "factor 0.1": ([5, 5, 5], {"patience": 1, "factor": 0.1}, [1, 1, 0.1]),
}


@pytest.mark.parametrize("case", TABLE)
def test_table_of_losses(case) -> None:
    values, options, expected = TABLE[case]
    np.testing.assert_allclose(fed(values, **options), expected, rtol=1e-6)


@pytest.mark.parametrize("case", TABLE)
def test_table_of_accuracies(case) -> None:
    values, options, expected = TABLE[case]
    found = fed([-value for value in values], metric="val_accuracy", **options)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_reductions_are_counted_and_end_at_the_lowest_rate() -> None:
    model = network(keras.optimizers.SGD(0.004))
    callback = ReduceOnPlateau("loss", factor=0.5, patience=1, min_rate=0.001)
    callback.set_model(model)
    callback.on_train_begin()
    for epoch in range(6):
        callback.on_epoch_end(epoch, {"loss": 1.0})
    assert callback.reductions == 2


# --------------------------------------------------------------------------------------------------------- real fits


class Values(keras.callbacks.Callback):
    """Puts a value for every epoch into the logs, and keeps what the weights moved by in each."""

    def __init__(self, values) -> None:
        super().__init__()
        self.values, self.moves, self.before = values, [], 0.0

    def on_train_begin(self, logs=None) -> None:
        self.before = float(self.model.get_weights()[0][0, 0])

    def on_epoch_end(self, epoch: int, logs=None) -> None:
        logs["val_score"] = self.values[epoch]
        weight = float(self.model.get_weights()[0][0, 0])
        self.moves.append(self.before - weight)
        self.before = weight


SCORES = [0.5, 0.5, 0.6, 0.6, 0.6, 0.7]  # with patience 1 reduced after epochs 1, 3 and 4


def fit(model: keras.Model, callback: ReduceOnPlateau, values=SCORES, steps: int = 2, first: int = 0) -> list[float]:
    """Train with `steps` batches an epoch; what the weight moved in every epoch."""
    added = Values(values)
    heads = {name: np.zeros((steps, 1)) for name in model.output_names}
    model.fit(
        np.ones((steps, 1)),
        heads,
        batch_size=1,
        epochs=len(values),
        initial_epoch=first,
        verbose=0,
        callbacks=[added, callback],
    )
    return added.moves


def plateau(**options) -> ReduceOnPlateau:
    return ReduceOnPlateau("val_score", **{"factor": 0.5, "patience": 1, "mode": "max", **options})


FACTORS = np.array([1, 1, 0.5, 0.5, 0.25, 0.125])
OPTIMIZERS = {"ours": SGD, "stock": keras.optimizers.SGD}


@pytest.mark.parametrize("compiled", [{}, {"steps_per_execution": 2}, {"jit_compile": True}])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_reduction_of_a_number_acts(kind, compiled) -> None:
    model = network(OPTIMIZERS[kind](0.5), **compiled)
    np.testing.assert_allclose(fit(model, plateau()), FACTORS, rtol=1e-5)
    np.testing.assert_allclose(model.history.history["learning_rate"], 0.5 * FACTORS, rtol=1e-6)


@pytest.mark.parametrize("compiled", [{}, {"steps_per_execution": 2}, {"jit_compile": True}])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_reduction_acts_on_top_of_a_schedule(kind, compiled) -> None:
    """Linear from 1.2 by 0.1 a batch: 1.2 + 1.1 in the first epoch, 1.0 + 0.9 in the second, ..."""
    model = network(OPTIMIZERS[kind](Scale(LinearSchedule(1.2, steps=12))), **compiled)
    expected = FACTORS * [2.3, 1.9, 1.5, 1.1, 0.7, 0.3]
    np.testing.assert_allclose(fit(model, plateau()), expected, rtol=1e-4)
    lasts = FACTORS * [1.1, 0.9, 0.7, 0.5, 0.3, 0.1]
    np.testing.assert_allclose(model.history.history["learning_rate"], lasts, rtol=1e-5)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_reduction_acts_outside_a_warm_up(kind) -> None:
    model = network(OPTIMIZERS[kind](Scale(WarmUp(ConstantSchedule(1.0), steps=2, factor=0.5, gradual=False))))
    np.testing.assert_allclose(fit(model, plateau()), FACTORS * [1, 2, 2, 2, 2, 2], rtol=1e-5)


def test_reduction_acts_where_the_schedule_is_just_at_zero() -> None:
    """A cycle that ends at 0 with every epoch: the factor counts, not the ratio of two rates."""
    cycle = [LinearSchedule(1.0, steps=1)] * 6
    model = network(SGD(Scale(Sequence(cycle, boundaries=[2, 4, 6, 8, 10]))))
    np.testing.assert_allclose(fit(model, plateau()), FACTORS, rtol=1e-5)


def test_lowest_rate_on_top_of_a_schedule() -> None:
    model = network(SGD(Scale(ConstantSchedule(0.5))))
    np.testing.assert_allclose(fit(model, plateau(min_rate=0.1)), [1, 1, 0.5, 0.5, 0.25, 0.2], rtol=1e-5)


def test_under_gradient_accumulation_and_the_wrapper_of_float16() -> None:
    inner = SGD(Scale(ConstantSchedule(0.5)), gradient_accumulation_steps=2)
    model = network(keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0))
    np.testing.assert_allclose(fit(model, plateau()), FACTORS / 2, rtol=1e-5)


def test_mean_of_several_heads_by_pattern() -> None:
    """The losses are weight times input, both -0.5 - 1 = -1.5 or so and falling: a pattern finds both."""
    model = network(SGD(0.5), outputs=2)
    callback = ReduceOnPlateau("head_?_loss", factor=0.5, patience=1, mode="max")
    moves = fit(model, callback, values=[0.0] * 3)
    np.testing.assert_allclose(moves, [1, 1, 0.5], rtol=1e-5)  # falling is worse in mode "max"
    first = model.history.history["head_0_loss"][0] / 2 + model.history.history["head_1_loss"][0] / 2
    np.testing.assert_allclose(callback.best, first, rtol=1e-6)


# ------------------------------------------------------------------------------------------------- state and the rest


def test_second_fit_starts_afresh_with_the_rate_as_it_is() -> None:
    model, callback = network(SGD(0.5)), plateau(patience=2)
    fit(model, callback, values=[0.9, 0.5, 0.5])
    assert callback.reductions == 1
    np.testing.assert_allclose(fit(model, callback, values=[0.5, 0.5]), [0.5, 0.5], rtol=1e-5)
    assert (callback.best, callback.waited, callback.reductions) == (0.5, 1, 0)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("scheduled", [False, True])
def test_going_on_from_a_state_equals_never_having_stopped(kind, scheduled) -> None:
    """A stock optimiser does not keep the multiplier of `Scale`: the callback's state does."""

    def begun() -> tuple[keras.Model, ReduceOnPlateau]:
        rate = Scale(ConstantSchedule(0.5)) if scheduled else 0.5
        return network(OPTIMIZERS[kind](rate)), plateau(patience=2, cooldown=1)

    values = [0.5, 0.5, 0.4, 0.4, 0.4, 0.3, 0.2, 0.1]
    model, callback = begun()
    whole = fit(model, callback, values)
    model, first = begun()
    fit(model, first, values[:4])
    state = first.get_state()
    kept = [keras.ops.convert_to_numpy(one).copy() for one in model.optimizer.variables]
    model, second = begun()
    model.optimizer.build(model.trainable_variables)
    fit(model, plateau(patience=99), values[:1])  # something is compiled already
    for one, value in zip(model.optimizer.variables, kept, strict=True):
        one.assign(value)
    second.set_state(state)
    np.testing.assert_allclose(fit(model, second, values, first=4)[-4:], whole[4:], rtol=1e-5)
    assert second.get_state() == callback.get_state()
    assert callback.reductions == 2


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_multiplier_is_saved_with_the_model(kind, tmp_path) -> None:
    model = network(OPTIMIZERS[kind](Scale(ConstantSchedule(0.5))))
    fit(model, plateau())
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", custom_objects={"output": output})
    np.testing.assert_allclose(fit(loaded, plateau(), values=[0.5, 0.5]), [0.125, 0.125], rtol=1e-5)


def refused(optimizer, message: str) -> None:
    model = network(optimizer)
    with pytest.raises(ValueError, match=message):
        fit(model, plateau())
    assert model.get_weights()[0][0, 0] == 0


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_schedule_that_cannot_be_changed_is_an_error_before_the_first_step(kind) -> None:
    refused(OPTIMIZERS[kind](ConstantSchedule(0.5)), r"cannot change.*ConstantSchedule. Use `Scale\(ConstantSchedule\(")
    inside = WarmUp(Scale(ConstantSchedule(0.5)), steps=2)
    refused(OPTIMIZERS[kind](inside), r"`Scale` is inside: put it outermost, as in `Scale\(WarmUp\(\.\.\.\)\)`")


def test_rate_that_is_a_function_is_an_error_before_the_first_step() -> None:
    refused(keras.optimizers.SGD(lambda: 0.1), "cannot be set")


def test_several_optimisers_in_one_are_an_error_before_the_first_step(multi_optimizer) -> None:
    """The rate of the whole could be lowered, and nothing would change."""
    one = keras.optimizers.SGD(0.1)
    refused(multi_optimizer(lambda variable: one), "in each of its optimisers")


def test_missing_metric_names_those_there_are() -> None:
    model = network(SGD(0.5))
    with pytest.raises(ValueError, match=r"'val_f1'.*'loss'.*'val_score'"):
        fit(model, ReduceOnPlateau("val_f1"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factor": 1.0}, r"`factor` must lie in \(0, 1\). Received: factor=1.0"),
        ({"factor": 0}, "`factor` must lie"),
        ({"patience": 0}, "`patience` must be at least 1"),
        ({"cooldown": -1}, "`cooldown` and `min_rate` at least 0"),
        ({"min_rate": -0.1}, "min_rate=-0.1"),
        ({"mode": "auto"}, "`mode` must be 'min' or 'max'"),
        ({"monitor": "val_thing"}, "Give `mode`"),
        ({"min_delta": -1}, "`min_delta` must be at least 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        ReduceOnPlateau(**arguments)
