"""Convolution arithmetic: sizes, matrices, what every layer sees and costs, against hand counts and measurements."""

from collections.abc import Callable
from fractions import Fraction

import keras
import numpy as np
import pytest
from keras import layers

import kerascnn
from kerascnn.arithmetic import convolution_matrix, output_size, same_padding, transposed_output_size
from kerascnn.layer_table import layer_table, multiply_adds, without_values
from kerascnn.published import MULTIPLY_ADDS, TABLES, published
from kerascnn.registry import lookup

Part = Callable[[keras.KerasTensor], keras.KerasTensor]


def network(part: Part, shape: tuple[int | None, ...] = (10, 10, 8)) -> keras.Model:
    inputs = keras.Input(shape)
    return keras.Model(inputs, part(inputs))


# Sizes


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ({"n": 5, "kernel": 3}, 3),
        ({"n": 6, "kernel": 3, "stride": 2, "padding": 1}, 3),  # the last window would need a 9th pixel
        ({"n": 227, "kernel": 11, "stride": 4}, 55),
        ({"n": 7, "kernel": 3, "dilation": 2}, 3),
        ({"n": 1, "kernel": 3, "padding": 1}, 1),
    ],
)
def test_output_size_counts_the_windows_that_fit(arguments: dict[str, int], size: int) -> None:
    assert output_size(**arguments) == size


def test_same_padding_keeps_the_size() -> None:
    assert [same_padding(kernel) for kernel in (1, 3, 5, 11)] == [0, 1, 2, 5]


def test_transposed_size_is_that_of_the_course() -> None:
    assert transposed_output_size(6, kernel=3, stride=2, padding=1) == 11
    assert transposed_output_size(6, kernel=3, stride=2, padding=1, output_padding=1) == 12


def test_transposed_size_leads_back() -> None:
    for n, kernel, stride, padding, rest in np.ndindex(9, 6, 4, 3, 4):
        if rest <= stride and 2 * padding <= kernel:
            size = transposed_output_size(n + 1, kernel + 1, stride + 1, padding, rest)
            assert output_size(size, kernel + 1, stride + 1, padding) == n + 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: output_size(4, kernel=7, padding=1), r"7 pixels \(kernel=7, dilation=1\) on 6"),
        (lambda: output_size(4, kernel=3, dilation=2), "a kernel of 5 pixels"),
        (lambda: output_size(4, kernel=3, stride=0), "`stride` must be at least 1. Received: stride=0"),
        (lambda: output_size(4, kernel=3, padding=-1), "`padding` must be at least 0"),
        (lambda: same_padding(4), "odd kernel .* Received: kernel=4"),
        (lambda: transposed_output_size(0, kernel=3), "`n` must be at least 1"),
        (lambda: transposed_output_size(1, kernel=3, padding=2), "leaves nothing of 3 pixels"),
        (lambda: transposed_output_size(4, kernel=3, stride=2, output_padding=2), "smaller than `stride`"),
        (lambda: convolution_matrix(np.ones((5, 3)), 4), "must fit into the padded picture"),
        (lambda: convolution_matrix(np.ones(3), 4), r"two axes, .* shape=\(3,\)"),
    ],
)
def test_impossible_sizes_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# Matrices


def test_matrix_of_a_3x3_kernel_on_4x4_is_that_of_the_course() -> None:
    w = np.arange(1, 10).reshape(3, 3)
    assert convolution_matrix(w, 4).tolist() == [
        [1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0, 0],
        [0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0],
        [0, 0, 0, 0, 0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9],
    ]


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 0), (2, 1), (3, 2)])
def test_matrix_times_picture_is_the_convolution_layer(stride: int, padding: int) -> None:
    generator = np.random.default_rng(stride + padding)
    kernel, picture = generator.normal(size=(3, 4)), generator.normal(size=(7, 9))
    layer = layers.Conv2D(1, (3, 4), stride, use_bias=False)
    padded = layers.ZeroPadding2D(padding)(picture[None, :, :, None].astype("float32"))
    layer.build(padded.shape)
    layer.set_weights([kernel[:, :, None, None]])
    expected = np.array(layer(padded))[0, :, :, 0]
    answer = convolution_matrix(kernel, (7, 9), stride, padding) @ picture.ravel()
    np.testing.assert_allclose(answer.reshape(expected.shape), expected, atol=1e-5)


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 0), (2, 1), (3, 1)])
def test_transposed_matrix_is_the_transposed_convolution_layer(stride: int, padding: int) -> None:
    generator = np.random.default_rng(stride + padding)
    kernel, maps = generator.normal(size=(3, 3)), generator.normal(size=(4, 5))
    layer = layers.Conv2DTranspose(1, 3, stride, use_bias=False)
    layer.build((1, 4, 5, 1))
    layer.set_weights([kernel[:, :, None, None]])
    full = layer(maps[None, :, :, None].astype("float32"))
    expected = np.array(layers.Cropping2D(padding)(full) if padding else full)[0, :, :, 0]
    sizes = tuple(transposed_output_size(n, 3, stride, padding) for n in (4, 5))
    assert expected.shape == sizes
    answer = convolution_matrix(kernel, sizes, stride, padding).T @ maps.ravel()
    np.testing.assert_allclose(answer.reshape(sizes), expected, atol=1e-5)


