"""A competition on disk: which pictures are labelled how, which are to be predicted, and what was left out and why."""

import os
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.columns import assign_columns, require_column
from pipelines.encoded import Encoded
from pipelines.table import read_table

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
TRAIN_FOLDERS, VALIDATION_FOLDERS, TEST_FOLDERS = ("train", "training"), ("val", "valid", "validation"), ("test",)


@dataclass
class Competition:
    """Everything known of the data before a picture is opened.

    Attributes:
        name: Short name, used for folders.
        train: One row a labelled picture: "id", "path", "group" (or ""), "part" ("train" or "val"); for pictures in
            shards also "start", "length" and "checksum".
        labels: The same rows: a column of class names for every target, "" where a label is missing.
        test: "id" and "path" (None where there is no file), the rows and the order of test.csv; None without a test.
        id_column: The header of the id column in the submission.
        group_column: The header of the column in "group"; None without groups.
        columns: How each column was understood, a line each.
        left_out: What was left out and why, a line each.
        answers: Reads the hidden labels: a column for every target, the ids as index; None where there are none. Not
            to be called before the submission is written (writing shards only copies them).
        verified: Whether every picture was decoded when its checksum was taken.
    """

    name: str
    train: pd.DataFrame
    labels: pd.DataFrame
    test: pd.DataFrame | None
    id_column: str
    group_column: str | None = None
    columns: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    answers: Callable[[], pd.DataFrame] | None = None
    verified: bool = False

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns to predict."""
        return tuple(self.labels.columns)

    @property
    def classes(self) -> dict[str, list[str]]:
        """For every target its class names, sorted; the position of a name is its class number."""
        return {target: sorted(set(self.labels[target]) - {""}) for target in self.targets}


def encoded_pictures(table: pd.DataFrame) -> Encoded:
    """Where the pictures of some rows of `Competition.train` or `.test` lie, which must all have one."""
    files = Encoded.files(table["path"].tolist())
    if "start" not in table.columns:
        return files
    # Copies, since pandas gives arrays that cannot be written to, and `Encoded` notes what it finds.
    places = (table[column].to_numpy("int64", copy=True) for column in ("start", "length", "checksum"))
    return Encoded(files.paths, *places)


def read_csv_competition(
    root: Path, name: str, targets: Sequence[str] | None, group: str | None, id_column: str | None
) -> Competition:
    """A folder with train.csv, the pictures, and optionally test.csv (and answers.csv, opened at the very end)."""
    table = read_table(root / "train.csv")
    test = read_table(root / "test.csv") if (root / "test.csv").is_file() else None
    pictures = list_pictures(root)
    if table.empty:
        raise ValueError(f"{root / 'train.csv'} has a header but no rows.")
    if not pictures:
        raise ValueError(f"There is no picture ({', '.join(EXTENSIONS)}) in {root} or below it.")
    train_files = index_files(root, pictures, own=TRAIN_FOLDERS, other=TEST_FOLDERS)
    if id_column is not None:
        require_column(table, id_column, "train.csv")
    else:
        id_column = _column_naming_files(table, train_files)
    roles = assign_columns(table, test, id_column, targets, group)

    train = pd.DataFrame({"id": table[id_column], "path": [find_file(train_files, key) for key in table[id_column]]})
    train["group"] = table[roles.group] if roles.group else ""
    train["part"] = "train"
    labels = table[list(roles.targets)].apply(lambda column: column.str.strip())
    named = set(train["path"])
    usable, left_out = _usable_rows(train, labels)
    if test is not None:
        require_column(test, id_column, "test.csv")
        test_files = index_files(root, pictures, own=TEST_FOLDERS, other=TRAIN_FOLDERS)
        test = pd.DataFrame({"id": test[id_column], "path": [find_file(test_files, key) for key in test[id_column]]})
        named |= set(test["path"])
        if missing := int(test["path"].isna().sum()):
            left_out.append(f"{_rows(missing)} of test.csv without a picture (predicted by class frequency)")
    if unnamed := [path for path in pictures if path not in named]:
        left_out.append(f"{_files(len(unnamed))} that no row names (such as {_id(unnamed[0], root)})")

    answers_file = root / "answers.csv"
    return Competition(
        name=name,
        train=train[usable].reset_index(drop=True),
        labels=labels[usable].reset_index(drop=True),
        test=test,
        id_column=id_column,
        group_column=roles.group,
        columns=roles.reasons,
        left_out=left_out,
        answers=(lambda: _read_answers(answers_file, id_column)) if answers_file.is_file() else None,
    )


def read_class_folders(root: Path, name: str) -> Competition:
    """A folder with one sub-folder per class, or with train/ (val/, test/) that hold such sub-folders.

    test/ may also hold pictures without class folders: then there are no answers.
    """
    folders = {
        part: folder
        for part, names in (("train", TRAIN_FOLDERS), ("val", VALIDATION_FOLDERS), ("test", TEST_FOLDERS))
        if (folder := _sub_folder(root, names))
    }
    test_files = list_pictures(folders.pop("test")) if "test" in folders else []
    if "train" not in folders:
        folders["train"] = root  # the classes lie beside val/ and test/
    taken, rows, stray = set(test_files), [], []
    for part in ("val", "train"):
        for path in list_pictures(folders[part]) if part in folders else ():
            inside = path.relative_to(folders[part]).parts
            if path in taken:
                continue
            taken.add(path)
            if len(inside) > 1:
                rows.append((_id(path, root), path, "", part, _text(inside[0])))
            else:
                stray.append(path)
    everything = pd.DataFrame(rows, columns=["id", "path", "group", "part", "label"])
    if everything["label"].nunique() < 2:
        raise ValueError(
            f"{root} holds neither a train.csv nor at least two class folders with pictures "
            f"({', '.join(EXTENSIONS)}). Received: {_listing(root)}."
        )
    left_out = [f"{_files(len(stray))} in no class folder (such as {_id(stray[0], root)})"] if stray else []
    in_folders = test_files and all(len(path.relative_to(root).parts) > 2 for path in test_files)
    test_ids = [_id(path, root) for path in test_files]
    return Competition(
        name=name,
        train=everything[["id", "path", "group", "part"]],
        labels=everything[["label"]],
        test=pd.DataFrame({"id": test_ids, "path": test_files}) if test_files else None,
        id_column="id",
        columns=["id: path of the picture", f"label: name of its folder, {everything['label'].nunique()} classes"],
        left_out=left_out,
        answers=(
            lambda: pd.DataFrame(
                {"label": [_text(path.relative_to(root).parts[1]) for path in test_files]}, index=test_ids
            )
        )
        if in_folders
        else None,
    )


def list_pictures(folder: Path) -> list[Path]:
    """All picture files below a folder, sorted, without hidden ones."""
    found = []
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        found += [
            Path(where, file)
            for file in sorted(files)
            if file.lower().endswith(EXTENSIONS) and not file.startswith(".")
        ]
    return found


def index_files(root: Path, pictures: Sequence[Path], own: Sequence[str], other: Sequence[str] = ()) -> dict[str, Path]:
    """Every name by which a row may call a file: its path with or without extension, from the root or its own folder.

    Files in the folders named `own` come first; those of other folders are called by their bare names only where these
    name a single file, and those in folders named `other` by their path from the root only, so that test/1.png is
    never taken for train/1.png.
    """
    index: dict[str, Path] = {}
    bare: dict[str, set[Path]] = {}
    for path in pictures:
        inside = path.relative_to(root)
        _enter(index, inside, path)
        if len(inside.parts) > 1 and inside.parts[0].lower() in own:
            _enter(index, inside.relative_to(inside.parts[0]), path)
        elif inside.parts[0].lower() not in other:
            for name in (inside.name, inside.stem):
                bare.setdefault(_text(name), set()).add(path)
    for name, paths in bare.items():
        if len(paths) == 1:
            index.setdefault(name, next(iter(paths)))
    return index


def _enter(index: dict[str, Path], name: Path, path: Path) -> None:
    index.setdefault(_text(name.as_posix()), path)
    index.setdefault(_text(name.with_suffix("").as_posix()), path)


def find_file(index: dict[str, Path], key: str) -> Path | None:
    """The file a row's id names, or None."""
    return index.get(_text(key.strip().replace("\\", "/").removeprefix("./")))


