"""Recipes: what nobody chose suits the data, what somebody chose is kept, what does not fit is refused."""

import json
from dataclasses import fields

import keras
import numpy as np
import pytest

import kerascnn
from apps.options import recipe_choices
from apps.recipe import LIMITS, NETWORK_OPTIONS, Recipe, check_choices, load_choices
from apps.resolve import resolve
from apps.run_folder import Order, differences, package_versions

ANIMALS, NUMBERS = ["cat", "dog"], ["0", "1", "7"]


def test_flips_are_off_for_digits_and_letters_only() -> None:
    assert resolve({}, 1000, (32, 32), [ANIMALS]).flip
    assert not resolve({}, 1000, (32, 32), [NUMBERS]).flip
    assert resolve({}, 1000, (32, 32), [ANIMALS, NUMBERS]).flip
    assert resolve({"flip": True}, 1000, (32, 32), [NUMBERS]).flip


@pytest.mark.parametrize(
    ("own", "size", "width"),
    [
        # The width is 32 / sqrt(height x width).
        *(((32, 32), (32, 32), 1.0), ((128, 96), (64, 48), 0.58), ((64, 40), (64, 40), 0.63)),
        *(((48, 48), (48, 48), 0.67), ((128, 16), (64, 16), 1.0)),
    ],
)
def test_picture_costs_about_the_same_whatever_its_size(own, size, width) -> None:
    recipe = resolve({}, 1000, own, [ANIMALS])
    assert (recipe.model, recipe.image_size, recipe.width) == ("airbench94", size, width)
    assert resolve({"image_size": (96, 96)}, 1000, own, [ANIMALS]).image_size == (96, 96)
    assert resolve({"model": "resnet18"}, 1000, own, [ANIMALS]).image_size == own


def test_another_optimiser_or_norm_does_without_what_a_recipe_settled_for_its_own() -> None:
    def of(*settings: str) -> Recipe:
        return resolve(recipe_choices("x.zip", "cifar10-fast", list(settings), {}), 45_000, (32, 32), [ANIMALS])

    assert (of().lr, of().bias_rate, of().momentum) == (0.045, 311.0, 0.92)
    other = of("optimizer=nesterov", "momentum=0.8")
    assert (other.lr, other.bias_rate, other.head_rate, other.momentum) == (0.6 * 250 / 256, 1.0, 1.0, 0.8)
    assert (other.epochs, other.scales) == (10, ((0.75, 0.5),))
    assert of("optimizer=muon_sgd") == of()
    assert of("norm=group").frozen_scale == 0
    classic = recipe_choices("x.zip", "cifar10-classic", ["optimizer=nesterov"], {})
    assert classic["lr"] == 0.4


def test_default_network_takes_another_norm() -> None:
    recipe = resolve({"norm": "group"}, 1000, (32, 32), [ANIMALS])
    assert (recipe.model, recipe.frozen_scale) == ("airbench94", 0)
    model = kerascnn.build("airbench94", (16, 16, 3), 2, width=0.125, norm="group", frozen_scale=recipe.frozen_scale)
    assert any(isinstance(layer, keras.layers.GroupNormalization) for layer in model.layers)


def test_a_chosen_rate_of_kernels_leaves_those_of_shifts_and_head() -> None:
    suitable, chosen = (resolve(choices, 2000, (64, 64), [ANIMALS]) for choices in ({}, {"lr": 0.5}))
    assert chosen.lr == 0.5
    for name in ("bias_rate", "head_rate"):
        assert chosen.lr * getattr(chosen, name) == pytest.approx(suitable.lr * getattr(suitable, name))


def test_long_thin_pictures_get_a_crop_and_views_that_fit() -> None:
    assert resolve({}, 1000, (128, 8), [ANIMALS]).crop == 7
    assert resolve({"image_size": (512, 8)}, 1000, (32, 32), [ANIMALS]).views == 7


