"""Hints that give the label away without a look at the picture: how far the label follows from each of them."""

import math
import re
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import tensorflow as tf
from sklearn.model_selection import GroupKFold, KFold
from sklearn.tree import DecisionTreeClassifier

from pipelines.finding import NOTE, SERIOUS, WARNING, Finding, Ids, share
from pipelines.labels import MISSING

FOLDS = 5
MOST_PICTURES = 10_000  # an evenly spaced sample of more
FEWEST_PICTURES = 40
DEVIATIONS = 5.0  # standard errors that a gain must have to be spoken of
FEWEST_GROUPS = 10  # of fewer, no gain can be told from chance
GAINS = ((SERIOUS, 0.5), (WARNING, 0.25), (NOTE, 0.1))  # share of the majority's errors that a hint avoids
SOLE, SOLE_PICTURES = 0.9, 10  # precision and recall from which on a hint gives a class away; pictures it must have
OF_FILES = {"file size", "picture size", "file format"}  # which a network may see; it never sees ids and positions


def hint_features(headers: pd.DataFrame, ids: Ids, extensions: Mapping[int, str]) -> dict[str, np.ndarray]:
    """What might give labels away: by name a table of numbers [N, columns], a row for each row of `headers`.

    Args:
        headers: As `read_headers` gives them; the index are places in `ids`.
        ids: Of all pictures, in the order of the table.
        extensions: Of their files, by place.
    """
    height, width = headers["height"].to_numpy(float), headers["width"].to_numpy(float)
    kinds = [headers["format"], headers["mode"], pd.Series([extensions[place] for place in headers.index])]
    features = {
        "file size": headers["bytes"].to_numpy(float)[:, None],
        "picture size": np.stack([height, width, width / np.maximum(height, 1)], axis=1),
        "file format": np.stack([pd.factorize(kind)[0] for kind in kinds], axis=1).astype(float),
        "position in the table": headers.index.to_numpy(float)[:, None],
    }
    numbers = [re.search(r"(\d{1,15})\D*$", str(ids[place]).rsplit(".", 1)[0]) for place in headers.index]
    if sum(number is not None for number in numbers) > len(numbers) / 2:
        features["number in the id"] = np.array([[float(number[1]) if number else -1.0] for number in numbers])
    return features


def hint_findings(
    features: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    classes: Mapping[str, Sequence[str]],
    groups: np.ndarray | None = None,
) -> list[Finding]:
    """Which features predict the labels, measured on pictures (groups) that the prediction has not seen.

    Args:
        features: Tables of numbers [N, columns] by name, see `hint_features`.
        labels: N class numbers by head, `MISSING` where there is none.
        classes: Class names by head.
        groups: Of the N pictures; None without groups.
    """
    found = []
    for head, values in labels.items():
        known = np.flatnonzero(values != MISSING)
        known = known[np.unique(np.linspace(0, max(len(known) - 1, 0), min(len(known), MOST_PICTURES)).astype(int))]
        if len(known) < FEWEST_PICTURES or len(np.unique(values[known])) < 2:
            continue
        truth, group = values[known], None if groups is None else groups[known]
        varied = {name: table[known] for name, table in features.items() if (table[known] != table[known[0]]).any()}
        number = FEWEST_GROUPS if group is None else len(np.unique(group))
        if varied and number < FEWEST_GROUPS:
            what = f"{head}: {number} groups are too few to judge whether the class follows from {', '.join(varied)}."
            found.append(Finding("hints cannot be judged", NOTE, what, 0))
        for name, table in varied.items() if number >= FOLDS else ():
            finding = _judge(name, head, truth, predict_unseen(table, truth, group), classes[head], group)
            if finding is not None:
                found.append(finding)
    return found


