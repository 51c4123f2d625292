"""What holds for every network of the package: a new one gets all of this by registering."""

import functools
import math
import re
from collections.abc import Sequence

import keras
import numpy as np
import pytest
from keras import ops
from test_fold import difference, parts, randomise

import kerascnn
from kerascnn.layer_table import multiply_adds, without_values
from kerascnn.published import MULTIPLY_ADDS
from kerascnn.registry import lookup

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
# On JAX, which compiles every network for a long time, the small ones.
ON_JAX = (
    *("airbench94", "alexnet", "lenet5", "mobilenet_v1", "preact_resnet18", "resnet20", "resnet9", "vgg11_bn"),
    "wide_resnet16_8",
)
# One of each family in every run, where a property takes seconds; the others are deeper or wider forms of these.
FAMILIES = (
    *(
        "airbench94",
        "airbench96",
        "alexnet",
        "convnext_tiny",
        "densenet40_12",
        "efficientnet_b0",
        "googlenet",
        "inception_v3",
        "lenet5",
    ),
    *("mobilenet_v1", "mobilenet_v2", "preact_resnet18", "resnet18", "resnet20", "resnet50", "resnet9"),
    *("vgg11", "vgg11_bn", "wide_resnet16_8", "xception"),
)
# So deep that with random weights a rounding makes another network of them: their folding is not compared. They are the
# code of B0 to B4, with more blocks.
CHAOTIC = ("efficientnet_b5", "efficientnet_b6", "efficientnet_b7")
SMALLEST = ("lenet5", "mobilenet_v1", "resnet9", "resnet20", "vgg11_bn")  # built and traced in a second
HEADS = {"label": 4, "kids": 2}
SMALL = {"width": 0.125, "dropout": 0.0}


def networks(quick: Sequence[str], names: Sequence[str] | None = None) -> pytest.MarkDecorator:
    """All names (on JAX the small ones), those that are not quick marked as slow; tests come network by network."""
    names = ON_JAX if not ON_TENSORFLOW else names or kerascnn.list_models()
    marked = [pytest.param(name, marks=[] if name in quick else pytest.mark.slow) for name in names]
    return pytest.mark.parametrize("name", marked, scope="module")


every_network = networks(kerascnn.list_models())
every_family = networks(FAMILIES)
some_first = networks(SMALLEST)
one_of_each_family = networks(SMALLEST, FAMILIES)


def small_shape(name: str) -> tuple[int, int, int]:
    """Of pictures that the network still takes."""
    size = {"inception_v3": 75, "alexnet": 63}.get(name, 32)
    return (size, size, lookup(name).input_shape[-1])


def random_batch(name: str, count: int = 4) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Pictures of noise, half of them dark, and labels that agree with it."""
    generator = np.random.default_rng(0)
    dark = np.arange(count) % 2
    pictures = generator.integers(0, 256, (count, *small_shape(name))) / (1 + dark[:, None, None, None])
    return pictures.astype("float32"), dict.fromkeys(HEADS, dark)


def small_build(name: str) -> keras.Model:
    """The network at a small part of its width, in mixed bfloat16, without what is lost at random."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        # At an eighth, some of GoogLeNet's branches are so thin that none of their units is alive.
        width = 0.25 if name == "googlenet" else 0.125
        return kerascnn.build(name, small_shape(name), HEADS, width=width, dropout=0.0, stochastic_depth=0.0)
    finally:
        keras.config.set_dtype_policy(policy)


@functools.lru_cache(maxsize=1)
def small_network(name: str) -> keras.Model:
    """`small_build`, with no scale at zero, which would hide what is behind it, and random statistics in its norms."""
    keras.utils.set_random_seed(0)
    model = small_build(name)
    generator = np.random.default_rng(0)
    for variable in model.weights:
        if variable.name == "gamma" and not ops.convert_to_numpy(variable).any():
            variable.assign(np.full(variable.shape, 0.2))
        elif variable.name == "moving_variance":
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
    return model


