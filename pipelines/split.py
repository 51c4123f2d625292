"""Which labelled pictures are held out for validation: stratified by label, never across a group."""

import warnings
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, StratifiedShuffleSplit

from pipelines.labels import MISSING
from pipelines.table import read_table

Split = tuple[np.ndarray, np.ndarray]


def split(
    labels: Mapping[str, np.ndarray], val: float, *, groups: np.ndarray | None = None, seed: int = 0
) -> list[Split]:
    """Index pairs (train, validation), sorted: one for a fraction, k for k folds, one with nothing held out for 0.

    Without groups, a label that occurs once stays in training, where alone it is of use, and training has every class.

    Args:
        labels: For every head, N class numbers. The pictures are stratified by the heads together.
        val: Fraction in (0, 0.5], a whole number of folds of 2 or more, or 0.
        groups: N values; equal ones stay together.
        seed: Of the random choice.

    Raises:
        ValueError: `val` is none of these, or there are fewer groups than parts.
    """
    joint = _joint_labels(labels)
    everything = np.arange(len(joint))
    if val == 0:
        return [(everything, np.array([], int))]
    folds = int(val) if val >= 2 and float(val).is_integer() else 0
    if not folds and not 0 < val <= 0.5:
        raise ValueError(f"`val` is a fraction up to 0.5, a number of folds from 2 on, or 0. Received: val={val}.")
    if groups is not None:
        return _split_groups(labels, joint, groups, val, folds, seed)

    single = np.bincount(joint)[joint] == 1
    usable, alone = everything[~single], everything[single]
    if folds:
        if len(usable) == 0 or np.bincount(joint).max() < folds:
            raise ValueError(f"`val` asks for {folds} folds, but no class has that many pictures. Lower it.")
        pairs = _quietly(StratifiedKFold(folds, shuffle=True, random_state=seed).split(usable, joint[usable]))
    else:
        held_out = max(2, round(val * len(everything)))
        if len(usable) < 2 * held_out:
            raise ValueError(
                f"{len(usable)} pictures whose label occurs at least twice are too few to hold out {held_out}. "
                "Use `--val 0` to train on all of them."
            )
        strata = _merge_smallest(joint[usable], most=held_out)
        pairs = list(StratifiedShuffleSplit(1, test_size=held_out, random_state=seed).split(usable, strata))
    return [_keep_classes(np.concatenate([usable[train], alone]), usable[held], labels) for train, held in pairs]


def split_by_file(path: Path, ids: np.ndarray, id_column: str, left_out: Collection[str] = ()) -> list[Split]:
    """The index pairs (train, validation) that a CSV file asks for.

    Args:
        path: One row a picture to hold out, named in the column `id_column` (or the only column). With a column "fold"
            there is one pair for each of its values, in their order; a picture that the file does not name, or without
            a fold, is always trained on.
        ids: Of all labelled pictures.
        id_column: As in train.csv.
        left_out: Ids of pictures that cannot be read, which the file may name.

    Raises:
        FileNotFoundError, ValueError: There is no such file; it names an unknown picture, one twice, all or none.
    """
    table = read_table(path)
    column = id_column if id_column in table.columns else table.columns[0]
    table = table[~table[column].isin(left_out)]
    places = {name: place for place, name in enumerate(ids)}
    unknown = [name for name in table[column] if name not in places]
    if unknown:
        raise ValueError(
            f"{path} names {len(unknown):,} pictures that are not among the labelled ones, such as {unknown[0]}; "
            f"ids look like {ids[0]}."
        )
    if table[column].duplicated().any():
        raise ValueError(f"{path} names {table[column][table[column].duplicated()].iloc[0]!r} more than once.")
    folds = table["fold"] if "fold" in table.columns else pd.Series("1", index=table.index)
    names = sorted(set(folds) - {""}, key=lambda fold: (len(fold), fold) if fold.isdigit() else (0, fold))
    everything = np.arange(len(ids))
    pairs = []
    for fold in names:
        held_out = np.sort([places[name] for name in table[column][folds == fold]])
        pairs.append((np.setdiff1d(everything, held_out), held_out))
    if not pairs or any(not len(train) for train, _ in pairs):
        raise ValueError(f"{path} holds out {'every picture' if pairs else 'no picture'}; some must be trained on.")
    return pairs