def predict_unseen(feature: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """For each of N pictures the class that a small decision tree of the other folds says."""
    predicted = np.empty_like(labels)
    for train, test in folds_of(len(labels), groups):
        tree = DecisionTreeClassifier(max_leaf_nodes=64, min_samples_leaf=max(3, len(train) // 1000), random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that there are many classes for so few pictures
            predicted[test] = tree.fit(feature[train], labels[train]).predict(feature[test])
    return predicted


def folds_of(count: int, groups: np.ndarray | None, folds: int = FOLDS) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random index pairs (others, fold), which part no group; without groups where there are fewer than folds."""
    if groups is not None and len(np.unique(groups)) >= folds:
        return list(GroupKFold(folds, shuffle=True, random_state=0).split(np.zeros(count), groups=groups))
    return list(KFold(min(folds, count), shuffle=True, random_state=0).split(np.zeros(count)))


def deviations(differences: np.ndarray, groups: np.ndarray | None = None) -> float:
    """The sum in standard errors from 0, where pictures of a group are one draw and not several.

    >>> round(deviations(np.array([1.0] * 9 + [-1.0])), 2)
    2.53
    """
    if groups is not None:
        differences = np.bincount(np.unique(groups, return_inverse=True)[1], weights=differences)
    return float(differences.sum() / max(np.sqrt(np.square(differences).sum()), 1e-12))


def needed_deviations(groups: np.ndarray | None = None) -> float:
    """How large `deviations` must be to be spoken of: 5; with groups, what is as unlikely for so few as 5 for many.

    The sum of G values in standard errors from 0 is at most the root of G. It is Student's t with G - 1 degrees of
    freedom in another form: s^2 / G = t^2 / (G - 1 + t^2), which has the beta distribution of 1/2 and (G - 1) / 2.
    Infinite for fewer than ten groups.

    >>> [round(needed_deviations(np.arange(count)), 2) for count in (5, 10, 25, 100_000)]
    [inf, 3.07, 4.04, 5.0]
    """
    if groups is None:
        return DEVIATIONS
    count = len(np.unique(groups))
    if count < FEWEST_GROUPS:
        return math.inf
    tail = math.erfc(DEVIATIONS / math.sqrt(2))  # of a normal deviate, on both sides
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        above = tf.math.betainc(*(tf.constant(one, "float64") for one in ((count - 1) / 2, 0.5, 1 - middle)))
        low, high = (middle, high) if float(above) > tail else (low, middle)
    return math.sqrt(count * low)


def _judge(
    name: str,
    head: str,
    truth: np.ndarray,
    predicted: np.ndarray,
    classes: Sequence[str],
    groups: np.ndarray | None,
) -> Finding | None:
    right, majority = predicted == truth, np.bincount(truth).argmax() == truth
    accuracy, base = float(right.mean()), float(majority.mean())
    if deviations(right.astype(float) - majority, groups) < needed_deviations(groups):
        gain = 0.0
    else:
        gain = (accuracy - base) / max(1 - base, 1e-9)
    sole = [classes[number] for number in np.unique(truth).tolist() if _gives_away(number, truth, predicted)]
    severity = SERIOUS if sole else next((severity for severity, least in GAINS if gain >= least), None)
    if severity is None:
        return None
    if name not in OF_FILES and severity == SERIOUS:
        severity = WARNING
    what = f"{head}: the {name} alone is right on {share(accuracy, 1)} of unseen pictures, the largest class on "
    what += f"{share(base, 1)}"
    if sole:
        named = ", ".join(sole[:5]) + (", ..." if len(sole) > 5 else "")
        what += f"; it tells {named} from the others in more than nine cases of ten"
    advice = (
        "A network may learn that instead of the thing, and new pictures may not have it: make all files alike "
        "(size, format), and look whether the hidden ones are made so too."
        if severity != NOTE
        else "Part of it is content (much detail makes large files): worth a look, no more."
    )
    if name not in OF_FILES:
        advice = (
            "Networks see neither ids nor positions, and every split is drawn at random; but whoever splits this table "
            "in its order, or by ids, gets parts of different classes."
        )
    return Finding(f"hint: {name}", severity, f"{what}.", int(right.sum() - majority.sum()), tuple(sole), advice)


def _gives_away(number: int, truth: np.ndarray, predicted: np.ndarray) -> bool:
    """Whether a class, which is not the usual one, is told with high precision and recall."""
    is_class, told = truth == number, predicted == number
    both = int((is_class & told).sum())
    enough = is_class.sum() >= SOLE_PICTURES and is_class.mean() <= 0.5
    return bool(enough and both >= SOLE * is_class.sum() and both >= SOLE * told.sum())
