"""Looking inside a network: every method against what is known by hand or by another computation."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from test_network_contract import networks, random_batch, small_network

import kerascnn
from apps import explain
from apps.explain import maximisation
from apps.explain.asked import parse_asked
from apps.explain.drawings import heated
from apps.explain.receptive import framed
from callbacks import filter_roughness

QUICK = (
    *("airbench94", "alexnet", "convnext_tiny", "densenet40_12", "lenet5", "mobilenet_v2"),
    *("preact_resnet18", "resnet20", "resnet9", "vgg11"),
)
generator = np.random.default_rng(0)


def random_pictures(count: int, height: int = 12, width: int = 12, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, height, width, channels)).astype("uint8")


def two_headed(size: tuple[int | None, int | None] = (12, 12), channels: int = 3, seed: int = 0) -> keras.Model:
    """Two convolutions, and two heads on their means."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((*size, channels))
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="first")(layers.Rescaling(1 / 255)(inputs))
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Conv2D(8, 3, name="second")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(layers.ReLU(name="second_act")(x))
    return keras.Model(inputs, {"kind": layers.Dense(3, name="a")(x), "größe": layers.Dense(2, name="b")(x)})


# Roughness


@pytest.mark.parametrize("shape", [(2, 2, 1), (3, 2, 1), (2, 2, 2)])
def test_roughness_is_one_in_the_mean_over_all_orders_of_the_weights(shape) -> None:
    height, width, channels = shape
    values = np.random.default_rng(3).normal(size=(height * width, channels))
    orders = np.stack([values[list(order)] for order in itertools.permutations(range(height * width))])
    assert filter_roughness(orders.reshape(-1, *shape)).mean() == pytest.approx(1, abs=1e-12)


def test_roughness_by_hand_of_edges_slopes_and_boards_whatever_their_scale() -> None:
    edge = np.array([[-1, 0, 1]] * 3)  # 6 pairs across differ by 1, 6 down by 0; unbiased variance 6/8
    assert filter_roughness(edge[None, ..., None]) == pytest.approx(0.5 / (2 * 6 / 8))
    board = np.array([[1, 0], [0, 1]])  # every pair differs by 1; variance 1/3
    assert filter_roughness(board[None, ..., None]) == pytest.approx(1 / (2 / 3))
    both = np.stack([edge, 3 * edge - 7.0], axis=-1)[None]
    assert filter_roughness(both) == pytest.approx(1 / 3)
    noise = generator.normal(size=(400, 5, 5, 3))
    assert filter_roughness(noise).mean() == pytest.approx(1, abs=0.02)


def test_roughness_is_unknown_without_neighbours_and_without_differences() -> None:
    assert np.isnan(filter_roughness(generator.normal(size=(4, 1, 1, 3)))).all()
    assert np.isnan(filter_roughness(np.full((2, 3, 3, 3), 0.5))).all()


def test_note_on_filters_says_smooth_noisy_untrained_or_nothing() -> None:
    def note(kernel: np.ndarray, trainable: bool = True) -> str:
        model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(kernel.shape[-1], kernel.shape[:2])])
        model.layers[0].set_weights([kernel, np.zeros(kernel.shape[-1])])
        model.layers[0].trainable = trainable
        return explain.describe_filters(model).note

    waves = np.sin(np.arange(7)[:, None, None, None] / 2 + np.arange(7)[:, None, None] / 3 + np.arange(8))
    waves = waves.repeat(3, axis=2)
    noise = generator.normal(size=(7, 7, 3, 20))
    assert "smooth" in note(waves) and "noisy" not in note(waves)
    assert "they look noisy" in note(noise)
    assert "not trained" in note(noise, trainable=False)
    assert "1x1" in note(generator.normal(size=(1, 1, 3, 4)))
    whitened = kerascnn.build("resnet9", (9, 9, 3), 2, width=0.125, whitening=2)
    assert "not trained" in explain.describe_filters(whitened).note


# Opening