def test_every_limit_is_of_a_field() -> None:
    limited = [name for names, _, _ in LIMITS for name in names]
    assert len(set(limited)) == len(limited)
    free = {field.name for field in fields(Recipe)} - set(limited)
    assert free == {
        "model",
        "activation",
        "initializer",
        "flip",
        "vertical_flip",
        "select",
        "deterministic",
    }  # names of Keras and of networks


def test_default_network_is_trained_to_the_end() -> None:
    assert resolve({}, 1000, (32, 32), [ANIMALS]).patience == 0
    assert resolve({"model": "resnet9"}, 1000, (32, 32), [ANIMALS]).patience == 10


def test_pictures_too_small_for_the_default_network_get_another() -> None:
    for chosen, own in (({}, (8, 8)), ({"image_size": (64, 15)}, (32, 32))):
        recipe = resolve(chosen, 1000, own, [ANIMALS])
        assert (recipe.model, recipe.optimizer, recipe.frozen_scale) == ("resnet9", "nesterov", None)


def test_what_suits_a_network_and_an_optimiser_is_not_given_to_others() -> None:
    ours, theirs = (resolve({"model": model}, 1000, (32, 32), [ANIMALS]) for model in ("airbench96", "resnet18"))
    assert (ours.optimizer, ours.weight_decay, ours.activation) == ("muon_sgd", 2.4e-3, "silu")
    assert ours.bias_rate > 10
    assert (theirs.optimizer, theirs.bias_rate, theirs.weight_decay, theirs.activation) == ("nesterov", 1.0, 5e-3, None)
    other = resolve({"optimizer": "adamw"}, 1000, (32, 32), [ANIMALS])
    assert (other.model, other.bias_rate, other.head_rate, other.weight_decay) == ("airbench94", 1.0, 1.0, 0.05)


def test_photographs_are_changed_as_such_however_small_they_are_seen() -> None:
    photographs, small = (resolve({}, 1000, size, [ANIMALS]) for size in ((128, 96), (64, 48)))
    assert photographs.image_size == small.image_size
    assert (photographs.cutout, photographs.rotation, photographs.zoom, photographs.translation) == (
        16,
        10.0,
        0.25,
        0.1,
    )
    assert (small.cutout, small.rotation, small.zoom, small.translation) == (0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(("optimizer", "growth"), [("nesterov", 4), ("adamw", 2), ("muon_sgd", 1)])
def test_rate_grows_with_the_batch_as_suits_the_optimiser(optimizer, growth) -> None:
    chosen = {"optimizer": optimizer}
    one, four = (resolve({**chosen, "batch_size": size}, 45_000, (32, 32), [ANIMALS]) for size in (64, 256))
    assert four.lr == pytest.approx(growth * one.lr)
    if optimizer == "muon_sgd":
        assert four.lr * four.bias_rate == pytest.approx(2 * one.lr * one.bias_rate)
        assert four.lr * four.head_rate == pytest.approx(2 * one.lr * one.head_rate)


def test_rate_of_kernels_that_turn_grows_with_the_root_of_the_epochs() -> None:
    short, long = (resolve({"epochs": epochs}, 45_000, (32, 32), [ANIMALS]) for epochs in (9, 36))
    assert (short.lr, long.lr) == (pytest.approx(0.06), pytest.approx(0.12))  # 0.06 in cifar10-fast
    assert short.lr * short.bias_rate == pytest.approx(long.lr * long.bias_rate)


def test_what_was_chosen_is_kept() -> None:
    chosen = {"model": "resnet34", "epochs": 3, "lr": 0.07, "image_size": (40, 48), "val": 5.0, "seed": 9}
    recipe = resolve(chosen, 45_000, (32, 32), [ANIMALS])
    assert {name: getattr(recipe, name) for name in chosen} == chosen


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"epoch": 3}, "no field 'epoch'. Did you mean 'epochs'"),
        ({"epochs": 0}, "`epochs` must be at least 1. Received: epochs=0"),
        ({"lr": -1.0}, "`lr` must be positive"),
        ({"val": 0.8}, "fraction up to 0.5"),
        ({"image_size": [4, 40]}, "at least 8 pixels"),
        ({"precision": "float16"}, "float32 or bfloat16"),
        ({"flip": "no"}, "`flip` must be true or false. Received: flip='no'"),
        ({"epochs": 1.5}, "`epochs` must be a whole number"),
        ({"epochs": True}, "`epochs` must be a whole number"),
        ({"rotation": float("nan")}, "`rotation` must be a number"),
        ({"lr": float("inf")}, "`lr` must be a number"),
        ({"zoom": -1}, "`zoom` must be from 0 to 4"),
        ({"image_size": [16.5, 20]}, "`image_size` must be a whole number"),
        ({"model": 5}, "`model` must be text"),
        ({"optimizer": "sgd"}, "`optimizer` must be one of nesterov, muon_sgd, adamw. Received: optimizer='sgd'"),
        ({"flips": "never"}, "`flips` must be one of random, alternating"),
        ({"curve": "step"}, "`curve` must be one of cosine, linear"),
        ({"views": -1}, "`views` must be 0 or more"),
        ({"bias_rate": -1}, "`bias_rate` must be 0 or more"),
        ({"head_rate": -1}, "`head_rate` must be 0 or more"),
        ({"hardest": 0}, r"`hardest` must be in \(0, 1\]"),
        ({"hardest_from": 1}, r"`hardest_from` must be in \[0, 1\)"),
        ({"scales": 0.5}, "`scales` must be pairs of numbers"),
        ({"scales": [[0.5, 0.2, 0.1]]}, "`scales` must be pairs of numbers"),
        ({"scales": [[1, 0.2]]}, r"`scales` must be scales in \(0, 1\) with fractions of the epochs below 1"),
        ({"scales": [[0.5, 0.6], [0.75, 0.4]]}, r"`scales` must be scales in \(0, 1\) with fractions"),
        ({"epochs": "many"}, "Received: epochs='many'"),
    ],
)
def test_choices_that_do_not_fit_are_refused(choices, message) -> None:
    with pytest.raises(ValueError, match=message):
        check_choices(choices)


