"""Averages worked out by hand on one weight that falls by 0.5 at every update, from 4."""

import random

import keras
import numpy as np
import pytest

from callbacks.batch_statistics import estimate
from callbacks.checkpoint import Checkpoint
from callbacks.early_stopping import EarlyStopping
from callbacks.snapshots import read_snapshot
from callbacks.updates import updates_done
from callbacks.weight_average import WeightAverage


def falling(dtype: str = "float32", spe: int = 1, **optimizer: object) -> keras.Model:
    """The loss is the output, the input 1: the gradient is 1 and the learning rate 0.5."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, dtype=dtype)])
    model.set_weights([np.array([[4.0]])])
    model.compile(keras.optimizers.SGD(0.5, **optimizer), lambda y_true, y_pred: y_pred[:, 0], steps_per_execution=spe)
    return model


def fit(model: keras.Model, steps: int, epochs: int, *callbacks: keras.callbacks.Callback, **options: object):
    ones = np.ones((steps, 1), "float32")
    return model.fit(ones, ones, batch_size=1, epochs=epochs, verbose=0, callbacks=list(callbacks), **options)


def weight(model: keras.Model) -> float:
    return float(model.get_weights()[0].reshape(-1)[0])


@pytest.mark.parametrize(
    ("arguments", "steps", "average"),
    [
        ({"decay": 0.5, "warmup": False}, 3, 2.9375),  # 4, 3.75, 3.375, 2.9375
        ({"decay": 0.999}, 1, 39.5 / 11),  # keeps 2/11 at the first update
        ({"decay": 0.999}, 2, 3.147727272),  # and 3/12 at the second
        ({"decay": 0.2}, 2, 3.118181818),  # unless `decay` is less
        ({"decay": 0.5, "warmup": False, "every": 2}, 4, 2.3125),  # 0.25 * 4 + 0.75 * 3, 0.25 * 3.25 + 0.75 * 2
        ({"decay": 0.5, "warmup": False, "every": 2}, 3, 2.875),  # the third at the end of the epoch
        ({"decay": 0.999, "every": 2}, 2, 3 / 12 * 2 / 11 * 4 + (1 - 3 / 12 * 2 / 11) * 3),
    ],
)
def test_ema_of_a_falling_weight(arguments, steps, average) -> None:
    model, callback = falling(), WeightAverage(**arguments)
    fit(model, steps, 1, callback)
    assert weight(model) == pytest.approx(average, rel=1e-6)
    assert float(callback.raw_weights[0][0, 0]) == 4 - 0.5 * steps
    assert float(callback.averaged_weights[0][0, 0]) == weight(model)


def test_ema_begins_with_the_weights_before_its_first_epoch() -> None:
    model = falling()
    fit(model, 2, 2, WeightAverage(decay=0.5, warmup=False, start_epoch=1))
    assert weight(model) == 2.375  # 3, 2.75, 2.375


def test_every_number_of_a_large_weight_is_averaged() -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(70_000, use_bias=False)])
    model.set_weights([np.full((1, 70_000), 4.0)])
    model.compile(keras.optimizers.SGD(0.5), lambda y_true, y_pred: keras.ops.sum(y_pred, axis=-1))
    fit(model, 3, 1, WeightAverage(decay=0.5, warmup=False))
    np.testing.assert_array_equal(model.get_weights()[0], np.full((1, 70_000), 2.9375))


def test_swa_is_the_mean_of_the_epochs_ends() -> None:
    model = falling()
    fit(model, 2, 4, WeightAverage(decay=None, start_epoch=1))
    assert weight(model) == 1.0  # of 2, 1, 0


def test_gradient_accumulation_does_not_make_the_average_faster() -> None:
    model = falling(gradient_accumulation_steps=2)
    callback = WeightAverage(decay=0.5, warmup=False)
    fit(model, 6, 1, callback)
    assert (weight(model), callback.count) == (2.9375, 3)


def test_gradient_accumulation_across_the_end_of_an_epoch() -> None:
    model = falling(gradient_accumulation_steps=2)
    callback = WeightAverage(decay=0.5, warmup=False)
    fit(model, 3, 2, callback)
    assert (weight(model), callback.count) == (2.9375, 3)


def test_several_steps_at_once_decay_as_often_as_they_are() -> None:
    model = falling(spe=3)
    fit(model, 7, 1, WeightAverage(decay=0.5, warmup=False))
    # after the updates 3, 6 and 7: 4 / 8 + 2.5 * 7 / 8 = 2.6875; / 8 + 1 * 7 / 8; / 2 + 0.5 / 2
    assert weight(model) == 0.85546875


def test_optimisers_in_groups_count_their_updates(multi_optimizer) -> None:
    model = falling()
    parts = keras.optimizers.SGD(0.5)
    model.compile(multi_optimizer(lambda variable: parts), lambda y_true, y_pred: y_pred[:, 0])
    fit(model, 3, 1, WeightAverage(decay=0.5, warmup=False))
    assert weight(model) == 2.9375


def test_updates_of_optimisers_in_groups_are_those_of_the_one_that_moves_most_often(multi_optimizer) -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    kernels, biases = keras.optimizers.SGD(0.5), keras.optimizers.SGD(0.5, gradient_accumulation_steps=2)
    model.compile(multi_optimizer(lambda one: biases if "bias" in one.path else kernels), "mse")
    fit(model, 4, 1)
    assert updates_done(model.optimizer) == 4


def test_small_steps_survive_in_bfloat16() -> None:
    model, callback = falling("bfloat16"), WeightAverage(decay=0.999, warmup=False)
    fit(model, 1, 1, callback)
    assert float(callback.average[0][0, 0]) == pytest.approx(
        3.9995, abs=1e-6
    )  # bfloat16 has nothing between 3.98 and 4
    assert [array.dtype.name for array in callback.averaged_weights] == ["bfloat16"]
    assert float(callback.raw_weights[0][0, 0]) == 3.5


def test_mixed_precision_averages_the_float32_weights() -> None:
    model = falling("mixed_bfloat16")
    fit(model, 3, 1, WeightAverage(decay=0.5, warmup=False))
    assert weight(model) == 2.9375


def test_average_is_evaluated_after_every_epoch() -> None:
    model, ones = falling(), np.ones((2, 1), "float32")
    history = fit(model, 1, 3, WeightAverage(0.5, False, validation_data=(ones, ones)), validation_data=(ones, ones))
    assert history.history["average_val_loss"] == [3.75, 3.375, 2.9375]
    assert history.history["val_loss"] == [3.5, 3.0, 2.5]


def test_metric_of_several_numbers_is_evaluated_too() -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, "softmax")])
    model.compile("sgd", "categorical_crossentropy", metrics=[keras.metrics.F1Score()])
    x, y = np.ones((4, 1), "float32"), np.eye(2, dtype="float32")[[0, 1, 0, 0]]
    history = model.fit(x, y, verbose=0, callbacks=[WeightAverage(validation_data=(x, y))]).history
    assert np.shape(history["average_val_f1_score"]) == (1, 2)


@pytest.mark.parametrize("first", [0, 1])
def test_two_averages_of_one_fit_have_the_same_raw_weights(first) -> None:
    model, ema, swa = falling(), WeightAverage(0.5, False), WeightAverage(None, finish="raw")
    fit(model, 2, 2, *([ema, swa] if first == 0 else [swa, ema]))
    # raw 4, 3.5, 3, 2.5, 2: the mean of 3 and 2; the EMA 4, 3.75, 3.375, 2.9375, 2.46875
    assert [float(one.raw_weights[0][0, 0]) for one in (ema, swa)] == [2.0, 2.0]
    assert [float(one.averaged_weights[0][0, 0]) for one in (ema, swa)] == [2.46875, 2.5]
    assert weight(model) == 2.46875


def test_two_averages_cannot_both_end_in_the_model() -> None:
    model = falling()
    with pytest.raises(ValueError, match="all but one `finish='raw'`"):
        fit(model, 1, 1, WeightAverage(), WeightAverage(None))
    assert weight(model) == 4.0


def test_model_holds_the_raw_weights_at_the_end_if_asked() -> None:
    model, callback = falling(), WeightAverage(0.5, False, finish="raw")
    fit(model, 3, 1, callback)
    assert (weight(model), float(callback.averaged_weights[0][0, 0])) == (2.5, 2.9375)


def test_swapped_shows_the_average_and_puts_back_what_was_there() -> None:
    model, callback = falling(), WeightAverage(0.5, False, finish="raw")
    with pytest.raises(ValueError, match="no average yet"), callback.swapped():
        pass
    fit(model, 3, 1, callback)
    with pytest.raises(RuntimeError, match="inside"), callback.swapped():
        assert weight(model) == 2.9375
        raise RuntimeError("inside")
    assert weight(model) == 2.5


def test_file_holds_average_and_raw_weights_of_the_epoch(tmp_path) -> None:
    fit(falling(), 1, 2, WeightAverage(0.5, False, path=tmp_path / "average.npz"))
    (average,), values = read_snapshot(tmp_path / "average.npz")
    assert (float(average[0, 0]), float(values["raw"][0][0, 0]), values["epoch"]) == (3.375, 3.0, 1)


def test_second_fit_begins_a_new_average() -> None:
    model, callback = falling(), WeightAverage(0.5, False)
    fit(model, 3, 1, callback)
    model.set_weights([np.array([[4.0]])])
    fit(model, 1, 1, callback)
    assert (weight(model), callback.count) == (3.75, 1)


def test_average_not_begun_leaves_the_weights_and_says_so() -> None:
    model = falling()
    with pytest.warns(UserWarning, match="before epoch 5"):
        fit(model, 1, 2, WeightAverage(start_epoch=5))
    assert weight(model) == 3.0


def test_mean_of_no_integers_and_seeds() -> None:
    class Counter(keras.layers.Layer):
        def build(self, shape) -> None:
            self.count = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)

        def call(self, inputs):
            self.count.assign(self.count + 1)
            return inputs

    model = keras.Sequential([keras.Input((1,)), Counter(), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    callback = WeightAverage(decay=0.5, warmup=False)
    fit(model, 4, 1, callback)
    assert [array.shape for array in callback.average] == [(1, 1), (1,)]
    assert int(model.get_weights()[0]) == 4


# Networks with more in them


def network(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(6)(inputs))
    x = keras.layers.Dropout(0.5)(keras.layers.ReLU()(x))
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def data(count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(count, 4)).astype("float32"), generator.normal(size=(count, 1)).astype("float32")


def train(model: keras.Model, callbacks: list, epochs: int = 3, first: int = 0) -> None:
    x, y = data()
    model.fit(
        x,
        y,
        batch_size=8,
        shuffle=False,
        epochs=epochs,
        initial_epoch=first,
        validation_data=(x, y),
        verbose=0,
        callbacks=callbacks,
    )


def assert_equal(arrays: list[np.ndarray], others: list[np.ndarray]) -> None:
    for one, other in zip(arrays, others, strict=True):
        np.testing.assert_array_equal(one, other)


def state_of(model: keras.Model) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(one)) for one in [*model.variables, *model.optimizer.variables]]


@pytest.mark.parametrize("decay", [0.9, None])
def test_training_is_the_same_with_and_without_it(tmp_path, decay) -> None:
    """Weights, statistics, dropout's seeds and Adam's slots, though the average is evaluated and re-estimated."""
    alone, watched = network(), network()
    train(alone, [])
    options = {"batch_norm": "recompute", "batches": data()[0], "validation_data": data(), "finish": "raw"}
    train(watched, [WeightAverage(decay, path=tmp_path / "average.npz", **options)])
    assert_equal(state_of(alone), state_of(watched))


class Raw(keras.callbacks.Callback):
    """All weights after every batch."""

    def on_train_begin(self, logs=None) -> None:
        self.rows = [[np.array(array) for array in self.model.get_weights()]]

    def on_train_batch_end(self, batch, logs=None) -> None:
        self.rows.append([np.array(array) for array in self.model.get_weights()])


def test_all_weights_and_moving_statistics_are_averaged() -> None:
    model, raw = network(), Raw()
    train(model, [raw, WeightAverage(decay=0.75, warmup=False)])
    expected = [array.astype("float64") for array in raw.rows[0]]
    for row in raw.rows[1:]:
        expected = [0.75 * average + 0.25 * array for average, array in zip(expected, row, strict=True)]
    for array, other in zip(expected, model.get_weights(), strict=True):
        np.testing.assert_allclose(other, array, rtol=1e-5, atol=1e-7)


def test_kept_statistics_are_the_raw_ones() -> None:
    model, callback = network(), WeightAverage(0.9, batch_norm="keep")
    train(model, [callback])
    same = [np.array_equal(one, other) for one, other in zip(callback.raw_weights, model.get_weights(), strict=True)]
    assert same == [False, False, False, False, True, True, False, False]


def test_recomputed_statistics_are_those_of_the_averaged_weights() -> None:
    x = data()[0]
    model = network()
    batches = [(x[:16], None), (x[16:20], None)]
    train(model, [WeightAverage(decay=None, batch_norm="recompute", batches=batches, validation_data=data())])
    kernel, bias, _, _, mean, variance, *_ = (array.astype("float64") for array in model.get_weights())
    parts = [x[:16] @ kernel + bias, x[16:20] @ kernel + bias]
    # 16 examples weigh four times as much as 4.
    np.testing.assert_allclose(mean, 0.8 * parts[0].mean(0) + 0.2 * parts[1].mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(variance, 0.8 * parts[0].var(0) + 0.2 * parts[1].var(0), rtol=1e-4, atol=1e-6)
    layer = next(layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
    assert (layer.momentum, "call" in vars(layer)) == (0.99, False)


def test_statistics_of_a_layer_used_twice_are_the_mean_over_both_uses() -> None:
    inputs, norm = keras.Input((1,)), keras.layers.BatchNormalization()
    outputs = norm(inputs) + norm(inputs + 2.0)
    model = keras.Model(inputs, keras.layers.Dense(1)(outputs))
    model.compile("sgd", "mse")
    x = np.array([[1.0], [3.0], [5.0], [11.0]], "float32")
    model.fit(x, x, verbose=0, callbacks=[WeightAverage(0.9, batch_norm="recompute", batches=x, batch_size=2)])
    # means 2, 4 and 8, 10; variances 1, 1 and 9, 9
    statistics = [keras.ops.convert_to_numpy(norm.moving_mean), keras.ops.convert_to_numpy(norm.moving_variance)]
    assert [float(one[0]) for one in statistics] == pytest.approx([6.0, 5.0])


def test_random_numbers_drawn_for_the_statistics_are_given_back() -> None:
    class Shuffled:
        def __iter__(self):
            yield data()[0][[random.randrange(24) for _ in range(8)]] + np.random.normal()

    model = network()
    before = random.getstate(), np.random.get_state()[1].copy()
    estimate(model, Shuffled())
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


def test_frozen_statistics_are_not_estimated_anew() -> None:
    model = network()
    norm = model.layers[2]
    norm.trainable = False
    model.compile("sgd", "mse")
    train(model, [WeightAverage(0.9, batch_norm="recompute", batches=data()[0])])
    assert_equal([keras.ops.convert_to_numpy(norm.moving_mean)], [np.zeros(6)])


@pytest.mark.parametrize("decay", [0.9, None])
def test_resumed_training_ends_with_the_same_average(tmp_path, decay) -> None:
    results = []
    for parts in ([4], [2, 4]):
        path = tmp_path / f"{len(parts)}.npz"
        for epochs in parts:
            model, average = network(), WeightAverage(decay, every=1 if decay is None else 2)
            stopping = EarlyStopping("val_loss", average=average)
            checkpoint = Checkpoint(path, {"average": average, "stopping": stopping})
            first = checkpoint.restore(model).epoch
            train(model, [average, stopping, checkpoint], epochs, first)
        results.append([*average.raw_weights, *average.averaged_weights, *model.get_weights()])
    assert_equal(*results)


def test_state_does_not_change_with_the_training() -> None:
    model, callback = falling(), WeightAverage(0.5, False)
    fit(model, 1, 1, callback)
    state = callback.get_state()
    callback.set_state(state)
    fit(model, 1, 1, callback)
    assert (float(state["average"][0][0, 0]), state["count"]) == (3.75, 1)


def test_state_taken_in_the_middle_of_a_training_stays_as_it_was() -> None:
    callback, states = WeightAverage(0.5, False), []
    take = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: states.append(callback.get_state()))
    fit(falling(), 1, 3, callback, take)
    assert [float(state["average"][0][0, 0]) for state in states] == [3.75, 3.375, 2.9375]


def test_state_of_another_network_is_refused() -> None:
    model, callback = falling(), WeightAverage()
    fit(model, 1, 1, callback)
    callback.set_state(callback.get_state())
    with pytest.raises(ValueError, match="another network: it has 1 arrays, 8 are needed"):
        train(network(), [callback])


# Together with EarlyStopping


def table(*values: float):
    rest = list(values)
    return lambda logs: rest.pop(0)


@pytest.mark.parametrize("first", ["average", "stopping"])
@pytest.mark.parametrize("finish", ["average", "raw"])
def test_best_average_wins_in_either_order(tmp_path, first, finish) -> None:
    model, average = falling(), WeightAverage(0.5, False, finish=finish)
    stopping = EarlyStopping(table(0.1, 0.9, 0.5, 0.5), "max", 2, average=average, path=tmp_path / "best.npz")
    fit(model, 1, 9, *([average, stopping] if first == "average" else [stopping, average]))
    assert weight(model) == 3.375  # averages 3.75, 3.375, 2.9375, 2.46875
    assert float(read_snapshot(tmp_path / "best.npz")[0][0][0, 0]) == 3.375
    assert (stopping.best_epoch, stopping.stopped_epoch) == (1, 3)
    assert float(average.raw_weights[0][0, 0]) == 2.0
    assert float(average.averaged_weights[0][0, 0]) == 2.46875


@pytest.mark.parametrize("first", ["average", "stopping"])
def test_scores_of_the_average_can_be_watched_in_either_order(first) -> None:
    ones = np.ones((1, 1), "float32")
    model, average = falling(), WeightAverage(0.5, False, validation_data=(ones, ones))
    stopping = EarlyStopping("average_val_loss", "max", 1, average=average)
    history = fit(model, 1, 5, *([average, stopping] if first == "average" else [stopping, average]))
    assert history.history["average_val_loss"] == [3.75, 3.375]
    assert (weight(model), stopping.best) == (3.75, 3.75)


def test_epochs_without_an_average_do_not_count() -> None:
    model, average = falling(), WeightAverage(None, start_epoch=2)
    stopping = EarlyStopping(table(0.5, 0.9), "max", average=average)
    fit(model, 1, 4, stopping, average)
    assert (stopping.best_epoch, weight(model)) == (3, 2.25)  # the mean of 2.5 and 2


def test_forgotten_average_is_an_error_before_the_first_step() -> None:
    model = falling()
    with pytest.raises(ValueError, match="`average=`"):
        fit(model, 1, 1, EarlyStopping(table(0.5), "max"), WeightAverage())
    assert weight(model) == 4.0
    fit(model, 1, 1, EarlyStopping(table(0.5), "max"), WeightAverage(finish="raw"))
    with pytest.raises(ValueError, match="list of callbacks too"):
        fit(model, 1, 1, EarlyStopping(table(0.5), "max", average=WeightAverage()))


def test_forgotten_average_is_found_beside_others() -> None:
    raw = [WeightAverage(None, finish="raw") for _ in range(8)]
    with pytest.raises(ValueError, match="`average=`"):
        fit(falling(), 1, 1, EarlyStopping(table(0.5), "max"), *raw[:4], WeightAverage(), *raw[4:])


def test_average_of_an_aborted_fit_does_not_disturb_the_next() -> None:
    model, left_over = falling(), WeightAverage()
    with pytest.raises(IndexError):
        fit(model, 1, 2, left_over, EarlyStopping(table(0.5), "max", average=left_over))
    fit(model, 1, 1, EarlyStopping(table(0.5), "max"))
    assert left_over.count == 2


@pytest.mark.parametrize("callback", [WeightAverage(), EarlyStopping("loss")])
def test_optimisers_own_average_is_refused(callback) -> None:
    model = falling(use_ema=True)
    with pytest.raises(ValueError, match="use_ema=True"):
        fit(model, 1, 1, callback)


@pytest.mark.parametrize("callback", [WeightAverage(), EarlyStopping("loss")])
def test_average_of_one_optimiser_of_several_is_refused(callback, multi_optimizer) -> None:
    model, part = falling(), keras.optimizers.SGD(0.5, use_ema=True)
    model.compile(multi_optimizer(lambda variable: part), "mse")
    with pytest.raises(ValueError, match="use_ema=True"):
        fit(model, 1, 1, callback)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decay": 1.0}, r"`decay` must lie in \(0, 1\)"),
        ({"start_epoch": -1}, "`start_epoch` must be at least 0"),
        ({"every": 0}, "`every` must be at least 1"),
        ({"decay": None, "every": 2}, "1 with `decay=None`"),
        ({"batch_norm": "none"}, "'recompute' or 'keep'"),
        ({"batch_norm": "recompute"}, "need each other"),
        ({"batches": np.zeros((2, 1))}, "need each other"),
        ({"batch_norm": "recompute", "batches": iter([1])}, "several times"),
        ({"finish": "best"}, "'average' or 'raw'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        WeightAverage(**arguments)
