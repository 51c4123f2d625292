"""Everything that is decided and checked before a network is trained."""

import hashlib
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from apps.augmentation import augmentation
from apps.budget import Workload, suit_time
from apps.console import Console, duration, percent
from apps.data import Data
from apps.devices import ONE, Devices
from apps.network import build_network, check_network
from apps.phases import phases, steps_of
from apps.recipe import Recipe
from apps.recipes import Choices
from apps.resolve import resolve
from pipelines.competition import Competition, encoded_pictures
from pipelines.encoded import Encoded
from pipelines.labels import MISSING
from pipelines.pictures import choose_size, decoded_bytes, free_for_pictures, open_pictures, picture_sizes
from pipelines.split import Split, split, split_by_file
from pipelines.stream import Pictures, Streamed

NEVER_LONG = 20_000  # pictures seen in all epochs, which what is chosen for them does not take long for


@dataclass(frozen=True)
class Plan:
    """What a training needs, decoded and checked.

    Attributes:
        competition: With the rows of train.csv whose picture could be read.
        recipe: Complete.
        data: The labelled pictures.
        groups: The group of every labelled picture; None without groups.
        splits: Index pairs (train, validation).
        encoded: Where the labelled pictures lie.
        hidden: Where the hidden pictures lie, of the rows of the submission that have one.
        test_pictures: The hidden pictures that could be read.
        test_readable: For every row of the submission, whether it has a picture in `test_pictures`.
        left_out: What was left out and why, a line each.
        parameters: Of the network.
        audited: What the audit before the training found, a line each.
        rest: Seconds that predictions and export will take; 0 where the time is not limited.
    """

    competition: Competition
    recipe: Recipe
    data: Data
    groups: np.ndarray | None
    splits: list[Split]
    encoded: Encoded
    hidden: Encoded
    test_pictures: Pictures
    test_readable: np.ndarray
    left_out: list[str]
    parameters: int
    audited: Sequence[str] = ()
    rest: float = 0.0

    @property
    def test_ids(self) -> np.ndarray:
        """The ids of the hidden pictures, in the order of the submission; empty without any."""
        return np.array([]) if self.competition.test is None else self.competition.test["id"].to_numpy()

    @property
    def fingerprint(self) -> dict[str, str]:
        """What a resumed run must find again: a number and a hash for each part of the data, by its name."""
        parts: dict[str, tuple[int, Iterable[bytes]]] = {
            "labelled ids": (len(self.data.pictures), [_as_bytes(self.competition.train["id"])]),
            "labels": (len(self.data.pictures), [_as_bytes(self.competition.labels)]),
            "labelled pictures": (len(self.data.pictures), [_as_bytes(self.encoded.checksums)]),
            "validation split": (len(self.splits), [_as_bytes(index) for pair in self.splits for index in pair]),
            "hidden ids": (len(self.test_ids), [_as_bytes(pd.Series(self.test_ids))]),
            "hidden pictures": (len(self.hidden), [_as_bytes(self.hidden.checksums)]),
        }
        return {
            name: f"{count:,}, {hashlib.sha256(b'|'.join(contents)).hexdigest()[:12]}"
            for name, (count, contents) in parts.items()
        }


def _as_bytes(values: pd.Series | pd.DataFrame | np.ndarray) -> bytes:
    if isinstance(values, np.ndarray):
        return np.ascontiguousarray(values, "int64").tobytes()
    return values.to_csv(index=False).encode("utf-8", "replace")


