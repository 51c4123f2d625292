"""A recipe: every choice of a training in one flat record, and what its fields may be."""

import difflib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args

from apps.recipe_file import parse_toml
from apps.recipes import RECIPES, Choices

# Spelled out here too, since the command line checks a recipe before the pipelines are imported (a test compares them).
FILLS = ("constant", "edge", "reflect", "symmetric", "wrap")
SMOOTHINGS = ("others", "all")
BALANCES = ("none", "weights", "sampling")
FLIPS = ("random", "alternating")
CURVES = ("cosine", "linear")
SCORES = ("accuracy", "macro_f1", "log_loss")
OPTIMIZERS = ("nesterov", "muon_sgd", "adamw")
HEAD_LOSSES = ("fixed", "uncertainty")
# Values of these fields suit one optimiser, one norm, or one number of cycles, and no other.
SETTLED_FOR = {
    "optimizer": ("lr", "momentum", "bias_rate", "head_rate", "weight_decay"),
    "norm": ("frozen_scale",),
    "snapshots": ("patience",),
}
NORMS = ("batch", "layer", "group", "none")
TRANSFERS = ("none", "all", "last", "relearn")
AVERAGES = ("none", "ema", "swa")
# Fields that are options of the network; what is None is as the network was published.
NETWORK_OPTIONS = (
    *("stem", "activation", "norm", "dropout", "stochastic_depth"),
    *("se", "l1", "l2", "initializer", "input_noise", "frozen_scale", "norm_parts", "whitening"),
)


@dataclass(frozen=True)
class Recipe:
    """All choices of a training.

    Attributes:
        model: One of `kerascnn.list_models()`.
        width: Multiplies the number of filters of every layer.
        image_size: (height, width) in pixels that every picture is resized to.
        epochs: Passes over the training pictures.
        batch_size: Pictures per step.
        lr: Highest learning rate of the one-cycle schedule.
        flip: Mirror left and right in training, and average predictions over the picture and its mirror image.
        crop: Padding in pixels of the random crop; 0 for none.
        precision: "float32" or "bfloat16".
        val: Fraction held out for validation, a number of folds, 0, or a CSV file that lists what to hold out; None
            holds out the data's own val/ folder.
        flips: "random", or "alternating": every picture in turn as it is and mirrored (`augment.alternating_flip`).
        views: Pixels by which predictions also see every picture moved up and left, and down and right, each with half
            the weight of the picture itself; 0 for none.
        scales: Smaller pictures first, with which an epoch is faster: (scale of the sides, fraction of the epochs) in
            turn; the rest is at full size.
        hardest: Share of the pictures that an epoch is trained on: those whose loss was highest when last seen.
        hardest_from: From which part of the epochs on; before it, all pictures are trained on.
        cutout: Side in pixels of the square that is cut out; 0 for none.
        rotation: Largest random rotation in degrees.
        zoom: Largest relative change of size.
        translation: Largest shift as a fraction of the side.
        shear: Largest slant in degrees.
        fill: What lies outside a picture that is moved or cropped: constant, edge, reflect, symmetric or wrap.
        resized_crop: Smallest share of the area that a random resized crop keeps of a picture, which is at `image_size`
            already; 0 for none.
        vertical_flip: Mirror top and bottom at random.
        randaugment: How many operations of RandAugment; 0 for none.
        magnitude: Strength of these, from 0 to 30.
        brightness, contrast, saturation: Largest relative change of each.
        hue: Largest turn of the colour circle, in turns.
        grayscale: Probability of losing the colour.
        noise: Standard deviation of Gaussian noise, in pixel units.
        erasing: Probability of losing a random rectangle.
        mixup, cutmix: The alpha of each; 0 for none. With both, a picture gets one or the other.
        optimizer: "nesterov" (SGD with Nesterov's momentum), "muon_sgd" (`callbacks.MuonSGD`) or "adamw".
        momentum: Of "nesterov" and "muon_sgd".
        weight_decay: Decoupled (weight -= rate * weight_decay * weight), not on BatchNorm and biases.
        bias_rate, head_rate: What multiplies the learning rate of biases and BatchNorm's shifts, and of the last layer.
        curve: Of the learning rate: "cosine" or "linear".
        label_smoothing: e.
        smoothing: Who shares it: "others" (1 - e for the true class, e / (K - 1) for each other) or "all" (e / K each).
        head_weights: How much the loss of each head counts compared to the others, {"label": 2.0}; heads that are not
            named have 1. The weights are divided by their sum, so that the rate keeps its meaning. None: all alike.
        head_loss: "fixed", or "uncertainty", which learns the weights (`kerascnn.uncertainty_weighted`).
        balance: "weights" weighs the loss against the frequency of each class, "sampling" draws rare classes more
            often, "none".
        warmup: Fraction of the training, or of the first cycle of `snapshots`, in which the rate rises.
        patience: Epochs without a better validation score before training stops; 0 never stops.
        score: What counts, the mean over the heads: "accuracy", "macro_f1" or "log_loss" (`apps.scores`). It decides
            which epoch is the best, and the estimate and the score are given by it.
        seed: Of the split, the initial weights, the order and the augmentation.
        deterministic: Only operations that give the same bits every time; without it most do on processors, too.
        seeds: Networks for every split, trained with `seed`, `seed` + 1, ...; the split is that of `seed`.
        snapshots: Networks that one training yields: so many cosine cycles of the rate, equally long in epochs (the
            first ones longer where these do not divide evenly), and the weights at the end of each.
        average: Which weights a training yields: the "none" averaged ones, their moving average ("ema") or the mean of
            those at the ends of the last quarter of the epochs ("swa").
        select: Choose by the held-out pictures how much each network of a split counts, where there are several
            (`apps.ensemble.select`); without, all count alike.
        stem: "small" keeps the resolution in the first layers, "imagenet" does not.
        activation, norm, dropout, stochastic_depth, se, l1, l2, initializer, input_noise, frozen_scale, norm_parts,
            whitening: As in `kerascnn.blocks.Net`; None is the network's own.
        transfer: "none" begins with random weights, the others with those published for ImageNet
            (`kerascnn.transfer`): "all" fine-tunes everything, "last" the last third of the layers, "relearn" trains
            these from scratch.
    """

    model: str
    width: float
    image_size: tuple[int, int]
    epochs: int
    batch_size: int
    lr: float
    flip: bool
    crop: int
    precision: str
    val: float | str | None
    cutout: int
    rotation: float
    zoom: float
    translation: float
    flips: str = "random"
    views: int = 0
    scales: tuple[tuple[float, float], ...] = ()
    hardest: float = 1.0
    hardest_from: float = 0.2
    shear: float = 0.0
    fill: str = "reflect"
    resized_crop: float = 0.0
    vertical_flip: bool = False
    randaugment: int = 0
    magnitude: float = 9.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grayscale: float = 0.0
    noise: float = 0.0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    optimizer: str = "nesterov"
    momentum: float = 0.9
    weight_decay: float = 5e-3
    bias_rate: float = 1.0
    head_rate: float = 1.0
    curve: str = "cosine"
    label_smoothing: float = 0.15
    smoothing: str = "others"
    head_weights: dict[str, float] | None = None
    head_loss: str = "fixed"
    balance: str = "none"
    warmup: float = 0.25
    patience: int = 10
    score: str = "accuracy"
    seed: int = 0
    deterministic: bool = False
    seeds: int = 1
    snapshots: int = 1
    average: str = "none"
    select: bool = True
    stem: str | None = None
    activation: str | None = None
    norm: str | None = None
    dropout: float | None = None
    stochastic_depth: float | None = None
    se: int | None = None
    l1: float | None = None
    l2: float | None = None
    initializer: str | None = None
    input_noise: float | None = None
    frozen_scale: float | None = None
    norm_parts: int | None = None
    whitening: int | None = None
    transfer: str = "none"


