"""The submission: made, checked against the exported model in a separate process, and scored at the very end."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from apps.console import Console
from apps.plan import Plan
from apps.scores import FORMULAS, score
from kerascnn.export import Classifier
from pipelines.competition import Competition
from pipelines.encoded import Encoded
from pipelines.labels import MISSING
from pipelines.stream import Pictures, read_batches

BATCH = 128
LARGEST_DIFFERENCE = 1e-4  # of a probability, between the model in memory and the one reloaded elsewhere


def predict_pictures(classifier: Classifier, pictures: Pictures) -> dict[str, np.ndarray]:
    """Probabilities [N, classes] by head, of uint8 pictures [N, height, width, 3]."""
    # For no pictures, 0 rows of the answer for a blank one: some of TensorFlow's convolutions fail on an empty batch.
    batches = read_batches(pictures, BATCH) if len(pictures) else [np.zeros((1, *pictures.shape[1:]), "uint8")]
    parts = [classifier.predict_pixels(batch) for batch in batches]
    return {head: np.concatenate([part[head].numpy() for part in parts])[: len(pictures)] for head in parts[0]}


def make_submission(plan: Plan, predicted: Mapping[str, np.ndarray]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The submission and the table of probabilities, with the rows and the order of test.csv.

    A row whose picture is missing or unreadable gets the class frequencies of the training pictures.
    """
    submission = {plan.competition.id_column: plan.test_ids}
    table = {plan.competition.id_column: plan.test_ids}
    completed = complete(plan, predicted)
    for head, names in plan.data.classes.items():
        probabilities = completed[head]
        submission[head] = np.array(names)[probabilities.argmax(axis=1)]
        for name, values in zip(names, probabilities.T, strict=True):
            alone = len(plan.data.classes) == 1 and name not in table
            table[name if alone else f"{head}_{name}"] = values
    return pd.DataFrame(submission), pd.DataFrame(table)


def complete(plan: Plan, predicted: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Probabilities [rows of test.csv, K] by head: class frequencies where there is no picture to predict."""
    completed = {}
    for head, names in plan.data.classes.items():
        labels = plan.data.labels[head]
        frequency = np.bincount(labels[labels != MISSING], minlength=len(names)) / (labels != MISSING).sum()
        completed[head] = np.tile(frequency, (len(plan.test_ids), 1))
        completed[head][plan.test_readable] = predicted[head]
    return completed


def verify(
    saved_model: Path,
    encoded: Encoded,
    expected: Mapping[str, np.ndarray],
    classes: Mapping[str, Sequence[str]],
    tolerance: float = LARGEST_DIFFERENCE,
) -> None:
    """Predict picture files with the SavedModel in a separate process; raise unless it gives the expected answers.

    Args:
        saved_model: The exported folder.
        encoded: Where encoded pictures lie.
        expected: Their probabilities [N, classes] by head.
        classes: Class names by head.
        tolerance: Of a probability. Where two classes are as likely as each other, within it, either is right.

    Raises:
        RuntimeError: The other process failed, or an answer differs.
    """
    with tempfile.TemporaryDirectory() as folder:
        listed, answers = Path(folder, "pictures.csv"), Path(folder, "predictions.csv")
        paths = [os.path.abspath(path) for path in as_files(encoded, Path(folder))]
        pd.DataFrame({"path": paths}).to_csv(listed, index=False)
        program = [sys.executable, "-m", "apps.predict", "--quiet", "--out", os.fspath(answers)]
        # Run from the temporary folder: Python would take a folder named `apps` where the user stands for ours.
        process = subprocess.run(
            [*program, os.fspath(saved_model.resolve()), os.fspath(listed)],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode:
            raise RuntimeError(f"the exported model does not predict, nothing was published: {process.stderr.strip()}")
        answered = pd.read_csv(answers, dtype=str, keep_default_na=False)
    for head, names in classes.items():
        numbers = {name: number for number, name in enumerate(names)}
        chosen = np.array([numbers[name] for name in answered[head]])
        best = expected[head].max(axis=1)
        differ = expected[head][np.arange(len(chosen)), chosen] < best - tolerance
        gap = np.abs(answered[f"{head}_probability"].to_numpy(float) - best).max()
        if differ.any() or not gap <= tolerance:
            raise RuntimeError(
                f"the exported model disagrees with the trained one, nothing was published: {differ.sum()} of "
                f"{len(differ)} answers for {head!r} differ, probabilities by up to {gap:.1e}"
            )


def as_files(encoded: Encoded, folder: Path) -> list[str]:
    """A file for every encoded picture: its own, or, for one in a shard, a copy in `folder`."""
    paths = []
    for place, start in enumerate(encoded.starts):
        path = os.fsdecode(encoded.paths[place])
        if start:
            path = os.fspath(folder / f"{place:06d}")
            Path(path).write_bytes(encoded.read(place))
        paths.append(path)
    return paths


def score_submission(
    ids: np.ndarray, probabilities: Mapping[str, np.ndarray], competition: Competition, console: Console
) -> dict[str, dict[str, float]]:
    """Every score (`apps.scores`) by head against the hidden labels, which are read here and nowhere else.

    Rows without an answer do not count. A class that was not among the labelled pictures had probability 0. Answers
    that cannot be used are a warning: the submission is as good without.

    Args:
        ids: Of the rows of the submission.
        probabilities: Of these rows [N, K] by head; the submission names the likeliest class.
        competition: With the answers.
        console: For warnings.
    """
    if competition.answers is None:
        return {}
    try:
        answers = competition.answers()
    except (ValueError, OSError) as error:
        console.warn(f"The answers cannot be read, so nothing is scored: {error}")
        return {}
    answers = answers[~answers.index.duplicated()]
    scores: dict[str, dict[str, float]] = {}
    for head in competition.targets:
        if head not in answers.columns:
            console.warn(f"The answers have no column {head!r}, so it is not scored.")
            continue
        truth = answers[head].reindex(ids).fillna("").str.strip().to_numpy()
        unknown = sorted(set(truth) - {"", *competition.classes[head]})
        for label in unknown:
            console.warn(f"{head}: {label!r} occurs only in the test part, so it could not be predicted.")
        numbers = {name: number for number, name in enumerate([*competition.classes[head], *unknown])} | {"": MISSING}
        labels = np.array([numbers[name] for name in truth], int)
        if (labels != MISSING).any():
            padded = np.pad(probabilities[head], ((0, 0), (0, len(unknown))))
            scores[head] = {name: score(name, padded, labels) for name in FORMULAS}
    return scores
