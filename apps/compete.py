"""`kerascnn compete`: from labelled pictures to a submission, an expected score and a SavedModel."""

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

from apps import files, run_folder
from apps.beginning import Begun, Wish, begin, working_in
from apps.committee import Committee, Kept, keep
from apps.console import Console, duration
from apps.data import keras_names
from apps.devices import ONE, Devices
from apps.ensemble import Ensemble, flatten, gains, make_ensemble
from apps.evaluation import Evaluation, HeldOut, evaluate, validation_table
from apps.export import FOLDED_ON, publish
from apps.finished_run import read_run
from apps.plan import Plan
from apps.report.examples import Labelled
from apps.report.report import write_report
from apps.result import describe_result, report_scores, say_gain
from apps.submission import complete, make_submission, predict_pictures, score_submission
from apps.training import Trained
from apps.trainings import train_all
from kerascnn.export import Classifier
from pipelines.competition import encoded_pictures
from pipelines.encoded import Encoded
from pipelines.stream import Streamed, read_batches

CANARIES = 4  # examples with their answers that an exported model carries
FILES_CHECKED = 100  # pictures that check an export where there are no hidden files


def compete(
    order: run_folder.Order,
    *,
    out: Path | None = None,
    dry_run: bool = False,
    resume: bool = False,
    auto_lr: bool = False,
    from_scratch: bool = True,
    console: Console | None = None,
    devices: Devices = ONE,
    scaling: str = "keep",
    batch_norm: str = "global",
) -> Path | None:
    """Train, validate, predict the hidden pictures, export, report; returns the run folder (None after a dry run).

    On JAX it trains, and that is all: the rest is TensorFlow's, by `finish_trained`.

    Args:
        order: What is asked for; a resumed run has what it was begun with.
        out: The run folder, which must not exist; None takes runs/NAME, runs/NAME-2, ...
        dry_run: Check everything, print the plan, write nothing.
        resume: Go on with an interrupted run.
        auto_lr: Take the rate that a range test suggests; a resumed run has its rate.
        from_scratch: Whether the competition forbids published weights: `transfer` is refused.
        console: Shows what happens; None prints.
        devices: That train together. With several hosts, each calls this with the same arguments; the first one
            decides and writes.
        scaling, batch_norm: What several devices do to the recipe (`apps.scaling`); a resumed run has its recipe.

    Raises:
        ValueError, FileNotFoundError: The data or the choices do not fit, before any training.
    """
    if (backend := keras.backend.backend()) not in ("tensorflow", "jax"):
        raise ValueError(
            f"`compete` trains on two backends: set KERAS_BACKEND to tensorflow or jax. Received: {backend}."
        )
    console, began = console or Console(), time.monotonic()
    wish = Wish(order, out, dry_run, resume, auto_lr, from_scratch, scaling, batch_norm)
    begun = begin(wish, devices, console)
    if begun is None:
        return None
    if backend == "jax":
        with working_in(begun, devices.hosts, console):
            train_all(begun.plan, begun.run, begun.order, begun.resume, console, begun.end, devices)
        return begun.run
    carry_out(begun, console, devices)
    console.say(f"done      {begun.run / 'report.html'}, all in {duration(time.monotonic() - began)}")
    return begun.run


def finish_trained(order: run_folder.Order, run: Path, console: Console) -> None:
    """All that follows the training of a run, which was on JAX; `order` is what it was begun with."""
    began = time.monotonic()
    begun = begin(Wish(order, run, resume=True), ONE, Console(quiet=True))
    if begun is not None:
        carry_out(begun, console)
    console.say(f"done      {run / 'report.html'}, {duration(time.monotonic() - began)} after the training")


def carry_out(begun: Begun, console: Console, devices: Devices = ONE) -> None:
    """`finish`, alone in the run folder."""
    with working_in(begun, devices.hosts, console):
        finish(begun, console, devices)


