"""What a run found out, for result.json and in the lines that the user sees."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from apps import run_folder
from apps.console import Console, percent
from apps.ensemble import Ensemble, gains
from apps.estimate import Estimate
from apps.evaluation import Evaluation
from apps.kept_weights import kept_epochs
from apps.plan import Plan
from apps.scores import FORMULAS, Formula
from pipelines.labels import MISSING


def say_gain(found: Mapping[str, float], networks: int) -> str:
    """What several networks reach together and alone, in one line."""
    same = found["expected"] == found["together"]
    hopeful = "" if same else f" ({percent(found['together'])} of those that chose them)"
    spread = f" (from {percent(found['worst_alone'])} to {percent(found['best_alone'])})"
    return (
        f"{networks} networks are right together on {percent(found['expected'])} of the held-out pictures{hopeful}, "
        f"one alone on {percent(found['alone'])}{spread if found['worst_alone'] < found['best_alone'] else ''}: "
        f"{round(100 * (found['expected'] - found['alone']), 1) + 0.0:+.1f} points"
    )


def describe_result(
    plan: Plan, ensembles: Sequence[Ensemble], evaluation: Evaluation, published: Path
) -> dict[str, Any]:
    """What result.json says, all but the hidden score."""
    evaluated = evaluation.heads
    trained = [one for ensemble in ensembles for one in ensemble.trained]
    networks = describe_networks(plan, ensembles)
    return {
        "score": evaluation.score,
        "expected": asdict(evaluation.expected) if evaluation.expected else None,
        "heads": {
            head: {
                "validation_accuracy": evaluated[head].accuracy.value if head in evaluated else None,
                "largest_class": float(np.bincount(labels[labels != MISSING]).max() / (labels != MISSING).sum()),
                **(evaluated[head].describe() if head in evaluated else {"expected": None}),
            }
            for head, labels in plan.data.labels.items()
        },
        "data": {
            "labelled": len(plan.data.pictures),
            "hidden": len(plan.test_readable),
            "columns": list(plan.competition.columns),
        },
        "parameters": plan.parameters,
        "seconds": round(sum(one.seconds for one in trained), 1),
        "pictures_per_second": round(float(np.mean([one.pictures_per_second for one in trained])), 1),
        "best_epochs": [network["best_epoch"] for network in networks],
        "networks": networks,
        "ensemble": gains(ensembles),
        "alarms": [
            f"network {number}: {text}" if len(trained) > 1 else text
            for number, one in enumerate(trained, start=1)
            for text in one.alarms
        ],
        "seed": plan.recipe.seed,
        "left_out": plan.left_out,
        "audit": list(plan.audited),
        "saved_model": os.fspath(published),
        "versions": run_folder.package_versions(),
        "commit": run_folder.source_commit(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {_accelerators()}",
    }


def _accelerators() -> str:
    count = len(tf.config.list_physical_devices("GPU"))
    return f"{count} GPU{'s' if count > 1 else ''}" if count else "no GPU"


def describe_networks(plan: Plan, ensembles: Sequence[Ensemble]) -> list[dict[str, Any]]:
    """Of every network: where it comes from, how much it counts in its split, what it reaches there alone."""
    found = []
    for fold, ensemble in enumerate(ensembles, start=1):
        origins = [
            (network, epoch)
            for network, one in enumerate(ensemble.trained)
            for epoch in kept_epochs(plan.recipe, one.best_epoch)
        ]
        for place, (network, epoch) in enumerate(origins):
            found.append(
                {
                    "fold": fold,
                    "network": network + 1,
                    "seed": plan.recipe.seed + network,
                    "best_epoch": epoch,
                    "weight": ensemble.weights[place],
                    "validation_accuracy": dict(ensemble.alone[place]) if ensemble.alone else None,
                }
            )
    return found


def report_scores(
    scores: Mapping[str, Mapping[str, float]], evaluation: Evaluation, result: dict[str, Any], console: Console
) -> None:
    """Print the hidden scores, beside what was expected, and add them to the result."""
    formula = FORMULAS[evaluation.score]
    for head, values in scores.items():
        result["heads"][head] |= {"hidden_accuracy": values["accuracy"], "hidden_scores": dict(values)}
        console.say(f"score     {head}: {percent(values['accuracy'])} of the hidden labels are right")
        if evaluation.score != "accuracy":
            console.say(f"          {formula.title} {formula.show(values[evaluation.score])}")
        if head in evaluation.heads:
            console.say(f"          {compare(values[evaluation.score], evaluation.heads[head].expected, formula)}")
    if set(scores) == set(result["heads"]):
        result["hidden_score"] = float(np.mean([values[evaluation.score] for values in scores.values()]))
        if len(scores) > 1:
            shown = f"{formula.title} {formula.show(result['hidden_score'])}"
            console.say(f"score     mean of {len(scores)} heads: {shown}")
            if evaluation.expected is not None:
                console.say(f"          {compare(result['hidden_score'], evaluation.expected, formula)}")


def compare(score: float, expected: Estimate, formula: Formula) -> str:
    """How a score relates to what was expected."""
    inside = "inside" if expected.holds(score) else "OUTSIDE"
    interval = f"{formula.show(expected.low)} to {formula.show(expected.high)}"
    return f"expected before: {formula.show(expected.value)}; {inside} the interval of {interval}"
