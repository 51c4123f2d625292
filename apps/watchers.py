"""What watches a training and belongs to its checkpoint: the log, the best epoch, averages, snapshots, alarms."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import keras
import numpy as np

from apps.alarms import make_alarms
from apps.batches import training_batches
from apps.data import Data
from apps.devices import ONE, Devices
from apps.epoch_log import EpochLog, validation_score
from apps.kept_weights import make_average, make_snapshots, put_average
from apps.phases import phases
from apps.recipe import Recipe
from callbacks import (
    Alarms,
    Deadline,
    EarlyStopping,
    HardestExamples,
    SnapshotEnsemble,
    TerminateOnDivergence,
    WeightAverage,
)


@dataclass(frozen=True)
class Watchers:
    """The callbacks of a training, in the order in which they are called; None for what a recipe does without.

    The average comes first, since epochs are judged by it.
    """

    average: WeightAverage | None
    deadline: Deadline | None
    log: EpochLog
    divergence: TerminateOnDivergence
    snapshots: SnapshotEnsemble | None
    hardest: HardestExamples | None
    stopping: EarlyStopping | None
    alarms: Alarms | None

    def named(self) -> dict[str, Any]:
        """Those that there are, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: callback for name, callback in found.items() if callback is not None}

    def put_back(self, model: keras.Model) -> None:
        """Give a network whose training had ended, and was restored, the weights that the training ended with."""
        if self.stopping is not None and self.stopping.best_weights is not None:
            model.set_weights(self.stopping.best_weights)
        elif self.stopping is None and self.average is not None:
            put_average(model, self.average)


def make_watchers(
    recipe: Recipe,
    data: Data,
    heads: Sequence[str],
    train_index: np.ndarray,
    val_index: np.ndarray,
    folder: Path,
    log: EpochLog,
    devices: Devices = ONE,
) -> Watchers:
    """The watchers of a training on `train_index`, which is watched on `val_index` where that has any pictures.

    Args:
        recipe: Resolved.
        data: With heads in Keras' names.
        heads: By the names of the user.
        train_index, val_index: Places in `data`.
        folder: For the best weights and snapshots.
        log: Which shows the progress, and knows the deadline where there is one.
        devices: That train.
    """
    average, stopping, alarms = None, None, None
    if recipe.average != "none":
        held_out = data.take(val_index) if len(val_index) else None
        average = make_average(recipe, held_out, training_batches(recipe, data, train_index), len(train_index), devices)
    if len(val_index):
        full_size = next(phase.epochs[0] for phase in phases(recipe) if phase.size is None)
        stopping = EarlyStopping(
            lambda logs: validation_score(logs, list(data.classes), recipe.score),
            mode="max",
            patience=recipe.patience or None,
            path=folder / "best.npz",
            average=average,
            # While pictures are small no epoch can be the best one; with snapshots it is the end of the last cycle.
            start_epoch=full_size if recipe.snapshots == 1 else recipe.epochs - 1,
        )
        names = dict(zip(data.classes, heads, strict=True))
        alarms = make_alarms(recipe, data, names, train_index, val_index, log.console, log.what)
    return Watchers(
        average=average,
        deadline=log.deadline,
        log=log,
        divergence=TerminateOnDivergence(),
        snapshots=make_snapshots(recipe, folder),
        hardest=HardestExamples(len(train_index)) if recipe.hardest < 1 else None,
        stopping=stopping,
        alarms=alarms,
    )
