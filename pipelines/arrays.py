"""Pictures and labels in one .npz file, checked."""

import zipfile
from pathlib import Path

import numpy as np


def read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """x_train, y_train, x_test and y_test: uint8 pictures [N, height, width(, 3)], one class per picture.

    Raises:
        ValueError: The file is not complete, or its arrays do not fit.
    """
    try:
        file = np.load(path, allow_pickle=False)
        names = list(getattr(file, "files", ()))
        arrays = {name: _flat(file[name]) for name in ("x_train", "y_train", "x_test", "y_test") if name in names}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a complete .npz file of plain arrays.") from error
    if not {"x_train", "y_train"} <= set(arrays):
        raise ValueError(f"{path} must hold x_train and y_train. Received: {', '.join(names) or 'a single array'}.")
    for part in ("train", "test"):
        pictures, labels = arrays.get(f"x_{part}"), arrays.get(f"y_{part}")
        if pictures is not None:
            _check_pictures(path, pictures)
        if labels is not None and (pictures is None or labels.ndim != 1 or len(labels) != len(pictures)):
            raise ValueError(
                f"y_{part} in {path} must be one class per picture. Received: {list(labels.shape)} for "
                f"{'no' if pictures is None else len(pictures)} pictures."
            )
    return arrays["x_train"], arrays["y_train"], arrays.get("x_test"), arrays.get("y_test")


def _flat(array: np.ndarray) -> np.ndarray:
    """Without a last axis of length 1: labels [N, 1] and grayscale pictures [N, height, width, 1]."""
    return array[..., 0] if array.ndim > 1 and array.shape[-1] == 1 else array


def _check_pictures(path: Path, pictures: np.ndarray) -> None:
    fits = pictures.ndim == 3 or (pictures.ndim == 4 and pictures.shape[3] == 3)
    if pictures.dtype != np.uint8 or not fits:
        raise ValueError(
            f"Pictures in {path} must be uint8 [N, height, width] or [N, height, width, 3]. "
            f"Received: {pictures.dtype} {list(pictures.shape)}."
        )
