"""Layers that do not learn for some epochs of a fit, and go on as if they had only slept."""

import keras
import numpy as np
import pytest

import callbacks
from callbacks import SGD, Adam, Freeze

ON_JAX = keras.backend.backend() == "jax"
GRADIENT = np.array([0.5, -1.0])


@keras.saving.register_keras_serializable(package="tests_freeze")
def total(y_true, y_pred):
    """A loss whose gradient for every weight of `network` is the input."""
    return keras.ops.mean(keras.ops.sum(y_pred, axis=-1))


@keras.saving.register_keras_serializable(package="tests_freeze")
class Weight(keras.layers.Layer):
    """One vector, multiplied by the input."""

    def build(self, shape) -> None:
        self.kernel = self.add_weight(shape=shape[1:], initializer="ones", name="kernel")

    def call(self, x):
        return x * self.kernel


def network(optimizer, names=("stem", "body", "head"), dtype: str = "float32", **compiled) -> keras.Model:
    """Layers side by side, each a vector of ones."""
    inputs = keras.Input((2,))
    outputs = [Weight(name=name, dtype=dtype)(inputs) for name in names]
    model = keras.Model(inputs, keras.layers.Concatenate(dtype=dtype)(outputs))
    model.compile(optimizer, total, **compiled)
    return model


def fit(model: keras.Model, *callbacks_, epochs: int = 4, steps: int = 2, **options) -> None:
    x = np.tile(GRADIENT, (steps, 1))
    model.fit(
        x, np.zeros(steps), batch_size=1, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks_), **options
    )


def weight(model: keras.Model, name: str) -> np.ndarray:
    return keras.ops.convert_to_numpy(model.get_layer(name).kernel)


def by_hand(epochs, steps: int = 2, rate: float = 0.1, momentum: float = 0.9, decay: float = 0.0) -> np.ndarray:
    """A vector of ones after SGD with momentum in as many epochs as `epochs` has true entries."""
    w, velocity = np.ones(2), np.zeros(2)
    for learns in epochs:
        for _ in range(steps if learns else 0):
            w = w - rate * decay * w
            velocity = momentum * velocity - rate * GRADIENT
            w = w + velocity
    return w


class Trace(keras.callbacks.Callback):
    """What was trainable, the weights, the optimiser's variables and the traced steps at the end of every epoch."""

    def __init__(self, counted=None) -> None:
        super().__init__()
        self.trainable, self.weights, self.slots, self.traces, self.counted = [], [], [], [], counted

    def on_epoch_end(self, epoch: int, logs=None) -> None:
        model = self.model
        self.trainable.append([one.path.split("/")[-2] for one in model.trainable_variables])
        self.weights.append({one.path: keras.ops.convert_to_numpy(one).copy() for one in model.variables})
        self.slots.append({one.path: keras.ops.convert_to_numpy(one).copy() for one in model.optimizer.variables})
        if self.counted is not None:
            self.traces.append(len(self.counted))


@pytest.mark.parametrize("compiled", [{}, {"steps_per_execution": 2}, {"jit_compile": True}])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_released_layer_goes_on_from_its_momentum(compiled, dtype) -> None:
    model = network(SGD(0.1, 0.9, weight_decay=0.2), dtype=dtype, **compiled)
    fit(model, Freeze("stem", first_epoch=1, until=3), epochs=5)
    np.testing.assert_allclose(weight(model, "stem"), by_hand([1, 0, 0, 1, 1], decay=0.2), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(weight(model, "body"), by_hand([1] * 5, decay=0.2), rtol=1e-6, atol=1e-6)


def test_frozen_layer_and_its_slots_stay_bit_by_bit() -> None:
    model, trace = network(Adam(0.1, weight_decay=0.2, amsgrad=True)), Trace()
    fit(model, Freeze("stem", first_epoch=1, until=3), trace)
    assert trace.trainable == [["stem", "body", "head"], ["body", "head"], ["body", "head"], ["stem", "body", "head"]]
    for kept in (trace.weights, trace.slots):
        of_stem = [path for path in kept[0] if "stem" in path]
        assert len(of_stem) == (1 if kept is trace.weights else 3)
        for path in of_stem:
            np.testing.assert_array_equal(kept[0][path], kept[2][path])
            assert np.abs(kept[3][path] - kept[2][path]).min() > 0
        for path in (path for path in kept[0] if "body" in path):
            assert np.abs(kept[1][path] - kept[0][path]).min() > 0


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "muon"])
def test_every_optimiser_leaves_frozen_layers_alone(name) -> None:
    model, trace = network(callbacks.get_optimizer(name, 0.1)), Trace()
    fit(model, Freeze("stem|body", until=1), trace, epochs=2)
    for path, value in trace.weights[0].items():
        assert np.array_equal(value, np.ones(2)) == ("head" not in path)
    assert all(np.abs(value - 1).min() > 0 for value in trace.weights[1].values())


