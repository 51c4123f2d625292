"""Transfer learning the three ways: what begins with published weights, what learns, and what a competition allows."""

import json

import keras
import numpy as np
import pytest
from conftest import paint
from test_imagenet import random_source

import kerascnn
from kerascnn.transfer_learning import MODES

SIZE = 32


@pytest.fixture(scope="module")
def source() -> keras.Model:
    """Stands for the published network."""
    return random_source("mobilenet_v2", SIZE)


def learned(model: keras.Model) -> list[str]:
    """Names of the layers whose weights or statistics one step of training changes."""
    pictures = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3)).astype("float32")
    before = {layer.name: layer.get_weights() for layer in model.layers}
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.train_on_batch(pictures, np.array([0, 1, 2, 0]))
    return [
        layer.name
        for layer in model.layers
        if any(not np.array_equal(*pair) for pair in zip(layer.get_weights(), before[layer.name], strict=True))
    ]


def test_published_scales_are_not_put_into_frozen_ones() -> None:
    model = kerascnn.build("mobilenet_v2", (32, 32, 3), 3, frozen_scale=1.0)
    source = keras.applications.MobileNetV2((32, 32, 3), weights=None, classes=3)
    with pytest.raises(ValueError, match="Build the network without `frozen_scale`"):
        kerascnn.load_imagenet(model, source)


@pytest.mark.parametrize("mode", MODES)
def test_each_way_trains_its_layers_and_begins_with_its_weights(mode: str, source: keras.Model) -> None:
    keras.utils.set_random_seed(1)
    model = kerascnn.build("mobilenet_v2", (SIZE, SIZE, 3), 3)
    random = model.get_layer("last_conv").get_weights()[0]
    kerascnn.transfer(model, mode, source)
    stem, last = model.get_layer("stem_conv").get_weights()[0], model.get_layer("last_conv").get_weights()[0]
    np.testing.assert_array_equal(stem, source.get_layer("Conv1").get_weights()[0])
    np.testing.assert_array_equal(last, random if mode == "relearn" else source.get_layer("Conv_1").get_weights()[0])

    one, two, final = ({layer.name for layer in group} for group in kerascnn.layer_groups(model, 3))
    changed = set(learned(model))
    assert final <= changed
    # A frozen BatchNorm keeps its statistics too.
    assert changed & (one | two) == ((one | two) if mode == "all" else set())


def test_groups_hold_every_layer_once_in_the_order_of_the_network() -> None:
    model = kerascnn.build("resnet20", (32, 32, 3), 10, width=0.25)
    groups = kerascnn.layer_groups(model, 4)
    assert [layer for group in groups for layer in group] == [layer for layer in model.layers if layer.weights]
    assert [len(group) for group in groups] == [9, 10, 10, 10]  # 19 convolutions, 19 norms, a head
    with pytest.raises(ValueError, match="`groups` must be 1 to 39"):
        kerascnn.layer_groups(model, 40)


def test_frozen_layers_stay_and_unfrozen_ones_learn() -> None:
    model = kerascnn.build("resnet9", (SIZE, SIZE, 3), 3, width=0.125)
    frozen = kerascnn.freeze(model, "prep|layer1")
    assert {"prep_conv", "prep_norm", "layer1_residual_2_conv"} <= set(frozen)
    assert not set(frozen) & set(learned(model))
    assert kerascnn.freeze(model, "prep") == []  # they are frozen already
    assert set(kerascnn.unfreeze(model)) == set(frozen)
    assert set(frozen) <= set(learned(model))


def test_unfreezing_a_part_of_a_model_that_is_not_trainable_leaves_the_rest_frozen() -> None:
    model = kerascnn.build("resnet9", (SIZE, SIZE, 3), 3, width=0.125)
    model.trainable = False
    kerascnn.unfreeze(model, "head_")
    assert learned(model) == ["head_0_logits"]


