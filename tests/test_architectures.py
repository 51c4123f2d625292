"""Where each architecture has its layers, by the figures and tables of its paper: what a count does not show."""

import functools

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerascnn
from kerascnn.blocks import Net, normalisation
from kerascnn.graph import wiring
from kerascnn.layer_table import without_values


def shapes_only(name: str, shape: tuple[int, int, int] = (32, 32, 3), **options: object) -> keras.Model:
    """A network for ten classes without values."""
    return without_values(lambda: kerascnn.build(name, shape, 10, **options))


def before(model: keras.Model, name: str) -> list[str]:
    """Names of the layers that a layer takes its inputs from."""
    return [source for source, _ in _sources(model)[name]]


@functools.lru_cache(maxsize=1)
def _sources(model: keras.Model) -> dict[str, list[tuple[str, tuple]]]:
    return wiring(model)[0]


def back(model: keras.Model, name: str, stop: str) -> list[str]:
    """Kinds of the layers from `stop` (excluded) to `name` (included) along the first inputs."""
    kinds: list[str] = []
    while name != stop:
        layer = model.get_layer(name)
        kinds.insert(0, type(layer).__name__)
        name = before(model, name)[0]
    return kinds


def test_penalties_are_on_depthwise_kernels_too() -> None:
    model = kerascnn.build("mobilenet_v1", (32, 32, 3), 2, width=0.125, l2=0.25)
    kernels = [ops.convert_to_numpy(layer.kernel) for layer in model.layers if hasattr(layer, "kernel")]
    assert len(kernels) == 28  # the stem, 13 times two, the head
    np.testing.assert_allclose(float(sum(model.losses)), sum(0.25 * (value**2).sum() for value in kernels), rtol=1e-4)


def test_initialiser_is_that_of_hidden_dense_layers() -> None:
    model = kerascnn.build("lenet5", (32, 32, 1), 2, initializer="zeros")
    assert not ops.convert_to_numpy(model.get_layer("dense1").kernel).any()


def test_noise_is_on_the_normalised_pictures() -> None:
    model = kerascnn.build("resnet9", (64, 64, 3), 2, width=0.125, input_noise=0.5)
    stem = keras.Model(model.input, model.get_layer("prep_conv").input)
    noise = stem(np.full((8, 64, 64, 3), 99.0, "float32"), training=True) - stem(np.full((8, 64, 64, 3), 99.0))
    assert 0.48 < ops.convert_to_numpy(noise).std() < 0.52  # on raw pixels it would be 0.5 / 58


def test_norms_work_with_the_momentum_epsilon_and_groups_that_they_are_given() -> None:
    maps = np.random.default_rng(0).normal(3, 2, (4, 2, 2, 64)).astype("float32")
    inputs = keras.Input((2, 2, 64))

    def norm(**options: object) -> keras.Model:
        return keras.Model(inputs, Net(epsilon=5.0, **options).normalise(inputs, name="norm"))

    batch = norm(norm="batch", momentum=0.25)
    batch(maps, training=True)
    moving = ops.convert_to_numpy(batch.get_layer("norm").moving_mean)
    np.testing.assert_allclose(moving, 0.75 * maps.mean((0, 1, 2)), rtol=1e-4)  # 0.25 of the zero it began with
    for options, shape, axes in (
        ({"norm": "layer"}, (4, 2, 2, 1, 64), (4,)),
        ({"norm": "group"}, (4, 2, 2, 32, 2), (1, 2, 4)),  # 32 groups of 2 channels
    ):
        parts = maps.reshape(shape)
        expected = (parts - parts.mean(axes, keepdims=True)) / np.sqrt(parts.var(axes, keepdims=True) + 5.0)
        found = ops.convert_to_numpy(norm(**options)(maps))
        np.testing.assert_allclose(found, expected.reshape(maps.shape), atol=1e-4)