def test_gradient_accumulation_with_frozen_layers() -> None:
    """Three batches in an epoch and four in an update: the updates come with batches 3, 7 and 11.

    Frozen in epoch 1 (batches 3 to 5), the layer misses the first update; what its accumulator had is dropped. It has
    the gradient of batches 6 and 7 for the second, half of four.
    """
    model, trace = network(SGD(0.1, 0.5, gradient_accumulation_steps=4)), Trace()
    fit(model, Freeze("stem", first_epoch=1, until=2), trace, steps=3)
    np.testing.assert_allclose(weight(model, "body"), by_hand([1], steps=3, momentum=0.5), rtol=1e-6, atol=1e-6)
    first = -0.1 * 0.5 * GRADIENT
    np.testing.assert_allclose(weight(model, "stem"), 1 + first + (0.5 * first - 0.1 * GRADIENT), rtol=1e-6, atol=1e-6)


def test_frozen_batch_norm_uses_and_keeps_its_statistics() -> None:
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((2,)), layers.BatchNormalization(name="norm"), layers.Dense(1, use_bias=False, name="head")]
    )
    model.compile(SGD(0.1), total)
    model.get_layer("norm").set_weights([np.full(2, 2.0), np.ones(2), np.full(2, 3.0), np.full(2, 4.0)])
    model.get_layer("head").set_weights([np.ones((2, 1))])
    before, trace = model.get_layer("norm").get_weights(), Trace()
    x = np.array([[5.0, 1.0], [5.0, 7.0]])
    model.fit(x, np.zeros(2), batch_size=2, epochs=2, verbose=0, callbacks=[Freeze("norm", until=1), trace])
    for one, other in zip(before, [value for path, value in trace.weights[0].items() if "norm" in path], strict=True):
        np.testing.assert_array_equal(one, other)
    # The head's gradient is the mean output of the norm: 1 + 2 * (mean - 3) / sqrt(4.001), means 5 and 4.
    (head,) = [value for path, value in trace.weights[0].items() if "head" in path]
    np.testing.assert_allclose(head[:, 0], [1 - 0.1 * 2.99975, 1 - 0.1 * 1.999875], rtol=1e-5)
    after = model.get_layer("norm").get_weights()  # gamma has no gradient here
    assert all(np.abs(one - other).max() > 0 for one, other in zip(before[1:], after[1:], strict=True))


def test_layers_that_were_not_trainable_before_stay_so() -> None:
    model = network(SGD(0.1), names=("stem_1", "stem_2", "head"))
    model.get_layer("stem_2").trainable = False
    model.compile(SGD(0.1), total)
    fit(model, Freeze("stem", until=1), epochs=3)
    assert [layer.trainable for layer in model.layers if layer.weights] == [True, False, True]
    np.testing.assert_array_equal(weight(model, "stem_2"), [1, 1])
    np.testing.assert_allclose(weight(model, "stem_1"), by_hand([0, 1, 1], momentum=0), rtol=1e-6, atol=1e-6)


