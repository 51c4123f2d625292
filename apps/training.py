"""Train one network on one split, with `model.fit`."""

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from apps.batches import held_out_batches, training_batches
from apps.console import Console
from apps.data import Data
from apps.devices import ONE, Devices
from apps.epoch_log import EpochLog
from apps.heads import in_keras_names
from apps.logs import LogFiles, make_json_log, make_monitor
from apps.network import build_network, compile_network, network_alone, whiten
from apps.phases import Phase, phases, steps_of
from apps.recipe import Recipe
from apps.watchers import Watchers, make_watchers
from callbacks import Checkpoint, Deadline, HardestExamples, OneTraining
from callbacks.checkpoint import Position
from callbacks.rates import batches_seen
from pipelines import make_eval
from pipelines.order import places_of_epoch


@dataclass(frozen=True)
class Trained:
    """A network in float32 with the weights of its best epoch (counted from 1), and how training went.

    `score` is the best epoch's `validation_score`; None where nothing was held out. `alarms` is what was said of it.
    `earlier` are the networks at the ends of the cycles before, where the recipe asks for `snapshots`; `model` is then
    that of the last.
    """

    model: keras.Model
    history: list[dict[str, float]]
    best_epoch: int
    score: float | None
    seconds: float
    pictures_per_second: float
    alarms: Sequence[str] = ()
    earlier: Sequence[keras.Model] = ()

    @property
    def models(self) -> list[keras.Model]:
        """All networks that the training yields."""
        return [*self.earlier, self.model]


def train(
    recipe: Recipe,
    data: Data,
    train_index: np.ndarray,
    val_index: np.ndarray,
    folder: Path,
    console: Console,
    what: str = "training",
    resume: bool = False,
    checkpoint_seconds: float = 120.0,
    seconds: float | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    logs: LogFiles | None = None,
    devices: Devices = ONE,
) -> Trained:
    """Train the recipe's network on `train_index`, watch it on `val_index`, keep the best epoch.

    Args:
        recipe: Resolved.
        data: All labelled pictures.
        train_index, val_index: Which of them to train on and to watch; without any to watch, the last epoch is kept.
        folder: For "last.npz" and "before-last.npz", from which an interrupted training goes on, and "best.npz".
        console: Shows the progress.
        what: How to call it there.
        resume: Go on from what `folder` holds.
        checkpoint_seconds: How often, besides after every epoch, "last.npz" is written.
        seconds: When to end: the recipe's epochs are what was foreseen, and more or fewer are trained (`Deadline`).
        callbacks: Further ones, which see every epoch after it was logged and before it is written to disk.
        logs: Files of the training's own log, and of the monitor of its layers.
        devices: That train together. With several hosts each calls this alike; the first one writes the files.
    """
    began = time.monotonic()
    if devices.hosts.is_first:
        folder.mkdir(parents=True, exist_ok=True)
    recipe = replace(recipe, batch_size=min(recipe.batch_size, len(train_index)))
    heads = list(data.classes)
    recipe, data = in_keras_names(recipe, data)
    more = 0 if seconds is None else recipe.epochs // 2  # epochs that a faster machine may add
    each = [phase for phase in phases(recipe, more=more) for _ in range(*phase.epochs)]
    steps = [steps_of(recipe, phase, len(train_index)) for phase in each]
    planned = sum(steps[: recipe.epochs])
    work = [count * math.prod(phase.size or recipe.image_size) for count, phase in zip(steps, each, strict=True)]
    deadline = None if seconds is None else Deadline(seconds, recipe.epochs, planned, len(steps))
    progress = EpochLog(console, what, steps, list(data.classes), work, deadline)

    with devices.scope():
        keras.utils.set_random_seed(recipe.seed)
        model = build_network(recipe, data, recipe.precision, any_size=bool(recipe.scales))
        whiten(model, data)
        watchers = make_watchers(recipe, data, heads, train_index, val_index, folder, progress, devices)
        compile_network(model, recipe, data.num_classes, planned, watchers.hardest, paced=seconds is not None)
        checkpoint = Checkpoint(folder / "last.npz", watchers.named(), checkpoint_seconds)
        begin = _restore(checkpoint, model, data, progress, devices) if resume else Position()
        if begin.epoch < len(steps) and not begin.stopped:
            logging = _make_logs(logs, recipe, data, train_index, planned, model, progress)
            called = [*watchers.named().values(), *logging, *callbacks, checkpoint]
            one = OneTraining(called, add_history=True, model=model, verbose=0)
            with console.progress(what, planned) as progress.bar, warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Training diverged|Epoch .* no finite|EarlyStopping saw no")  # below
                warnings.filterwarnings("ignore", r"Step \d+\. ")  # of the layers: said in the report
                todo = phases(recipe, begin.epoch, begin.step, more)
                _fit(model, recipe, data, train_index, val_index, one, todo, watchers.hardest, devices)
        else:
            watchers.put_back(model)
    if watchers.divergence.message:
        raise ValueError(f"{watchers.divergence.message} With `--lr` that is a new run.")
    return _collect(model, recipe, data, watchers, time.monotonic() - began + progress.seconds_before)


