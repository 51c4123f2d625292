"""A borrowed model comes back bit by bit: training goes on as if nothing had happened."""

import random

import keras
import numpy as np
import pytest

from callbacks.borrow import borrowed

generator = np.random.default_rng(0)
X, Y = generator.normal(size=(32, 4)).astype("float32"), generator.integers(0, 3, 32)


class Counting(keras.layers.Layer):
    """Hands its input on and counts how often Python runs it: once for each trace, never for a compiled step."""

    calls = 0

    def call(self, x):
        self.calls += 1
        return x


def build(accumulation: int | None = None, **options) -> keras.Model:
    """Everything that has a state: BatchNorm, Dropout, momentum, metrics."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((4,)),
            Counting(name="counting"),
            layers.Dense(8, "relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(3),
        ]
    )
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5)
    optimizer = keras.optimizers.SGD(schedule, momentum=0.9, gradient_accumulation_steps=accumulation)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], **options)
    return model


def borrow(model: keras.Model, optimizer: keras.optimizers.Optimizer, steps: int = 3) -> None:
    with borrowed(model, optimizer):
        for _ in range(steps):
            model.train_on_batch(X[:5], Y[:5])


def train(model: keras.Model, *callbacks: keras.callbacks.Callback, epochs: int = 2) -> dict[str, list[float]]:
    """The logs of every epoch."""
    history = model.fit(
        X,
        Y,
        batch_size=4,
        epochs=epochs,
        validation_data=(X[:8], Y[:8]),
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    )
    return history.history


def state(model: keras.Model) -> list[np.ndarray]:
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assert_same(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first, second)


class BorrowInEpoch(keras.callbacks.Callback):
    """Borrows before some batches and after others, and once in validation."""

    def __init__(self, failing: bool = False) -> None:
        super().__init__()
        self.failing, self.times = failing, 0

    def borrow(self) -> None:
        self.optimizer = self.optimizer if self.times else keras.optimizers.Adam(0.5)
        self.times += 1
        try:
            with borrowed(self._model, self.optimizer):  # `self.model` would bring JAX's state up to date itself
                self.model.train_on_batch(X[:5], Y[:5])
                if self.failing:
                    self.model.train_on_batch(X[:5, :3], Y[:5])
        except Exception:
            if not self.failing:
                raise

    def on_train_batch_begin(self, batch, logs=None) -> None:
        if batch in (0, 4):
            self.borrow()

    def on_train_batch_end(self, batch, logs=None) -> None:
        if batch in (3, 7):
            self.borrow()

    def on_test_batch_end(self, batch, logs=None) -> None:
        self.borrow()


@pytest.mark.parametrize("options", [{}, {"steps_per_execution": 3, "accumulation": 2}], ids=str)
def test_training_goes_on_as_if_never_borrowed(options) -> None:
    plain, lent = build(**options), build(**options)
    logs = [train(plain), train(plain)]
    optimizer = keras.optimizers.Adam(0.5)
    borrow(lent, optimizer)  # before the first step: metrics and the model's own optimiser are not built yet
    lent_logs = [train(lent)]
    borrow(lent, optimizer)
    lent_logs.append(train(lent))
    assert lent_logs == logs
    assert_same(state(lent), state(plain))


def test_everything_inside_really_moves() -> None:
    model = build()
    train(model)
    before = state(model)
    with borrowed(model, keras.optimizers.Adam(0.5)):
        model.train_on_batch(X[:5], Y[:5])
        inside = [np.array(keras.ops.convert_to_numpy(variable)) for variable in model.variables]
    moved = [not np.array_equal(one, other) for one, other in zip(inside, before, strict=False)]
    assert all(moved)  # weights, BatchNorm's statistics, the seed of Dropout
    assert_same(state(model), before)


@pytest.mark.parametrize(
    ("options", "failing"),
    [({}, False), ({"steps_per_execution": 4}, True), ({"steps_per_execution": 4, "accumulation": 3}, False)],
    ids=str,
)
def test_borrowing_in_the_middle_of_an_epoch_leaves_no_trace(options, failing) -> None:
    plain, lent = build(**options), build(**options)
    callback = BorrowInEpoch(failing)
    assert train(lent, callback, epochs=3) == train(plain, epochs=3)
    assert callback.times >= 9
    assert_same(state(lent), state(plain))


def test_an_error_inside_restores_everything_too() -> None:
    plain, lent = build(steps_per_execution=3), build(steps_per_execution=3)
    assert train(lent) == train(plain)
    own = lent.optimizer
    with pytest.raises(RuntimeError, match="in the middle"), borrowed(lent, keras.optimizers.SGD(9.0)):
        lent.train_on_batch(X[:5], Y[:5])
        raise RuntimeError("in the middle")
    assert lent.optimizer is own
    assert train(lent) == train(plain)
    assert_same(state(lent), state(plain))


def test_model_attributes_and_global_random_numbers_are_restored() -> None:
    model = build(steps_per_execution=3)
    train(model, epochs=1)
    names = ("optimizer", "steps_per_execution", "train_function", "test_function", "predict_function")
    before = [getattr(model, name) for name in names]
    random.seed(5), np.random.seed(5)
    expected = random.random(), np.random.random()
    random.seed(5), np.random.seed(5)
    model.stop_training = False
    with borrowed(model, keras.optimizers.SGD(0.1)):
        assert model.steps_per_execution == 1
        model.train_on_batch(X[:5], Y[:5])
        model.test_on_batch(X[:5], Y[:5])
        model.stop_training = True
        random.random(), np.random.random()
    assert [getattr(model, name) for name in names] == before
    assert model.stop_training is False
    assert (random.random(), np.random.random()) == expected


def test_functions_compiled_inside_for_single_steps_do_not_stay() -> None:
    """JAX fixes the number of steps when it makes the function; predicting must still give every batch."""
    model = build(steps_per_execution=4)
    with borrowed(model, keras.optimizers.SGD(0.1)):
        model.predict_on_batch(X[:4])
        model.test_on_batch(X[:4], Y[:4])
    assert model.predict(X, batch_size=4, verbose=0).shape == (32, 3)


def test_metrics_that_came_into_being_inside_are_empty() -> None:
    model = build()
    borrow(model, keras.optimizers.SGD(0.1))
    sums = [keras.ops.convert_to_numpy(variable) for variable in model.metrics_variables]
    assert len(sums) >= 4
    assert all(not value.any() for value in sums)


def test_the_borrowed_step_is_the_optimisers_own() -> None:
    """One step of plain gradient descent, against the gradient worked out by hand: d/dw (w x - y)^2 = 2 x (w x - y)."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(100.0), "mse")
    model.set_weights([np.array([[3.0]])])
    with borrowed(model, keras.optimizers.SGD(0.25)):
        model.train_on_batch(np.array([[2.0]]), np.array([[5.0]]))
        assert float(model.get_weights()[0][0, 0]) == 3.0 - 0.25 * 2 * 2 * (6 - 5)
    assert float(model.get_weights()[0][0, 0]) == 3.0


