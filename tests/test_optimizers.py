"""Every optimiser against an update written by hand and against PyTorch; momentum that follows a schedule."""

import inspect
from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import ops

import callbacks
from callbacks import SGD, Adam, AdamW, CyclicMomentum, Muon, PiecewiseConstantSchedule, TriangularSchedule

CLOSE = 1e-5  # float32 knows 1 - 0.999 to some 6e-5 of itself, which Adam's first steps show
START = np.array([1.0, -2.0, 0.5])
GRADIENTS = np.array(
    [
        [0.5, -1.0, 2.0],
        [1.0, 0.25, -0.5],
        [-0.75, 0.5, 1.0],
        [0.25, -0.5, 0.125],
        [-1.5, 1.0, 0.75],
        [0.5, 0.5, -0.25],
        [2.0, -0.25, 0.5],
        [-0.5, 0.75, 1.25],
    ]
)
# The weights after the first four gradients with rate 0.1, from PyTorch 2.13.0 (torch.optim, CPU, float32):
# SGD(0.1), SGD(momentum=0.9), SGD(momentum=0.9, nesterov=True), Adagrad(initial_accumulator_value=0.1, eps=1e-7),
# RMSprop(alpha=0.9, eps=1e-7), Adam(eps=1e-7), AdamW(eps=1e-7, weight_decay=0.05). PyTorch adds eps to the root where
# Keras' RMSprop and Adagrad add it under the root, and to the corrected root where Keras' Adam adds it to the raw one:
# at 1e-7 no digit here shows it.
PYTORCH = {
    "sgd": ({}, [0.9, -1.925, 0.2375]),
    "momentum": ({}, [0.67455, -1.76885, -0.2548]),
    "nesterov": ({}, [0.6070949, -1.7169651, -0.44182]),
    "adagrad": ({}, [0.8658617, -1.9311327, 0.3765701]),
    "rmsprop": ({}, [0.5185859, -1.7728485, 0.0950198]),
    "adam": ({}, [0.7452997, -1.8214793, 0.2398132]),
    "adamw": ({"weight_decay": 0.05}, [0.7280362, -1.7837629, 0.2321515]),
}


@keras.saving.register_keras_serializable(package="tests_optimizers")
def output(y_true, y_pred):
    """A loss whose gradient for a kernel is the input."""
    return keras.ops.mean(y_pred)


def model_with(optimizer, dtype: str = "float32", **compiled) -> keras.Model:
    """One whose gradient in each batch of one example is that example."""
    dense = keras.layers.Dense(1, use_bias=False, dtype=dtype)
    model = keras.Sequential([keras.Input((3,)), dense])
    model.set_weights([START[:, None]])
    model.compile(optimizer, output, **compiled)
    return model


def train(model: keras.Model, gradients=GRADIENTS) -> np.ndarray:
    model.fit(gradients, np.zeros(len(gradients)), batch_size=1, shuffle=False, verbose=0)
    return model.get_weights()[0][:, 0]


Curve = Callable[[int], float]


def by_hand(kind: str, gradients, rate: Curve, momentum: Curve, decay: float = 0.0, every: int = 1) -> np.ndarray:
    """The update in float64; with `every` batches accumulated, rate and momentum are those of the last of them."""
    w, m, v, nesterov = START.copy(), np.zeros(3), np.zeros(3), kind == "nesterov"
    if kind == "adagrad":
        v += 0.1
    for update, last in enumerate(range(every - 1, len(gradients), every)):
        g = gradients[last - every + 1 : last + 1].mean(axis=0)
        lr, b = rate(last), momentum(last)
        w = w - lr * decay * w
        if kind in ("sgd", "momentum", "nesterov"):
            m = b * m - lr * g
            w = w + (b * m - lr * g if nesterov else m)
        elif kind == "adagrad":
            v = v + g**2
            w = w - lr * g / np.sqrt(v)
        elif kind == "rmsprop":
            v = 0.9 * v + 0.1 * g**2
            w = w - lr * g / np.sqrt(v)
        else:
            m, v = b * m + (1 - b) * g, 0.999 * v + 0.001 * g**2
            w = w - lr * (m / (1 - b ** (update + 1))) / np.sqrt(v / (1 - 0.999 ** (update + 1)))
    return w


