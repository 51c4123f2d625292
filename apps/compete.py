"""`kerascnn compete`: from labelled pictures to a submission, an expected score and a SavedModel."""

import os
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import pipelines
from apps import files, run_folder
from apps.audit import brief_audit
from apps.budget import MINUTES, Workload, can_be_paced, measure_speed
from apps.console import Console, duration, percent
from apps.data import keras_names
from apps.ensemble import Ensemble, flatten, gains, make_ensemble
from apps.estimate import Estimate
from apps.evaluation import Evaluation, HeldOut, evaluate, validation_table
from apps.kept_weights import kept_epochs
from apps.lr_find import with_found_rate
from apps.plan import Plan, make_plan, print_plan
from apps.recipes import Choices
from apps.report import write_report
from apps.scores import FORMULAS, Formula
from apps.submission import complete, make_submission, predict_pictures, score_submission, verify
from apps.training import Trained, train
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
    minutes: float | None = None,
    checkpoint_minutes: float = 2.0,
    auto_lr: bool = False,
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
        minutes: What all of it may take; None for what suits the data.
        checkpoint_minutes: How often a training is written to disk, besides after every epoch.
        auto_lr: Take the rate that a range test suggests; a resumed run has its rate.

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
    if minutes is not None and not minutes > 0:
        raise ValueError(f"`minutes` must be positive. Received: minutes={minutes}.")
    if minutes is not None and "epochs" in choices and not resume:
        raise ValueError(
            f"`--minutes` chooses the epochs, and {choices['epochs']} are settled already, by `--epochs` or a recipe. "
            "Leave one of them out."
        )
    order = run_folder.Order(
        data=source,
        columns={"targets": list(targets) if targets else None, "group": group, "id_column": id_column},
        choices=dict(choices),
        saved_models=os.fspath(saved_models),
        probabilities=probabilities,
        strict=strict,
        memory=memory,
        minutes=minutes,
        checkpoint_minutes=checkpoint_minutes,
    )
    run, fingerprint = out, None
    if resume:
        run = run_folder.find_interrupted(dataset_name(source), out)
        order, fingerprint = run_folder.kept_order(run, order)
    elif out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists. Choose another `--out`, or go on with it by `--resume`.")
    for folder in (run or Path("runs"), Path(order.saved_models)):
        files.require_writable(folder)
    allowed = None if order.memory is None else order.memory * 2**30
    timed, end = order.minutes is not None, began + 60 * (order.minutes or MINUTES)
    competition = pipelines.open_dataset(source, **order.columns)
    if order.choices.get("deterministic"):  # before any speed is measured
        tf.config.experimental.enable_op_determinism()
    within = max(end - time.monotonic(), 1.0)
    plan = make_plan(competition, order.choices, order.strict, console, allowed, within, fill=timed)
    plan = with_found_rate(plan, console) if auto_lr and not resume else plan
    print_plan(plan, console)
    if run is not None and fingerprint is not None:
        run_folder.check_same_data(run, fingerprint, plan.fingerprint)
    plan = replace(plan, audited=brief_audit(plan, console))
    if dry_run:
        speed, work = measure_speed(plan.recipe, plan.data), workload(plan)
        console.say(
            f"time      about {duration(speed.of_training(plan.recipe, work))} of training on this machine, "
            f"{duration(speed.of_the_rest(work))} for predictions and export (measured on a few steps)"
        )
        return None
    if run is None or not resume:
        run = out or files.new_folder(Path("runs") / plan.competition.name)
        run.mkdir(parents=True, exist_ok=True)
        run_folder.write_record(run, order, asdict(plan.recipe), plan.fingerprint)
    console.say(f"run       {run}")
    carry_out(plan, run, order, resume, console, end - plan.rest if timed else None)
    console.say(f"done      {run / 'report.html'}, all in {duration(time.monotonic() - began)}")
    return run


def workload(plan: Plan) -> Workload:
    """What the networks of all splits and seeds are trained on and predict."""
    parts = plan.splits * plan.recipe.seeds
    trained, held_out = [len(train) for train, _ in parts], [len(held_out) for _, held_out in parts]
    return Workload(trained, held_out, len(plan.test_pictures), plan.recipe.snapshots)


