"""Real SIGINTs: the best weights are put back, and the interrupt still goes where it always went."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest

from callbacks.early_stopping import EarlyStopping
from callbacks.interrupt import Interrupt
from callbacks.weight_average import WeightAverage

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def handler():
    """Python's own handler, whatever a test leaves behind."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Kick(keras.callbacks.Callback):
    """Ctrl-C, some times, inside one hook of one epoch; counts how often the hook is called after that."""

    def __init__(self, hook: str, epoch: int = 2, times: int = 1) -> None:
        super().__init__()
        self.epoch, self.times, self.survived, self.steps = epoch, times, 0, 0
        setattr(self, hook, self.kick)

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self.now = epoch

    def kick(self, *_, **__) -> None:
        if self.times == 0:
            self.steps += 1
        elif self.now == self.epoch:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)
                self.survived += 1
            self.times = 0


def falling() -> keras.Model:
    """One weight, 4 at first, that loses 0.5 a step."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[4.0]])])
    model.compile(keras.optimizers.SGD(0.5), lambda y_true, y_pred: y_pred[:, 0])
    return model


def fit(model: keras.Model, *callbacks: keras.callbacks.Callback, epochs: int = 4) -> None:
    ones = np.ones((2, 1), "float32")
    model.fit(ones, ones, 1, epochs, 0, list(callbacks), validation_data=(ones, ones), validation_batch_size=1)


def weight(model: keras.Model) -> float:
    return float(model.get_weights()[0][0, 0])


def best_is_epoch_0() -> EarlyStopping:
    return EarlyStopping(lambda logs: logs["val_loss"], "max")


@pytest.mark.parametrize("hook", ["on_train_batch_begin", "on_train_batch_end", "on_test_batch_begin", "on_epoch_end"])
@pytest.mark.parametrize("first", ["kick", "stopping"])
def test_first_interrupt_puts_the_best_weights_back(hook, first) -> None:
    model, kick, stopping = falling(), Kick(hook), best_is_epoch_0()
    with pytest.raises(KeyboardInterrupt):
        fit(model, *([kick, stopping] if first == "kick" else [stopping, kick]))
    assert (weight(model), stopping.best_epoch, kick.survived) == (3.0, 0, 1)
    assert kick.steps == 0  # not one step more, neither of training nor of validation
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_training_can_go_on_after_an_interrupt() -> None:
    """On JAX the variables live elsewhere during an epoch: they must not come back over the best ones later."""
    model = falling()
    with pytest.raises(KeyboardInterrupt):
        fit(model, Kick("on_train_batch_begin"), best_is_epoch_0())
    fit(model, epochs=1)
    assert weight(model) == 2.0
    assert float(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 7


def test_interrupt_with_an_average_puts_the_best_average_back() -> None:
    model, average = falling(), WeightAverage(0.5, warmup=False)
    with pytest.raises(KeyboardInterrupt):
        fit(model, Kick("on_train_batch_begin"), EarlyStopping("val_loss", "max", average=average), average)
    assert weight(model) == 3.375  # 4, 3.75, 3.375 at the end of epoch 0


def test_interrupt_before_the_first_epoch_has_ended_leaves_the_weights() -> None:
    model = falling()
    with pytest.raises(KeyboardInterrupt):
        fit(model, Kick("on_train_batch_begin", epoch=0), best_is_epoch_0())
    assert weight(model) == 3.5


def test_second_interrupt_acts_at_once() -> None:
    kick = Kick("on_train_batch_begin", times=2)
    with pytest.raises(KeyboardInterrupt):
        fit(falling(), kick, best_is_epoch_0())
    assert kick.survived == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_undisturbed_fit_gives_the_handler_back() -> None:
    fit(falling(), best_is_epoch_0())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def broken_fit(model: keras.Model, *callbacks: keras.callbacks.Callback) -> None:
    def fail(*_) -> None:
        raise RuntimeError("no space left")

    with pytest.raises(RuntimeError, match="no space left"):
        fit(model, *callbacks, keras.callbacks.LambdaCallback(on_epoch_end=fail))


def test_interrupt_after_an_aborted_fit_acts_at_once() -> None:
    broken_fit(falling(), best_is_epoch_0())
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handlers_of_many_aborted_fits_do_not_go_round_in_circles() -> None:
    one, other = best_is_epoch_0(), best_is_epoch_0()
    for stopping in (one, other, one, other):
        broken_fit(falling(), stopping)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("same", [True, False])
def test_interrupt_works_in_the_fit_after_an_aborted_one(same) -> None:
    model, stopping = falling(), best_is_epoch_0()
    broken_fit(model, stopping)
    stopping = stopping if same else best_is_epoch_0()
    with pytest.raises(KeyboardInterrupt):
        fit(model, Kick("on_train_batch_begin"), stopping)
    assert weight(model) == 2.0


def test_interrupt_acts_at_once_in_the_next_fit_without_early_stopping() -> None:
    broken_fit(falling(), best_is_epoch_0())
    kick = Kick("on_train_batch_begin")
    with pytest.raises(KeyboardInterrupt):
        fit(falling(), kick)
    assert kick.survived == 0


def test_callbacks_and_fits_inside_each_other_end_at_one_interrupt() -> None:
    outer, inner, kick = falling(), falling(), Kick("on_train_batch_begin")
    nested = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: fit(inner, kick, best_is_epoch_0(), best_is_epoch_0())
    )
    with pytest.raises(KeyboardInterrupt):
        fit(outer, best_is_epoch_0(), nested)
    assert (weight(inner), weight(outer)) == (3.0, 3.0)
    assert kick.steps == 0


def test_own_handler_that_returns_lets_training_go_on() -> None:
    calls = []
    signal.signal(signal.SIGINT, lambda *_: calls.append(1))
    model, stopping = falling(), best_is_epoch_0()
    fit(model, Kick("on_train_batch_begin", times=1), stopping)
    assert (calls, stopping.stopped_epoch, weight(model)) == ([1], None, 3.0)


def test_ignored_interrupts_stay_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kick = Kick("on_train_batch_begin", times=3)
    fit(falling(), kick, best_is_epoch_0())
    assert kick.survived == 3
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_fit_in_another_thread_leaves_the_handler_alone() -> None:
    model, seen = falling(), []
    look = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: seen.append(signal.getsignal(signal.SIGINT)))
    thread = threading.Thread(target=fit, args=(model, best_is_epoch_0(), look))
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler] * 4
    assert weight(model) == 3.0


def test_interrupt_from_a_timer_thread_reaches_the_main_thread() -> None:
    model, stopping, begun = falling(), best_is_epoch_0(), threading.Event()
    begin = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: begun.set())
    thread = threading.Thread(target=lambda: (begun.wait(60), os.kill(os.getpid(), signal.SIGINT)))
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        fit(model, stopping, begin, epochs=100_000)
    thread.join()
    assert weight(model) == 3.0


def test_model_is_not_kept_alive() -> None:
    interrupt, model = Interrupt(), falling()
    interrupt.watch(model)
    reference = interrupt._model
    assert reference() is model
    assert not any(value is model for value in vars(interrupt).values())
    interrupt.stop()


PROGRAM = """
import keras, numpy as np
from callbacks.early_stopping import EarlyStopping

model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
model.set_weights([np.array([[4.0]])])
model.compile(keras.optimizers.SGD(0.5), lambda y_true, y_pred: y_pred[:, 0])
say = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: print("epoch", epoch, flush=True))
ones = np.ones((4, 1), "float32")
try:
    model.fit(ones, ones, 1, 100_000, 0, [EarlyStopping(lambda logs: logs["loss"], "max"), say])
except KeyboardInterrupt:
    print("weight", model.get_weights()[0][0, 0], flush=True)
    raise
"""


def test_interrupted_program_ends_as_always_after_putting_the_weights_in_order() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT))},
        # A shell starts background jobs with SIGINT ignored, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.stdout.readline() != "epoch 3\n":
        assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGINT)
    lines, errors = process.communicate(timeout=60)
    assert lines.splitlines()[-1] == "weight 2.0"
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert process.returncode == -signal.SIGINT
