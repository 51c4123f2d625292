"""A search's trials in a database: several processes without a shared folder, the death of any of them."""

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from apps.ranges import Range
from apps.study import COARSE, FINE, KILLED, KILLED_TWICE, Pruned, Study
from apps.study_database import Database

RATE = {"lr": Range(1e-3, 1e-1, log=True, whole=False)}


def open_study(url: str, folder: Path, trials: int, name: str = "colours", grace: int = 2) -> Study:
    """A process's own view, with a folder of its own; a second without a heartbeat is noticed soon."""
    folder.mkdir(exist_ok=True)
    database = Database(url, heartbeat=1, grace=grace)
    database.begin(name, {})
    return Study(folder, RATE, {COARSE: trials, FINE: 0}, store=database.store(name))


def work(url: str, folder: Path, trials: int, kill_at: int | None) -> None:
    """A process that takes trials; it dies within the trial of this number."""
    study = open_study(url, folder, trials)
    while trial := study.take():
        trial.report(trial.values["lr"])
        if kill_at == trial.number:
            os.kill(os.getpid(), 9)
        study.finish(trial, "complete", trial.values["lr"])


def count_up(url: str, counter: Path, times: int, kill: bool) -> None:
    """Read, wait and write under the lock; in the end one that is to die does so with the lock."""
    database = Database(url)
    for _ in range(times):
        with database.locked("colours"):
            found = int(counter.read_text())
            time.sleep(0.01)
            counter.write_text(str(found + 1))
    if kill:
        with database.locked("colours"):
            os.kill(os.getpid(), 9)


@pytest.fixture(scope="module")
def start() -> Callable[..., multiprocessing.Process]:
    """Starts a function in a process of its own; the study is imported once for all."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["apps.study_database", "apps.study"])

    def start(function: Callable[..., None], *arguments: object) -> multiprocessing.Process:
        process = context.Process(target=function, args=arguments)
        process.start()
        return process

    return start


@pytest.fixture
def url(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'search.db'}"


def test_trial_of_a_killed_process_is_taken_up_by_another_once(url, tmp_path, start) -> None:
    for name, number in (("a", 1), ("b", 2)):  # the repetition of trial 1 has number 2
        process = start(work, url, tmp_path / name, 2, number)
        process.join(60)
        assert process.exitcode == -9
    study = open_study(url, tmp_path / "c", 2)
    assert study.take() is None
    found = study.finished(COARSE)
    expected = [("complete", ""), ("interrupted", KILLED), ("failed", KILLED_TWICE)]
    assert [(one.state, one.why) for one in found] == expected
    assert found[1].values == found[2].values
    assert [one.epochs for one in found] == [1, 1, 1]
    assert (tmp_path / "c/trials.csv").read_text().count("\n") == 4  # of all, though it made none


def test_processes_that_begin_at_once_make_the_asked_number_of_trials(url, tmp_path, start) -> None:
    processes = [start(work, url, tmp_path / name, 9, None) for name in "abc"]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    found = open_study(url, tmp_path / "d", 9).finished(COARSE)
    assert [one.state for one in found] == ["complete"] * 9
    assert len({one.values["lr"] for one in found}) == 9


def test_one_process_at_a_time_has_the_lock_and_a_killed_one_none(url, tmp_path, start) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    Database(url).begin("colours", {})
    processes = [start(count_up, url, counter, 20, kill) for kill in (True, True, False)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [-9, -9, 0]
    assert counter.read_text() == "60"


def test_heartbeats_keep_a_long_trial(url, tmp_path) -> None:
    study, other = (open_study(url, tmp_path / name, 2) for name in "ab")
    trial = study.take()
    patience = time.monotonic() + 4  # two times what a process without heartbeats has
    while time.monotonic() < patience:
        other.finish(other.take(), "interrupted", why="stopped")  # each looks for abandoned trials
        time.sleep(0.2)
    study.finish(trial, "complete", 0.5)
    assert study.best().number == 0


def test_process_that_was_taken_for_dead_ends_its_trial_and_writes_nothing(url, tmp_path) -> None:
    study, other = (open_study(url, tmp_path / name, 1) for name in "ab")
    trial = study.take()
    trial.report(0.1)
    trial.release()  # no heartbeats, as of a machine that sleeps
    again = other.take()
    assert again.values == trial.values
    with pytest.raises(Pruned):
        trial.report(0.2)
    study.finish(trial, "pruned")
    other.finish(again, "complete", 0.5)
    assert [(one.state, one.why) for one in study.finished(COARSE)] == [("interrupted", KILLED), ("complete", "")]
    assert list((tmp_path / "a/trials").iterdir()) == []


def test_process_that_was_killed_before_the_first_heartbeat_blocks_nobody(url, tmp_path) -> None:
    study = open_study(url, tmp_path / "a", 1)
    optuna.load_study(storage=url, study_name="colours/coarse").ask()
    trial = study.take()
    study.finish(trial, "complete", 0.5)
    assert study.take() is None
    assert [one.state for one in study.finished(COARSE)] == ["interrupted", "complete"]


def test_searches_of_one_database_are_apart(url, tmp_path) -> None:
    for name, score in (("colours", 0.1), ("colours-2", 0.2)):
        study = open_study(url, tmp_path / name, 1, name)
        study.finish(study.take(), "complete", score)
    assert open_study(url, tmp_path / "colours", 1).best().score == 0.1
    database = Database(url)
    assert not database.begin("colours", {"other": 1})
    assert database.record("colours") == {}
    assert database.record("shapes") is None
    database.begin("colours-of-cars", {})
    assert database.named("colours") == ["colours-2", "colours"]