def test_recipe_file_of_a_run_gives_the_same_recipe(tmp_path) -> None:
    from dataclasses import asdict

    recipe = resolve({"epochs": 7}, 45_000, (32, 32), [ANIMALS])
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"data": "x", "recipe": asdict(recipe)}))
    assert resolve(load_choices(str(path)), 40_000, (300, 300), [NUMBERS]) == recipe


def test_rate_follows_the_batch_that_is_possible() -> None:
    recipe = resolve({"batch_size": 100_000, "model": "resnet9"}, 512, (32, 32), [ANIMALS])
    assert (recipe.batch_size, recipe.lr) == (512, pytest.approx(1.2))


def test_unknown_recipe_error_lists_the_recipes(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"'digit'. Did you mean 'digits'"):
        load_choices("digit")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(ValueError, match="one JSON object"):
        load_choices(str(tmp_path / "list.json"))
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        load_choices(str(tmp_path / "text.json"))


def test_resumed_run_refuses_another_recipe_and_other_versions_and_says_where_they_differ() -> None:
    columns = {"targets": ["label"], "group": None, "id_column": None}
    record = {"recipe": {"epochs": 8, "seed": 0, "batch_size": 60}, "choices": {"batch_size": 100}}
    record |= {"columns": columns, "minutes": None, "saved_models": "saved_models", "versions": package_versions()}

    def asked(choices: dict, **others: object) -> list[str]:
        given = {"columns": columns, "saved_models": "saved_models", "probabilities": False, **others}
        return differences(record, Order(data="digits", choices=choices, **given))

    assert asked({"epochs": 8}) == []
    assert asked({"batch_size": 100}) == []  # asked for again, clipped again
    assert asked({}, columns=dict.fromkeys(columns)) == []  # worked out again
    assert asked({"epochs": 10, "seed": 0}) == ["epochs is 8, asked for 10"]
    assert asked({}, columns={**columns, "targets": ["kids"]}) == ["targets is ['label'], asked for ['kids']"]
    assert asked({}, saved_models="elsewhere") == ["saved_models is saved_models, asked for elsewhere"]
    assert asked({}, minutes=5.0) == ["minutes is None, asked for 5.0"]
    record["versions"] = {**package_versions(), "keras": "2.15.0"}
    assert asked({"epochs": 1}) == ["epochs is 8, asked for 1", f"keras was 2.15.0, is {package_versions()['keras']}"]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"cutout": 80}, "`cutout` must be at most 63 for pictures of 32x40. Received: 80"),
        ({"crop": 32}, "`crop` must be at most 31 for pictures of 32x40. Received: 32"),
        ({"mixup": 0.2, "batch_size": 1}, "`batch_size` must be at least 2"),
        ({"optimizer": "muon_sgd", "momentum": 0}, "`momentum` must be positive with `optimizer=muon_sgd`"),
        ({"optimizer": "muon_sgd", "transfer": "all"}, "`optimizer=muon_sgd` does not go with published weights"),
        ({"frozen_scale": 1.0, "transfer": "all"}, "`frozen_scale=1.0` does not go with published weights"),
        ({"whitening": 2, "transfer": "last"}, "`whitening=2` does not go with published weights"),
        ({"hardest": 0.5, "balance": "sampling"}, "`hardest` and `balance=sampling` both choose pictures"),
        ({"views": 32}, "`views` must be at most 31 for pictures of 32x40. Received: 32"),
        ({"scales": [[0.2, 0.5]]}, "`scales` must leave at least 8 pixels of 32x40. Received: 0.2, which is 6x8"),
    ],
)
def test_augmentation_that_leaves_nothing_of_a_picture_is_refused(choices, message) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(choices, 1000, (32, 40), [ANIMALS])


