"""Rate and weight decay by group of parameters."""

import json

import keras
import numpy as np
import pytest

import callbacks
from callbacks import NO_DECAY, SGD, Muon, ParameterGroup, discriminative_rates
from callbacks.groups import factors

GRADIENT = np.array([0.5, -1.0])
ONES = np.ones(2)


@keras.saving.register_keras_serializable(package="tests_groups")
def total(y_true, y_pred):
    """A loss whose gradient for every weight of `scales` is the input."""
    return keras.ops.mean(keras.ops.sum(y_pred, axis=-1))


@keras.saving.register_keras_serializable(package="tests_groups")
class Weight(keras.layers.Layer):
    """One vector, multiplied by the input."""

    def build(self, shape) -> None:
        self.kernel = self.add_weight(shape=shape[1:], initializer="ones", name="kernel")

    def call(self, x):
        return x * self.kernel


def scales(optimizer, names=("stem", "body", "head"), dtype: str = "float32", **compiled) -> keras.Model:
    """Layers side by side: the gradient of every weight is the input."""
    inputs = keras.Input((2,))
    outputs = [Weight(name=name, dtype=dtype)(inputs) for name in names]
    model = keras.Model(inputs, keras.layers.Concatenate(dtype=dtype)(outputs))
    model.compile(optimizer, total, **compiled)
    return model


def train(model: keras.Model, steps: int = 3) -> dict[str, np.ndarray]:
    model.fit(np.tile(GRADIENT, (steps, 1)), np.zeros(steps), batch_size=1, shuffle=False, verbose=0)
    return {one.path.split("/")[-2]: keras.ops.convert_to_numpy(one) for one in model.trainable_variables}


def decayed(steps: int, rate: float, decay: float) -> np.ndarray:
    """SGD from 1 with decoupled decay."""
    w = np.ones(2)
    for _ in range(steps):
        w = w - rate * decay * w - rate * GRADIENT
    return w


GROUPS = [ParameterGroup("stem", rate=0.5), ParameterGroup("stem|body", rate=0.25, decay=3.0)]
# rate 0.1 and decay 0.2 times the factors: two groups on one variable multiply
EXPECTED = {
    "stem": decayed(3, 0.1 * 0.5 * 0.25, 0.2 * 3),
    "body": decayed(3, 0.1 * 0.25, 0.2 * 3),
    "head": decayed(3, 0.1, 0.2),
}


@pytest.mark.parametrize(
    ("dtype", "compiled"),
    [
        ("float32", {}),
        ("float32", {"steps_per_execution": 3}),
        ("mixed_bfloat16", {}),
        ("float32", {"jit_compile": True}),
    ],
)
def test_rate_and_decay_of_each_group_equal_the_step_written_by_hand(dtype, compiled) -> None:
    found = train(scales(SGD(0.1, weight_decay=0.2, groups=GROUPS), dtype=dtype, **compiled))
    for name, expected in EXPECTED.items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-6)


def test_groups_act_once_per_update_under_gradient_accumulation() -> None:
    optimizer = SGD(0.1, weight_decay=0.2, groups=GROUPS, gradient_accumulation_steps=2)
    found = train(scales(optimizer), steps=6)
    for name, expected in EXPECTED.items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-6)


