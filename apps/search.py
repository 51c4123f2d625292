"""`kerascnn search DATA`: values for a recipe, from many short trainings to a few long ones."""

import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras

import pipelines
from apps import files, run_folder
from apps.console import Console, duration
from apps.epoch_log import validation_score
from apps.network import check_network
from apps.plan import Plan, make_plan
from apps.ranges import Range, Space, around, parse_over
from apps.recipe import NETWORK_OPTIONS, Recipe, override
from apps.recipe_file import About, recipe_toml
from apps.recipes import Choices
from apps.resolve import resolve, suitable_rates
from apps.study import COARSE, FINE, SAMPLERS, Failed, Finished, Pruned, Study, Trial
from apps.training import train
from kerascnn.registry import lookup
from pipelines.competition import Competition
from pipelines.pictures import choose_size, picture_sizes
from pipelines.sources import dataset_name

OVER = ("lr", "weight_decay")
OF_NETWORK = ("model", "width", "image_size", "scales", "optimizer", "transfer")  # beside NETWORK_OPTIONS
RECORD, RESULT, BEST = "search.json", "result.json", "best.toml"
SECONDS_TO_STOP = 20.0  # for another process, before it is killed
SHARE_OF_COARSE = 0.5  # of the minutes, where a fine stage follows


@dataclass(frozen=True)
class Order:
    """What the user asked for, as `search.json` keeps it for every process and every resumption.

    Attributes:
        data: The data set, as typed.
        columns: "targets", "group" and "id_column", None where they were worked out.
        choices: Fields of the recipe that were settled.
        over: What to search, as typed.
        trials, fine: How many coarse and fine trials.
        coarse: Epochs of a coarse trial, below 1 as a fraction of those of a fine one.
        sampler: "random" or "tpe".
        from_scratch: Whether published weights are forbidden.
    """

    data: str
    columns: dict[str, Any]
    choices: dict[str, Any]
    over: list[str]
    trials: int
    fine: int
    coarse: float
    sampler: str
    from_scratch: bool


