"""The logs of a training in RUN/logs: epochs and the loss between them as JSON lines, and what the layers did."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from apps.data import Data
from callbacks import JsonLog, Monitor, read_log
from pipelines import make_eval

LINES = 200  # between epochs, about, in all of a training
FEWEST_STEPS = 200  # of a shorter training, looking at its layers would take too large a part
SAMPLES = 16  # of the layers, about, in all of a training
EXAMPLES = 64  # training pictures that a sample looks at, but no more than a batch has


@dataclass(frozen=True)
class LogFiles:
    """Where the logs of one training go.

    Attributes:
        training: Of `callbacks.JsonLog`.
        layers: Of `callbacks.Monitor`; None for a training whose layers are not looked at.
    """

    training: Path
    layers: Path | None

    @classmethod
    def of(cls, run: Path, name: str, layers: bool) -> "LogFiles":
        """The files of the training `name`, such as "1" or "1-2", of a run."""
        folder = run / "logs"
        return cls(folder / f"training-{name}.jsonl", folder / f"layers-{name}.jsonl" if layers else None)


def make_json_log(files: LogFiles, steps: int) -> JsonLog:
    """The log of a training of so many steps; a resumed one goes on in the same file."""
    files.training.parent.mkdir(parents=True, exist_ok=True)
    return JsonLog(files.training, every=math.ceil(steps / LINES), overwrite=True)


def make_monitor(
    files: LogFiles, data: Data, train_index: np.ndarray, batch_size: int, steps: int, done: int = 0
) -> Monitor | None:
    """What looks at the layers, on training pictures as they are; None where that is not wanted, or training is short.

    Args:
        files: Of the training.
        data: With heads in Keras' names.
        train_index: Places in `data`.
        batch_size: Of the training.
        steps: Of the training.
        done: Steps that were trained before; what was seen in them stays in the file.
    """
    if files.layers is None or steps < FEWEST_STEPS:
        return None
    files.layers.parent.mkdir(parents=True, exist_ok=True)
    some = data.take(train_index[:: -(-len(train_index) // min(EXAMPLES, batch_size))])
    batch: tuple[Any, ...] = next(iter(make_eval(some.pictures, some.labels, data.num_classes)))
    x, y, weight = keras.tree.map_structure(np.asarray, batch)
    monitor = Monitor(x, y, weight, every=math.ceil(steps / SAMPLES), path=files.layers, overwrite=True)
    if done and files.layers.is_file():
        seen = [record for record in read_log(files.layers) if record["step"] < done]
        monitor.set_state({"history": seen, "warnings": []})
    return monitor
