"""Noise on the gradient: its variance, and that it is a function of seed, update and variable."""

import keras
import numpy as np
import pytest

import callbacks
from callbacks import SGD, Adam, GradientNoise

WIDTH = 20_000


@keras.saving.register_keras_serializable(package="tests_gradient_noise")
def nothing(y_true, y_pred):
    """A loss whose gradient is 0."""
    return 0.0 * keras.ops.mean(y_pred)


def network(optimizer, width: int = WIDTH, dtype: str = "float32", **compiled) -> keras.Model:
    """Two equal kernels of `width` weights, all 0, whose gradient is 0."""
    inputs = keras.Input((1,))
    outputs = [keras.layers.Dense(width, use_bias=False, kernel_initializer="zeros", dtype=dtype)(inputs) for _ in "ab"]
    model = keras.Model(inputs, outputs)
    model.compile(optimizer, [nothing, nothing], **compiled)
    return model


def train(model: keras.Model, steps: int) -> list[np.ndarray]:
    x = np.ones((steps, 1))
    model.fit(x, [np.zeros((steps, 1))] * 2, batch_size=1, shuffle=False, verbose=0)
    return [weights[0] for weights in model.get_weights()]


def noise_of(steps: int, width: int = WIDTH, dtype: str = "float32", compiled=None, **options) -> np.ndarray:
    """The noise of every step, (step, variable, weight): with rate 1 and gradient 0 it is what the weights move."""
    options = {"gradient_noise": GradientNoise(0.25, 0.55), **options}
    model = network(SGD(1.0, **options), width, dtype, **(compiled or {}))
    found = [np.zeros((2, width))]
    found += [np.array(train(model, 1)) for _ in range(steps)]
    return -np.diff(found, axis=0)


def test_variance_decays_as_in_the_source() -> None:
    """0.25 / (1 + t)^0.55 of https://arxiv.org/abs/1511.06807, t = 0, 1, 3: 0.25, 0.25 / 1.4641, 0.25 / 2.1435.

    The measured variance of n normal numbers has the relative standard deviation sqrt(2 / n), their mean
    sigma / sqrt(n): 1 % and 0.5 % of sigma for n = 20,000. Allowed are five of these.
    """
    noise = noise_of(4)
    for step, expected in ((0, 0.25), (1, 0.170756), (3, 0.116632)):
        for one in noise[step]:
            np.testing.assert_allclose(one.var(), expected, rtol=0.05)
            assert abs(one.mean()) < 5 * np.sqrt(expected / WIDTH)


def test_noise_is_normal() -> None:
    one = noise_of(1)[0, 0] / 0.5
    for bound, share in ((1, 0.682689), (2, 0.954500), (3, 0.997300)):
        assert abs((np.abs(one) < bound).mean() - share) < 5 * np.sqrt(share * (1 - share) / WIDTH)


def test_noise_of_steps_and_of_variables_is_independent() -> None:
    noise = noise_of(3).reshape(6, WIDTH)
    correlations = np.corrcoef(noise) - np.eye(6)
    assert np.abs(correlations).max() < 5 / np.sqrt(WIDTH)


def test_same_seed_same_noise_and_another_seed_other_noise() -> None:
    first, again, other = (noise_of(2, 50, gradient_noise=GradientNoise(0.25, seed=seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).min() > 0
    neighbour = noise_of(2, 50, gradient_noise=GradientNoise(0.25, seed=-1))
    assert len(np.unique(np.concatenate([first.ravel(), other.ravel(), neighbour.ravel()]))) == 600


@pytest.mark.parametrize("compiled", [{"steps_per_execution": 3}, {"run_eagerly": True}])
def test_noise_is_the_same_however_the_step_runs(compiled) -> None:
    expected = noise_of(5, 20).sum(axis=0)
    options = {"gradient_noise": GradientNoise(0.25, 0.55)}
    found = train(network(SGD(1.0, **options), 20, **compiled), 5)
    np.testing.assert_allclose(-np.array(found), expected, rtol=0, atol=1e-5)


def test_noise_under_xla_is_as_large_and_repeats() -> None:
    """TensorFlow has another generator there, so the numbers themselves are others."""
    first, again = (noise_of(2, 2000, compiled={"jit_compile": True}) for _ in "ab")
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first[0].var(), 0.25, rtol=5 * np.sqrt(2 / 4000))
    assert np.abs(np.corrcoef(first.reshape(4, 2000)) - np.eye(4)).max() < 5 / np.sqrt(2000)


def test_resumed_training_has_the_noise_of_an_uninterrupted_one(tmp_path) -> None:
    def optimizer() -> Adam:
        return Adam(0.1, gradient_noise=GradientNoise(0.25, seed=7))

    whole = network(optimizer(), 20)
    train(whole, 6)
    begun = network(optimizer(), 20)
    train(begun, 2)
    begun.save(tmp_path / "begun.keras")
    resumed = keras.models.load_model(tmp_path / "begun.keras")
    train(resumed, 4)
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(whole.optimizer.variables) == len(keras.optimizers.Adam(0.1).variables) + 4  # no variable for the seeds


def test_noise_comes_once_per_update_under_gradient_accumulation() -> None:
    """Three batches make one update, whose noise is that of update 0, 1, ... without accumulation."""
    found = noise_of(6, 20, gradient_accumulation_steps=3)
    expected = noise_of(2, 20)
    np.testing.assert_array_equal(found[[0, 1, 3, 4]], 0)
    np.testing.assert_allclose(found[[2, 5]], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16"])
def test_noise_in_bfloat16(dtype) -> None:
    noise = noise_of(1, dtype=dtype)[0]
    for one in noise:
        np.testing.assert_allclose(one.astype("float64").var(), 0.25, rtol=0.05)


def test_noise_is_added_after_clipping() -> None:
    noise = noise_of(1, 20, clipvalue=1e-3)
    np.testing.assert_array_equal(noise, noise_of(1, 20))


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "muon"])
def test_every_optimiser_takes_noise(name) -> None:
    """Without noise the gradient 0 moves nothing, since weights of 0 have no decay either."""
    model = network(callbacks.get_optimizer(name, 0.1, gradient_noise=GradientNoise()), 20)
    assert all(np.abs(weights).min() > 0 for weights in train(model, 2))


def test_noise_on_the_sparse_gradient_of_an_embedding_reaches_every_row() -> None:
    model = keras.Sequential([keras.Input((1,), dtype="int32"), keras.layers.Embedding(50, 40, "zeros")])
    model.compile(SGD(1.0, gradient_noise=GradientNoise(0.25)), nothing)
    model.fit(np.zeros((4, 1), "int32"), np.zeros((4, 1)), batch_size=4, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0].std(), 0.5, rtol=5 * np.sqrt(0.5 / 2000))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variance": 0}, "`variance` must be above 0. Received: variance=0"),
        ({"variance": float("nan")}, "`variance` must be above 0"),
        ({"decay": -0.1}, "`decay` must be at least 0. Received: decay=-0.1"),
        ({"decay": float("nan")}, "`decay` must be at least 0"),
        ({"seed": 0.5}, "`seed` must be a whole number. Received: seed=0.5"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        GradientNoise(**arguments)
