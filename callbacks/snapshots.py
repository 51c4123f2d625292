"""Arrays and a few plain values in one .npz file that appears whole or not at all.

HDF5, Keras' own format for weights, is not used here: its library ends the process when the disk is full.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def write_snapshot(path: Path, arrays: Sequence[np.ndarray], values: Mapping[str, Any] | None = None) -> None:
    """Write `arrays`, in order, and JSON `values`; the file takes its name only when it is on the disk."""
    unfinished = path.with_name(f".unfinished-{os.getpid()}-{path.name}")
    named = {f"array{number}": np.asarray(array) for number, array in enumerate(arrays)}
    try:
        with unfinished.open("wb") as file:
            np.savez(file, allow_pickle=False, values=np.array(json.dumps(dict(values or {}))), **named)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_snapshot(path: Path) -> tuple[list[np.ndarray], dict[str, Any]]:
    """What `write_snapshot` wrote: (arrays, values)."""
    with np.load(path, allow_pickle=False) as file:
        arrays = [file[f"array{number}"] for number in range(len(file.files) - 1)]
        return arrays, json.loads(str(file["values"]))