def make_plan(
    competition: Competition,
    choices: Choices,
    strict: bool,
    console: Console,
    memory: float | None = None,
    seconds: float | None = None,
    fill: bool = True,
) -> Plan:
    """Decode every picture, settle the recipe and split; raise for everything that would stop the training later.

    Args:
        competition: As opened.
        choices: Fields of the recipe that are settled.
        strict: Raise when any row or picture would be left out.
        console: Says what is found.
        memory: Bytes that decoded pictures may take.
        seconds: What the whole run may take; where the epochs are not settled, they are chosen to suit it.
        fill: Use this time, with more epochs or a larger network than suit the data; else only stay within it.
    """
    for line in competition.columns:
        console.say(f"column    {line}")
    _check_val(choices.get("val"))
    labelled = encoded_pictures(competition.train)
    hidden = _hidden(competition)
    settle = partial(
        resolve,
        pictures=len(labelled),
        size=choose_size(picture_sizes(labelled)),
        classes=list(competition.classes.values()),
        own_validation=bool((competition.train["part"] == "val").any()),
    )
    recipe, rest = settle(choices), 0.0
    check_network(recipe, {head: len(names) for head, names in competition.classes.items()})
    work = Workload.of(recipe, len(labelled), len(hidden))
    quick = recipe.epochs * sum(work.trained) <= NEVER_LONG and not {"model", "image_size", "width"} & set(choices)
    if seconds is not None and (fill or not (quick or "epochs" in choices)):
        recipe, rest = suit_time(choices, settle, seconds, work, competition.classes, console, fill)
    open_some = partial(open_pictures, size=recipe.image_size, verified=competition.verified, strict=strict)
    (pictures, errors), (test_pictures, test_errors) = _open_both(labelled, hidden, open_some, memory, console)
    left_out = [*competition.left_out, *(f"{labelled.name(place)}: {why}" for place, why in errors.items())]
    left_out += [f"{hidden.name(place)}: {why} (predicted by class frequency)" for place, why in test_errors.items()]
    for line in left_out:
        console.say(f"left out  {line}")
    if strict and left_out:
        raise ValueError(f"`--strict` allows nothing to be left out, and {len(left_out)} things would be (see above).")
    readable = np.delete(np.arange(len(labelled)), list(errors))
    if not len(readable):
        raise ValueError(f"None of the {len(labelled)} training pictures can be read. First: {left_out[-1]}.")
    unreadable = competition.train["id"].iloc[list(errors)]
    if errors:
        competition = replace(
            competition,
            train=competition.train.iloc[readable].reset_index(drop=True),
            labels=competition.labels.iloc[readable].reset_index(drop=True),
        )
        pictures, labelled = pictures[readable], labelled[readable]
    data = Data(pictures, encode_labels(competition), competition.classes)
    _check_classes(data, console)

    has_picture = np.flatnonzero(_has_picture(competition))
    test_readable = np.zeros(0 if competition.test is None else len(competition.test), bool)
    test_readable[np.delete(has_picture, list(test_errors))] = True
    groups = competition.train["group"].to_numpy() if competition.group_column else None
    splits = _splits(competition, data, groups, recipe, unreadable)
    _check_groups(groups, splits, console)
    least = min(max(1, round(recipe.hardest * len(train))) for train, _ in splits)
    recipe = replace(recipe, batch_size=min(recipe.batch_size, least))
    network = build_network(recipe, data, "float32")  # an impossible choice fails here, before any training
    return Plan(
        competition=competition,
        recipe=recipe,
        data=data,
        groups=groups,
        splits=splits,
        encoded=labelled,
        hidden=hidden,
        test_pictures=test_pictures[np.delete(np.arange(len(hidden)), list(test_errors))],
        test_readable=test_readable,
        left_out=left_out,
        parameters=network.count_params(),
        rest=rest,
    )


def encode_labels(competition: Competition) -> dict[str, np.ndarray]:
    """Class numbers by target, int32, `MISSING` where there is no label."""
    encoded = {}
    for target, names in competition.classes.items():
        numbers = {name: number for number, name in enumerate(names)} | {"": MISSING}
        encoded[target] = competition.labels[target].map(numbers).to_numpy("int32")
    return encoded


def print_plan(plan: Plan, console: Console, devices: Devices = ONE) -> None:
    """What will be done, line by line."""
    recipe, data = plan.recipe, plan.data
    train_index, held_out = plan.splits[0]
    heads = ", ".join(f"{head} ({len(names)} classes)" for head, names in data.classes.items())
    validation = f"{len(held_out):,} held out for validation" if len(held_out) else "none held out: no score expected"
    if len(plan.splits) > 1:
        validation = f"{len(plan.splits)} folds, each in turn held out"
    elif plan.groups is not None and len(held_out):
        validation += f" in {len(np.unique(plan.groups[held_out])):,} groups"
    hidden = f"{len(plan.test_ids):,} to predict" if len(plan.test_ids) else "no test pictures"
    steps = [step.name.replace("_", " ") for step in augmentation(recipe)]
    balance = {"none": "", "weights": "; rare classes weigh more", "sampling": "; rare classes are drawn more often"}
    console.say(f"data      {len(data.pictures):,} labelled pictures, {validation}; {hidden}")
    console.say(f"predict   {heads}")
    console.say(f"pictures  {recipe.image_size[0]}x{recipe.image_size[1]} (height x width){balance[recipe.balance]}")
    console.say(f"augment   {', '.join(steps) or 'nothing'}")
    console.say(f"network   {recipe.model}, width {recipe.width:g}, {plan.parameters:,} parameters, {recipe.precision}")
    console.say(
        f"steps     {recipe.epochs} epochs of {len(train_index) // recipe.batch_size} steps of {recipe.batch_size} "
        f"pictures, {recipe.optimizer} with {_curve(recipe)} up to {recipe.lr:g}, seed {recipe.seed}"
    )
    if devices.count > 1:
        norm = f"in {recipe.norm_parts} parts" if (recipe.norm_parts or 1) > 1 else "over all of them"
        console.say(
            f"devices   {devices.describe()}: of a batch of {recipe.batch_size}, {recipe.batch_size // devices.count} "
            f"pictures on each, BatchNorm {norm}"
        )
    if several := _networks(recipe):
        console.say(f"networks  {several}")
    for size, parts in itertools.groupby(phases(recipe), key=lambda phase: phase.size):
        part = list(parts)
        if size is not None:
            console.say(f"          epochs {part[0].epochs[0] + 1} to {part[-1].epochs[1]} at {size[0]}x{size[1]}")
    if hard := [phase for phase in phases(recipe) if phase.share < 1]:
        console.say(
            f"          from epoch {hard[0].epochs[0] + 1} on the hardest {percent(recipe.hardest)} of the pictures, "
            f"steps an epoch: {steps_of(recipe, hard[0], len(train_index))}"
        )


