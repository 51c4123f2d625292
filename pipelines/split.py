"""Which labelled pictures are held out for validation: stratified by label, never across a group."""

import warnings
from collections.abc import Iterable, Mapping

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, StratifiedShuffleSplit

Split = tuple[np.ndarray, np.ndarray]


def split(
    labels: Mapping[str, np.ndarray], val: float, *, groups: np.ndarray | None = None, seed: int = 0
) -> list[Split]:
    """Index pairs (train, validation), sorted: one for a fraction, k for k folds, one with nothing held out for 0.

    A label that occurs once stays in training: held out, nothing could be learnt of it.

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
        return _split_groups(joint, groups, val, folds, seed)

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
    return [(np.sort(np.concatenate([usable[train], alone])), np.sort(usable[held])) for train, held in pairs]


def _split_groups(joint: np.ndarray, groups: np.ndarray, val: float, folds: int, seed: int) -> list[Split]:
    parts = folds or round(1 / val)
    found = len(np.unique(groups))
    if found < parts:
        raise ValueError(f"{found} groups cannot be divided into {parts} parts. Choose a larger `--val` fraction.")
    if np.bincount(joint).max() < parts:
        joint = np.zeros_like(joint)  # too few of every class to spread over the parts
    pairs = _quietly(StratifiedGroupKFold(parts, shuffle=True, random_state=seed).split(joint, joint, groups))
    return pairs if folds else pairs[:1]


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
    smallest = np.argsort(counts, kind="stable")[: max(0, len(values) - most + 1) if len(values) > most else 0]
    return np.where(np.isin(inverse, smallest), len(values), inverse)