def test_gate_is_a_sigmoid_of_two_layers_with_relu_between() -> None:
    inputs = keras.Input((2, 2, 1))
    model = keras.Model(inputs, Net().squeeze_excite(inputs, 1, name="se"))
    model.set_weights(
        [np.array(value).reshape(shape) for value, shape in zip((1, 0, 2, 0), [(1, 1, 1, 1), 1] * 2, strict=True)]
    )
    for pixel, gate in ((-3.0, 0.5), (1.0, 1 / (1 + np.exp(-2)))):  # relu(-3) = 0; 2 * relu(1) = 2
        found = ops.convert_to_numpy(model(np.full((1, 2, 2, 1), pixel, "float32")))
        np.testing.assert_allclose(found, pixel * gate, rtol=1e-5)


def test_gate_and_stochastic_depth_are_on_the_branch_and_not_on_the_sum() -> None:
    model = shapes_only("resnet20", se=4, stochastic_depth=0.5)
    assert before(model, "stage1_block2_add") == ["stage1_block1_out", "stage1_block2_drop"]
    assert before(model, "stage1_block2_drop") == ["stage1_block2_se_scale"]
    assert before(model, "stage1_block2_se_scale")[0] == "stage1_block2_2_norm"


@pytest.mark.parametrize(
    ("name", "places"),
    [
        # Where the papers have it: section 2.4 of Wide ResNet (between the convolutions), 4.2 of AlexNet and 3.1 of VGG
        # (around the dense layers), section 3 of DenseNet (after each convolution but the first), before the head else.
        ("wide_resnet16_8", {f"stage{stage}_block2_dropout": f"stage{stage}_block2_2_act" for stage in (1, 3)}),
        ("preact_resnet164", {"stage1_block1_dropout": "stage1_block1_2_act"}),
        ("alexnet", {"dropout6": "flatten", "dropout7": "dense6_act"}),
        ("vgg11", {"dropout1": "dense1_act", "dropout2": "dense2_act"}),
        ("densenet40_12", {f"{place}_dropout": f"{place}_conv" for place in ("block1_layer1_2", "transition1")}),
        *((name, {"dropout": "pool"}) for name in ("resnet9", "resnet18", "mobilenet_v2", "efficientnet_b0")),
        ("googlenet", {"dropout": "pool"}),
    ],
)
def test_dropout_is_where_the_paper_has_it(name: str, places: dict[str, str]) -> None:
    model = shapes_only(name, (64, 64, 3), dropout=0.25)
    for dropout, source in places.items():
        assert model.get_layer(dropout).rate == 0.25
        assert before(model, dropout) == [source]
    taken = {source for layer in model.layers[1:] for source in before(model, layer.name)}
    assert set(places) <= taken  # something comes after it


@pytest.mark.parametrize("name", ["resnet18", "resnet20"])
def test_residual_block_has_one_non_linearity_inside_and_one_after_the_sum(name: str) -> None:
    """Deep Residual Learning, section 3.2 and figure 2."""
    model = shapes_only(name, (64, 64, 3))
    source, branch = before(model, "stage1_block2_add")
    assert source == "stage1_block1_out"
    assert back(model, branch, source) == ["Conv2D", "BatchNorm", "Activation", "Conv2D", "BatchNorm"]
    assert before(model, "stage1_block2_out") == ["stage1_block2_add"]
    assert before(model, "stage2_block1_1_conv_pad")[0].endswith("_out")


def test_strides_are_padded_on_both_sides() -> None:
    """As torchvision does: `padding=1`. Keras' "same" would pad below and to the right only."""
    for name in ("resnet18", "resnet20", "wide_resnet16_8", "resnext50_32x4d"):
        model = shapes_only(name, (64, 64, 3))
        strided = [layer for layer in model.layers if getattr(layer, "strides", 1) == (2, 2)]
        padded = [layer for layer in strided if isinstance(layer, layers.Conv2D) and layer.kernel_size != (1, 1)]
        assert len(padded) >= 2
        for layer in padded:
            pad = model.get_layer(before(model, layer.name)[0])
            size = layer.kernel_size[0] // 2
            assert layer.padding == "valid"
            assert pad.padding == ((size, size), (size, size)), layer.name


