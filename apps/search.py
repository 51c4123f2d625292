"""`kerascnn search DATA`: values for a recipe, from many short trainings to a few long ones."""

import errno
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import keras

import pipelines
from apps import files, run_folder
from apps.console import Console, duration
from apps.options import STORAGE
from apps.search_folder import BEST, RECORD, Order, begin, check_order, find, kept_order
from apps.search_report import conclude, print_search, resume_command, tell
from apps.study import COARSE, FINE, STAGES, Pruned, Study
from apps.study_database import DATABASE_ERRORS, Database, describe
from apps.trials import Trainer, stop_without
from pipelines.sources import dataset_name

SECONDS_TO_STOP = 20.0  # for another process, before it is killed
FULL = (errno.ENOSPC, errno.EDQUOT)  # what makes every further trial fail, too
SHARE_OF_COARSE = 0.5  # of the minutes, where a fine stage follows


def search(
    order: Order,
    given: Collection[str] = (),
    *,
    minutes: float | None = None,
    processes: int = 1,
    out: Path | None = None,
    resume: bool = False,
    storage: str | None = None,
    parent: int | None = None,
    memory: float | None = None,
    strict: bool = False,
    console: Console | None = None,
) -> Path:
    """Search, and write the best recipe, a table of all trials and what was found; returns the folder.

    Args:
        order: What to search on which data.
        given: Its fields that were asked for, beside columns and choices: a resumed search must have been begun with
            the same.
        minutes: After which no trial begins, and before which the last is expected to end; of this call.
        processes: That work at a time, each with its share of the threads.
        out: The search's folder, which must not exist; None takes searches/NAME, searches/NAME-2, ...
        resume: Go on with an interrupted search, or help one that is running.
        storage: URL of a database, by which several machines work on one search; it has the name of its folder there.
            None keeps the trials in the folder.
        parent: The process that started this one, which ends when that one does.
        memory: GiB that decoded pictures may take.
        strict: Raise when any row or picture would be left out.

    Raises:
        ValueError, FileNotFoundError: The data, the choices or the ranges do not fit, before any training.
    """
    console = console or Console()
    began, source = time.monotonic(), order.data
    check_order(order, minutes, processes)
    database = None if storage is None else Database(storage)
    if resume:
        out, record = find(dataset_name(source), out, database)
        order = replace(kept_order(record, order, given), data=source)  # which may lie elsewhere on this machine
    elif out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists. Choose another `--out`, or go on with it by `--resume`.")
    elif "over" not in given:  # what is settled to 0 has no range around it
        order = replace(order, over=[name for name in order.over if order.choices.get(name) != 0])
    files.require_writable(out or Path("searches"))
    competition = pipelines.open_dataset(source, **order.columns)
    trainer = Trainer(competition, order, strict, console, None if memory is None else memory * 2**30)
    space = trainer.space()
    if resume and record["fingerprint"] != trainer.plan.fingerprint:
        raise ValueError(f"The pictures or labels of {source} have changed since {out} was begun. Search anew.")
    if out is None or not resume:
        out = begin(Path("searches") / competition.name, out, order, trainer.plan.fingerprint, database)
    elif database:
        out.mkdir(parents=True, exist_ok=True)
        files.write_json(out / RECORD, record)
    study = Study(
        out,
        space,
        {COARSE: order.trials, FINE: order.fine},
        seed=trainer.recipe(FINE).seed,
        fits=trainer.fits,
        first=trainer.first(space),
        sampler=order.sampler,
        store=database.store(out.absolute().name) if database else None,
    )
    if resume and parent is None:
        study.reopen()
    print_search(study, trainer, console)
    options = [] if memory is None else ["--memory", str(memory)]
    if minutes is not None:
        options += ["--minutes", str(max(0.01, minutes - (time.monotonic() - began) / 60))]
    with ExitStack() as others:
        helpers = [others.enter_context(Helper(source, out, options, storage)) for _ in range(processes - 1)]
        with told_how_to_go_on(source, study, console):
            work(study, trainer, Clock(began, minutes, order.fine > 0), parent, console)
        for helper in helpers:
            helper.wait(console)
    tell(study, trainer, console)  # what other processes ended last
    conclude(study, trainer, console)
    console.say(f"done      {out / 'trials.csv'}, all in {duration(time.monotonic() - began)}")
    return out


@contextmanager
def told_how_to_go_on(source: str, study: Study, console: Console) -> Iterator[None]:
    """Whatever stops the work is answered with what is kept and the command that goes on."""
    again = f"Go on with: {resume_command(source, study)}"
    try:
        yield
    except KeyboardInterrupt:
        console.warn(f"Stopped. {_kept(study)} {again}")
        raise
    except OSError as error:
        raise OSError(f"{run_folder.describe(error)} {_kept(study)} {again}") from error
    except DATABASE_ERRORS as error:
        raise OSError(f"The storage cannot be used any more: {describe(error)} {again}") from error


def _kept(study: Study) -> str:
    ended = sum(one.state != "interrupted" for stage in STAGES for one in study.finished(stage))
    best = study.folder / BEST
    return f"{ended} trials are kept{f', the best in {best}' if best.is_file() else ''}."


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


def work(study: Study, trainer: Trainer, clock: Clock, parent: int | None, console: Console) -> None:
    """Take trials until there are no more; one that ends in an error counts, unless the disk is full."""
    tell(study, trainer, console)
    while trial := study.take(partial(clock.may_begin, study, trainer)):
        try:
            stop_without(parent)
            score = trainer.score(trial, parent)
        except Pruned:
            study.finish(trial, "pruned")
        except DATABASE_ERRORS:  # not the trial's fault; it is repeated once its signs of life have ended
            trial.release()
            raise
        except BaseException as error:
            if not isinstance(error, Exception) or (isinstance(error, OSError) and error.errno in FULL):
                study.finish(trial, "interrupted", why="stopped")
                raise
            study.finish(trial, "failed", why=_in_a_line(error))
        else:
            study.finish(trial, "complete", score)
        keras.backend.clear_session()  # the trial's network, which no error holds any more
        tell(study, trainer, console)


def _in_a_line(error: Exception) -> str:
    """What a trial failed of, in at most 200 characters.

    >>> _in_a_line(ValueError("Training diverged.")), _in_a_line(TypeError("no\\n number")), _in_a_line(MemoryError())
    ('Training diverged.', 'TypeError: no number', 'MemoryError')
    """
    message = " ".join(str(error).split())
    parts = [] if isinstance(error, ValueError) and message else [type(error).__name__]
    return ": ".join([*parts, *([message] if message else [])])[:200]


class Helper:
    """Another process that takes part in a search; `with` ends it when the block ends in an error."""

    def __init__(self, source: str, out: Path, options: Sequence[str], storage: str | None) -> None:
        # -P: a folder apps/ where the user works is another one.
        command = [sys.executable, "-P", "-m", "apps.cli", "search", source]
        command += ["--resume", "--out", os.fspath(out), "--quiet"]
        paths = [*filter(None, [os.environ.get("PYTHONPATH")]), os.fspath(Path(__file__).resolve().parent.parent)]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [*command, "--parent", str(os.getpid()), *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            # Of the command everybody sees the words, with passwords.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), STORAGE: storage or ""},
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


if __name__ == "__main__":
    from apps.cli import main

    main(["search", *sys.argv[1:]])
