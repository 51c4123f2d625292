"""The networks that answer together: what a finished run keeps of them, and the classifier that they make."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from scipy.special import softmax

import kerascnn
from apps import files
from apps.console import Console
from kerascnn.export import Classifier
from kerascnn.precision import in_bfloat16
from pipelines.decode import decode_picture, resize

RECORD = "classifier.json"
FOLDING_DIFFERENCE = 1e-4  # of a probability, between a network and the same with its BatchNorm folded


@dataclass(frozen=True)
class Committee:
    """Trained networks, how much each counts, and what is made of their answers.

    Attributes:
        models: In float32, each with a dict of outputs.
        weights: Of each network.
        image_size: (height, width) of the pictures they take.
        mirror, shift: The views that are averaged (`Classifier`).
        names: Of the heads as the user calls them, by their names in the networks.
        temperatures: By the heads' names in the networks.
    """

    models: Sequence[keras.Model]
    weights: Sequence[float]
    image_size: tuple[int, int]
    mirror: bool
    shift: int
    names: Mapping[str, str]
    temperatures: Mapping[str, float] = field(default_factory=dict)

    def classifier(self) -> Classifier:
        """What answers for the held-out pictures, for the submission and in exports."""
        return Classifier(
            self.models,
            self.image_size,
            decode_picture,
            resize,
            self.mirror,
            self.shift,
            self.names,
            self.weights,
            self.temperatures,
        )

    def folded(self, pixels: np.ndarray, console: Console) -> "Committee":
        """The same without BatchNorm, as the networks of exports are.

        Every folded network must give its own probabilities for some pictures, within `FOLDING_DIFFERENCE`; one that
        does not stays as it is, with a warning.

        Args:
            pixels: uint8 [N, height, width, 3] of the networks' size.
            console: For the warning.
        """
        return replace(self, models=[_folded(model, pixels, console) for model in self.models])

    def in_bfloat16(self) -> "Committee":
        """The same, computing in bfloat16 where that is safe."""
        return replace(self, models=[in_bfloat16(model) for model in self.models])


def _folded(model: keras.Model, pixels: np.ndarray, console: Console) -> keras.Model:
    try:
        folded = kerascnn.fold_batch_norm(model)
        one, other = (_probabilities(network, pixels) for network in (model, folded))
        gap = max(float(np.abs(one[head] - other[head]).max()) for head in one)
        if gap <= FOLDING_DIFFERENCE:
            return folded
        reason = f"Probabilities would change by up to {gap:.1e}."
    except ValueError as error:
        reason = str(error)
    console.warn(f"BatchNorm is exported as it is, which is slower. {reason}")
    return model


def _probabilities(model: keras.Model, pixels: np.ndarray) -> dict[str, np.ndarray]:
    answers = model(pixels.astype("float32"), training=False)
    return {head: softmax(keras.ops.convert_to_numpy(logits), axis=1) for head, logits in answers.items()}


@dataclass(frozen=True)
class Kept:
    """What is kept in a finished run: enough to export it again without its data.

    Attributes:
        committee: As it was trained.
        metadata: Of the export (`export_model`).
        canary: Encoded pictures.
        answers: Their probabilities [N, classes] by head in the first export.
    """

    committee: Committee
    metadata: dict[str, Any]
    canary: list[bytes]
    answers: dict[str, np.ndarray]


def keep(run: Path, kept: Kept, saved: keras.Model | None = None) -> None:
    """Write `classifier.json` and the networks of a run: networks/1.keras, 2.keras, ...

    Args:
        run: The folder.
        kept: What is written.
        saved: The network that the run's model.keras holds already; it is not written again.
    """
    names = []
    for number, model in enumerate(kept.committee.models, start=1):
        names.append("model.keras" if model is saved else f"networks/{number}.keras")
        if model is not saved:
            (run / "networks").mkdir(exist_ok=True)
            with files.whole_file(run / names[-1]) as unfinished:
                model.save(unfinished)
    committee = kept.committee
    record = {
        "networks": names,
        "weights": list(committee.weights),
        "image_size": list(committee.image_size),
        "mirror": committee.mirror,
        "shift": committee.shift,
        "names": dict(committee.names),
        "temperatures": dict(committee.temperatures),
        "metadata": kept.metadata,
        "canary": [base64.b64encode(data).decode() for data in kept.canary],
        "answers": {head: values.tolist() for head, values in kept.answers.items()},
    }
    files.write_json(run / RECORD, record)


def read_kept(run: Path) -> Kept:
    """What `keep` wrote.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged.
    """
    path = run / RECORD
    if not path.is_file():
        raise FileNotFoundError(f"{run} has no {RECORD}: it was finished by an older version. Its SavedModel is whole.")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        names = record["networks"]
        if lost := [name for name in names if not (run / name).is_file()]:
            raise FileNotFoundError(f"{run} has lost {', '.join(lost)}, which {RECORD} names.")
        committee = Committee(
            [_load(run / name) for name in names],
            record["weights"],
            tuple(record["image_size"]),
            record["mirror"],
            record["shift"],
            record["names"],
            record["temperatures"],
        )
        canary = [base64.b64decode(text) for text in record["canary"]]
        answers = {head: np.array(values, "float32") for head, values in record["answers"].items()}
        return Kept(committee, record["metadata"], canary, answers)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}).") from error


def _load(path: Path) -> keras.Model:
    try:
        return keras.models.load_model(path, compile=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
