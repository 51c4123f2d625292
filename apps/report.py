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
from apps.evaluation import Evaluation, HeadEvaluation, class_table
from apps.held_out_figures import draw_confusion, draw_reliability, shown_classes
from apps.plan import Plan
from apps.run_folder import read_record
from apps.scores import FORMULAS

MOST_ROWS = 100  # of the table of classes


def write_report(
    run: Path,
    plan: Plan,
    result: Mapping[str, Any],
    histories: Sequence[Sequence[Mapping[str, float]]],
    evaluation: Evaluation,
) -> None:
    """Write the page of a finished run."""
    formula = FORMULAS[evaluation.score]
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
        formula=formula,
        heads={head: describe_head(one, plan.data.classes[head]) for head, one in evaluation.heads.items()},
    )
    files.write_text(run / "report.html", page)


def describe_head(evaluated: HeadEvaluation, names: Sequence[str]) -> dict[str, Any]:
    """What the page shows of one head beyond its scores; of many classes only those with the lowest F1."""
    rows = class_table(evaluated.confusion, names)
    lowest = sorted((row for row in rows if row["pictures"]), key=lambda row: row["f1"])[:MOST_ROWS]
    return {
        "reliability": base64.b64encode(draw_reliability(evaluated)).decode(),
        "confusion": base64.b64encode(draw_confusion(evaluated.confusion, names)).decode(),
        "classes": rows if len(rows) <= MOST_ROWS else lowest,
        "all_classes": len(rows),
        "matrix_classes": len(shown_classes(evaluated.confusion)),
    }


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
            elif name.endswith(("accuracy", "macro_f1")):
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
    scores = "accuracy, macro F1" if any(name.endswith("macro_f1") for name in histories[0][0]) else "accuracy"
    for axes, title in ((loss, "loss"), (accuracy, scores), (rate, "learning rate")):
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    if len(histories) == 1:
        loss.legend(fontsize="small")
        accuracy.legend(fontsize="small")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()
