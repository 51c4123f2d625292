"""Which column of a table is what: the id that names the picture, the group, the classes to predict."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

# A column so named that repeats its values names who or what a picture belongs to, not what it shows.
GROUP_NAME = re.compile(r"(^|_)(id|group|user|sender|patient|subject|person|owner|camera|session|site)(_id)?$", re.I)
MOST_CLASSES = 1000


@dataclass(frozen=True)
class Columns:
    """The roles of the columns of train.csv, and why each was given (`reasons`, one line a column)."""

    id: str
    targets: tuple[str, ...]
    group: str | None
    reasons: list[str] = field(default_factory=list)


def assign_columns(
    train: pd.DataFrame,
    test: pd.DataFrame | None,
    id_column: str,
    targets: Sequence[str] | None = None,
    group: str | None = None,
) -> Columns:
    """Decide the role of every column; what the user named is taken as named.

    Args:
        train: train.csv.
        test: test.csv, or None.
        id_column: The column that names the picture.
        targets: Columns to predict; None takes those that look like classes and that test.csv lacks.
        group: Column of the groups; "none" for no groups; None takes a column that is named like one.

    Raises:
        ValueError: A named column is not there, or none is left to predict.
    """
    for column in [*(targets or ()), *([group] if group and group != "none" else ())]:
        require_column(train, column, "train.csv")
    taken = {id_column, *(targets or ())}
    if group is None:
        group = next(
            (column for column in train.columns if column not in taken and _looks_like_group(train, column)), None
        )
    elif group == "none":
        group = None
    rest = [column for column in train.columns if column not in {*taken, group}]
    reasons = [f"{id_column}: names the picture"]
    chosen = list(dict.fromkeys(targets or ()))
    for column in rest:
        distinct = train[column][train[column] != ""].nunique()
        if targets is not None:
            reasons.append(f"{column}: not used")
        elif test is not None and column in test.columns:
            reasons.append(f"{column}: not used (test.csv has it too)")
        elif GROUP_NAME.search(column):
            reasons.append(f"{column}: not used (named like an id)")
        elif 1 < distinct <= min(MOST_CLASSES, max(2, len(train) / 2)):
            chosen.append(column)
        else:
            reasons.append(f"{column}: not used ({distinct} different values in {len(train)} rows are no classes)")
    if not chosen:
        raise ValueError(
            "No column of train.csv looks like classes to predict. Name it with `--target`; columns: "
            f"{', '.join(train.columns)}."
        )
    if id_column in chosen or group in chosen:
        raise ValueError(f"A target cannot be the id or the group column as well. Received: {', '.join(chosen)}.")
    for column in chosen:
        distinct = train[column][train[column].str.strip() != ""].nunique()
        if distinct < 2:
            raise ValueError(f"Column {column!r} needs at least two classes to learn; it has {distinct}.")
        reasons.append(f"{column}: target, {distinct} classes")
    if group:
        reasons.append(
            f"{group}: group, never split between training and validation ({train[group].nunique()} values; "
            "`--group none` for no groups)"
        )
    return Columns(id_column, tuple(chosen), group, reasons)


def _looks_like_group(train: pd.DataFrame, column: str) -> bool:
    """Whether a column is named like a group, repeats its values, and is not another column under other names."""
    distinct = train[column].nunique()
    if not GROUP_NAME.search(column) or not 1 < distinct < len(train):
        return False
    others = [other for other in train.columns if other != column and train[other].nunique() == distinct]
    return all(len(train[[column, other]].drop_duplicates()) > distinct for other in others)


def require_column(table: pd.DataFrame, column: str, file: str) -> None:
    """Raise a `ValueError` with near names when `table` lacks `column`."""
    if column not in table.columns:
        near = difflib.get_close_matches(column, table.columns, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{file} has no column {column!r}.{hint} Columns: {', '.join(table.columns)}.")
