"""Findings that need no comparison: classes, sizes, colour modes, blank pictures, files that cannot be read."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pipelines.finding import NOTE, WARNING, Finding, Ids, share, some
from pipelines.labels import MISSING

RARE = 10  # pictures of a class, of fewer little can be learnt
MOST = 0.8  # share of the largest class, above which accuracy says little
LONG = 2.0  # how many times longer than the usual shape, above which resizing to one shape distorts
SMALL = 0.5  # of the usual area's side, below which a picture is enlarged from little


def balance_findings(labels: Mapping[str, np.ndarray], classes: Mapping[str, Sequence[str]]) -> list[Finding]:
    """For every head: the largest and the smallest class, rare ones, single ones, missing labels."""
    found = []
    for head, values in labels.items():
        known = values[values != MISSING]
        names, counts = np.array(classes[head]), np.bincount(known, minlength=len(classes[head]))
        large, small = int(counts.argmax()), int(counts.argmin())
        missing = len(values) - len(known)
        most = counts[large] / max(len(known), 1)
        found.append(
            Finding(
                "class balance",
                WARNING if most >= MOST else NOTE,
                f"{head}: {len(names)} classes; the largest, {names[large]}, has {share(counts[large], len(known))} of "
                f"the labels, the smallest, {names[small]}, {counts[small]:,} of {len(known):,}"
                + (f"; {missing:,} labels are missing." if missing else "."),
                int(counts[large]),
                advice=f"Always answering {names[large]} is right so often: compare with that, "
                "not with chance; `--balance weights` works against it."
                if most >= MOST
                else "",
            )
        )
        single = names[counts == 1]
        if len(single):
            found.append(
                Finding(
                    "classes with one picture",
                    WARNING,
                    f"{head}: {len(single)} class{'' if len(single) == 1 else 'es'} with a single picture.",
                    len(single),
                    some(single),
                    "It cannot be both learnt and validated: find more pictures, or merge it with another class.",
                )
            )
        rare = (counts > 1) & (counts < RARE)
        if rare.any():
            found.append(
                Finding(
                    "rare classes",
                    NOTE,
                    f"{head}: {rare.sum()} class{'' if rare.sum() == 1 else 'es'} with fewer than {RARE} pictures.",
                    int(rare.sum()),
                    some(f"{name} ({count})" for name, count in zip(names[rare], counts[rare], strict=True)),
                    "`--balance weights` or `--balance sampling` helps a little, more pictures more.",
                )
            )
    return found


def header_findings(headers: pd.DataFrame, ids: Ids, part: str, sampled: bool = False) -> list[Finding]:
    """Sizes, shapes and colour modes of pictures, as `read_headers` gives them.

    Args:
        headers: The index are places in `ids`.
        ids: Of all pictures.
        part: How to call them: "labelled" or "hidden".
        sampled: Whether the headers are of some of the pictures only.
    """
    if headers.empty:
        return []
    height, width = headers["height"].to_numpy(float), headers["width"].to_numpy(float)
    sizes = pd.Series([f"{h:.0f}x{w:.0f}" for h, w in zip(height, width, strict=True)])
    common, often = sizes.value_counts().index[0], int(sizes.value_counts().iloc[0])
    several = "" if often == len(sizes) else f", {sizes.nunique():,} sizes from {sizes[np.argmin(height * width)]} to "
    several += "" if often == len(sizes) else f"{sizes[np.argmax(height * width)]}"
    modes = headers["format"] + " " + headers["mode"]
    kinds = ", ".join(f"{kind} {share(count, len(modes))}" for kind, count in modes.value_counts().items())
    what = f"{len(headers):,} {part} pictures{' looked at' if sampled else ''}: {share(often, len(sizes))} are {common}"
    found = [
        Finding("sizes and colour modes", NOTE, f"{what} (height x width){several}; {kinds}.", len(headers)),
    ]
    return found + _shape_findings(headers, sizes, ids, part) + _mode_findings(headers, ids, part)


def _shape_findings(headers: pd.DataFrame, sizes: pd.Series, ids: Ids, part: str) -> list[Finding]:
    """Pictures of an unusual aspect, or much smaller than the others; `sizes` in words."""
    height, width = headers["height"].to_numpy(float), headers["width"].to_numpy(float)
    found = []
    aspect = np.log(width / height)
    distorted = np.abs(aspect - np.median(aspect)) > np.log(LONG)
    if distorted.any():
        found.append(
            Finding(
                "odd shapes",
                NOTE,
                f"{distorted.sum():,} {part} pictures are more than {LONG:g} times longer or wider than usual: resized "
                "to one shape, they are distorted.",
                int(distorted.sum()),
                some(f"{ids[place]} ({size})" for place, size in _at(headers, sizes, distorted)),
                "Crop or pad them, or choose `--image-size` for what is usual.",
            )
        )
    area = np.sqrt(height * width)
    small = area < SMALL * np.median(area)
    if small.any():
        found.append(
            Finding(
                "small pictures",
                NOTE,
                f"{small.sum():,} {part} pictures have less than half of the usual side.",
                int(small.sum()),
                some(f"{ids[place]} ({size})" for place, size in _at(headers, sizes, small)),
            )
        )
    return found


def _mode_findings(headers: pd.DataFrame, ids: Ids, part: str) -> list[Finding]:
    """Pictures stored in another way than most: without colour, with a palette, opacity, printing colours, 16 bits."""
    found = []
    colourless = headers["mode"].isin(["L", "1", "LA", "I;16", "I"]).to_numpy()
    if 0 < colourless.mean() < 0.5:
        odd = headers.index[colourless]
        found.append(
            Finding(
                "grey among coloured pictures",
                NOTE,
                f"{len(odd):,} {part} pictures are stored without colour, the others with it.",
                len(odd),
                some(ids[place] for place in odd),
                "Harmless unless it goes with the class; `--set grayscale=0.1` prepares the network for it.",
            )
        )
    special = headers["mode"].isin(["CMYK", "P", "PA", "RGBA", "LA", "I;16", "I"]).to_numpy()
    if 0 < special.mean() < 0.5:
        unusual = headers[special]
        found.append(
            Finding(
                "unusual colour modes",
                NOTE,
                f"{len(unusual):,} {part} pictures have a palette, opacity, printing colours or 16 bits.",
                len(unusual),
                some(f"{ids[place]} ({mode})" for place, mode in zip(unusual.index, unusual["mode"], strict=True)),
                "They are decoded as viewers show them (opacity on white); look at one with `kerascnn show`.",
            )
        )
    return found


def blank_findings(blank: np.ndarray, ids: Ids, part: str) -> list[Finding]:
    """Pictures of one colour, bool [N]."""
    places = np.flatnonzero(blank)
    if not len(places):
        return []
    return [
        Finding(
            f"blank {part} pictures",
            WARNING if part == "labelled" else NOTE,
            f"{len(places):,} of {len(blank):,} {part} pictures {'is' if len(places) == 1 else 'are'} of one colour.",
            len(places),
            some(ids[place] for place in places.tolist()),
            "Nothing can be learnt from them: leave them out of train.csv." if part == "labelled" else "",
        )
    ]


def unreadable_findings(lines: Sequence[str]) -> list[Finding]:
    """Files that cannot be read: a line each, with the reason."""
    if not lines:
        return []
    return [
        Finding(
            "unreadable pictures",
            WARNING,
            f"{len(lines):,} picture{' that is' if len(lines) == 1 else 's that are'} named cannot be read.",
            len(lines),
            some(lines),
            "Training leaves them out; hidden ones are predicted by class frequency. Fetch them again.",
        )
    ]


def _at(headers: pd.DataFrame, values: pd.Series, mask: np.ndarray) -> list[tuple[int, str]]:
    """The places and values where the mask is true."""
    return list(zip(headers.index[mask], values[mask], strict=True))
