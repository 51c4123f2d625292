"""`kerascnn compete`: from labelled pictures to a submission, an expected score and a SavedModel."""

import os
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np

import pipelines
from apps import files, run_folder
from apps.audit import brief_audit
from apps.console import Console, duration, percent
from apps.data import keras_names
from apps.estimate import Estimate, expect_accuracy
from apps.plan import Plan, make_plan, print_plan
from apps.recipes import Choices
from apps.report import write_report
from apps.submission import make_submission, predict_pictures, score_submission, verify
from apps.training import Trained, measure_seconds, train
from kerascnn.export import Classifier, export_model, new_version
from kerascnn.registry import lookup
from pipelines.competition import encoded_pictures
from pipelines.decode import decode_picture, resize
from pipelines.labels import MISSING
from pipelines.sources import dataset_name
from pipelines.stream import Streamed

CANARIES = 4  # examples with their answers that an exported model carries
FILES_CHECKED = 100  # pictures that check an export where there are no hidden files


def compete(
    source: str,
    choices: Choices,
    *,
    targets: Sequence[str] | None = None,
    group: str | None = None,
    id_column: str | None = None,
    out: Path | None = None,
    saved_models: Path = Path("saved_models"),
    strict: bool = False,
    dry_run: bool = False,
    resume: bool = False,
    probabilities: bool = False,
    memory: float | None = None,
    from_scratch: bool = True,
    console: Console | None = None,
) -> Path | None:
    """Train, validate, predict the hidden pictures, export, report; returns the run folder (None after a dry run).

    Args:
        source: What `pipelines.open_dataset` takes.
        choices: Fields of the recipe that are settled; the others are worked out from the data.
        targets, group, id_column: Columns of train.csv; None works them out.
        out: The run folder, which must not exist; None takes runs/NAME, runs/NAME-2, ...
        saved_models: Where the export goes, NAME/VERSION.
        strict: Raise when any row or picture would be left out.
        dry_run: Check everything, print the plan, write nothing.
        resume: Go on with an interrupted run.
        probabilities: Write probabilities.csv as well.
        from_scratch: Whether the competition forbids published weights: `transfer` is refused.
        memory: GiB that decoded pictures may take, else they are read from disk; None for a quarter of what is free.

    Raises:
        ValueError, FileNotFoundError: The data or the choices do not fit, before any training.
    """
    if (backend := keras.backend.backend()) != "tensorflow":
        raise ValueError(f"`compete` exports TensorFlow's format: set KERAS_BACKEND=tensorflow. Received: {backend}.")
    console = console or Console()
    began = time.monotonic()
    if "model" in choices:
        lookup(choices["model"])
    if from_scratch and not resume and choices.get("transfer", "none") != "none":
        raise ValueError(
            "A competition is from scratch unless you say that its rules allow published weights. "
            f"Received: transfer={choices['transfer']}. Add `--no-from-scratch` if they do."
        )
    order = run_folder.Order(
        data=source,
        columns={"targets": list(targets) if targets else None, "group": group, "id_column": id_column},
        choices=dict(choices),
        saved_models=os.fspath(saved_models),
        probabilities=probabilities,
    )
    run, fingerprint = out, None
    if resume:
        run = run_folder.find_interrupted(dataset_name(source), out)
        order, fingerprint = run_folder.kept_order(run, order)
    elif out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists. Choose another `--out`, or go on with it by `--resume`.")
    for folder in (run or Path("runs"), Path(order.saved_models)):
        files.require_writable(folder)
    allowed = None if memory is None else memory * 2**30
    plan = make_plan(pipelines.open_dataset(source, **order.columns), order.choices, strict, console, allowed)
    print_plan(plan, console)
    if fingerprint not in (None, plan.fingerprint):
        raise ValueError(f"The pictures or labels of {source} have changed since {run} was begun. Start a new run.")
    audited = brief_audit(plan, console)
    if dry_run:
        seconds = measure_seconds(plan.recipe, plan.data, [len(train_index) for train_index, _ in plan.splits])
        console.say(f"time      about {duration(seconds)} of training on this machine (measured on a few steps)")
        return None
    if run is None or not resume:
        run = out or files.new_folder(Path("runs") / plan.competition.name)
        run.mkdir(parents=True, exist_ok=True)
        run_folder.write_record(run, order, asdict(plan.recipe), plan.fingerprint)
    console.say(f"run       {run}")
    carry_out(plan, run, order, resume, console, audited)
    console.say(f"done      {run / 'report.html'}, all in {duration(time.monotonic() - began)}")
    return run


