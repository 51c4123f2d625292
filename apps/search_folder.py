"""The search folder searches/NAME: what was asked for, as its search.json keeps it, and how it is found."""

import json
import shlex
import sys
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from apps import files, run_folder
from apps.ranges import parse_over
from apps.resolve import refuse_published
from apps.study import SAMPLERS
from apps.study_database import Database
from kerascnn.registry import lookup

RECORD, RESULT, BEST = "search.json", "result.json", "best.toml"


@dataclass(frozen=True)
class Order:
    """What the user asked for, as `search.json` keeps it for every process and every resumption.

    Attributes:
        data: The data set, as typed.
        columns: "targets", "group" and "id_column", None where they were worked out.
        choices: Fields of the recipe that were settled; the others are worked out from the data.
        over: What to search, as typed (`ranges.parse_over`).
        trials, fine: How many coarse and fine trials.
        coarse: Epochs of a coarse trial, below 1 as a fraction of the recipe's, which a fine one has.
        sampler: "random" or "tpe".
        from_scratch: Whether the competition forbids published weights: `transfer` is refused.
    """

    data: str
    columns: dict[str, Any]
    choices: dict[str, Any]
    over: list[str] = field(default_factory=lambda: ["lr", "weight_decay"])
    trials: int = 20
    fine: int = 5
    coarse: float = 0.25
    sampler: str = "random"
    from_scratch: bool = True


def check_order(order: Order, minutes: float | None, processes: int) -> None:
    """A `ValueError` where what was asked for cannot be, before data are read."""
    space = parse_over(order.over)
    for name, value, least in (("trials", order.trials, 1), ("fine", order.fine, 0), ("processes", processes, 1)):
        if value < least:
            raise ValueError(f"`--{name}` must be at least {least}. Received: {value}.")
    if not order.coarse > 0 or (order.coarse >= 1 and order.coarse != int(order.coarse)):
        raise ValueError(f"`--coarse` must be a fraction of the epochs or a number of them. Received: {order.coarse}.")
    if order.sampler not in SAMPLERS:
        raise ValueError(f"`--sampler` must be one of {', '.join(SAMPLERS)}. Received: {order.sampler}.")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"`--minutes` must be positive. Received: {minutes}.")
    if order.choices.get("val") == 0:
        raise ValueError("`search` needs pictures held out for validation. Received: val=0.")
    if "model" in order.choices:
        lookup(order.choices["model"])
    for name in getattr(space.get("model"), "values", ()):
        lookup(name)
    if order.from_scratch:
        refuse_published([order.choices.get("transfer", "none"), *getattr(space.get("transfer"), "values", ())])


def begin(
    base: Path, out: Path | None, order: Order, fingerprint: Mapping[str, str], database: Database | None
) -> Path:
    """Make the folder of a new search, `out` or `base` or the next free name, with search.json: what it takes to go on.

    A search in a database has the name of its folder there, and its record, too.

    Raises:
        ValueError: The database has a search of the name of `out`.
    """
    command = shlex.join(["kerascnn", *sys.argv[1:]])
    record = {
        **asdict(order),
        "fingerprint": fingerprint,
        "storage": database.shown if database else None,
        "command": database.hide(command) if database else command,
        "versions": run_folder.package_versions(),
    }

    def is_free(name: str) -> bool:
        return database is None or database.begin(name, record)

    if out is None:
        out = files.new_folder(base, is_free)
    elif not is_free(out.absolute().name):
        raise ValueError(
            f"The storage has a search {out.absolute().name}. Choose another `--out`, or help with it by `--resume`."
        )
    out.mkdir(parents=True, exist_ok=True)
    files.write_json(out / RECORD, record)
    return out


def find(name: str, out: Path | None, database: Database | None) -> tuple[Path, dict[str, Any]]:
    """Which search to go on with, and its record: that of `out`, or the newest of the data.

    Args:
        name: Of the data.
        out: The folder; the search of its name in a database, where it need not exist on this machine.
        database: Has the search; None for one in a folder.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is finished, and its result is here; or the folder is another search's.
    """
    if database is None:
        folder = run_folder.find_interrupted(name, out, "search", Path("searches"), RECORD)
        record = read_record(folder)
        if record.get("storage"):
            raise ValueError(f"{folder} keeps its trials in {record['storage']}: give that by `--storage`.")
        return folder, record
    return _find_in(database, name, out)


def _find_in(database: Database, name: str, out: Path | None) -> tuple[Path, dict[str, Any]]:
    if out is None:
        folders = (Path("searches") / one for one in database.named(name))
        folder = next((one for one in folders if not (one / RESULT).is_file()), None)
    else:
        folder = out
    record = database.record(folder.absolute().name) if folder else None
    if folder is None or record is None:
        which = f"search {out.absolute().name}" if out else f"interrupted search of {name}"
        raise FileNotFoundError(f"There is no {which} in {database.shown}. Start without `--resume`.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not (folder / RECORD).is_file() or read_record(folder) != record:
            raise ValueError(f"{folder} is not of the search in {database.shown}. Choose a new folder by `--out`.")
        if (folder / RESULT).is_file():
            raise ValueError(f"{folder} is finished; there is nothing to go on with.")
    return folder, record


def read_record(out: Path) -> dict[str, Any]:
    """What search.json says."""
    path = out / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}. Search anew.") from error
    needed = {one.name for one in fields(Order)} | {"fingerprint"}
    if not isinstance(record, dict) or not needed <= set(record):
        raise ValueError(f"{path} is no record of a search. Search anew.")
    return record


def kept_order(record: Mapping[str, Any], order: Order, given: Collection[str]) -> Order:
    """The order a search was begun with.

    Raises:
        ValueError: What was `given` now, or a column or a field of the recipe, differs; the message lists it.
    """
    kept = Order(**{one.name: record[one.name] for one in fields(Order)})
    differences = [
        f"{name} is {getattr(kept, name)}, asked for {getattr(order, name)}"
        for name in sorted(given)
        if getattr(kept, name) != getattr(order, name)
    ]
    for what, before, now in (("", kept.choices, order.choices), ("column ", kept.columns, order.columns)):
        differences += [
            f"{what}{name} is {before.get(name, 'not settled')}, asked for {value}"
            for name, value in now.items()
            if value is not None and json.loads(json.dumps(value)) != before.get(name)
        ]
    if differences:
        raise ValueError(
            f"A resumed search keeps what it was begun with: {'; '.join(differences)}. "
            "Drop these options or start anew."
        )
    return kept
