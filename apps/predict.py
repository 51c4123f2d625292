"""`kerascnn predict`: classes for files, folders and CSV lists from a SavedModel alone."""

import csv
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from apps.console import Console, percent
from apps.files import require_folder_of
from kerascnn.export import read_metadata, versions
from pipelines.competition import EXTENSIONS, find_file, index_files, list_pictures, readable
from pipelines.encoded import Encoded
from pipelines.pictures import load_pictures
from pipelines.table import read_table
from pipelines.whole_file import whole_file

CHUNK = 2048  # pictures decoded at a time, so that memory stays bounded however many there are
BATCH = 128


@dataclass(frozen=True)
class Item:
    """A picture to predict: what the user calls it, and its file (None: the CSV list names none)."""

    id: str
    path: Path | None


class LoadedModel:
    """A SavedModel of this toolkit, ready to predict."""

    def __init__(self, folder: os.PathLike[str] | str) -> None:
        self.folder = resolve_saved_model(Path(folder))
        metadata = read_metadata(self.folder)
        self.classes: Mapping[str, Sequence[str]] = metadata["classes"]
        self.size: tuple[int, int] = tuple(metadata["image_size"])
        self._model = tf.saved_model.load(os.fspath(self.folder))

    def decode(self, data: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
        """One encoded picture as the network sees it; `size` is the model's own."""
        return self._model.signatures["decode"](image_bytes=data)["image"]

    def probabilities(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Probabilities [N, classes] by head, of uint8 pixels [N, height, width, 3]."""
        predict = self._model.signatures["serving_default"]
        parts = [predict(image=tf.constant(pixels[start : start + BATCH])) for start in range(0, len(pixels), BATCH)]
        return {head: np.concatenate([part[head].numpy() for part in parts]) for head in self.classes}


def resolve_saved_model(folder: Path) -> Path:
    """The folder itself when it is a SavedModel, else its highest version.

    Raises:
        FileNotFoundError: There is neither.
    """
    if (folder / "saved_model.pb").is_file():
        return folder
    for number in reversed(versions(folder)):
        if (folder / str(number) / "saved_model.pb").is_file():
            return folder / str(number)
    raise FileNotFoundError(f"There is no SavedModel in {folder}: expected saved_model.pb or NAME/VERSION/.")


def find_items(paths: Sequence[str]) -> list[Item]:
    """The pictures that files, folders (searched through) and CSV lists name, in order.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: A CSV list names no picture.
    """
    items: list[Item] = []
    for name in paths:
        path = Path(name)
        if path.is_dir():
            items += [Item(readable(os.fspath(found)), found) for found in list_pictures(path)]
        elif not path.exists():
            raise FileNotFoundError(f"There is no file or folder {path}.")
        elif path.suffix.lower() == ".csv":
            items += _items_of_list(path)
        else:
            items.append(Item(name, path))
    if not items:
        raise ValueError(f"There is no picture ({', '.join(EXTENSIONS)}) in {', '.join(paths)}.")
    return items


def _items_of_list(path: Path) -> list[Item]:
    table, folder = read_table(path), path.parent
    index = index_files(folder, list_pictures(folder), own=("test",))

    def find(key: str) -> Path | None:
        # A path from the root of the file system (or one that leaves the folder) is no entry of the folder's index.
        return find_file(index, key) or (Path(key) if os.path.isabs(key) and Path(key).is_file() else None)

    if unwanted := [column for column in table.columns if find(column)]:
        raise ValueError(f"{path} needs a header line, such as `image`; its first line names a picture: {unwanted[0]}.")
    found = {column: [find(key) for key in table[column]] for column in table.columns}
    best = max(found, key=lambda column: sum(file is not None for file in found[column]))
    if not any(found[best]):
        raise ValueError(f"No column of {path} names picture files in {folder}. Columns: {', '.join(found)}.")
    return [Item(key, file) for key, file in zip(table[best], found[best], strict=True)]


def predict_items(
    model: LoadedModel, items: Sequence[Item]
) -> Iterator[tuple[list[Item], dict[str, np.ndarray], dict[str, str]]]:
    """Chunk by chunk: the items that could be read, their probabilities by head, and {id: reason} of the others."""
    for start in range(0, len(items), CHUNK):
        chunk = items[start : start + CHUNK]
        failed = {item.id: "the list names no file of this name" for item in chunk if item.path is None}
        found = [(item, item.path) for item in chunk if item.path is not None]
        pixels, errors = load_pictures(Encoded.files([path for _, path in found]), model.size, decode=model.decode)
        failed |= {found[index][0].id: reason for index, reason in errors.items()}
        readable = [index for index in range(len(found)) if index not in errors]
        probabilities = model.probabilities(pixels[readable]) if readable else {}
        yield [found[index][0] for index in readable], probabilities, failed


def predict(
    saved_model: str, paths: Sequence[str], out: Path | None, top: int, overwrite: bool, console: Console
) -> int:
    """Print a table or write a CSV file; the exit code is 1 when a picture could not be read, else 0."""
    if top < 1:
        raise ValueError(f"`--top` must be at least 1. Received: {top}.")
    if out is not None and out.exists() and not overwrite:
        raise ValueError(f"{out} exists. Choose another name, or say `--overwrite`.")
    if out is not None:
        require_folder_of(out)
    items = find_items(paths)
    model = LoadedModel(saved_model)
    header = ["id"]
    for head, names in model.classes.items():
        for rank in range(1, min(top, len(names)) + 1):
            suffix = "" if rank == 1 else f"_{rank}"
            header += [f"{head}{suffix}", f"{head}{suffix}_probability"]
    failed: dict[str, str] = {}
    rows: list[list[str]] = []
    with console.progress("predicting", len(items)) as bar:
        for readable, probabilities, errors in predict_items(model, items):
            rows += _rows(model, readable, probabilities, top)
            failed |= errors
            bar.update(len(rows) + len(failed))
    if out is None:
        _print_table(header, rows, console)
    else:
        with whole_file(out) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])
        console.say(f"{len(rows):,} predictions in {out}")
    for name, reason in failed.items():
        console.warn(f"{name}: {reason}")
    return 1 if failed else 0


def _rows(
    model: LoadedModel, items: Sequence[Item], probabilities: Mapping[str, np.ndarray], top: int
) -> Iterator[list[str]]:
    for number, item in enumerate(items):
        row = [item.id]
        for head, names in model.classes.items():
            values = probabilities[head][number]
            for place in np.argsort(-values, kind="stable")[:top]:
                row += [names[place], f"{values[place]:.6f}"]
        yield row


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> None:
    shown = [
        [
            percent(float(cell)) if title.endswith("_probability") else cell
            for title, cell in zip(header, row, strict=True)
        ]
        for row in rows
    ]
    titles = ["" if title.endswith("_probability") else title for title in header]
    widths = [max(len(row[column]) for row in [titles, *shown]) for column in range(len(header))]
    for row in [titles, *shown]:
        console.say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    from apps.cli import main

    main(["predict", *sys.argv[1:]])