def test_names_in_the_recipe_are_those_of_the_pipelines_and_the_networks() -> None:
    import callbacks
    from apps import recipe
    from kerascnn import blocks, registry, transfer_learning
    from pipelines import batches, fill, labels

    assert recipe.FILLS == fill.FILL_MODES
    assert recipe.SMOOTHINGS == labels.SMOOTHINGS
    assert recipe.BALANCES == batches.BALANCES
    assert recipe.NORMS == blocks.NORMS
    assert set(recipe.OPTIMIZERS) <= set(callbacks.optimizers.OPTIMIZERS)
    assert list(recipe.CURVES) == list(callbacks.curves.SHAPES)
    assert list(recipe.TRANSFERS) == ["none", *transfer_learning.MODES]
    assert set(recipe.NETWORK_OPTIONS) <= {"stem", *registry.COMMON_OPTIONS}


def test_every_augmentation_of_a_recipe_is_done_in_the_order_of_its_reasons() -> None:
    from apps.augmentation import augmentation

    everything = {
        "crop": 2,
        "rotation": 5.0,
        "flip": True,
        "flips": "random",
        "vertical_flip": True,
        "randaugment": 1,
        "brightness": 0.1,
        "contrast": 0.1,
        "saturation": 0.1,
        "hue": 0.1,
        "grayscale": 0.1,
        "noise": 1.0,
        "cutout": 4,
        "erasing": 0.5,
        "mixup": 0.2,
        "cutmix": 1.0,
        "resized_crop": 0.5,
    }
    names = [step.name for step in augmentation(resolve(everything, 1000, (32, 32), [ANIMALS]))]
    assert names == [
        *("random_resized_crop", "random_crop", "affine", "horizontal_flip", "vertical_flip", "randaugment"),
        *("brightness", "contrast", "saturation", "hue", "grayscale", "gaussian_noise", "cutout", "random_erasing"),
        "mixup or cutmix",
    ]
    alternating = resolve({"flip": True, "flips": "alternating", "crop": 0}, 1000, (32, 32), [ANIMALS])
    assert [step.name for step in augmentation(alternating, size=(8, 8))] == ["alternating_flip", "shrink"]