def test_the_borrowed_step_is_not_the_one_compiled_for_the_models_own_optimiser() -> None:
    """Both optimisers have one variable, their step count; their rates stand in the compiled step."""
    constant = keras.optimizers.schedules.PiecewiseConstantDecay
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(constant([9], [0.5, 0.5])), "mse")
    x, y = np.array([[2.0]]), np.array([[5.0]])
    for rate in (0.25, 0.125):
        model.set_weights([np.array([[3.0]])])
        model.fit(x, y, verbose=0)
        assert float(model.get_weights()[0][0, 0]) == 3.0 - 0.5 * 4
        model.set_weights([np.array([[3.0]])])
        with borrowed(model, keras.optimizers.SGD(constant([9], [rate, rate]))):
            model.train_on_batch(x, y)
            assert float(model.get_weights()[0][0, 0]) == 3.0 - rate * 4


def test_borrowing_again_compiles_nothing() -> None:
    model = build()
    optimizer = keras.optimizers.Adam(0.5)
    train(model)
    borrow(model, optimizer)
    train(model)
    calls = model.get_layer("counting").calls
    for _ in range(3):
        borrow(model, optimizer)
        train(model)
    assert model.get_layer("counting").calls == calls


def test_after_compiling_the_model_anew_the_borrowed_step_is_compiled_anew() -> None:
    """A step kept from before would use the loss of before."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    optimizer = keras.optimizers.SGD(0.25)
    x, y = np.array([[2.0]]), np.array([[5.0]])
    for loss, gradient in (("mse", 2 * 2 * (6 - 5)), ("mae", 2)):
        model.compile("sgd", loss)
        model.set_weights([np.array([[3.0]])])
        with borrowed(model, optimizer):
            model.train_on_batch(x, y)
            assert float(model.get_weights()[0][0, 0]) == 3.0 - 0.25 * gradient
            model.test_on_batch(x, y)
        assert float(model.evaluate(x, y, verbose=0)) == 1.0  # 6 - 5, squared or not
        model.set_weights([np.array([[4.0]])])
        assert float(model.evaluate(x, y, verbose=0)) == {"mse": 9.0, "mae": 3.0}[loss]


def test_one_borrowing_inside_another() -> None:
    model = build()
    train(model)
    before = state(model)
    with borrowed(model, keras.optimizers.SGD(0.1)):
        model.train_on_batch(X[:5], Y[:5])
        between = [np.array(keras.ops.convert_to_numpy(variable)) for variable in model.variables]
        borrow(model, keras.optimizers.Adam(0.5))
        assert_same([np.array(keras.ops.convert_to_numpy(variable)) for variable in model.variables], between)
    assert_same(state(model), before)


def test_refuses_what_cannot_be_borrowed() -> None:
    unbuilt = keras.Sequential([keras.layers.Dense(1)])
    unbuilt.compile("sgd", "mse")
    with pytest.raises(ValueError, match="no weights yet"), borrowed(unbuilt, keras.optimizers.SGD(0.1)):
        pass
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="not compiled"), borrowed(model, keras.optimizers.SGD(0.1)):
        pass
    optimizer = keras.optimizers.SGD(0.1)
    borrow(build(), optimizer)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="built for other weights"), borrowed(model, optimizer):
        pass