USUAL = {"sgd": 0.0, "momentum": 0.9, "nesterov": 0.9, "adagrad": 0.0, "rmsprop": 0.0, "adam": 0.9, "adamw": 0.9}


@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("name", USUAL)
def test_eight_steps_equal_the_update_written_by_hand(name, decay) -> None:
    weights = train(model_with(callbacks.get_optimizer(name, 0.1, weight_decay=decay)))
    np.testing.assert_allclose(
        weights, by_hand(name, GRADIENTS, lambda _: 0.1, lambda _: USUAL[name], decay), rtol=0, atol=CLOSE
    )


@pytest.mark.parametrize("name", PYTORCH)
def test_four_steps_equal_pytorch(name) -> None:
    options, expected = PYTORCH[name]
    weights = train(model_with(callbacks.get_optimizer(name, 0.1, **options)), GRADIENTS[:4])
    np.testing.assert_allclose(weights, expected, rtol=0, atol=CLOSE)


def test_moving_beta_equals_pytorch_with_betas_set_before_each_step() -> None:
    """PyTorch 2.13.0, Adam(lr=0.1, eps=1e-7) with betas[0] 0.95, 0.9, 0.85, 0.9: what its OneCycleLR does."""
    weights = train(
        model_with(Adam(0.1, beta_1=PiecewiseConstantSchedule([1, 2, 3], [0.95, 0.9, 0.85, 0.9]))), GRADIENTS[:4]
    )
    np.testing.assert_allclose(weights, [0.8138333, -1.9093096, 0.3043375], rtol=0, atol=CLOSE)


# ----------------------------------------------------------------------------------------------------------- momentum

CYCLIC = CyclicMomentum(TriangularSchedule(0.1, 0.5, step_size=3), low=0.5, high=0.8)
PIECEWISE = PiecewiseConstantSchedule([2, 5], [0.75, 0.25, 0.5])
MOMENTA = {
    "cyclic": (CYCLIC, [0.8, 0.7, 0.6, 0.5, 0.6, 0.7, 0.8, 0.7]),
    "piecewise": (PIECEWISE, [0.75, 0.75, 0.25, 0.25, 0.25, 0.5, 0.5, 0.5]),
}
RATE, RATES = PiecewiseConstantSchedule([3], [0.125, 0.0625]), [0.125] * 3 + [0.0625] * 5
MAKERS = {
    "momentum": lambda schedule, **options: SGD(RATE, schedule, **options),
    "nesterov": lambda schedule, **options: SGD(RATE, schedule, nesterov=True, **options),
    "adam": lambda schedule, **options: Adam(RATE, schedule, **options),
    "adamw": lambda schedule, **options: AdamW(RATE, beta_1=schedule, **{"weight_decay": 0.0, **options}),
}


def moved(kind: str, values, decay: float = 0.0, every: int = 1, gradients=GRADIENTS) -> np.ndarray:
    return by_hand(kind, gradients, RATES.__getitem__, values.__getitem__, decay, every)


@pytest.mark.parametrize(
    ("kind", "momentum", "compiled"),
    [
        *((kind, momentum, {}) for kind in MAKERS for momentum in MOMENTA),
        *((kind, "cyclic", {"steps_per_execution": 3}) for kind in MAKERS),
        ("nesterov", "piecewise", {"jit_compile": True}),
        ("adam", "cyclic", {"jit_compile": True}),
    ],
)
def test_momentum_follows_its_schedule(kind, momentum, compiled) -> None:
    schedule, values = MOMENTA[momentum]
    weights = train(model_with(MAKERS[kind](schedule, weight_decay=0.05), **compiled))
    np.testing.assert_allclose(weights, moved(kind, values, decay=0.05), rtol=0, atol=CLOSE)


@pytest.mark.parametrize("kind", MAKERS)
def test_momentum_counts_batches_under_gradient_accumulation(kind) -> None:
    schedule, values = MOMENTA["cyclic"]
    weights = train(model_with(MAKERS[kind](schedule, gradient_accumulation_steps=2)))
    np.testing.assert_allclose(weights, moved(kind, values, every=2), rtol=0, atol=CLOSE)


