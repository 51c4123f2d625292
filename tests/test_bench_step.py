"""The profile of a training step: every operation counted once, under the layer that it belongs to."""

import keras
import numpy as np
import pytest

from apps import bench_step
from apps.bench_step import Operation, by_kind
from apps.recipes import RECIPES
from apps.resolve import resolve


@pytest.fixture
def model() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="first")(inputs)
    x = keras.layers.Activation("silu", name="bend")(keras.layers.BatchNormalization(name="norm")(x))
    model = keras.Model(inputs, keras.layers.MaxPooling2D(name="pool")(x))
    model.compile(keras.optimizers.SGD(name="sgd"), loss="mse")
    return model


def test_operations_are_counted_under_their_layer_forward_and_back(model) -> None:
    operations = [
        Operation("net_1/first_1/convolution:Conv2D", 0.0, 1.0),
        Operation("gradient_tape/net_1/first_1/convolution:_MklConv2DBackpropFilter", 1.0, 3.0),
        Operation("net_1/norm_1/moments/mean:Mean", 3.0, 3.25),
        Operation("net_1/bend_1/mul:_MklSwish", 3.25, 3.5),
        Operation("gradient_tape/net_1/pool/MaxPoolGrad:MaxPoolGrad", 3.5, 4.0),
        Operation("sgd_2/AssignSub:AssignSubVariableOp", 5.0, 5.5),
        Operation("compile_loss/Sum:Sum", 5.5, 6.0),
        Operation("Conv2DBackpropInput_2:_MklNativeConv2DBackpropInput", 7.0, 7.5),  # gradients may have no scope
        Operation("Sigmoid_5:Sigmoid", 7.5, 7.75),
    ]
    assert by_kind(operations, model, 8.0) == {
        "convolutions": 3.5,
        "BatchNorm": 0.25,
        "activations": 0.5,
        "pooling": 0.5,
        "optimiser": 0.5,
        "everything else": 0.5,
        "Python, waiting": 2.25,
    }


def test_operations_at_the_same_time_share_it(model) -> None:
    operations = [
        Operation("net/first/convolution:Conv2D", 0.0, 4.0),
        Operation("net/norm/moments/mean:Mean", 1.0, 2.0),
        Operation("net/norm/moments/variance:Mean", 1.0, 2.0),
    ]
    seconds = by_kind(operations, model, 4.0)
    assert seconds["convolutions"] == pytest.approx(3 + 1 / 3)
    assert seconds["BatchNorm"] == pytest.approx(2 / 3)
    assert seconds["Python, waiting"] == pytest.approx(0.0)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's trace")
def test_parts_of_a_real_step_add_up_to_it() -> None:
    choices = {**RECIPES["cifar10-fast"], "width": 0.25, "batch_size": 32, "precision": "float32"}
    recipe = resolve(choices, 45_000, (32, 32), [["cat", "dog"]])
    figures = {figure.name: figure.median for figure in bench_step.figures_of(recipe, (16, 16), rounds=1)}
    whole = figures.pop("all")
    assert sum(figures.values()) == pytest.approx(whole)
    assert 0 <= figures[bench_step.WAITING] < whole
    for kind in ("convolutions", "BatchNorm", "activations", "pooling", "optimiser"):
        assert figures[kind] > 0, kind
    assert figures["convolutions"] == max(figures[kind] for kind in ("convolutions", "BatchNorm", "activations"))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's trace")
def test_traced_operations_lie_within_the_steps(model) -> None:
    operations, seconds = bench_step.trace(
        lambda: model.train_on_batch(np.zeros((2, 8, 8, 3)), np.zeros((2, 3, 3, 4))), 2
    )
    assert sum(operation.name.endswith("Conv2D") for operation in operations) == 2
    starts, ends = ([getattr(operation, when) for operation in operations] for when in ("start", "end"))
    assert 0 < max(ends) - min(starts) <= seconds
