"""What comes before a training: an order becomes a plan and a run folder, on one host or agreed upon by several."""

import math
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import keras
import tensorflow as tf

import pipelines
from apps import files, run_folder
from apps.audit import brief_audit
from apps.budget import MINUTES, Workload, measure_speed
from apps.console import Console, duration
from apps.devices import Devices
from apps.hosts import Hosts
from apps.lr_find import with_found_rate
from apps.plan import Plan, make_plan, print_plan
from apps.recipe import Recipe, check_choices
from apps.resolve import refuse_published
from apps.scaling import check_decoder, check_scaling, check_several, divide, scale
from apps.tensorboard_log import require_tensorboard
from apps.trainings import TENSORBOARD
from kerascnn.registry import lookup
from pipelines.sources import dataset_name


@dataclass(frozen=True)
class Wish:
    """An order, and how it is to be carried out: the arguments of `compete`."""

    order: run_folder.Order
    out: Path | None = None
    dry_run: bool = False
    resume: bool = False
    auto_lr: bool = False
    from_scratch: bool = True
    scaling: str = "keep"
    batch_norm: str = "global"


@dataclass(frozen=True)
class Begun:
    """A run that can be trained.

    Attributes:
        order: Complete.
        plan: Of this host.
        run: Its folder, which other hosts than the first need not see unless they resume.
        resume: Whether it goes on.
        end: When it must end, on the monotonic clock; None where that is open.
    """

    order: run_folder.Order
    plan: Plan
    run: Path
    resume: bool
    end: float | None = None


def begin(wish: Wish, devices: Devices, console: Console) -> Begun | None:
    """Check everything, print the plan, make the run folder; None after a dry run.

    Of several hosts the first one decides, and tells the others, which open the same data for themselves. The folder is
    made when all are ready.

    Raises:
        ValueError, FileNotFoundError: The data or the choices do not fit, here or on another host.
    """
    hosts = devices.hosts
    if not hosts.is_first:
        return _join_in(hosts)
    began = time.monotonic()
    try:
        order, plan, run = _decide(wish, devices, console)
    except BaseException as error:
        hosts.from_first({"error": str(error) or type(error).__name__})
        raise
    recipe = asdict(plan.recipe)
    hosts.from_first(None if wish.dry_run else {"order": asdict(order), "recipe": recipe, "print": plan.fingerprint})
    if wish.dry_run:
        return None
    hosts.agree(None)
    if run is None:
        run = wish.out or files.new_folder(Path("runs") / plan.competition.name)
        run.mkdir(parents=True, exist_ok=True)
        found = f"{keras.backend.backend()}, {devices.describe()}"
        run_folder.write_record(run, order, recipe, plan.fingerprint, plan.competition.group_column, found)
    hosts.from_first({"run": str(run), "resume": wish.resume})
    console.say(f"run       {run}")
    if order.tensorboard:
        console.say(f"watch     {shlex.join(['tensorboard', '--logdir', os.fspath(run / TENSORBOARD)])}")
    end = None if order.minutes is None else began + 60 * order.minutes - plan.rest
    return Begun(order, plan, run, wish.resume, end)


def _join_in(hosts: Hosts) -> Begun | None:
    """What the first host has begun, on another one."""
    told = hosts.from_first()
    if told is None:
        return None
    if "error" in told:
        raise ValueError(f"The first host says: {told['error']}")
    order = replace(run_folder.Order(**told["order"]), choices=dict(check_choices(told["recipe"])))
    try:
        plan = open_plan(order, math.inf, Console(quiet=True))
        differing = [what for what, value in plan.fingerprint.items() if value != told["print"][what]]
        if differing:
            raise ValueError(
                f"Host {hosts.number} finds other data in {order.data} than the first one: {', '.join(differing)}. "
                "Give all hosts the same."
            )
    except BaseException as error:
        hosts.agree(str(error) or type(error).__name__)
        raise
    hosts.agree(None)
    begun = hosts.from_first()
    return Begun(order, replace(plan, recipe=Recipe(**order.choices)), Path(begun["run"]), begun["resume"])