def _make_logs(
    logs: LogFiles | None,
    recipe: Recipe,
    data: Data,
    train_index: np.ndarray,
    steps: int,
    model: keras.Model,
    progress: EpochLog,
) -> list[keras.callbacks.Callback]:
    """What writes the logs, if any, of a training that begins or goes on; what looks at layers is no training time."""
    if logs is None:
        return []
    monitor = make_monitor(logs, data, train_index, recipe.batch_size, steps, batches_seen(model.optimizer))
    if monitor is None:
        return [make_json_log(logs, steps)]
    progress.pauses = lambda: monitor.seconds
    return [monitor, make_json_log(logs, steps)]


def _collect(model: keras.Model, recipe: Recipe, data: Data, watchers: Watchers, seconds: float) -> Trained:
    """What a training that has ended yields, its networks in float32."""
    history, stopping, snapshots = watchers.log.history, watchers.stopping, watchers.snapshots
    networks = []
    for weights in [*(snapshots.snapshots[:-1] if snapshots else ()), model.get_weights()]:
        finished = build_network(recipe, data, "float32")
        finished.set_weights(weights)
        networks.append(network_alone(finished))
    pictures = sum(watchers.log.steps[: len(history)]) * recipe.batch_size
    best, score = len(history), None
    if stopping is not None and stopping.best_epoch is not None:
        best, score = stopping.best_epoch + 1, float(stopping.best)
    if stopping is not None and stopping.stopped_epoch is not None:
        watchers.log.console.say(f"  {watchers.log.what}: stopped early: no epoch after {best} was better")
    return Trained(
        networks[-1],
        history,
        best,
        score,
        seconds,
        pictures / max(sum(row["seconds"] for row in history), 1e-9),
        watchers.alarms.messages if watchers.alarms else (),
        networks[:-1],
    )


def _restore(
    checkpoint: Checkpoint, model: keras.Model, data: Data, progress: "EpochLog", devices: Devices
) -> Position:
    """Where an interrupted training goes on, said in words."""
    one, console = data.take(np.zeros(devices.count, int)), progress.console
    batches = make_eval(one.pictures, one.labels, data.num_classes, batch_size=devices.count, share=devices.share)
    batch = keras.tree.map_structure(np.asarray, next(iter(batches)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        begin = checkpoint.restore(model, batch)
    for warning in caught:
        console.warn(str(warning.message))
    if list(begin) != devices.hosts.from_first(list(begin)):
        raise ValueError(
            f"Host {devices.hosts.number} finds another state of the training in {checkpoint.path.parent} than the "
            "first one. To go on with a run, all hosts must share its folder."
        )
    if begin.step:
        where = (
            f"in epoch {begin.epoch + 1} of {progress.epochs}, after step {begin.step} of {progress.steps[begin.epoch]}"
        )
        console.say(f"  {progress.what}: going on {where}")
    elif 0 < begin.epoch < progress.epochs and not begin.stopped:
        console.say(f"  {progress.what}: going on after epoch {begin.epoch} of {progress.epochs}")
    return begin


def _fit(
    model: keras.Model,
    recipe: Recipe,
    data: Data,
    train_index: np.ndarray,
    val_index: np.ndarray,
    callbacks: OneTraining,
    todo: Sequence[Phase],
    hardest: HardestExamples | None,
    devices: Devices,
) -> None:
    """What is left of the training: a `fit` for every phase, one training for the callbacks."""
    watch = held_out_batches(data.take(val_index), devices) if len(val_index) else None
    size: tuple[int, int] | None = None
    for phase in todo:
        begin, end = phase.epochs
        only = None
        if hardest:
            only = hardest.choose(phase.share)
            hardest.order = places_of_epoch(only, recipe.batch_size, recipe.seed, begin)
        if size != phase.size:
            # The step of another size is another graph: it knows the size, and takes the faster kernels.
            model.make_train_function(force=True)
            size = phase.size
        steps = steps_of(recipe, phase, len(train_index)) - phase.first_step
        callbacks.set_params({"epochs": recipe.epochs, "steps": steps, "verbose": 0})
        model.fit(
            training_batches(recipe, data, train_index, begin, size, only, phase.first_step, devices),
            steps_per_epoch=steps,
            epochs=end,
            initial_epoch=begin,
            validation_data=watch,
            callbacks=callbacks,
            verbose=0,
            shuffle=False,
        )
        if model.stop_training:
            break
    callbacks.finish()
