"""Speed from a clock that the test moves."""

import keras
import numpy as np
import pytest

from callbacks.throughput import Throughput


class Clock:
    """Stands still until it is told to go on."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Sizes:
    """A batch size that grows with the epoch."""

    def size_at(self, epoch: int) -> int:
        return 8 * (epoch + 1)


def run(throughput: Throughput, clock: Clock, epoch: int, executions, steps: int | None, validation: float = 0.0):
    """`executions`: (seconds before it, first batch, last batch, seconds inside it)."""
    throughput.set_params({"steps": steps})
    throughput.on_epoch_begin(epoch)
    for before, first, last, inside in executions:
        clock.now += before
        throughput.on_train_batch_begin(first)
        clock.now += inside
        throughput.on_train_batch_end(last)
    clock.now += validation
    logs = {"loss": 1.0}
    throughput.on_epoch_end(epoch, logs)
    return logs


def test_compilation_is_apart_and_validation_does_not_count() -> None:
    clock = Clock()
    throughput = Throughput(batch_size=32, clock=clock)
    throughput.on_train_begin()
    logs = run(throughput, clock, 0, [(1.0, 0, 0, 20.0), (0.5, 1, 1, 2.0), (0.5, 2, 2, 4.0)], 3, validation=7.0)
    # 28 seconds in all, 20 of them the first step: 2 steps of 32 examples in 8 seconds, 2 of these between steps
    assert logs == {
        "loss": 1.0,
        "seconds": 28.0,
        "compile_seconds": 20.0,
        "examples_per_second": 8.0,
        "between_steps": 0.25,
    }
    logs = run(throughput, clock, 1, [(0.0, 0, 0, 1.0), (2.0, 1, 1, 1.0)], 2)
    assert logs == {"loss": 1.0, "seconds": 4.0, "examples_per_second": 16.0, "between_steps": 0.5}


def test_several_steps_in_an_execution_and_an_incomplete_last_one() -> None:
    """10 batches, 4 in an execution: Keras numbers the last ones 3, 7, 11. After compiling, 6 steps in 3 seconds."""
    clock = Clock()
    throughput = Throughput(clock=clock)
    throughput.on_train_begin()
    logs = run(throughput, clock, 0, [(0.0, 0, 3, 9.0), (0.0, 4, 7, 2.0), (0.0, 8, 11, 1.0)], 10)
    assert (logs["steps_per_second"], logs["compile_seconds"], logs["seconds"]) == (2.0, 9.0, 12.0)


def test_speed_is_not_a_number_where_only_the_first_execution_ran() -> None:
    clock = Clock()
    throughput = Throughput(clock=clock)
    throughput.on_train_begin()
    logs = run(throughput, clock, 0, [(0.0, 0, 3, 9.0)], 4)
    assert np.isnan(logs["steps_per_second"])
    assert np.isnan(logs["between_steps"])


def test_growing_batches_count_with_the_size_of_their_epoch() -> None:
    clock = Clock()
    throughput = Throughput(Sizes(), clock)
    throughput.on_train_begin()
    run(throughput, clock, 0, [(0.0, 0, 0, 1.0)], 1)
    assert run(throughput, clock, 2, [(0.0, 0, 0, 2.0)], 1)["examples_per_second"] == 12.0  # 24 examples in 2 seconds


def test_entries_reach_the_history_and_every_fit_compiles_anew() -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=2)
    throughput = Throughput(batch_size=4)
    for _ in range(2):
        data = np.ones((18, 2)), np.ones((18, 1))
        history = model.fit(*data, batch_size=4, epochs=2, verbose=0, validation_data=data, callbacks=[throughput])
        assert {"loss", "val_loss", "seconds", "examples_per_second", "between_steps"} <= set(history.history)
        assert len(history.history["compile_seconds"]) == 1
        assert len(history.history["examples_per_second"]) == 2
        assert min(history.history["examples_per_second"]) > 0


def test_refuses_a_batch_of_no_examples() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Throughput(batch_size=0)