def search(
    source: str,
    choices: Choices,
    *,
    over: Sequence[str] | None = None,
    trials: int | None = None,
    fine: int | None = None,
    coarse: float | None = None,
    sampler: str | None = None,
    minutes: float | None = None,
    processes: int = 1,
    targets: Sequence[str] | None = None,
    group: str | None = None,
    id_column: str | None = None,
    out: Path | None = None,
    resume: bool = False,
    parent: int | None = None,
    memory: float | None = None,
    strict: bool = False,
    from_scratch: bool = True,
    console: Console | None = None,
) -> Path:
    """Search, and write the best recipe, a table of all trials and what was found; returns the folder.

    Args:
        source: What `pipelines.open_dataset` takes.
        choices: Fields of the recipe that are settled; the others are worked out from the data.
        over: What `ranges.parse_over` takes; None is the rate and the weight decay.
        trials, fine: How many short trials, and how many long ones after them; None is 20 and 5.
        coarse: Epochs of a short trial, below 1 as a fraction of the recipe's, which a long one has; None is 0.25.
        sampler: "random" (None) or "tpe".
        minutes: After which no trial begins, and before which the last is expected to end; of this call.
        processes: That work at a time, each with its share of the threads.
        targets, group, id_column: Columns of train.csv; None works them out.
        out: The search's folder, which must not exist; None takes searches/NAME, searches/NAME-2, ...
        resume: Go on with an interrupted search, or help one that is running.
        parent: The process that started this one, which ends when that one does.
        memory: GiB that decoded pictures may take.
        strict: Raise when any row or picture would be left out.
        from_scratch: Whether the competition forbids published weights: `transfer` is refused.

    Raises:
        ValueError, FileNotFoundError: The data, the choices or the ranges do not fit, before any training.
    """
    console = console or Console()
    began = time.monotonic()
    asked = {"trials": trials, "fine": fine, "coarse": coarse, "sampler": sampler, "over": list(over) if over else None}
    defaults = {"trials": 20, "fine": 5, "coarse": 0.25, "sampler": "random", "over": list(OVER)}
    order = Order(
        data=source,
        columns={"targets": list(targets) if targets else None, "group": group, "id_column": id_column},
        choices=dict(choices),
        from_scratch=from_scratch,
        **{name: defaults[name] if value is None else value for name, value in asked.items()},  # type: ignore[arg-type]
    )
    check_order(order, minutes, processes)
    if resume:
        out = find_unfinished(dataset_name(source), out)
        record = read_record(out)
        order = kept_order(record, order, {name for name, value in asked.items() if value is not None})
    elif out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists. Choose another `--out`, or go on with it by `--resume`.")
    files.require_writable(out or Path("searches"))
    competition = pipelines.open_dataset(source, **order.columns)
    trainer = Trainer(competition, order, strict, console, None if memory is None else memory * 2**30)
    space = trainer.space()
    if resume and out is not None:
        if record["fingerprint"] != trainer.plan.fingerprint:
            raise ValueError(f"The pictures or labels of {source} have changed since {out} was begun. Search anew.")
    else:
        out = out or files.new_folder(Path("searches") / competition.name)
        out.mkdir(parents=True, exist_ok=True)
        files.write_json(
            out / RECORD,
            {
                **asdict(order),
                "fingerprint": trainer.plan.fingerprint,
                "command": shlex.join(["kerascnn", *sys.argv[1:]]),
                "versions": run_folder.package_versions(),
            },
        )
    study = Study(
        out,
        space,
        {COARSE: order.trials, FINE: order.fine},
        seed=trainer.recipe(FINE).seed,
        fits=trainer.fits,
        first=trainer.first(space),
        sampler=order.sampler,
    )
    print_search(study, trainer, out, console)
    again = shlex.join(["kerascnn", "search", source, "--resume", "--out", os.fspath(out)])
    with ExitStack() as others:
        helpers = []
        for _ in range(processes - 1):
            options = [] if memory is None else ["--memory", str(memory)]
            if minutes is not None:
                options += ["--minutes", str(max(0.01, minutes - (time.monotonic() - began) / 60))]
            helpers.append(others.enter_context(Helper(source, out, options)))
        try:
            work(study, trainer, out, Clock(began, minutes, order.fine > 0), parent, console)
        except KeyboardInterrupt:
            console.warn(f"Stopped. {_kept(study, out)} Go on with: {again}")
            raise
        except OSError as error:
            raise OSError(f"{run_folder.describe(error)} {_kept(study, out)} Go on with: {again}") from error
        for helper in helpers:
            helper.wait(console)
    conclude(study, trainer, out, console)
    console.say(f"done      {out / 'trials.csv'}, all in {duration(time.monotonic() - began)}")
    return out


def check_order(order: Order, minutes: float | None, processes: int) -> None:
    """A `ValueError` where what was asked for cannot be, before data are read."""
    parse_over(order.over)
    for name, value, least in (("trials", order.trials, 1), ("fine", order.fine, 0), ("processes", processes, 1)):
        if value < least:
            raise ValueError(f"`--{name}` must be at least {least}. Received: {value}.")
    if not order.coarse > 0 or (order.coarse >= 1 and order.coarse != int(order.coarse)):
        raise ValueError(f"`--coarse` must be a fraction of the epochs or a number of them. Received: {order.coarse}.")
    if order.sampler not in SAMPLERS:
        raise ValueError(f"`--sampler` must be one of {', '.join(SAMPLERS)}. Received: {order.sampler}.")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"`--minutes` must be positive. Received: {minutes}.")
    if order.choices.get("val") == 0:
        raise ValueError("`search` needs pictures held out for validation. Received: val=0.")
    if "model" in order.choices:
        lookup(order.choices["model"])
    space = parse_over(order.over)
    for name in getattr(space.get("model"), "values", ()):
        lookup(name)
    published = {order.choices.get("transfer", "none"), *getattr(space.get("transfer"), "values", ())} - {"none"}
    if order.from_scratch and published:
        raise ValueError(
            "A competition is from scratch unless you say that its rules allow published weights. "
            f"Received: transfer={published.pop()}. Add `--no-from-scratch` if they do."
        )


