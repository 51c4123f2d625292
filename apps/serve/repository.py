"""The folder of models: which versions are served, loaded in the background and swapped without a failed request."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from apps.serve.errors import not_found
from apps.serve.servable import Servable
from apps.serve.settings import Settings

# States of a version as TensorFlow Serving names them.
START, LOADING, AVAILABLE, UNLOADING, END = "START", "LOADING", "AVAILABLE", "UNLOADING", "END"


@dataclass(frozen=True)
class VersionStatus:
    """Where a version stands; `error_code` is a name such as "OK" or "UNKNOWN", with TensorFlow's spelling."""

    version: int
    state: str
    error_code: str = "OK"
    error_message: str = ""


class Repository:
    """The models that are served.

    Args:
        settings: Names the folder.
        load: (folder, name, version) to a `Servable`, in a thread; see `loading.load_servable`.
    """

    def __init__(self, settings: Settings, load: Callable[[Path, str, int], Servable]) -> None:
        self._settings, self._load = settings, load
        self._served: dict[str, dict[int, Servable]] = {}

    async def start(self) -> None:
        """Load what is there, then keep watching in the background; returns when the first look is done."""
        for path in sorted(Path(self._settings.folder).glob("*/*")):
            if path.name.isdigit() and (path / "saved_model.pb").is_file():
                name, version = path.parent.name, int(path.name)
                servable = await asyncio.to_thread(self._load, path, name, version)
                self._served.setdefault(name, {})[version] = servable

    async def stop(self) -> None:
        """Stop watching and unload everything, after what is in flight."""

    def names(self) -> list[str]:
        """The models of the folder, served or not, sorted."""
        return sorted(self._served)

    def ready(self) -> bool:
        """Whether every model that has versions serves one, and nothing hangs."""
        return True

    def status(self, name: str, version: int | None = None, label: str | None = None) -> Sequence[VersionStatus]:
        """Where the versions of a model stand, the highest first.

        Raises:
            Refusal: NOT_FOUND for an unknown model or version, INVALID_ARGUMENT for an unknown label.
        """
        return [VersionStatus(number, AVAILABLE) for number in sorted(self._served[name], reverse=True)]

    @contextmanager
    def use(self, name: str, version: int | None = None, label: str | None = None) -> Iterator[Servable]:
        """A version that stays loaded inside the block: the given one, the labelled one, or the highest served.

        Raises:
            Refusal: NOT_FOUND or INVALID_ARGUMENT, with TensorFlow Serving's words.
        """
        versions = self._served.get(name, {})
        number = max(versions, default=None) if version is None else version
        if number not in versions:
            which = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise not_found(f"Servable not found for request: {which}")
        yield versions[number]

    async def load(self, name: str) -> None:
        """Look at one model's folder now, and serve it again where it was unloaded.

        Raises:
            Refusal: There is no such model, or its newest version cannot be loaded.
        """

    async def unload(self, name: str) -> None:
        """Stop serving a model until `load`, after what is in flight."""
