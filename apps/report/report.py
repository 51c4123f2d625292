"""report.html of a run, made of what lies in its folder, and of its pictures where they can be reached."""

import contextlib
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import keras

import pipelines
from apps.console import Console, duration
from apps.data import keras_names
from apps.explain.sections import filters_section
from apps.finished_run import FinishedRun, read_run
from apps.logs import LogFiles
from apps.pages.page import write_page
from apps.recipe import Recipe
from apps.report.curves import draw_curves, epochs_of
from apps.report.examples import FEWEST_CLASSES, MOST_CLASSES, Labelled, examples_of, show_augmentation
from apps.report.heads import describe_head
from apps.report.layers import draw_distributions, draw_layers, found_symptoms, typical_update
from apps.run_folder import checkpoints_of
from apps.scores import FORMULAS
from callbacks import diagnose, loss_windows, read_log
from pipelines.competition import encoded_pictures


def report(folder: Path, console: Console) -> None:
    """`kerascnn report`: write the page of a finished run again."""
    began = time.monotonic()
    run = read_run(folder)
    require_fields(run)
    try:
        competition = pipelines.open_dataset(run.record["data"], **run.record["columns"])
        labelled = Labelled(competition, encoded_pictures(competition.train))
    except (OSError, ValueError) as error:
        console.warn(f"The report shows no pictures: {error}")
        labelled = None
    write_report(run, _load(folder / "model.keras"), labelled, console)
    page = folder / "report.html"
    size = page.stat().st_size / 2**20
    console.say(f"wrote     {page}, {size:.1f} MiB in {duration(time.monotonic() - began)}")


def require_fields(run: FinishedRun) -> None:
    """A `ValueError` where a run is of a version that did not write what the report shows."""
    evaluated = [row for row in run.result["heads"].values() if row["expected"]]
    known = {*run.result, *run.recipe, *(name for row in evaluated for name in row)}
    needed = {"data", "machine", *(["reliability"] if evaluated else []), *(field.name for field in fields(Recipe))}
    if missing := sorted(needed - known):
        raise ValueError(
            f"{run.folder} was finished by an older version, and does not say: {', '.join(missing)}. Its report stays "
            "as it is; `kerascnn compare` and `kerascnn explain` take it."
        )


def _load(path: Path) -> keras.Model:
    import kerascnn  # noqa: F401  (its layers)

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, whose filters the report shows.")
    return keras.models.load_model(path, compile=False)


def write_report(run: FinishedRun, model: keras.Model, labelled: Labelled | None, console: Console) -> None:
    """Write the page.

    Args:
        run: As its files tell it.
        model: Its first network.
        labelled: Its pictures; None shows none.
        console: For warnings, of pictures that cannot be read any more.
    """
    result, history = run.result, [*run.history.values()]
    windows = read_windows(run)
    records = read_records(run)
    heads = {}
    for head, names in run.classes.items():
        if run.validation is None or result["heads"][head]["expected"] is None:
            continue
        heads[head] = describe_head(head, names, run.validation, result["heads"][head])
        heads[head]["examples"] = _examples(run, head, heads[head]["classes"], labelled)
    augmentation = _augmentation(run, labelled, console)
    if labelled is not None and labelled.lost:
        console.warn(
            f"Missing in the report, since they cannot be read: {len(labelled.lost)}, such as {labelled.lost[0]}"
        )
    write_page(
        run.folder / "report.html",
        "report/report.html.jinja",
        title=run.folder.resolve().name,
        commands=commands_of(run),
        run=run,
        result=result,
        formula=FORMULAS[result["score"]],
        heads=heads,
        findings=find(run, windows, records),
        curves=draw_curves(
            history,
            windows,
            [row["best_epoch"] for row in result["networks"] if (row["fold"], row["network"]) == (1, 1)],
            [name_of(*key) for key in run.history],
        ),
        augmentation=augmentation,
        inside=describe_inside(records, model),
        speed=describe_speed(history),
    )


