"""Several tasks: learned weights reach their known minimum, towers are pulled by their distance."""

import itertools
import math

import keras
import numpy as np
import pytest
from keras import layers

import kerascnn
from kerascnn.multi_task import soft_sharing, uncertainty_weighted


def two_heads(trainable: bool = True, **options: object) -> keras.Model:
    """Heads "b" and "a" (in this order) on 3 features, whose kernels are zero: every output is 0."""
    inputs = keras.Input((3,))
    zeros = {"kernel_initializer": "zeros", "dtype": "float32", **options}
    outputs = {head: layers.Dense(1, **zeros, name=f"head_{head}") for head in ("b", "a")}
    for layer in outputs.values():
        layer.trainable = trainable
    return keras.Model(inputs, {head: layer(inputs) for head, layer in outputs.items()})


def constant_targets(count: int = 8) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Mean squared errors of 4 ("a") and 0.25 ("b") when the outputs are 0."""
    return np.ones((count, 3), "float32"), {"a": np.full((count, 1), 2.0), "b": np.full((count, 1), 0.5)}


MSE = {"b": "mse", "a": "mse"}
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def test_log_variances_converge_to_log_of_twice_the_loss() -> None:
    """exp(-s) L + s / 2 is smallest at s = log(2 L): weights 1 / (2 * 4) and 1 / (2 * 0.25)."""
    model = uncertainty_weighted(two_heads(trainable=False))
    model.compile(keras.optimizers.SGD(0.5), MSE)
    inputs, targets = constant_targets(64)
    history = model.fit(inputs, targets, batch_size=1, epochs=2, verbose=0)
    assert model.head_weights() == pytest.approx({"a": 0.125, "b": 2.0}, abs=1e-3)
    # 1 / 2 + log(8) / 2 and 1 / 2 + log(1 / 2) / 2
    least = 1 + math.log(8) / 2 + math.log(0.5) / 2
    assert model.evaluate(inputs, targets, verbose=0, return_dict=True)["loss"] == pytest.approx(least, abs=1e-4)
    assert history.history["a_loss"][-1] == pytest.approx(4.0)  # recorded without its weight


def test_mean_over_the_heads_has_the_same_best_log_variances_and_is_saved(tmp_path) -> None:
    """At log(8) and log(1 / 2), (1 / 2 + log(8) / 2 + 1 / 2 + log(1 / 2) / 2) / 2 with no gradient."""
    model = uncertainty_weighted(two_heads(trainable=False), mean=True)
    model.compile(keras.optimizers.SGD(0.1), MSE)
    inputs, targets = constant_targets()
    assert model.evaluate(inputs, targets, verbose=0, return_dict=True)["loss"] == pytest.approx((4 + 0.25) / 2)
    model.log_variances.assign([math.log(8.0), math.log(0.5)])
    least = (1 + math.log(8) / 2 + math.log(0.5) / 2) / 2
    logs = model.train_on_batch(inputs, targets, return_dict=True)
    assert logs["loss"] == pytest.approx(least, abs=1e-5)
    assert model.head_weights() == pytest.approx({"a": 0.125, "b": 2.0}, rel=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(inputs, targets, verbose=0, return_dict=True)["loss"] == pytest.approx(least, abs=1e-5)


@pytest.mark.parametrize(
    ("losses", "weights", "steps"),
    [
        (MSE, None, (0.35, -0.025)),
        (MSE, {"a": 0.25, "b": 6.0}, (0.05, 0.1)),
        ({"a": ["mse", "mae"], "b": "mse"}, None, (0.55, -0.025)),
    ],
    ids=["plain", "loss_weights", "two_losses"],
)
def test_gradient_of_a_log_variance_is_half_minus_the_loss(
    losses: dict, weights: dict | None, steps: tuple[float, float]
) -> None:
    """At s = 0: 1 / 2 - w L; one step of rate 0.1 goes to 0.1 (w L - 1 / 2)."""
    model = uncertainty_weighted(two_heads(trainable=False))
    model.compile(keras.optimizers.SGD(0.1), losses, loss_weights=weights)
    inputs, targets = constant_targets()
    assert model.train_on_batch(inputs, targets) is not None
    learned = {head: -math.log(weight) for head, weight in model.head_weights().items()}
    assert learned == pytest.approx({"a": steps[0], "b": steps[1]}, abs=1e-6)


def test_gradient_of_the_network_is_weighted_by_head() -> None:
    """Bias of head a: 2 * (0 - 2) * exp(-s) = -4 / 4; the step of rate 0.1 is +0.1. Head b: 2 * (-0.5) * 3 = -3."""
    model = uncertainty_weighted(two_heads())
    model.log_variances.assign([math.log(4.0), -math.log(3.0)])
    assert model.head_weights() == pytest.approx({"a": 0.25, "b": 3.0})
    model.compile(keras.optimizers.SGD(0.1), MSE)
    model.train_on_batch(*constant_targets())
    biases = {head: float(model.get_layer(f"head_{head}").get_weights()[1][0]) for head in ("a", "b")}
    assert biases == pytest.approx({"a": 0.1, "b": 0.3})


def test_total_counts_sample_weights_per_head_and_regularisers_once() -> None:
    """0.5 * 4 * (1 + 0) / 2 + 3 * 0.25 * (2 + 4) / 2 + log(2) / 2 - log(3) / 2, and 0.5 * (0.1^2) for each bias."""
    model = uncertainty_weighted(two_heads(bias_regularizer=keras.regularizers.L2(0.5)))
    for head in ("a", "b"):
        model.get_layer(f"head_{head}").bias.assign([0.1])
    model.log_variances.assign([math.log(2.0), -math.log(3.0)])
    model.compile("sgd", MSE, weighted_metrics={"a": ["mae"]})
    inputs, targets = constant_targets(2)
    targets = {head: target + 0.1 for head, target in targets.items()}
    sample_weight = {"a": np.array([1.0, 0.0]), "b": np.array([2.0, 4.0])}
    logs = model.evaluate(inputs, targets, sample_weight=sample_weight, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(1.0 + 2.25 + math.log(2) / 2 - math.log(3) / 2 + 0.01, abs=1e-5)
    assert logs["a_loss"] == pytest.approx(2.0)
    assert logs["a_mae"] == pytest.approx(2.0)


def test_a_head_without_a_loss_keeps_its_weight() -> None:
    model = uncertainty_weighted(two_heads(trainable=False))
    model.compile(keras.optimizers.SGD(0.1), {"a": "mse", "b": None})
    inputs, targets = constant_targets()
    model.fit(inputs, targets, verbose=0)
    assert model.head_weights() == pytest.approx({"a": math.exp(-0.35), "b": 1.0})


def test_the_harder_head_ends_with_the_smaller_weight() -> None:
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(64, 3)).astype("float32")
    targets = {"a": inputs @ [[1.0], [0.5], [-1.0]], "b": generator.normal(size=(64, 1))}
    model = uncertainty_weighted(two_heads())
    model.compile(keras.optimizers.Adam(0.05), MSE)
    model.fit(inputs, targets, epochs=15, batch_size=16, verbose=0)
    weights = model.head_weights()
    assert weights["b"] < 1.0 < weights["a"]


def small_network() -> keras.Model:
    """A picture, one shared convolution, two float32 heads."""
    inputs = keras.Input((6, 6, 3), name="pixels")
    features = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(inputs))
    heads = {"hair": 3, "age": 5}
    return keras.Model(inputs, {head: layers.Dense(count, dtype="float32")(features) for head, count in heads.items()})


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_learned_weights_leave_the_network_as_it_is_and_are_saved(dtype: str, tmp_path) -> None:
    keras.config.set_dtype_policy(dtype)
    try:
        network = small_network()
        model = uncertainty_weighted(network)
    finally:
        keras.config.set_dtype_policy("float32")
    generator = np.random.default_rng(0)
    pictures = generator.normal(size=(8, 6, 6, 3)).astype("float32")
    model.compile(keras.optimizers.SGD(0.01), dict.fromkeys(model.output, CROSSENTROPY), metrics={"age": ["accuracy"]})
    targets = {"age": generator.integers(0, 5, 8), "hair": generator.integers(0, 3, 8)}
    logs = model.fit(pictures, targets, batch_size=4, verbose=0).history
    assert {"loss", "age_loss", "hair_loss", "age_accuracy"} == set(logs)
    assert model.log_variances.dtype == "float32"
    answer = model.predict(pictures, verbose=0)
    for head, logits in network.predict(pictures, verbose=0).items():
        np.testing.assert_array_equal(answer[head], logits)

    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.head_weights() == model.head_weights() != {"age": 1.0, "hair": 1.0}
    for head, logits in again.predict(pictures, verbose=0).items():
        np.testing.assert_array_equal(answer[head], logits)
    again.fit(pictures, targets, verbose=0)  # compiled as before, and still learning
    assert again.head_weights() != model.head_weights()


def test_one_head_has_nothing_to_weigh() -> None:
    with pytest.raises(ValueError, match="dict of at least two heads"):
        uncertainty_weighted(kerascnn.build("resnet9", (16, 16, 3), 3, width=0.125))


def tower(seed: int, classes: int = 3, filters: int = 4, named: bool = True) -> keras.Model:
    """A small network with a branch and BatchNorm."""

    def name(text: str) -> str | None:
        return text if named else None

    inputs = keras.Input((6, 6, 3), name="pixels")
    x = layers.Conv2D(filters, 3, name=name("first"))(inputs)
    branches = [layers.Conv2D(filters, size, padding="same", name=name(f"branch_{size}"))(x) for size in (1, 3)]
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization(name=name("norm"))(layers.add(branches)))
    model = keras.Model(inputs, layers.Dense(classes, name=name("head"))(x), name="tower")
    generator = np.random.default_rng(seed)
    model.set_weights([generator.uniform(0.1, 1, weight.shape) for weight in model.get_weights()])
    return model


SHARED = ("first/kernel", "first/bias", "branch_1/kernel", "branch_1/bias", "branch_3/kernel", "branch_3/bias")


def shared_values(model: keras.Model) -> dict[str, np.ndarray]:
    """What the towers of `tower()` share, by name: everything trainable but the head."""
    names = (*SHARED, "norm/gamma", "norm/beta")
    values = {}
    for name in names:
        layer, weight = name.split("/")
        values[name] = getattr(model.get_layer(layer), weight).numpy().astype("float64")
    return values


def squared_distance(one: keras.Model, other: keras.Model) -> float:
    values, others = shared_values(one), shared_values(other)
    return sum(((values[name] - others[name]) ** 2).sum() for name in values)


def batch(tasks: tuple[str, ...]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    generator = np.random.default_rng(3)
    return generator.normal(size=(8, 6, 6, 3)).astype("float32"), {task: generator.integers(0, 3, 8) for task in tasks}


@pytest.mark.parametrize("tasks", [("b", "a"), ("b", "a", "hair-colour")])
def test_added_loss_is_the_squared_distance_of_all_pairs_of_towers(tasks: tuple[str, ...]) -> None:
    towers = {task: tower(seed, classes=3 + seed) for seed, task in enumerate(tasks)}
    model = soft_sharing(towers, strength=0.25)
    expected = 0.25 * sum(squared_distance(*pair) for pair in itertools.combinations(towers.values(), 2))
    assert float(model.sharing_loss()) == pytest.approx(expected, rel=1e-5)
    inputs, targets = batch(tasks)
    model.compile("sgd", dict.fromkeys(tasks, CROSSENTROPY))
    logs = model.evaluate(inputs, targets, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(sum(logs[f"{task}_loss"] for task in tasks) + expected, rel=1e-5)


def test_towers_are_copied_with_their_weights_and_outputs() -> None:
    towers = {"b": tower(0), "a": tower(1, classes=5)}
    model = soft_sharing(towers, strength=1.0)
    inputs, _ = batch(())
    for task, logits in model(inputs).items():
        np.testing.assert_allclose(logits, towers[task](inputs), rtol=1e-6)
        np.testing.assert_allclose(keras.Model(model.input, model.output[task])(inputs), logits, rtol=1e-6)
    names = [layer.name for layer in model.layers]
    assert len(set(names)) == len(names)
    assert {"b_first", "a_first", "a_head"} <= set(names)
    model.get_layer("b_first").kernel.assign(np.zeros((3, 3, 3, 4)))
    assert towers["b"].get_layer("first").get_weights()[0].min() > 0


def test_without_strength_towers_train_as_if_alone() -> None:
    towers = {"b": tower(0), "a": tower(1)}
    model = soft_sharing(towers, strength=0.0)
    inputs, targets = batch(("b", "a"))
    model.compile(keras.optimizers.SGD(0.1), dict.fromkeys(towers, CROSSENTROPY))
    model.train_on_batch(inputs, targets)
    for task, alone in towers.items():
        alone.compile(keras.optimizers.SGD(0.1), CROSSENTROPY)
        alone.train_on_batch(inputs, targets[task])
        trained = keras.Model(model.input, model.output[task])
        for one, other in zip(trained.get_weights(), alone.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_gradient_of_the_pull_is_twice_strength_times_the_difference() -> None:
    """Without data losses' influence: rate 0.1, strength 0.5 moves each tower by 0.1 of the difference."""
    towers = {"b": tower(0), "a": tower(1)}
    model = soft_sharing(towers, strength=0.5)
    model.compile(keras.optimizers.SGD(0.1), dict.fromkeys(towers, CROSSENTROPY), loss_weights={"b": 0.0, "a": 0.0})
    model.train_on_batch(*batch(("b", "a")))
    before, other = shared_values(towers["b"]), shared_values(towers["a"])
    for name in SHARED:
        layer, weight = name.split("/")
        after = getattr(model.get_layer(f"b_{layer}"), weight).numpy()
        np.testing.assert_allclose(after, before[name] - 0.1 * (before[name] - other[name]), rtol=1e-5)
    np.testing.assert_array_equal(
        model.get_layer("b_head").get_weights()[0], towers["b"].get_layer("head").get_weights()[0]
    )