def answers(model: keras.Model, pictures: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs in inference, the quicker way: tracing is slow on TensorFlow, a single operation on JAX."""
    outputs = model(pictures, training=False) if ON_TENSORFLOW else model.predict_on_batch(pictures)
    return {head: ops.convert_to_numpy(value) for head, value in outputs.items()}


@pytest.mark.skipif(not ON_TENSORFLOW, reason="The counts do not depend on the backend.")
@every_network
def test_parameters_and_multiply_adds_are_the_published_ones(name: str) -> None:
    network = lookup(name)
    model = without_values(lambda: kerascnn.build(name, network.input_shape, network.classes))
    assert sum(math.prod(variable.shape) for variable in model.trainable_variables) == network.parameters
    assert multiply_adds(model) == MULTIPLY_ADDS[name]


@every_network
def test_heads_and_layer_names_at_a_small_width_in_mixed_precision(name: str) -> None:
    model = without_values(lambda: small_build(name))
    found = {head: (logits.shape, logits.dtype) for head, logits in model.output.items()}
    assert found == {head: ((None, classes), "float32") for head, classes in HEADS.items()}
    names = [layer.name for layer in model.layers]
    assert len(set(names)) == len(names)
    assert not [one for one in names if re.fullmatch(r"(conv2d|activation|add|dense|batch_norm\w*)(_\d+)?", one)]


@every_family
def test_logits_are_finite_float32(name: str) -> None:
    pictures, _ = random_batch(name)
    for head, logits in answers(small_network(name), pictures).items():
        assert (logits.shape, str(logits.dtype)) == ((4, HEADS[head]), "float32")
        assert np.isfinite(logits).all()


@some_first
def test_keras_file_and_config_give_the_same_network(name: str, tmp_path) -> None:
    model = small_network(name)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.to_json() == model.to_json()
    pictures, _ = random_batch(name)
    for ours, theirs in zip(answers(model, pictures).values(), answers(again, pictures).values(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.skipif(not ON_TENSORFLOW, reason="SavedModels are TensorFlow's.")
@one_of_each_family
def test_saved_model_gives_the_same_answers_at_another_batch_size(name: str, tmp_path) -> None:
    import tensorflow as tf

    model = kerascnn.build(name, small_shape(name), HEADS, width=0.125)
    randomise(model, seed=0)
    model.export(tmp_path / "1", verbose=False)
    served = tf.saved_model.load(tmp_path / "1").signatures["serving_default"]
    for count in (1, 3):
        pictures, _ = random_batch(name, count)
        for head, logits in answers(model, pictures).items():
            np.testing.assert_allclose(served(tf.constant(pictures))[head], logits, rtol=1e-3, atol=1e-4)


@networks(FAMILIES, [name for name in kerascnn.list_models() if name not in CHAOTIC])
def test_same_network_without_batch_norm_gives_the_same_outputs(name: str) -> None:
    model = kerascnn.build(name, small_shape(name), HEADS, width=0.125)
    pictures = randomise(model, seed=0)
    folded = kerascnn.fold_batch_norm(model)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in parts(folded))
    assert difference(model, folded, pictures) < 1e-4


@one_of_each_family
def test_every_option_that_is_accepted_changes_the_network(name: str) -> None:
    plain = without_values(lambda: kerascnn.build(name, small_shape(name), 3, **SMALL)).to_json()
    for option in (
        {"dropout": 0.37},
        {"l2": 0.1},
        {"input_noise": 0.1},
        {"activation": "elu"},
        {"initializer": "zeros"},
    ):
        changed = without_values(lambda option=option: kerascnn.build(name, small_shape(name), 3, **SMALL | option))
        assert changed.to_json() != plain, option


@every_network
def test_wrong_input_is_an_error_before_any_layer_is_made(name: str) -> None:
    with pytest.raises(ValueError, match="at least one class"):
        kerascnn.build(name, small_shape(name), 0)
    with pytest.raises(ValueError, match="one value per channel"):
        kerascnn.build(name, small_shape(name), 2, mean=[1.0, 2.0])
    with pytest.raises(ValueError, match="has no option 'colour'"):
        kerascnn.build(name, small_shape(name), 2, colour=1)


@every_family
def test_every_trainable_variable_learns_and_the_loss_falls(name: str) -> None:
    model = small_network(name)
    pictures, labels = random_batch(name, 16)  # norms of the smallest maps see no more values than pictures
    before = [ops.convert_to_numpy(variable) for variable in model.trainable_variables]
    model.compile(
        keras.optimizers.Adam(1e-4),
        loss={head: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for head in HEADS},
        run_eagerly=ON_TENSORFLOW,  # tracing takes longer than the few steps
    )
    losses = [model.train_on_batch(pictures, labels, return_dict=True)["loss"] for _ in range(4)]
    still = [
        variable.path
        for variable, value in zip(model.trainable_variables, before, strict=True)
        if np.array_equal(ops.convert_to_numpy(variable), value)
    ]
    assert still == []
    assert min(losses[1:]) < losses[0]
    small_network.cache_clear()
