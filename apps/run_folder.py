"""The run folder runs/NAME: how it is found, what its records say."""

import csv
import fcntl
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import apps
from apps import files
from apps.recipe import check_choices

LATER = {"tensorboard"}  # fields of an order that runs begun before there were these do not have
PACKAGES = ("kerascnn", "tensorflow", "keras", "numpy")


@dataclass(frozen=True)
class Order:
    """What the user asked for, as `recipe.json` keeps it.

    Attributes:
        data: The data set, as typed.
        columns: "targets", "group" and "id_column", None where they were worked out.
        choices: Fields of the recipe that were settled.
        saved_models: Where the export goes.
        probabilities: Whether probabilities.csv is wanted.
        strict: Whether nothing may be left out.
        memory: GiB that decoded pictures may take; None for what is worked out.
        minutes: What the run may take; None for what suits the data.
        checkpoint_minutes: How often a training is written to disk, besides after every epoch.
        tensorboard: Whether logs for TensorBoard are wanted.
    """

    data: str
    columns: dict[str, Any]
    choices: dict[str, Any]
    saved_models: str
    probabilities: bool
    strict: bool = False
    memory: float | None = None
    minutes: float | None = None
    checkpoint_minutes: float = 2.0
    tensorboard: bool = False


def find_interrupted(
    name: str, out: Path | None, what: str = "run", parent: Path = Path("runs"), record: str = "recipe.json"
) -> Path:
    """What to go on with: `out`, or the newest of PARENT/NAME, PARENT/NAME-2, ... that has a record and no result.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is finished.
    """

    def is_interrupted(path: Path) -> bool:
        return (path / record).is_file() and not (path / "result.json").is_file()

    if out is not None:
        if not (out / record).is_file():
            raise FileNotFoundError(f"{out} is the folder of no {what}: it has no {record}. Start without `--resume`.")
        if not is_interrupted(out):
            raise ValueError(f"{out} is finished; there is nothing to go on with.")
        return out
    named = [path for path in parent.glob("*") if re.fullmatch(rf"{re.escape(name)}(-\d+)?", path.name)]
    found = [path for path in named if is_interrupted(path)]
    if not found:
        raise FileNotFoundError(f"There is no interrupted {what} of {name} in {parent}/. Start without `--resume`.")
    return max(found, key=lambda path: path.stat().st_mtime)


def remove_unfinished(run: Path) -> None:
    """Remove what a killed process had begun to write; such files have names of their own until they are whole."""
    for path in run.rglob(".unfinished-*"):
        path.unlink()


def write_record(
    run: Path,
    order: Order,
    recipe: Mapping[str, Any],
    fingerprint: Mapping[str, str],
    group_column: str | None = None,
    devices: str = "",
) -> None:
    """recipe.json: everything needed to repeat the run, and to know a resumed one again.

    `group_column` is the column by which pictures are grouped, also where it was worked out; `devices` are those that
    the run was begun on, in words.
    """
    record = {
        **asdict(order),
        "recipe": dict(recipe),
        "fingerprint": fingerprint,
        "group_column": group_column,
        "devices": devices,
        "command": shlex.join(["kerascnn", "compete", *sys.argv[1 + (sys.argv[1:2] == ["compete"]) :]]),
        "versions": package_versions(),
    }
    files.write_json(run / "recipe.json", record)


def read_record(run: Path) -> dict[str, Any]:
    """What `recipe.json` of a run says."""
    path = run / "recipe.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}. Start a new run.") from error
    needed = {field.name for field in fields(Order)} - LATER | {"recipe", "fingerprint", "command", "versions"}
    if not isinstance(record, dict) or not needed <= set(record):
        raise ValueError(f"{path} is no record of a run. Start a new run.")
    return record