@pytest.mark.parametrize("kind", MAKERS)
def test_momentum_follows_its_schedule_in_bfloat16(kind) -> None:
    """The gradients are exact in bfloat16, and the weights are float32."""
    schedule, values = MOMENTA["piecewise"]
    weights = train(model_with(MAKERS[kind](schedule), dtype="mixed_bfloat16"))
    np.testing.assert_allclose(weights, moved(kind, values), rtol=0, atol=CLOSE)


def test_momentum_follows_its_schedule_under_the_wrapper_of_float16() -> None:
    model = model_with("sgd", dtype="mixed_float16")
    model.compile(keras.optimizers.LossScaleOptimizer(SGD(RATE, PIECEWISE), initial_scale=8.0), output)
    np.testing.assert_allclose(train(model), moved("momentum", MOMENTA["piecewise"][1]), rtol=0, atol=CLOSE)


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}], ids=["plain", "accumulated"])
@pytest.mark.parametrize("kind", MAKERS)
def test_going_on_from_a_saved_model_equals_never_having_saved(kind, options, tmp_path) -> None:
    schedule, values = MOMENTA["cyclic"]
    model = model_with(MAKERS[kind](schedule, **options))
    train(model, GRADIENTS[:3])
    model.save(tmp_path / "middle.keras")
    loaded = keras.models.load_model(tmp_path / "middle.keras")
    before, after = model.optimizer.variables, loaded.optimizer.variables
    assert [one.path.split("_")[-1] for one in before] == [one.path.split("_")[-1] for one in after]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other))
    whole, parts = train(model, GRADIENTS[3:]), train(loaded, GRADIENTS[3:])
    np.testing.assert_array_equal(whole, parts)
    np.testing.assert_allclose(
        whole, moved(kind, values, every=options.get("gradient_accumulation_steps", 1)), rtol=0, atol=CLOSE
    )


@pytest.mark.parametrize("nesterov", [False, True])
def test_constant_schedule_equals_keras_sgd(nesterov) -> None:
    ours = train(model_with(SGD(0.1, callbacks.ConstantSchedule(0.9), nesterov)))
    theirs = train(model_with(keras.optimizers.SGD(0.1, 0.9, nesterov)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-7)


def test_keras_own_momentum_ignores_what_a_callback_sets() -> None:
    """Why the schedule is needed: the attribute is built into the compiled step. If this fails, Keras has changed."""
    model = model_with(keras.optimizers.SGD(0.1, momentum=0.9))
    setting = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: setattr(model.optimizer, "momentum", 0.1 if batch > 1 else 0.9)
    )
    model.fit(GRADIENTS, np.zeros(8), batch_size=1, shuffle=False, verbose=0, callbacks=[setting])
    expected = by_hand("momentum", GRADIENTS, lambda _: 0.1, lambda _: 0.9)
    np.testing.assert_allclose(model.get_weights()[0][:, 0], expected, rtol=0, atol=CLOSE)


def test_momentum_that_follows_a_schedule_is_the_schedule_when_read() -> None:
    assert SGD(0.1, CYCLIC).momentum is CYCLIC
    assert Adam(0.1, CYCLIC).beta_1 is CYCLIC


def test_schedule_that_is_not_registered_comes_from_custom_objects() -> None:
    class Unregistered(PiecewiseConstantSchedule):
        pass

    config = SGD(0.1, Unregistered([1], [0.5, 0.25])).get_config()
    made = SGD.from_config(config, custom_objects={"Unregistered": Unregistered})
    assert isinstance(made.momentum, Unregistered)
    assert float(made.momentum(1)) == 0.25


def test_multiplier_of_the_rate_is_kept_once_where_two_schedules_share_it(tmp_path) -> None:
    shared = callbacks.Scale(callbacks.ConstantSchedule(0.5), multiplier=0.5)
    model = model_with(SGD(shared, momentum=shared))
    train(model, GRADIENTS[:2])
    assert len(model.optimizer.variables) == 3  # iterations, velocity, multiplier
    np.testing.assert_allclose(
        model.get_weights()[0][:, 0],
        by_hand("momentum", GRADIENTS[:2], lambda _: 0.25, lambda _: 0.25),
        rtol=2e-6,
    )


