"""report.html: what was trained on what, how it went and what score to expect, in one file that needs no network."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2

from apps import files
from apps.console import duration, percent
from apps.plan import Plan
from apps.run_folder import read_record


def write_report(
    run: Path, plan: Plan, result: Mapping[str, Any], histories: Sequence[Sequence[Mapping[str, float]]]
) -> None:
    """Write the page of a finished run."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(percent=percent, duration=duration)
    page = environment.get_template("report.html.jinja").render(
        run=run.name,
        result=result,
        command=read_record(run)["command"],
        recipe=asdict(plan.recipe),
        columns=plan.competition.columns,
        training_pictures=len(plan.data.pictures),
        hidden_pictures=len(plan.test_readable),
        classes=plan.data.classes,
        last=histories[0][-1],
        curves=base64.b64encode(draw_curves(histories)).decode(),
    )
    files.write_text(run / "report.html", page)


def draw_curves(histories: Sequence[Sequence[Mapping[str, float]]]) -> bytes:
    """Loss, accuracy and learning rate by epoch, as a PNG; one line a network, validation dashed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    for number, history in enumerate(histories):
        colour, epochs = f"C{number}", [row["epoch"] for row in history]
        for name in history[-1]:  # which has all: an average begins after some epochs
            if name in ("loss", "val_loss"):
                axes = loss
            elif name.endswith("accuracy"):
                axes = accuracy
            elif name == "lr":
                axes = rate
            else:
                continue
            style = "--" if name.startswith("val_") else "-"
            axes.plot(
                epochs,
                [row.get(name, math.nan) for row in history],
                style,
                marker=".",
                label=name,
                color=colour if len(histories) > 1 else None,
            )
    for axes, title in ((loss, "loss"), (accuracy, "accuracy"), (rate, "learning rate")):
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    if len(histories) == 1:
        loss.legend(fontsize="small")
        accuracy.legend(fontsize="small")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()
