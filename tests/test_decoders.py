"""Learning to upsample: sizes, layers by hand, the papers' counts, both players' gradients, and real digits."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image

from kerascnn import decoders
from kerascnn.upsampling import RequireMultiple

# name: small network, input shape, output shape
SMALL: dict[str, tuple[Callable[[], keras.Model], tuple[int, ...], tuple[int, ...]]] = {
    "autoencoder": (lambda: decoders.autoencoder((16, 8, 3), 5, width=0.25), (16, 8, 3), (16, 8, 3)),
    "encoder": (lambda: decoders.encoder((16, 24, 1), 7, width=0.25, depth=3), (16, 24, 1), (7,)),
    "decoder": (lambda: decoders.decoder((16, 24, 3), 7, width=0.25, depth=3), (7,), (16, 24, 3)),
    "generator": (lambda: decoders.dcgan_generator((28, 32, 3), latent=9, width=0.1), (9,), (28, 32, 3)),
    "discriminator": (lambda: decoders.dcgan_discriminator((28, 32, 3), width=0.1), (28, 32, 3), (1,)),
    "segmentation": (lambda: decoders.segmentation((16, 8, 3), 5, width=0.1, depth=2), (16, 8, 3), (16, 8, 5)),
    "segmentation_unpool": (
        lambda: decoders.segmentation((None, None, 1), 2, upsampling="unpool", width=0.1, depth=2),
        (12, 16, 1),
        (12, 16, 2),
    ),
    "super_resolution": (lambda: decoders.super_resolution((None, None, 3), 3, width=0.1), (5, 7, 3), (15, 21, 3)),
    "super_resolution_transposed": (
        lambda: decoders.super_resolution((4, 5, 1), 2, upsampling="transposed", residual=False, width=0.1),
        (4, 5, 1),
        (8, 10, 1),
    ),
}
every_network = pytest.mark.parametrize("name", SMALL)
training = pytest.mark.skipif(
    keras.config.backend() == "jax", reason="JAX trains convolutions on processors ten times slower"
)


EAGERLY = keras.config.backend() == "tensorflow"  # one step is faster than its graph; JAX compiles in any case


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype("float32")


# What holds for all of them.


@every_network
def test_shape_gradients_names_and_round_trip(name: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    build, input_shape, output_shape = SMALL[name]
    model = build()
    x = pixels(4, *input_shape) if len(input_shape) == 3 else np.random.default_rng(0).uniform(-1, 1, (4, *input_shape))
    outputs = ops.convert_to_numpy(model(x))
    assert outputs.shape == (4, *output_shape)
    assert outputs.dtype == "float32"
    assert np.isfinite(outputs).all()
    names = [layer.name for layer in model.layers]
    parts = [part.name for layer in model.layers if isinstance(layer, keras.Model) for part in layer.layers]
    assert len({*names, *(set(parts) - {"pixels", "code"})}) == len([*names, *(set(parts) - {"pixels", "code"})])

    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(ops.convert_to_numpy(again(x)), outputs)

    before = [variable.numpy() for variable in model.trainable_variables]
    model.compile(keras.optimizers.SGD(1.0), "mse", run_eagerly=EAGERLY)
    model.train_on_batch(x, outputs + np.random.default_rng(1).normal(0, 50, outputs.shape))
    still = [
        variable.path
        for variable, old in zip(model.trainable_variables, before, strict=True)
        if np.array_equal(variable.numpy(), old)
    ]
    assert still == []


@every_network
def test_outputs_are_float32_under_mixed_bfloat16(name: str) -> None:
    build, input_shape, output_shape = SMALL[name]
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build()
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.compute_dtype for layer in model._flatten_layers() if layer.trainable_weights} >= {"bfloat16"}
    outputs = model(pixels(2, *input_shape))
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    assert outputs.shape == (2, *output_shape)
    assert np.isfinite(ops.convert_to_numpy(outputs)).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: decoders.autoencoder((10, 8, 1)), "multiples of 4 pixels.*Received: 10x8"),
        (lambda: decoders.autoencoder((8, None, 1)), r"known sides.*Received: \(8, None, 1\)"),
        (lambda: decoders.autoencoder((8, 8)), r"\(height, width, channels\)"),
        (lambda: decoders.encoder((8, 8, 1), 0), "`code_size` must be a whole number of at least 1.*=0"),
        (lambda: decoders.decoder((8, 8, 1), 3, depth=0), "`depth` must be"),
        (lambda: decoders.decoder((8, 8, 1), 3, width=0), "`width` must be positive"),
        (lambda: decoders.dcgan_generator((30, 32, 1), depth=2), "multiples of 4 pixels"),
        (lambda: decoders.dcgan_discriminator((0, 32, 1)), "Received: 0x32"),
        (lambda: decoders.dcgan((8, 8, 1), latent=0), "`latent` must be"),
        (lambda: decoders.dcgan((8, 8, 1), label_smoothing=1.0), r"`label_smoothing` must be in \[0, 1\)"),
        (lambda: decoders.segmentation((36, 32, 1), 2), "multiples of 8 pixels.*36x32"),
        (lambda: decoders.segmentation((32, 32, 1), 2, upsampling="nearest"), "one of transposed, unpool.*'nearest'"),
        (lambda: decoders.segmentation((32, 32, 1), 0), "`num_classes` must be"),
        (lambda: decoders.super_resolution((8, 8, 1), 1), "`scale` must be a whole number of at least 2"),
        (lambda: decoders.super_resolution((8, 8, 1), 2.5), "`scale` must be a whole number"),
        (lambda: decoders.super_resolution((8, 8, None)), "Received: .8, 8, None"),
        (lambda: decoders.super_resolution((8, 8, 1), upsampling="bicubic"), "one of subpixel, transposed"),
        (lambda: decoders.DepthToSpace(2)(keras.Input((4, 4, 6))), r"multiple of scale\^2 = 4. Received: 6"),
    ],
)
def test_wrong_input_is_an_error_before_building(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_segmentation_of_unknown_size_refuses_pictures_that_do_not_fit() -> None:
    model = decoders.segmentation((None, None, 1), 2, width=0.1, depth=2)
    assert model(pixels(1, 8, 12, 1)).shape == (1, 8, 12, 2)
    with pytest.raises(ValueError, match=r"multiples of 4 pixels.*10x12"):
        model(pixels(1, 10, 12, 1))
    assert RequireMultiple.from_config(RequireMultiple(4, name="size").get_config()).multiple == 4


# Layers, by hand.


@pytest.mark.parametrize(("scale", "channels"), [(2, 1), (2, 3), (3, 2)])
def test_depth_to_space_puts_channel_i_scale_plus_j_at_row_i_column_j(scale: int, channels: int) -> None:
    maps = pixels(2, 3, 5, scale * scale * channels)
    expected = np.zeros((2, 3 * scale, 5 * scale, channels), "float32")
    for row in range(3 * scale):
        for column in range(5 * scale):
            first = ((row % scale) * scale + column % scale) * channels
            expected[:, row, column] = maps[:, row // scale, column // scale, first : first + channels]
    layer = decoders.DepthToSpace(scale)
    assert layer(keras.Input((3, None, scale * scale * channels))).shape == (None, 3 * scale, None, channels)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(maps)), expected)


def test_unpool_returns_values_to_the_first_maximum_of_each_window() -> None:
    before = np.array([[1, 5, 0, 0], [2, 3, 0, 0], [7, 7, -4, -2], [7, 1, -3, -1]], "float32")
    maps = np.array([[10, 20], [30, 40]], "float32")
    expected = [[0, 10, 20, 0], [0, 0, 0, 0], [30, 0, 0, 0], [0, 0, 0, 40]]
    two = np.stack([before, np.rot90(before, 2)], axis=-1)[None]
    result = ops.convert_to_numpy(decoders.Unpool()(np.stack([maps, maps], axis=-1)[None], two))[0]
    np.testing.assert_array_equal(result[..., 0], expected)
    np.testing.assert_array_equal(result[..., 1], [[10, 0, 0, 20], [0, 0, 0, 0], [30, 0, 0, 0], [0, 0, 40, 0]])


def test_subpixel_convolution_starts_without_a_checkerboard() -> None:
    model = decoders.super_resolution((6, 6, 2), 3, residual=False)
    blocks = ops.convert_to_numpy(model(pixels(1, 6, 6, 2))).reshape(6, 3, 6, 3, 2)
    assert blocks.std(axis=(0, 2)).min() > 0
    np.testing.assert_allclose(blocks, np.broadcast_to(blocks[:, :1, :, :1], blocks.shape), atol=1e-3)


@pytest.mark.parametrize("upsampling", ["subpixel", "transposed"])
def test_residual_network_adds_to_the_bicubic_enlargement(upsampling: str) -> None:
    model = decoders.super_resolution((6, 5, 1), 2, upsampling=upsampling, width=0.1)
    last = model.get_layer(upsampling)
    last.set_weights([np.zeros_like(last.get_weights()[0]), np.array([0.1] * last.get_weights()[1].size)])
    small = pixels(1, 6, 5, 1)
    bicubic = np.asarray(Image.fromarray(small[0, ..., 0]).resize((10, 12), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(ops.convert_to_numpy(model(small))[0, ..., 0], bicubic + 25.5, atol=0.01)


# The networks of the papers.


def test_autoencoder_is_its_two_parts_which_work_alone() -> None:
    model = decoders.autoencoder((8, 12, 1), 3, width=0.25)
    pictures = pixels(2, 8, 12, 1)
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    codes = encoder.predict(pictures, verbose=0)
    assert codes.shape == (2, 3)
    restored = decoder.predict(codes, verbose=0)
    np.testing.assert_allclose(restored, ops.convert_to_numpy(model(pictures)), atol=1e-3)
    extreme = decoder.predict(1e4 * np.array([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]]), verbose=0)
    assert (extreme.min(), extreme.max()) == (0, 255)  # whatever the code, pixels stay in their range


def test_dcgan_has_the_parameters_of_the_known_networks() -> None:
    """64x64x3, 4x4 kernels, half width: PyTorch's DCGAN example counts 3,576,704 and 2,765,568."""
    counts = [
        sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
        for model in (
            decoders.dcgan_generator((64, 64, 3), kernel=4, width=0.5),
            decoders.dcgan_discriminator((64, 64, 3), kernel=4, width=0.5),
        )
    ]
    assert counts == [3_576_704, 2_765_568]


