"""What is special to single families: auxiliary heads, options of the papers, and every option of `Net`."""

import keras
import numpy as np
import pytest
from keras import ops

import kerascnn
from kerascnn.blocks import NORMS, Net
from kerascnn.googlenet import LocalResponseNormalization
from kerascnn.layer_table import without_values
from kerascnn.resnet_cifar import subsampled


def parameters(name: str, shape: tuple[int, int, int] = (224, 224, 3), classes: int = 1000, **options: object) -> int:
    """Trainable values of a network, without making them."""
    model = without_values(lambda: kerascnn.build(name, shape, classes, **options))
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def test_auxiliary_heads_have_the_parameters_of_the_papers() -> None:
    assert parameters("googlenet", auxiliary=True) == 13_378_280
    assert parameters("inception_v3", (299, 299, 3), auxiliary=True) == 27_161_264  # torchvision 0.29


def test_other_forms_have_the_parameters_of_their_references() -> None:
    # torchvision's ResNet-18 and -50 with the stem and the 10 classes of CIFAR networks, from their layers' sizes
    assert parameters("resnet18", (32, 32, 3), 10, stem="small") == 11_173_962
    assert parameters("lenet5", (32, 32, 3), 10) == 62_006
    assert parameters("resnet50", downsample="3x3") == 25_557_032
    assert parameters("densenet_bc_100_12", (32, 32, 3), 100) == 800_032
    assert parameters("wide_resnet28_10", (32, 32, 3), 100) == 36_536_884
    assert parameters("se_resnet50", blocks=(3, 4, 23, 3)) == 49_326_872  # SE-ResNet-101
    assert parameters("se_resnext50_32x4d", blocks=(3, 4, 23, 3)) == 48_955_416  # SE-ResNeXt-101


def test_auxiliary_heads_are_outputs_of_their_own_and_learn_with_their_weight() -> None:
    model = kerascnn.build("googlenet", (128, 128, 3), {"label": 3}, width=0.125, auxiliary=True, norm="batch")
    assert list(model.output) == ["label", "label_auxiliary1", "label_auxiliary2"]
    assert kerascnn.auxiliary_weights(model) == {"label": 1.0, "label_auxiliary1": 0.3, "label_auxiliary2": 0.3}
    main = kerascnn.without_auxiliary(model)
    assert list(main.output) == ["label"]
    pictures = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3)).astype("float32")
    expected = model.predict_on_batch(pictures)["label"]
    np.testing.assert_allclose(main.predict_on_batch(pictures)["label"], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="needs 5 pixels"):
        kerascnn.build("googlenet", (32, 32, 3), 3, auxiliary=True)
    single = kerascnn.build("googlenet", (128, 128, 3), 3, width=0.125, auxiliary=True)
    assert kerascnn.without_auxiliary(single).output.shape == (None, 3)


def test_response_normalisation_divides_by_the_five_channels_around() -> None:
    values = np.array([100.0, 0.0, 0.0, 200.0, 0.0, 0.0, 0.0], "float32").reshape(1, 1, 1, 7)
    found = ops.convert_to_numpy(LocalResponseNormalization()(values)).reshape(-1)
    # Channel 0 sees 0 to 2, channel 3 sees 1 to 5: each only itself; 1 + 1e-4 / 5 * 100^2 = 1.2, and 1.8.
    np.testing.assert_allclose(found, [100 / 1.2**0.75, 0, 0, 200 / 1.8**0.75, 0, 0, 0], rtol=1e-5)


def test_shortcut_without_weights_takes_every_second_pixel_and_pads_the_channels_with_zeros() -> None:
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, subsampled(inputs, 6, 2, "shortcut"))
    pixels = np.arange(32, dtype="float32").reshape(1, 4, 4, 2)
    found = ops.convert_to_numpy(model(pixels))
    assert found.shape == (1, 2, 2, 6)
    np.testing.assert_array_equal(found[..., 2:4], pixels[:, ::2, ::2])
    assert not found[..., [0, 1, 4, 5]].any()