def test_1x1_convolution_is_a_dense_layer_per_pixel() -> None:
    generator = np.random.default_rng(0)
    maps, kernel, bias = (generator.normal(size=shape).astype("float32") for shape in ((2, 4, 5, 3), (3, 6), (6,)))
    layer = layers.Conv2D(6, 1)
    layer.build(maps.shape)
    layer.set_weights([kernel[None, None], bias])
    np.testing.assert_allclose(layer(maps), maps @ kernel + bias, atol=1e-5)


def test_dense_layer_is_a_convolution_as_large_as_its_input() -> None:
    generator = np.random.default_rng(0)
    maps, kernel, bias = (generator.normal(size=shape).astype("float32") for shape in ((2, 4, 5, 3), (60, 6), (6,)))
    layer = layers.Conv2D(6, (4, 5))
    layer.build(maps.shape)
    layer.set_weights([kernel.reshape(4, 5, 3, 6), bias])
    np.testing.assert_allclose(layer(maps)[:, 0, 0], maps.reshape(2, 60) @ kernel + bias, atol=1e-5)


# Receptive fields


def measured_field(model: keras.Model) -> tuple[int, int]:
    """By lighting one row, then one column of a dark picture after the other: which units of the output change?"""
    for layer in model.layers:
        layer.set_weights([np.full(weight.shape, 0.5) for weight in layer.get_weights()])
    fields = []
    for axis in (1, 2):
        size = model.input_shape[axis]
        pictures = np.zeros((size, *model.input_shape[1:]), "float32")
        np.moveaxis(pictures, axis, 1)[np.arange(size), np.arange(size)] = 1
        answers = np.abs(np.array(model(pictures)))
        changed = answers.max(axis=(3 - axis, 3)) > 1e-9  # (lit pixel, unit)
        seen = [np.flatnonzero(column) for column in changed.T]
        fields.append(max(pixels[-1] - pixels[0] + 1 for pixels in seen if len(pixels)))
    return fields[0], fields[1]


def conv(kernel: int | tuple[int, int], stride: int = 1, padding: str = "same", **options: object) -> layers.Layer:
    return layers.Conv2D(2, kernel, stride, padding=padding, use_bias=False, **options)


def up(kernel: int, stride: int, padding: str = "same", **options: object) -> layers.Layer:
    return layers.Conv2DTranspose(2, kernel, stride, padding=padding, use_bias=False, **options)


def chain(*parts: Part) -> Part:
    def call(x: keras.KerasTensor) -> keras.KerasTensor:
        for part in parts:
            x = part(x)
        return x

    return call


def join(layer: layers.Layer, *parts: Part) -> Part:
    return lambda x: layer([part(x) for part in parts])


def behind(pixels: int) -> Part:
    return chain(PAD(((pixels, 0), (pixels, 0))), CUT(((0, pixels), (0, pixels))))


def ahead(pixels: int) -> Part:
    return chain(CUT(((pixels, 0), (pixels, 0))), PAD(((0, pixels), (0, pixels))))