def test_groups_survive_saving_and_loading(tmp_path) -> None:
    model = scales(SGD(0.1, 0.5, weight_decay=0.2, groups=GROUPS))
    train(model, 2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.groups == GROUPS
    for one, other in zip(train(model).values(), train(loaded).values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_model_with_groups_can_be_loaded_from_an_h5_file(tmp_path) -> None:
    """Keras builds its optimiser without any weights."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(SGD(0.1, groups=[NO_DECAY]), total)
    model.save(tmp_path / "model.h5")
    loaded = keras.models.load_model(tmp_path / "model.h5")
    assert loaded.optimizer.groups == [NO_DECAY]
    np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])


def test_configuration_of_groups_is_plain() -> None:
    config = SGD(0.1, groups=[ParameterGroup("stem", rate=np.float32(0.5), decay=np.int64(0))]).get_config()
    assert json.loads(json.dumps(config))["groups"] == [{"pattern": "stem", "rate": 0.5, "decay": 0.0}]


def test_groups_survive_a_clone() -> None:
    optimizer = SGD(0.1, weight_decay=0.2, groups=GROUPS)
    found = train(scales(SGD.from_config(optimizer.get_config())))
    for name, expected in EXPECTED.items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-6)


# What one step of rate 0.1 does to a weight of 1 with gradient 0.5 without decay, worked out by hand: the gradient
# itself; with momentum in Nesterov's form 1.9 of it; Adagrad 0.5 / sqrt(0.1 + 0.25); RMSProp 0.5 / sqrt(0.1 * 0.25);
# Adam and what Muon does with vectors: its sign.
FIRST_MOVES = {
    "sgd": 0.5,
    "momentum": 0.5,
    "nesterov": 0.95,
    "adagrad": 0.845154,
    "rmsprop": 3.162278,
    "adam": 1.0,
    "adamw": 1.0,
    "muon": 1.0,
}


@pytest.mark.parametrize("name", FIRST_MOVES)
def test_groups_act_in_every_optimiser(name) -> None:
    groups = [ParameterGroup("stem", rate=0.5, decay=2.0), ParameterGroup("body", rate=0.0)]
    decay = {"adam_weight_decay": 0.2} if name == "muon" else {"weight_decay": 0.2}
    found = train(scales(callbacks.get_optimizer(name, 0.1, groups=groups, **decay)), steps=1)
    move = FIRST_MOVES[name]
    np.testing.assert_allclose(found["stem"][0], 1 - 0.05 * 0.4 - 0.05 * move, rtol=1e-5)
    np.testing.assert_array_equal(found["body"], [1, 1])
    np.testing.assert_allclose(found["head"][0], 1 - 0.1 * 0.2 - 0.1 * move, rtol=1e-5)


def test_decay_of_muons_matrices_and_of_its_vectors_is_scaled() -> None:
    """Gradient 0: only the decay moves the weights."""
    matrix, vector = keras.Variable(np.ones((2, 3)), name="matrix"), keras.Variable(np.ones(2), name="vector")
    optimizer = Muon(
        0.1,
        weight_decay=0.2,
        adam_weight_decay=0.4,
        groups=[ParameterGroup("", decay=3.0), ParameterGroup("v", decay=0.5)],
    )
    optimizer.apply([keras.ops.zeros((2, 3)), keras.ops.zeros(2)], [matrix, vector])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(matrix), np.full((2, 3), 1 - 0.1 * 0.6), rtol=1e-6)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(vector), np.full(2, 1 - 0.1 * 0.6), rtol=1e-6)


def test_no_decay_leaves_batch_norm_and_biases_as_they_are() -> None:
    """Gradient 0, so that only the decay could move anything."""
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), layers.BatchNormalization(), layers.RMSNormalization(), layers.Dense(2)]
    )
    variables = model.trainable_variables
    for number, one in enumerate(variables):
        one.assign(keras.ops.full(one.shape, 0.3 + number))
    optimizer = SGD(0.1, weight_decay=0.5, groups=[NO_DECAY])
    optimizer.apply([keras.ops.zeros(one.shape) for one in variables], variables)
    for number, one in enumerate(variables):
        start = np.full(one.shape, np.float32(0.3 + number))
        if one.path.endswith("kernel"):
            np.testing.assert_allclose(keras.ops.convert_to_numpy(one), start * 0.95, rtol=1e-6)
        else:
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), start)
    assert sum(one.path.endswith("kernel") for one in variables) == 2


def test_what_keras_excludes_from_decay_stays_excluded() -> None:
    optimizer = SGD(0.1, weight_decay=0.2, groups=[ParameterGroup("stem", decay=2.0)])
    optimizer.exclude_from_weight_decay(var_names=["body"])
    model = scales(optimizer)
    found = train(model, steps=1)
    if keras.backend.backend() == "tensorflow":  # where Keras matches the whole path; elsewhere only the last name
        np.testing.assert_allclose(found["body"], 1 - 0.1 * GRADIENT, rtol=1e-6)
    np.testing.assert_allclose(found["stem"], 1 - 0.1 * 0.4 - 0.1 * GRADIENT, rtol=1e-6)


@pytest.mark.parametrize("groups", [None, []])
def test_without_groups_the_step_is_that_of_keras(groups) -> None:
    ours = train(scales(SGD(0.1, 0.9, weight_decay=0.2, groups=groups)))
    theirs = train(scales(keras.optimizers.SGD(0.1, 0.9, weight_decay=0.2)))
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-7)


# ------------------------------------------------------------------------------------------------------------ patterns


def test_group_that_fits_nothing_is_an_error_before_the_first_step() -> None:
    model = scales(SGD(0.1, groups=[ParameterGroup("tail")]))
    with pytest.raises(ValueError, match=r"'tail' matches no variable. There are 3: stem/kernel, body/kernel, head/"):
        train(model)
    for one in model.get_weights():
        np.testing.assert_array_equal(one, ONES)


@pytest.mark.parametrize(
    ("pattern", "fitting"),
    [
        ("stem", ["stem/kernel", "stem_2/kernel", "net/stem/bias"]),
        ("stem/", ["stem/kernel", "net/stem/bias"]),
        ("bias$", ["net/stem/bias"]),
        ("k", ["stem/kernel", "stem_2/kernel", "my_stem/kernel"]),
        ("STEM", []),
        ("(?i:STEM)/", ["stem/kernel", "net/stem/bias"]),
        ("net|my", ["net/stem/bias", "my_stem/kernel"]),
        (".*stem", ["stem/kernel", "stem_2/kernel", "net/stem/bias", "my_stem/kernel"]),
    ],
)
def test_pattern_fits_from_the_beginning_of_a_part_of_the_path(pattern, fitting) -> None:
    paths = ["stem/kernel", "stem_2/kernel", "net/stem/bias", "my_stem/kernel"]
    group = ParameterGroup(pattern)
    assert [path for path in paths if group.matches(path)] == fitting


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pattern": "(", "rate": 0.5}, "`pattern` is no regular expression: '\\('"),
        ({"pattern": "a(?i)", "rate": 0.5}, "`pattern` is no regular expression"),
        ({"pattern": "(?i)a", "rate": 0.5}, "`pattern` is no regular expression"),
        ({"pattern": None}, "`pattern` is no regular expression: None"),
        ({"pattern": "a", "rate": "x"}, "`rate` of a group must be at least 0. Received: rate='x'"),
        ({"pattern": "a", "rate": -1.0}, "`rate` of a group must be at least 0. Received: rate=-1.0"),
        ({"pattern": "a", "decay": float("nan")}, "`decay` of a group must be at least 0"),
    ],
)
def test_wrong_group_is_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        ParameterGroup(**arguments)


@pytest.mark.parametrize("group", [{"patern": "bias"}, {"pattern": "bias", "rates": 2.0}, {"rate": 2.0}])
def test_plain_group_with_another_key_is_refused(group) -> None:
    with pytest.raises(ValueError, match=r"A group has `pattern`, and may have `rate` and `decay`. Received"):
        SGD(0.1, groups=[group])


@pytest.mark.parametrize("groups", [NO_DECAY, "bias", [0.5], {"pattern": "bias"}])
def test_what_is_no_list_of_groups_is_refused(groups) -> None:
    with pytest.raises(ValueError, match="`groups` must be a list of ParameterGroup"):
        SGD(0.1, groups=groups)


# ------------------------------------------------------------------------------------------------ discriminative rates


def rates_of(model: keras.Model, **arguments) -> dict[str, float]:
    paths = [one.path for one in model.trainable_variables]
    found = factors(discriminative_rates(model, **arguments), paths)
    return {path: rate for path, (rate, _) in zip(paths, found, strict=True)}


def flat_model() -> keras.Model:
    layers = keras.layers
    inputs = keras.Input((2,))
    x = layers.Dense(3, name="dense")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Dense(3, name="dense_1")(x)
    return keras.Model(inputs, layers.Dense(3, name="dense_10")(x))


def test_later_parts_learn_faster_by_the_factor() -> None:
    found = rates_of(flat_model(), groups=3, factor=0.5)
    by_layer = {path.split("/")[0]: rate for path, rate in found.items()}
    # four layers in three parts: the cuts are at 1 1/3 and 2 2/3, rounded
    assert by_layer == {"dense": 0.25, "norm": 0.5, "dense_1": 0.5, "dense_10": 1.0}
    assert found["norm/gamma"] == found["norm/beta"] == 0.5


def test_every_layer_is_in_exactly_one_part_whatever_its_name() -> None:
    """With factor 0.5 a weight in two parts, or in none, would have a rate that is not among these."""
    layers = keras.layers
    inputs = keras.Input((4, 4, 1))
    inner = keras.Input((2, 2, 3))
    body = keras.Model(
        inner, layers.Conv2D(3, 1, name="block_conv")(layers.Conv2D(3, 1, name="block")(inner)), name="b"
    )
    x = layers.SeparableConv2D(3, 3, name="conv")(inputs)
    x = layers.Conv2D(3, 1, name="query")(x)  # the last but one part of an attention's path too
    x = body(x)
    x = keras.Sequential([layers.Conv2D(2, 1, name="block_1"), layers.Conv2D(2, 1, name="conv_1")], name="tail")(x)
    x = layers.MultiHeadAttention(1, 2, name="block_conv_1")(*[layers.Reshape((4, 2))(x)] * 2)
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))
    found = rates_of(model, groups=4, factor=0.5)
    assert list(found.values()) == sorted(found.values())
    assert set(found.values()) == {0.125, 0.25, 0.5, 1.0}
    layers_of_rates = {path.rsplit("/", 1)[0]: rate for path, rate in found.items()}
    assert all(rate == layers_of_rates[path.rsplit("/", 1)[0]] for path, rate in found.items())


def test_parts_are_the_same_after_saving_a_sequential(tmp_path) -> None:
    """Keras leaves the name of a Sequential out of the paths after loading."""
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((2,)), keras.Sequential([layers.Dense(2, name="one")], name="in"), layers.Dense(2, name="two")],
        name="net",
    )
    model.compile(SGD(0.1, groups=discriminative_rates(model, groups=2, factor=0.25)), "mse")
    x = np.random.default_rng(0).normal(size=(8, 2))
    model.fit(x, x, batch_size=4, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    paths = [[one.path for one in each.trainable_variables] for each in (model, loaded)]
    assert paths[0] != paths[1]
    for each in paths:
        assert [rate for rate, _ in factors(loaded.optimizer.groups, each)] == [0.25, 0.25, 1.0, 1.0]
    for each in (model, loaded):
        each.fit(x, x, batch_size=4, shuffle=False, verbose=0)
    for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_discriminative_rates_and_no_decay_multiply() -> None:
    model = flat_model()
    found = factors([*discriminative_rates(model, 2, 0.5), NO_DECAY], [one.path for one in model.trainable_variables])
    assert found == [(0.5, 1), (0.5, 0), (0.5, 0), (0.5, 0), (1, 1), (1, 0), (1, 1), (1, 0)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": 1}, "`groups` must be 2 to 4"),
        ({"groups": 5}, "`groups` must be 2 to 4"),
        ({"factor": 0}, r"`factor` must lie in \(0, 1\]"),
        ({"factor": 1.5}, r"`factor` must lie in \(0, 1\]"),
    ],
)
def test_wrong_arguments_of_discriminative_rates_are_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        discriminative_rates(flat_model(), **arguments)


def test_model_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="has no weights to train yet"):
        discriminative_rates(keras.Sequential([keras.layers.Dense(2)]))
