"""Where a search's trials are kept: what every store offers, and the one of a folder, for processes of one machine."""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState


class Store(Protocol):
    """Optuna's storage, a lock that no dead process keeps, and signs of life of the trials' processes.

    Attributes:
        storage: Optuna's.
        options: With which `kerascnn search` finds it again, without passwords.
    """

    storage: BaseStorage
    options: list[str]

    def study_name(self, stage: str) -> str:
        """What Optuna calls the study of a stage."""

    def locked(self) -> AbstractContextManager[None]:
        """Keep all other processes from changing anything; must not be asked for twice at a time."""

    def hold(self, study: optuna.Study, trial: optuna.Trial, folder: Path) -> Callable[[], object]:
        """Show that the trial's process lives, until what is returned is called; under the lock."""

    def end_abandoned(self, study: optuna.Study, folder: Callable[[int], Path]) -> list[int]:
        """End the trials whose process is gone as failed, and return their numbers; under the lock."""


class JournalStore:
    """Optuna's journal in a folder, with locks of the operating system, which frees them when their process ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        journal = folder / "study.journal"
        lock: Any = _JournalLock(journal)  # has what Optuna's own locks have
        self.storage: BaseStorage = JournalStorage(JournalFileBackend(str(journal), lock_obj=lock))
        self.options: list[str] = []

    def study_name(self, stage: str) -> str:
        """The stage's own: there is one search in a folder."""
        return stage

    def locked(self) -> AbstractContextManager[None]:
        """Keep all other processes from changing anything."""
        return file_lock(self.folder / "lock")

    def hold(self, study: optuna.Study, trial: optuna.Trial, folder: Path) -> Callable[[], object]:
        """Lock a file in the trial's folder."""
        lock = (folder / "lock").open("wb")
        fcntl.flock(lock, fcntl.LOCK_EX)
        return lock.close

    def end_abandoned(self, study: optuna.Study, folder: Callable[[int], Path]) -> list[int]:
        """End the trials whose lock is free."""
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        abandoned = [trial.number for trial in running if not _is_held(folder(trial.number) / "lock")]
        for number in abandoned:
            study.tell(number, state=TrialState.FAIL)
        return abandoned


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a file, which is made; the system frees it when the process ends."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_held(lock: Path) -> bool:
    """Whether a living process holds a lock."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


class _JournalLock:
    """The lock of Optuna's journal, freed with its process; half of a line that a killed one left is cut off."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._file = self._journal.with_suffix(".lock").open("ab")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        with self._journal.open("rb+") as journal:
            journal.seek(max(0, self._journal.stat().st_size - 1))
            if journal.read(1) not in (b"", b"\n"):
                journal.seek(0)
                journal.truncate(journal.read().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        """Let others have it."""
        self._file.close()
