"""A file that appears whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from callbacks.processes import is_first_process


@contextmanager
def whole_file(path: os.PathLike[str] | str, before: os.PathLike[str] | str | None = None) -> Iterator[BinaryIO]:
    """Give a file to write to; it takes the name `path`, replacing what is there, once it is whole and on the disk.

    With `before`, what is there gets that name instead. Between both steps there is no file `path`.
    """
    path = Path(path)
    unfinished = path.with_name(f".unfinished-{os.getpid()}-{path.name}")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if before is not None and path.exists():
            os.replace(path, before)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def writable_path(path: os.PathLike[str] | str) -> Path:
    """The path, if a file can come there; of several processes that train together only the first one writes it.

    Raises:
        FileNotFoundError: Its folder does not exist.
        ValueError: It is a folder.
    """
    path = Path(path)
    if not is_first_process():
        return path
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: the folder {path.parent} does not exist. Create it first.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder. Give the path of a file.")
    return path