# What values must be: of which fields, whether a value fits, and the same in words.
LIMITS: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (("epochs", "batch_size", "seeds", "snapshots", "norm_parts"), lambda value: value >= 1, "at least 1"),
    (("lr", "width"), lambda value: value > 0, "positive"),
    (
        (
            *("crop", "cutout", "rotation", "randaugment", "noise", "mixup", "cutmix", "views", "patience"),
            *("bias_rate", "head_rate", "weight_decay"),
            *("se", "l1", "l2", "input_noise", "frozen_scale", "whitening"),
        ),
        lambda value: value >= 0,
        "0 or more",
    ),
    (
        ("momentum", "hardest_from", "label_smoothing", "warmup", "dropout", "stochastic_depth"),
        lambda value: 0 <= value < 1,
        "in [0, 1)",
    ),
    (("hardest",), lambda value: 0 < value <= 1, "in (0, 1]"),
    (
        ("translation", "resized_crop", "brightness", "contrast", "saturation", "grayscale", "erasing"),
        lambda value: 0 <= value <= 1,
        "from 0 to 1",
    ),
    (
        ("head_weights",),
        lambda weights: weights is None or all(weight > 0 for weight in weights.values()),
        "positive numbers by head",
    ),
    (("hue",), lambda value: 0 <= value <= 0.5, "from 0 to 0.5"),
    (("zoom",), lambda value: 0 <= value <= 4, "from 0 to 4"),
    (("magnitude",), lambda value: 0 <= value <= 30, "from 0 to 30"),
    (("shear",), lambda value: 0 <= value < 90, "from 0 to 90 degrees"),
    (("seed",), lambda value: 0 <= value < 2**31, "from 0 to 2147483647"),
    (("image_size",), lambda size: min(size) >= 8, "at least 8 pixels in height and width"),
    (
        ("scales",),
        lambda pairs: (
            all(0 < scale < 1 and share > 0 for scale, share in pairs) and sum(share for _, share in pairs) < 1
        ),
        "scales in (0, 1) with fractions of the epochs below 1 together",
    ),
    (
        ("val",),
        lambda value: (
            value is None or isinstance(value, str) or 0 <= value <= 0.5 or (value >= 2 and value.is_integer())
        ),
        "a fraction up to 0.5, a number of folds from 2 on, 0, or a CSV file",
    ),
    (("precision",), lambda value: value in ("float32", "bfloat16"), "float32 or bfloat16"),
    (("stem",), lambda value: value in ("imagenet", "small"), "imagenet or small"),
    *(
        ((name,), values.__contains__, f"one of {', '.join(values)}")
        for name, values in (
            ("flips", FLIPS),
            ("curve", CURVES),
            ("optimizer", OPTIMIZERS),
            ("fill", FILLS),
            ("smoothing", SMOOTHINGS),
            ("head_loss", HEAD_LOSSES),
            ("balance", BALANCES),
            ("score", SCORES),
            ("norm", NORMS),
            ("transfer", TRANSFERS),
            ("average", AVERAGES),
        )
    ),
)