class Trainer:
    """The data, decoded and split, and the recipes that values make of what was asked for."""

    def __init__(
        self, competition: Competition, order: Order, strict: bool, console: Console, memory: float | None
    ) -> None:
        self.competition, self.order, self.strict, self.memory = competition, order, strict, memory
        self.plan: Plan = make_plan(competition, order.choices, strict, console, memory)
        if not len(self.plan.splits[0][1]):
            raise ValueError("`search` needs pictures held out for validation, and none are.")
        self.pictures = len(self.plan.encoded)
        self.size = choose_size(picture_sizes(self.plan.encoded))
        self.epochs = self._resolve(order.choices).epochs
        coarse = math.ceil(order.coarse * self.epochs) if order.coarse < 1 else int(order.coarse)
        if coarse > self.epochs:
            raise ValueError(f"`--coarse` must be at most the epochs, {self.epochs}. Received: {coarse}.")
        self.coarse_epochs = coarse

    def recipe(self, stage: str, values: Choices | None = None) -> Recipe:
        """The complete recipe with these values, as a trial of the stage trains it.

        Rates are those of the fine stage. A coarse trial has the one that corresponds to it: a short training with
        muon_sgd takes a lower rate. The rates of shifts and head stay where the rate of the kernels moves, as
        `resolve.suitable_rates` has them.

        Raises:
            ValueError: The values do not fit each other.
        """
        base, values = dict(self.order.choices), dict(values or {})
        choices = dict(override(base, values))
        recipe = self._resolve({**choices, "epochs": self.epochs})
        if recipe.optimizer == "muon_sgd" and "lr" in values and "lr" in base:
            settled = [name for name in ("bias_rate", "head_rate") if name in choices and name not in values]
            recipe = replace(recipe, **{name: getattr(recipe, name) * base["lr"] / recipe.lr for name in settled})
        if stage == FINE:
            return recipe
        short, full = (
            suitable_rates(recipe.optimizer, epochs, recipe.batch_size)["lr"]
            for epochs in (self.coarse_epochs, self.epochs)
        )
        factor = short / full
        corresponding = {"epochs": self.coarse_epochs, "lr": recipe.lr * factor}
        if recipe.optimizer == "muon_sgd":
            corresponding |= {"bias_rate": recipe.bias_rate / factor, "head_rate": recipe.head_rate / factor}
        return replace(recipe, **corresponding)  # type: ignore[arg-type]

    def fits(self, name: str, value: Any) -> bool:
        """Whether a field can have the value, and would keep it."""
        try:
            return bool(getattr(self.recipe(FINE, {name: value}), name) == value)
        except ValueError:
            return False

    def space(self) -> Space:
        """What is searched; every end of a range and every value was seen to fit.

        Raises:
            ValueError: One does not.
        """
        own, space, networks = self.recipe(FINE), {}, set()
        classes = {head: len(names) for head, names in self.plan.competition.classes.items()}
        for name, given in parse_over(self.order.over).items():
            found = around(name, getattr(own, name)) if given is None else given
            for value in (found.low, found.high) if isinstance(found, Range) else found.values:
                recipe = self.recipe(FINE, {name: value})
                network = tuple(getattr(recipe, field) for field in (*OF_NETWORK, *NETWORK_OPTIONS))
                if network not in networks:
                    check_network(recipe, classes)
                    networks.add(network)
                if getattr(recipe, name) != value:
                    raise ValueError(
                        f"`{name}` can be at most {getattr(recipe, name)} with {self.pictures} pictures. "
                        f"Received: {name}={value}."
                    )
            space[name] = found
        return space

    def first(self, space: Space) -> dict[str, Any]:
        """The recipe's own values, which every search should know the score of."""
        own = self.recipe(FINE)
        return {name: getattr(own, name) for name in space}

    def plan_for(self, recipe: Recipe) -> Plan:
        """The plan with the pictures at the recipe's size; only the last one is kept."""
        if recipe.image_size != self.plan.recipe.image_size:
            choices = {**asdict(recipe), "seed": self.plan.recipe.seed, "val": self.plan.recipe.val}
            self.plan = make_plan(self.competition, choices, self.strict, Silent(quiet=True), self.memory)
        return self.plan

    def score(self, trial: Trial, parent: int | None) -> float:
        """Train the trial's recipe; with folds, the mean of their scores, and only the first one is pruned.

        Raises:
            Pruned: It is worse than others at the same epoch.
            Failed: It diverged, or its values do not fit each other.
        """
        import tensorflow as tf

        try:
            recipe = self.recipe(trial.stage, trial.values)
            plan = self.plan_for(recipe)
            heads = list(plan.data.with_keras_names().classes)
            scores = []
            for number, (train_index, val_index) in enumerate(plan.splits):
                watch = Watch(trial, recipe, heads, number == 0, parent)
                folder = trial.folder / str(number)
                one = train(recipe, plan.data, train_index, val_index, folder, Silent(quiet=True), callbacks=[watch])
                scores.append(math.nan if one.score is None else one.score)
                del one
            if not math.isfinite(score := sum(scores) / len(scores)):
                raise Failed("no epoch had a finite score")
            return score
        except (ValueError, MemoryError, tf.errors.ResourceExhaustedError) as error:
            raise Failed(" ".join(str(error).split())[:200] or type(error).__name__) from error

    def _resolve(self, choices: Choices) -> Recipe:
        own_validation = bool((self.plan.competition.train["part"] == "val").any())
        return resolve(choices, self.pictures, self.size, list(self.plan.competition.classes.values()), own_validation)