def carry_out(
    plan: Plan, run: Path, order: run_folder.Order, resume: bool, console: Console, audited: Sequence[str] = ()
) -> None:
    """`finish`, alone in the run folder; whatever stops it is answered with the command that goes on."""
    again = shlex.join(["kerascnn", "compete", order.data, "--resume", "--out", os.fspath(run)])
    with run_folder.lock(run):
        run_folder.remove_unfinished(run)
        try:
            finish(plan, run, order, resume, console, audited)
        except KeyboardInterrupt:
            console.warn(f"Stopped. {run_folder.best_snapshot(run)} Go on with: {again}")
            raise
        except OSError as error:
            raise OSError(f"{run_folder.describe(error)} What is finished is kept; go on with: {again}") from error


def finish(
    plan: Plan, run: Path, order: run_folder.Order, resume: bool, console: Console, audited: Sequence[str] = ()
) -> None:
    """Train all splits, then write everything a run consists of, the score last; `audited` is what the audit said."""
    competition, recipe, data = plan.competition, plan.recipe, plan.data
    trained = []
    for number, (train_index, val_index) in enumerate(plan.splits, start=1):
        what = f"fold {number} of {len(plan.splits)}" if len(plan.splits) > 1 else "training"
        trained.append(
            train(recipe, data, train_index, val_index, run / "checkpoints" / str(number), console, what, resume)
        )
    run_folder.write_history([one.history for one in trained], run)
    classifier = make_classifier(plan, trained)
    estimates = estimate(plan, trained)
    if missing := int((~plan.test_readable).sum()):
        console.warn(f"{missing:,} hidden pictures cannot be read; the expected score is for the others.")
    for head, expected in estimates.items():
        console.say(
            f"expected  {head}: {percent(expected.accuracy)} on {expected.pictures:,} held-out pictures; hidden score "
            f"between {percent(expected.low)} and {percent(expected.high)} (95 %)"
        )
    predicted = predict_pictures(classifier, plan.test_pictures)
    submission, table = make_submission(plan, predicted)
    if len(submission):
        files.write_table(run / "submission.csv", submission)
        if order.probabilities:
            files.write_table(run / "probabilities.csv", table)
        console.say(f"wrote     {run / 'submission.csv'}, {len(submission):,} rows")

    with files.whole_file(run / "model.keras") as unfinished:
        trained[0].model.save(unfinished)
    published, compared = publish(plan, classifier, predicted, Path(order.saved_models) / saved_model_name(plan, run))
    console.say(f"wrote     {published}; in a separate process it gave the same answers for {compared:,} picture files")

    result = describe_result(plan, trained, estimates, published) | {"audit": list(audited)}
    if len(submission) and competition.answers is not None:
        # The submission is on disk and will not change: only now are the hidden labels read.
        for head, score in score_submission(submission, competition, console).items():
            result["heads"][head]["hidden_accuracy"] = score
            console.say(f"score     {head}: {percent(score)} of the hidden labels are right")
            if head in estimates:
                console.say(f"          {compare(score, estimates[head])}")
    warn_of_lost_pictures(plan, console)
    write_report(run, plan, result, [one.history for one in trained])
    files.write_json(run / "result.json", result)  # the last file: it says that the run is finished


def warn_of_lost_pictures(plan: Plan, console: Console) -> None:
    """Say which pictures, readable when the run began, could not be read any more: they had no weight in training."""
    streams = [pictures for pictures in (plan.data.pictures, plan.test_pictures) if isinstance(pictures, Streamed)]
    lost = sorted(set().union(*(stream.failed for stream in streams)))
    if lost:
        console.warn(f"{len(lost):,} pictures became unreadable after they had been checked, such as {lost[0]}.")


def make_classifier(plan: Plan, trained: Sequence[Trained]) -> Classifier:
    """The average of the trained networks, which answers for validation, for the submission and in the export."""
    recipe, models = plan.recipe, [one.model for one in trained]
    names = {keras: head for head, keras in keras_names(plan.data.classes).items()}
    return Classifier(models, recipe.image_size, decode_picture, resize, recipe.flip, recipe.views, names)


