"""Growing batches: which size when, and that callbacks see one training."""

import keras
import numpy as np
import pytest

from callbacks.batch_size import BatchSizeSchedule, linear_scaling, square_root_scaling
from callbacks.early_stopping import EarlyStopping
from callbacks.steps import Steps
from callbacks.throughput import Throughput

generator = np.random.default_rng(0)
X, Y = generator.normal(size=(24, 3)).astype("float32"), generator.normal(size=(24, 1)).astype("float32")


class Counting(keras.layers.Layer):
    """Counts how often Python runs it: once for each trace."""

    calls = 0

    def call(self, x):
        self.calls += 1
        return x


def build(**options) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), Counting(name="counting"), keras.layers.Dense(1)])
    model.compile(options.pop("optimizer", None) or keras.optimizers.SGD(0.01, momentum=0.9), "mse", **options)
    return model


class Watch(keras.callbacks.Callback):
    """Writes down every hook."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.events: list = []
        self.stop_after = stop_after

    def on_train_begin(self, logs=None) -> None:
        self.events.append("begin")

    def on_train_end(self, logs=None) -> None:
        self.events.append(("end", sorted(logs)))

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self.events.append((epoch, self.params["steps"], self.params["epochs"]))
        self.batches = 0

    def on_train_batch_end(self, batch, logs=None) -> None:
        self.batches += 1

    def on_epoch_end(self, epoch, logs=None) -> None:
        assert self.batches == self.params["steps"]
        if epoch == self.stop_after:
            self.model.stop_training = True


class Batches(keras.utils.PyDataset):
    """The examples in their order, in batches of a size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def __len__(self) -> int:
        return -(-len(X) // self.size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(index * self.size, (index + 1) * self.size)
        return X[part], Y[part]


def endless(size: int):
    while True:
        for begin in range(0, len(X), size):
            yield X[begin : begin + size], Y[begin : begin + size]


GROWING = BatchSizeSchedule({0: 4, 2: 8, 3: 12})


def weights(model: keras.Model) -> list[np.ndarray]:
    variables = [*model.variables, *model.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def test_size_of_every_epoch() -> None:
    assert [GROWING.size_at(epoch) for epoch in range(6)] == [4, 4, 8, 12, 12, 12]
    assert GROWING.phases(5) == [(0, 2, 4), (2, 3, 8), (3, 5, 12)]
    assert GROWING.phases(2, 1) == [(1, 2, 4)]
    assert BatchSizeSchedule({3: 16, 0: 4, 1: 4}).phases(4) == [(0, 3, 4), (3, 4, 16)]


def test_epochs_become_steps_with_the_size_of_each() -> None:
    """24 examples: 6, 6, 3, 2, 2 steps."""
    assert [Steps(24, GROWING).before(epoch) for epoch in range(6)] == [0, 6, 12, 15, 17, 19]


def test_batch_grows_where_the_rate_would_fall() -> None:
    """Step decay of the paper's kind, by 5 twice: 128, 640, 3200; the rate has nothing to do."""
    rates = [0.1] * 3 + [0.02] * 2 + [0.004]
    schedule = BatchSizeSchedule.instead_of_decay(128, rates)
    assert schedule.phases(8) == [(0, 3, 128), (3, 5, 640), (5, 8, 3200)]
    assert [round(schedule.rate_factor_at(epoch), 12) for epoch in range(8)] == [1.0] * 8


def test_cap_and_rounding_leave_the_rest_to_the_rate() -> None:
    """At 0.02 the size would be 500 and at 0.004 2500; 0.03 asks for 333.3, of which 336 is the multiple of 16."""
    rates = {0: 0.1, 1: 0.03, 2: 0.02, 3: 0.004, 4: 0.0}
    schedule = BatchSizeSchedule.instead_of_decay(100, rates.__getitem__, maximum=1000, epochs=5, multiple_of=16)
    assert [schedule.size_at(epoch) for epoch in range(5)] == [100, 336, 496, 992, 992]
    factors = [schedule.rate_factor_at(epoch) for epoch in range(5)]
    np.testing.assert_allclose(factors, [1.0, 1.008, 0.992, 0.3968, 0.0], rtol=1e-9)


def test_warm_up_stays_one_of_the_rate() -> None:
    schedule = BatchSizeSchedule.instead_of_decay(32, [0.1, 0.2, 0.4, 0.4, 0.1])
    assert [schedule.size_at(epoch) for epoch in range(5)] == [32, 32, 32, 32, 128]
    assert [schedule.rate_factor_at(epoch) for epoch in range(5)] == [0.25, 0.5, 1.0, 1.0, 1.0]


def test_scaling_rules() -> None:
    assert linear_scaling(0.1, 256, 8192) == pytest.approx(3.2)
    assert square_root_scaling(0.1, 256, 8192) == pytest.approx(0.1 * 5.656854249492381)
    assert linear_scaling(0.4, 256, 64) == pytest.approx(0.1)


@pytest.mark.parametrize("execution", [1, 4])
def test_weights_are_those_of_separate_fits(execution) -> None:
    """The same epochs, each trained by `fit` alone: momentum and step count go on."""
    options = {"shuffle": False, "verbose": 0}
    one, other = build(steps_per_execution=execution), build(steps_per_execution=execution)
    GROWING.fit(one, (X, Y), 5, **options)
    for epoch, size in enumerate([4, 4, 8, 12, 12]):
        other.fit(X, Y, batch_size=size, initial_epoch=epoch, epochs=epoch + 1, **options)
    for first, second in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(first, second)
    assert int(keras.ops.convert_to_numpy(one.optimizer.iterations)) == 19


@pytest.mark.parametrize("kind", ["arrays", "function of arrays", "data set", "endless"])
def test_callbacks_see_one_training(kind) -> None:
    watch = Watch()
    data, steps = {
        "arrays": ((X, Y), None),
        "function of arrays": (lambda size: (X, Y, np.ones(len(X))), None),
        "data set": (Batches, None),
        "endless": (endless, lambda size: 24 // size),
    }[kind]
    history = GROWING.fit(build(), data, 5, steps, callbacks=[watch], validation_data=(X, Y), verbose=0)
    epochs = [(0, 6, 5), (1, 6, 5), (2, 3, 5), (3, 2, 5), (4, 2, 5)]
    assert watch.events == ["begin", *epochs, ("end", ["loss", "val_loss"])]
    assert history.epoch == [0, 1, 2, 3, 4]
    assert len(history.history["val_loss"]) == 5


def test_steps_are_those_of_the_part_that_is_not_for_validation() -> None:
    watch = Watch()
    GROWING.fit(build(), (X, Y), 3, callbacks=[watch], validation_split=0.25, verbose=0)
    assert watch.events[1:-1] == [(0, 5, 3), (1, 5, 3), (2, 3, 3)]  # of 18 examples


def test_end_of_the_training_gets_the_logs_of_its_last_epoch() -> None:
    end = []
    watch = keras.callbacks.LambdaCallback(on_train_end=lambda logs: end.append(logs["loss"]))
    history = GROWING.fit(build(), (X, Y), 5, callbacks=[watch], verbose=0).history
    assert end == history["loss"][-1:]


def test_training_begins_in_the_middle_of_a_phase() -> None:
    watch = Watch()
    history = GROWING.fit(build(), (X, Y), 4, callbacks=watch, initial_epoch=1, verbose=0)
    assert watch.events == ["begin", (1, 6, 4), (2, 3, 4), (3, 2, 4), ("end", ["loss"])]
    assert history.epoch == [1, 2, 3]


@pytest.mark.parametrize(("stop_after", "epochs"), [(0, [0]), (1, [0, 1]), (2, [0, 1, 2]), (3, [0, 1, 2, 3])])
def test_stopping_in_one_phase_ends_the_training(stop_after, epochs) -> None:
    watch = Watch(stop_after)
    history = GROWING.fit(build(), (X, Y), 5, callbacks=[watch], verbose=0)
    assert history.epoch == epochs
    assert watch.events[-1] == ("end", ["loss"])
    assert len(watch.events) == len(epochs) + 2


def test_patience_counts_across_phases_and_the_best_weights_return_at_the_end() -> None:
    """The values fall once and then rise: with patience 3 training ends after epoch 4, with the weights of epoch 1."""
    values = iter([3.0, 1.0, 2.0, 2.0, 2.0, 0.0])
    kept: list[np.ndarray] = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(model.get_weights()[0].copy()))
    stopping = EarlyStopping(lambda logs: next(values), mode="min", patience=3)
    model = build()
    history = GROWING.fit(model, (X, Y), 9, callbacks=[watch, stopping], verbose=0)
    assert history.epoch == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(model.get_weights()[0], kept[1])


def test_foreign_callbacks_keep_what_they_know() -> None:
    """A plateau of 3 epochs lies across two phases; the backup of a training before says where to go on."""
    model = build(optimizer=keras.optimizers.SGD(0.0))
    plateau = keras.callbacks.ReduceLROnPlateau("loss", patience=3, min_delta=1.0)
    model.optimizer.learning_rate = 0.0009765625
    GROWING.fit(model, (X, Y), 5, callbacks=[plateau], verbose=0)
    rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
    assert rate == pytest.approx(0.00009765625)


@pytest.mark.parametrize("killed", [1, 2, 3])
def test_backup_of_keras_goes_on_where_it_was(tmp_path, killed) -> None:
    def training(model: keras.Model, *callbacks) -> list[int]:
        return GROWING.fit(model, (X, Y), 5, callbacks=list(callbacks), verbose=0, shuffle=False).epoch

    def kill(epoch, logs=None) -> None:
        if epoch == killed:
            raise KeyboardInterrupt

    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
    with pytest.raises(KeyboardInterrupt):
        training(build(), backup, keras.callbacks.LambdaCallback(on_epoch_begin=kill))
    resumed, whole = build(), build()
    assert training(resumed, backup) == list(range(killed, 5))
    training(whole)
    for first, second in zip(weights(resumed), weights(whole), strict=True):
        np.testing.assert_array_equal(first, second)
    assert training(resumed) == [0, 1, 2, 3, 4]


def test_an_error_passes_through_without_an_end() -> None:
    watch = Watch()

    def fail(epoch, logs=None) -> None:
        if epoch == 2:
            raise RuntimeError("in epoch 2")

    with pytest.raises(RuntimeError, match="in epoch 2"):
        GROWING.fit(build(), (X, Y), 5, callbacks=[watch, keras.callbacks.LambdaCallback(on_epoch_end=fail)], verbose=0)
    assert watch.events == ["begin", (0, 6, 5), (1, 6, 5), (2, 3, 5)]


def test_data_can_learn_the_epoch_in_which_they_begin() -> None:
    seen = []

    def make_data(size: int, first_epoch: int) -> Batches:
        seen.append((size, first_epoch))
        return Batches(size)

    GROWING.fit(build(), make_data, 5, initial_epoch=1, verbose=0)
    assert seen == [(4, 1), (8, 2), (12, 3)]


def test_finished_training_that_is_resumed_only_ends() -> None:
    watch = Watch()
    assert GROWING.fit(build(), (X, Y), 5, callbacks=[watch], initial_epoch=5, verbose=0).epoch == []
    assert [event[0] for event in watch.events] == ["b", "end"]


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX compiles once for every shape")
def test_only_the_first_change_of_the_size_compiles() -> None:
    """TensorFlow compiles for the first size, and then once for any size."""
    model = build()
    GROWING.fit(model, (X, Y), 2, verbose=0)
    calls = model.get_layer("counting").calls
    GROWING.fit(model, (X, Y), 5, verbose=0)
    assert model.get_layer("counting").calls == calls + 1
    BatchSizeSchedule({0: 2, 1: 3, 2: 6, 3: 24}).fit(model, (X, Y), 4, verbose=0)
    assert model.get_layer("counting").calls == calls + 1


def test_speed_counts_with_the_size_of_the_epoch() -> None:
    history = GROWING.fit(build(), (X, Y), 5, callbacks=[Throughput(GROWING)], verbose=0).history
    assert len(history["compile_seconds"]) == 1
    assert len(history["examples_per_second"]) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"make_data": Batches(4)}, "function of the batch size"),
        ({"steps_per_epoch": 6}, "larger batches are fewer"),
        ({"batch_size": 6}, "comes from the schedule"),
        ({"callbacks": keras.callbacks.CallbackList()}, "list of callbacks"),
    ],
)
def test_fit_refuses_what_cannot_grow(arguments, message) -> None:
    arguments = {"make_data": (X, Y), "epochs": 5, **arguments}
    with pytest.raises(ValueError, match=message):
        GROWING.fit(build(), **arguments)


