"""One model: which of its versions are to be served, which are, and which one answers."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from apps.serve.attempt import Failure
from apps.serve.model_folder import ModelFolder, Policy, VersionFolder
from apps.serve.servable import Servable

# States of a version as TensorFlow Serving names them.
START, LOADING, AVAILABLE, UNLOADING, END = "START", "LOADING", "AVAILABLE", "UNLOADING", "END"

RETRIES = 5  # of a load that failed for a reason that may pass, as in TensorFlow Serving
RETRY_SECONDS = 60.0
LISTED = 10  # versions that were served once and are not any more


@dataclass(frozen=True)
class VersionStatus:
    """Where a version stands; `error_code` is a name such as "OK" or "UNKNOWN", with TensorFlow's spelling."""

    version: int
    state: str
    error_code: str = "OK"
    error_message: str = ""


class Loaded:
    """A loaded version and the requests that use it."""

    def __init__(self, servable: Servable, folder: VersionFolder) -> None:
        self.servable, self.folder = servable, folder
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @contextmanager
    def hold(self) -> Iterator[Servable]:
        """The version, which is not closed before the block ends."""
        self._users += 1
        self._unused.clear()
        try:
            yield self.servable
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def unused(self) -> None:
        """Wait until nobody holds it."""
        await self._unused.wait()


@dataclass
class Version:
    """One version, on disk, loaded, or both; changed by `Model` alone."""

    number: int
    folder: VersionFolder | None = None  # as it was seen last; None: not there
    since: float = 0.0  # when it was seen like this first
    stable: bool = False  # nothing has been written for a while
    state: str = ""  # "": was never to be served
    failure: Failure | None = None
    failed: VersionFolder | None = None  # what it looked like when it could not be loaded
    tries: int = 0
    retry_at: float = 0.0
    ended: int = 0  # when it was served last, counted
    loaded: Loaded | None = None

    def hopeless(self, now: float) -> bool:
        """Whether it failed with these very files, and another try is not due."""
        return self.failed is not None and self.failed == self.folder and now < self.retry_at

    def fail(self, failure: Failure, folder: VersionFolder, now: float) -> None:
        """Take down why it could not be loaded, and when to try again."""
        self.tries += 1
        again = failure.passing and self.tries <= RETRIES
        self.state, self.failure, self.failed = END, failure, folder
        self.retry_at = now + RETRY_SECONDS if again else float("inf")