def carry_out(
    plan: Plan, run: Path, order: run_folder.Order, resume: bool, console: Console, end: float | None = None
) -> None:
    """`finish`, alone in the run folder; whatever stops it is answered with the command that goes on."""
    again = shlex.join(["kerascnn", "compete", order.data, "--resume", "--out", os.fspath(run)])
    with run_folder.lock(run):
        run_folder.remove_unfinished(run)
        try:
            finish(plan, run, order, resume, console, end)
        except KeyboardInterrupt:
            console.warn(f"Stopped. {run_folder.best_snapshot(run)} Go on with: {again}")
            raise
        except OSError as error:
            raise OSError(f"{run_folder.describe(error)} What is finished is kept; go on with: {again}") from error


def finish(
    plan: Plan, run: Path, order: run_folder.Order, resume: bool, console: Console, end: float | None = None
) -> None:
    """Train all networks of all splits, until `end` on the monotonic clock, then write all of a run, the score last."""
    competition, recipe, data = plan.competition, plan.recipe, plan.data
    trained = train_all(plan, run, order, resume, console, end)
    run_folder.write_history([[one.history for one in networks] for networks in trained], run)
    ensembles = weigh(plan, trained)
    for head, found in gains(ensembles).items():
        console.say(f"ensemble  {head}: {say_gain(found, len(ensembles[0].models))}")
    held_out = out_of_fold(plan, ensembles)
    evaluation = evaluate(recipe.score, held_out, data.labels, len(plan.test_readable), plan.groups, recipe.seed)
    classifier = make_classifier(plan, ensembles, evaluation.temperatures)
    if missing := int((~plan.test_readable).sum()):
        console.warn(f"{missing:,} hidden pictures cannot be read; the expected score is for the others.")
    for line in evaluation.lines():
        console.say(line)
    predicted = predict_pictures(classifier, plan.test_pictures)
    submission, table = make_submission(plan, predicted)
    if len(submission):
        files.write_table(run / "submission.csv", submission)
        if order.probabilities:
            files.write_table(run / "probabilities.csv", table)
        console.say(f"wrote     {run / 'submission.csv'}, {len(submission):,} rows")
    if len(held_out.index):
        ids = competition.train["id"].to_numpy()
        table = validation_table(evaluation, held_out, data.labels, data.classes, ids, competition.id_column)
        files.write_table(run / "validation.csv", table)

    with files.whole_file(run / "model.keras") as unfinished:
        ensembles[0].trained[0].model.save(unfinished)
    published, compared = publish(plan, classifier, predicted, Path(order.saved_models) / saved_model_name(plan, run))
    console.say(f"wrote     {published}; in a separate process it gave the same answers for {compared:,} picture files")

    result = describe_result(plan, ensembles, evaluation, published)
    if len(submission) and competition.answers is not None:
        # The submission is on disk and will not change: only now are the hidden labels read.
        scores = score_submission(plan.test_ids, complete(plan, predicted), competition, console)
        report_scores(scores, evaluation, result, console)
    warn_of_lost_pictures(plan, console)
    histories = [one.history for ensemble in ensembles for one in ensemble.trained]
    write_report(run, plan, result, histories, evaluation)
    files.write_json(run / "result.json", result)  # the last file: it says that the run is finished


def train_all(
    plan: Plan, run: Path, order: run_folder.Order, resume: bool, console: Console, end: float | None
) -> list[list[Trained]]:
    """Train the networks of every split, one for each seed; what time there is until `end` is shared among them."""
    recipe, data = plan.recipe, plan.data
    allowed = None if end is None or not can_be_paced(recipe) else end - time.monotonic()
    trained: list[list[Trained]] = []
    spent, left = 0.0, len(plan.splits) * recipe.seeds
    for fold, (train_index, held_out) in enumerate(plan.splits):
        trained.append([])
        for network in range(recipe.seeds):
            one = train(
                replace(recipe, seed=recipe.seed + network),
                data,
                train_index,
                held_out,
                run_folder.checkpoints_of(run, fold, network, recipe.seeds),
                console,
                name_training(fold, len(plan.splits), network, recipe.seeds),
                resume,
                checkpoint_seconds=60 * order.checkpoint_minutes,
                seconds=None if allowed is None else max((allowed - spent) / left, 1.0),
            )
            trained[-1].append(one)
            spent, left = spent + one.seconds, left - 1
    return trained


