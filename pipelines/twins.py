"""Which pictures are the same: pixel by pixel, or after another encoding, size or a little more light."""

from dataclasses import dataclass

import numpy as np

from pipelines.look import Look

DIMENSIONS = 48  # principal components that the search compares first
CHUNK = 1024  # pictures compared with all others at once, at most
PRODUCTS = 2**26  # numbers that such a comparison may have in memory
# Of thumbnails, from which each channel's mean is taken: 1 - correlation, which neither light nor contrast changes.
FARTHEST = 0.03
# The same of the differences between neighbouring pixels, in which two skies or two shirts on one floor differ.
# Pictures that were made alike are often near: only what is much nearer than other pictures usually are counts.
FARTHEST_DETAIL, OF_USUAL_DETAIL, NEAREST_DETAIL = 0.07, 0.075, 0.005
SAMPLE = 1000  # pictures that tell what is usual
FEWEST = 20  # of fewer it cannot be told
NEAREST = 3  # the third nearest, since the nearest may be a duplicate itself
MOST_PAIRS = 500_000


@dataclass(frozen=True)
class Twins:
    """Which of N pictures belong together.

    Attributes:
        same: int [N]: equal for pictures with the same pixels.
        near: int [N]: equal for pictures that are the same or linked by near duplicates.
        complete: Whether the search ended; it stops after half a million pairs.
    """

    same: np.ndarray
    near: np.ndarray
    complete: bool = True


def find_twins(look: Look, rows: np.ndarray | None = None) -> Twins:
    """Equal and near-equal pictures among all of `look`.

    The search is exact: principal components bound the correlation from above (Cauchy-Schwarz), so that products of
    matrices leave few pairs to compare in full.

    Args:
        look: The pictures.
        rows: Places; near duplicates are found only where one of the two is among them. None for all.
    """
    _, first, same = np.unique(look.digests, return_index=True, return_inverse=True)
    same = same.reshape(-1)
    usable = first[~look.blank[first]]
    if rows is not None:
        wanted = np.isin(same[usable], same[rows])
        usable = np.concatenate([usable[wanted], usable[~wanted]])
        pairs, complete = near_pairs(look.thumbnails[usable], int(wanted.sum()))
    else:
        pairs, complete = near_pairs(look.thumbnails[usable])
    return Twins(same, _linked(same, same[usable][pairs]), complete)


def near_pairs(thumbnails: np.ndarray, rows: int | None = None) -> tuple[np.ndarray, bool]:
    """Pairs of places [P, 2], the lower first, of near-equal thumbnails uint8 [N, side, side, 3].

    Args:
        thumbnails: Of pictures that are not blank.
        rows: Only pairs with one of the first `rows`; None for all.

    Returns:
        The pairs, and whether these are all.
    """
    count = len(thumbnails)
    if count < 2:
        return np.zeros((0, 2), int), True
    sample = _directions(thumbnails[_spread(count)])
    _, basis = np.linalg.eigh(sample.T @ sample)
    basis = np.ascontiguousarray(basis[:, -DIMENSIONS:])
    chunks = range(0, count, CHUNK)
    short = np.concatenate([_directions(thumbnails[begin : begin + CHUNK]) @ basis for begin in chunks])
    # a.b <= short a . short b + |rest of a| |rest of b|, which is a product of vectors with one more number.
    rest = np.sqrt(np.maximum(1 - np.einsum("ij,ij->i", short, short), 0))
    bound = np.concatenate([short, rest[:, None]], axis=1)
    farthest = usual_detail(thumbnails)
    found, total = [np.zeros((0, 2), int)], 0
    end, height = count if rows is None else rows, min(CHUNK, max(1, PRODUCTS // count))
    for begin in range(0, end, height):
        chunk = bound[begin : min(begin + height, end)]
        places = np.flatnonzero(chunk @ bound[begin:].T >= 1 - FARTHEST - 1e-5)
        one, other = places // (count - begin) + begin, places % (count - begin) + begin
        pairs = np.stack([one, other], axis=1)[other > one]
        found.append(_confirmed(thumbnails, pairs, farthest))
        total += len(found[-1])
        if total > MOST_PAIRS:
            return np.concatenate(found), False
    return np.concatenate(found), True


def _confirmed(thumbnails: np.ndarray, pairs: np.ndarray, farthest: float) -> np.ndarray:
    """Those of the pairs that are near enough in full."""
    kept = [np.zeros((0, 2), int)]
    for begin in range(0, len(pairs), CHUNK):
        part = pairs[begin : begin + CHUNK]
        one, other = (thumbnails[places] for places in part.T)
        distance = 1 - np.einsum("ij,ij->i", _directions(one), _directions(other))
        detail = 1 - np.einsum("ij,ij->i", _details(one), _details(other))
        kept.append(part[(distance <= FARTHEST) & (detail <= farthest)])
    return np.concatenate(kept)


def usual_detail(thumbnails: np.ndarray) -> float:
    """Up to which distance of their details two pictures count as one, given how far others usually are."""
    details = _details(thumbnails[_spread(len(thumbnails))])
    if len(details) < FEWEST:
        return FARTHEST_DETAIL
    likeness = details @ details.T
    np.fill_diagonal(likeness, -1)
    usual = float(np.median(1 - np.sort(likeness, axis=1)[:, -NEAREST]))
    return float(np.clip(OF_USUAL_DETAIL * usual, NEAREST_DETAIL, FARTHEST_DETAIL))


def _spread(count: int) -> np.ndarray:
    """Places of a random sample, the same every time: neighbours are often alike."""
    return np.random.default_rng(0).permutation(count)[:SAMPLE]


def _directions(thumbnails: np.ndarray) -> np.ndarray:
    """float32 [N, D] of length 1: the thumbnails without each channel's mean."""
    values = _smooth(thumbnails)
    values -= values.mean(axis=(1, 2), keepdims=True)
    return _unit(values.reshape(len(values), -1))


def _details(thumbnails: np.ndarray) -> np.ndarray:
    """float32 [N, D] of length 1: differences between neighbouring pixels."""
    values = _smooth(thumbnails)
    parts = [np.diff(values, axis=axis).reshape(len(values), -1) for axis in (1, 2)]
    return _unit(np.concatenate(parts, axis=1))


def _smooth(thumbnails: np.ndarray) -> np.ndarray:
    """float32 [N, side - 1, side - 1, 3]: sums over 2x2 pixels, which move less when a picture does."""
    rows = thumbnails[:, 1:].astype("float32") + thumbnails[:, :-1]
    return rows[:, :, 1:] + rows[:, :, :-1]


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)


def _linked(same: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The numbers `same` after those of every pair have become one."""
    parent = np.arange(same.max() + 1 if len(same) else 0)

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = int(parent[number])
        return number

    for one, other in pairs.tolist():
        parent[root(one)] = root(other)
    roots = np.array([root(number) for number in range(len(parent))], int)
    return roots[same]