def commands_of(run: FinishedRun) -> dict[str, str]:
    """What a reader may type: the run again, and what says more about it."""
    folder, columns = os.fspath(run.folder), run.record["columns"]
    data = [run.record["data"], *(word for target in columns["targets"] or () for word in ("--target", target))]
    data += ["--group", columns["group"]] if columns["group"] else []
    data += ["--id-column", columns["id_column"]] if columns["id_column"] else []
    return {
        "again": run.record["command"],
        "settled": shlex.join(["kerascnn", "compete", *data, "--recipe", os.path.join(folder, "recipe.json")]),
        "check": shlex.join(["kerascnn", "check", *data]),
        "explain": shlex.join(["kerascnn", "explain", folder]),
    }


def read_windows(run: FinishedRun) -> list[dict[str, Any]]:
    """The loss between epochs of the first network, with "epoch" as a number of epochs; empty without a log."""
    path = _first_logs(run).training
    if not path.is_file():
        return []
    lines = read_log(path)
    ends = {line["epoch"] + 1: line["step"] for line in lines if "batch" not in line}
    return epochs_of(loss_windows(lines), ends) if ends else []


def read_records(run: FinishedRun) -> list[dict[str, Any]]:
    """What the layers of the first network did; empty without a log."""
    path = _first_logs(run).layers
    return read_log(path) if path is not None and path.is_file() else []


def _first_logs(run: FinishedRun) -> LogFiles:
    name = checkpoints_of(run.folder, 0, 0, run.recipe["seeds"]).name
    return LogFiles.of(run.folder, name, layers=True)


def name_of(fold: int, network: int) -> str:
    """What to call a training in a legend.

    >>> name_of(2, 1)
    'fold 2, network 1'
    """
    return f"fold {fold}, network {network}"


def find(run: FinishedRun, windows: Sequence[Mapping[str, Any]], records: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The diagnosis of the first network's training."""
    names = keras_names(run.classes)
    sizes = {names[head]: len(classes) for head, classes in run.classes.items()}
    return diagnose(
        next(iter(run.history.values())),
        steps=windows or None,
        classes=sizes if len(sizes) > 1 else next(iter(sizes.values())),
        batch_size=run.recipe["batch_size"],
        updates=typical_update(records) if records else None,
    )


def describe_inside(records: Sequence[Mapping[str, Any]], model: keras.Model) -> dict[str, Any]:
    """Layers over the training, and the first layer's filters with a measured note; None for what there is not."""
    found: dict[str, Any] = {"filters": None, "samples": len(records)}
    if records:
        found |= {
            "layers": draw_layers(records),
            "distributions": draw_distributions(records),
            "symptoms": found_symptoms(records),
        }
    with contextlib.suppress(ValueError):  # the network has no convolution
        found["filters"] = filters_section(model)
    return found


def describe_speed(history: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, float]:
    """Seconds of the quickest, a usual and the slowest epoch, training alone."""
    seconds = sorted(row["seconds"] for rows in history for row in rows)
    return {"quickest": seconds[0], "usual": seconds[len(seconds) // 2], "slowest": seconds[-1]}


def _examples(
    run: FinishedRun, head: str, rows: Sequence[Mapping[str, Any]], labelled: Labelled | None
) -> list[dict[str, Any]]:
    if labelled is None or run.validation is None:
        return []
    most = max(FEWEST_CLASSES, MOST_CLASSES // len(run.classes))
    chosen = [row for row in rows if row["pictures"]]
    if len(chosen) > most:
        chosen = sorted(chosen, key=lambda row: row["f1"])[:most]
    return examples_of(head, run.classes[head], [row["name"] for row in chosen], run.validation, labelled)


def _augmentation(run: FinishedRun, labelled: Labelled | None, console: Console) -> list[dict[str, Any]]:
    if labelled is None:
        return []
    try:
        return show_augmentation(labelled, run.recipe)
    except (OSError, ValueError) as error:
        console.warn(f"The report shows no augmentation: {error}")
        return []
