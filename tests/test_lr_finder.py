"""The range test: what it sees, what it suggests, and that the training after it is the one it would have been."""

import keras
import numpy as np
import pytest

from callbacks import SGD, Adam, CyclicMomentum, LRFinder, RangeTest, Scale, TriangularSchedule
from callbacks.endless_batches import batches_of

generator = np.random.default_rng(5)
LABELS = np.arange(96) % 3
PICTURES = (generator.normal(size=(96, 6, 6, 2)) + LABELS[:, None, None, None]).astype("float32")


def network(optimizer, **options) -> keras.Model:
    keras.utils.set_random_seed(11)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dropout(0.3),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], **options)
    return model


def parabola(rate: float = 0.1) -> keras.Model:
    """One weight, at 1, whose loss is half its square: a step of rate r multiplies it by 1 - r."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(rate), loss=lambda truth, output: 0.5 * output**2)
    return model


ONES = np.ones((4, 1), "float32")


def optimizers() -> dict:
    rate = TriangularSchedule(0.01, 0.1, step_size=3)
    return {
        "sgd whose rate and momentum follow schedules": lambda: SGD(Scale(rate), momentum=CyclicMomentum(rate)),
        "adam with accumulation": lambda: Adam(0.01, gradient_accumulation_steps=2),
        "an optimiser of Keras": lambda: keras.optimizers.RMSprop(0.01, momentum=0.5),
    }


@pytest.mark.parametrize("name", list(optimizers()))
@pytest.mark.parametrize("steps_per_execution", [1, 2])
def test_training_goes_on_bit_by_bit_as_if_nothing_had_happened(name, steps_per_execution) -> None:
    def train(find: bool) -> tuple[list[np.ndarray], dict[str, list[float]]]:
        model = network(optimizers()[name](), steps_per_execution=steps_per_execution)
        model.fit(PICTURES, LABELS, batch_size=16, verbose=0)
        if find:
            test = LRFinder(high=100.0, steps=20).run(model, (PICTURES, LABELS))
            assert len(test.rates) > 10
        history = model.fit(PICTURES, LABELS, batch_size=16, epochs=2, verbose=0).history
        slots = [keras.ops.convert_to_numpy(slot) for slot in model.optimizer.variables]
        return [*model.get_weights(), *slots, np.random.random(3)], history

    plain, plain_history = train(find=False)
    after, after_history = train(find=True)
    assert plain_history == after_history
    for one, other in zip(plain, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_error_in_the_middle_leaves_everything_as_it_was() -> None:
    model = network("adam")
    before = model.get_weights()

    def stop(step: int, rate: float, loss: float) -> None:
        if step == 5:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        LRFinder(high=100.0).run(model, (PICTURES, LABELS), on_step=stop)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert isinstance(model.optimizer, keras.optimizers.Adam)


def test_exponential_sweep_has_equal_factors_and_linear_sweep_equal_differences() -> None:
    np.testing.assert_allclose(LRFinder(1e-4, 1.0, 21).rates[[0, 5, 10, 15, 20]], [1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    np.testing.assert_allclose(LRFinder(0.1, 2.0, 20, "linear").rates[[0, 1, 6, 19]], [0.1, 0.2, 0.7, 2.0])


def test_every_batch_trains_with_the_rate_of_its_step() -> None:
    # The losses of w = 1 under w *= 1 - r, r = 0.1, 0.2, ..., 0.5: before each step, half the square of
    # 1, 0.9, 0.72, 0.504, 0.3024.
    test = LRFinder(0.1, 2.0, 20, "linear").run(parabola(), [(ONES, ONES)])
    np.testing.assert_allclose(test.losses[:5], [0.5, 0.405, 0.2592, 0.127008, 0.04572288], rtol=1e-5)


def test_smoothing_has_no_bias_to_zero() -> None:
    # Weight of the past 0.9. First: 0.5 itself. Second: (0.9 * 0.1 * 0.5 + 0.1 * 0.405) / (1 - 0.81) = 0.45.
    test = LRFinder(0.1, 2.0, 20, "linear").run(parabola(), [(ONES, ONES)])
    np.testing.assert_allclose(test.smoothed[:2], [0.5, 0.45], rtol=1e-5)


def test_sweep_ends_where_the_loss_explodes() -> None:
    """Gradient descent on half a square diverges above the rate 2."""
    test = LRFinder(1e-3, 1e6, 200).run(parabola(), [(ONES, ONES)])
    assert test.exploded
    assert 2 < test.rates[-1] < 30
    assert np.isfinite(test.smoothed).all()
    assert all(1e-3 <= rate < 2 for rate in test.suggestions.values())


def test_sweep_that_ends_too_low_says_so() -> None:
    assert not LRFinder(1e-4, 1e-1, 30).run(parabola(), [(ONES, ONES)]).exploded


def falling() -> RangeTest:
    """Flat at 3 up to 1e-3, down to 1 at 1e-1 (steeper from 1e-2 on), then up."""
    rates = np.geomspace(1e-5, 1.0, 51)  # ten steps a decade
    losses = np.interp(np.log10(rates), [-5, -3, -2, -1, 0], [3.0, 3.0, 2.5, 1.0, 9.0])
    return RangeTest(rates, losses, losses)


def test_suggestions_of_a_drawn_curve() -> None:
    test = falling()
    assert test.minimum_tenth == pytest.approx(1e-2)
    # A tenth of the fall from 3 to 1 is done at 2.8, at 10^-2.6; half-way from there to 10^-1 on a log scale.
    assert test.valley == pytest.approx(10**-1.8)
    assert 1e-2 < test.steepest < 1e-1
    assert list(test.suggestions.values()) == [test.valley, test.steepest, test.minimum_tenth]


def test_noise_on_the_flat_part_does_not_move_the_valley_far() -> None:
    quiet = falling()
    noisy = quiet.losses + np.random.default_rng(1).normal(0, 0.02, len(quiet.losses))
    assert 5e-3 < RangeTest(quiet.rates, noisy, noisy).valley < 2e-2


def test_chance_at_the_first_steps_does_not_move_the_suggestions_far() -> None:
    """Where the running average is of few losses yet: here 0.1 too high, then 0.1 too low."""
    for chance in (0.1, -0.1):
        quiet = falling()
        losses = quiet.losses + chance * (np.arange(51) < 8)
        found = RangeTest(quiet.rates, losses, losses)
        for name, rate in quiet.suggestions.items():
            assert rate / 1.3 < found.suggestions[name] < rate * 1.3, name
        assert found.doubts == []


def test_loss_that_only_rises_gives_suggestions_inside_the_range_and_says_so() -> None:
    rates, losses = np.geomspace(1e-3, 1.0, 20), np.linspace(1.0, 5.0, 20)
    test = RangeTest(rates, losses, losses)
    for rate in test.suggestions.values():
        assert 1e-4 <= rate <= 1.0
    assert test.doubts == ["The loss did not fall from its first level, 1.42: begin lower, or look at the data."]
    assert test.table().splitlines()[-1] == test.doubts[0]


def test_loss_that_only_changes_by_chance_did_not_fall() -> None:
    rates, losses = np.geomspace(1e-6, 1e-4, 100), np.random.default_rng(6).normal(2.3, 0.1, 100)
    weights = 0.9 ** np.arange(100)[::-1]
    smoothed = np.array([np.average(losses[: n + 1], weights=weights[-n - 1 :]) for n in range(100)])
    test = RangeTest(rates, losses, smoothed)
    assert np.argmin(smoothed) >= 10  # not at once, where its place would tell
    assert test.doubts == ["The loss did not fall up to the rate 0.0001: sweep on to a higher one."]


def test_doubts_name_a_sweep_that_ends_too_low_and_suggestions_far_apart() -> None:
    rates = np.geomspace(1e-6, 1.0, 61)
    losses = np.interp(np.log10(rates), [-6, -5, -1, 0], [3.0, 3.0, 1.0, 1.2])  # falls slowly over four decades
    first, second = RangeTest(rates, losses, losses).doubts
    assert first == "The loss was still falling at the rate 1: sweep on to a higher one."
    # valley: 10^-4.6 is the step of 2.8, half-way to 10^-1; a tenth of the minimum's rate is 0.01; steepest anywhere
    assert second.startswith("The suggestions lie far apart, from ")
    assert second.endswith(": sweep in more steps.")


def test_table_names_the_rates_and_the_suggestions() -> None:
    lines = falling().table(rows=6).splitlines()
    assert [line.split() for line in lines[:2]] == [["rate", "loss", "smoothed"], ["1e-05", "3.0000", "3.0000"]]
    assert len(lines) == 1 + 6 + 3
    assert lines[-3].split() == ["valley", "0.0158"]


def test_plot_marks_every_suggestion(tmp_path) -> None:
    pytest.importorskip("matplotlib")
    figure = falling().plot(tmp_path / "test.png")
    axes = figure.axes[0]
    marked = sorted(line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--")
    np.testing.assert_allclose(marked, sorted(falling().suggestions.values()))
    assert axes.get_xscale() == "log"
    assert (tmp_path / "test.png").read_bytes().startswith(b"\x89PNG")


def test_loss_that_is_not_finite_ends_the_sweep_and_is_left_out() -> None:
    bad = [(ONES, ONES)] * 12 + [(ONES * np.nan, ONES)]
    test = LRFinder(1e-4, 1e-1, 40).run(parabola(), bad)
    assert len(test.rates) == len(test.losses) == 12


def test_loss_that_is_never_finite_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"The loss is nan at the rate .*there is no rate to find"):
        LRFinder(1e-4, 1e-1, 40).run(parabola(), [(ONES * np.nan, ONES)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"low": 0.0}, "0 < low < high"),
        ({"low": 1.0, "high": 0.5}, "0 < low < high"),
        ({"high": float("inf")}, "0 < low < high"),
        ({"steps": 19}, r"`steps` must be a whole number of at least 20, over which smoothing=0.9"),
        ({"steps": 9, "smoothing": 0.0}, "`steps` must be a whole number of at least 10"),
        ({"steps": 30.5}, "`steps` must be a whole number"),
        ({"sweep": "cubic"}, "'exponential' or 'linear'"),
        ({"smoothing": 1.0}, "`smoothing` must lie in"),
        ({"explosion": 1.0}, "`explosion` must be above 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        LRFinder(**arguments)


def test_model_without_optimizer_is_refused() -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="not compiled"):
        LRFinder().run(model, (ONES, ONES))


def test_iterators_are_refused_since_the_training_would_miss_their_batches() -> None:
    with pytest.raises(ValueError, match="`data` is an iterator"):
        LRFinder().run(parabola(), iter([(ONES, ONES)] * 50))


def test_shuffling_dataset_is_refused_and_a_function_that_makes_one_is_not() -> None:
    tf = pytest.importorskip("tensorflow")

    def shuffled(**options):
        return tf.data.Dataset.from_tensor_slices((ONES, ONES)).shuffle(4, **options).batch(2)

    with pytest.raises(ValueError, match="shuffles anew every time"):
        LRFinder(1e-4, 1e-1, 20).run(parabola(), shuffled())
    assert len(LRFinder(1e-4, 1e-1, 20).run(parabola(), shuffled).rates) == 20
    assert len(LRFinder(1e-4, 1e-1, 20).run(parabola(), shuffled(reshuffle_each_iteration=False)).rates) == 20


def test_seeds_of_layers_that_a_dataset_calls_are_put_back() -> None:
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras layers inside tf.data draw from a seed that is no variable of TensorFlow there.")
    flip = keras.layers.RandomFlip("horizontal", seed=3)
    data = tf.data.Dataset.from_tensor_slices((PICTURES, LABELS)).batch(16)
    data = data.map(lambda x, y: (flip(x, training=True), y))
    model = network("sgd")
    before = flip.generator.state.numpy()
    LRFinder(steps=20).run(model, data)
    np.testing.assert_array_equal(flip.generator.state.numpy(), before)
    assert (next(iter(data))[0].numpy() != PICTURES[:16]).any()  # it does draw
    assert (flip.generator.state.numpy() != before).any()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([ONES, ONES], r"must be a tuple `\(x, y\)`.*Received a ndarray.*one tuple `\(x, y\)`"),
        (ONES, "Received a ndarray"),
        ((ONES, ONES[:2]), r"as many entries, at least 1. Received: \[4, 2\]"),
        ((ONES[:0], ONES[:0]), r"Received: \[0, 0\]"),
        ([], "no more batches"),
        (None, "Received a NoneType: None"),
        ({"x": ONES}, "`data` must be arrays"),
        (keras.utils.PyDataset, "`data` must be arrays"),
    ],
)
def test_data_of_another_kind_are_refused(data, message) -> None:
    model = parabola()
    with pytest.raises(ValueError, match=message):
        LRFinder().run(model, data)
    np.testing.assert_array_equal(model.get_weights()[0], 1.0)


def test_batch_size_below_1_is_refused() -> None:
    with pytest.raises(ValueError, match="`batch_size` must be a whole number"):
        LRFinder().run(parabola(), (ONES, ONES), batch_size=0)


class Batches(keras.utils.PyDataset):
    """Four batches of 2."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int):
        return np.full((2, 1), number, "float32"), np.zeros((2, 1), "float32")


