"""A competition on disk: which pictures are labelled how, which are to be predicted, and what was left out and why."""

import os
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from pipelines.columns import assign_columns, require_column
from pipelines.table import read_table

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
TRAIN_FOLDERS, VALIDATION_FOLDERS, TEST_FOLDERS = ("train", "training"), ("val", "valid", "validation"), ("test",)


@dataclass
class Competition:
    """Everything known of the data before a picture is opened.

    Attributes:
        name: Short name, used for folders.
        train: One row a labelled picture: "id", "path", "group" (or ""), "part" ("train" or "val") and the targets,
            as text; "" where a label is missing.
        test: "id" and "path" (None where there is no file), the rows and the order of test.csv; None without a test.
        id_column: The header of the id column in the submission.
        targets: The columns to predict.
        group_column: The header of the column in "group"; None without groups.
        columns: How each column was understood, a line each.
        left_out: What was left out and why, a line each, worst first.
        answers: Reads the hidden labels, with "id" and the targets; None where there are none. Not to be called before
            the submission is written.
    """

    name: str
    train: pd.DataFrame
    test: pd.DataFrame | None
    id_column: str
    targets: tuple[str, ...]
    group_column: str | None = None
    columns: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    answers: Callable[[], pd.DataFrame] | None = None

    @property
    def classes(self) -> dict[str, list[str]]:
        """For every target its class names, sorted; the position of a name is its class number."""
        return {target: sorted(set(self.train[target]) - {""}) for target in self.targets}


def read_csv_competition(
    root: Path, name: str, targets: Sequence[str] | None, group: str | None, id_column: str | None
) -> Competition:
    """A folder with train.csv, the pictures, and optionally test.csv (and answers.csv, opened at the very end)."""
    train = read_table(root / "train.csv")
    test = read_table(root / "test.csv") if (root / "test.csv").is_file() else None
    pictures = list_pictures(root)
    if train.empty:
        raise ValueError(f"{root / 'train.csv'} has a header but no rows.")
    if not pictures:
        raise ValueError(f"There is no picture ({', '.join(EXTENSIONS)}) in {root} or below it.")
    train_files = index_files(root, pictures, TRAIN_FOLDERS, other=TEST_FOLDERS if test is not None else ())
    if id_column is not None:
        require_column(train, id_column, "train.csv")
    else:
        id_column = _column_naming_files(train, train_files)
    roles = assign_columns(train, test, id_column, targets, group)

    train = train.assign(**{target: train[target].str.strip() for target in roles.targets})
    table = pd.DataFrame({"id": train[id_column], "path": [find_file(train_files, key) for key in train[id_column]]})
    table["group"] = train[roles.group].to_numpy() if roles.group else ""
    table["part"] = "train"
    table[list(roles.targets)] = train[list(roles.targets)]
    table, left_out = _drop_unusable(table, roles.targets)

    used = set(table["path"])
    if test is not None:
        require_column(test, id_column, "test.csv")
        test_files = index_files(root, pictures, TEST_FOLDERS, other=TRAIN_FOLDERS)
        test = pd.DataFrame({"id": test[id_column], "path": [find_file(test_files, key) for key in test[id_column]]})
        used |= set(test["path"])
        if missing := int(test["path"].isna().sum()):
            left_out.append(f"{_rows(missing)} of test.csv without a picture (predicted by class frequency)")
    if unused := sum(path not in used for path in pictures):
        left_out.append(f"{_files(unused)} that no row names")

    answers_file = root / "answers.csv"
    return Competition(
        name=name,
        train=table,
        test=test,
        id_column=id_column,
        targets=roles.targets,
        group_column=roles.group,
        columns=roles.reasons,
        left_out=left_out,
        answers=(lambda: _read_answers(answers_file, id_column)) if answers_file.is_file() else None,
    )


