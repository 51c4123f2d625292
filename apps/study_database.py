"""The database of `kerascnn search --storage`, by which several machines work on one search."""

import json
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from apps import files
from apps.study_store import file_lock

DATABASE_ERRORS = (SQLAlchemyError, StorageInternalError)
PACKAGES = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}  # by module
CONNECT_SECONDS = {"connect_timeout": 10}
CONNECT = {
    **dict.fromkeys(("psycopg", "psycopg2", "mysqldb", "pymysql"), CONNECT_SECONDS),
    "pysqlite": {"timeout": 60},  # while another process writes
}
# A lock's transaction does nothing itself, so the server ends it after a minute: no stopped machine keeps the lock.
LIMITS = {
    "postgresql": ("SET LOCAL idle_in_transaction_session_timeout = 60000",),
    "mysql": ("SET SESSION wait_timeout = 60", "SET SESSION innodb_lock_wait_timeout = 3600"),
}
LIMITS["mariadb"] = LIMITS["mysql"]
SEARCHES = sqlalchemy.Table(
    "kerascnn_searches",
    sqlalchemy.MetaData(),
    sqlalchemy.Column("number", sqlalchemy.Integer, primary_key=True),
    sqlalchemy.Column("name", sqlalchemy.String(255), nullable=False, unique=True),
    sqlalchemy.Column("record", sqlalchemy.Text, nullable=False),
)