def test_an_opened_network_answers_as_before_with_nested_models_a_softmax_and_every_size() -> None:
    inner = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3, activation="relu", name="deep")])
    inputs = keras.Input((None, None, 3))
    x = layers.GlobalAveragePooling2D()(inner(layers.Rescaling(1 / 255)(inputs)))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="last")(x))
    pictures = random_pictures(5, 9, 11)
    network = explain.open_network(model, {"label": ["a", "b", "c"]}, size=(9, 11))
    expected = model(pictures.astype("float32")).numpy()
    np.testing.assert_allclose(network.probabilities(pictures)["label"], expected, rtol=1e-5)
    assert (network.size, network.channels) == ((9, 11), 3)
    assert network.hidden["deep"].shape == (None, 7, 9, 4)
    assert network.model.output["label"].shape == (None, 3)
    assert explain.class_maps(network, pictures, {"label": np.zeros(5, int)})["label"].shape == (5, 9, 11)
    with pytest.raises(ValueError, match="takes pictures of every size: say by `--image-size`"):
        explain.open_network(model)


def test_equal_names_in_nested_models_leave_them_closed() -> None:
    inputs = x = keras.Input((8, 8, 3))
    for name in ("one", "other"):
        x = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(3, 3, padding="same", name="same")], name=name)(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalMaxPooling2D()(x)))
    network = explain.open_network(model)
    assert list(network.hidden)[:2] == ["one", "other"]
    pictures = random_pictures(2, 8, 8)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(network.model(pictures.astype("float32"))["label"]),
        model(pictures.astype("float32")).numpy(),
        rtol=1e-5,
    )


def test_heads_take_the_users_names_and_temperatures_and_probabilities_follow_them() -> None:
    model = two_headed()
    network = explain.open_network(
        model, {"Art": ["x", "y", "z"], "größe": ["s", "m"]}, names={"kind": "Art"}, temperatures={"kind": 2.0}
    )
    pictures = random_pictures(4)
    logits = model(pictures.astype("float32"))
    found = network.probabilities(pictures)
    np.testing.assert_allclose(found["Art"], tf.nn.softmax(logits["kind"] / 2).numpy(), rtol=1e-5)
    np.testing.assert_allclose(found["größe"], tf.nn.softmax(logits["größe"]).numpy(), rtol=1e-5)


def test_what_is_no_classifier_of_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected a network of pictures .* takes \(None, 4\)"):
        explain.open_network(keras.Sequential([keras.Input((4,)), layers.Dense(2)]))
    with pytest.raises(ValueError, match="Expected a classifier"):
        explain.open_network(keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 3)]))
    with pytest.raises(ValueError, match=r"takes pictures of 12x12\. Received: 8x12"):
        explain.open_network(two_headed(), size=(8, 12))


