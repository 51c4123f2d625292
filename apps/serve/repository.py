"""The folder of models: which versions are served, loaded in the background and swapped without a failed request."""

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from apps.serve.attempt import Failure, try_load
from apps.serve.background import in_background
from apps.serve.errors import Code, Refusal, invalid, not_found
from apps.serve.model import (
    AVAILABLE,
    END,
    LOADING,
    START,
    UNLOADING,
    Loaded,
    Model,
    Version,
    VersionStatus,
)
from apps.serve.model_folder import Form, ModelFolder, VersionFolder, check_folder, find_form, find_models
from apps.serve.runner import Runner
from apps.serve.servable import Servable
from apps.serve.settings import Settings
from apps.serve.signature import same_interface

__all__ = ["AVAILABLE", "END", "LOADING", "START", "UNLOADING", "Repository", "VersionStatus"]

LOG = logging.getLogger(__name__)
SLOW_LOOK = 10.0  # seconds after which a look at the folder is reported
LAST_LOAD = 1.0  # seconds that a load has to finish when the server stops


class Repository:
    """The models that are served; used on the event loop's thread.

    Args:
        settings: Names the folder.
        load: (folder, name, version) to a `Servable`, in a thread; see `loading.load_servable`.

    Raises:
        FileNotFoundError: There is no such folder.
    """

    def __init__(self, settings: Settings, load: Callable[[Path, str, int], Servable]) -> None:
        check_folder(settings.folder)
        self._settings, self._load = settings, load
        self._models: dict[str, Model] = {}
        self._form: Form | None = None
        self._begun = self._done = 0  # looks at the folder
        self._look_asked, self._changed = asyncio.Event(), asyncio.Event()
        self._told: dict[str, list[str]] = {}
        self._explicit: set[str] = set()  # models whose versions the next look takes as they are
        self._loading: asyncio.Future[Servable | Failure] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._draining: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def start(self) -> None:
        """Load what is there, then keep watching in the background; returns when the first look is done.

        Cancelled, it leaves the rest to the background, and `stop` ends that.
        """
        self._tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._load_all())]
        await self._look_again()
        if any(model.being_written for model in self._models.values()):  # perhaps no more: the second look tells
            await self._until(lambda: self._done > 1)
        await self._until(lambda: not self._busy())

    async def stop(self) -> None:
        """Stop watching and unload everything, after what is in flight; a load that goes on is left behind."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._loading is not None:
            await asyncio.wait([self._loading], timeout=LAST_LOAD)
        for model in self._models.values():
            model.unloaded = True
        self._advance()
        if self._draining:
            _, left = await asyncio.wait(self._draining, timeout=self._settings.drain_seconds)
            for task in left:
                task.cancel()

    async def settled(self) -> None:
        """Wait until all that is in the folder now is served or refused, and nothing is being given up."""
        await self._look_again()
        await self._until(lambda: all(model.idle() for model in self._models.values()))

    def names(self) -> list[str]:
        """The models of the folder, served or not, sorted."""
        return sorted(name for name, model in self._models.items() if model.present)

    def ready(self) -> bool:
        """Whether every model that has versions serves one, and there is such a model."""
        expected = [model for model in self._models.values() if model.present and not model.unloaded]
        return not self._stopped and bool(expected) and all(model.serving for model in expected)

    def status(self, name: str, version: int | None = None, label: str | None = None) -> Sequence[VersionStatus]:
        """Where the versions of a model stand, the highest first.

        Raises:
            Refusal: NOT_FOUND for an unknown model or version, INVALID_ARGUMENT for an unknown label.
        """
        model = self._models.get(name)
        listed = model.status() if model else []
        if model is None or not listed:
            raise not_found(f"Could not find any versions of model {name}")
        number = _labelled(model, label) if label is not None else version
        found = [one for one in listed if number in (None, one.version)]
        if not found:
            raise not_found(f"Could not find version {number} of model {name}")
        return found

    @contextmanager
    def use(self, name: str, version: int | None = None, label: str | None = None) -> Iterator[Servable]:
        """A version that stays loaded inside the block: the given one, the labelled one, or the one that answers now.

        The block may wait; the version is closed after it at the earliest.

        Raises:
            Refusal: NOT_FOUND or INVALID_ARGUMENT, with TensorFlow Serving's words; UNAVAILABLE after `stop`.
        """
        if self._stopped:
            raise Refusal(Code.UNAVAILABLE, "The server is shutting down.")
        model = self._models.get(name)
        loaded = None
        if model is not None:
            number = model.current if version is None else version
            if label is not None:
                number = _labelled(model, label)
            loaded = model.versions[number].loaded if number in model.versions else None
        if loaded is None:
            which = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise not_found(f"Servable not found for request: {which}")
        with loaded.hold() as servable:
            yield servable

    async def load(self, name: str) -> None:
        """Look at one model's folder now, and serve it again where it was unloaded.

        Its versions are taken as completely written, and what could not be loaded is tried again.

        Raises:
            Refusal: There is no such model, or its newest version cannot be loaded.
        """
        self._check_running()
        if name in self._models:
            self._models[name].resume()
        self._explicit.add(name)
        await self._look_again()
        model = self._models.get(name)
        if model is None or not model.versions:
            raise not_found(f"Servable not found for request: Latest({name})")
        await self._until(model.idle)
        newest = max(model.policy.choose([one.number for one in model.versions.values() if one.folder]), default=None)
        failure = model.versions[newest].failure if newest is not None else None
        if failure is not None:
            raise Refusal(Code.FAILED_PRECONDITION, failure.message)
        if not model.serving:
            raise not_found(f"Servable not found for request: Latest({name})")

    async def unload(self, name: str) -> None:
        """Stop serving a model until `load`, after what is in flight.

        Raises:
            Refusal: There is no such model.
        """
        self._check_running()
        model = self._models.get(name)
        if model is None or not model.versions:
            raise not_found(f"Servable not found for request: Latest({name})")
        model.unloaded = True
        self._advance()
        await self._until(lambda: all(version.state != UNLOADING for version in model.versions.values()))

    def _check_running(self) -> None:
        if self._stopped or not self._tasks:
            raise Refusal(Code.UNAVAILABLE, "The folder of models is not watched now.")

    async def _look_again(self) -> None:
        """Wait for a look at the folder that begins after this call."""
        next_one = self._begun + 1
        self._look_asked.set()
        await self._until(lambda: self._done >= next_one)

    async def _watch(self) -> None:
        """Look at the folder again and again; a look that hangs delays the next one and nothing else."""
        while True:
            self._look_asked.clear()
            await self._look()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.poll_seconds or None):
                    await self._look_asked.wait()

    async def _look(self) -> None:
        self._begun += 1
        explicit, self._explicit = self._explicit, set()
        folder = self._settings.folder
        looking = in_background(partial(_look_at, folder, self._form), "look")
        await asyncio.wait([looking], timeout=SLOW_LOOK)
        if not looking.done():
            LOG.warning("The folder %s does not answer; what is loaded is served.", folder)
        try:
            self._form, found = await looking
        except OSError as error:
            self._say("", [f"The folder {folder} cannot be read, and what is loaded is served: {error.strerror}."])
        else:
            self._say("", [])
            self._take_in(found, explicit)
        self._done += 1
        self._advance()

    def _take_in(self, found: Mapping[str, ModelFolder], explicit: Container[str]) -> None:
        """Compare what is on disk with what was there."""
        pause = self._settings.poll_seconds
        first = self._done == 0
        for name in found.keys() - self._models.keys():
            self._models[name] = Model(name)
        for name, model in self._models.items():
            trust_all = name in explicit or not pause

            def trusted(folder: VersionFolder, trust_all: bool = trust_all) -> bool:
                return trust_all or (first and folder.older_than(pause))

            # A little less than the pause between two looks, which is not exact.
            model.look(found.get(name, ModelFolder(name, {}, policy=None)), time.monotonic(), 0.9 * pause, trusted)
        self._models = {
            name: model for name, model in self._models.items() if name in found or model.present or model.unloaded
        }
        self._told = {name: problems for name, problems in self._told.items() if name in self._models}

    def _advance(self) -> None:
        """Let the right versions answer, drain those that do not any more, and wake everybody who waits."""
        for name, model in self._models.items():
            for version, loaded in model.give_up(time.monotonic()):
                task = asyncio.create_task(self._drain(model, version, loaded))
                self._draining.add(task)
                task.add_done_callback(self._drained)
            self._say(name, model.problems())
        self._changed.set()
        self._changed = asyncio.Event()

    def _say(self, name: str, problems: list[str]) -> None:
        """Log what is new among the problems of a model ("": of the whole folder)."""
        for problem in problems:
            if problem not in self._told.get(name, ()):
                LOG.warning("%s%s", f"{name}: " if name else "", problem)
        self._told[name] = problems

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition; the end of the repository ends every wait."""
        while not condition() and not self._stopped:
            await self._changed.wait()

    # Loading and unloading

    def _busy(self) -> bool:
        """Whether something is loaded or could be."""
        now = time.monotonic()
        return self._loading is not None or any(model.next(now) is not None for model in self._models.values())

    async def _load_all(self) -> None:
        """Load what is due, one version at a time: models that serve nothing first."""
        while True:
            now = time.monotonic()
            for model in sorted(self._models.values(), key=lambda model: (model.serving, model.name)):
                version = model.next(now)
                if version is not None:
                    await self._load_one(model, version)
                    break
            else:
                await self._changed.wait()

    async def _load_one(self, model: Model, version: Version) -> None:
        folder = version.folder
        if folder is None:
            return
        version.state = LOADING
        begun = time.monotonic()
        self._loading = in_background(
            partial(try_load, self._load, folder.path, model.name, version.number), f"load {model.name}"
        )
        self._advance()
        result = await asyncio.shield(self._loading)
        now = time.monotonic()
        if not isinstance(result, Failure):
            refused = self._compare(model, version, result)
            if refused is None:
                model.take(version, Loaded(result, folder))
                LOG.info("%s version %d is served after %.1f s.", model.name, version.number, now - begun)
            else:
                await self._close(result, model.name, version.number)
                result = refused
        if isinstance(result, Failure):
            version.fail(result, folder, now)
            LOG.warning("%s version %d is not served: %s", model.name, version.number, result.message)
        self._loading = None
        self._advance()

    def _compare(self, model: Model, version: Version, servable: Servable) -> Failure | None:
        """Why a version cannot take the place of the one that answers now."""
        old = model.replaced_by(version.number, time.monotonic())
        try:
            difference = same_interface(old.servable, servable) if old is not None else None
        except Exception as error:  # of metadata that mean nothing
            difference = f"{type(error).__name__}: {error}"
        if difference is None:
            return None
        message = f"Version {version.number} cannot take the place of version {model.current}: {difference}"
        return Failure("FAILED_PRECONDITION", message)

    async def _drain(self, model: Model, version: Version, loaded: Loaded) -> None:
        """Wait until nobody uses a version any more, then give its memory back."""
        try:
            await loaded.unused()
            await self._close(loaded.servable, model.name, version.number)
        finally:
            model.end(version)

    def _drained(self, task: "asyncio.Task[None]") -> None:
        self._draining.discard(task)
        self._advance()

    async def _close(self, servable: Servable, name: str, version: int) -> None:
        try:
            async with asyncio.timeout(self._settings.hang_seconds):
                await servable.batcher.close()
            await in_background(partial(_release, servable.runner, not self._stopped), f"close {name}")
        except TimeoutError:
            LOG.warning("%s version %d hangs and is left behind.", name, version)
        except Exception:
            LOG.exception("%s version %d could not be closed.", name, version)


def _look_at(folder: Path, form: Form | None) -> tuple[Form | None, dict[str, ModelFolder]]:
    """What the folder holds, found out once, and its models."""
    form = form or find_form(folder)
    return form, find_models(folder, form)


def _labelled(model: Model, label: str) -> int:
    """The version that a label means."""
    if label not in model.labels:
        raise invalid(f"Unrecognized servable version label: {label}")
    return model.labels[label]


def _release(runner: Runner, collect: bool) -> None:
    """Give memory back; the collector has to help, since TensorFlow's objects refer to each other."""
    runner.close()
    if collect:
        gc.collect()