def _curve(recipe: Recipe) -> str:
    return "one-cycle rate" if recipe.snapshots == 1 else f"{recipe.snapshots} cycles of a rate"


def _networks(recipe: Recipe) -> str:
    """What a split yields beside one network; empty where that is all."""
    parts = []
    if recipe.seeds > 1:
        parts.append(f"{recipe.seeds} for every split, seeds {recipe.seed} to {recipe.seed + recipe.seeds - 1}")
    if recipe.snapshots > 1:
        parts.append(f"{recipe.snapshots} snapshots of every training")
    if recipe.average != "none":
        parts.append(f"averaged weights ({recipe.average.upper()})")
    return ", ".join(parts)


def _has_picture(competition: Competition) -> np.ndarray:
    return np.zeros(0, bool) if competition.test is None else competition.test["path"].notna().to_numpy()


def _hidden(competition: Competition) -> Encoded:
    """Where the hidden pictures lie, of the rows that have one."""
    return (
        Encoded.files([]) if competition.test is None else encoded_pictures(competition.test[_has_picture(competition)])
    )


def _open_both(
    labelled: Encoded,
    hidden: Encoded,
    open_some: Callable[..., tuple[Pictures, dict[int, str]]],
    memory: float | None,
    console: Console,
) -> tuple[tuple[Pictures, dict[int, str]], tuple[Pictures, dict[int, str]]]:
    """What `open_some` gives for both; the hidden may take what the labelled leave of `memory` (bytes)."""
    began = time.monotonic()
    count = len(labelled) + len(hidden)
    with console.progress("decoding", count) as bar:
        allowed = free_for_pictures() if memory is None else memory
        pictures, errors = open_some(labelled, memory=allowed, on_progress=bar.update)
        if isinstance(pictures, np.ndarray):
            allowed -= pictures.nbytes
        of_hidden = open_some(hidden, memory=allowed, on_progress=lambda done: bar.update(len(labelled) + done))
    console.say(f"decoded   {count:,} pictures in {duration(time.monotonic() - began)}")
    console.say(f"memory    {_regime(pictures)}")
    return (pictures, errors), of_hidden


def _regime(pictures: Pictures) -> str:
    size = decoded_bytes(len(pictures), pictures.shape[1:3]) / 2**30
    if isinstance(pictures, Streamed):
        return f"read from disk in every epoch: decoded, they would take {size:.2f} GiB"
    return f"decoded pictures are kept in memory, {size:.2f} GiB"


def _check_classes(data: Data, console: Console) -> None:
    for head, names in data.classes.items():
        counts = np.bincount(data.labels[head][data.labels[head] != MISSING], minlength=len(names))
        if len(names) < 2:
            raise ValueError(f"Only one class of {head!r} is left: {names}. At least two are needed.")
        if once := [name for name, count in zip(names, counts, strict=True) if count == 1]:
            console.warn(f"{head}: {', '.join(once)} occurs once: it cannot be both learnt and validated.")


def _check_val(val: float | str | None) -> None:
    """Raise for a validation that cannot be had, before any picture is decoded."""
    if isinstance(val, str) and not Path(val).is_file():
        raise ValueError(
            f"`val` must be a fraction, a number of folds, 0, or a CSV file, and there is no file {val!r}."
        )


def _check_groups(groups: np.ndarray | None, splits: Sequence[Split], console: Console) -> None:
    """Warn where a file or a val/ folder holds out a part of a group."""
    if groups is None:
        return
    for train, held_out in splits:
        if len(shared := np.intersect1d(groups[train], groups[held_out])):
            console.warn(
                f"{len(shared):,} groups, such as {shared[0]}, are on both sides of the validation that was asked for: "
                "the expected score will be too high."
            )


def _splits(
    competition: Competition, data: Data, groups: np.ndarray | None, recipe: Recipe, unreadable: Iterable[str]
) -> list[Split]:
    if isinstance(recipe.val, str):
        return split_by_file(
            Path(recipe.val), competition.train["id"].to_numpy(), competition.id_column, set(unreadable)
        )
    if recipe.val is not None:
        return split(data.labels, recipe.val, groups=groups, seed=recipe.seed)
    held_out = (competition.train["part"] == "val").to_numpy()
    if not 0 < held_out.sum() < len(held_out):
        raise ValueError("The recipe's `val` is None, but no picture of a val/ folder is left to hold out.")
    return [(np.flatnonzero(~held_out), np.flatnonzero(held_out))]