def _decide(wish: Wish, devices: Devices, console: Console) -> tuple[run_folder.Order, Plan, Path | None]:
    """The complete order, the plan, and the folder of a run that goes on; after a dry run, how long it would take."""
    order, out = wish.order, wish.out
    run, fingerprint = None, None
    check_scaling(wish.scaling, wish.batch_norm)
    if wish.resume:
        run = run_folder.find_interrupted(dataset_name(order.data), out)
        order, fingerprint = run_folder.kept_order(run, order)
    else:
        check_order(order, wish.from_scratch)
        if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(f"{out} exists. Choose another `--out`, or go on with it by `--resume`.")
    if order.tensorboard:
        require_tensorboard()
    for folder in (run or out or Path("runs"), Path(order.saved_models)):
        files.require_writable(folder)

    plan = open_plan(order, time.monotonic() + 60 * (order.minutes or MINUTES), console)
    if run is not None and fingerprint is not None:
        run_folder.check_same_data(run, fingerprint, plan.fingerprint)
    plan = for_devices(plan, wish, devices)
    check_several(plan.recipe, devices, order.minutes is not None)
    check_decoder(plan.data, devices.decoder)
    plan = with_found_rate(plan, console) if wish.auto_lr and not wish.resume else plan
    print_plan(plan, console, devices)
    plan = replace(plan, audited=brief_audit(plan, console))
    if wish.dry_run:
        speed, work = measure_speed(plan.recipe, plan.data), workload(plan)
        console.say(
            f"time      about {duration(speed.of_training(plan.recipe, work))} of training on one device of this "
            f"machine, {duration(speed.of_the_rest(work))} for predictions and export (measured on a few steps)"
        )
    return order, plan, run


def for_devices(plan: Plan, wish: Wish, devices: Devices) -> Plan:
    """The plan with the batch, the rate and BatchNorm that these devices get; a resumed run has its own."""
    recipe, keeps = plan.recipe, wish.resume
    if not wish.resume:
        keeps = wish.scaling == "keep" and recipe.batch_size == wish.order.choices.get("batch_size")
        least = min(max(1, round(recipe.hardest * len(train))) for train, _ in plan.splits)
        recipe = scale(recipe, wish.scaling, devices, least)
        if wish.batch_norm == "device" and devices.count > 1:
            recipe = replace(recipe, norm_parts=devices.count)
    return replace(plan, recipe=divide(recipe, devices, may_change=not keeps))


def check_order(order: run_folder.Order, from_scratch: bool) -> None:
    """A `ValueError` where a new run cannot be as it was asked for, before data are read."""
    choices, minutes = order.choices, order.minutes
    if "model" in choices:
        lookup(choices["model"])
    if from_scratch:
        refuse_published([choices.get("transfer", "none")])
    if minutes is not None and not minutes > 0:
        raise ValueError(f"`minutes` must be positive. Received: minutes={minutes}.")
    if minutes is not None and "epochs" in choices:
        raise ValueError(
            f"`--minutes` chooses the epochs, and {choices['epochs']} are settled already, by `--epochs` or a recipe. "
            "Leave one of them out."
        )


def open_plan(order: run_folder.Order, end: float, console: Console) -> Plan:
    """The plan of an order whose run has time until `end`, on the monotonic clock."""
    competition = pipelines.open_dataset(order.data, **order.columns)
    if order.choices.get("deterministic"):  # before any speed is measured
        tf.config.experimental.enable_op_determinism()
    memory = None if order.memory is None else order.memory * 2**30
    within = max(end - time.monotonic(), 1.0)
    return make_plan(competition, order.choices, order.strict, console, memory, within, fill=order.minutes is not None)


def workload(plan: Plan) -> Workload:
    """What the networks of all splits and seeds are trained on and predict."""
    parts = plan.splits * plan.recipe.seeds
    trained, held_out = [len(train) for train, _ in parts], [len(held_out) for _, held_out in parts]
    return Workload(trained, held_out, len(plan.test_pictures), plan.recipe.snapshots)


@contextmanager
def working_in(begun: Begun, hosts: Hosts, console: Console) -> Iterator[None]:
    """Alone in the run folder; whatever stops the work is answered with the command that goes on."""
    run = begun.run
    again = shlex.join(["kerascnn", "compete", begun.order.data, "--resume", "--out", os.fspath(run)])
    if keras.backend.backend() == "jax":
        again = f"KERAS_BACKEND=jax {again}"
    with run_folder.lock(run) if hosts.is_first else nullcontext():
        if hosts.is_first:
            run_folder.remove_unfinished(run)
        try:
            yield
        except KeyboardInterrupt:
            if hosts.is_first:
                console.warn(f"Stopped. {run_folder.best_snapshot(run)} Go on with: {again}")
            raise
        except OSError as error:
            raise OSError(f"{run_folder.describe(error)} What is finished is kept; go on with: {again}") from error