# --------------------------------------------------------------------------------------------------------------- Muon

MATRIX = np.array([[1.0, -0.5], [0.25, 2.0], [-1.0, 0.5]])
MATRIX_GRADIENTS = np.array(
    [
        [[0.5, -1.0], [2.0, 1.0], [0.25, -0.5]],
        [[-0.75, 0.5], [1.0, 0.25], [-0.5, 0.125]],
        [[0.125, 1.5], [-1.0, 0.5], [0.75, -0.25]],
    ]
)


def muon_by_hand(w: np.ndarray, gradients, rate: float, decay: float) -> np.ndarray:
    m = np.zeros_like(w)
    for g in gradients:
        m = 0.95 * m + g
        x = g + 0.95 * m
        x = x / np.linalg.norm(x)
        for _ in range(5):
            square = x.T @ x
            x = 3.4445 * x + x @ (-4.7750 * square + 2.0315 * square @ square)
        w = w - rate * decay * w - rate * 0.2 * np.sqrt(max(w.shape)) * x
    return w


def variable(value: np.ndarray, name: str = "kernel") -> keras.Variable:
    return keras.Variable(value.astype("float32"), name=name)


def steps(optimizer, variables, gradients) -> list[np.ndarray]:
    for one in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(g, "float32") for g in one], variables)
    return [keras.ops.convert_to_numpy(one) for one in variables]


def test_muon_on_a_matrix_equals_the_update_written_by_hand() -> None:
    (weights,) = steps(Muon(0.1, weight_decay=0.05), [variable(MATRIX)], MATRIX_GRADIENTS[:, None])
    np.testing.assert_allclose(weights, muon_by_hand(MATRIX, MATRIX_GRADIENTS, 0.1, 0.05), rtol=0, atol=5e-6)


def test_muon_on_a_matrix_equals_pytorch() -> None:
    """PyTorch 2.13.0, Muon(lr=0.1, weight_decay=0.05, adjust_lr_fn="match_rms_adamw").

    It iterates in bfloat16, hence the tolerance; the test above has none of this kind.
    """
    (weights,) = steps(Muon(0.1, weight_decay=0.05), [variable(MATRIX)], MATRIX_GRADIENTS[:, None])
    np.testing.assert_allclose(weights, [[0.9875, -0.5072], [0.183, 1.9293], [-1.0191, 0.5106]], rtol=0, atol=3e-3)


def test_muon_treats_a_convolution_as_the_matrix_of_its_outputs() -> None:
    generator = np.random.default_rng(0)
    kernel, gradients = generator.normal(size=(3, 3, 2, 4)), generator.normal(size=(3, 3, 3, 2, 4))
    (convolved,) = steps(Muon(0.1), [variable(kernel)], gradients[:, None])
    (flat,) = steps(Muon(0.1), [variable(kernel.reshape(18, 4))], gradients.reshape(3, 1, 18, 4))
    np.testing.assert_allclose(convolved.reshape(18, 4), flat, rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        flat, muon_by_hand(kernel.reshape(18, 4), gradients.reshape(3, 18, 4), 0.1, 0.004), rtol=0, atol=5e-6
    )


@pytest.mark.parametrize("shape", [(3, 3, 2, 4), (4, 18), (18, 4)])
def test_update_of_muon_is_nearly_orthogonal(shape) -> None:
    gradient = np.random.default_rng(0).normal(size=shape)
    (weights,) = steps(Muon(1.0, weight_decay=0.0, rms_rate=None), [variable(np.zeros(shape))], [[gradient]])
    singular = np.linalg.svd(weights.reshape(-1, shape[-1]), compute_uv=False)
    assert singular.shape == (4,)
    assert singular.min() > 0.65
    assert singular.max() < 1.25  # what five iterations with Muon's coefficients reach


def names_of_adamw(model: keras.Model, **options) -> list[str]:
    optimizer = Muon(0.1, **options)
    optimizer.build(model.trainable_variables)
    velocities = [one.path for one in optimizer.variables if one.path.endswith("velocity")]
    return [one.path for one in model.trainable_variables if any(one.path.replace("/", "_") in v for v in velocities)]