def test_normalisation_does_not_depend_on_where_the_pictures_are(tmp_path) -> None:
    import numpy as np
    from PIL import Image

    from apps.data import SAMPLE, channel_statistics
    from pipelines.encoded import Encoded
    from pipelines.stream import Streamed

    generator = np.random.default_rng(0)
    few = generator.integers(0, 256, (7, 4, 4, 3)).astype("uint8")
    for number, picture in enumerate(few):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    which = generator.integers(0, 7, SAMPLE + 500)  # more than the sample
    streamed = Streamed(Encoded.files([tmp_path / f"{number}.png" for number in which]), (4, 4))
    assert channel_statistics(streamed) == channel_statistics(few[which])


OPTIONS = {
    "norm_parts": 2,
    "stem": "imagenet",
    "activation": "elu",
    "norm": "group",
    "dropout": 0.25,
    "stochastic_depth": 0.5,
    "se": 4,
    "l1": 0.5,
    "l2": 0.125,
    "initializer": "orthogonal",
    "input_noise": 0.75,
    "frozen_scale": 0.5,
    "whitening": 3,
}


def test_options_of_the_recipe_are_those_of_the_network(monkeypatch) -> None:
    from apps.data import Data
    from apps.network import build_network

    asked: dict[str, object] = {}
    monkeypatch.setattr(kerascnn, "build", lambda *arguments, **options: asked.update(options) or keras.Sequential())
    data = Data(np.full((4, 8, 8, 3), 100, "uint8"), {}, {"label": ["cat", "dog"]})
    assert set(NETWORK_OPTIONS) == set(OPTIONS)
    recipe = resolve({"model": "resnet18", "width": 0.25, **OPTIONS}, 1000, (32, 32), [["cat", "dog"]])
    build_network(recipe, data, "float32")
    assert {name: asked[name] for name in OPTIONS} == OPTIONS
    assert asked["width"] == 0.25
    asked.clear()
    recipe = resolve({"model": "resnet18"}, 1000, (128, 128), [["cat", "dog"]])
    build_network(recipe, data, "bfloat16")
    assert set(asked) == {"width", "mean", "std"}  # the network's own for the rest
    assert keras.config.dtype_policy().name == "float32"


def test_small_pictures_keep_their_resolution_where_the_network_can() -> None:
    def stem(size: int, **choices: object) -> str | None:
        return resolve(choices, 1000, (size, size), [["cat", "dog"]]).stem

    assert stem(64, model="resnet18") == "small"
    assert stem(65, model="resnet18") is None
    assert stem(32, model="resnet9") is None  # has no such option
    assert stem(32, model="resnet18", stem="imagenet") == "imagenet"
    assert stem(32, transfer="all") is None  # published weights have their strides


def test_published_weights_get_the_full_width_and_a_tenth_of_the_rate() -> None:
    chosen = ({"model": "resnet18"}, {"transfer": "last"})
    scratch, tuned = (resolve(choices, 45_000, (32, 32), [["cat", "dog"]]) for choices in chosen)
    assert (tuned.model, tuned.width, tuned.optimizer) == ("mobilenet_v2", 1.0, "nesterov")
    assert tuned.lr == pytest.approx(scratch.lr / 10)


@pytest.mark.parametrize(
    "choices",
    [
        *({"stem": "big"}, {"norm": "instance"}, {"dropout": 1.0}, {"dropout": -0.1}, {"stochastic_depth": 1.0}),
        *({"se": -1}, {"se": 1.5}, {"l1": -1.0}, {"l2": -1.0}, {"input_noise": -1.0}, {"transfer": "some"}),
        *({"dropout": "much"}, {"activation": 3}, {"frozen_scale": -1.0}, {"whitening": -1}),
    ],
)
def test_network_options_that_do_not_fit_are_refused(choices: dict[str, object]) -> None:
    (name,) = choices
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        check_choices(choices)
    if name != "transfer":  # None is the network's own value
        assert check_choices({name: None})[name] is None