class Model:
    """The versions of one model.

    A version is only given up when all that are to be served are loaded, so that there is always one that answers.

    Args:
        name: Of the model.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.versions: dict[int, Version] = {}
        self.policy = Policy()
        self.labels: dict[str, int] = {}
        self.current: int | None = None  # answers requests that name no version
        self.unloaded = False  # on purpose
        self._folder = ModelFolder(name, {})
        self._endings = 0

    def look(
        self, folder: ModelFolder, now: float, pause: float, trusted: Callable[[VersionFolder], bool] = lambda _: False
    ) -> None:
        """Take in what is on disk now.

        Args:
            folder: As it is.
            now: Seconds of a clock that only runs forward.
            pause: Seconds for which a version must look the same to be taken as completely written.
            trusted: Whether a version needs no second look for that.
        """
        self._folder = folder
        if folder.policy is not None:
            self.policy = folder.policy
        for number in folder.versions:
            self.versions.setdefault(number, Version(number))
        for number, version in self.versions.items():
            found = folder.versions.get(number)
            if found != version.folder:
                version.folder, version.since = found, now
            version.stable = found is not None and (now - version.since >= pause or trusted(found))
            if found is not None and version.failed not in (None, found):
                version.failure, version.failed, version.tries = None, None, 0
            busy = version.loaded is not None or version.state in (LOADING, UNLOADING)
            if found is not None and version.stable and not busy and not found.whole and version.failed is None:
                missing = f"There is no saved_model.pb in version {number}: it is empty, or not written to its end."
                version.fail(Failure("NOT_FOUND", found.problem or missing), found, now)
        self._list(now)

    def wanted(self, now: float, hoped: bool = False) -> set[int]:
        """The versions that are to be served: of those that can be, the ones that the policy chooses.

        Args:
            now: Seconds.
            hoped: Also count those that may still be being written.
        """
        if self.unloaded:
            return set()
        return self.policy.choose(
            [
                number
                for number, version in self.versions.items()
                if version.folder is not None
                and (version.loaded is not None or ((version.stable or hoped) and not version.hopeless(now)))
            ]
        )

    def next(self, now: float) -> Version | None:
        """The version to load next: the highest first, so that an older one never takes its place for a while."""
        missing = [number for number in self.wanted(now) if self.versions[number].loaded is None]
        waiting = [number for number in missing if self.versions[number].state not in (LOADING, UNLOADING)]
        return self.versions[max(waiting)] if waiting else None

    def replaced_by(self, number: int, now: float) -> Loaded | None:
        """What answers now and would not any more once this version is loaded."""
        served = {other for other in self.wanted(now) if self.versions[other].loaded is not None}
        if self.current is None or number != max(served | {number}):
            return None
        return self.versions[self.current].loaded

    def take(self, version: Version, loaded: Loaded) -> None:
        """Serve a version that was loaded."""
        version.loaded, version.state = loaded, AVAILABLE
        version.failure, version.failed, version.tries = None, None, 0

    def give_up(self, now: float) -> list[tuple[Version, Loaded]]:
        """Let the right version answer, and take those that are not to be served any more out; they need draining."""
        wanted = self.wanted(now)
        served = {number for number, version in self.versions.items() if version.loaded is not None}
        surplus: set[int] = set()
        if self.unloaded:
            surplus, self.current = served, None
        elif wanted & served:
            self.current = max(wanted & served)
            if wanted <= served:
                surplus = served - wanted
        elif self.current is None:
            self.current = max(served, default=None)  # its folder went while it was loaded
        kept = {**self.labels, **{label: at for label, at in self.policy.labels.items() if at in served}}
        self.labels = {
            label: at for label, at in kept.items() if label in self.policy.labels and at in served - surplus
        }
        leaving = []
        for number in sorted(surplus):
            version = self.versions[number]
            if version.loaded is not None:
                leaving.append((version, version.loaded))
                version.loaded, version.state = None, UNLOADING
        self._list(now)
        return leaving

    def end(self, version: Version) -> None:
        """Take down that a version is not served any more."""
        self._endings += 1
        version.state, version.ended = END, self._endings

    def resume(self) -> None:
        """Serve it again, and try anew what failed."""
        self.unloaded = False
        for version in self.versions.values():
            version.failure, version.failed, version.tries = None, None, 0

    @property
    def present(self) -> bool:
        """Whether it has a version on disk or in memory."""
        return any(
            version.folder is not None or version.loaded is not None or version.state in (LOADING, UNLOADING)
            for version in self.versions.values()
        )

    @property
    def serving(self) -> bool:
        """Whether a version answers."""
        return self.current is not None

    @property
    def being_written(self) -> bool:
        """Whether a version that is to be served may not be complete yet."""
        return any(version.state == START and not version.stable for version in self.versions.values())

    def idle(self) -> bool:
        """Whether nothing is being written, loaded or given up."""
        return not any(version.state in (START, LOADING, UNLOADING) for version in self.versions.values())

    def problems(self) -> list[str]:
        """What the user should know about the folder, in sentences."""
        found = [self._folder.problem] if self._folder.problem else []
        if self._folder.duplicates:
            names = ", ".join(self._folder.duplicates)
            found.append(f"Not used, since another folder means the same version: {names}.")
        for number in sorted(self.policy.only or ()):
            if number not in self._folder.versions:
                found.append(f"serving.json asks for version {number}, which is not there.")
        for label, number in self.policy.labels.items():
            if self.idle() and not self.unloaded and self.labels.get(label) != number:
                found.append(f"Label {label!r} names version {number}, which is not served.")
        for number, version in self.versions.items():
            if version.loaded is not None and _rewritten(version.loaded.folder, version.folder):
                found.append(
                    f"The files of version {number} changed after it was loaded, and it is served as it was: "
                    "give a changed model a new number, or unload and load it."
                )
        return found

    def status(self) -> list[VersionStatus]:
        """Where the versions stand that are, were or should be served, the highest first."""
        listed = []
        for number, version in sorted(self.versions.items(), reverse=True):
            if version.state:
                code, message = "OK", " ".join(self.problems()) if number == self.current else ""
                if version.failure is not None:
                    code, message = version.failure.code, version.failure.message
                listed.append(VersionStatus(number, version.state, code, message))
        if not listed:  # serving.json chooses none of them
            there = sorted((number for number, version in self.versions.items() if version.folder), reverse=True)
            return [VersionStatus(number, END, "OK", " ".join(self.problems())) for number in there]
        return listed

    def _list(self, now: float) -> None:
        """Name the versions that wait, and forget those that are long gone."""
        hoped = self.wanted(now, hoped=True)
        for number, version in self.versions.items():
            if number in hoped and version.loaded is None and version.state in ("", END):
                version.state = START
            elif version.state == START and number not in hoped:
                version.state = END if version.ended or version.failure else ""
        over = [
            version
            for version in self.versions.values()
            if version.state == END and (version.folder is None or version.failure is None)
        ]
        for version in sorted(over, key=lambda version: version.ended)[: max(0, len(over) - LISTED)]:
            version.state = ""
        self.versions = {
            number: version for number, version in self.versions.items() if version.state or version.folder is not None
        }


def _rewritten(before: VersionFolder, after: VersionFolder | None) -> bool:
    """Whether the content of files is another one, as far as sizes and times tell."""
    if after is None or after.problem:
        return False
    return [file[:3] for file in before.files if file.size] != [file[:3] for file in after.files if file.size]
