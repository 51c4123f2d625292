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


def write_record(out: Path, order: Order, fingerprint: Mapping[str, str]) -> None:
    """search.json: everything needed to go on with a search, and to repeat it."""
    record = {
        **asdict(order),
        "fingerprint": fingerprint,
        "command": shlex.join(["kerascnn", *sys.argv[1:]]),
        "versions": run_folder.package_versions(),
    }
    files.write_json(out / RECORD, record)


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
