"""Everything that is decided and checked before a network is trained."""

import hashlib
import time
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from apps.console import Console, duration
from apps.recipe import Choices, Recipe, resolve
from apps.training import Data, build_network
from pipelines.batches import MISSING
from pipelines.competition import Competition
from pipelines.pictures import choose_size, load_pictures, picture_sizes
from pipelines.split import Split, split


@dataclass(frozen=True)
class Task:
    """Everything a training needs, decoded and checked."""

    competition: Competition
    recipe: Recipe
    data: Data
    groups: np.ndarray | None
    splits: list[Split]
    test_pictures: np.ndarray
    test_readable: np.ndarray
    left_out: list[str]
    fingerprint: str
    parameters: int

    @property
    def test_ids(self) -> np.ndarray:
        """The ids of the hidden pictures, in the order of the submission; empty without any."""
        return np.array([]) if self.competition.test is None else self.competition.test["id"].to_numpy()


def prepare(competition: Competition, choices: Choices, strict: bool, console: Console) -> Task:
    """Decode every picture, settle the recipe and split; raise for everything that would stop the training later."""
    for line in competition.columns:
        console.say(f"column    {line}")
    table, test = competition.train, competition.test
    paths = list(table["path"])
    size = choose_size(picture_sizes(paths))
    recipe = resolve(choices, len(paths), size, list(competition.classes.values()))
    start = time.monotonic()
    readable_paths = [] if test is None else [path for path in test["path"] if path is not None]
    with console.progress("decoding", len(paths) + len(readable_paths)) as progress:
        pictures, errors = load_pictures(paths, recipe.image_size, on_progress=progress.update)
        test_pictures, test_errors = load_pictures(
            readable_paths, recipe.image_size, on_progress=lambda done: progress.update(len(paths) + done)
        )
    console.say(f"decoded   {len(paths) + len(readable_paths):,} pictures in {duration(time.monotonic() - start)}")

    left_out = list(competition.left_out)
    for name, reason in [(paths[index], reason) for index, reason in errors.items()] + [
        (readable_paths[index], reason) for index, reason in test_errors.items()
    ]:
        left_out.append(f"{name}: {reason}")
    for line in left_out:
        console.say(f"left out  {line}")
    if strict and left_out:
        raise ValueError(f"`--strict` allows nothing to be left out, and {len(left_out)} things would be (see above).")

    keep = np.array([index not in errors for index in range(len(paths))], bool)
    if not keep.any():
        raise ValueError(f"None of the {len(paths)} training pictures can be read. First: {left_out[-1]}.")
    table = table[keep].reset_index(drop=True)
    competition = replace(competition, train=table)
    data = Data(pictures[keep], encode_labels(competition), competition.classes)
    for head, names in data.classes.items():
        single = [
            name
            for name, count in zip(
                names, np.bincount(data.labels[head][data.labels[head] >= 0], minlength=len(names)), strict=True
            )
            if count == 1
        ]
        if single:
            console.warn(f"{head}: {', '.join(single)} occurs once; it is learnt from, never validated.")
        if len(names) < 2:
            raise ValueError(f"Only one class of {head!r} is left: {names}. At least two are needed.")
    test_readable = np.zeros(0 if test is None else len(test), bool)
    if test is not None:
        has_file = np.flatnonzero(test["path"].notna())
        test_readable[np.delete(has_file, list(test_errors))] = True
        test_pictures = np.delete(test_pictures, list(test_errors), axis=0)
    groups = table["group"].to_numpy() if competition.group_column else None
    if (table["part"] == "val").any():
        held_out = (table["part"] == "val").to_numpy()
        splits = [(np.flatnonzero(~held_out), np.flatnonzero(held_out))]
    else:
        splits = split(data.labels, recipe.val, groups=groups, seed=recipe.seed)
    smallest = min(len(train_index) for train_index, _ in splits)
    recipe = replace(recipe, batch_size=min(recipe.batch_size, smallest))
    network = build_network(recipe, data, "float32")  # an impossible choice fails here, before any training
    return Task(
        competition,
        recipe,
        data,
        groups,
        splits,
        test_pictures,
        test_readable,
        left_out,
        fingerprint(table, competition.targets),
        network.count_params(),
    )


def encode_labels(competition: Competition) -> dict[str, np.ndarray]:
    """Class numbers by target, int32, `MISSING` where there is no label."""
    encoded = {}
    for target, names in competition.classes.items():
        numbers = {name: number for number, name in enumerate(names)} | {"": MISSING}
        encoded[target] = competition.train[target].map(numbers).to_numpy("int32")
    return encoded


def print_plan(task: Task, console: Console) -> None:
    """What will be done, line by line."""
    recipe, data = task.recipe, task.data
    train_count, val_count = len(task.splits[0][0]), len(task.splits[0][1])
    steps = train_count // recipe.batch_size
    heads = ", ".join(f"{head} ({len(names)} classes)" for head, names in data.classes.items())
    held_out = f"{val_count:,} held out for validation" if val_count else "none held out: no score can be expected"
    if len(task.splits) > 1:
        held_out = f"{len(task.splits)} folds, each in turn held out"
    elif task.groups is not None and val_count:
        held_out += f" in {len(np.unique(task.groups[task.splits[0][1]])):,} groups"
    hidden = f"; {len(task.test_readable):,} to predict" if len(task.test_readable) else "; no test pictures"
    console.say(f"data      {len(data.pictures):,} labelled pictures, {held_out}{hidden}")
    console.say(f"predict   {heads}")
    console.say(
        f"pictures  {recipe.image_size[0]}x{recipe.image_size[1]} pixels (height x width), "
        f"{'mirrored' if recipe.flip else 'never mirrored'}, crop padding {recipe.crop}"
    )
    console.say(f"network   {recipe.model}, width {recipe.width:g}, {task.parameters:,} parameters, {recipe.precision}")
    console.say(
        f"steps     {recipe.epochs} epochs of {steps} steps of {recipe.batch_size} pictures, "
        f"one-cycle rate up to {recipe.lr:g}, seed {recipe.seed}"
    )


def fingerprint(table: pd.DataFrame, targets: tuple[str, ...]) -> str:
    """A hash of the ids and labels, which tells a resumed run whether its data are still the same."""
    return hashlib.sha256(table[["id", *targets]].to_csv(index=False).encode()).hexdigest()[:16]