def test_small_pictures_come_in_whole_epochs_and_first() -> None:
    from apps.phases import Phase, phases

    recipe = resolve({"scales": [[0.5, 0.2], [0.75, 0.33]], "epochs": 8}, 1000, (32, 40), [ANIMALS])
    last = Phase((4, 8), None, 1.0)
    assert phases(recipe) == [Phase((0, 2), (16, 20), 1.0), Phase((2, 4), (24, 30), 1.0), last]
    assert phases(recipe, 3) == [Phase((3, 4), (24, 30), 1.0), last]
    assert phases(recipe, 4) == [last]
    assert phases(resolve({"epochs": 8}, 1000, (32, 40), [ANIMALS])) == [Phase((0, 8), None, 1.0)]
    nearly_all = resolve({"scales": [[0.5, 0.98]], "epochs": 3}, 1000, (32, 40), [ANIMALS])
    assert phases(nearly_all) == [Phase((0, 2), (16, 20)), Phase((2, 3))]
    short = resolve({"scales": [[0.5, 0.2]], "epochs": 1}, 1000, (32, 40), [ANIMALS])
    assert phases(short) == [Phase((0, 1), None, 1.0)]


def test_hardest_pictures_are_chosen_for_every_epoch_once_all_were_seen() -> None:
    from apps.phases import Phase, phases, steps_of

    chosen = {"scales": [[0.5, 0.5]], "hardest": 0.4, "hardest_from": 0.25, "epochs": 4, "batch_size": 32}
    recipe = resolve(chosen, 1000, (32, 40), [ANIMALS])
    found = phases(recipe)
    assert found[:2] == [Phase((0, 1), (16, 20), 1.0), Phase((1, 2), (16, 20), 0.4)]
    assert found[2:] == [Phase((2, 3), None, 0.4), Phase((3, 4), None, 0.4)]
    assert [steps_of(recipe, phase, 1000) for phase in found] == [31, 12, 12, 12]
    at_once = resolve({**chosen, "hardest_from": 0.0}, 1000, (32, 40), [ANIMALS])
    assert [phase.share for phase in phases(at_once)] == [1.0, 0.4, 0.4, 0.4]


def test_every_named_recipe_fits_its_data() -> None:
    from apps.network import check_network, make_optimizer
    from apps.recipes import RECIPES

    for name in RECIPES:
        recipe = resolve(load_choices(name), 45_000, (32, 32), [ANIMALS])
        check_network(recipe, {"label": 2})
        make_optimizer(recipe, 100)


def test_every_optimiser_has_rates_that_suit_it() -> None:
    from apps.network import make_optimizer
    from apps.recipe import OPTIMIZERS

    rates = {one: resolve({"optimizer": one}, 45_000, (32, 32), [ANIMALS]).lr for one in OPTIMIZERS}
    assert rates == {"nesterov": 0.6, "muon_sgd": pytest.approx(0.02 * 8**0.5), "adamw": 2e-3}
    adam = resolve({"optimizer": "adamw", "weight_decay": 0.0}, 45_000, (32, 32), [ANIMALS])
    assert adam.lr == 2e-3
    assert make_optimizer(adam, 10).weight_decay == 0
    assert resolve({"optimizer": "adamw", "lr": 0.5}, 45_000, (32, 32), [ANIMALS]).lr == 0.5


def test_optimiser_has_the_rates_of_the_recipe() -> None:
    from apps.network import make_optimizer

    chosen = {"optimizer": "muon_sgd", "lr": 0.5, "momentum": 0.75, "bias_rate": 0.25, "head_rate": 0.125}
    recipe = resolve({**chosen, "curve": "linear", "warmup": 0.0}, 1000, (32, 32), [ANIMALS])
    model = kerascnn.build("airbench94", (16, 16, 3), {"label": 3}, width=0.125)
    optimizer = make_optimizer(recipe, total_steps=11)
    optimizer.build(model.trainable_variables)
    rates = {one.path: optimizer._factors[number] for number, one in enumerate(model.trainable_variables)}
    assert rates["group1_1_conv/kernel"] == (1, 1)
    assert rates["group1_1_norm/beta"] == (0.25, 0)
    assert rates["head_0_label/kernel"] == (0.125, 1)
    assert optimizer.momentum == 0.75
    assert [float(optimizer._learning_rate(step)) for step in (0, 5)] == pytest.approx([0.5, 0.25], rel=1e-3)
