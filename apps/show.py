"""`kerascnn show`: a contact sheet of what the augmentation makes of some pictures, step by step."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import pipelines
from apps import files
from apps.augmentation import augmentation
from apps.console import Console
from apps.plan import encode_labels
from apps.recipe import Recipe
from apps.recipes import Choices
from apps.resolve import resolve
from pipelines.augment import Mix, Operation
from pipelines.batches import augment_batch
from pipelines.competition import Competition, encoded_pictures
from pipelines.encoded import Encoded
from pipelines.labels import MISSING, smooth
from pipelines.order import AUGMENTATION
from pipelines.pictures import choose_size, load_pictures, picture_sizes
from pipelines.randomness import example_seeds, fork
from pipelines.whole_file import whole_file

EPOCHS = 3  # rows that show the whole list: the same pictures in so many epochs


def show(
    source: str,
    choices: Choices,
    out: Path,
    *,
    targets: Sequence[str] | None,
    group: str | None,
    id_column: str | None,
    count: int,
    overwrite: bool,
    console: Console,
) -> None:
    """Write a PNG: a row for the pictures as they are, one for every step on its own, some for all steps together.

    Raises:
        ValueError, FileNotFoundError: The data or the choices do not fit, or `out` exists.
    """
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists. Choose another name, or say `--overwrite`.")
    files.require_folder_of(out)
    competition = pipelines.open_dataset(source, targets=targets, group=group, id_column=id_column)
    encoded = encoded_pictures(competition.train)
    size = choose_size(picture_sizes(encoded))
    recipe = resolve(choices, len(encoded), size, list(competition.classes.values()))
    rows = sample_rows(competition, encoded, recipe, count)
    with whole_file(out) as unfinished:
        unfinished.write_bytes(draw_sheet(rows))
    shown = len(rows[0][1])
    console.say(f"wrote     {out}: {shown} pictures, {', '.join(step.name for step in augmentation(recipe))}")


def sample_rows(
    competition: Competition, encoded: Encoded, recipe: Recipe, count: int
) -> list[tuple[str, np.ndarray, list[str]]]:
    """`sheet_rows` of at most `count` pictures, evenly spaced.

    Args:
        competition: Whose labels are shown.
        encoded: Where its labelled pictures lie, in its order.
        recipe: Resolved.
        count: Of pictures; such that cannot be read are left out.

    Raises:
        ValueError: None of them can be read.
    """
    chosen = np.unique(np.linspace(0, len(encoded) - 1, min(count, len(encoded))).astype(int))
    pictures, errors = load_pictures(encoded[chosen], recipe.image_size)
    readable = np.delete(np.arange(len(chosen)), list(errors))
    if not len(readable):
        raise ValueError(f"None of the {len(chosen)} pictures looked at can be read: {next(iter(errors.values()))}.")
    labels = {head: values[chosen[readable]] for head, values in encode_labels(competition).items()}
    return sheet_rows(pictures[readable], labels, competition, recipe, chosen[readable])


def sheet_rows(
    pictures: np.ndarray, labels: Mapping[str, np.ndarray], competition: Competition, recipe: Recipe, index: np.ndarray
) -> list[tuple[str, np.ndarray, list[str]]]:
    """Title, pictures and captions of every row."""
    steps = augmentation(recipe, pictures.mean(axis=(0, 1, 2)))
    rows = [("as they are", *_apply(pictures, labels, competition, recipe, index, [], 0))]
    for step in steps:
        rows.append((step.name.replace("_", " "), *_apply(pictures, labels, competition, recipe, index, [step], 0)))
    if len(steps) > 1:
        for epoch in range(EPOCHS):
            title = f"all, epoch {epoch + 1}"
            rows.append((title, *_apply(pictures, labels, competition, recipe, index, steps, epoch)))
    return rows


def _apply(
    pictures: np.ndarray,
    labels: Mapping[str, np.ndarray],
    competition: Competition,
    recipe: Recipe,
    index: np.ndarray,
    steps: Sequence[Operation | Mix],
    epoch: int,
) -> tuple[np.ndarray, list[str]]:
    """Pictures uint8 and a caption for each: its labels, with their shares where pictures were mixed."""
    classes = competition.classes
    y = {head: smooth(tf.constant(values), len(classes[head]), 0.0) for head, values in labels.items()}
    weight = {head: tf.constant((values != MISSING).astype("float32")) for head, values in labels.items()}
    seeds = fork(example_seeds(recipe.seed, epoch, index), AUGMENTATION)
    once = fork(example_seeds(recipe.seed, 0, index), AUGMENTATION)
    x, mixed, _ = augment_batch(tf.constant(pictures), y, weight, seeds, steps, once, epoch)
    captions = [
        "\n".join(_caption(rows[number].numpy(), classes[head]) for head, rows in mixed.items())
        for number in range(len(pictures))
    ]
    return np.round(x.numpy()).clip(0, 255).astype("uint8"), captions


def _caption(row: np.ndarray, names: Sequence[str]) -> str:
    """The classes of one picture: "cat", or "70 % cat, 30 % dog", or "?" without a label."""
    present = [place for place in np.argsort(-row, kind="stable") if row[place] > 0.005]
    if len(present) == 1:
        return names[present[0]]
    return ",\n".join(f"{100 * row[place]:.0f} % {names[place]}" for place in present) or "?"


def draw_sheet(rows: Sequence[tuple[str, np.ndarray, list[str]]]) -> bytes:
    """A PNG with the rows below each other, each picture with its caption."""
    from matplotlib.figure import Figure

    columns = max(len(pictures) for _, pictures, _ in rows)
    lines = max(caption.count("\n") + 1 for _, _, captions in rows for caption in captions)
    height, width = rows[0][1].shape[1:3]
    cell = 1.3
    figure = Figure(
        figsize=(cell * columns + 1.2, (cell * height / width + 0.1 + 0.13 * lines) * len(rows)), layout="constrained"
    )
    grid: Any = figure.subplots(len(rows), columns, squeeze=False)
    for line, (title, pictures, captions) in zip(grid, rows, strict=True):
        for axes in line:
            axes.axis("off")
        for axes, picture, caption in zip(line, pictures, captions, strict=False):
            axes.imshow(picture, interpolation="nearest")
            axes.set_title(caption.replace("$", r"\$"), fontsize=6, pad=2)
        line[0].text(-0.1, 0.5, title, transform=line[0].transAxes, ha="right", va="center", fontsize=8)
    picture_file = io.BytesIO()
    figure.savefig(picture_file, format="png", dpi=150)
    return picture_file.getvalue()