ADD, CONCATENATE, UP = layers.Add, layers.Concatenate, layers.UpSampling2D
MORE = layers.Conv2D(6, 1, use_bias=False)
PAD, CUT = layers.ZeroPadding2D, layers.Cropping2D
PARTS = {
    "strides": chain(conv(5, 2), conv(3), conv(3, 2, "valid"), conv(3)),
    "pooling": chain(conv(3), layers.MaxPooling2D(3, 2), conv(3), layers.AveragePooling2D(2), conv(3)),
    "dilation": chain(conv(3, dilation_rate=3), layers.MaxPooling2D(2), conv(3, dilation_rate=2)),
    "oblong": chain(conv((1, 7)), conv((3, 1)), conv(2, (2, 1)), conv(3)),
    "channels": join(ADD(), chain(conv(3), MORE), PAD(((0, 0), (2, 2)), data_format="channels_first")),
    "groups": chain(conv(3), conv(5, groups=2), layers.DepthwiseConv2D(3, 2, use_bias=False)),
    "separable": chain(layers.SeparableConv2D(2, 5, 2, use_bias=False), layers.SeparableConv2D(2, 3, use_bias=False)),
    "residual": join(ADD(), chain(PAD(1), conv(3, 2, "valid"), conv(3)), conv(1, 2)),
    "beside": join(CONCATENATE(), conv(3), chain(PAD(((6, 0), (0, 6))), conv(7, 1, "valid"))),
    "shifted": join(CONCATENATE(), conv(1), chain(CUT(((9, 0), (0, 4))), PAD(((0, 9), (4, 0))))),
    "odd sizes": chain(CUT(((0, 1), (0, 2))), join(ADD(), conv(4, 3), chain(behind(2), conv(1, 3)))),
    "same by 2": join(ADD(), conv(3, 2), chain(behind(2), conv(1, 2))),
    "transposed 2": chain(conv(3, 2), up(2, 2), conv(2)),
    "transposed 3": chain(conv(3, 2), up(3, 2), conv(3)),
    "transposed 4": chain(conv(3, 2), up(4, 2), conv(3), up(4, 2, "valid"), conv(2)),
    "transposed 5 by 3": chain(conv(3, 3), up(5, 3, output_padding=1), conv(4)),
    "transposed 1 by 2": chain(conv(3, 2), up(1, 2), conv(3)),
    "skip": join(ADD(), conv(3), chain(layers.MaxPooling2D(2), conv(3), up(2, 2))),
    "skip by 4": join(CONCATENATE(), conv(3), chain(conv(4, 4), up(4, 4), conv(2))),
    "skip by 1": join(ADD(), conv(5), chain(layers.MaxPooling2D(2), up(4, 2))),
    "with rest": join(ADD(), chain(ahead(3), CUT(((0, 1), (0, 1)))), chain(conv(2, 2), up(5, 2, output_padding=0))),
    "skip bilinear": join(ADD(), conv(5), chain(layers.MaxPooling2D(2), UP(2, interpolation="bilinear"))),
    "nearest": chain(conv(3, 2), UP(2), conv(2), UP(3), conv(4)),
    "bilinear 2": chain(conv(3, 2), UP(2, interpolation="bilinear"), conv(3)),
    "bilinear 3": chain(conv(3, 3), UP(3, interpolation="bilinear"), conv(2)),
    "bicubic": chain(conv(3, 4), UP(4, interpolation="bicubic")),
    "up and down": chain(UP(3), conv(5, 2), conv(3)),
}  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_receptive_field_is_what_units_answer_to(part: str) -> None:
    model = network(PARTS[part], (36, 36, 2))
    assert layer_table(model)[-1].receptive_field == measured_field(model)


def test_unpooling_by_switches_meets_what_the_pooling_saw() -> None:
    from kerascnn.upsampling import DepthToSpace, Unpool

    inputs = keras.Input((None, None, 2))
    before = conv(3)(inputs)
    maps = layers.MaxPooling2D(2)(before)
    answer = conv(3)(Unpool()(conv(1)(maps), before))
    rows = layer_table(keras.Model(inputs, answer))
    assert [row.receptive_field for row in rows[-2:]] == [(4, 4), (6, 6)]
    assert rows[-1].stride == (1, 1)
    row = layer_table(network(chain(layers.Conv2D(8, 3), DepthToSpace(2)), (8, 8, 4)))[-1]
    assert (row.receptive_field, row.stride) == ((3, 3), (Fraction(1, 2), Fraction(1, 2)))


def test_gates_and_pooled_features_see_the_whole_picture() -> None:
    def part(x: keras.KerasTensor) -> keras.KerasTensor:
        x = conv(3, 2)(x)
        gate = layers.Dense(2)(layers.GlobalAveragePooling2D(keepdims=True)(x))
        x = layers.Conv2D(2, 3)(layers.Add()([x, layers.Multiply()([x, gate])]))
        return layers.Dense(2)(layers.Flatten()(x))

    rows = {row.kind: row for row in layer_table(network(part))}
    for kind in ("GlobalAveragePooling2D", "Multiply", "Add", "Conv2D", "Flatten", "Dense"):
        assert rows[kind].receptive_field is None, kind
    assert rows["Conv2D"].stride == (2, 2)
    assert rows["Flatten"].stride is rows["GlobalAveragePooling2D"].stride is None


