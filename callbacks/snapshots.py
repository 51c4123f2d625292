"""Arrays and a few plain values in one .npz file that appears whole or not at all.

HDF5, Keras' own format for weights, is not used here: its library ends the process when the disk is full.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from callbacks.processes import is_first_process
from callbacks.whole_file import whole_file

ARRAY = "__array__"  # {ARRAY: name} stands in the JSON for an array, which is an entry of its own
BITS = {1: "uint8", 2: "uint16"}


def copy_weights(model: keras.Model) -> list[np.ndarray]:
    """`model.get_weights()`, sharing no memory with the model (on JAX, Keras' arrays may)."""
    return [np.array(array) for array in model.get_weights()]


def write_snapshot(
    path: Path, arrays: Sequence[np.ndarray], values: Mapping[str, Any] | None = None, before: Path | None = None
) -> None:
    """Write `arrays`, in order, and `values`; the file takes its name only when it is on the disk.

    The values are what JSON can hold, and numpy arrays at any depth of dicts and lists. Every dtype comes back,
    bfloat16 too. With `before`, what had the name until then is kept under that one. The file carries the SHA-256 of
    what it holds. Of several processes that train together only the first one writes.
    """
    if not is_first_process():
        return
    named = {f"array{number}": np.asarray(array) for number, array in enumerate(arrays)}
    text = json.dumps(_take_out(dict(values or {}), named))
    if objects := [name for name, array in named.items() if array.dtype.hasobject]:
        raise ValueError(f"A snapshot holds numbers, not Python objects, as {objects[0]} does.")
    # numpy's format has no bfloat16 and 8-bit floats: their bits are stored, and the dtype's name beside them.
    dtypes = {name: array.dtype.name for name, array in named.items() if array.dtype.isbuiltin == 2}
    named.update({name: named[name].view(BITS[named[name].dtype.itemsize]) for name in dtypes})
    if dtypes:
        named["dtypes"] = np.array(json.dumps(dtypes))
    named["values"] = np.array(text)
    with whole_file(path, before) as file:
        np.savez(file, allow_pickle=False, sha256=np.array(_digest(named)), **named)


class DamagedSnapshotError(ValueError):
    """A file does not hold what was written to it."""


def read_snapshot(path: os.PathLike[str] | str) -> tuple[list[np.ndarray], dict[str, Any]]:
    """What a callback wrote to an .npz file: (arrays, values); `model.set_weights(arrays)` takes weights back.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedSnapshotError: A `ValueError`: it cannot be read, or does not hold what was written to it.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            entries = {name: file[name] for name in file.files}
        written = str(entries.pop("sha256")) if "sha256" in entries else None  # files of earlier versions
    except (ValueError, KeyError, EOFError, AttributeError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DamagedSnapshotError(f"{path} is damaged, or no snapshot: {error}") from error
    if written not in (None, _digest(entries)):
        raise DamagedSnapshotError(f"{path} is damaged: its SHA-256 is not the one of what was written.")
    values = json.loads(str(entries.pop("values")))
    dtypes = json.loads(str(entries.pop("dtypes"))) if "dtypes" in entries else {}
    entries.update({name: entries[name].view(np.dtype(dtype)) for name, dtype in dtypes.items()})
    count = sum(name.startswith("array") for name in entries)
    return [entries[f"array{number}"] for number in range(count)], _put_back(values, entries)


def _digest(entries: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(entries):
        array = entries[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _take_out(value: Any, entries: dict[str, np.ndarray]) -> Any:
    """`value` with every array moved into `entries`, under the name that stands in its place."""
    if isinstance(value, np.ndarray):
        name = f"value{len(entries)}"
        entries[name] = value
        return {ARRAY: name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _take_out(one, entries) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_take_out(one, entries) for one in value]
    return value


def _put_back(value: Any, entries: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        return entries[value[ARRAY]] if ARRAY in value else {key: _put_back(one, entries) for key, one in value.items()}
    return [_put_back(one, entries) for one in value] if isinstance(value, list) else value