def kept_order(run: Path, order: Order) -> tuple[Order, dict[str, str]]:
    """The order a run was begun with, its recipe complete, and the fingerprint of its data.

    Raises:
        ValueError: `order` asks for something else, or the packages are of other versions; the message lists the
            differences.
    """
    record = read_record(run)
    if differing := differences(record, order):
        raise ValueError(
            f"A resumed run keeps its data, recipe and versions: {'; '.join(differing)}. "
            "Drop these options, install the versions it was begun with, or start a new run."
        )
    kept = replace(
        order,
        columns=record["columns"],
        choices=dict(check_choices(record["recipe"])),
        saved_models=record["saved_models"],
        probabilities=order.probabilities or record["probabilities"],
        strict=order.strict or record["strict"],
        memory=record["memory"] if order.memory is None else order.memory,
        minutes=record["minutes"],
        tensorboard=order.tensorboard or record.get("tensorboard", False),
    )
    return kept, record["fingerprint"]


def differences(record: Mapping[str, Any], order: Order) -> list[str]:
    """What an order asks for that a run was not begun with, and packages of other versions, each in words."""
    kept, chosen = check_choices(record["recipe"]), check_choices(record["choices"])
    # What was asked for may have been fitted to the data: both are the same recipe.
    found = [
        f"{name} is {kept.get(name)}, asked for {value}"
        for name, value in order.choices.items()
        if value not in (kept.get(name), chosen.get(name, kept.get(name)))
    ]
    others = {**record["columns"], "minutes": record["minutes"], "saved_models": record["saved_models"]}
    wanted = {**order.columns, "minutes": order.minutes}
    wanted["saved_models"] = None if order.saved_models == "saved_models" else order.saved_models  # not asked for
    found += [
        f"{name} is {others[name]}, asked for {value}"
        for name, value in wanted.items()
        if value and value != others[name]
    ]
    return found + [
        f"{name} was {record['versions'].get(name)}, is {value}"
        for name, value in package_versions().items()
        if value != record["versions"].get(name)
    ]


def check_same_data(run: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise a `ValueError` that lists what has changed, where a resumed run would train on other data."""
    changed = [f"{what} (was {before.get(what)}, is {now[what]})" for what in now if now[what] != before.get(what)]
    if changed:
        raise ValueError(f"The data have changed since {run} was begun: {', '.join(changed)}. Start a new run.")


@contextmanager
def lock(run: Path) -> Iterator[None]:
    """Keep other processes out of a run while this one works in it; the system frees it when the process ends."""
    with (run / "recipe.json").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"Another process is working in {run}. Wait for it, or stop it.") from None
        yield


def best_snapshot(run: Path) -> str:
    """A sentence that says what an interrupted run has kept."""
    best, last = sorted(run.glob("checkpoints/*/best.npz")), sorted(run.glob("checkpoints/*/last.npz"))
    if best:
        return f"The best snapshot is {', '.join(map(str, best))}."
    return f"The last epoch is in {last[-1]}." if last else "No epoch had ended, so there is no snapshot."


def describe(error: OSError) -> str:
    """An error of the system in one sentence, with the file where there is one."""
    return (
        f"{error.filename}: {error.strerror}." if error.filename and error.strerror else f"{error.strerror or error}."
    )


def checkpoints_of(run: Path, fold: int, network: int, networks: int) -> Path:
    """Where a training keeps its state; fold and network are counted from 0.

    >>> checkpoints_of(Path("out"), 1, 0, 1), checkpoints_of(Path("out"), 1, 0, 3)
    (PosixPath('out/checkpoints/2'), PosixPath('out/checkpoints/2-1'))
    """
    return run / "checkpoints" / (f"{fold + 1}-{network + 1}" if networks > 1 else f"{fold + 1}")


def write_history(histories: Sequence[Sequence[Sequence[Mapping[str, float]]]], run: Path) -> None:
    """history.csv: one row an epoch, of every network (one for every seed) of every fold."""
    rows = [
        {"fold": fold, "network": network, **row}
        for fold, networks in enumerate(histories, start=1)
        for network, history in enumerate(networks, start=1)
        for row in history
    ]
    names = dict.fromkeys(name for row in rows for name in row)  # an average begins after some epochs
    with files.whole_file(run / "history.csv") as unfinished, unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def package_versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {package: version(package) for package in PACKAGES}


def source_commit() -> str | None:
    """The commit of the toolkit's own checkout; None when it was installed without one."""
    root = Path(apps.__file__).resolve().parent.parent
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() if (root / ".git").exists() else None