def test_residual_blocks_begin_as_their_shortcut() -> None:
    """The last scale of a block is zero: https://arxiv.org/abs/1706.02677, section 5.1."""
    model = kerascnn.build("resnet18", (32, 32, 3), 2, width=0.125)
    block = keras.Model(model.get_layer("stage1_block1_out").output, model.get_layer("stage1_block2_out").output)
    maps = np.abs(np.random.default_rng(0).normal(size=(1, 8, 8, 8))).astype("float32")
    np.testing.assert_allclose(ops.convert_to_numpy(block(maps)), maps, rtol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_can_be_chosen(norm: str) -> None:
    model = kerascnn.build("resnet20", (16, 16, 3), 2, width=0.25, norm=norm)
    kinds = {type(layer).__name__ for layer in model.layers if "Norm" in type(layer).__name__} - {"Normalization"}
    expected = {"batch": {"BatchNorm"}, "layer": {"LayerNormalization"}, "group": {"GroupNormalization"}, "none": set()}
    assert kinds == expected[norm]
    assert model.get_layer("stage1_block1_1_conv").use_bias == (norm == "none")
    assert np.isfinite(ops.convert_to_numpy(model(np.full((2, 16, 16, 3), 99.0, "float32")))).all()


@pytest.mark.parametrize(("channels", "groups"), [(48, 16), (7, 1)])
def test_group_norm_has_fewer_than_32_groups_where_these_do_not_divide_the_channels(channels: int, groups: int) -> None:
    inputs = keras.Input((4, 4, channels))
    model = keras.Model(inputs, Net(norm="group").normalise(inputs, name="norm"))
    assert model.get_layer("norm").groups == groups


@pytest.mark.parametrize(
    ("activation", "at_minus_two"),
    [
        *(("relu", 0.0), ("leaky_relu", -0.2), ("elu", np.exp(-2.0) - 1)),
        *(("silu", -2 / (1 + np.exp(2.0))), ("gelu", -0.0455), ("tanh", np.tanh(-2.0))),
    ],
)
def test_activations_are_chosen_by_name(activation: str, at_minus_two: float) -> None:
    inputs = keras.Input((1, 1, 1))
    model = keras.Model(inputs, Net(activation=activation).activate(inputs, name="act"))
    np.testing.assert_allclose(ops.convert_to_numpy(model(np.full((1, 1, 1, 1), -2.0))).item(), at_minus_two, atol=1e-4)
    built = kerascnn.build("resnet9", (8, 8, 3), 2, width=0.125, activation=activation)
    assert type(built.get_layer("prep_act")) is type(model.get_layer("act"))


def test_penalties_are_those_of_the_kernels() -> None:
    model = kerascnn.build("vgg11", (32, 32, 3), 2, width=0.125, l1=0.5, l2=0.25)
    kernels = [layer.kernel for layer in model.layers if getattr(layer, "kernel", None) is not None]
    values = [ops.convert_to_numpy(kernel).astype("float64") for kernel in kernels]
    expected = sum(0.5 * np.abs(value).sum() + 0.25 * (value**2).sum() for value in values)
    np.testing.assert_allclose(float(sum(model.losses)), expected, rtol=1e-4)
    assert len(kernels) == 11


def test_initialiser_is_that_of_every_kernel_but_the_heads() -> None:
    model = kerascnn.build("mobilenet_v2", (32, 32, 3), 2, width=0.125, initializer="zeros")
    for layer in model.layers:
        if getattr(layer, "kernel", None) is not None and not layer.name.startswith("head_"):
            assert not ops.convert_to_numpy(layer.kernel).any(), layer.name


def test_orthogonal_kernels_keep_lengths() -> None:
    model = kerascnn.build("resnet9", (8, 8, 3), 2, width=0.25, initializer="orthogonal")
    kernel = ops.convert_to_numpy(model.get_layer("layer1_conv").kernel)  # 3x3, 16 to 32 filters
    np.testing.assert_allclose(kernel.reshape(-1, 32).T @ kernel.reshape(-1, 32), np.eye(32), atol=1e-4)


def test_stochastic_depth_grows_linearly_and_loses_whole_branches_in_training_only() -> None:
    model = kerascnn.build("resnet18", (16, 16, 3), 2, width=0.125, stem="small", stochastic_depth=0.8)
    drops = [layer for layer in model.layers if layer.name.endswith("_drop")]
    np.testing.assert_allclose([layer.rate for layer in drops], np.arange(1, 9) / 10)
    branch = np.ones((400, 2, 2, 3), "float32")
    found = ops.convert_to_numpy(drops[-1](branch, training=True)).reshape(400, -1)
    assert set(found.min(axis=1)) == set(found.max(axis=1)) == {0.0, np.float32(5.0)}  # kept ones count 1 / (1 - 0.8)
    assert 0.1 < (found[:, 0] > 0).mean() < 0.3
    np.testing.assert_array_equal(ops.convert_to_numpy(drops[-1](branch)), branch)


def test_squeeze_and_excitation_gates_the_end_of_every_branch() -> None:
    model = without_values(lambda: kerascnn.build("preact_resnet18", (16, 16, 3), 2, width=0.5, se=8))
    assert model.get_layer("stage1_block1_se_squeeze").kernel.shape == (1, 1, 32, 4)
    assert sum(layer.name.endswith("_se_scale") for layer in model.layers) == 8
    assert parameters("resnet18", se=True) == parameters("se_resnet18")


def test_options_for_residual_branches_are_refused_where_there_are_none() -> None:
    for option in ("se", "stochastic_depth"):
        with pytest.raises(ValueError, match=rf"`{option}` is for residual branches; 'vgg11' has none"):
            kerascnn.build("vgg11", (32, 32, 3), 2, **{option: 0.5 if option == "stochastic_depth" else 16})
        with pytest.raises(ValueError, match=rf"`{option}` is for residual branches; groups of two convolutions have"):
            kerascnn.build("airbench94", (32, 32, 3), 2, **{option: 0.5 if option == "stochastic_depth" else 16})


def test_noise_is_added_to_the_pictures_in_training_only() -> None:
    model = kerascnn.build("resnet9", (32, 32, 3), 2, width=0.125, input_noise=0.5)
    layer, pictures = model.get_layer("input_noise"), np.zeros((8, 32, 32, 3), "float32")
    assert 0.48 < ops.convert_to_numpy(layer(pictures, training=True)).std() < 0.52
    assert not ops.convert_to_numpy(layer(pictures)).any()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"norm": "instance"}, "`norm` must be one of batch, layer, group, none. Received: norm='instance'"),
        ({"activation": "rleu"}, "`activation` must name one of Keras. Received: 'rleu'"),
        ({"initializer": "he"}, "`initializer` must name one of Keras. Received: 'he'"),
        ({"dropout": 1.0}, r"`dropout` must be in \[0, 1\)"),
        ({"width": 0}, "`width` must be positive"),
        ({"se": 1.5}, "`se` must be a whole number"),
        ({"stem": "big"}, "`stem` must be 'imagenet' or 'small'"),
        ({"downsample": "2x2"}, "`downsample` must be '1x1' or '3x3'"),
    ],
)
def test_options_that_do_not_fit_are_an_error(options: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        kerascnn.build("resnet50", (32, 32, 3), 2, **options)


@pytest.mark.parametrize(
    ("name", "shape", "match"),
    [
        ("vgg16", (None, None, 3), "flattens the picture"),
        ("vgg16", (31, 64, 3), "`vgg` needs 32 pixels in height and width. Received: 31x64"),
        ("inception_v3", (64, 64, 3), "needs 75 pixels"),
        ("alexnet", (32, 32, 3), "needs 63 pixels"),
        ("lenet5", (8, 8, 1), "needs 16 pixels"),
        ("resnet9", (4, 4, 3), "needs 8 pixels"),
    ],
)
def test_pictures_that_are_too_small_are_an_error(name: str, shape: tuple[int, int, int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        kerascnn.build(name, shape, 10)


@pytest.mark.parametrize(
    ("name", "options", "multiple"),
    [
        *(("resnet20", {"depth": 21}, r"6 n \+ 2"), ("wide_resnet28_10", {"depth": 29}, r"6 n \+ 4")),
        *(("densenet40_12", {"depth": 41}, r"3 n \+ 4"), ("preact_resnet164", {"depth": 165}, r"9 n \+ 2")),
    ],
)
def test_depths_that_are_no_multiple_of_the_blocks_are_an_error(
    name: str, options: dict[str, int], multiple: str
) -> None:
    with pytest.raises(ValueError, match=rf"`depth` must be {multiple}"):
        kerascnn.build(name, (32, 32, 3), 10, **options)


@pytest.mark.parametrize(
    "name", ["resnet18", "densenet121", "mobilenet_v1", "mobilenet_v2", "efficientnet_b0", "convnext_tiny"]
)
def test_small_stem_keeps_the_resolution_of_small_pictures(name: str) -> None:
    sizes = {}
    for stem in ("imagenet", "small"):
        model = without_values(lambda stem=stem: kerascnn.build(name, (64, 64, 3), 2, width=0.25, stem=stem))
        pooled = model.get_layer("pool").input
        sizes[stem] = pooled.shape[1]
    assert sizes["imagenet"] == 2
    assert sizes["small"] >= 4


@pytest.mark.parametrize(
    ("shape", "classes", "options", "match"),
    [
        ((32, 32), 3, {}, r"`input_shape` must be \(height, width, channels\)"),
        ((32, 32, None), 3, {}, "`input_shape` must be"),
        ((0, 32, 3), 3, {}, "`input_shape` must be"),
        (32, 3, {}, "`input_shape` must be"),
        ((32, 32, 3), "10", {}, "`num_classes` needs a whole number"),
        ((32, 32, 3), 2.5, {}, "`num_classes` needs a whole number"),
        ((32, 32, 3), True, {}, "`num_classes` needs a whole number"),
        ((32, 32, 3), {}, {}, "`num_classes` needs a whole number"),
        ((32, 32, 3), {1: 3}, {}, "A head needs a name"),
        ((32, 32, 3), {"label_auxiliary1": 3}, {}, "A head needs a name"),
        ((32, 32, 3), 3, {"width": "0.5"}, "`width` must be a number"),
        ((32, 32, 3), 3, {"activation": None}, "`activation` must be text"),
        ((32, 32, 3), 3, {"mean": 127.5}, "`mean` needs one value per channel"),
    ],
)
def test_arguments_of_a_wrong_kind_are_an_error(
    shape: object, classes: object, options: dict[str, object], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        kerascnn.build("resnet20", shape, classes, **options)


def test_depthwise_kernels_begin_with_the_variance_of_their_own_inputs() -> None:
    """He: 2 / 9 for 3x3 values, however many channels there are."""
    keras.utils.set_random_seed(0)
    model = kerascnn.build("mobilenet_v1", (32, 32, 3), 2)
    for name in ("block1_depthwise_conv", "block13_depthwise_conv"):
        spread = ops.convert_to_numpy(model.get_layer(name).kernel).std()
        np.testing.assert_allclose(spread, np.sqrt(2 / 9), rtol=0.15)


def test_mobilenet_rounds_to_multiples_of_eight_without_losing_a_tenth() -> None:
    model = without_values(lambda: kerascnn.build("mobilenet_v2", (32, 32, 3), 2, width=0.75))
    assert model.get_layer("stage2_block1_project_conv").filters == 24  # 0.75 * 24 = 18; 16 would be less than 90 %
    assert model.get_layer("stem_conv").filters == 24


def test_without_a_norm_every_convolution_has_a_bias_and_blocks_begin_as_their_shortcut() -> None:
    convolutions = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    for name in ("densenet40_12", "preact_resnet18", "mobilenet_v1"):
        model = without_values(lambda name=name: kerascnn.build(name, (32, 32, 3), 2, width=0.5, norm="none"))
        assert all(layer.use_bias for layer in model.layers if isinstance(layer, convolutions))
    model = kerascnn.build("resnet18", (32, 32, 3), 2, width=0.125, norm="none")
    assert not ops.convert_to_numpy(model.get_layer("stage4_block2_2_conv").kernel).any()
    assert ops.convert_to_numpy(model.get_layer("stage4_block2_1_conv").kernel).any()


def test_gates_are_before_the_scale_of_convnext_and_only_once_in_efficientnet() -> None:
    model = without_values(lambda: kerascnn.build("convnext_tiny", (32, 32, 3), 2, width=0.25, se=4))
    assert model.get_layer("stage1_block1_layer_scale").input is model.get_layer("stage1_block1_se_scale").output
    with pytest.raises(ValueError, match="has gates of its own"):
        kerascnn.build("efficientnet_b0", (32, 32, 3), 2, se=16)
    gates = without_values(lambda: kerascnn.build("efficientnet_b0", (32, 32, 3), 2, activation="leaky_relu"))
    assert gates.get_layer("stage1_block1_gate_squeeze_act").negative_slope == 0.1


def test_networks_without_auxiliary_heads_say_so() -> None:
    model = kerascnn.build("resnet9", (8, 8, 3), {"my_auxiliary": 2}, width=0.125)
    for function in (kerascnn.auxiliary_weights, kerascnn.without_auxiliary):
        with pytest.raises(ValueError, match="has no auxiliary heads"):
            function(model)


def test_channels_first_is_refused() -> None:
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="channels_last"):
            kerascnn.build("resnet9", (8, 8, 3), 2)
    finally:
        keras.config.set_image_data_format("channels_last")