# Costs


@pytest.mark.parametrize(
    ("part", "parameters", "costs"),
    [
        (layers.Conv2D(16, 3, padding="same"), 9 * 8 * 16 + 16, 115_200),  # 100 places, 72 inputs, 16 filters
        (layers.Conv2D(16, 3, 2, padding="same"), 1_168, 28_800),  # 25 places
        (layers.Conv2D(16, 3, dilation_rate=2), 1_168, 41_472),  # 36 places
        (layers.Conv2D(16, (1, 5), groups=4, use_bias=False), 160, 9_600),  # 60 places, 10 inputs
        (layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2), 160, 14_400),  # 100 places, 9 inputs, 16 maps
        (layers.SeparableConv2D(16, 3, padding="same"), 72 + 128 + 16, 20_000),  # 100 places, 72 + 8 * 16
        (layers.Conv2DTranspose(16, 3, 2), 1_168, 115_200),  # from 100 places, 72 inputs, 16 filters
        (layers.Dense(4), 36, 3_200),  # at 100 places
        (chain(layers.Flatten(), layers.Dense(5, use_bias=False)), 4_000, 4_000),
        (chain(layers.Reshape((100, 8)), layers.Conv1D(4, 3)), 100, 98 * 3 * 8 * 4),
        (layers.BatchNormalization(), 32, 0),
        (layers.PReLU(), 800, 0),
        (layers.MaxPooling2D(2), 0, 0),
    ],
)
def test_parameters_and_multiply_adds_are_those_counted_by_hand(part: Part, parameters: int, costs: int) -> None:
    row = layer_table(network(part))[-1]
    assert (row.parameters, row.multiply_adds) == (parameters, costs)