def test_shortcuts_of_pre_activation_networks() -> None:
    """Identity Mappings, appendix: where the shape changes, the shortcut begins after the first activation."""
    for name in ("wide_resnet16_8", "preact_resnet164", "preact_resnet18"):
        model = shapes_only(name)
        assert before(model, "stage2_block1_shortcut") == ["stage2_block1_1_act"], name
        assert before(model, "stage2_block2_add")[0] == "stage2_block1_add", name


def test_bottleneck_blocks_begin_as_their_shortcut() -> None:
    for name in ("resnet50", "resnext50_32x4d"):
        model = kerascnn.build(name, (32, 32, 3), 2, width=0.125)
        block = keras.Model(model.get_layer("stage1_block1_out").output, model.get_layer("stage1_block2_out").output)
        maps = np.abs(np.random.default_rng(0).normal(size=(1, *block.input_shape[1:]))).astype("float32")
        np.testing.assert_allclose(ops.convert_to_numpy(block(maps)), maps, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "shape", "activations", "pools"),
    [
        # Non-linearities and pools from the papers' tables: of every convolution and every hidden dense layer
        ("alexnet", (64, 64, 3), 5 + 2, {"MaxPooling2D": 3}),
        ("lenet5", (32, 32, 1), 2 + 2, {"AveragePooling2D": 2}),
        ("resnet9", (32, 32, 3), 8, {"MaxPooling2D": 3, "GlobalMaxPooling2D": 1}),
        ("googlenet", (64, 64, 3), 3 + 9 * 6, {"MaxPooling2D": 4 + 9, "GlobalAveragePooling2D": 1}),
        ("resnet20", (32, 32, 3), 1 + 2 * 9, {"MaxPooling2D": 2, "GlobalAveragePooling2D": 1}),  # 2 are the subsampling
        ("wide_resnet16_8", (32, 32, 3), 2 * 6 + 1, {"GlobalAveragePooling2D": 1}),
        ("densenet40_12", (32, 32, 3), 36 + 2 + 1, {"AveragePooling2D": 2, "GlobalAveragePooling2D": 1}),
        ("resnet18", (64, 64, 3), 1 + 2 * 8, {"MaxPooling2D": 1, "GlobalAveragePooling2D": 1}),
    ],
)
def test_non_linearities_and_pools_are_those_of_the_paper(
    name: str, shape: tuple[int, int, int], activations: int, pools: dict[str, int]
) -> None:
    kinds = [type(layer).__name__ for layer in shapes_only(name, shape).layers]
    assert kinds.count("Activation") == activations
    assert {kind: kinds.count(kind) for kind in set(kinds) if "Pooling" in kind} == pools


def test_response_normalisation_is_where_googlenet_has_it() -> None:
    """Figure 3 of the paper: after the first pool, and before the second."""
    model = shapes_only("googlenet", (64, 64, 3))
    assert before(model, "stem1_response") == ["stem1_pool"]
    assert before(model, "stem2_reduce_conv") == ["stem1_response"]
    assert before(model, "stem2_response") == ["stem2_act"]
    assert before(model, "stem2_pool") == ["stem2_response"]
    normed = {type(layer).__name__ for layer in shapes_only("googlenet", (64, 64, 3), norm="batch").layers}
    assert "LocalResponseNormalization" not in normed


def test_auxiliary_heads_are_at_the_places_of_the_papers() -> None:
    model = shapes_only("googlenet", (224, 224, 3), auxiliary=True)
    assert before(model, "auxiliary4a_pool") == ["inception4a_concat"]
    assert before(model, "auxiliary4d_pool") == ["inception4d_concat"]
    assert {model.get_layer(f"auxiliary{module}_dropout").rate for module in ("4a", "4d")} == {0.7}
    model = shapes_only("inception_v3", (299, 299, 3), auxiliary=True)
    assert before(model, "auxiliary_pool") == ["mixed7_concat"]
    assert model.get_layer("auxiliary_5x5_conv").output.shape == (None, 1, 1, 768)  # torchvision's AuxLogits