def test_vectors_depthwise_kernels_embeddings_and_excluded_layers_are_for_adamw() -> None:
    inputs = keras.Input((8, 8, 2))
    x = keras.layers.Conv2D(4, 3, use_bias=False, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.DepthwiseConv2D(3, use_bias=False, name="spread")(x)
    x = keras.layers.SeparableConv2D(4, 3, depth_multiplier=2, use_bias=False, name="separable")(x)
    x = keras.layers.Dense(6, name="hidden")(keras.layers.GlobalAveragePooling2D()(x))
    tokens = keras.Input((3,))
    embedded = keras.layers.Embedding(5, 6, name="embedding")(tokens)
    attended = keras.layers.MultiHeadAttention(2, 3, use_bias=False, name="attention")(embedded, embedded)
    both = keras.layers.Concatenate()([x, keras.layers.GlobalAveragePooling1D()(attended)])
    model = keras.Model([inputs, tokens], keras.layers.Dense(3, use_bias=False, name="head")(both))
    muon = {one.path for one in model.trainable_variables} - set(names_of_adamw(model, exclude_layers=["^head"]))
    assert muon == {"conv/kernel", "separable/pointwise_kernel", "hidden/kernel"}
    assert "head/kernel" not in names_of_adamw(model)
    assert "embedding/embeddings" not in names_of_adamw(model, exclude_embeddings=False)


def test_biases_and_scales_with_two_axes_are_for_adamw() -> None:
    inputs = keras.Input((3, 4))
    x = keras.layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    x = keras.layers.LayerNormalization(axis=[1, 2], name="norm")(x)
    model = keras.Model(inputs, keras.layers.GRU(5, name="gru")(x))
    two_axes = {one.path for one in model.trainable_variables if len(one.shape) == 2}
    matrices = {"gru/gru_cell/kernel", "gru/gru_cell/recurrent_kernel"}
    assert two_axes - matrices >= {"attention/query/bias", "norm/gamma", "gru/gru_cell/bias"}
    assert {one.path for one in model.trainable_variables} - set(names_of_adamw(model)) == matrices


def test_muon_gives_vectors_the_step_of_adamw() -> None:
    ours = train(model_with(Muon(0.1, adam_weight_decay=0.05)))
    np.testing.assert_allclose(
        ours, by_hand("adamw", GRADIENTS, lambda _: 0.1, lambda _: 0.9, 0.05), rtol=0, atol=CLOSE
    )


# ------------------------------------------------------------------------------------------------- names and arguments


@pytest.mark.parametrize(("name", "near"), [("adamv", "adam"), ("SGD", "sgd"), ("nestorov", "nesterov")])
def test_unknown_name_lists_all_and_the_nearest(name, near) -> None:
    with pytest.raises(ValueError, match=rf"no optimiser '{name}'.*sgd, momentum.*muon_sgd\. Did you mean '{near}'"):
        callbacks.get_optimizer(name, 0.1)


def test_unknown_option_names_the_nearest_and_all() -> None:
    with pytest.raises(ValueError, match=r"SGD has no option 'momentun'.*Did you mean 'momentum'.*nesterov.*groups"):
        callbacks.get_optimizer("nesterov", 0.1, momentun=0.95)


CLASSES = ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW", "Muon"]
OTHER_VALUES = {
    "learning_rate": 0.125,
    "nesterov": True,
    "amsgrad": True,
    "centered": True,
    "use_ema": True,
    "ema_overwrite_frequency": 7,
    "gradient_accumulation_steps": 3,
    "clipvalue": None,
    "global_clipnorm": None,
    "name": "mine",
    "exclude_layers": ["head"],
    "exclude_embeddings": False,
    "ns_steps": 4,
}


@pytest.mark.parametrize("kind", CLASSES)
def test_every_argument_of_keras_is_taken_by_position_and_by_name(kind) -> None:
    ours, theirs = getattr(callbacks, kind), getattr(keras.optimizers, kind)
    parameters = [one for one in inspect.signature(theirs).parameters if one != "kwargs"]
    values = {name: OTHER_VALUES.get(name, 0.375) for name in parameters}
    expected = theirs(*values.values()).get_config()
    for made in (ours(*values.values()), ours(**values)):
        config = made.get_config()
        assert {name: config[name] for name in expected} == expected
        assert isinstance(made, theirs)
    assert list(inspect.signature(ours).parameters) == [*parameters, "groups", "gradient_noise"]


def test_arguments_of_muon_sgd_are_its_own_and_then_those_of_sgd() -> None:
    parameters = inspect.signature(callbacks.MuonSGD).parameters
    assert list(parameters)[:3] == ["learning_rate", "momentum", "iterations"]
    assert (parameters["momentum"].default, parameters["iterations"].default) == (0.9, 3)
    assert {"weight_decay", "clipnorm", "groups", "gradient_noise"} < set(parameters)
    with pytest.raises(ValueError, match=r"has no option 'iteration'. Did you mean 'iterations'\?"):
        callbacks.MuonSGD(0.1, iteration=4)


@pytest.mark.parametrize("kind", CLASSES)
def test_defaults_are_those_of_keras(kind) -> None:
    ours, theirs = getattr(callbacks, kind)(name="one").get_config(), getattr(keras.optimizers, kind)(name="one")
    assert {name: ours[name] for name in theirs.get_config()} == theirs.get_config()


@pytest.mark.parametrize("rate", [1, np.float32(1.0), np.array(1.0), 1.0])
def test_any_number_is_a_rate(rate) -> None:
    np.testing.assert_allclose(train(model_with(SGD(rate, 0)), GRADIENTS[:1]), START - GRADIENTS[0], rtol=1e-6)


@pytest.mark.parametrize("rate", [-0.1, float("nan"), float("inf"), "fast", None, lambda: 0.1])
def test_what_is_no_rate_is_refused(rate) -> None:
    with pytest.raises(ValueError, match="`learning_rate` must be a number"):
        callbacks.get_optimizer("adam", rate)


@pytest.mark.parametrize(("kind", "name"), [("Muon", "momentum"), ("RMSprop", "momentum"), ("SGD", "weight_decay")])
def test_schedule_where_none_can_act_is_refused(kind, name) -> None:
    with pytest.raises(ValueError, match=rf"`{name}` of {kind} must be a number"):
        getattr(callbacks, kind)(0.1, **{name: PIECEWISE})


def test_momentum_is_no_rate() -> None:
    with pytest.raises(ValueError, match="CyclicMomentum is for `momentum` of SGD"):
        SGD(CyclicMomentum(TriangularSchedule(0.1, 0.5, 3)))


@pytest.mark.parametrize("decay", [-1.0, "x", float("nan"), float("inf")])
def test_weight_decay_must_not_be_negative(decay) -> None:
    with pytest.raises(ValueError, match=r"`weight_decay` must be at least 0 and finite, or None. Received"):
        SGD(0.1, weight_decay=decay)


@pytest.mark.parametrize("name", ["sdg", ["sgd"], None])
def test_unknown_optimiser_is_an_error_that_names_all(name) -> None:
    with pytest.raises(ValueError, match="There are: sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw, muon"):
        callbacks.get_optimizer(name, 0.1)


def test_gradient_noise_must_be_one() -> None:
    with pytest.raises(ValueError, match="`gradient_noise` must be a GradientNoise"):
        SGD(0.1, gradient_noise=0.01)


@pytest.mark.parametrize("kind", CLASSES)
def test_clone_has_the_same_configuration(kind) -> None:
    made = getattr(callbacks, kind)(PIECEWISE, groups=[callbacks.NO_DECAY], gradient_noise=callbacks.GradientNoise(0.3))
    clone = type(made).from_config(made.get_config())
    assert clone.get_config() == made.get_config()
    assert clone.groups == [callbacks.NO_DECAY]
    assert clone.gradient_noise.variance == 0.3


# ------------------------------------------------------------------------------------------------------ whole networks


def small_network() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            layers.Embedding(6, 4),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def fit_small_network(optimizer) -> list[np.ndarray]:
    model = small_network()
    generator = np.random.default_rng(0)
    model.compile(optimizer, "mse")
    model.fit(
        generator.integers(6, size=(16, 4)), generator.normal(size=(16, 3)), batch_size=4, verbose=0, shuffle=False
    )
    return model.get_weights()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *((kind, {"weight_decay": 0.1, "clipnorm": 0.5}) for kind in CLASSES[:-1]),
        ("SGD", {"momentum": 0.9, "gradient_accumulation_steps": 2}),
        ("AdamW", {"use_ema": True, "ema_overwrite_frequency": 2}),
    ],
)
def test_network_with_embedding_is_trained_as_by_keras(kind, options) -> None:
    """On TensorFlow the gradient of an embedding is sparse."""
    ours = fit_small_network(getattr(callbacks, kind)(0.01, **options))
    theirs = fit_small_network(getattr(keras.optimizers, kind)(0.01, **options))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["momentum", "nesterov", "adam"])