def weigh(plan: Plan, trained: Sequence[Sequence[Trained]]) -> list[Ensemble]:
    """For every split, what its networks say of the pictures held out of it, and how much each of them counts."""
    first, recipe = trained[0][0], plan.recipe
    # One network takes the weights of all in turn: the graph of each one of its own would take seconds to build.
    classifier = make_classifier(plan, [Ensemble([replace(first, earlier=())], [1.0])])
    own, ensembles = first.model.get_weights(), []
    for networks, (_, held_out) in zip(trained, plan.splits, strict=True):
        answers = []
        for model in [model for one in networks for model in one.models] if len(held_out) else ():
            first.model.set_weights(own if model is first.model else model.get_weights())
            answers.append(predict_pictures(classifier, plan.data.pictures[held_out]))
        labels = {head: values[held_out] for head, values in plan.data.labels.items()}
        groups = None if plan.groups is None else plan.groups[held_out]
        ensembles.append(make_ensemble(networks, answers, labels, groups, recipe.select, recipe.score, recipe.seed))
    first.model.set_weights(own)
    return ensembles


def name_training(fold: int, folds: int, network: int, networks: int) -> str:
    """How to call a training.

    >>> name_training(1, 5, 0, 3), name_training(0, 1, 0, 3), name_training(0, 1, 0, 1)
    ('fold 2 of 5, network 1 of 3', 'network 1 of 3', 'training')
    """
    parts = [f"fold {fold + 1} of {folds}"] if folds > 1 else []
    parts += [f"network {network + 1} of {networks}"] if networks > 1 else []
    return ", ".join(parts) or "training"


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


def warn_of_lost_pictures(plan: Plan, console: Console) -> None:
    """Say which pictures, readable when the run began, could not be read any more: they had no weight in training."""
    streams = [pictures for pictures in (plan.data.pictures, plan.test_pictures) if isinstance(pictures, Streamed)]
    lost = sorted(set().union(*(stream.failed for stream in streams)))
    if lost:
        console.warn(f"{len(lost):,} pictures became unreadable after they had been checked, such as {lost[0]}.")


def make_classifier(
    plan: Plan, ensembles: Sequence[Ensemble], temperatures: Mapping[str, float] | None = None
) -> Classifier:
    """The average of the chosen networks, which answers for validation, for the submission and in the export."""
    recipe, (models, weights) = plan.recipe, flatten(ensembles)
    names = {keras: head for head, keras in keras_names(plan.data.classes).items()}
    known = temperatures or {}
    calibrated = {keras: known[head] for keras, head in names.items() if head in known}
    return Classifier(
        models, recipe.image_size, decode_picture, resize, recipe.flip, recipe.views, names, weights, calibrated
    )


def out_of_fold(plan: Plan, ensembles: Sequence[Ensemble]) -> HeldOut:
    """The held-out pictures of all splits, each predicted by networks that never saw it."""
    splits = [held_out for _, held_out in plan.splits]
    parts = [ensemble.held_out for ensemble in ensembles if ensemble.held_out is not None]
    nothing = {head: np.zeros((0, len(names))) for head, names in plan.data.classes.items()}
    return HeldOut(
        np.concatenate(splits),
        np.repeat(np.arange(len(splits)) + 1, [len(held_out) for held_out in splits]),
        {head: np.concatenate([part[head] for part in parts or [nothing]]) for head in plan.data.classes},
    )


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
    }


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


if __name__ == "__main__":
    from apps.cli import main

    main(["compete", *sys.argv[1:]])
