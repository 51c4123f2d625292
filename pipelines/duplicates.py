"""What twins mean for a competition: hidden pictures that are known, labels that contradict, splits that leak."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.finding import NOTE, SERIOUS, WARNING, Finding, Ids, share, some
from pipelines.labels import MISSING
from pipelines.split import Split
from pipelines.twins import Twins

SERIOUS_SHARE = 0.01  # of the hidden or the held-out pictures, from which on the score is another one


def duplicate_findings(
    twins: Twins, ids: Ids, labelled: int, files: np.ndarray | None = None, inside: bool = True
) -> list[Finding]:
    """Duplicates inside the labelled pictures, inside the hidden ones, and across.

    Args:
        twins: Of the labelled pictures, then the hidden ones.
        ids: Of all of them.
        labelled: How many are labelled.
        files: int [N], equal for equal files (their checksum, say); None where it is not known.
        inside: Whether to speak of more than what lies across.
    """
    found = []
    hidden = np.arange(len(ids)) >= labelled
    for part, mask in (("labelled", ~hidden), ("hidden", hidden)) if inside else ():
        places = np.flatnonzero(mask)
        exact = _repeats(twins.same[places])
        if exact.any():
            again = places[exact]
            as_files = "" if files is None else f", {_repeats(files[places])[exact].sum():,} of them as the same file"
            found.append(
                Finding(
                    f"equal {part} pictures",
                    WARNING if part == "labelled" else NOTE,
                    f"{_pictures(len(again))} of the {len(places):,} {part} ones repeat an earlier one pixel by "
                    f"pixel{as_files}.",
                    len(again),
                    _groups(twins.same, places, again, ids),
                    "Leave the repetitions out of train.csv." if part == "labelled" else "",
                )
            )
        near = _repeats(twins.near[places]) & ~exact
        if near.any():
            again = places[near]
            found.append(
                Finding(
                    f"near duplicates among {part} pictures",
                    WARNING if part == "labelled" and near.sum() >= SERIOUS_SHARE * len(places) else NOTE,
                    f"{_pictures(len(again))} of the {len(places):,} {part} ones {_are(len(again))} nearly equal to "
                    "another (encoding, size, light or a little motion apart).",
                    len(again),
                    _groups(twins.near, places, again, ids),
                    "Give such pictures one value in a column and name it by `--group`, so that no split parts them."
                    if part == "labelled"
                    else "",
                )
            )
    equal = np.zeros(len(ids), bool)
    for kind, groups in (("equal", twins.same), ("nearly equal", twins.near)):
        known = hidden & np.isin(groups, groups[:labelled]) & ~equal
        equal |= known
        if count := int(known.sum()):
            again = np.flatnonzero(known)
            found.append(
                Finding(
                    f"hidden pictures {kind} to labelled ones",
                    SERIOUS if count >= SERIOUS_SHARE * hidden.sum() else WARNING,
                    f"{_pictures(count)} of the {hidden.sum():,} hidden ones ({share(count, hidden.sum())}) "
                    f"{_are(count)} {kind} to a labelled one.",
                    count,
                    tuple(
                        f"{ids[place]} = {ids[np.flatnonzero(groups[:labelled] == groups[place])[0]]}"
                        for place in some_places(again)
                    ),
                    "Their labels are known: part of the hidden score is memory. Do not expect it of new pictures.",
                )
            )
    return found


def contradictions(
    twins: Twins, ids: Ids, labels: Mapping[str, np.ndarray], classes: Mapping[str, Sequence[str]]
) -> list[Finding]:
    """Equal and near-equal labelled pictures with different labels, for every head.

    Args:
        twins: Whose first pictures are the labelled ones.
        ids: Of the labelled pictures.
        labels: Class numbers by head, `MISSING` where there is none.
        classes: Class names by head.
    """
    found = []
    for head, values in labels.items():
        parted_already = np.zeros(len(values), bool)
        for kind, groups in (("equal", twins.same), ("nearly equal", twins.near)):
            groups = groups[: len(values)]
            parted = (values != MISSING) & np.isin(groups, _groups_with_several(groups, values))
            fresh = parted & ~parted_already
            parted_already |= parted
            if not fresh.any():
                continue
            examples = []
            for group in list(dict.fromkeys(groups[fresh]))[:3]:
                members = np.flatnonzero((groups == group) & (values != MISSING))
                _, one_of_each = np.unique(values[members], return_index=True)
                told = [f"{ids[place]} ({classes[head][values[place]]})" for place in members[np.sort(one_of_each)]]
                examples.append(" = ".join(told))
            count = int(fresh.sum())
            found.append(
                Finding(
                    f"{kind} pictures with different labels",
                    SERIOUS if kind == "equal" else WARNING,
                    f"{head}: {_pictures(count)} {_are(count)} {kind} to one with another label.",
                    count,
                    tuple(examples),
                    "One of the labels is wrong: look at them, correct train.csv or leave them out.",
                )
            )
    return found


def straddling(twins: Twins, ids: Ids, groups: np.ndarray | None, splits: Sequence[Split]) -> list[Finding]:
    """What lies on both sides of a split, or in two groups, and should not.

    Args:
        twins: Whose first pictures are the labelled ones.
        ids: Of the labelled pictures.
        groups: The group of every labelled picture; None without groups.
        splits: Index pairs (train, validation).
    """
    found = []
    near = twins.near[: len(ids)]
    if groups is not None:
        apart = np.isin(near, _groups_with_several(near, np.unique(groups, return_inverse=True)[1]))
        if count := int(apart.sum()):
            found.append(
                Finding(
                    "duplicates in different groups",
                    WARNING,
                    f"{_pictures(count)} {_are(count)} equal or nearly equal to one of another group.",
                    count,
                    _groups(near, np.arange(len(ids)), np.flatnonzero(apart), ids),
                    "A split by groups may part them. Are the groups right? Give such pictures one group.",
                )
            )
        cut = sorted({str(one) for train, held in splits for one in np.intersect1d(groups[train], groups[held])})
        if cut:
            found.append(
                Finding(
                    "groups on both sides of the split",
                    SERIOUS,
                    f"{len(cut):,} group{'' if len(cut) == 1 else 's'} lie{'s' if len(cut) == 1 else ''} on both "
                    "sides of the validation that was asked for.",
                    len(cut),
                    some(cut),
                    "The expected score will be too high: hold out whole groups, or let `--val 0.1` do it.",
                )
            )
    known = [held[np.isin(near[held], near[train])] for train, held in splits]
    count, of = sum(map(len, known)), sum(len(held) for _, held in splits)
    if count:
        places = np.concatenate(known)
        found.append(
            Finding(
                "held-out pictures known from training",
                SERIOUS if count >= SERIOUS_SHARE * of and count >= 3 else WARNING,
                f"{_pictures(count)} of the {of:,} held out for validation ({share(count, of)}) {_are(count)} equal or "
                "nearly equal to one that is trained on.",
                count,
                some(ids[place] for place in places),
                f"The expected score is too high by up to {share(count, of)}. Give duplicates one value in a column "
                "and name it by `--group`.",
            )
        )
    return found


def some_places(places: np.ndarray) -> list[int]:
    """The first three."""
    return places[:3].tolist()


def _repeats(values: np.ndarray) -> np.ndarray:
    """bool [N]: whether the same value came before."""
    repeats = np.ones(len(values), bool)
    repeats[np.unique(values, return_index=True)[1]] = False
    return repeats


def _groups_with_several(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The groups in which more than one value occurs, `MISSING` apart."""
    known = values != MISSING
    pairs = np.unique(np.stack([groups[known], values[known]], axis=1), axis=0)
    names, counts = np.unique(pairs[:, 0], return_counts=True)
    return names[counts > 1]


def _groups(groups: np.ndarray, among: np.ndarray, places: np.ndarray, ids: Ids) -> tuple[str, ...]:
    """A few groups as "one = other"."""
    examples = []
    for group in list(dict.fromkeys(groups[places].tolist()))[:3]:
        members = among[groups[among] == group]
        examples.append(" = ".join(str(ids[place]) for place in members[:3]) + (" = ..." if len(members) > 3 else ""))
    return tuple(examples)


def _pictures(count: int) -> str:
    return f"{count:,} picture{'' if count == 1 else 's'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
