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

    Raises:
        ValueError: A named column is not there, or none is left to predict.
    """
    for column in [*(targets or ()), *([group] if group else ())]:
        require_column(train, column, "train.csv")
    reasons = [f"{id_column}: names the picture"]
    hidden_from_test = [
        column for column in train.columns if column != id_column and (test is None or column not in test.columns)
    ]
    found_targets: list[str] = []
    for column in train.columns:
        if column in (id_column, group) or column in (targets or ()):
            continue
        distinct = train[column][train[column] != ""].nunique()
        if column not in hidden_from_test:
            reasons.append(f"{column}: not used (test.csv has it too)")
        elif GROUP_NAME.search(column) and 1 < distinct < len(train):
            if group is None and targets is None:
                group = column
                reasons.append(f"{column}: group, never split between training and validation ({distinct} values)")
            else:
                reasons.append(f"{column}: not used")
        elif targets is not None:
            reasons.append(f"{column}: not used")
        elif 1 < distinct <= min(MOST_CLASSES, max(2, len(train) / 2)):
            found_targets.append(column)
        else:
            reasons.append(f"{column}: not used ({distinct} different values in {len(train)} rows are no classes)")
    chosen = tuple(dict.fromkeys(targets or found_targets))
    if not chosen:
        raise ValueError(
            f"No column of train.csv looks like classes to predict. Name it with `--target`; columns: "
            f"{', '.join(train.columns)}."
        )
    if id_column in chosen or group in chosen:
        raise ValueError(f"A target cannot be the id or the group column as well. Received: --target {chosen}.")
    for column in chosen:
        distinct = train[column][train[column].str.strip() != ""].nunique()
        reasons.append(f"{column}: target, {distinct} classes")
        if distinct < 2:
            raise ValueError(f"Column {column!r} needs at least two classes to learn; it has {distinct}.")
    if group and not any(reason.startswith(f"{group}: group") for reason in reasons):
        reasons.append(f"{group}: group, never split between training and validation")
    return Columns(id_column, chosen, group, reasons)


def require_column(table: pd.DataFrame, column: str, file: str) -> None:
    """Raise a `ValueError` with near names when `table` lacks `column`."""
    if column not in table.columns:
        near = difflib.get_close_matches(column, table.columns, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{file} has no column {column!r}.{hint} Columns: {', '.join(table.columns)}.")