class Silent(Console):
    """Of trials, nothing is said but how they end."""

    def warn(self, line: str) -> None:
        """Nothing."""


class Watch(keras.callbacks.Callback):
    """Tell a trial its score after every epoch, and stop it when it is hopeless, never in the warm-up.

    Args:
        trial: Told of every epoch.
        recipe: Of the training.
        heads: Whose score counts.
        prunes: Whether this training, the trial's first, may be stopped.
        parent: The process without which this one has no reason to go on.
    """

    def __init__(self, trial: Trial, recipe: Recipe, heads: Sequence[str], prunes: bool, parent: int | None) -> None:
        super().__init__()
        self.trial, self.heads, self.prunes, self.parent = trial, list(heads), prunes, parent
        self.warmup, self.epochs = math.ceil(recipe.warmup * recipe.epochs), recipe.epochs

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Report, and raise `Pruned` where the trial is hopeless."""
        stop_without(self.parent)
        self.trial.report(validation_score(logs or {}, self.heads))
        if self.prunes and self.warmup < epoch + 1 < self.epochs and self.trial.is_hopeless():
            raise Pruned


def stop_without(parent: int | None) -> None:
    """Raise `KeyboardInterrupt` in a process whose parent has died."""
    if parent is not None and os.getppid() != parent:
        raise KeyboardInterrupt


class Clock:
    """Whether a trial may still begin: it is expected to end before the minutes are over.

    Args:
        began: When, by the monotonic clock.
        minutes: None for no limit.
        two_stages: Whether the coarse stage must leave time for the fine one.
    """

    def __init__(self, began: float, minutes: float | None, two_stages: bool) -> None:
        self.minutes = minutes
        self.end = math.inf if minutes is None else began + 60 * minutes
        self.coarse_end = self.end if minutes is None or not two_stages else began + 60 * minutes * SHARE_OF_COARSE

    def may_begin(self, study: Study, trainer: Trainer, stage: str) -> bool:
        """Whether a trial of the stage may begin now; the first one always may."""
        if self.minutes is None:
            return True
        ended = [one for one in (*study.finished(COARSE), *study.finished(FINE)) if one.epochs]
        epoch = sum(one.seconds for one in ended) / max(sum(one.epochs for one in ended), 1)
        epochs = (trainer.coarse_epochs if stage == COARSE else trainer.epochs) * len(trainer.plan.splits)
        left = (self.coarse_end if stage == COARSE else self.end) - time.monotonic()
        return not ended or epoch * epochs <= left


def work(study: Study, trainer: Trainer, out: Path, clock: Clock, parent: int | None, console: Console) -> None:
    """Take trials until there are no more."""
    tell(study, trainer, out, console)
    while trial := study.take(partial(clock.may_begin, study, trainer)):
        try:
            stop_without(parent)
            score = trainer.score(trial, parent)
        except Pruned:
            study.finish(trial, "pruned")
        except Failed as error:
            study.finish(trial, "failed", why=str(error))
        except BaseException:
            study.finish(trial, "interrupted", why="stopped")
            raise
        else:
            study.finish(trial, "complete", score)
        keras.backend.clear_session()  # the trial's network, which no error holds any more
        tell(study, trainer, out, console)


def tell(study: Study, trainer: Trainer, out: Path, console: Console) -> None:
    """Say how the trials of all processes ended, and write the best recipe where it is a new one."""
    for one in study.news():
        ending = {
            "complete": f"score {one.score:.4f}" if one.score is not None else "",
            "pruned": "pruned",
            "failed": f"failed: {one.why}",
            "interrupted": f"will be repeated: {one.why}",
        }[one.state]
        console.say(
            f"  {one.stage} trial {one.number + 1}: {in_words(one.values)}: {ending}, {one.epochs} epochs, "
            f"{duration(one.seconds)}"
        )
    for line in study.new_widenings():
        console.warn(line[0].upper() + line[1:])
    with study.locked():
        if best := study.best():
            text = best_toml(best, trainer)
            path = out / BEST
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                files.write_text(path, text)


def best_toml(best: Finished, trainer: Trainer) -> str:
    """The complete recipe of the best trial, at the length of the fine stage."""
    trained = trainer.coarse_epochs if best.stage == COARSE else trainer.epochs
    about = About(
        f"found by `kerascnn search {trainer.order.data}`: {in_words(best.values)}",
        (f"score {best.score:.4f} on held-out pictures after {trained} of {trainer.epochs} epochs",),
    )
    return recipe_toml(trainer.recipe(FINE, best.values), about)


def print_search(study: Study, trainer: Trainer, out: Path, console: Console) -> None:
    """What will be done, line by line."""
    order, plan = trainer.order, trainer.plan
    folds = f"{len(plan.splits)} folds" if len(plan.splits) > 1 else f"{len(plan.splits[0][1]):,} held out"
    console.say(f"data      {len(plan.data.pictures):,} labelled pictures, {folds}")
    console.say(
        f"search    {order.trials} coarse trials of {trainer.coarse_epochs} epochs, {order.fine} fine trials of "
        f"{trainer.epochs}, {order.sampler}"
    )
    for name, found in study.space(COARSE).items():
        console.say(f"          {name}: {found}")
    if done := sum(len(study.finished(stage)) for stage in (COARSE, FINE)):
        console.say(f"          {done} trials have ended already")
    console.say(f"folder    {out}")


def conclude(study: Study, trainer: Trainer, out: Path, console: Console) -> None:
    """What was found: in words, and in result.json, the last file.

    Raises:
        ValueError: No trial has a score.
    """
    best, ended = study.best(), [*study.finished(COARSE), *study.finished(FINE)]
    if best is None:
        why = next((one.why for one in ended if one.why), "there was no time for one")
        raise ValueError(f"None of {len(ended)} trials has a score. First: {why}")
    borders, importances = study.at_border(), study.importances()
    own, space = trainer.recipe(FINE), study.space(best.stage)
    rows = [("field", "best", "recipe's own", "searched last", "")]
    for name, value in best.values.items():
        notes = [f"importance {importances[name]:.2f}"] if name in importances else []
        notes += [f"at the {borders[name]} border"] if name in borders else []
        rows.append((name, show(value), show(getattr(own, name)), str(space[name]), ", ".join(notes)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        console.say("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    counts = {state: sum(one.state == state for one in ended) for state in ("complete", "pruned", "failed")}
    console.say(f"trials    {', '.join(f'{count} {state}' for state, count in counts.items())}")
    length = f"{trainer.coarse_epochs if best.stage == COARSE else trainer.epochs} epochs"
    console.say(f"best      {best.stage} trial {best.number + 1}, score {best.score:.4f} after {length}")
    if best.stage == COARSE and trainer.order.fine:
        console.warn("No fine trial has a score: the best is that of a short training.")
    for name, side in borders.items():
        console.warn(f"The best {name} lies at the {side} border of {space[name]}: search on beyond it.")
    command = compete_command(trainer.order, out)
    console.say(f"wrote     {out / BEST}: {command}")
    with suppress(OSError):  # another process looks at the same end
        (out / "trials").rmdir()
    files.write_json(
        out / RESULT,
        {
            "stage": best.stage,
            "trial": best.number,
            "score": best.score,
            "values": best.values,
            "at_border": borders,
            "importances": importances,
            "trials": counts,
            "command": command,
            "versions": run_folder.package_versions(),
            "commit": run_folder.source_commit(),
        },
    )


def compete_command(order: Order, out: Path) -> str:
    """The command that trains with the best recipe on the same data."""
    command = ["kerascnn", "compete", order.data, "--recipe", os.fspath(out / BEST)]
    for target in order.columns["targets"] or ():
        command += ["--target", target]
    for option, name in (("--group", "group"), ("--id", "id_column")):
        if order.columns[name]:
            command += [option, order.columns[name]]
    return shlex.join(command + ([] if order.from_scratch else ["--no-from-scratch"]))


def in_words(values: Mapping[str, Any]) -> str:
    """Values of fields on one line.

    >>> in_words({"lr": 0.0512345, "model": "resnet9"})
    'lr 0.05123, model resnet9'
    """
    return ", ".join(f"{name} {show(value)}" for name, value in values.items())


def show(value: Any) -> str:
    """A value in few digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Helper:
    """Another process that takes part in a search; `with` ends it when the block ends in an error."""

    def __init__(self, source: str, out: Path, options: Sequence[str]) -> None:
        command = [sys.executable, "-m", "apps.cli", "search", source, "--resume", "--out", os.fspath(out), "--quiet"]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [*command, "--parent", str(os.getpid()), *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
        )

    def __enter__(self) -> "Helper":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._process.poll() is None and kind is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._errors.close()

    def wait(self, console: Console) -> None:
        """Wait for its end; the work is done, whatever became of it."""
        if code := self._process.wait():
            self._errors.seek(0)
            lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
            console.warn(f"One of the processes ended early ({lines[-1] if lines else f'exit code {code}'}).")