def read_class_folders(root: Path, name: str) -> Competition:
    """A folder with one sub-folder per class, or with train/ (val/, test/) that hold such sub-folders.

    test/ may also hold pictures without class folders: then there are no answers.
    """
    parts = {
        part: folder
        for part, names in (("train", TRAIN_FOLDERS), ("val", VALIDATION_FOLDERS), ("test", TEST_FOLDERS))
        for folder in (_sub_folder(root, names),)
        if folder
    }
    if "train" not in parts:
        parts = {"train": root}
    rows = []
    for part in ("train", "val"):
        for path in list_pictures(parts[part]) if part in parts else ():
            inside = path.relative_to(parts[part]).parts
            if len(inside) > 1:
                rows.append((path.relative_to(root).as_posix(), path, "", part, _text(inside[0])))
    train = pd.DataFrame(rows, columns=["id", "path", "group", "part", "label"])
    if train["label"].nunique() < 2:
        raise ValueError(
            f"{root} holds neither a train.csv nor at least two class folders with pictures "
            f"({', '.join(EXTENSIONS)}). Received: {_listing(root)}."
        )
    test, answers, left_out = None, None, []
    if "test" in parts and (files := list_pictures(parts["test"])):
        test = pd.DataFrame({"id": [path.relative_to(root).as_posix() for path in files], "path": files})
        classes = [_text(path.relative_to(parts["test"]).parts[0]) for path in files]
        if all(len(path.relative_to(parts["test"]).parts) > 1 for path in files):
            hidden = pd.DataFrame({"id": test["id"], "label": classes})
            answers = lambda: hidden  # noqa: E731
            for label in sorted(set(classes) - set(train["label"])):
                left_out.append(f"class {label!r} occurs only in the test part: it can never be predicted")
    columns = ["id: path of the picture", f"label: name of its folder, {train['label'].nunique()} classes"]
    return Competition(name, train, test, "id", ("label",), columns=columns, left_out=left_out, answers=answers)


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

    Files in the folders named `other` are called by their path from the root only, so that test/1.png is not taken
    for train/1.png.
    """
    index: dict[str, Path] = {}
    for path in pictures:
        inside = path.relative_to(root)
        names = [inside]
        if inside.parts[0].lower() in own:
            names.append(inside.relative_to(inside.parts[0]))
        elif inside.parts[0].lower() not in other and len(inside.parts) == 2:
            names.append(Path(inside.name))
        for relative in names:
            index.setdefault(_text(relative.as_posix()), path)
            index.setdefault(_text(relative.with_suffix("").as_posix()), path)
    return index


def find_file(index: dict[str, Path], key: str) -> Path | None:
    """The file a row's id names, or None."""
    return index.get(_text(key.strip().replace("\\", "/").removeprefix("./")))


def _column_naming_files(train: pd.DataFrame, files: dict[str, Path]) -> str:
    matches = {column: sum(find_file(files, key) is not None for key in train[column]) for column in train.columns}
    best = max(matches, key=lambda column: matches[column])
    if not matches[best]:
        example = train.iloc[0].to_dict()
        raise ValueError(
            f"No column of train.csv names the picture files. Expected file names, with or without folder and "
            f"extension, such as {next(iter(files))!r}. The first row is {example}."
        )
    return best


def _drop_unusable(table: pd.DataFrame, targets: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Leave out rows that cannot be learnt from, and say which."""
    left_out = []
    for reason, unusable in (
        ("without a picture", lambda rows: rows["path"].isna()),
        ("without a label", lambda rows: (rows[list(targets)] == "").all(axis=1)),
        ("that repeat an earlier row", lambda rows: rows.duplicated(["id", *targets])),
        ("with one id and different labels", lambda rows: rows.duplicated("id", keep=False)),
    ):
        mask = unusable(table).to_numpy(bool)
        if mask.any():
            examples = ", ".join(table["id"][mask][:3])
            left_out.append(f"{_rows(int(mask.sum()))} of train.csv {reason} (such as {examples})")
            table = table[~mask]
    if table.empty:
        raise ValueError(f"No row of train.csv is left to learn from: {'; '.join(left_out)}.")
    return table.reset_index(drop=True), left_out


def _read_answers(path: Path, id_column: str) -> pd.DataFrame:
    answers = read_table(path)
    require_column(answers, id_column, path.name)
    return answers.rename(columns={id_column: "id"})


def _sub_folder(root: Path, names: Sequence[str]) -> Path | None:
    return next(
        (root / folder for folder in sorted(os.listdir(root)) if folder.lower() in names and (root / folder).is_dir()),
        None,
    )


def _text(name: str) -> str:
    """One spelling for names that look the same: some systems store accents as separate characters."""
    return unicodedata.normalize("NFC", name)


def _listing(folder: Path) -> str:
    names = sorted(os.listdir(folder))
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "an empty folder"


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _files(count: int) -> str:
    return f"{count:,} picture file{'' if count == 1 else 's'}"