def estimate(plan: Plan, trained: Sequence[Trained]) -> dict[str, Estimate]:
    """By head, what the held-out pictures say of the hidden score: each predicted by the network that never saw it."""
    correct: dict[str, list[np.ndarray]] = {head: [] for head in plan.data.classes}
    groups = []
    for one, (_, held_out) in zip(trained, plan.splits, strict=True):
        if not len(held_out):
            return {}
        answers = predict_pictures(make_classifier(plan, [one]), plan.data.pictures[held_out])
        groups.append(held_out if plan.groups is None else plan.groups[held_out])
        for head, probabilities in answers.items():
            correct[head].append(probabilities.argmax(axis=1) == plan.data.labels[head][held_out])
    group_of = np.concatenate(groups)
    held_out = np.concatenate([held_out for _, held_out in plan.splits])
    estimates = {}
    for head, right in correct.items():
        labelled = plan.data.labels[head][held_out] != MISSING
        if labelled.any():
            estimates[head] = expect_accuracy(
                np.concatenate(right)[labelled],
                len(plan.test_readable),
                group_of[labelled] if plan.groups is not None else None,
            )
    return estimates


def publish(
    plan: Plan, classifier: Classifier, predicted: Mapping[str, np.ndarray], model_folder: Path
) -> tuple[Path, int]:
    """Export the next version, check it in a separate process, and only then give it its name.

    It must give the submission's answers for the files of the hidden pictures; where there are none, the answers of
    the model in memory for the first training pictures. Returns the version's folder and the number of files.
    """
    metadata = {
        "classes": {head: list(names) for head, names in plan.data.classes.items()},
        "image_size": list(plan.recipe.image_size),
        "id_column": plan.competition.id_column,
        "recipe": asdict(plan.recipe),
        "versions": run_folder.package_versions(),
    }
    if plan.test_readable.any() and plan.competition.test is not None:
        checked = encoded_pictures(plan.competition.test[plan.test_readable])
        if plan.competition.verified:  # in shards: files are made of them, so of some only
            checked = checked[:FILES_CHECKED]
            predicted = {head: values[:FILES_CHECKED] for head, values in predicted.items()}
    else:
        places = plan.encoded.readable(FILES_CHECKED)
        checked = plan.encoded[places]
        predicted = predict_pictures(classifier, plan.data.pictures[places])
    with new_version(model_folder) as (unfinished, published):
        canary = [plan.encoded.read(place) for place in plan.encoded.readable(CANARIES)]
        export_model(classifier, unfinished, metadata, canary)
        verify(unfinished, checked, predicted, plan.data.classes)
    return published, len(checked)


def saved_model_name(plan: Plan, run: Path) -> str:
    """The data set's name, unless the user gave the run a name of its own."""
    name = plan.competition.name
    return name if re.fullmatch(rf"{re.escape(name)}(-\d+)?", run.name) else run.name


def describe_result(
    plan: Plan, trained: Sequence[Trained], estimates: Mapping[str, Estimate], published: Path
) -> dict[str, Any]:
    """What result.json says, all but the hidden score."""
    return {
        "heads": {
            head: {
                "validation_accuracy": estimates[head].accuracy if head in estimates else None,
                "expected": asdict(estimates[head]) if head in estimates else None,
                "largest_class": float(np.bincount(labels[labels != MISSING]).max() / (labels != MISSING).sum()),
            }
            for head, labels in plan.data.labels.items()
        },
        "parameters": plan.parameters,
        "seconds": round(sum(one.seconds for one in trained), 1),
        "pictures_per_second": round(float(np.mean([one.pictures_per_second for one in trained])), 1),
        "best_epochs": [one.best_epoch for one in trained],
        "seed": plan.recipe.seed,
        "left_out": plan.left_out,
        "saved_model": os.fspath(published),
        "versions": run_folder.package_versions(),
        "commit": run_folder.source_commit(),
    }


def compare(score: float, expected: Estimate) -> str:
    """How a score relates to what was expected."""
    inside = "inside" if expected.low <= score <= expected.high else "OUTSIDE"
    interval = f"{percent(expected.low)} to {percent(expected.high)}"
    return f"expected before: {percent(expected.accuracy)}; {inside} the interval of {interval}"


if __name__ == "__main__":
    from apps.cli import main

    main(["compete", *sys.argv[1:]])