def test_short_data_begin_again() -> None:
    read = batches_of(Batches(), 2)
    assert [float(next(read)[0][0, 0]) for _ in range(6)] == [0, 1, 2, 3, 0, 1]
    listed = batches_of([("a", "b"), ("c", "d")], 2)
    assert [next(listed)[0] for _ in range(5)] == ["a", "c", "a", "c", "a"]


def test_arrays_give_every_example_once_an_epoch_in_the_same_order_every_time() -> None:
    x = np.arange(8)
    read, again = (batches_of((x, {"a": x + 10, "b": x + 20}), 4) for _ in range(2))
    (first, labels), (second, _) = next(read), next(read)
    assert sorted([*first, *second]) == list(range(8))
    np.testing.assert_array_equal(labels["b"], first + 20)
    np.testing.assert_array_equal(first, next(again)[0])


def test_several_heads_and_example_weights() -> None:
    image = keras.Input((6, 6, 2))
    features = keras.layers.Flatten()(image)
    model = keras.Model(image, {name: keras.layers.Dense(3, name=name)(features) for name in ("one", "two")})
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), {"one": loss, "two": loss})
    labels = {"one": LABELS, "two": LABELS}
    weights = {"one": np.ones(96, "float32"), "two": np.zeros(96, "float32")}
    assert LRFinder(1e-4, 1e2, 30).run(model, (PICTURES, labels, weights)).exploded
