"""The monitor: its numbers against numpy, its words, and that training does not notice it."""

import json
import warnings

import keras
import numpy as np
import pytest

from callbacks.filters import first_layer_filters, plot_filters
from callbacks.freeze import Freeze
from callbacks.monitor import Monitor
from callbacks.optimizers import SGD
from callbacks.symptoms import symptoms

generator = np.random.default_rng(0)
X, Y = generator.normal(size=(24, 4)).astype("float32"), generator.integers(0, 3, 24)
layers = keras.layers


def build(**options) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, "relu", name="hidden"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.5),
            layers.Dense(3, name="logits"),
        ]
    )
    optimizer = options.pop("optimizer", None) or keras.optimizers.SGD(0.1, momentum=0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], **options)
    return model


def train(model: keras.Model, *callbacks, epochs: int = 2, size: int = 4, first: int = 0) -> dict[str, list[float]]:
    options = {"epochs": epochs, "initial_epoch": first, "batch_size": size, "shuffle": False, "verbose": 0}
    return model.fit(X, Y, callbacks=list(callbacks), **options).history


def sample(model: keras.Model, x, y=None, **options) -> dict:
    """The layers' part of the record before the first step."""
    monitor = Monitor(x, y, **options)
    rows = keras.tree.flatten(x)[0]
    targets = y if y is not None else np.zeros((len(rows), *model.outputs[0].shape[1:]), "float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x, targets, batch_size=len(rows), verbose=0, callbacks=[monitor])
    return monitor.history[0]["layers"]


def one_layer(kernel, activation=None, loss="mse", rate=0.5) -> keras.Model:
    kernel = np.asarray(kernel, "float32")
    dense = layers.Dense(kernel.shape[1], activation, use_bias=False, name="dense")
    model = keras.Sequential([keras.Input((kernel.shape[0],)), dense])
    model.set_weights([kernel])
    model.compile(keras.optimizers.SGD(rate), loss)
    return model


# The numbers


def test_numbers_of_an_output_are_those_of_numpy() -> None:
    kernel = generator.normal(size=(4, 6)).astype("float32")
    kernel[:, 2] = 0
    numbers = sample(one_layer(kernel, "relu"), X)["dense"]["activation"]
    output = np.maximum(X.astype("float64") @ kernel, 0)
    assert numbers["function"] == "relu"
    assert numbers["mean"] == pytest.approx(output.mean(), rel=1e-4)
    assert numbers["std"] == pytest.approx(output.std(), rel=1e-4)
    assert numbers["zeros"] == pytest.approx((output == 0).mean(), rel=1e-4)
    assert numbers["dead"] == pytest.approx(1 / 6, rel=1e-4)
    assert numbers["saturated"] is None
    assert numbers["percentiles"] == pytest.approx(np.percentile(output, [1, 25, 50, 75, 99]), rel=1e-4, abs=1e-6)
    living = np.delete(output, 2, axis=1)
    correlations = np.abs(np.corrcoef(living.T))[~np.eye(5, dtype=bool)]
    assert numbers["correlation"] == pytest.approx(correlations.mean(), rel=1e-4)
    selective = (1 - living.mean(0) ** 2 / (living**2).mean(0)) / (1 - 1 / 24)
    assert numbers["sparsity"] == pytest.approx(selective.mean(), rel=1e-4)


def test_sparsity_is_one_for_a_single_answer_and_zero_for_equal_answers() -> None:
    one = sample(one_layer([[1.0]], "relu"), np.array([[0.0], [0.0], [5.0]], "float32"))
    assert one["dense"]["activation"]["sparsity"] == pytest.approx(1.0)
    equal = sample(one_layer([[1.0]], "relu"), np.array([[5.0], [5.0], [5.0]], "float32"))
    assert equal["dense"]["activation"]["sparsity"] == pytest.approx(0.0, abs=1e-6)
    assert equal["dense"]["activation"]["correlation"] is None  # one unit


def test_unit_of_a_convolution_is_dead_only_if_zero_at_every_position() -> None:
    x = np.zeros((2, 3, 3, 1), "float32")
    x[1, 2, 0, 0] = 1.0  # one bright pixel in one picture
    model = keras.Sequential([keras.Input((3, 3, 1)), layers.Conv2D(4, 1, use_bias=False), layers.ReLU(name="act")])
    model.set_weights([np.array([1.0, -1.0, 0.0, 2.0]).reshape(1, 1, 1, 4)])
    model.compile("sgd", "mse")
    numbers = sample(model, x)["act"]["activation"]
    assert (numbers["function"], numbers["dead"]) == ("relu", 0.5)
    assert numbers["zeros"] == pytest.approx(1 - 2 / 72, rel=1e-5)


@pytest.mark.parametrize(
    ("function", "inputs", "share"),
    [
        ("tanh", [0.0, 2.0, 2.2, -2.2], 0.5),  # tanh 2.0 = 0.964, tanh 2.2 = 0.976
        ("sigmoid", [0.0, 4.1, -4.3, -5.0], 0.5),  # sigmoid 4.1 = 0.984, -4.3 = 0.013
    ],
)
def test_saturated_outputs_lie_beyond_97_percent_of_the_range(function, inputs, share) -> None:
    numbers = sample(one_layer([[1.0]], function), np.array(inputs, "float32")[:, None])["dense"]["activation"]
    assert numbers["saturated"] == share


def test_gradients_are_exact() -> None:
    """Mean of (x w - y)^2 over 3 examples and 2 outputs: the gradient is 2 / 6 x^T (x w - y)."""
    x = np.array([[1, 2], [0, 1], [2, -1]], "float32")
    y = np.array([[0, 1], [1, 1], [3, 0]], "float32")
    kernel = np.array([[1.0, 2.0], [3.0, -1.0]])
    weight = sample(one_layer(kernel), x, y)["dense"]["weights"]["kernel"]
    gradient = x.T @ (x @ kernel - y) / 3
    assert weight["shape"] == [2, 2]
    assert weight["norm"] == pytest.approx(np.sqrt(15), rel=1e-5)
    assert weight["gradient"]["norm"] == pytest.approx(np.linalg.norm(gradient), rel=1e-5)
    assert weight["gradient"]["mean"] == pytest.approx(gradient.mean(), rel=1e-5)
    assert weight["gradient"]["std"] == pytest.approx(gradient.std(), rel=1e-5)
    expected = np.percentile(gradient, [1, 25, 50, 75, 99])
    assert weight["gradient"]["percentiles"] == pytest.approx(expected, rel=1e-4)


def test_sample_weights_of_the_probe_count() -> None:
    x, y = np.array([[1.0], [1.0]], "float32"), np.array([[0.0], [100.0]], "float32")
    weight = sample(one_layer([[3.0]]), x, y, sample_weight=np.array([1.0, 0.0], "float32"))["dense"]["weights"]
    assert weight["kernel"]["gradient"]["norm"] == pytest.approx(2 * 3 / 2)


@pytest.mark.parametrize(("execution", "accumulation"), [(1, 1), (3, 1), (1, 2), (3, 2)])
def test_update_ratio_is_that_of_one_real_step(execution, accumulation) -> None:
    """The gradient is 2 everywhere: a step of rate 0.25 moves the weight 4 by 0.5, whatever the probe batch is."""
    model = one_layer([[4.0]])
    optimizer = keras.optimizers.SGD(0.25, gradient_accumulation_steps=accumulation if accumulation > 1 else None)
    model.compile(optimizer, lambda y, prediction: 2.0 * (prediction - y), steps_per_execution=execution)
    monitor = Monitor(np.full((2, 1), 7.0, "float32"), np.zeros((2, 1), "float32"), every=100)
    ones = np.ones((12, 1), "float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(ones, ones, batch_size=2, verbose=0, callbacks=[monitor])
    (record,) = monitor.history
    weight = record["layers"]["dense"]["weights"]["kernel"]
    # Several steps in a straight line: |after - before| / |before| / steps
    assert weight["update_ratio"] == pytest.approx(0.125, rel=1e-5)
    assert weight["gradient"]["norm"] == pytest.approx(14.0)


def test_update_ratio_waits_for_the_update_where_an_execution_reaches_beyond_the_epoch() -> None:
    """5 batches, 4 in an execution: hooks end at batch 3 and, so says Keras, 7; the 6th batch is in the next epoch."""
    model = one_layer([[4.0]])
    optimizer = keras.optimizers.SGD(0.25, gradient_accumulation_steps=6)
    model.compile(optimizer, lambda y, prediction: 2.0 * (prediction - y), steps_per_execution=4)
    ones = np.ones((5, 1), "float32")
    monitor = Monitor(ones, ones, every=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(ones, ones, batch_size=1, epochs=2, verbose=0, callbacks=[monitor])
    weight = monitor.history[0]["layers"]["dense"]["weights"]["kernel"]
    assert weight["update_ratio"] == pytest.approx(0.125, rel=1e-5)


def test_percentiles_of_many_values_see_every_channel() -> None:
    """64 * 32 * 32 positions of two channels are four times as many values as are looked at."""
    model = keras.Sequential([keras.Input((32, 32, 1)), layers.Conv2D(2, 1, use_bias=False, name="two")])
    model.set_weights([np.array([0.0, 1.0]).reshape(1, 1, 1, 2)])
    model.compile("sgd", "mse")
    assert sample(model, np.ones((64, 32, 32, 1), "float32"))["two"]["activation"]["percentiles"][::4] == [0.0, 1.0]


def test_units_of_a_layer_with_channels_first_are_its_second_axis() -> None:
    class Scaled(layers.Layer):
        data_format = "channels_first"

        def build(self, shape) -> None:
            self.scale = self.add_weight(shape=(shape[1], 1), name="scale")

        def call(self, x):
            return x * self.scale

    model = keras.Sequential([keras.Input((4, 3)), Scaled(name="scaled")])
    model.set_weights([np.array([[0.0], [1.0], [2.0], [3.0]])])
    model.compile("sgd", "mse")
    assert sample(model, np.ones((2, 4, 3), "float32"))["scaled"]["activation"]["dead"] == 0.25


def test_only_the_first_64_examples_count() -> None:
    x = np.concatenate([np.ones((64, 1)), np.full((36, 1), 50.0)]).astype("float32")
    monitor = Monitor({"a": x}, {"b": x})
    assert monitor.examples == 64
    assert float(monitor.batch[0]["a"].max()) == 1.0
    assert monitor.batch[1]["b"].shape == (64, 1)


# When


@pytest.mark.parametrize(
    ("every", "execution", "steps"),
    [(5, 1, [0, 5, 10]), (5, 4, [0, 6, 10]), (4, 3, [0, 6, 9]), (1, 6, [0, 6]), (100, 1, [0]), (7, 2, [0, 8])],
)
def test_samples_come_at_the_first_hook_at_or_after_each_multiple(every, execution, steps) -> None:
    """Two epochs of 6 batches; with 4 in an execution the hooks stand before batch 0, 4 of each: 0, 4, 6, 10."""
    monitor = Monitor(X, Y, every=every)
    model = one_layer(np.ones((4, 1)), rate=1e-4)
    model.compile("sgd", "mse", steps_per_execution=execution)
    train(model, monitor)
    assert [record["step"] for record in monitor.history] == steps
    assert [record["epoch"] for record in monitor.history] == [step // 6 for step in steps]


@pytest.mark.parametrize("options", [{}, {"steps_per_execution": 4, "accumulation": 4}], ids=str)
def test_training_is_bit_by_bit_the_same(options) -> None:
    def run(*callbacks) -> tuple[dict[str, list[float]], list[np.ndarray]]:
        arguments = dict(options)
        optimizer = keras.optimizers.Adam(0.05, gradient_accumulation_steps=arguments.pop("accumulation", None))
        model = build(optimizer=optimizer, **arguments)
        logs = train(model, *callbacks, epochs=3)
        variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
        return logs, [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]

    plain_logs, plain = run()
    watched_logs, watched = run(Monitor(X, Y, every=3))
    assert plain_logs == watched_logs
    for one, other in zip(plain, watched, strict=True):
        np.testing.assert_array_equal(one, other)


def test_resumed_training_has_the_history_of_a_whole_one(tmp_path) -> None:
    whole = Monitor(X, Y, every=4, path=tmp_path / "whole.jsonl")
    train(build(), whole, epochs=4)
    path = tmp_path / "parts.jsonl"
    model, before, after = build(), Monitor(X, Y, every=4, path=path), Monitor(X, Y, every=4, path=path)
    train(model, before, epochs=2)
    state = json.loads(json.dumps(before.get_state()))
    with path.open("a") as file:
        file.write('{"step": 99, "epoch": 9}\n{"st')  # what was written after the checkpoint
    after.set_state(state)
    train(model, after, epochs=4, first=2)
    assert after.history == whole.history
    assert [json.loads(line) for line in path.read_text().splitlines()] == whole.history
    assert path.read_text() == (tmp_path / "whole.jsonl").read_text()


def test_second_training_starts_afresh_and_does_not_overwrite_the_file(tmp_path) -> None:
    model = one_layer(np.ones((4, 1)), rate=1e-4)
    monitor = Monitor(X, Y, every=6, path=tmp_path / "monitor.jsonl")
    train(model, monitor)
    with pytest.raises(ValueError, match="2 lines of a training before"):
        train(model, monitor)
    free = Monitor(X, Y, every=4)
    model = one_layer(np.ones((4, 1)), rate=1e-4)
    for steps in ([0, 4], [8]):
        train(model, free, epochs=1)
        assert [record["step"] for record in free.history] == steps


# Which models


def test_several_heads_nested_models_and_activations_of_every_kind() -> None:
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(8, "tanh", name="deep")], name="inner")
    x = inputs = keras.Input((4,))
    x = layers.Dense(8, name="first")(x)
    x = layers.LeakyReLU(name="leaky")(x)
    x = inner(x)
    x = keras.ops.sigmoid(x)
    shared = layers.Dense(8, name="shared")
    x = shared(shared(x))
    heads = {"a": layers.Dense(3, name="a")(x), "b": layers.Dense(1, "sigmoid", name="b")(x)}
    model = keras.Model(inputs, heads)
    losses = {"a": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "b": "mse"}
    model.compile("sgd", losses)
    targets = {"a": Y, "b": np.ones((24, 1), "float32")}
    found = sample(model, X, targets)
    functions = {name: numbers["activation"]["function"] for name, numbers in found.items()}
    activation = next(name for name in functions if name.startswith("sigmoid"))
    assert functions == {
        "first": "linear",
        "leaky": "leakyrelu",
        "inner/deep": "tanh",
        activation: "sigmoid",
        "shared": "linear",
        "shared:2": "linear",
        "a": "linear",
        "b": "sigmoid",
    }
    assert {name: list(numbers["weights"]) for name, numbers in found.items() if numbers["weights"]} == {
        name: ["kernel", "bias"] for name in ("first", "inner/deep", "shared", "a", "b")
    }
    assert [name for name, numbers in found.items() if numbers["head"]] == ["a", "b"]
    norms = [weight["gradient"]["norm"] for numbers in found.values() for weight in numbers["weights"].values()]
    assert min(norms) > 0


def test_frozen_layers_have_no_gradient_and_embeddings_have_one() -> None:
    words = np.array([[0, 1], [2, 0], [1, 1], [0, 0]])
    model = keras.Sequential(
        [
            keras.Input((2,), dtype="int32"),
            layers.Embedding(5, 3, name="words"),
            layers.Flatten(),
            layers.Dense(4, name="frozen"),
            layers.Dense(1, name="last"),
        ]
    )
    model.get_layer("frozen").trainable = False
    model.compile("sgd", "mse")
    found = sample(model, words, np.ones((4, 1), "float32"))
    assert found["frozen"]["weights"] == {}
    assert found["words"]["weights"]["embeddings"]["gradient"]["norm"] > 0
    assert found["words"]["weights"]["embeddings"]["update_ratio"] > 0


def test_of_several_outputs_of_a_layer_the_first_counts() -> None:
    inputs = keras.Input((4, 1))
    sequence, state = layers.GRU(3, return_sequences=True, return_state=True, name="gru")(inputs)
    outputs = layers.Dense(1)(layers.Concatenate()([layers.Flatten()(sequence), state]))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse")
    hidden = keras.ops.convert_to_numpy(keras.Model(inputs, sequence)(X[..., None]))
    found = sample(model, X[..., None], Y.astype("float32")[:, None])["gru"]
    assert found["activation"]["mean"] == pytest.approx(hidden.mean(), rel=1e-4)
    assert list(found["weights"]) == ["gru_cell/kernel", "gru_cell/recurrent_kernel", "gru_cell/bias"]


@pytest.mark.parametrize("first", ["freeze", "monitor"])
def test_layers_frozen_for_an_epoch_are_left_out_and_come_back(first) -> None:
    def run(*watching) -> list[np.ndarray]:
        model = build(optimizer=SGD(0.1, momentum=0.9))
        freeze = Freeze("hidden", first_epoch=1, until=2)
        train(model, *([freeze, *watching] if first == "freeze" else [*watching, freeze]), epochs=3)
        return [np.array(keras.ops.convert_to_numpy(variable)) for variable in model.variables]

    monitor = Monitor(X, Y, every=6)
    for one, other in zip(run(), run(monitor), strict=True):
        np.testing.assert_array_equal(one, other)
    watched = [list(one["layers"]["hidden"]["weights"]) for one in monitor.history]
    assert watched == [["kernel", "bias"], [], ["kernel", "bias"]]
    assert all(one["layers"]["logits"]["weights"]["kernel"]["update_ratio"] > 0 for one in monitor.history)


def test_updates_of_optimisers_in_groups_come_after_as_many_batches_as_they_accumulate(multi_optimizer) -> None:
    model, part = one_layer([[4.0]]), keras.optimizers.SGD(0.25, gradient_accumulation_steps=2)
    optimizer = multi_optimizer(lambda variable: part)
    model.compile(optimizer, lambda y, prediction: 2.0 * (prediction - y))
    ones = np.ones((12, 1), "float32")
    monitor = Monitor(ones, ones, every=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(ones, ones, batch_size=2, verbose=0, callbacks=[monitor])
    weight = monitor.history[0]["layers"]["dense"]["weights"]["kernel"]
    assert weight["update_ratio"] == pytest.approx(0.125, rel=1e-5)


def test_optimiser_of_a_group_that_moves_more_rarely_is_waited_for(multi_optimizer) -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="often"), layers.Dense(1, name="rarely")])
    often, rarely = keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    model.compile(multi_optimizer(lambda one: often if "often" in one.path else rarely), "mse")
    monitor, targets = Monitor(X, every=100), np.ones((24, 1), "float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, targets, batch_size=12, verbose=0, callbacks=[monitor])
    ratios = {name: one["weights"]["kernel"]["update_ratio"] for name, one in monitor.history[0]["layers"].items()}
    assert ratios["often"] > 0
    assert ratios["rarely"] > 0


def test_network_can_be_saved_and_cloned_after_watching(tmp_path) -> None:
    """The statistics are layers beside the network, also behind a nested one."""
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu", name="deep")], name="inner")
    model = keras.Sequential([keras.Input((4,)), inner, layers.Dense(1)])
    model.compile("sgd", "mse")
    sample(model, X, Y.astype("float32")[:, None])
    model.save(tmp_path / "model.keras")
    for other in (keras.models.load_model(tmp_path / "model.keras"), keras.models.clone_model(model)):
        assert [layer.name for layer in other._flatten_layers()] == [layer.name for layer in model._flatten_layers()]
    assert tuple(inner.get_layer("deep").output.shape) == (None, 3)


def test_works_in_bfloat16() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build()
    finally:
        keras.config.set_dtype_policy("float32")
    monitor = Monitor(X, Y, every=3)
    train(model, monitor)
    numbers = monitor.history[-1]["layers"]["hidden"]
    assert numbers["activation"]["std"] > 0
    assert numbers["weights"]["kernel"]["update_ratio"] > 0


def test_small_gradients_are_not_lost_in_float16() -> None:
    """1e-8 times the input: below the smallest number of float16."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = one_layer([[4.0]])
        model.compile("sgd", lambda y, prediction: 1e-8 * (prediction - y))
    finally:
        keras.config.set_dtype_policy("float32")
    ones = np.ones((4, 1), "float32")
    weight = sample(model, ones, ones)["dense"]["weights"]["kernel"]
    assert weight["gradient"]["norm"] == pytest.approx(1e-8, rel=0.02)


def test_monitor_can_watch_another_model_afterwards() -> None:
    monitor = Monitor(X, Y, every=6)
    train(build(), monitor)
    train(one_layer(np.ones((4, 1)), rate=1e-4), monitor, epochs=1)
    assert [list(one["layers"]) for one in monitor.history] == [["dense"]]


def test_chosen_layers_only() -> None:
    assert list(sample(build(), X, Y, layers=["logits"])) == ["logits"]
    with pytest.raises(ValueError, match=r"no layer: \['dense'\].*'hidden', 'norm', 'logits'"):
        sample(build(), X, Y, layers=["dense"])


def test_refuses_models_without_a_graph_and_wrong_arguments() -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x):
            return self.dense(x)

    model = Own()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="Functional and Sequential"):
        model.fit(X, np.zeros((24, 3)), verbose=0, callbacks=[Monitor(X)])
    with pytest.raises(ValueError, match="at least 1 batch"):
        Monitor(X, every=0)
    with pytest.raises(ValueError, match="no examples"):
        Monitor(X[:0])


# Words


def record(**layers_of) -> dict:
    """A healthy record of two layers, changed at the given places: hidden__activation__dead=0.5."""
    numbers = {"function": "relu", "mean": 0.1, "std": 1.0, "dead": 0.0, "saturated": None}
    weight = {"shape": [10, 10], "norm": 1.0, "update_ratio": 1e-3, "gradient": {"norm": 0.1}}
    layer = {"head": False, "activation": numbers, "weights": {"kernel": weight}}
    found = json.loads(json.dumps({"hidden": layer, "last": layer}))
    for place, value in layers_of.items():
        *path, name = place.split("__")
        target = found
        for step in path:
            target = target[step]
        target[name] = value
    return {"step": 50, "examples": 64, "layers": found}


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({}, None, None),
        ({"hidden__activation__dead": 0.39}, None, None),
        ({"hidden__activation__dead": 0.61}, "dead", "hidden: 61 % of its units are dead .zero for all 64"),
        ({"hidden__activation__std": 2e-4}, None, None),
        ({"hidden__activation__std": 5e-5}, "collapsed", "nearly constant .standard deviation 5.0e-05"),
        ({"hidden__activation__std": 5e-5, "hidden__activation__function": "softmax"}, None, None),
        ({"hidden__activation__saturated": 0.49}, None, None),
        ({"hidden__activation__saturated": 0.75}, "saturated", "75 % of its relu outputs are saturated"),
        ({"hidden__activation__mean": None}, "not finite", "hidden: its output is not finite"),
        ({"hidden__weights__kernel__gradient__norm": None}, "not finite", "gradient of it is not finite"),
        ({"hidden__weights__kernel__norm": None}, "not finite", "hidden: its kernel"),
        ({"hidden__weights__kernel__gradient": None}, "no gradient", "hidden: its kernel gets no gradient"),
        ({"hidden__weights__kernel__update_ratio": 0.09}, None, None),
        ({"hidden__weights__kernel__update_ratio": 0.2}, "large updates", "moves its kernel by 20 % .* Lower the rate"),
        ({"hidden__weights__kernel__update_ratio": 2e-6}, None, None),
        ({"hidden__weights__kernel__update_ratio": 5e-7}, "small updates", "by 5e-07 .* As others move by up to 1e-03"),
        ({"hidden__weights__kernel__update_ratio": None}, None, None),
        ({"hidden__weights__kernel__gradient__norm": 2e-5}, None, None),
        (
            {"hidden__weights__kernel__gradient__norm": 5e-6},
            "vanishing",
            "get 5e-05 of the gradient that those of last",
        ),
        ({"hidden__weights__kernel__gradient__norm": 0.0}, "vanishing", "get 0e.00 of the gradient"),
        ({"hidden__weights__kernel__gradient__norm": 900.0}, None, None),
        (
            {"hidden__weights__kernel__gradient__norm": 2000.0, "last__weights__kernel__gradient__norm": 1.0},
            "exploding",
            "2e.03 times as large as the weights",
        ),
        (
            {"last__weights__kernel__gradient__norm": 5e-6},
            "exploding",
            "hidden: .* 2e.04 times the gradient .* of last",
        ),
    ],
)
def test_words_and_their_thresholds(change, kind, words) -> None:
    found = symptoms(record(**change))
    assert [symptom.kind for symptom in found] == ([kind] if kind else [])
    if kind:
        with pytest.raises(UserWarning, match=words):
            raise UserWarning(found[0].text)


def test_rate_is_blamed_for_small_updates_only_where_all_are_small() -> None:
    small = {"hidden__weights__kernel__update_ratio": 5e-7, "last__weights__kernel__update_ratio": 4e-7}
    assert [symptom.text.split(". ")[1] for symptom in symptoms(record(**small))] == ["Raise the rate."] * 2


def test_output_of_the_model_may_be_saturated() -> None:
    assert symptoms(record(hidden__activation__saturated=0.9, hidden__head=True)) == []


def test_without_any_gradient_no_layer_is_said_to_have_one() -> None:
    nothing = {f"{layer}__weights__kernel__gradient__norm": 0.0 for layer in ("hidden", "last")}
    (symptom,) = symptoms(record(**nothing))
    assert (symptom.kind, symptom.layer) == ("vanishing", "hidden")
    assert "neither its weights nor those of last get any gradient" in symptom.text


def test_biases_with_two_axes_are_no_kernels() -> None:
    """That of a GRU begins at zero: its first steps are as large as itself."""
    model = keras.Sequential([keras.Input((4, 1)), layers.GRU(3, name="gru"), layers.Dense(1)])
    model.compile("adam", "mse")
    weights = sample(model, X[..., None], Y.astype("float32")[:, None])["gru"]["weights"]
    assert (weights["gru_cell/bias"]["shape"], weights["gru_cell/bias"]["update_ratio"]) == ([2, 9], None)
    assert weights["gru_cell/recurrent_kernel"]["update_ratio"] > 0
    bias = {"shape": [2, 9], "norm": 1e-9, "update_ratio": None, "gradient": {"norm": 1.0}}
    assert symptoms(record(hidden__weights__bias=bias)) == []


@pytest.mark.parametrize(("rates", "kinds"), [([0.002, 2e-7], []), ([2e-7, 2e-7], ["small updates"])])
def test_small_updates_at_the_end_of_a_decay_are_in_order(rates, kinds) -> None:
    """The gradient is 2 and the weight 4: the rate 0.002 moves it by 1e-3 of its size, 2e-7 by 1e-7."""
    model = one_layer([[4.0]])
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([3], rates)
    model.compile(keras.optimizers.SGD(schedule), lambda y, prediction: 2.0 * (prediction - y))
    ones = np.ones((12, 1), "float32")
    monitor = Monitor(X[:, :1], X[:, :1], every=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(ones, ones, batch_size=1, verbose=0, callbacks=[monitor])
    assert [one["learning_rate"] for one in monitor.history] == [rates[0]] * 2 + [rates[1]] * 4
    assert [one["kind"] for one in monitor.warnings] == kinds


def test_layers_of_different_size_are_compared_by_the_gradient_of_a_single_weight() -> None:
    """0.1 over 100 weights is 0.01 for each, 5000 over 100 million is 0.5: no vanishing gradient."""
    last = {"shape": [10000, 10000], "norm": 1000.0, "update_ratio": 1e-3, "gradient": {"norm": 5000.0}}
    assert symptoms(record(last__weights__kernel=last)) == []


def test_dead_units_are_said_once_and_only_when_they_last() -> None:
    model = one_layer(-np.ones((1, 4)), "relu", rate=1e-9)
    monitor = Monitor(np.ones((5, 1), "float32"), np.ones((5, 4), "float32"), every=2)
    data = np.ones((16, 1), "float32"), np.ones((16, 4), "float32")
    with pytest.warns(UserWarning, match="Step 2. dense: 100 % of its units are dead .zero for all 5 probe") as said:
        model.fit(*data, batch_size=2, verbose=0, callbacks=[monitor])
    assert len(monitor.history) == 4
    assert [one for one in said if "dead" in str(one.message)] == [one for one in said if "Step" in str(one.message)]
    assert [(one["step"], one["kind"], one["layer"]) for one in monitor.warnings] == [(2, "dead", "dense")]


def test_what_is_not_finite_is_said_at_once() -> None:
    model = one_layer([[np.inf]])
    monitor = Monitor(X[:, :1], X[:, :1])
    with pytest.warns(UserWarning, match="not finite"):
        model.fit(X[:, :1], X[:, :1], verbose=0, callbacks=[monitor])
    assert [one["kind"] for one in monitor.warnings] == ["not finite"]  # once for output, kernel and gradient
    assert monitor.history[0]["layers"]["dense"]["activation"]["mean"] is None
    json.dumps(monitor.history, allow_nan=False)


def test_weight_that_is_not_connected_to_the_loss_is_named() -> None:
    class Loose(layers.Layer):
        def build(self, shape) -> None:
            self.kernel = self.add_weight(shape=(shape[-1], 2), name="kernel")
            self.loose = self.add_weight(shape=(2, 2), name="loose")

        def call(self, x):
            return keras.ops.matmul(x, self.kernel) + keras.ops.stop_gradient(keras.ops.sum(self.loose))

    model = keras.Sequential([keras.Input((4,)), Loose(name="odd")])
    model.compile("sgd", "mse")
    monitor = Monitor(X, np.ones((24, 2), "float32"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, np.ones((24, 2)), verbose=0, callbacks=[monitor])
    kinds = {(one["kind"], "loose" in one["text"]) for one in monitor.warnings}
    gradient = monitor.history[0]["layers"]["odd"]["weights"]["loose"]["gradient"]
    # TensorFlow knows that there is none; JAX gives zeros.
    assert (kinds, gradient) == ({("no gradient", True)}, None) or gradient["norm"] == 0.0


def test_healthy_training_is_not_warned_about() -> None:
    monitor = Monitor(X, Y, every=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        train(build(optimizer=keras.optimizers.SGD(0.01)), monitor, epochs=3)
    assert monitor.warnings == []


# Pictures


def test_table_has_a_line_for_every_layer() -> None:
    monitor = Monitor(X, Y, every=3)
    train(build(), monitor)
    lines = monitor.table().splitlines()
    assert lines[0] == "step 9, epoch 1, 24 examples"
    assert [line.split()[0] for line in lines[1:]] == ["layer", "hidden", "norm", "logits"]
    assert len({len(line) for line in lines[1:]}) == 1
    assert lines[2].split()[1] == "relu"
    assert all(len(line.split()) == 11 for line in lines[1:])


def test_plot_has_a_curve_for_every_layer(tmp_path) -> None:
    monitor = Monitor(X, Y, every=3)
    with pytest.raises(ValueError, match="no sample yet"):
        monitor.plot()
    train(build(), monitor)
    figure = monitor.plot(tmp_path / "monitor.png")
    assert (tmp_path / "monitor.png").stat().st_size > 10_000
    for axes in figure.axes:
        curves = {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}
        assert (
            list(curves) == ["hidden", "norm", "logits"] if axes.get_title() != "update ratio" else ["hidden", "logits"]
        )
        assert all(list(line.get_xdata()) == [0, 3, 6, 9] for line in curves.values())
    expected = [record["layers"]["hidden"]["activation"]["std"] for record in monitor.history]
    assert list(figure.axes[0].get_lines()[0].get_ydata()) == expected


def test_filters_of_the_first_convolution_are_scaled_one_by_one(tmp_path) -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(5, 3), layers.Conv2D(7, 3)])
    kernel = generator.normal(size=(3, 3, 3, 5)).astype("float32") * np.array([1, 10, 100, 1000, 0], "float32")
    model.layers[0].set_weights([kernel, np.zeros(5)])
    filters = first_layer_filters(model)
    assert filters.shape == (5, 3, 3, 3)
    assert [one.min() for one in filters] == [0, 0, 0, 0, 0]
    assert [one.max() for one in filters] == pytest.approx([1, 1, 1, 1, 0])
    one = kernel[..., 2]
    np.testing.assert_allclose(filters[2], (one - one.min()) / (one.max() - one.min()), rtol=1e-5)
    figure = plot_filters(model, tmp_path / "filters.png")
    picture = figure.axes[0].get_images()[0].get_array()
    np.testing.assert_allclose(picture[1:4, 9:12], filters[2], rtol=1e-5)  # the third of three in the first row
    assert (tmp_path / "filters.png").is_file()
    nested = keras.Sequential([keras.Input((8, 8, 3)), model, layers.Conv2D(2, 3)])
    np.testing.assert_array_equal(first_layer_filters(nested), filters)
    with pytest.raises(ValueError, match="no Conv2D"):
        first_layer_filters(build())