class Database:
    """Searches by name, and what each was begun with: a table beside those of Optuna.

    Args:
        url: As SQLAlchemy has it: sqlite:///FILE, postgresql://USER:PASSWORD@HOST/NAME, mysql://...
        heartbeat: Seconds between two signs of life of a trial's process.
        grace: Seconds without one after which it is taken for dead.

    Attributes:
        shown: The URL without the password and whatever else might be secret.

    Raises:
        ValueError, FileNotFoundError: There is no such database.
    """

    def __init__(self, url: str, heartbeat: int = 30, grace: int = 90) -> None:
        self.heartbeat = heartbeat
        self._typed, self._url = url, _parse(url)
        self.shown = shown(self._url)
        self._file = Path(self._url.database or "") if self._url.get_backend_name() == "sqlite" else None
        if self._file is not None:
            files.require_folder_of(self._file)
        self._engine = self._make_engine()
        self._stale: list[int] = []
        try:
            self._engine.connect().close()
            with file_lock(self._lock_file) if self._file else nullcontext():
                self.storage = self._open(grace)
        except (*DATABASE_ERRORS, RuntimeError) as error:  # the latter by Optuna: another version's tables
            raise ValueError(f"`--storage {self.shown}` cannot be used: {describe(error)}") from error

    def hide(self, text: str) -> str:
        """A text in which the URL may be, without its password."""
        return text.replace(self._typed, self.shown)

    def begin(self, name: str, record: Mapping[str, Any]) -> bool:
        """Begin a search, unless there is one of this name: then the answer is no."""
        try:
            with self._engine.begin() as connection:
                connection.execute(sqlalchemy.insert(SEARCHES).values(name=name, record=json.dumps(record)))
        except IntegrityError:
            return False
        return True

    def record(self, name: str) -> dict[str, Any] | None:
        """What a search was begun with; None where there is none of this name."""
        with self._engine.connect() as connection:
            query = sqlalchemy.select(SEARCHES.c.record).where(SEARCHES.c.name == name)
            found = connection.execute(query).scalar_one_or_none()
        return None if found is None else json.loads(found)

    def named(self, name: str) -> list[str]:
        """NAME, NAME-2, ..., the newest first."""
        with self._engine.connect() as connection:
            query = sqlalchemy.select(SEARCHES.c.name).order_by(SEARCHES.c.number.desc())
            return [
                found
                for found in connection.execute(query).scalars()
                if re.fullmatch(rf"{re.escape(name)}(-\d+)?", found)
            ]

    def store(self, name: str) -> "DatabaseStore":
        """Where the trials of a search that was begun are kept."""
        return DatabaseStore(self, name)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Keep other processes from changing a search: the lock of its row, or of a file beside SQLite's.

        A server frees it when the connection ends, with the process or by `LIMITS`. A process that was stopped for
        longer than these finds that out at the end. Until then it may have changed what others did as well: a trial
        too many, or one that is repeated twice. Trials themselves are taken and ended by one process, as Optuna has it.
        """
        if self._file:
            with file_lock(self._lock_file):
                yield
            return
        with self._engine.begin() as connection:
            for command in LIMITS.get(self._engine.dialect.name, ()):
                connection.execute(sqlalchemy.text(command))
            query = sqlalchemy.select(SEARCHES.c.number).where(SEARCHES.c.name == name).with_for_update()
            connection.execute(query).scalar_one()
            yield

    def take_stale(self, study: optuna.Study) -> list[int]:
        """End the trials without a sign of life, and return their numbers."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            fail_stale_trials(study)
        found = list(self._stale)
        self._stale.clear()
        return found

    @property
    def _lock_file(self) -> Path:
        return Path(f"{self._file}.lock")  # that of SQLite's own file would be lost with any closing of it

    def _make_engine(self) -> sqlalchemy.Engine:
        try:
            return sqlalchemy.create_engine(self._url, **self._engine_options())
        except ImportError as error:
            package = PACKAGES.get(error.name or "", error.name)
            raise ValueError(f"`--storage {self.shown}` needs a driver: pip install {package}") from error

    def _engine_options(self) -> dict[str, Any]:
        driver = self._url.get_driver_name()
        return {"connect_args": CONNECT.get(driver, {}), "pool_pre_ping": self._file is None}

    def _open(self, grace: int) -> RDBStorage:
        for attempt in range(5):
            try:
                SEARCHES.metadata.create_all(self._engine)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ExperimentalWarning)
                    return RDBStorage(
                        self._url.render_as_string(hide_password=False),
                        engine_kwargs=self._engine_options(),
                        heartbeat_interval=self.heartbeat,
                        grace_period=grace,
                        heartbeat_stale_trial_callback=self._note_stale,
                    )
            except DATABASE_ERRORS:  # another process makes the same tables
                if attempt == 4:
                    raise
                time.sleep(0.5)
        raise AssertionError

    def _note_stale(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._stale.append(trial.number)


class DatabaseStore:
    """One search of a database (a `study_store.Store`); Optuna's heartbeats are the signs of life."""

    def __init__(self, database: Database, name: str) -> None:
        self._database, self._name = database, name
        self.storage: BaseStorage = database.storage
        self.options = ["--storage", database.shown]

    def study_name(self, stage: str) -> str:
        """With the search's name: the database may have several."""
        return f"{self._name}/{stage}"

    def locked(self) -> AbstractContextManager[None]:
        """Keep all other processes from changing anything."""
        return self._database.locked(self._name)

    def hold(self, study: optuna.Study, trial: optuna.Trial, folder: Path) -> Callable[[], object]:
        """Record a heartbeat now and, in a thread, from time to time; one that fails is made up for by the next."""
        storage = self._database.storage
        study_id = storage.get_study_id_from_name(study.study_name)
        trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
        storage.record_heartbeat(trial_id)
        trial.set_user_attr("held", True)
        stopped = Event()

        def beat() -> None:
            while not stopped.wait(self._database.heartbeat):
                with suppress(*DATABASE_ERRORS):
                    storage.record_heartbeat(trial_id)

        Thread(target=beat, daemon=True).start()
        return stopped.set

    def end_abandoned(self, study: optuna.Study, folder: Callable[[int], Path]) -> list[int]:
        """End the trials without heartbeats, also those whose process was killed before the first."""
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        never_held = [trial.number for trial in running if "held" not in trial.user_attrs]
        for number in never_held:
            study.tell(number, state=TrialState.FAIL)
        return never_held + self._database.take_stale(study)


def shown(url: sqlalchemy.URL) -> str:
    """A URL without its password, and without the values of its options, one of which might be another.

    >>> shown(sqlalchemy.make_url("postgresql://me:secret@host/searches?sslmode=require&sslpassword=secret"))
    'postgresql://me:***@host/searches?sslmode=***&sslpassword=***'
    """
    options = "&".join(f"{name}=***" for name in url.query)
    return url.set(query={}).render_as_string(hide_password=True) + (f"?{options}" if options else "")


def describe(error: BaseException) -> str:
    """What a database says, on one line, without the statement that it was asked."""
    while isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(getattr(error, "orig", None) or error).split())


def _parse(text: str) -> sqlalchemy.URL:
    try:
        url = sqlalchemy.make_url(text)
        url.get_dialect()
    except NoSuchModuleError as error:
        raise ValueError(
            "`--storage` must be a URL that begins with sqlite, postgresql, mysql or another kind of database that "
            f"SQLAlchemy knows. Received: {url.drivername}."
        ) from error
    except ArgumentError as error:
        raise ValueError(
            "`--storage` must be a URL such as sqlite:///search.db or postgresql://USER:PASSWORD@HOST/DATABASE. "
            "Received one that cannot be read."  # nor shown: it may have a password
        ) from error
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise ValueError("`--storage` needs a file, which other processes find: sqlite:///search.db.")
    return url
