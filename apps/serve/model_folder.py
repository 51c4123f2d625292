"""What is on disk: the models of a folder, their versions, and the file that says which of them to serve."""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

MODEL_FILE = "saved_model.pb"
POLICY_FILE = "serving.json"
HIGHEST = (1 << 63) - 1  # a version is an int64 on the wire


class Form(Enum):
    """What the folder that is served holds."""

    MODELS = "NAME/VERSION/"
    MODEL = "VERSION/"
    SAVED_MODEL = "saved_model.pb"


class File(NamedTuple):
    """What tells that a file is still the same; times in nanoseconds."""

    path: str
    size: int
    modified: int
    changed: int


@dataclass(frozen=True)
class VersionFolder:
    """One version on disk.

    Args:
        number: Its version.
        path: Its folder.
        files: Everything in it, sorted; equal as long as nothing was written.
        problem: Why it could not be looked at; "" where it could.
    """

    number: int
    path: Path
    files: tuple[File, ...] = ()
    problem: str = ""

    @property
    def whole(self) -> bool:
        """Whether it holds a SavedModel, perhaps not a complete one."""
        return any(file.path == MODEL_FILE for file in self.files)

    def older_than(self, seconds: float) -> bool:
        """Whether nothing in it was written or moved for so long; not so for a file from the future."""
        return all(file.changed < (time.time() - seconds) * 1e9 for file in self.files)


@dataclass(frozen=True)
class Policy:
    """Which versions of a model are served.

    Args:
        latest: So many of the highest; None: all of them.
        only: These, where they exist; None: not restricted to some.
        labels: Names of versions, for requests.
    """

    latest: int | None = 1
    only: frozenset[int] | None = None
    labels: Mapping[str, int] = field(default_factory=dict)

    def choose(self, numbers: Sequence[int]) -> set[int]:
        """Those that are to be served.

        >>> sorted(Policy(latest=2).choose([3, 1, 7])), sorted(Policy(only=frozenset({1, 9})).choose([3, 1, 7]))
        ([3, 7], [1])
        """
        if self.only is not None:
            return set(numbers) & self.only
        return set(sorted(numbers, reverse=True)[: self.latest])


@dataclass(frozen=True)
class ModelFolder:
    """One model on disk.

    Args:
        name: Of the model.
        versions: By number.
        duplicates: Folders that are left out because another one means the same number, such as 01 beside 1.
        policy: What its serving.json says, the default without one, None where that file is wrong.
        problem: What is wrong with the folder or with serving.json; "" where nothing is.
    """

    name: str
    versions: Mapping[int, VersionFolder]
    duplicates: tuple[str, ...] = ()
    policy: Policy | None = Policy()
    problem: str = ""


def check_folder(folder: Path) -> None:
    """Make sure that there is something to watch, perhaps without a model yet.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise FileNotFoundError(
            f"{folder} {what}. Give a folder with NAME/VERSION/saved_model.pb, one model's folder with "
            f"VERSION/saved_model.pb, or one SavedModel; `kerascnn export` writes the first."
        )


def find_form(folder: Path) -> Form | None:
    """What a folder holds, None where it does not show yet.

    Raises:
        OSError: It cannot be read.
    """
    folders = _folders(folder)
    if (folder / MODEL_FILE).is_file():
        return Form.SAVED_MODEL
    if (folder / POLICY_FILE).is_file() or any(map(_is_saved_model, _versions(folders))):
        return Form.MODEL
    if any(map(_is_saved_model, _versions(path for model in folders for path in _folders(model, strict=False)))):
        return Form.MODELS
    return None


def find_models(folder: Path, form: Form | None) -> dict[str, ModelFolder]:
    """The models of a folder by name, each with a version at least.

    Args:
        folder: As the user gave it.
        form: What it holds; None: not known yet.

    Raises:
        OSError: It cannot be read: removed, not mounted, not permitted.
    """
    own = Path(os.path.abspath(folder))
    if form is Form.SAVED_MODEL:
        number = _number(own)
        name = own.name if number is None else own.parent.name
        version = _version(1 if number is None else number, folder)
        return {name or "model": ModelFolder(name or "model", {version.number: version})}
    folders = _folders(folder)
    if form is Form.MODEL or (form is None and _versions(folders)):
        models = [_model(own.name or "model", folder)]
    else:
        models = [_model(path.name, path) for path in folders if path.name.isprintable() and path.name[0] != "."]
    return {model.name: model for model in models if model.versions or model.problem}


def _model(name: str, folder: Path) -> ModelFolder:
    """A model's versions and policy; what cannot be read of it is its problem alone."""
    versions: dict[int, VersionFolder] = {}
    duplicates = []
    try:
        folders = _folders(folder)
    except OSError as error:
        return ModelFolder(name, {}, policy=None, problem=f"The folder cannot be read: {error.strerror}.")
    for path in sorted(_versions(folders), key=lambda path: len(path.name)):  # the fewest leading zeros win
        number = int(path.name)
        if number in versions:
            duplicates.append(path.name)
        else:
            versions[number] = _version(number, path)
    policy: Policy | None = Policy()
    problem = ""
    if not versions and _is_saved_model(folder):
        problem = f"{MODEL_FILE} lies beside no version: move it into a folder {name}/1."
    try:
        policy = read_policy((folder / POLICY_FILE).read_bytes())
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        policy, problem = None, f"{POLICY_FILE} is not used: {reason}"
    return ModelFolder(name, versions, tuple(duplicates), policy, problem)