def test_a_huge_strength_brings_the_towers_together() -> None:
    model = soft_sharing({"b": tower(0), "a": tower(1)}, strength=1000.0)
    model.compile(keras.optimizers.SGD(1e-4), dict.fromkeys(("b", "a"), CROSSENTROPY))
    inputs, targets = batch(("b", "a"))
    first = float(model.sharing_loss())
    model.fit(inputs, targets, batch_size=2, epochs=5, verbose=0)
    assert float(model.sharing_loss()) < 1e-3 * first


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_soft_sharing_survives_the_keras_file_format(dtype: str, tmp_path) -> None:
    keras.config.set_dtype_policy(dtype)
    try:
        towers = {"b": tower(0), "a": tower(1)}
        model = soft_sharing(towers, strength=0.125)
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile(keras.optimizers.SGD(1e-4), dict.fromkeys(towers, CROSSENTROPY))
    pictures, targets = batch(("b", "a"))
    assert np.isfinite(model.fit(pictures, targets, verbose=0).history["loss"]).all()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert (list(again.output), again.strength) == (["b", "a"], 0.125)
    assert float(again.sharing_loss()) == pytest.approx(float(model.sharing_loss()), rel=1e-6)
    for task, logits in model.predict(pictures, verbose=0).items():
        np.testing.assert_array_equal(again.predict(pictures, verbose=0)[task], logits)


