"""All trainings of a run: a network for every split and every seed."""

import time
from dataclasses import replace
from pathlib import Path

from apps import run_folder
from apps.budget import can_be_paced
from apps.console import Console
from apps.devices import ONE, Devices
from apps.logs import LogFiles
from apps.plan import Plan
from apps.tensorboard_log import TensorBoardLog
from apps.training import Trained, train

TENSORBOARD = "tensorboard"  # folder of a run


def train_all(
    plan: Plan,
    run: Path,
    order: run_folder.Order,
    resume: bool,
    console: Console,
    end: float | None,
    devices: Devices = ONE,
) -> list[list[Trained]]:
    """Train the networks of every split, one for each seed; what time there is until `end` is shared among them."""
    recipe, data = plan.recipe, plan.data
    allowed = None if end is None or not can_be_paced(recipe) else end - time.monotonic()
    first = devices.hosts.is_first
    layers = devices.count == 1  # one device alone looks at them
    devices.meet()
    trained: list[list[Trained]] = []
    spent, left = 0.0, len(plan.splits) * recipe.seeds
    for fold, (train_index, held_out) in enumerate(plan.splits):
        trained.append([])
        for network in range(recipe.seeds):
            checkpoints = run_folder.checkpoints_of(run, fold, network, recipe.seeds)
            one = train(
                replace(recipe, seed=recipe.seed + network),
                data,
                train_index,
                held_out,
                checkpoints,
                console,
                name_training(fold, len(plan.splits), network, recipe.seeds),
                resume,
                checkpoint_seconds=60 * order.checkpoint_minutes,
                seconds=None if allowed is None else max((allowed - spent) / left, 1.0),
                callbacks=[TensorBoardLog(run / TENSORBOARD / checkpoints.name)] if first and order.tensorboard else (),
                logs=LogFiles.of(run, checkpoints.name, layers=layers and not fold and not network) if first else None,
                devices=devices,
            )
            trained[-1].append(one)
            spent, left = spent + one.seconds, left - 1
    return trained


def name_training(fold: int, folds: int, network: int, networks: int) -> str:
    """How to call a training.

    >>> name_training(1, 5, 0, 3), name_training(0, 1, 0, 3), name_training(0, 1, 0, 1)
    ('fold 2 of 5, network 1 of 3', 'network 1 of 3', 'training')
    """
    parts = [f"fold {fold + 1} of {folds}"] if folds > 1 else []
    parts += [f"network {network + 1} of {networks}"] if networks > 1 else []
    return ", ".join(parts) or "training"