def load_choices(name: str) -> Choices:
    """The choices of a built-in recipe, of a TOML file, or of a JSON file such as the recipe.json of a run.

    Raises:
        FileNotFoundError, ValueError: There is neither such a name nor such a file; a field does not fit.
    """
    if name in RECIPES:
        return RECIPES[name]
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no recipe and no file {name!r}.{near_name(name, RECIPES)} Recipes: {', '.join(RECIPES)}."
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is no text in UTF-8: {error}.") from error
    if path.suffix == ".toml" or (path.suffix != ".json" and not text.lstrip().startswith("{")):
        return check_choices(parse_toml(text, name)[0])
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{name} must hold one JSON object of recipe fields.")
    values = values.get("recipe", values)
    if not isinstance(values, dict):
        raise ValueError(f"{name} must hold one JSON object of recipe fields.")
    return check_choices(values)


def override(base: Choices, chosen: Choices) -> Choices:
    """The choices of a recipe with others on top; what it settles for its optimiser, norm or cycles goes with these.

    >>> override({"optimizer": "nesterov", "lr": 0.4, "epochs": 24}, {"optimizer": "adamw"})
    {'epochs': 24, 'optimizer': 'adamw'}
    """
    left, before = dict(base), {"snapshots": Recipe.snapshots, **base}
    for name, settled in SETTLED_FOR.items():
        if name in chosen and chosen[name] != before.get(name):
            for other in (name, *settled):
                left.pop(other, None)
    return {**left, **chosen}


def check_choices(choices: Choices) -> Choices:
    """The same choices, once every name and value is known to fit; a `ValueError` says which does not."""
    known = [field.name for field in fields(Recipe)]
    checked = dict(choices)
    for name in checked:
        if name not in known:
            raise ValueError(f"A recipe has no field {name!r}.{near_name(name, known)} Fields: {', '.join(known)}.")
    for field in fields(Recipe):
        if field.name in checked:
            checked[field.name] = _typed(field.name, field.type, checked[field.name])
    for names, fits, expected in LIMITS:
        for name in names:
            as_published = name in NETWORK_OPTIONS and checked.get(name) is None
            if name in checked and not as_published and not fits(checked[name]):
                raise ValueError(f"`{name}` must be {expected}. Received: {name}={checked[name]!r}.")
    return checked


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Fields of a recipe from "FIELD=VALUE" texts.

    >>> parse_settings(["cutout=8", "fill=edge", "vertical_flip=true", "image_size=[32, 40]"])
    {'cutout': 8, 'fill': 'edge', 'vertical_flip': True, 'image_size': [32, 40]}
    """
    values = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"`--set` needs FIELD=VALUE, such as cutout=8. Received: {setting!r}.")
        try:
            values[name.strip()] = json.loads(text)
        except ValueError:
            values[name.strip()] = text.strip()
    return values


def _typed(name: str, kind: Any, value: Any) -> Any:
    """The value as the field's type, where that loses nothing; else a `ValueError`."""
    if kind == (float | str | None):
        return value if value is None or isinstance(value, str) else _typed(name, float, value)
    if value is None and type(None) in get_args(kind):
        return None
    if isinstance(kind, UnionType):
        (kind,) = (one for one in get_args(kind) if one is not type(None))
    if kind == tuple[tuple[float, float], ...]:
        pairs = value if isinstance(value, (list, tuple)) else [value]
        if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
            raise ValueError(f"`{name}` must be pairs of numbers, such as [[0.5, 0.3]]. Received: {name}={value!r}.")
        return tuple((_typed(name, float, scale), _typed(name, float, share)) for scale, share in value)
    if kind == dict[str, float]:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ValueError(f'`{name}` must be numbers by head, such as {{"label": 2}}. Received: {name}={value!r}.')
        return {key: _typed(name, float, number) for key, number in value.items()}
    if kind == tuple[int, int] and isinstance(value, (list, tuple)) and len(value) == 2:
        return (_typed(name, int, value[0]), _typed(name, int, value[1]))
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if type(value) is not kind or kind is float:
        expected = (
            "two whole numbers"
            if kind == tuple[int, int]
            else {int: "a whole number", str: "text"}.get(kind, "true or false" if kind is bool else "a number")
        )
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}.")
    return value


def near_name(name: str, known: Sequence[str] | Mapping[str, object]) -> str:
    """A sentence that asks whether the most similar of the known names was meant; empty where none is."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
