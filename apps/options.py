"""Options that several commands of `kerascnn` have, with their help."""

import re
from typing import Annotated, Any

import typer

from apps.recipes import RECIPES

STORAGE = "KERASCNN_STORAGE"  # in the environment, where `--storage` is not given

Data = Annotated[
    str,
    typer.Argument(
        help="`digits`, `tfds:NAME`, a folder with train.csv (and test.csv) and pictures, a folder with one sub-folder "
        "per class, a folder of TFRecord shards, an .npz with x_train and y_train, or a .zip of one of these."
    ),
]
Target = Annotated[
    list[str] | None,
    typer.Option(help="Column of train.csv to predict; repeat for several.", show_default="worked out"),
]
Group = Annotated[
    str | None,
    typer.Option(
        help="Column whose values are never split between training and validation, such as a person; `none`.",
        show_default="a column named like one",
    ),
]
IdColumn = Annotated[
    str | None, typer.Option("--id", help="Column that names the picture file.", show_default="worked out")
]
RecipeName = Annotated[
    str | None,
    typer.Option(help=f"{', '.join(f'`{name}`' for name in RECIPES)}, a TOML file, or the recipe.json of a run."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Any field of the recipe, such as cutout=8, mixup=0.2 or balance=weights; repeat for several.",
        show_default=False,
    ),
]
Memory = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="GiB that decoded pictures may take; larger data are read from disk in every epoch.",
        show_default="a quarter of what is free",
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Stop when a row or picture would be left out.")]
ImageSize = Annotated[
    str | None,
    typer.Option(
        metavar="HEIGHTxWIDTH",
        help="Pixels to resize to, as 128 or 128x96.",
        show_default="their own, reduced as suits the network",
    ),
]
Val = Annotated[
    str | None,
    typer.Option(
        metavar="FRACTION|FOLDS|FILE",
        help="Fraction held out for validation, number of folds (5), 0, or CSV file of what to hold out.",
        show_default="0.1",
    ),
]
Seed = Annotated[int | None, typer.Option(help="Of split, weights, order and augmentation.", show_default="0")]
ScoreName = Annotated[
    str | None,
    typer.Option(
        "--score",
        metavar="accuracy|macro_f1|log_loss",
        help="What counts, the mean over the targets.",
        show_default="accuracy",
    ),
]
FromScratch = Annotated[
    bool, typer.Option("--from-scratch/--no-from-scratch", help="Whether the rules forbid published weights.")
]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Write logs for TensorBoard, too (needs the extra `tensorboard`).")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but warnings and errors.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error and TensorFlow's own messages.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the --out file.")]

# The commands' names of what decides which data are read, and how a network is trained on them.
OF_TRAINING = {"target", "group", "id_column", "recipe", "settings", "image_size", "memory", "strict"}


def training_options(context: typer.Context) -> list[str]:
    """The options, as they were given to this command, with which `compete` trains alike."""
    given: list[str] = []
    for option in context.command.params:
        value = context.params.get(option.name)
        if option.name in OF_TRAINING and value is not None:
            for one in value if isinstance(value, list | tuple) else [value]:
                given += [] if one is False else [option.opts[0]] if one is True else [option.opts[0], str(one)]
    return given


def parse_size(text: str | None) -> tuple[int, int] | None:
    """(height, width) of `--image-size`."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip().lower())
    if not match:
        raise ValueError(f"`--image-size` must be a number of pixels, as 128, or HEIGHTxWIDTH. Received: {text!r}.")
    return int(match[1]), int(match[2] or match[1])


def recipe_choices(data: str, recipe: str | None, settings: list[str] | None, given: dict[str, Any]) -> dict[str, Any]:
    """Checked fields of the recipe: those of a named recipe, then `--set`, then options of their own."""
    from apps.recipe import check_choices, load_choices, override, parse_settings

    base = load_choices(recipe or (data if data in RECIPES else "default"))
    chosen = {field: value for field, value in given.items() if value is not None}
    return dict(check_choices(override(base, {**parse_settings(settings or ()), **chosen})))


def parse_val(text: str | None) -> float | str | None:
    """A fraction or a number of folds of `--val`, else the name of a file."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def parse_devices(devices: str | None) -> int | None:
    """How many devices of a host; 0 for all, None for what suits: one, and of several hosts all.

    >>> parse_devices("all"), parse_devices("2"), parse_devices(None)
    (0, 2, None)
    """
    if devices is None:
        return None
    if devices == "all":
        return 0
    if not devices.isdigit() or int(devices) < 1:
        raise ValueError(f"`--devices` must be a number of devices, or `all`. Received: {devices}.")
    return int(devices)