def test_names_that_fit_no_layer_are_an_error() -> None:
    model = kerascnn.build("resnet9", (SIZE, SIZE, 3), 3, width=0.125)
    with pytest.raises(ValueError, match=r"No layer with weights.*'stage1'.*prep_conv"):
        kerascnn.freeze(model, "stage1")
    with pytest.raises(ValueError, match="no regular expression"):
        kerascnn.freeze(model, "(")
    with pytest.raises(ValueError, match="`mode` must be one of all, last, relearn"):
        kerascnn.transfer(model, "head")


def test_a_competition_is_from_scratch_unless_it_is_said_otherwise(run_here, colours) -> None:
    done = run_here("compete", colours, "--transfer", "last")
    assert done.returncode == 2
    assert "from scratch unless" in done.stderr
    assert "Add `--no-from-scratch`" in done.stderr
    recipe = colours.parent / "recipe.json"
    recipe.write_text(json.dumps({"transfer": "all"}))
    assert "from scratch unless" in run_here("compete", colours, "--recipe", recipe).stderr
    assert "one of none, all, last, relearn" in run_here("compete", colours, "--transfer", "some").stderr


@pytest.mark.slow
def test_competition_with_published_weights_trains_the_last_layers_of_them(
    run_here, tmp_path, source: keras.Model, monkeypatch
) -> None:
    """From the command line to the SavedModel; random weights stand for the file that is downloaded."""
    monkeypatch.setattr("kerascnn.imagenet.download", lambda name: source)
    rows = ["image,label"]
    for index in range(24):
        label, colour = (("red", (200, 40, 40)), ("blue", (40, 40, 200)))[index % 2]
        paint(tmp_path / "data/train" / f"{index}.png", colour, (SIZE, SIZE), seed=index)
        rows.append(f"{index},{label}")
    (tmp_path / "data/train.csv").write_text("\n".join(rows) + "\n")
    done = run_here(
        *("compete", tmp_path / "data", "--transfer", "last", "--no-from-scratch", "--epochs", 1, "--batch-size", 8),
        *("--precision", "float32", "--out", tmp_path / "run"),
    )
    assert done.returncode == 0, done.stderr
    model = keras.models.load_model(tmp_path / "run/model.keras")
    assert model.name == "mobilenet_v2"
    np.testing.assert_array_equal(
        model.get_layer("stem_conv").get_weights()[0], source.get_layer("Conv1").get_weights()[0]
    )
    assert not np.array_equal(
        model.get_layer("last_conv").get_weights()[0], source.get_layer("Conv_1").get_weights()[0]
    )
    assert model.get_layer("normalise").get_config()["mean"] == [127.5] * 3


def test_names_are_matched_from_their_beginning() -> None:
    model = kerascnn.build("resnet9", (32, 32, 3), 3, width=0.125)
    with pytest.raises(ValueError, match="No layer with weights"):
        kerascnn.freeze(model, "conv")  # the end of many names


def test_a_resumed_run_does_not_ask_again_whether_published_weights_are_allowed(run_here, colours, tmp_path) -> None:
    done = run_here("compete", colours, "--transfer", "all", "--resume", "--out", tmp_path / "nowhere")
    assert done.returncode == 2
    assert "from scratch" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--model", "vgg11"), "`vgg` needs 32 pixels"),
        (("--model", "densenet121", "--set", "se=16"), "'densenet121' has none"),
        (("--model", "resnet9", "--transfer", "all", "--no-from-scratch"), "No weights are published for 'resnet9'"),
    ],
)
def test_impossible_networks_are_an_error_before_any_picture_is_decoded(
    arguments: tuple[str, ...], error: str, run_here, colours, monkeypatch
) -> None:
    monkeypatch.setattr("apps.plan.open_pictures", lambda *_, **__: pytest.fail("decoded"))
    done = run_here("compete", colours, *arguments)
    assert done.returncode == 2
    assert error in done.stderr