def find_unfinished(name: str, out: Path | None) -> Path:
    """The search to go on with: `out`, or the newest of searches/NAME, searches/NAME-2, ... that has no result.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The search is finished.
    """
    if out is not None:
        if not (out / RECORD).is_file():
            raise FileNotFoundError(f"{out} is no search: it has no {RECORD}. Start without `--resume`.")
        if (out / RESULT).is_file():
            raise ValueError(f"{out} is finished; there is nothing to go on with.")
        return out
    found = [
        path
        for path in (Path("searches").iterdir() if Path("searches").is_dir() else ())
        if re.fullmatch(rf"{re.escape(name)}(-\d+)?", path.name)
        and (path / RECORD).is_file()
        and not (path / RESULT).is_file()
    ]
    if not found:
        raise FileNotFoundError(f"There is no interrupted search of {name} in searches/. Start without `--resume`.")
    return max(found, key=lambda path: path.stat().st_mtime)


def read_record(out: Path) -> dict[str, Any]:
    """What search.json says."""
    path = out / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}. Search anew.") from error
    needed = {field.name for field in fields(Order)} | {"fingerprint"}
    if not isinstance(record, dict) or not needed <= set(record):
        raise ValueError(f"{path} is no record of a search. Search anew.")
    return record


def kept_order(record: Mapping[str, Any], order: Order, given: set[str]) -> Order:
    """The order a search was begun with.

    Raises:
        ValueError: What was `given` now, or a column or a field of the recipe, differs; the message lists it.
    """
    kept = Order(**{field.name: record[field.name] for field in fields(Order)})
    differences = [
        f"{name} is {getattr(kept, name)}, asked for {getattr(order, name)}"
        for name in sorted(given)
        if getattr(kept, name) != getattr(order, name)
    ]
    for what, before, now in (("", kept.choices, order.choices), ("column ", kept.columns, order.columns)):
        differences += [
            f"{what}{name} is {before.get(name, 'not settled')}, asked for {value}"
            for name, value in now.items()
            if value is not None and json.loads(json.dumps(value)) != before.get(name)
        ]
    if differences:
        raise ValueError(
            f"A resumed search keeps what it was begun with: {'; '.join(differences)}. "
            "Drop these options or start anew."
        )
    return kept


def _kept(study: Study, out: Path) -> str:
    ended = sum(len(study.finished(stage)) for stage in (COARSE, FINE))
    return f"{ended} trials are kept{f', the best in {out / BEST}' if (out / BEST).is_file() else ''}."


if __name__ == "__main__":
    from apps.cli import main

    main(["search", *sys.argv[1:]])