def _version(number: int, folder: Path) -> VersionFolder:
    try:
        return VersionFolder(number, folder, tuple(sorted(_files(folder))))
    except OSError as error:
        return VersionFolder(number, folder, problem=f"Version {number} cannot be read: {error.strerror}.")


def _files(folder: Path, inside: str = "", depth: int = 8) -> Iterator[File]:
    """Every file and folder below, links followed; links that lead in circles end at the depth."""
    with os.scandir(folder) as entries:
        for entry in entries:
            path = inside + entry.name
            about = entry.stat()
            yield File(path, 0 if entry.is_dir() else about.st_size, about.st_mtime_ns, about.st_ctime_ns)
            if entry.is_dir() and depth:
                yield from _files(folder / entry.name, f"{path}/", depth - 1)


def _folders(folder: Path, strict: bool = True) -> list[Path]:
    """The folders in a folder, links followed; none where it cannot be read and that does not matter."""
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir())
    except OSError:
        if strict:
            raise
        return []


def _versions(folders: Iterable[Path]) -> list[Path]:
    """Those whose name is a number."""
    return [path for path in folders if _number(path) is not None]


def _number(path: Path) -> int | None:
    """The version that a folder's name means; None for every other name, such as `.unfinished-3`."""
    name = path.name
    numeric = name.isascii() and name.isdigit() and len(name) <= 64 and int(name) <= HIGHEST
    return int(name) if numeric else None


def _is_saved_model(path: Path) -> bool:
    return (path / MODEL_FILE).is_file()


def read_policy(text: bytes) -> Policy:
    """What a serving.json says.

    Raises:
        ValueError: It is no JSON or means nothing; the message says what was expected.

    >>> read_policy(b'{"versions": [3, 5], "labels": {"stable": 3}}').labels
    {'stable': 3}
    >>> read_policy(b'{"versions": {"latest": 2}}').latest
    2
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from None
    if not isinstance(content, dict) or not set(content) <= {"versions", "labels"}:
        raise ValueError('expected {"versions": ..., "labels": ...} and no other keys.')
    labels = content.get("labels", {})
    if not isinstance(labels, dict) or not all(map(_is_version, labels.values())):
        raise ValueError('expected "labels": {"NAME": VERSION}, with whole numbers from 0.')
    latest, only = _read_versions(content.get("versions", "latest"))
    return Policy(latest, only, labels)


def _read_versions(versions: Any) -> tuple[int | None, frozenset[int] | None]:
    if versions == "latest":
        return 1, None
    if versions == "all":
        return None, None
    if isinstance(versions, list) and versions and all(map(_is_version, versions)):
        return None, frozenset(versions)
    if isinstance(versions, dict) and list(versions) == ["latest"]:
        count = versions["latest"]
        if _is_version(count) and count >= 1:
            return count, None
    raise ValueError('expected "versions": "latest", {"latest": 2}, "all" or numbers such as [3, 5].')


def _is_version(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= HIGHEST
