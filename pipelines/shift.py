"""Whether the hidden pictures are of the same kind as the labelled ones: a classifier told to tell them apart."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipelines.finding import NOTE, SERIOUS, WARNING, Finding
from pipelines.hints import FOLDS, folds_of

MOST_PICTURES = 3000  # of each kind; an evenly spaced sample of more
FEWEST_PICTURES = 20
FEWEST_GROUPS = 10  # of fewer, what chance gives cannot be measured
DEVIATIONS = 3.0  # standard errors that the area must have above what chance gives
AREAS = ((SERIOUS, 0.7), (WARNING, 0.6), (NOTE, 0.55))
NOTABLE = 0.2  # standard deviations between two means that are spoken of
COMPONENTS = 20  # of the thumbnails
WORDS = {
    "brightness": "mean brightness",
    "contrast": "contrast",
    "saturation": "saturation",
    "detail": "detail",
    "red": "red",
    "green": "green",
    "blue": "blue",
    "height": "height",
    "width": "width",
    "aspect": "width / height",
    "bytes": "file size in bytes",
}
OF_SIZE = ("height", "width", "bytes")  # which are compared by their logarithm


@dataclass(frozen=True)
class Shift:
    """How well labelled and hidden pictures are told apart.

    Attributes:
        auc: Area under the ROC curve on pictures that the classifier has not seen: 0.5 is not at all, 1 is always. Not
            a number, as the next two, where there are too few groups to say.
        chance: What it is where there is no difference: 0.5, or with groups the mean for random groups taken as hidden.
        spread: Its standard deviation by chance.
        differences: (statistic, mean of the labelled, mean of the hidden, difference in standard deviations), the
            largest first.
    """

    auc: float
    chance: float
    spread: float
    differences: tuple[tuple[str, float, float, float], ...]

    @property
    def deviations(self) -> float:
        """Of the area from what chance gives, in standard deviations."""
        return (self.auc - self.chance) / self.spread


def picture_statistics(thumbnails: np.ndarray, headers: pd.DataFrame | None = None) -> pd.DataFrame:
    """Numbers that describe a picture each, a row a picture: colours from uint8 [N, side, side, 3], sizes from headers.

    Brightness, contrast and detail are in pixel units, the saturation in [0, 1].
    """
    values = thumbnails.astype("float32")
    grey = values.mean(axis=3)
    high, low = values.max(axis=3), values.min(axis=3)
    table = {
        "brightness": grey.mean(axis=(1, 2)),
        "contrast": grey.std(axis=(1, 2)),
        "saturation": ((high - low) / np.maximum(high, 1)).mean(axis=(1, 2)),
        "detail": np.abs(np.diff(grey, axis=1)).mean(axis=(1, 2)) + np.abs(np.diff(grey, axis=2)).mean(axis=(1, 2)),
    }
    table |= dict(zip(("red", "green", "blue"), values.mean(axis=(1, 2)).T, strict=True))
    if headers is not None:
        table |= {name: headers[name].to_numpy(float) for name in ("height", "width", "bytes")}
        table["aspect"] = table["width"] / np.maximum(table["height"], 1)
    return pd.DataFrame(table)


def measure_shift(
    labelled: pd.DataFrame,
    hidden: pd.DataFrame,
    thumbnails: tuple[np.ndarray, np.ndarray] | None = None,
    kinds: tuple[np.ndarray, np.ndarray] | None = None,
    groups: np.ndarray | None = None,
    rounds: int = 10,
) -> Shift:
    """Train a logistic regression to tell the hidden from the labelled pictures, and test it on others of both.

    Without groups, the area by chance has the mean 0.5 and the variance of the Mann-Whitney statistic. Pictures of one
    group look alike, and the groups of the hidden ones are not known: pictures of one of these are on both sides of a
    fold, which alone raises the area. What this gives is measured: random groups of the labelled pictures are taken as
    hidden, without their groups, `rounds` times. Of fewer than ten groups nothing can be said.

    Args:
        labelled, hidden: `picture_statistics` of both.
        thumbnails: Of both, whose principal components are used too; None for the statistics alone.
        kinds: Text [N] of both, such as the format, used too; None without.
        groups: Of the labelled pictures; None without groups.
        rounds: See above.
    """
    if groups is not None and len(np.unique(groups)) < FEWEST_GROUPS:
        return Shift(math.nan, math.nan, math.nan, _differences(labelled, hidden))
    both = pd.concat([labelled, hidden], ignore_index=True)
    is_hidden = np.arange(len(both)) >= len(labelled)
    features = _features(both, thumbnails, kinds)
    auc = _area(features, is_hidden, groups)
    chance, spread = 0.5, float(np.sqrt((len(both) + 1) / (12 * len(labelled) * len(hidden))))
    if groups is not None:
        areas = []
        for number in range(rounds):
            taken = _random_groups(groups, len(hidden) / len(both), np.random.default_rng(number))
            areas.append(
                _area(features[: len(labelled)][np.argsort(taken, kind="stable")], np.sort(taken), groups[~taken])
            )
        chance, spread = max(0.5, float(np.mean(areas))), max(spread, float(np.std(areas, ddof=1)))
    return Shift(auc, chance, spread, _differences(labelled, hidden))


def shift_findings(shift: Shift, grouped: bool = False) -> list[Finding]:
    """In words what `measure_shift` says; a note where the two cannot be told apart."""
    told = [
        f"{WORDS.get(name, name)} {_number(one)} against {_number(other)}"
        for name, one, other, difference in shift.differences[:3]
        if abs(difference) >= NOTABLE
    ]
    if math.isnan(shift.auc):
        what = (
            f"There are too few groups (fewer than {FEWEST_GROUPS}) to say whether hidden pictures are of another kind"
        )
        what += f"; labelled against hidden: {', '.join(told)}." if told else "."
        return [Finding("hidden pictures cannot be compared", NOTE, what, 0)]
    usual = f"random groups of the labelled ones with {shift.chance:.2f}" if grouped else "chance gives 0.50"
    what = f"A simple classifier tells hidden from labelled pictures with an AUC of {shift.auc:.2f}, {usual}"
    severity = next((severity for severity, least in AREAS if shift.auc - shift.chance >= least - 0.5), None)
    if severity is None or shift.deviations < DEVIATIONS:
        return [Finding("hidden pictures of the same kind", NOTE, f"{what}: they look alike.", 0)]
    what += f"; labelled against hidden: {', '.join(told)}." if told else "; by no single statistic."
    advice = (
        "The score on held-out pictures will not be that on the hidden ones: augment towards them (brightness, colour, "
        "size), or hold out pictures that are most like them (`--val FILE`)."
    )
    return [Finding("hidden pictures of another kind", severity, what, 0, advice=advice)]


def _features(
    both: pd.DataFrame,
    thumbnails: tuple[np.ndarray, np.ndarray] | None,
    kinds: tuple[np.ndarray, np.ndarray] | None,
) -> np.ndarray:
    """Numbers [N, D]: statistics and their squares, principal components, and 0 or 1 for every kind."""
    table = both.copy()
    for name in {*OF_SIZE, "aspect"} & set(table.columns):
        table[name] = np.log(np.maximum(table[name], 1e-3))
    values = table.to_numpy(float)
    values = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-9)
    parts = [values, np.square(values)]
    if thumbnails is not None:
        pixels = np.concatenate(thumbnails)[:, ::2, ::2].reshape(len(both), -1).astype("float32")
        pixels -= pixels.mean(axis=0)
        parts.append(pixels @ np.linalg.eigh(pixels.T @ pixels)[1][:, -COMPONENTS:])
    if kinds is not None:
        parts.append(pd.get_dummies(np.concatenate(kinds)).to_numpy(float))
    return np.concatenate(parts, axis=1)


def _area(features: np.ndarray, is_hidden: np.ndarray, groups: np.ndarray | None) -> float:
    """Of unseen pictures. The first ones are labelled, and `groups`, five at least, are theirs.

    Labelled and hidden pictures are dealt into folds separately, so that there are both in every fold.
    """
    count = int((~is_hidden).sum())
    scores = np.zeros(len(features))
    parts = folds_of(count, groups), folds_of(len(features) - count, None)
    for (train, test), (hidden_train, hidden_test) in zip(*parts, strict=True):
        train, test = np.append(train, count + hidden_train), np.append(test, count + hidden_test)
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200))
        scores[test] = model.fit(features[train], is_hidden[train]).decision_function(features[test])
    return float(roc_auc_score(is_hidden, scores))


def _random_groups(groups: np.ndarray, part: float, generator: np.random.Generator) -> np.ndarray:
    """bool [N]: random whole groups that make up about `part` of the pictures; both sides have at least five."""
    names, number, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = generator.permutation(len(names))
    ends = np.cumsum(sizes[order])
    within = (ends <= max(part * len(groups), sizes[order[0]])) | (ends - sizes[order] < FOLDS)
    return np.isin(number, order[within][: len(names) - FOLDS])


def _differences(labelled: pd.DataFrame, hidden: pd.DataFrame) -> tuple[tuple[str, float, float, float], ...]:
    found = []
    for name in labelled.columns:
        one, other = labelled[name].to_numpy(float), hidden[name].to_numpy(float)
        spread = max(float(np.sqrt((one.var() + other.var()) / 2)), 1e-9)
        found.append((name, float(one.mean()), float(other.mean()), float(other.mean() - one.mean()) / spread))
    return tuple(sorted(found, key=lambda row: -abs(row[3])))


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.2f}"
