"""Pictures whose label their nearest neighbours contradict: candidates for a wrong label."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.finding import NOTE, WARNING, Finding, Ids, share
from pipelines.hints import FEWEST_GROUPS, deviations, needed_deviations
from pipelines.labels import MISSING

NEIGHBOURS = 10
AGREEING = 9  # of these, that must name one other class while none names the picture's own
PRECISION = 0.9  # how often neighbours that agree so must be right, to be believed where they are not
MOST_REFERENCES = 10_000
CHUNK = 500
FEWEST_PICTURES = 50


def label_noise_findings(
    thumbnails: np.ndarray,
    ids: Ids,
    labels: Mapping[str, np.ndarray],
    classes: Mapping[str, Sequence[str]],
    groups: np.ndarray | None = None,
) -> list[Finding]:
    """For every head the pictures that nine of their ten nearest neighbours of other groups contradict.

    Where such neighbours are not right nine times in ten, colours and shapes this coarse tell too little, and a note
    says so; as one does of fewer than ten groups.

    Args:
        thumbnails: uint8 [N, side, side, 3].
        ids: Of the pictures.
        labels: Class numbers by head, `MISSING` where there is none.
        classes: Class names by head.
        groups: Of the pictures; None without groups.
    """
    found = []
    for head, values in labels.items():
        known = np.flatnonzero(values != MISSING)
        if len(known) < FEWEST_PICTURES:
            continue
        truth, group = values[known], None if groups is None else groups[known]
        if group is not None and (number := len(np.unique(group))) < FEWEST_GROUPS:
            what = f"{head}: {number} groups are too few to judge whether labels are wrong."
            found.append(Finding("label noise cannot be judged", NOTE, what, 0))
            continue
        voted = neighbour_classes(thumbnails[known], truth, group)
        usual = np.bincount(truth).argmax()
        said, agreeing = majority_of(voted)
        sure = agreeing >= AGREEING
        right = said == truth
        rest = f"; nearest neighbours are right on {share(right.mean(), 1)}, the largest class on " + share(
            (truth == usual).mean(), 1
        )
        # A class that most pictures have is agreed on by chance: only what contradicts it tells anything.
        telling = sure & (said != usual) if (truth == usual).mean() > 0.5 else sure
        trusted = np.zeros(len(truth), bool)
        for number in np.unique(said[telling]):
            named = telling & (said == number)
            trusted |= named & (right[named].mean() >= PRECISION)
        beats = deviations(right.astype(float) - (truth == usual), group) >= needed_deviations(group)
        wrong = trusted & ~right & (voted != truth[:, None]).all(axis=1)
        if not beats or not trusted.any():
            what = f"{head}: coarse colours and shapes tell too little of the class to find wrong labels{rest}."
            found.append(Finding("label noise cannot be judged", NOTE, what, 0))
        elif wrong.any():
            places = np.flatnonzero(wrong)
            found.append(
                Finding(
                    "candidates for wrong labels",
                    WARNING if len(places) >= 0.005 * len(truth) else NOTE,
                    f"{head}: the label of {len(places):,} picture{'' if len(places) == 1 else 's'} is contradicted by "
                    f"at least {AGREEING} of {NEIGHBOURS} nearest neighbours, which are right on "
                    f"{share(right[trusted].mean(), 1)} of the pictures where they agree so{rest}.",
                    len(places),
                    tuple(
                        f"{ids[known[place]]} ({classes[head][truth[place]]}, not {classes[head][said[place]]}?)"
                        for place in places[:5]
                    ),
                    "These are candidates, not errors: look at them before changing train.csv.",
                )
            )
    return found


def neighbour_classes(thumbnails: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """int [N, up to 10]: the classes of a picture's ten nearest neighbours, ascending; `MISSING` first where some lack.

    Neighbours are other pictures, of other groups, among at most 10,000 drawn at random; distances are those of the
    thumbnails at half their size.
    """
    count = len(labels)
    values = thumbnails.reshape(count, thumbnails.shape[1] // 2, 2, thumbnails.shape[2] // 2, 2, 3).mean(axis=(2, 4))
    values = values.reshape(count, -1).astype("float32")
    values -= values.mean(axis=0)
    references = np.random.default_rng(0).permutation(count)[:MOST_REFERENCES]
    others = values[references]
    lengths = np.square(others).sum(axis=1)
    number = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
    nearest = min(NEIGHBOURS, len(references) - 1)
    classes = np.full((count, nearest), MISSING)
    for begin in range(0, count, CHUNK):
        part = slice(begin, begin + CHUNK)
        distance = lengths - 2 * (values[part] @ others.T)
        distance[number[part, None] == number[references]] = np.inf
        found = np.argpartition(distance, nearest, axis=1)[:, :nearest]
        usable = np.isfinite(np.take_along_axis(distance, found, axis=1))
        classes[part] = np.where(usable, labels[references[found]], MISSING)
    return np.sort(classes, axis=1)


def majority_of(voted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The class that most of them have and how many, each [N]; of `neighbour_classes`, of equal ones the lowest.

    >>> majority_of(np.array([[2, 7, 7, 9], [-1, -1, 3, 4]]))
    (array([7, 3]), array([2, 1]))
    """
    counts = (voted[:, :, None] == voted[:, None, :]).sum(axis=2) * (voted != MISSING)
    place = counts.argmax(axis=1)
    rows = np.arange(len(voted))
    return voted[rows, place], counts[rows, place]
