"""The submission: made, checked against the exported model in a separate process, and scored at the very end."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from apps.console import Console
from apps.plan import Plan
from kerascnn.export import Classifier
from pipelines.batches import MISSING
from pipelines.columns import require_column
from pipelines.competition import Competition

BATCH = 128
LARGEST_DIFFERENCE = 1e-4  # of a probability, between the model in memory and the one reloaded elsewhere


def predict_pictures(classifier: Classifier, pictures: np.ndarray) -> dict[str, np.ndarray]:
    """Probabilities [N, classes] by head, of uint8 pictures [N, height, width, 3]."""
    parts = [classifier.predict_pixels(pictures[start : start + BATCH]) for start in range(0, len(pictures), BATCH)]
    return {head: np.concatenate([part[head].numpy() for part in parts]) for head in parts[0]}


def predict_hidden(plan: Plan, classifier: Classifier) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The submission and the table of probabilities, with the rows and the order of test.csv.

    A row whose picture is missing or unreadable gets the class frequencies of the training pictures.
    """
    competition, ids = plan.competition, plan.test_ids
    if len(plan.test_pictures):
        predicted = predict_pictures(classifier, plan.test_pictures)
    submission, table = pd.DataFrame({competition.id_column: ids}), pd.DataFrame({competition.id_column: ids})
    for head, names in plan.data.classes.items():
        labels = plan.data.labels[head]
        frequency = np.bincount(labels[labels != MISSING], minlength=len(names)) / max((labels != MISSING).sum(), 1)
        probabilities = np.tile(frequency, (len(ids), 1))
        if len(plan.test_pictures):
            probabilities[plan.test_readable] = predicted[head]
        submission[head] = np.array(names)[probabilities.argmax(axis=1)]
        for number, name in enumerate(names):
            table[f"{head}_{name}" if len(plan.data.classes) > 1 else name] = probabilities[:, number]
    return submission, table


def verify(plan: Plan, saved_model: Path, classifier: Classifier) -> int:
    """Predict picture files with the SavedModel in a separate process and compare with the model in memory.

    The test pictures are taken; without any, the first 100 training pictures. Returns how many were compared.

    Raises:
        RuntimeError: The other process failed, or an answer differs.
    """
    test = plan.competition.test
    if test is not None and plan.test_readable.any():
        paths, pictures = test["path"][plan.test_readable], plan.test_pictures
    else:
        paths, pictures = plan.competition.train["path"][:100], plan.data.pictures[:100]
    expected = predict_pictures(classifier, pictures)
    with tempfile.TemporaryDirectory() as folder:
        listed, answers = Path(folder, "pictures.csv"), Path(folder, "predictions.csv")
        pd.DataFrame({"path": [str(Path(path).resolve()) for path in paths]}).to_csv(listed, index=False)
        command = [
            sys.executable,
            "-m",
            "apps.predict",
            str(saved_model),
            str(listed),
            "--out",
            str(answers),
            "--quiet",
        ]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        if process.returncode:
            raise RuntimeError(f"The exported model does not predict: {process.stderr.strip()}")
        answered = pd.read_csv(answers, dtype=str, keep_default_na=False)
    for head, names in plan.data.classes.items():
        labels = np.array(names)[expected[head].argmax(axis=1)]
        differs = answered[head].to_numpy() != labels
        gap = np.abs(answered[f"{head}_probability"].to_numpy(float) - expected[head].max(axis=1)).max()
        if differs.any() or gap > LARGEST_DIFFERENCE:
            raise RuntimeError(
                f"The exported model disagrees with the trained one: {differs.sum()} of {len(labels)} answers for "
                f"{head!r} differ, probabilities by up to {gap:.1e}. Nothing was published."
            )
    return len(expected[head])


def score_submission(submission: pd.DataFrame, competition: Competition, console: Console) -> dict[str, float]:
    """Accuracy by head against the hidden labels, which are read here and nowhere else."""
    if competition.answers is None:
        return {}
    answers = competition.answers().set_index("id")
    scores = {}
    for head in competition.targets:
        require_column(answers, head, "the answers")
        truth = answers[head].reindex(submission[competition.id_column]).to_numpy()
        known = ~pd.isna(truth)
        for label in sorted(set(truth[known]) - set(competition.classes[head])):
            console.warn(f"{head}: {label!r} occurs only in the test part, so it could not be predicted.")
        if known.any():
            scores[head] = float((submission[head].to_numpy()[known] == truth[known]).mean())
    return scores
