"""Which weights a training yields beside those of its best epoch: averaged ones, or snapshots at the ends of cycles."""

import math
from itertools import accumulate
from pathlib import Path
from typing import Any

import keras

from apps.batches import held_out_batches
from apps.data import Data
from apps.devices import Devices
from apps.phases import phases
from apps.recipe import Recipe
from callbacks import SnapshotEnsemble, WarmUp, WeightAverage

AVERAGED = 0.25  # the last part of the epochs, whose weights SWA averages; https://arxiv.org/abs/1803.05407, section 4
RECOMPUTED = 2_000  # pictures that BatchNorm's statistics of these averages are computed from


class JudgedAverage(WeightAverage):
    """A `WeightAverage` by which epochs are judged: "val_..." in the logs is its validation.

    What the raw weights reach is "raw_val_..." there. Place it before the callbacks that read the logs.
    """

    def finish_epoch(self, epoch: int, logs: Any = None) -> None:
        """Average, evaluate, and put the average's validation in the place of the raw weights'."""
        super().finish_epoch(epoch, logs)
        for name in [name for name in logs or () if name.startswith("average_val_")]:
            value = logs.pop(name)
            name = name.removeprefix("average_")
            logs[f"raw_{name}"], logs[name] = logs[name], value


def make_average(recipe: Recipe, held_out: Data | None, batches: Any, pictures: int, devices: Devices) -> WeightAverage:
    """The recipe's "ema" or "swa", judged by the held-out pictures.

    The exponential average keeps 0.999 of itself in a step, and less in the first 9,000: about the last tenth of the
    steps count. It averages BatchNorm's moving statistics too; for SWA they are computed anew.

    Args:
        recipe: Resolved.
        held_out: None where nothing is held out.
        batches: Endless training batches of the recipe, a `tf.data.Dataset`.
        pictures: How many there are to train on.
        devices: That train.
    """
    watch = None if held_out is None else held_out_batches(held_out, devices)
    if recipe.average == "ema":
        return JudgedAverage(decay=0.999, validation_data=watch)
    return JudgedAverage(
        decay=None,
        start_epoch=first_averaged(recipe),
        batch_norm="recompute",
        batches=batches.take(math.ceil(min(RECOMPUTED, pictures) / recipe.batch_size)),
        validation_data=watch,
    )


def first_averaged(recipe: Recipe) -> int:
    """The first epoch, counted from 0, that SWA averages; none with small pictures."""
    full_size = next(phase.epochs[0] for phase in phases(recipe) if phase.size is None)
    return max(full_size, recipe.epochs - max(1, round(AVERAGED * recipe.epochs)))


def put_average(model: keras.Model, average: WeightAverage) -> None:
    """Give a network whose training had ended, and was restored from its checkpoint, the averaged weights."""
    average.set_model(model)
    average.on_train_begin()
    average.finish_training()


def cycles(recipe: Recipe) -> list[int]:
    """Length in epochs of every cycle of `snapshots`.

    >>> from types import SimpleNamespace
    >>> cycles(SimpleNamespace(epochs=11, snapshots=3))
    [4, 4, 3]
    """
    length, longer = divmod(recipe.epochs, recipe.snapshots)
    return [length + (number < longer) for number in range(recipe.snapshots)]


def kept_epochs(recipe: Recipe, best_epoch: int) -> list[int]:
    """From which epochs, counted from 1, the networks of one training are."""
    return list(accumulate(cycles(recipe))) if recipe.snapshots > 1 else [best_epoch]


def make_snapshots(recipe: Recipe, folder: Path) -> SnapshotEnsemble | None:
    """What keeps the weights at the end of every cycle, as files in `folder`; None with a single network."""
    return SnapshotEnsemble(cycles(recipe), folder) if recipe.snapshots > 1 else None


def cycles_schedule(recipe: Recipe, total_steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """A cosine from `lr` to 0 in every cycle; in the first, the rate rises first."""
    of_an_epoch = max(1, total_steps // recipe.epochs)
    lengths = cycles(recipe)
    schedule = SnapshotEnsemble(lengths).schedule(recipe.lr, of_an_epoch)
    rising = round(recipe.warmup * lengths[0] * of_an_epoch)
    return WarmUp(schedule, rising, delay=False) if rising else schedule