def test_fit_refuses_averaged_weights_and_models_that_are_not_compiled() -> None:
    with pytest.raises(ValueError, match="use_ema"):
        GROWING.fit(build(optimizer=keras.optimizers.SGD(0.1, use_ema=True)), (X, Y), 5)
    with pytest.raises(ValueError, match="not compiled"):
        GROWING.fit(keras.Sequential([keras.Input((3,))]), (X, Y), 5)


def test_fit_refuses_averaged_weights_of_one_optimiser_of_several(multi_optimizer) -> None:
    part = keras.optimizers.SGD(0.1, use_ema=True)
    with pytest.raises(ValueError, match="use_ema"):
        GROWING.fit(build(optimizer=multi_optimizer(lambda variable: part)), (X, Y), 5)


@pytest.mark.parametrize("data", [X, {"a": X}, [X, Y]], ids=["array", "dict", "list"])
def test_data_that_keras_would_divide_by_its_own_size_are_refused(data) -> None:
    with pytest.raises(ValueError, match="must return a data set, or a tuple of arrays"):
        GROWING.fit(build(), lambda size: data, 5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BatchSizeSchedule({1: 128}), "size of epoch 0"),
        (lambda: BatchSizeSchedule({0: 0}), "sizes from 1 on"),
        (lambda: BatchSizeSchedule({0: 4, -1: 2}), "epochs from 0 on"),
        (lambda: BatchSizeSchedule.instead_of_decay(128, [0.1, 0.0]), "Give a `maximum`"),
        (lambda: BatchSizeSchedule.instead_of_decay(128, [0.1], maximum=64), "at least `batch_size`, 128"),
        (lambda: BatchSizeSchedule.instead_of_decay(128, lambda epoch: 0.1), "`epochs` must be given"),
        (lambda: BatchSizeSchedule.instead_of_decay(128, []), "one above 0"),
        (lambda: linear_scaling(0.1, 0, 4), "`batch_size` must be a whole number"),
    ],
)
def test_refuses_wrong_numbers(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