@pytest.mark.parametrize(
    ("name", "side"),
    [
        # 64 pixels, halved as often as the small form still halves
        *(("resnet18", 8), ("densenet121", 8), ("mobilenet_v1", 8), ("mobilenet_v2", 8), ("efficientnet_b0", 8)),
        *(("convnext_tiny", 8), ("googlenet", 16), ("xception", 4)),
    ],
)
def test_small_stem_halves_as_often_as_it_says(name: str, side: int) -> None:
    model = shapes_only(name, (64, 64, 3), stem="small")
    assert model.get_layer("pool").input.shape[1] == side


def test_small_stem_of_alexnet() -> None:
    assert shapes_only("alexnet", (32, 32, 3), stem="small").get_layer("conv1_conv").output.shape[1] == 32


@pytest.mark.parametrize(
    ("name", "drops"),
    # B0 has 16 blocks, of which 9 have a shortcut: all but the first of the stages (1, 2, 2, 3, 3, 4, 1)
    [
        ("efficientnet_b0", [0.2 * block / 16 for block in (3, 5, 7, 8, 10, 11, 13, 14, 15)]),
        ("convnext_tiny", [0.1 * block / 18 for block in range(1, 19)]),
    ],
)
def test_stochastic_depth_is_the_published_one_unless_it_is_given(name: str, drops: list[float]) -> None:
    found = [layer.rate for layer in shapes_only(name, (64, 64, 3)).layers if layer.name.endswith("_drop")]
    np.testing.assert_allclose(found, drops)


def test_layer_scale_begins_small() -> None:
    model = kerascnn.build("convnext_tiny", (32, 32, 3), 2, width=0.125)
    np.testing.assert_allclose(model.get_layer("stage1_block1_layer_scale").get_weights()[0], 1e-6)


def test_logits_of_resnet9_are_an_eighth_of_its_last_layer() -> None:
    model = kerascnn.build("resnet9", (8, 8, 3), 2, width=0.125)
    both = keras.Model(model.input, [model.get_layer("head_0_logits").output, model.output])
    dense, logits = both(np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype("float32"))
    np.testing.assert_allclose(ops.convert_to_numpy(logits), 0.125 * ops.convert_to_numpy(dense), rtol=1e-6)


def test_normalisation_without_statistics_is_that_of_imagenet() -> None:
    # (123.675 + 116.28 + 103.53) / 3 and (58.395 + 57.12 + 57.375) / 3
    mean, std = normalisation(1)
    assert (mean, std) == ([pytest.approx(114.495)], [pytest.approx(57.63)])
    assert normalisation(3)[0] == [123.675, 116.28, 103.53]
    for channel in (0.0, -1.0):
        with pytest.raises(ValueError, match="`std` must be positive"):
            kerascnn.build("resnet9", (8, 8, 3), 2, mean=[1, 2, 3], std=[1, channel, 1])


def test_pictures_are_normalised_in_float32_under_mixed_bfloat16() -> None:
    """(201 - 200) / 1 = 1; bfloat16, with steps of 1 at 200, would be off where the mean is 200.4."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = kerascnn.build("resnet9", (8, 8, 3), 2, width=0.125, mean=[200.4] * 3, std=[1.0] * 3)
    finally:
        keras.config.set_dtype_policy("float32")
    normalised = keras.Model(model.input, model.get_layer("normalise").output)
    found = ops.convert_to_numpy(ops.cast(normalised(np.full((1, 8, 8, 3), 201.0, "float32")), "float32"))
    np.testing.assert_allclose(found, 0.6, atol=1e-3)