def test_single_weights_that_were_not_trainable_before_stay_so() -> None:
    dense = keras.layers.Dense(1, name="stem", kernel_initializer="ones")
    model = keras.Sequential([keras.Input((2,)), dense, keras.layers.Dense(1, name="head")])
    dense.bias.trainable = False
    model.compile(SGD(0.1), total)
    fit(model, Freeze("stem", until=1), epochs=2)
    assert (dense.kernel.trainable, dense.bias.trainable) == (True, False)
    np.testing.assert_array_equal(dense.get_weights()[1], [0])


def test_two_at_once_release_one_part_after_the_other() -> None:
    model, trace = network(SGD(0.1, 0.9)), Trace()
    fit(model, Freeze("stem", until=3), Freeze("body", until=1), trace)
    assert trace.trainable == [["head"], ["body", "head"], ["body", "head"], ["stem", "body", "head"]]
    for name, epochs in {"stem": [0, 0, 0, 1], "body": [0, 1, 1, 1], "head": [1, 1, 1, 1]}.items():
        np.testing.assert_allclose(weight(model, name), by_hand(epochs), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("order", [1, -1])
def test_layer_that_two_have_frozen_learns_when_both_have_released_it(order) -> None:
    model, trace = network(SGD(0.1, 0.9)), Trace()
    fit(model, *[Freeze("stem|body", until=1), Freeze("stem", until=3)][::order], trace)
    assert trace.trainable == [["head"], ["body", "head"], ["body", "head"], ["stem", "body", "head"]]
    np.testing.assert_allclose(weight(model, "stem"), by_hand([0, 0, 0, 1]), rtol=1e-6, atol=1e-6)
    assert all(layer.trainable for layer in model.layers)


def test_another_layer_of_the_same_shape_is_frozen_next() -> None:
    """The arrays are of the same shapes as in the epoch before: nothing compiled may be taken for the same, nor in
    predictions during the fit.

    The layers' outputs are multiplied by 1, 2 and 4, so that it shows where one is taken for another.
    """
    factors = {"stem": 1, "body": 2, "head": 4}
    inputs = keras.Input((2,))
    outputs = [keras.layers.Rescaling(factor)(Weight(name=name)(inputs)) for name, factor in factors.items()]
    model = keras.Model(inputs, keras.layers.Concatenate()(outputs))
    model.compile(SGD(0.1, 0.9), total)
    trace, history, held = Trace(), keras.callbacks.History(), []
    holding = keras.callbacks.LambdaCallback(  # what is referred to, JAX finds again
        on_epoch_end=lambda epoch, logs: held.append(
            (
                model.train_function,
                model.test_function,
                model.predict_function,
                model.predict(GRADIENT[None], verbose=0),
            )
        )
    )
    frozen = [Freeze("stem", until=1), Freeze("body", first_epoch=1, until=2), Freeze("head", first_epoch=2)]
    model.evaluate(GRADIENT[None], np.zeros(1), verbose=0)
    before = model.predict(GRADIENT[None], verbose=0)
    np.testing.assert_allclose(before[0], np.outer([1, 2, 4], GRADIENT).ravel(), rtol=1e-6)
    fit(model, *frozen, trace, history, holding, epochs=3, validation_data=(GRADIENT[None], np.zeros(1)))
    for (name, factor), epochs in zip(factors.items(), ([0, 1, 1], [1, 0, 1], [1, 1, 0]), strict=True):
        np.testing.assert_allclose(weight(model, name), 1 + factor * (by_hand(epochs) - 1), rtol=1e-6, atol=1e-6)
    for loss, weights in zip(history.history["val_loss"], trace.weights, strict=True):
        expected = sum(factor * weights[f"{name}/kernel"] @ GRADIENT for name, factor in factors.items())
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
    for (*_, predicted), weights in zip(held, trace.weights, strict=True):
        expected = [factor * weights[f"{name}/kernel"] * GRADIENT for name, factor in factors.items()]
        np.testing.assert_allclose(predicted[0], np.concatenate(expected), rtol=1e-5)
    after = [factor * weight(model, name) * GRADIENT for name, factor in factors.items()]
    np.testing.assert_allclose(model.predict(GRADIENT[None], verbose=0)[0], np.concatenate(after), rtol=1e-6, atol=1e-6)


def test_gradients_gathered_before_freezing_are_dropped() -> None:
    """One batch in an epoch and four in an update: of epochs 0, 2 and 3, the update has what came after the release."""
    model = network(SGD(0.1, gradient_accumulation_steps=4))
    fit(model, Freeze("stem", first_epoch=1, until=2), steps=1)
    np.testing.assert_allclose(weight(model, "stem"), 1 - 0.1 * GRADIENT * 2 / 4, rtol=1e-6)
    np.testing.assert_allclose(weight(model, "body"), 1 - 0.1 * GRADIENT, rtol=1e-6)


def test_layers_of_a_submodel_and_whole_submodels() -> None:
    inner = keras.Input((2,))
    backbone = keras.Model(inner, Weight(name="late")(Weight(name="early")(inner)), name="backbone")
    inputs = keras.Input((2,))
    model = keras.Model(inputs, Weight(name="head")(backbone(inputs)))
    model.compile(SGD(0.1), total)
    trace = Trace()
    fit(model, Freeze("early", until=2), Freeze("backbone", until=1), trace, epochs=3)
    assert trace.trainable == [["head"], ["late", "head"], ["early", "late", "head"]]
    assert backbone.trainable
    assert all(layer.trainable for layer in backbone.layers)


def test_two_compilations_and_no_more() -> None:
    traced = []

    def counted(y_true, y_pred):
        traced.append(1)
        return total(y_true, y_pred)

    model = network(SGD(0.1, 0.9))
    model.compile(SGD(0.1, 0.9), counted)
    model.train_on_batch(GRADIENT[None], np.zeros(1))  # what Keras traces to build everything
    before, trace = len(traced), Trace(traced)
    fit(model, Freeze("stem", until=2), trace, epochs=4)
    assert [count - before for count in trace.traces] == [1, 1, 2, 2]


@pytest.mark.parametrize("until", [None, 2])
def test_after_fit_everything_is_as_trainable_and_as_long_as_before(until) -> None:
    model = network(SGD(0.1, 0.9))
    fit(model, epochs=1)
    before = [one.path for one in model.optimizer.variables]
    fit(model, Freeze("stem", until=until), epochs=2)
    assert [one.path for one in model.optimizer.variables] == before
    assert all(layer.trainable for layer in model.layers)
    fit(model, epochs=1)
    np.testing.assert_allclose(weight(model, "stem"), by_hand([1, 0, 0, 1]), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(weight(model, "head"), by_hand([1] * 4), rtol=1e-6, atol=1e-6)


def test_model_saved_after_the_fit_goes_on_from_its_momentum(tmp_path) -> None:
    model = network(SGD(0.1, 0.9))
    fit(model, Freeze("stem", first_epoch=1), epochs=2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one, other in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other))
    fit(loaded, epochs=1)
    np.testing.assert_allclose(weight(loaded, "stem"), by_hand([1, 0, 1]), rtol=1e-6, atol=1e-6)


def test_resuming_inside_the_frozen_epochs_equals_never_having_stopped(tmp_path) -> None:
    def begun() -> tuple[keras.Model, callbacks.Checkpoint]:
        return network(SGD(0.1, 0.9)), callbacks.Checkpoint(tmp_path / "last.npz", {})

    model, checkpoint = begun()
    fit(model, Freeze("stem", first_epoch=1, until=3), checkpoint, epochs=2)
    model, checkpoint = begun()
    first = checkpoint.restore(model).epoch
    assert first == 2
    trace = Trace()
    fit(model, Freeze("stem", first_epoch=1, until=3), trace, epochs=4, initial_epoch=first)
    assert trace.trainable == [["body", "head"], ["stem", "body", "head"]]
    np.testing.assert_allclose(weight(model, "stem"), by_hand([1, 0, 0, 1]), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(weight(model, "head"), by_hand([1] * 4), rtol=1e-6, atol=1e-6)


class Dying(keras.callbacks.Callback):
    def on_epoch_end(self, epoch: int, logs=None) -> None:
        if epoch == 1:
            raise RuntimeError("the power went off")


def died(*callbacks_) -> keras.Model:
    model = network(SGD(0.1, 0.9))
    with pytest.raises(RuntimeError, match="the power went off"):
        fit(model, *callbacks_, Dying())
    assert not model.get_layer("stem").trainable
    return model


def test_next_fit_repairs_what_an_error_had_left() -> None:
    """Also with a callback that was made anew, as in a notebook."""
    model = died(Freeze("stem", first_epoch=1))
    fit(model, Freeze("stem", until=1), epochs=2)
    assert model.get_layer("stem").trainable
    np.testing.assert_allclose(weight(model, "stem"), by_hand([1, 0, 0, 1]), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(weight(model, "head"), by_hand([1] * 4), rtol=1e-6, atol=1e-6)


def test_layers_can_be_released_by_hand_after_an_error() -> None:
    freeze = Freeze("stem", first_epoch=1)
    model = died(freeze)
    freeze.release()
    freeze.release()
    assert model.get_layer("stem").trainable
    fit(model, epochs=1)
    np.testing.assert_allclose(weight(model, "stem"), by_hand([1, 0, 1]), rtol=1e-6, atol=1e-6)
    Freeze("stem").release()


def test_new_optimiser_after_an_error_does_not_forget_what_was_frozen() -> None:
    """TensorFlow's `fit` builds the optimiser after the release. JAX's has built it on less: an error says so once."""
    model = died(Freeze("stem", first_epoch=1))
    start = weight(model, "stem")
    model.compile(SGD(0.1, 0.9), total)
    if ON_JAX:
        with pytest.raises(ValueError, match=r"while these weights did not learn.*: stem/kernel\. .*`model\.compile`"):
            fit(model, Freeze("stem", until=1), epochs=2)
        model.compile(SGD(0.1, 0.9), total)
    fit(model, Freeze("stem", until=1), epochs=2)
    np.testing.assert_allclose(weight(model, "stem") - start, by_hand([0, 1]) - 1, rtol=1e-5, atol=1e-6)


def test_optimiser_that_a_plain_fit_made_without_the_frozen_layers_is_an_error_with_the_way_out() -> None:
    model = died(Freeze("stem", first_epoch=1))
    model.compile(SGD(0.1, 0.9), total)
    fit(model, epochs=1)
    start = weight(model, "stem")
    with pytest.raises(ValueError, match=r"while these weights did not learn.*: stem/kernel\. .*`model\.compile`"):
        fit(model, Freeze("stem", until=1), epochs=2)
    model.compile(SGD(0.1, 0.9), total)
    fit(model, epochs=1)
    np.testing.assert_allclose(weight(model, "stem") - start, by_hand([1]) - 1, rtol=1e-5, atol=1e-6)


def test_layers_can_be_released_by_hand_after_a_new_optimiser() -> None:
    freeze = Freeze("stem", first_epoch=1)
    model = died(freeze)
    start = weight(model, "stem")
    model.compile(SGD(0.1, 0.9), total)
    freeze.release()
    fit(model, epochs=1)
    np.testing.assert_allclose(weight(model, "stem") - start, by_hand([1]) - 1, rtol=1e-5, atol=1e-6)


def test_frozen_part_averaged_and_reduced_at_once() -> None:
    """Two steps an epoch, the rate halved after epoch 1; the average is that of the ends of all epochs."""
    model, trace = network(SGD(callbacks.Scale(callbacks.ConstantSchedule(0.1)))), Trace()
    average = callbacks.WeightAverage(decay=None)
    plateau = callbacks.ReduceOnPlateau("loss", factor=0.5, patience=1, min_delta=1000)
    fit(model, Freeze("stem", until=2), average, plateau, trace, epochs=3)
    ends = {"stem": [0, 0, 0.1], "body": [0.2, 0.4, 0.5]}
    for name, moved in ends.items():
        for found, rate in zip(trace.weights, moved, strict=True):
            np.testing.assert_allclose(found[f"{name}/kernel"], 1 - rate * GRADIENT, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(weight(model, name), 1 - np.mean(moved) * GRADIENT, rtol=1e-5, atol=1e-6)


def test_under_the_wrapper_of_float16() -> None:
    model = network("sgd", dtype="mixed_float16")
    model.compile(keras.optimizers.LossScaleOptimizer(SGD(0.1, 0.9), initial_scale=8.0), total)
    fit(model, Freeze("stem", first_epoch=1, until=3))
    np.testing.assert_allclose(weight(model, "stem"), by_hand([1, 0, 0, 1]), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(weight(model, "head"), by_hand([1] * 4), rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(ON_JAX, reason="Keras' own optimisers cannot do it on JAX")
def test_keras_own_optimiser_on_tensorflow() -> None:
    model = network(keras.optimizers.SGD(0.1, 0.9, weight_decay=0.2))
    fit(model, Freeze("stem", first_epoch=1, until=3))
    np.testing.assert_allclose(weight(model, "stem"), by_hand([1, 0, 0, 1], decay=0.2), rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(not ON_JAX, reason="possible on TensorFlow")
@pytest.mark.parametrize("wrap", [lambda one: one, keras.optimizers.LossScaleOptimizer])
def test_keras_own_optimiser_on_jax_is_refused_before_the_first_step(wrap) -> None:
    model = network(wrap(keras.optimizers.SGD(0.1)))
    with pytest.raises(
        ValueError, match=r"On JAX, keras\.optimizers\.SGD cannot train a part.*such as `callbacks\.SGD`"
    ):
        fit(model, Freeze("stem"))
    np.testing.assert_array_equal(weight(model, "head"), [1, 1])


@pytest.mark.parametrize(
    ("optimizer", "freezes", "message"),
    [
        ({}, [("tail",)], "`layers` fits no layer with weights: 'tail'. There are: stem, body, head"),
        ({}, [("input",)], "`layers` fits no layer with weights"),
        ({"use_ema": True}, [("stem",)], "does not go together with `use_ema=True`.*WeightAverage"),
        ({}, [("stem|body|head",)], "Nothing is left to train"),
        ({}, [("stem|body",), ("head",)], "Nothing is left to train"),
    ],
)
def test_what_cannot_be_is_an_error_before_the_first_step(optimizer, freezes, message) -> None:
    model = network(SGD(0.1, **optimizer))
    with pytest.raises(ValueError, match=message):
        fit(model, *[Freeze(*arguments) for arguments in freezes])
    for name in ("stem", "body", "head"):
        np.testing.assert_array_equal(weight(model, name), [1, 1])


@pytest.mark.skipif(ON_JAX, reason="JAX builds the model before the callbacks begin")
def test_model_without_weights_is_refused() -> None:
    model = keras.Sequential([keras.layers.Dense(1, name="stem")])
    model.compile(SGD(0.1), total)
    with pytest.raises(ValueError, match=r"no weights yet.*keras\.Input"):
        fit(model, Freeze("stem"))


def test_several_optimisers_in_one_are_refused_before_the_first_step(multi_optimizer) -> None:
    one = keras.optimizers.SGD(0.1)
    model = network(multi_optimizer(lambda variable: one))
    with pytest.raises(ValueError, match="MultiOptimizer cannot train a part"):
        fit(model, Freeze("stem"))
    np.testing.assert_array_equal(weight(model, "head"), [1, 1])


def test_layer_that_is_not_trainable_anyway_is_named_as_such() -> None:
    model = network(SGD(0.1))
    model.get_layer("stem").trainable = False
    model.compile(SGD(0.1), total)
    with pytest.raises(ValueError, match="only layers that are not trainable anyway"):
        fit(model, Freeze("stem"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"until": 0}, "`until` must be above `first_epoch`.*first_epoch=0, until=0"),
        ({"until": 2, "first_epoch": 2}, "`until` must be above `first_epoch`"),
        ({"first_epoch": -1}, "at least 0"),
        ({"layers": "("}, "`layers` is no regular expression"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        Freeze(**{"layers": "stem", **arguments})