# name: (options, multiply-adds in thousand millions, as torchvision's "_ops" or the paper of MobileNet say, side of the
# receptive field of the last map: from https://distill.pub/2019/computing-receptive-fields, for the ResNets by hand, as
# 7 + 4, then 2 * 4 and 2 * 8, 2 * 16, 2 * 32 for every 3x3 convolution behind as many halvings)
REFERENCES = {
    "alexnet": ({}, 0.714, 195),
    "vgg16": ({}, 15.470, 212),
    "resnet18": ({}, 1.814, 435),
    "resnet50": ({"downsample": "3x3"}, 4.089, 427),
    "densenet121": ({}, 2.834, None),
    "inception_v3": ({}, 5.713, 1311),
    "mobilenet_v1": ({}, 0.569, 315),
    "mobilenet_v2": ({}, 0.301, None),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_totals_are_those_published(name: str) -> None:
    options, costs, field = REFERENCES[name]
    entry = lookup(name)
    rows = layer_table(without_values(lambda: kerascnn.build(name, entry.input_shape, 1000, **options)))
    assert round(multiply_adds(rows) / 1e9, 3) == costs
    assert sum(row.trainable_parameters for row in rows) == entry.parameters
    last = [row for row in rows if row.stride][-1]
    assert last.stride == (32, 32)
    assert field is None or last.receptive_field == (field, field)
    if not options:
        assert multiply_adds(rows) == MULTIPLY_ADDS[name]


def test_resnet50_of_the_paper_is_cheaper_and_sees_more() -> None:
    rows = layer_table(without_values(lambda: kerascnn.build("resnet50", (224, 224, 3), 1000)))
    assert round(multiply_adds(rows) / 1e9, 2) == 3.86
    assert multiply_adds(rows) == MULTIPLY_ADDS["resnet50"]
    assert [row for row in rows if row.stride][-1].receptive_field == (483, 483)


# Kinds of models


def test_layers_of_inner_models_have_rows_of_their_own() -> None:
    inner = keras.Sequential([keras.Input((10, 10, 8)), conv(3, 2, name="a"), conv(3, name="b")], name="inner")
    plain = layer_table(
        network(chain(conv(5, name="first"), layers.Conv2D(8, 1), inner.get_layer("a"), inner.get_layer("b")))
    )
    nested = layer_table(network(chain(conv(5, name="first"), layers.Conv2D(8, 1), inner, layers.Dropout(0.5))))
    assert [row.name for row in nested[-3:-1]] == ["inner/a", "inner/b"]
    assert [row.receptive_field for row in nested[1:-1]] == [(5, 5), (5, 5), (7, 7), (11, 11)]
    assert [row.receptive_field for row in plain[1:]] == [row.receptive_field for row in nested[1:-1]]
    assert multiply_adds(plain) == multiply_adds(nested)
    assert sum(row.parameters for row in nested) == 25 * 8 * 2 + (2 * 8 + 8) + 9 * 8 * 2 + 9 * 2 * 2


def test_sequential_model_has_a_table() -> None:
    model = keras.Sequential([keras.Input((10, 10, 8)), conv(3), layers.Flatten(), layers.Dense(3)])
    assert [row.kind for row in layer_table(model)] == ["InputLayer", "Conv2D", "Flatten", "Dense"]
    assert multiply_adds(model) == 100 * 72 * 2 + 200 * 3


def test_shared_layer_costs_twice_and_has_its_weights_once() -> None:
    shared = layers.Conv2D(8, 3, padding="same", use_bias=False)
    rows = layer_table(network(chain(shared, shared)))
    assert [row.receptive_field for row in rows] == [(1, 1), (3, 3), (5, 5)]
    assert [row.parameters for row in rows] == [0, 576, 0]
    assert [row.multiply_adds for row in rows] == [0, 57_600, 57_600]


def test_frozen_and_running_values_are_not_trainable() -> None:
    frozen = layers.Conv2D(4, 1, trainable=False)
    rows = layer_table(network(chain(frozen, layers.BatchNormalization())))
    assert [(row.trainable_parameters, row.parameters) for row in rows[1:]] == [(0, 36), (8, 16)]


def test_table_leaves_the_model_as_it_was() -> None:
    model = network(chain(conv(3), layers.ReLU()))
    before = model.to_json(), [len(layer._inbound_nodes) for layer in model.layers]
    layer_table(model)
    assert before == (model.to_json(), [len(layer._inbound_nodes) for layer in model.layers])


def test_pictures_of_unknown_size_have_fields_but_no_costs() -> None:
    model = network(chain(conv(3, 2), conv(3)), (None, None, 3))
    assert layer_table(model)[-1].receptive_field == (7, 7)
    assert layer_table(model)[-1].multiply_adds is None
    with pytest.raises(ValueError, match=r"multiply-adds of 'conv2d.*' \(Conv2D\) .* its size is unknown"):
        multiply_adds(model)


def test_costs_of_other_kinds_are_not_guessed() -> None:
    model = network(layers.EinsumDense("bhwc,cd->bhwd", (10, 10, 4)))
    with pytest.raises(ValueError, match=r"\(EinsumDense\) cannot be counted: it is of a kind that is not counted"):
        multiply_adds(model)


def test_other_models_are_refused() -> None:
    class Own(keras.Model):
        def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
            return x

    for model in (Own(), keras.Sequential([layers.Dense(2)])):
        with pytest.raises(ValueError, match="Functional and Sequential models that know their input"):
            layer_table(model)
    with pytest.raises(ValueError, match=r"channels last\. Layer 'first' has them first"):
        layer_table(network(layers.MaxPooling2D(2, data_format="channels_first", name="first")))


def test_model_without_values_never_gets_any() -> None:
    made: list[tuple[int, ...]] = []

    def initializer(shape: tuple[int, ...], dtype: object = None) -> np.ndarray:
        made.append(tuple(shape))
        return np.zeros(shape, "float32")

    model = without_values(lambda: network(layers.Dense(5, kernel_initializer=initializer)))
    with keras.StatelessScope():  # where it ends, Keras initialises what was left to be
        pass
    assert model.count_params() == 45
    assert made == []


def test_error_while_building_without_values_is_the_builders() -> None:
    with pytest.raises(ValueError, match="Unknown network 'resnet51'"):
        without_values(lambda: kerascnn.build("resnet51", (32, 32, 3), 10))
    assert network(layers.Dense(5)).get_weights()[0].shape == (8, 5)  # a model built afterwards has its values


# Published figures


def test_published_names_are_networks_and_accuracies_are_per_cent() -> None:
    names = set(kerascnn.list_models())
    assert set(MULTIPLY_ADDS) == names
    for data, source, link, figures in TABLES:
        assert set(figures) <= names, source
        assert all(50 < accuracy < 100 for accuracy in figures.values()), data
        assert link.startswith("https://")


def test_published_errors_became_accuracies() -> None:
    known = {(name, one.data): one.accuracy for name in kerascnn.list_models() for one in published(name)}
    assert known["resnet110", "CIFAR-10"] == pytest.approx(100 - 6.43)
    assert known["densenet_bc_100_12", "CIFAR-100"] == pytest.approx(100 - 22.27)
    assert known["resnet18", "ImageNet top-1"] == 69.758
    assert published("lenet5") == []