def test_corresponding_weights_are_found_by_place_when_names_differ() -> None:
    first, second = tower(0, named=False), tower(1, named=False)
    assert {layer.name for layer in first.layers if layer.weights}.isdisjoint(layer.name for layer in second.layers)
    model = soft_sharing({"b": first, "a": second}, strength=1.0)
    assert float(model.sharing_loss()) == pytest.approx(squared_distance(tower(0), tower(1)), rel=1e-5)


@pytest.mark.parametrize(
    ("towers", "strength", "match"),
    [
        (lambda: {"a": tower(0), "b": tower(1)}, -1.0, "`strength` must be at least 0"),
        (lambda: {"a": tower(0)}, 1.0, "at least two towers"),
        (lambda: {"a": tower(0), "b": tower(1, filters=5)}, 1.0, "need one architecture"),
        (lambda: {"a": two_heads(), "b": two_heads()}, 1.0, "each of one output"),
        (lambda: {"a": tower(0), "b": kerascnn.build("resnet9", (16, 16, 3), 3, width=0.125)}, 1.0, "one input"),
        (lambda: {"a b": tower(0), "a_b": tower(1)}, 1.0, "tasks must differ"),
    ],
)
def test_towers_that_do_not_fit_are_refused(towers, strength: float, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        soft_sharing(towers(), strength)
