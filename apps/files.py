"""Files that appear whole or not at all."""

import errno
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd

from pipelines.whole_file import whole_file


def write_text(path: os.PathLike[str] | str, text: str) -> None:
    """Write UTF-8 text."""
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: os.PathLike[str] | str, value: object) -> None:
    """Write plain values as indented JSON."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_table(path: os.PathLike[str] | str, table: pd.DataFrame) -> None:
    """Write a CSV file as competitions expect it: UTF-8, comma, one line end everywhere, no row numbers."""
    with whole_file(path) as unfinished:
        table.to_csv(unfinished, index=False, encoding="utf-8", lineterminator="\n")


def require_folder_of(path: Path) -> None:
    """Raise a `FileNotFoundError` unless the folder that a file is to be written to exists."""
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.absolute().parent} to write {path.name} to.")


def require_writable(path: Path) -> None:
    """Raise the system's `OSError` unless something could be written to `path`, which need not exist yet."""
    folder = path.absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is no folder", str(folder))
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(error.errno, f"cannot be written to ({error.strerror})", str(path)) from error


def new_folder(base: Path, is_free: Callable[[str], bool] = lambda name: True) -> Path:
    """Make the folder `base`, or `base`-2, `base`-3, ... where the name is taken, here or elsewhere, and return it."""
    number, path = 1, base
    while True:
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            if is_free(path.name):
                return path
            path.rmdir()
        number += 1
        path = base.with_name(f"{base.name}-{number}")