def test_dcgan_follows_the_papers_guidelines() -> None:
    model = decoders.dcgan((32, 32, 3), width=0.25)
    kinds = {
        network.name: [type(layer).__name__ for layer in network.layers]
        for network in (model.generator, model.discriminator)
    }
    norm = ["BatchNorm", "Activation", "Conv2DTranspose"]
    assert kinds["generator"] == ["InputLayer", "Dense", "Reshape", *norm * 3, "Activation", "Rescaling"]
    assert kinds["discriminator"] == [
        *("InputLayer", "Rescaling", "Conv2D", "LeakyReLU"),
        *("Conv2D", "BatchNorm", "LeakyReLU") * 2,
        *("Flatten", "Dense"),
    ]
    assert [layer.activation.__name__ for layer in model.generator.layers if "Activation" in type(layer).__name__] == [
        *["relu"] * 3,
        "tanh",
    ]
    assert {layer.negative_slope for layer in model.discriminator.layers if hasattr(layer, "negative_slope")} == {0.2}
    kernels = [variable.numpy().ravel() for variable in model.trainable_variables if variable.name == "kernel"]
    assert len(kernels) == 4 + 4
    assert np.std(np.concatenate(kernels)) == pytest.approx(0.02, rel=0.01)
    assert abs(np.mean(np.concatenate(kernels))) < 1e-4
    assert type(model.optimizer) is keras.optimizers.Adam
    assert (float(model.optimizer.learning_rate), model.optimizer.beta_1) == (pytest.approx(2e-4), 0.5)