def finish(begun: Begun, console: Console, devices: Devices = ONE) -> None:
    """Train all networks of all splits, then write all of a run, the score last."""
    plan, run, order = begun.plan, begun.run, begun.order
    competition, recipe, data = plan.competition, plan.recipe, plan.data
    trained = train_all(plan, run, order, begun.resume, console, begun.end, devices)
    run_folder.write_history([[one.history for one in networks] for networks in trained], run)
    ensembles = weigh(plan, trained)
    for head, found in gains(ensembles).items():
        console.say(f"ensemble  {head}: {say_gain(found, len(ensembles[0].models))}")
    held_out = out_of_fold(plan, ensembles)
    evaluation = evaluate(recipe.score, held_out, data.labels, len(plan.test_readable), plan.groups, recipe.seed)
    committee = make_committee(plan, ensembles, evaluation.temperatures)
    some = np.concatenate([*read_batches(data.pictures[:FOLDED_ON], FOLDED_ON)])
    classifier = committee.folded(some, console).classifier()
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

    first = ensembles[0].trained[0].model
    with files.whole_file(run / "model.keras") as unfinished:
        first.save(unfinished)
    canary = [plan.encoded.read(place) for place in plan.encoded.readable(CANARIES)]
    metadata = describe_export(plan, evaluation, saved_model_name(plan, run))
    checked, expected = choose_checked(plan, classifier, predicted)
    folder = Path(order.saved_models) / metadata["name"]
    published = publish(classifier, folder, metadata, canary, checked, expected, explain=True, console=console)
    console.say(
        f"wrote     {published}; in a separate process it gave the same answers for {len(checked):,} picture files"
    )
    answers = classifier.predict_bytes(tf.constant(canary, tf.string)) if canary else {}
    keep(run, Kept(committee, metadata, canary, {head: values.numpy() for head, values in answers.items()}), first)

    result = describe_result(plan, ensembles, evaluation, published)
    if len(submission) and competition.answers is not None:
        # The submission is on disk and will not change: only now are the hidden labels read.
        scores = score_submission(plan.test_ids, complete(plan, predicted), competition, console)
        report_scores(scores, evaluation, result, console)
    warn_of_lost_pictures(plan, console)
    try:
        write_report(read_run(run, result), first, Labelled(competition, plan.encoded), console)
    except OSError:
        raise
    except Exception as error:  # all that was trained for is written: that is worth more than its report
        again = shlex.join(["kerascnn", "report", str(run)])
        console.warn(f"There is no report ({type(error).__name__}: {error}). Try again by: {again}")
    files.write_json(run / "result.json", result)  # the last file: it says that the run is finished


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


def warn_of_lost_pictures(plan: Plan, console: Console) -> None:
    """Say which pictures, readable when the run began, could not be read any more: they had no weight in training."""
    streams = [pictures for pictures in (plan.data.pictures, plan.test_pictures) if isinstance(pictures, Streamed)]
    lost = sorted(set().union(*(stream.failed for stream in streams)))
    if lost:
        console.warn(f"{len(lost):,} pictures became unreadable after they had been checked, such as {lost[0]}.")


def make_classifier(
    plan: Plan, ensembles: Sequence[Ensemble], temperatures: Mapping[str, float] | None = None
) -> Classifier:
    """The average of the chosen networks as they were trained, which answers for the held-out pictures."""
    return make_committee(plan, ensembles, temperatures).classifier()


def make_committee(
    plan: Plan, ensembles: Sequence[Ensemble], temperatures: Mapping[str, float] | None = None
) -> Committee:
    """The chosen networks with their weights, the recipe's views, and the temperatures by the user's heads."""
    recipe, (models, weights) = plan.recipe, flatten(ensembles)
    names = {keras: head for head, keras in keras_names(plan.data.classes).items()}
    known = temperatures or {}
    calibrated = {keras: known[head] for keras, head in names.items() if head in known}
    return Committee(models, weights, recipe.image_size, recipe.flip, recipe.views, names, calibrated)


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


def describe_export(plan: Plan, evaluation: Evaluation, name: str) -> dict[str, Any]:
    """The metadata of the export (`export_model`)."""
    return {
        "name": name,
        "classes": {head: list(names) for head, names in plan.data.classes.items()},
        "image_size": list(plan.recipe.image_size),
        "id_column": plan.competition.id_column,
        "data": {"name": plan.competition.name, "pictures": len(plan.data.pictures)},
        "score": evaluation.score,
        "expected": {head: vars(one.expected) for head, one in evaluation.heads.items()},
        "recipe": asdict(plan.recipe),
        "versions": run_folder.package_versions(),
    }


def choose_checked(
    plan: Plan, classifier: Classifier, predicted: Mapping[str, np.ndarray]
) -> tuple[Encoded, Mapping[str, np.ndarray]]:
    """The files that check the export, and the answers for them.

    They are those of the hidden pictures with the submission's answers; where there are none, the first training
    pictures with the answers of the model in memory.
    """
    if plan.test_readable.any() and plan.competition.test is not None:
        checked = encoded_pictures(plan.competition.test[plan.test_readable])
        if not plan.competition.verified:
            return checked, predicted
        # In shards: files are made of them, so of some only.
        return checked[:FILES_CHECKED], {head: values[:FILES_CHECKED] for head, values in predicted.items()}
    places = plan.encoded.readable(FILES_CHECKED)
    return plan.encoded[places], predict_pictures(classifier, plan.data.pictures[places])


def saved_model_name(plan: Plan, run: Path) -> str:
    """The data set's name, unless the user gave the run a name of its own."""
    name = plan.competition.name
    return name if re.fullmatch(rf"{re.escape(name)}(-\d+)?", run.name) else run.name


if __name__ == "__main__":
    from apps.cli import main

    main(["compete", *sys.argv[1:]])