def test_constant_momentum_schedule_on_a_network_with_embedding(kind) -> None:
    options = {"beta_1": 0.9} if kind == "adam" else {"momentum": 0.9}
    (name,) = options
    plain = fit_small_network(callbacks.get_optimizer(kind, 0.01, **options))
    scheduled = fit_small_network(callbacks.get_optimizer(kind, 0.01, **{name: callbacks.ConstantSchedule(0.9)}))
    for one, other in zip(plain, scheduled, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def moves(optimizer, dtype: str) -> np.ndarray:
    """A kernel of `dtype` after one step from 0."""
    dense = keras.layers.Dense(3, kernel_initializer="zeros", dtype=dtype)
    model = keras.Sequential([keras.Input((2,)), dense])
    model.compile(optimizer, lambda y_true, y_pred: keras.ops.mean(y_pred))
    model.fit(np.array([[1.0, -2.0]]), np.zeros((1, 3)), verbose=0)
    return keras.ops.convert_to_numpy(keras.ops.cast(dense.kernel, "float32"))


@pytest.mark.parametrize("rate", [0.125, callbacks.ConstantSchedule(0.125)], ids=["number", "schedule"])
@pytest.mark.parametrize("kind", CLASSES)
def test_weights_of_bfloat16_are_trained(kind, rate) -> None:
    """bfloat16 has 8 bits: a number has a relative error of up to 0.4 %, and a step some of them."""
    options = {"Adam": {"beta_2": 0.9}, "AdamW": {"beta_2": 0.9}, "Muon": {"adam_beta_2": 0.9}}.get(kind, {})
    moved = [moves(getattr(callbacks, kind)(rate, **options), dtype) for dtype in ("float32", "bfloat16")]
    assert np.abs(moved[0]).min() > 0
    np.testing.assert_allclose(moved[1], moved[0], rtol=0.05)


@pytest.mark.parametrize(("kind", "name"), [("Adam", "beta_2"), ("AdamW", "beta_2"), ("Muon", "adam_beta_2")])
def test_beta_that_bfloat16_rounds_to_one_is_an_error_before_the_first_step(kind, name) -> None:
    """0.999 lies nearer to 1 than to 1 - 2 ** -8; with 1 Adam's correction of the bias is always 0."""
    with pytest.raises(ValueError, match=rf"`{name}` is rounded to 1 in bfloat16.*mixed_bfloat16.*{name}=0\.999"):
        moves(getattr(callbacks, kind)(0.125), "bfloat16")
    assert np.abs(moves(getattr(callbacks, kind)(0.125), "mixed_bfloat16")).min() > 0


def test_muon_lowers_the_loss_of_a_convolutional_network() -> None:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), layers.Conv2D(4, 3), layers.ReLU(), layers.Flatten(), layers.Dense(2, name="head")]
    )
    x = np.random.default_rng(0).normal(size=(32, 6, 6, 1))
    y = x[:, :2, 0, 0]
    model.compile(callbacks.get_optimizer("muon", 0.03, exclude_layers=["head"]), "mse")
    losses = model.fit(x, y, batch_size=8, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]


