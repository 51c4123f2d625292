"""The hardest examples: losses in the order of the batches, and the choice among them."""

import keras
import numpy as np
import pytest

from callbacks import ExampleLoss, HardestExamples, OneTraining


def test_metric_keeps_every_examples_loss_in_order() -> None:
    metric = ExampleLoss(5)
    truth = np.eye(3, dtype="float32")
    logits = np.array([[2, 0, 0], [0, 0, 0], [0, 0, -1]], "float32")
    metric.update_state(truth, logits)
    metric.update_state(truth[:1], logits[1:2], sample_weight=np.array([0.5], "float32"))
    # log(e^2 + 2) - 2, log 3, log(2 + 1/e) + 1, and half of log 3
    expected = [np.log(np.e**2 + 2) - 2, np.log(3), np.log(2 + 1 / np.e) + 1, np.log(3) / 2]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(metric.losses)[:4], expected, rtol=1e-6)
    assert float(metric.result()) == pytest.approx(np.sum(expected) / 3.5)
    metric.reset_state()
    assert int(metric.seen) == 0


def test_examples_left_out_come_back_when_the_others_are_easier() -> None:
    hardest = HardestExamples(4)
    np.testing.assert_array_equal(hardest.choose(1.0), [0, 1, 2, 3])
    hardest.losses[:] = [0.4, 3.0, 0.3, 2.0]
    np.testing.assert_array_equal(hardest.choose(0.5), [1, 3])
    hardest.losses[[1, 3]] = [0.1, 0.35]
    np.testing.assert_array_equal(hardest.choose(0.5), [0, 3])
    assert len(hardest.choose(0.01)) == 1
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match=r"`share` must lie in \(0, 1\]"):
            hardest.choose(share)
    with pytest.raises(ValueError, match="`count` must be at least 1"):
        HardestExamples(0)


def test_losses_of_an_epoch_go_to_the_examples_of_its_batches_also_with_validation() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(12, 4)).astype("float32"), np.eye(3, dtype="float32")[np.arange(12) % 3]
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    hardest = HardestExamples(12)
    model.compile(keras.optimizers.SGD(0.0), "mse", weighted_metrics=[hardest.metric()])
    hardest.order = np.array([5, 2, 9, 11, 0, 7])
    model.fit(
        x[hardest.order],
        y[hardest.order],
        batch_size=2,
        shuffle=False,
        verbose=0,
        validation_data=(x, y),
        callbacks=[hardest],
    )
    logits = keras.ops.convert_to_numpy(model(x))
    expected = np.log(np.exp(logits).sum(axis=1)) - (logits * y).sum(axis=1)
    np.testing.assert_allclose(hardest.losses[hardest.order], expected[hardest.order], rtol=1e-5)
    assert np.isinf(np.delete(hardest.losses, hardest.order)).all()


def test_losses_are_those_of_the_metric_that_the_model_was_compiled_with_last() -> None:
    x, y = np.eye(2, dtype="float32"), np.array([[1.0], [2.0]], "float32")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    hardest = HardestExamples(2)
    for _ in range(2):
        model.compile(
            keras.optimizers.SGD(0.0), "mse", weighted_metrics=[hardest.metric(keras.losses.mean_squared_error)]
        )
    hardest.order = np.array([1, 0])
    model.fit(x[[1, 0]], y[[1, 0]], batch_size=2, shuffle=False, verbose=0, callbacks=[hardest])
    np.testing.assert_allclose(hardest.losses, [1, 4])


def test_losses_outlast_a_fit_within_one_training_only() -> None:
    x, y = np.eye(2, dtype="float32"), np.array([[1.0], [2.0]], "float32")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    hardest = HardestExamples(2)
    model.compile(keras.optimizers.SGD(0.0), "mse", weighted_metrics=[hardest.metric(keras.losses.mean_squared_error)])
    one = OneTraining([hardest], add_history=True, model=model, verbose=0, epochs=2, steps=1)
    for epoch, places in enumerate(([0, 1], [1])):
        hardest.order = np.array(places)
        model.fit(x[places], y[places], initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0, callbacks=one)
    np.testing.assert_allclose(hardest.losses, [1, 4])
    model.fit(x[[1]], y[[1]], verbose=0, callbacks=[hardest])
    np.testing.assert_allclose(hardest.losses, [np.inf, 4])


def test_examples_beyond_the_capacity_count_for_the_mean_only() -> None:
    metric = ExampleLoss(2, loss=keras.losses.mean_squared_error)
    metric.update_state(np.zeros((3, 1)), np.array([[1.0], [2.0], [4.0]]))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(metric.losses)[:2], [1, 4])
    assert float(metric.result()) == pytest.approx(7.0)


def test_a_compiled_model_with_the_metric_can_be_saved(tmp_path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse", weighted_metrics=[HardestExamples(2).metric(keras.losses.mean_squared_error)])
    model.fit(np.zeros((2, 4)), np.zeros((2, 3)), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(np.zeros((2, 4)), np.ones((2, 3)), verbose=0, return_dict=True)["example_loss"] == 1


def test_a_model_without_the_metric_is_refused() -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    hardest = HardestExamples(2)
    hardest.order = np.arange(2)
    with pytest.raises(ValueError, match=r"Compile .* with `metric\(\)` of HardestExamples"):
        model.fit(np.zeros((2, 4)), np.zeros((2, 3)), verbose=0, callbacks=[hardest])


def test_unknown_number_of_steps_is_refused() -> None:
    hardest = HardestExamples(2)
    hardest.order = np.arange(2)
    hardest.set_params({"steps": None})
    with pytest.raises(ValueError, match="must know the number of steps"):
        hardest.on_train_batch_end(0)