def _keep_classes(train: np.ndarray, held_out: np.ndarray, labels: Mapping[str, np.ndarray]) -> Split:
    """The same split, sorted, with one picture moved back to training of every class that training would lack."""
    for values in labels.values():
        for lost in np.setdiff1d(values[held_out], [*values[train], MISSING]):
            back = held_out[values[held_out] == lost][0]
            train, held_out = np.append(train, back), held_out[held_out != back]
    return np.sort(train), np.sort(held_out)


def _split_groups(
    labels: Mapping[str, np.ndarray], joint: np.ndarray, groups: np.ndarray, val: float, folds: int, seed: int
) -> list[Split]:
    names, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < max(folds, 2):
        raise ValueError(f"{len(names)} groups cannot be divided into {max(folds, 2)} parts.")
    if folds:
        if np.bincount(joint).max() < folds:
            joint = np.zeros_like(joint)  # too few of every class to spread over the parts
        return _quietly(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(joint, joint, groups))
    held_out = np.isin(group, _choose_groups(labels, joint, group, sizes, val * len(joint), seed))
    return [(np.flatnonzero(~held_out), np.flatnonzero(held_out))]


def _choose_groups(
    labels: Mapping[str, np.ndarray], joint: np.ndarray, group: np.ndarray, sizes: np.ndarray, wanted: float, seed: int
) -> np.ndarray:
    """Groups of about `wanted` pictures together, with labels like all pictures: the best of 200 random choices.

    No group may make up more than a third of them, so that one odd group does not decide the score; where there are
    not enough groups so small, a larger share is allowed. A choice that takes a whole class from training is a bad one.
    """
    generator = np.random.default_rng(seed)
    strata = _counts_by_group(_merge_smallest(joint, most=100), group)
    classes = np.concatenate(
        [
            _counts_by_group(values[values != MISSING], group[values != MISSING], len(sizes))
            for values in labels.values()
        ],
        axis=1,
    )
    for most in (wanted / 3, wanted / 2, wanted, np.inf):
        eligible = np.flatnonzero(sizes <= most)
        if sizes[eligible].sum() >= wanted:
            break
    best, best_distance = eligible[:1], np.inf
    for _ in range(200):
        order = generator.permutation(eligible)[: len(sizes) - 1]  # one group at least stays in training
        chosen = order[: max(1, int(np.searchsorted(np.cumsum(sizes[order]), wanted, side="right")))]
        distance = np.abs(strata[chosen].sum(axis=0) - wanted * strata.sum(axis=0) / len(joint)).sum()
        distance += wanted * np.count_nonzero(classes[chosen].sum(axis=0) == classes.sum(axis=0))
        if distance < best_distance:
            best, best_distance = chosen, distance
    return best


def _counts_by_group(values: np.ndarray, group: np.ndarray, groups: int | None = None) -> np.ndarray:
    """How often each of the values that occur (a column each) occurs in each group (a row each)."""
    found, column = np.unique(values, return_inverse=True)
    table = np.zeros((groups or group.max() + 1, len(found)))
    np.add.at(table, (group, column), 1)
    return table


def _quietly(pairs: Iterable[Split]) -> list[Split]:
    """The pairs, without scikit-learn's warning that a class has fewer pictures than there are folds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return list(pairs)


def _joint_labels(labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """One number for every combination of labels that occurs."""
    return np.unique(np.stack(list(labels.values()), axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def _merge_smallest(joint: np.ndarray, most: int) -> np.ndarray:
    """At most `most` strata: the largest as they are, all others as one."""
    values, inverse, counts = np.unique(joint, return_inverse=True, return_counts=True)
    smallest = np.argsort(counts, kind="stable")[: len(values) - most + 1 if len(values) > most else 0]
    return np.where(np.isin(inverse, smallest), len(values), inverse)