def test_muon_sgd_turns_kernels_by_orthogonal_matrices_and_the_rest_by_nesterovs_steps() -> None:
    """Two steps, by numpy: PyTorch's form of Nesterov's momentum, the kernel at the norm sqrt(outputs)."""
    generator = np.random.default_rng(0)
    kernel, bias = generator.normal(size=(3, 3, 2, 5)).astype("float32"), np.array([1.0, -2.0], "float32")
    gradients = [(generator.normal(size=kernel.shape), generator.normal(size=2)) for _ in range(2)]
    variables = [keras.Variable(kernel, name="kernel"), keras.Variable(bias, name="bias")]
    optimizer = callbacks.MuonSGD(0.1, momentum=0.6, groups=[callbacks.ParameterGroup("bias", rate=3.0)])
    velocities = [np.zeros_like(kernel), np.zeros_like(bias)]
    for pair in gradients:
        optimizer.apply([ops.convert_to_tensor(one.astype("float32")) for one in pair], variables)
        velocities = [0.6 * velocity + gradient for velocity, gradient in zip(velocities, pair, strict=True)]
        turn, step = (gradient + 0.6 * velocity for velocity, gradient in zip(velocities, pair, strict=True))
        matrix = turn.reshape(18, 5).T / np.linalg.norm(turn)
        for _ in range(3):
            gram = matrix @ matrix.T
            matrix = 3.4445 * matrix + (-4.7750 * gram + 2.0315 * gram @ gram) @ matrix
        kernel = kernel * np.sqrt(5) / np.linalg.norm(kernel) - 0.1 * matrix.T.reshape(kernel.shape)
        bias = bias - 0.3 * step
        # The matrices are bfloat16, as those of the source; two updates have a norm of about 0.2 x sqrt(5).
        assert np.linalg.norm(ops.convert_to_numpy(variables[0]) - kernel) < 0.03
        np.testing.assert_allclose(variables[1], bias, rtol=1e-5)
    values = np.linalg.svd(matrix, compute_uv=False)
    assert 0.4 < values.min() < values.max() < 1.6