def _column_naming_files(train: pd.DataFrame, files: dict[str, Path]) -> str:
    """The column that names the most different files; of equals the first."""
    matches = {column: len({find_file(files, key) for key in set(train[column])} - {None}) for column in train.columns}
    best = max(matches, key=lambda column: matches[column])
    if not matches[best]:
        raise ValueError(
            f"No column of train.csv names the picture files. Expected file names, with or without folder and "
            f"extension, such as {next(iter(files))!r}. The first row is {train.iloc[0].to_dict()}."
        )
    return best


def _usable_rows(train: pd.DataFrame, labels: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
    """Which rows can be learnt from (a boolean mask), and which cannot and why (a line each)."""
    usable, left_out = np.ones(len(train), bool), []
    # A file may be named with and without extension, so that its path says which rows are about one picture.
    together = pd.concat([train["path"], labels], axis=1)
    for reason, unusable in (
        ("without a picture", lambda rows: rows["path"].isna()),
        ("without a label", lambda rows: (labels.loc[rows.index] == "").all(axis=1)),
        ("that repeat an earlier row", lambda rows: together.loc[rows.index].duplicated()),
        ("with different labels for one picture", lambda rows: rows.duplicated("path", keep=False)),
    ):
        rows = train[usable]
        if (mask := unusable(rows).to_numpy(bool)).any():
            left_out.append(f"{_rows(mask.sum())} of train.csv {reason} (such as {', '.join(rows['id'][mask][:3])})")
            usable[rows.index[mask]] = False
    if not usable.any():
        raise ValueError(f"No row of train.csv is left to learn from: {'; '.join(left_out)}.")
    return usable, left_out


def _read_answers(path: Path, id_column: str) -> pd.DataFrame:
    answers = read_table(path)
    require_column(answers, id_column, path.name)
    return answers.set_index(id_column)


def _sub_folder(root: Path, names: Sequence[str]) -> Path | None:
    return next(
        (root / folder for folder in sorted(os.listdir(root)) if folder.lower() in names and (root / folder).is_dir()),
        None,
    )


def _text(name: str) -> str:
    """One spelling for names that look the same (some systems store accents as separate characters), always text."""
    return unicodedata.normalize("NFC", readable(name))


def readable(name: str) -> str:
    """A file name as text that can be printed: bytes that are no UTF-8 become question marks."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _id(path: Path, root: Path) -> str:
    return readable(path.relative_to(root).as_posix())


def _listing(folder: Path) -> str:
    names = sorted(os.listdir(folder))
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "an empty folder"


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _files(count: int) -> str:
    return f"{count:,} picture file{'' if count == 1 else 's'}"