def test_dcgan_losses_by_hand() -> None:
    """ln(1 + e^-2) = 0.126928, ln(1 + e^2) = 2.126928, ln(1 + e^-1) = 0.313262, ln 2 = 0.693147."""
    model = decoders.dcgan((8, 8, 1), width=0.05, label_smoothing=0.1)
    answers = {"real": [[2.0]], "fake": [[-1.0]], "to_generator": [[0.0]]}
    total = model.compute_loss(y_pred={name: ops.convert_to_tensor(value) for name, value in answers.items()})
    measures = {name: float(value) for name, value in model.get_metrics_result().items()}
    assert measures["discriminator_loss"] == pytest.approx(0.9 * 0.126928 + 0.1 * 2.126928 + 0.313262, abs=1e-5)
    assert measures["generator_loss"] == pytest.approx(0.693147, abs=1e-5)
    assert (measures["real_accuracy"], measures["fake_accuracy"]) == (1.0, 1.0)
    assert float(total) == pytest.approx(0.326928 + 0.313262 + 0.693147, abs=1e-5)


def first_generated(model: decoders.DCGAN, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """z and the four pictures drawn from it in the first training step, whose traces are wiped out."""
    z = keras.random.uniform((4, 6), -1.0, 1.0, seed=keras.random.SeedGenerator(seed))
    start = model.generator.get_weights()
    pictures = model.generator(z, training=True)
    model.generator.set_weights(start)
    return ops.convert_to_numpy(z), ops.convert_to_numpy(pictures)


def test_each_player_moves_by_its_own_loss_only() -> None:
    """One step of plain gradient descent against two separate trainings with cross-entropy."""
    keras.utils.set_random_seed(3)
    model = decoders.dcgan((8, 8, 1), latent=6, width=0.05, seed=5)  # this small, the discriminator has no BatchNorm
    generator, discriminator = keras.models.clone_model(model.generator), keras.models.clone_model(model.discriminator)
    generator.set_weights(model.generator.get_weights())
    discriminator.set_weights(model.discriminator.get_weights())
    real, (z, fake) = pixels(4, 8, 8, 1), first_generated(model, 5)

    model.compile(keras.optimizers.SGD(0.5))
    model.train_on_batch(real)

    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    fooling = keras.Sequential([generator, keras.models.clone_model(discriminator)])
    fooling.layers[1].set_weights(discriminator.get_weights())
    fooling.layers[1].trainable = False
    fooling.compile(keras.optimizers.SGD(0.5), loss)
    fooling.train_on_batch(z, np.ones((4, 1)))
    # The mean over eight pictures is half of the sum of two means over four.
    discriminator.compile(keras.optimizers.SGD(1.0), loss)
    discriminator.train_on_batch(np.concatenate([real, fake]), np.repeat([[1.0], [0.0]], 4, axis=0))
    for ours, theirs in ((model.generator, generator), (model.discriminator, discriminator)):
        for ours_weight, their_weight in zip(ours.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_allclose(ours_weight, their_weight, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not EAGERLY, reason="The graph is TensorFlow's.")
def test_one_reading_of_the_discriminator_serves_both_players() -> None:
    """A second one, of which no gradient comes, was moved behind the update in one step of twenty."""
    import tensorflow as tf

    model = decoders.dcgan((8, 8, 1), latent=6, width=0.05, seed=5)
    model.compile(keras.optimizers.SGD(0.5))
    step = tf.function(lambda pictures: model.train_step((pictures,)))
    graph = step.get_concrete_function(tf.constant(pixels(4, 8, 8, 1))).graph
    captured = {id(source): inside for source, inside in graph.captures}
    for variable in model.discriminator.trainable_variables:
        users = captured[id(variable.value.handle)].consumers()
        assert [user.type for user in users] == ["ReadVariableOp", "AssignSubVariableOp"]


def test_real_and_generated_pictures_count_once_each_in_the_running_statistics() -> None:
    keras.utils.set_random_seed(4)
    model = decoders.dcgan((8, 8, 1), latent=6, width=0.05, depth=2, seed=5)
    real, (_, fake) = pixels(4, 8, 8, 1), first_generated(model, 5)
    judge = model.discriminator
    maps = keras.Model(judge.input, judge.get_layer("discriminator_conv2").output)
    means = [ops.convert_to_numpy(maps(pictures)).mean(axis=(0, 1, 2)) for pictures in (real, fake)]
    model.compile(model.optimizer, run_eagerly=EAGERLY)
    model.train_on_batch(real)
    running = judge.get_layer("discriminator_bn2").moving_mean.numpy()
    np.testing.assert_allclose(running, 0.9 * 0.1 * means[0] + 0.1 * means[1], rtol=1e-3, atol=1e-6)


def test_dcgan_read_from_a_file_trains_on_as_if_never_written(tmp_path: Path) -> None:
    model = decoders.dcgan((8, 8, 1), latent=6, width=0.05, label_smoothing=0.2, seed=7)
    model.fit(pixels(8, 8, 8, 1), batch_size=4, epochs=2, verbose=0)
    model.save(tmp_path / "dcgan.keras")
    again = keras.models.load_model(tmp_path / "dcgan.keras")
    np.testing.assert_array_equal(model.sample(3, seed=1), again.sample(3, seed=1))
    for network in (model, again):
        network.fit(pixels(8, 8, 8, 1, seed=1), batch_size=4, shuffle=False, verbose=0)
    assert int(again.optimizer.iterations.numpy()) == 6
    for ours, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


# Real digits: one short training each, by the example program. Each asserts well below what was measured.


def train(name: str, out: Path, epochs: int) -> dict[str, float]:
    from importlib import import_module

    measures = import_module(f"apps.examples.{name}").train(out, epochs)
    assert np.isfinite(list(measures.values())).all()
    return measures


def check_sheet(path: Path, rows: int, *, different: bool = True) -> None:
    """So many rows of twelve pictures, and no other file beside it."""
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with Image.open(path) as picture:
        sheet = np.asarray(picture)
    assert sheet.shape == (68 * rows + 4, 110 + 68 * 12)
    cells = {
        sheet[68 * row + 4 : 68 * row + 68, 110 + 68 * column : 174 + 68 * column].tobytes()
        for row in range(rows)
        for column in range(12)
    }
    assert len(cells) == 12 * rows or not different


@training
def test_autoencoder_restores_held_out_digits_better_than_a_linear_code(tmp_path: Path) -> None:
    """Measured after 10 epochs: 36.0; principal components: 40.6."""
    errors = train("autoencoder", tmp_path / "sheet.png", epochs=10)
    assert errors["linear"] == pytest.approx(40.6, abs=0.1)
    assert errors["network"] < 38.5
    check_sheet(tmp_path / "sheet.png", rows=3)


@training
def test_segmentation_finds_digits_where_no_threshold_does(tmp_path: Path) -> None:
    """Measured after 3 epochs: 97.3 %; the best threshold of each picture: 88.0 %."""
    right = train("segmentation", tmp_path / "sheet.png", epochs=3)
    assert right["threshold"] < 0.9
    assert right["network"] > 0.95
    check_sheet(tmp_path / "sheet.png", rows=4, different=False)


@training
def test_super_resolution_beats_bicubic_by_a_decibel(tmp_path: Path) -> None:
    """Measured after 8 epochs: 15.1 dB; bicubic: 13.5 dB."""
    ratios = train("super_resolution", tmp_path / "sheet.png", epochs=8)
    assert ratios["bicubic"] == pytest.approx(13.49, abs=0.01)
    assert ratios["network"] > 14.5
    check_sheet(tmp_path / "sheet.png", rows=4)


@training
def test_dcgan_trains_stably_for_290_steps_and_draws_different_digits(tmp_path: Path) -> None:
    """Measured: 86 % judged rightly, mean pixel 100 against 78, 22 between a picture and the one most like it."""
    measures = train("dcgan", tmp_path / "sheet.png", epochs=10)
    assert 0.5 < (measures["real_accuracy"] + measures["fake_accuracy"]) / 2 < 0.97
    assert abs(measures["mean_drawn"] - measures["mean_real"]) < 35
    assert measures["nearest_drawn"] > measures["nearest_real"] / 3
    check_sheet(tmp_path / "sheet.png", rows=5)


def test_sheet_shows_every_pixel_at_its_place(tmp_path: Path) -> None:
    from apps.examples.contact_sheet import write_sheet

    first, second = np.array([[0, 255], [300, -5]]), np.array([[10, 20.4], [30, 40]])
    write_sheet(tmp_path / "sheet.png", {"a": np.stack([first, second])[..., None], "b": second[None, ..., None]})
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * 68 + 4, 110 + 2 * 68)
    np.testing.assert_array_equal(sheet[4 + 16 : 68 : 32, 110 + 16 : 174 : 32], [[0, 255], [255, 0]])
    for corner in (sheet[4:68, 178:242], sheet[72:136, 110:174]):
        np.testing.assert_array_equal(corner[16::32, 16::32], [[10, 20], [30, 40]])


def test_psnr_and_halving_by_hand() -> None:
    """A difference of 1 everywhere is 20 log10(255) = 48.1308 dB."""
    from apps.examples.digits import halve, load_digits, psnr

    assert psnr(np.array([1.0, -1.0, 1.0])) == pytest.approx(48.1308, abs=1e-4)
    np.testing.assert_array_equal(halve(np.arange(16.0).reshape(1, 4, 4, 1))[0, ..., 0], [[2.5, 4.5], [10.5, 12.5]])
    digits, held_out = load_digits()
    assert (len(digits), len(held_out), digits.min(), digits.max()) == (1500, 297, 0, 255)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("taken.png", "error: taken.png exists. Choose another name, or say `--overwrite`."),
        ("sheet.jpg", "error: `--out` must be a file whose name ends in .png. Received: sheet.jpg."),
        ("nowhere/sheet.png", "error: There is no folder {here}/nowhere to write sheet.png to."),
    ],
)
def test_bad_out_is_one_line_before_training(name, message, tmp_path, monkeypatch, capsys) -> None:
    from apps.examples import autoencoder
    from apps.examples.command_line import run

    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.png").write_text("mine")
    monkeypatch.setattr("sys.argv", ["autoencoder", "--out", name, "--epochs", "1"])
    with pytest.raises(SystemExit) as ended:
        run(autoencoder.train, 60)
    assert ended.value.code == 2
    assert capsys.readouterr().err == message.format(here=tmp_path) + "\n"
    assert [path.name for path in tmp_path.iterdir()] == ["taken.png"]
    assert (tmp_path / "taken.png").read_text() == "mine"


def test_options_of_the_command_line_reach_the_program(tmp_path, monkeypatch) -> None:
    from apps.examples.command_line import run

    given = []
    monkeypatch.setattr("sys.argv", ["x", "--out", "a.png", "--epochs", "3", "--seed", "4", "--overwrite"])

    def train(out: Path, epochs: int, seed: int, overwrite: bool) -> None:
        given.append((out, epochs, seed, overwrite))

    with pytest.raises(SystemExit) as ended:
        run(train, 60)
    assert ended.value.code == 0
    assert given == [(Path("a.png"), 3, 4, True)]
    monkeypatch.setattr("sys.argv", ["x", "--out", "a.png", "--epochs", "0"])
    with pytest.raises(SystemExit) as ended:
        run(train, 60)
    assert ended.value.code == 2