def test_muon_sgd_treats_matrices_and_depthwise_kernels_as_sgd_does() -> None:
    shapes = {"dense": (4, 3), "depthwise": (3, 3, 4, 2), "column": (1, 1, 4, 1), "one_axis": (5,)}
    variables = [keras.Variable(np.ones(shape, "float32"), name=name) for name, shape in shapes.items()]
    optimizer = callbacks.MuonSGD(0.5, momentum=0.5)
    optimizer.apply([ops.ones(shape) for shape in shapes.values()], variables)
    for variable in variables:
        np.testing.assert_allclose(variable, np.full(variable.shape, 1 - 0.5 * 1.5))


def test_muon_sgd_leaves_a_group_of_rate_0_alone() -> None:
    kernel = keras.Variable(np.ones((3, 3, 2, 5), "float32"), name="kernel")
    optimizer = callbacks.MuonSGD(0.5, groups=[callbacks.ParameterGroup("kernel", rate=0.0)])
    optimizer.apply([ops.ones(kernel.shape)], [kernel])
    np.testing.assert_array_equal(kernel, np.ones(kernel.shape))


def test_muon_sgd_is_the_same_after_its_config_and_refuses_what_cannot_be() -> None:
    optimizer = callbacks.MuonSGD(0.3, momentum=0.7, iterations=5, weight_decay=0.1)
    again = callbacks.MuonSGD.from_config(optimizer.get_config())
    assert (again.momentum, again.newton_schulz, again.weight_decay) == (0.7, 5, 0.1)
    for options in ({"momentum": 0.0}, {"momentum": 1}, {"momentum": callbacks.CosineSchedule(1.0, 5)}):
        with pytest.raises(ValueError, match=r"`momentum` of MuonSGD must be a number in \(0, 1\)"):
            callbacks.MuonSGD(0.1, **options)
    with pytest.raises(ValueError, match="`iterations` must be at least 1"):
        callbacks.MuonSGD(0.1, iterations=0)
    with pytest.raises(ValueError, match="MuonSGD has Nesterov's momentum only"):
        callbacks.MuonSGD(0.1, nesterov=False)
    with pytest.raises(ValueError, match="MuonSGD has no option 'itrations'"):
        callbacks.MuonSGD(0.1, itrations=5)