def test_options_name_classes_units_and_layers_or_say_the_near_ones() -> None:
    network = explain.open_network(two_headed(), {"kind": ["cat", "dog", "a=b"], "größe": ["small", "cat"]})
    asked = parse_asked(network, ["pool"], ["größe=cat", "dog", "a=b"], ["second:7"])
    assert asked.layers == ["pool"]
    assert [(one.where, one.number) for one in asked.classes] == [("größe", 1), ("kind", 1), ("kind", 2)]
    assert asked.units == [explain.Target("second", 7, False)]
    default = parse_asked(network, [], [], [])
    assert default.layers == ["first", "second_act"]
    assert len(default.classes) == 5
    for arguments, message in (
        ((["sekond"], [], []), "no hidden layer 'sekond'. Did you mean 'second'"),
        (([], ["kat"], []), "no class 'kat'. Did you mean 'cat'"),
        (([], ["kind=dot"], []), "Head 'kind' has no class 'dot'. Did you mean 'dog'"),
        (([], [], ["second"]), "must be LAYER:CHANNEL"),
        (([], [], ["second:8"]), "has channels 0 to 7"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_asked(network, *arguments)


# Feature maps and units


def test_feature_maps_are_the_outputs_of_the_layers() -> None:
    model = two_headed()
    pictures = random_pictures(3)
    found = explain.feature_maps(explain.open_network(model), pictures, ["second_act", "first"])
    for name in ("first", "second_act"):
        expected = keras.Model(model.input, model.get_layer(name).output)(pictures.astype("float32")).numpy()
        np.testing.assert_allclose(found[name], expected, atol=1e-6)
    with pytest.raises(ValueError, match="'mean' has no feature maps"):
        explain.feature_maps(explain.open_network(model), pictures, ["mean"])


def test_hidden_units_have_numpys_correlation_and_sparsity() -> None:
    model = two_headed()
    pictures = random_pictures(20)
    rows = {row["name"]: row for row in explain.hidden_units(explain.open_network(model), pictures)}
    maps = keras.Model(model.input, model.get_layer("second_act").output)(pictures.astype("float32")).numpy()
    values = maps.reshape(-1, 8).astype("float64")
    live = values[:, values.std(axis=0) > 0]
    pairs = np.abs(np.corrcoef(live.T))[~np.eye(live.shape[1], dtype=bool)]
    assert rows["second_act"]["correlation"] == pytest.approx(pairs.mean(), rel=1e-3)
    fractions = 1 - np.abs(live).mean(axis=0) ** 2 / (live**2).mean(axis=0)
    assert rows["second_act"]["sparsity"] == pytest.approx(fractions.mean() / (1 - 1 / len(live)), rel=1e-3)
    assert rows["second_act"]["dead"] == pytest.approx(1 - live.shape[1] / 8)
    assert "a" not in rows  # a head


def test_most_exciting_pictures_are_those_with_the_largest_mean_of_the_map() -> None:
    model = two_headed()
    network, pictures = explain.open_network(model), random_pictures(30)
    values = explain.target_values(network, [explain.Target("second", 3, False)], pictures)[:, 0]
    maps = keras.Model(model.input, model.get_layer("second").output)(pictures.astype("float32")).numpy()
    np.testing.assert_allclose(values, maps[..., 3].mean(axis=(1, 2)), atol=1e-5)
    assert explain.most_exciting(values, 3).tolist() == np.argsort(-maps[..., 3].mean(axis=(1, 2)))[:3].tolist()


# Activation maximisation


@pytest.mark.parametrize("channels", [1, 3])
def test_made_pictures_exceed_all_others_and_have_the_values_that_are_said(channels) -> None:
    model = two_headed(channels=channels)
    network, pictures = explain.open_network(model), random_pictures(200, channels=channels)
    targets = [explain.Target("kind", 2, True), explain.Target("größe", 0, True), explain.Target("second", 5, False)]
    targets.append(explain.Target("second", None, False))
    made, values = explain.maximise(network, targets, steps=40)
    assert (made.shape, made.dtype) == ((4, 12, 12, channels), np.uint8)
    maps = explain.feature_maps(network, made[3:], ["second"])["second"]
    assert values[3] == pytest.approx(float(np.mean(np.square(maps))), rel=1e-4)
    again = explain.target_values(network, targets, made)
    np.testing.assert_allclose(np.diag(again), values, rtol=1e-4)
    assert (values > explain.target_values(network, targets, pictures).max(axis=0)).all()
    repeated, _ = explain.maximise(network, targets[2:3], steps=40)
    assert repeated.shape == (1, 12, 12, channels)


def test_low_frequencies_come_first_so_that_made_pictures_are_not_noise(monkeypatch) -> None:
    """Neighbouring pixels are alike; climbing in all frequencies alike gives what differs from pixel to pixel."""

    def roughness() -> float:
        made, _ = explain.maximise(network, [explain.Target("kind", 0, True)], steps=40)
        return float(filter_roughness(made.astype("float32")).mean())

    network = explain.open_network(two_headed((32, 32)))
    smooth = roughness()
    monkeypatch.setattr(maximisation, "_scale", lambda height, width: np.ones((height, width // 2 + 1), "complex64"))
    assert smooth < 0.5 * roughness()


@pytest.mark.parametrize(
    ("units", "function", "said"),
    [
        (4, "sigmoid", r"is \(None, 4\), by sigmoid"),
        (1, "linear", r"is \(None, 1\), by linear"),
        (1, "softmax", "softmax"),
    ],
)
def test_what_answers_with_no_logits_of_classes_is_refused(units, function, said) -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(units, function)])
    with pytest.raises(ValueError, match=f"two classes or more .* {said}"):
        explain.open_network(model)


def test_the_best_pictures_are_kept_where_the_climb_oversteps(monkeypatch) -> None:
    network = explain.open_network(two_headed())
    targets = [explain.Target("kind", number, True) for number in range(3)]
    monkeypatch.setattr(maximisation, "RATE", 20.0)
    values = [found.copy() for _, found in maximisation._climb(network, targets, 60, None, None, 0)]
    assert len(values) == 9  # at the beginning, after every eighth step, at the end
    assert (np.diff(values, axis=0) >= 0).all()


def silent_on_grey() -> tuple[explain.Network, explain.Target]:
    """A unit that answers to patches of 4x4 pixels that are red by more than 80 %."""
    inputs = keras.Input((12, 12, 3))
    red = layers.Conv2D(1, 4, activation="relu", name="red")
    x = layers.GlobalMaxPooling2D()(red(layers.Rescaling(1 / 255)(inputs)))
    model = keras.Model(inputs, layers.Dense(2)(x))
    red.set_weights([np.tile(np.array([1.0, 0, 0])[:, None] / 16, (4, 4, 1, 1)), np.array([-0.8])])
    return explain.open_network(model), explain.Target("red", 0, False)


def test_a_unit_that_is_silent_on_weak_noise_is_climbed_from_stronger_noise() -> None:
    network, unit = silent_on_grey()
    assert explain.target_values(network, [unit], np.full((1, 12, 12, 3), 128, "uint8")) == 0
    _, values = explain.maximise(network, [unit], steps=40)
    assert values > 0.02  # of at most 0.2


def test_a_climb_may_begin_with_a_picture_and_does_where_noise_ends_below_the_best(monkeypatch) -> None:
    network, unit = silent_on_grey()
    pictures = random_pictures(5)
    pictures[3] = (240, 20, 20)
    begun, values = explain.maximise(network, [unit], steps=1, begin=pictures[3:4])
    assert values == pytest.approx(240 / 255 - 0.8, abs=0.03)
    assert np.abs(begun.astype(int) - pictures[3]).mean() < 15
    monkeypatch.setattr(maximisation, "_begin_with_noise", lambda spectrum, slopes, seed: None)  # all grey: no way up
    assert explain.maximise(network, [unit], steps=8)[1] == 0
    _, values, real = explain.maximise_beyond(network, [unit], pictures, steps=8)
    assert real.max() == pytest.approx(240 / 255 - 0.8, abs=1e-3)
    assert values > real.max()


def test_pictures_made_after_grey_ones_are_grey() -> None:
    grey = random_pictures(20, channels=1).repeat(3, axis=-1)
    network = explain.open_network(two_headed())
    made, _ = explain.maximise(network, [explain.Target("kind", 0, True)], steps=8, colours=explain.colours_of(grey))
    assert np.ptp(made.astype(int), axis=-1).max() <= 1
    covariance = np.cov(random_pictures(50).reshape(-1, 3).T)
    root = explain.colours_of(random_pictures(50))
    np.testing.assert_allclose(root.T @ root, covariance / np.trace(covariance) * 3, atol=1e-5)
    np.testing.assert_array_equal(explain.colours_of(np.zeros((2, 4, 4, 3), "uint8")), np.eye(3))


# Grad-CAM


@networks(QUICK)
def test_grad_cam_works_on_every_network(name) -> None:
    pictures, _ = random_batch(name)
    pictures, classes = np.concatenate([pictures.astype("uint8")] * 4), np.arange(4).repeat(4)
    network = explain.open_network(small_network(name))
    found = explain.class_maps(network, pictures, {"label": classes, "kids": classes % 2})
    for maps in found.values():
        assert maps.shape == pictures.shape[:3]
        assert np.isfinite(maps).all()
        assert maps.min() >= 0
        assert maps.max() == pytest.approx(1)  # for some picture and class; 0 would be all zero


OBJECTS = (  # a cross and a ring of 9x9
    np.maximum(np.eye(9), np.eye(9)[::-1]),
    np.pad(np.zeros((5, 5)), 2, constant_values=1.0),
)


def canvas(kinds: list[int | None], random: np.random.Generator) -> np.ndarray:
    """16x40 pixels of noise with an object somewhere on the left half and one on the right; None for no object."""
    picture = random.uniform(0, 60, (16, 40))
    for half, kind in enumerate(kinds):
        if kind is not None:
            top, left = random.integers(0, 8), 20 * half + random.integers(0, 12)
            picture[top : top + 9, left : left + 9] += 180 * OBJECTS[kind]
    return picture[..., None].repeat(3, axis=-1).astype("uint8")


@pytest.fixture(scope="module")
def object_network() -> explain.Network:
    """Trained on pictures of one object, on either half."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    kinds, halves = random.integers(0, 2, 600), random.integers(0, 2, 600)
    pictures = np.stack(
        [canvas([None, kind] if half else [kind, None], random) for kind, half in zip(kinds, halves, strict=True)]
    )
    inputs = keras.Input((16, 40, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    for number, filters in enumerate((12, 16, 24)):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU(name=f"act{number}")(layers.BatchNormalization(momentum=0.8)(x))
        x = layers.MaxPooling2D()(x) if number < 2 else x
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(pictures, kinds, batch_size=50, epochs=6, verbose=0)
    assert (model.predict(pictures, verbose=0).argmax(axis=1) == kinds).mean() > 0.97
    return explain.open_network(model, {"label": ["cross", "ring"]})


def test_grad_cam_of_a_class_lies_on_the_half_where_its_object_stands(object_network) -> None:
    random = np.random.default_rng(5)
    left = random.integers(0, 2, 60)
    pictures = np.stack([canvas([kind, 1 - kind], random) for kind in left])
    for kind in (0, 1):
        maps = explain.class_maps(object_network, pictures, {"label": np.full(60, kind)})["label"]
        on_left = maps[:, :, :20].sum(axis=(1, 2)) > maps[:, :, 20:].sum(axis=(1, 2))
        assert (on_left == (left == kind)).mean() >= 0.9


# Occlusion


def test_occlusion_finds_the_place_that_the_answer_depends_on() -> None:
    inputs = keras.Input((12, 16, 3))
    place = layers.Cropping2D(((2, 8), (10, 4)))(layers.Rescaling(1 / 255)(inputs))  # rows 2-3, columns 10-11
    logits = layers.Dense(2, kernel_initializer="zeros", name="logits")
    model = keras.Model(inputs, {"label": logits(layers.GlobalAveragePooling2D()(place))})
    logits.set_weights([np.array([[4.0, 0.0]] * 3), np.zeros(2)])
    picture = np.full((12, 16, 3), 255, "uint8")
    (fall,) = explain.occlusion_maps(explain.open_network(model), picture, {"label": 0}, 0.0, side=2).values()
    expected = np.zeros((12, 16))
    # Squares of 2 move by 1: nine of them cover a part of the place, those at its corners a quarter.
    whole = 1 / (1 + np.exp(-12.0))
    for top, left in itertools.product(range(11), range(15)):
        covered = max(0, min(top + 2, 4) - max(top, 2)) * max(0, min(left + 2, 12) - max(left, 10)) / 4
        expected[top : top + 2, left : left + 2] += whole - 1 / (1 + np.exp(-12.0 * (1 - covered)))
    count = np.outer([1, *[2] * 10, 1], [1, *[2] * 14, 1])
    np.testing.assert_allclose(fall, expected / count, atol=1e-6)
    assert set(zip(*np.nonzero(fall > 1e-7), strict=True)) == set(itertools.product(range(1, 5), range(9, 13)))


def test_occlusion_covers_every_pixel_by_the_mean_colour_unless_told() -> None:
    network = explain.open_network(two_headed((11, 13)))
    picture = np.full((11, 13, 3), 90, "uint8")
    chosen = {"kind": 1, "größe": 0}
    for fall in explain.occlusion_maps(network, picture, chosen).values():
        np.testing.assert_allclose(fall, 0, atol=1e-6)  # its own mean changes nothing
    for fall in explain.occlusion_maps(network, picture, chosen, np.array([255.0, 0, 0]), side=5).values():
        assert fall.shape == (11, 13)
        assert np.isfinite(fall).all()
        assert np.abs(fall).max() > 0
    with pytest.raises(ValueError, match="from 1 to 11"):
        explain.occlusion_maps(network, picture, chosen, side=12)


def test_occlusion_of_one_object_takes_its_class_away_and_of_the_other_adds_to_it(object_network) -> None:
    random = np.random.default_rng(6)
    right = 0
    for _ in range(20):
        fall = explain.occlusion_maps(object_network, canvas([0, 1], random), {"label": 1}, 30.0, side=9)["label"]
        rising, falling = fall[:, :20], fall[:, 20:]
        right += falling.max() > rising.max() and rising.min() < falling.min()
    assert right >= 18


# Receptive fields


def test_receptive_box_is_where_the_gradient_of_the_middle_unit_is_not_zero() -> None:
    inputs = keras.Input((40, 52, 3))
    x = layers.Conv2D(4, 5, strides=2, padding="valid", kernel_initializer="ones", name="one")(inputs)
    x = layers.AveragePooling2D(3, strides=2, padding="same", name="two")(x)
    x = layers.Conv2D(4, 3, padding="same", kernel_initializer="ones", name="three")(x)
    side = layers.Conv2D(4, (1, 3), padding="same", kernel_initializer="ones", name="side")(x)
    x = layers.Add(name="sum")([x, side])
    gate = layers.Dense(4, name="gate")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply(name="gated")([x, gate])
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten(name="flat")(x)))
    network = explain.open_network(model)
    for name in ("one", "two", "three", "sum"):
        tensor = network.layer(name)
        pixels = tf.Variable(tf.ones((1, 40, 52, 3)))
        with tf.GradientTape() as tape:
            maps = keras.Model(network.model.input, tensor)(pixels)
            value = tf.reduce_sum(maps[0, maps.shape[1] // 2, maps.shape[2] // 2])
        seen = np.abs(tape.gradient(value, pixels).numpy()[0]).sum(axis=-1) > 0
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        box = explain.receptive_box(network, name)
        assert box == (rows[0], rows[-1], columns[0], columns[-1]), name
        assert box == box.inside((40, 52))
    assert explain.receptive_box(network, "gated") is None
    assert explain.receptive_box(network, "flat") is None


def test_frame_leaves_what_the_unit_sees_and_fades_the_rest() -> None:
    picture = np.full((8, 8, 3), 200, "uint8")
    drawn = framed(picture, explain.Box(2, 4, -3, 3), colour=(1, 2, 3))
    scale = len(drawn) // 8
    assert drawn.shape == (8 * scale, 8 * scale, 3)
    assert (drawn[3 * scale + scale // 2, 2 * scale] == 200).all()
    assert (drawn[2 * scale, scale] == (1, 2, 3)).all()
    assert (drawn[7 * scale, 7 * scale] != 200).all()
    assert (framed(picture, None)[4 * scale, 4 * scale] == 200).all()


def test_heat_is_red_above_zero_and_blue_below_over_the_picture() -> None:
    drawn = heated(np.full((1, 3, 3), 100, "uint8"), np.array([[-1.0, 0.0, 1.0]])).astype(int)[0]
    assert drawn[0, 2] > drawn[0, 0] + 50
    assert np.ptp(drawn[1]) == 0
    assert drawn[2, 0] > drawn[2, 2] + 50
