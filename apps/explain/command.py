"""`kerascnn explain`: a page that shows what a trained network looks at, part by part."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps import files
from apps.console import Console
from apps.explain.asked import parse_asked
from apps.explain.network import Network
from apps.explain.sections import (
    filters_section,
    hidden_rows,
    looking_section,
    maps_section,
    maximised_section,
    receptive_section,
    strongest_units,
)
from apps.explain.subject import Pictures, Subject, given_pictures, open_subject, page_of, telling, validation_pictures
from apps.explain.units import hidden_units
from apps.pages.page import write_page
from apps.predict import find_items

SHOWN = 6  # pictures, where none are asked for
MOST_SHOWN = 24


def explain(
    source: str,
    paths: Sequence[str],
    *,
    out: Path | None,
    layers: Sequence[str],
    classes: Sequence[str],
    units: Sequence[str],
    size: tuple[int, int] | None,
    steps: int,
    overwrite: bool,
    console: Console,
) -> None:
    """Write the page, and a line for every part.

    Raises:
        ValueError, FileNotFoundError: What is asked for does not exist, or the page does.
    """
    page = page_of(source) if out is None else out
    if page.exists() and not overwrite:
        raise ValueError(f"{page} exists. Choose another name by `--out`, or say `--overwrite`.")
    items = find_items(paths) if paths else []
    if out is not None:
        files.require_folder_of(out)
    subject = open_subject(source, size, items)
    network = subject.network
    asked = parse_asked(network, layers, classes, units)
    parts = Parts(console)
    shown, reference = _pictures(subject, items, parts)
    parts.filters(network)
    if shown is not None:
        colour = (shown if reference is None else reference).pixels.mean(axis=(0, 1, 2))
        parts.looking(network, shown, colour)
        parts.maps(network, shown, asked.layers)
    real = None if reference is None else reference.pixels
    targets = [*asked.classes, *(asked.units or strongest_units(network, asked.layers, real))]
    parts.maximised(network, targets, reference, steps)
    canvas = np.full((*network.size, network.channels), 160, "uint8") if shown is None else shown.pixels[0]
    parts.receptive(network, canvas, asked.layers)
    if reference is not None:
        parts.hidden(network, reference)
    write_page(
        page, "explain/explain.html.jinja", title=f"Inside {subject.name}", **_facts(subject, reference), **parts.found
    )
    console.say(f"wrote     {page}: {page.stat().st_size / 1e6:.1f} MB")


class Parts:
    """What the page shows, part by part; a line is said about each.

    Attributes:
        found: What the template asks for.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self.found: dict[str, Any] = {"filters": None, "units": {}, "left_out": []}
        self.found |= {part: [] for part in ("pictures", "maps", "classes", "receptive", "hidden")}

    def leave_out(self, what: str, why: str) -> None:
        """Say that a part is not there, and why."""
        self.found["left_out"].append(f"{what}: {why}")
        self._console.say(f"{what:<9} left out: {why}")

    def say(self, what: str, line: str) -> None:
        """A line about a part."""
        self._console.say(f"{what:<9} {line}")

    def warn(self, line: str) -> None:
        """A warning."""
        self._console.warn(line)

    def filters(self, network: Network) -> None:
        """The filters of the first layer."""
        try:
            self.found["filters"] = filters_section(network.model)
        except ValueError as error:
            return self.leave_out("filters", str(error))
        return self.say("filters", "{words} {note}".format(**self.found["filters"]))

    def looking(self, network: Network, shown: Pictures, colour: np.ndarray) -> None:
        """Grad-CAM and occlusion."""
        rows, missing = looking_section(network, shown, colour)
        self.found["pictures"] = rows
        if missing:
            self.leave_out("Grad-CAM", missing)
        what = "occlusion" if missing else "Grad-CAM and occlusion"
        self.say("pictures", f"{what} of {', '.join(shown.names)}")

    def maps(self, network: Network, shown: Pictures, layers: Sequence[str]) -> None:
        """Feature maps."""
        self.found["maps"] = maps_section(network, shown, layers)
        if not self.found["maps"]:
            return self.leave_out(
                "maps", f"no layer looked at has feature maps ({', '.join(layers) or 'none is hidden'})"
            )
        return self.say("maps", f"of {', '.join(row['layer'] for row in self.found['maps'])}")

    def maximised(self, network: Network, targets: Sequence[Any], reference: Pictures | None, steps: int) -> None:
        """Pictures made for classes and units, and real ones that excite these."""
        with self._console.progress("making pictures", steps * len(targets)) as bar:
            rows = maximised_section(network, targets, reference, steps, bar.update)
        self.found["classes"] = [row for row in rows if row["is_class"]]
        for row in rows:
            if not row["is_class"]:
                self.found["units"].setdefault(row["where"], []).append(row)
        above = sum(row["value"] > row["most"] for row in rows)
        compared = (
            ""
            if reference is None
            else f"; {above} of these answered to more than any real picture (of {len(reference.names):,})"
        )
        classes = len(self.found["classes"])
        self.say("maximised", f"{classes} classes, {len(rows) - classes} layers and units{compared}")

    def receptive(self, network: Network, picture: np.ndarray, layers: Sequence[str]) -> None:
        """Receptive fields."""
        self.found["receptive"] = receptive_section(network, picture, layers)
        if not self.found["receptive"]:
            return self.leave_out("receptive", "no layer looked at has places in the picture")
        return self.say("receptive", ", ".join(f"{row['layer']} {row['size']}" for row in self.found["receptive"]))

    def hidden(self, network: Network, reference: Pictures) -> None:
        """Correlation and sparsity."""
        rows = hidden_units(network, reference.pixels)
        self.found["hidden"] = hidden_rows(rows)
        known = [row for row in rows if not math.isnan(row["correlation"])]
        if known:
            most = max(known, key=lambda row: row["correlation"])
            self.say(
                "units",
                f"{len(rows)} layers; most alike those of {most['name']}, correlation {most['correlation']:.2f}",
            )


def _pictures(subject: Subject, items: Sequence[Any], parts: Parts) -> tuple[Pictures | None, Pictures | None]:
    """The pictures to show, and those to compare with: held-out ones of the run, else the same."""
    reference, telltale = None, None
    if subject.run is not None:
        try:
            reference, said = validation_pictures(subject.run, subject.network, alone=subject.networks == 1)
            telltale = reference.chosen(telling(said, SHOWN))
        except (ValueError, OSError) as error:
            parts.leave_out("held-out pictures", " ".join(str(error).split()))
    if not items:
        if telltale is None and subject.run is None:
            parts.leave_out("pictures", "none were named")
        return telltale, reference
    shown, failed = given_pictures(items[:MOST_SHOWN], subject.network)
    for name, reason in failed.items():
        parts.warn(f"{name}: {reason}")
    if not shown.names:
        raise ValueError(f"None of the pictures can be read: {next(iter(failed.values()))}.")
    if len(items) > MOST_SHOWN:
        parts.warn(f"The first {MOST_SHOWN} of {len(items):,} pictures are shown.")
    return shown, shown if reference is None else reference


def _facts(subject: Subject, reference: Pictures | None) -> dict[str, Any]:
    """What stands on top of the page."""
    network = subject.network
    return {
        "name": subject.name,
        "model": network.model.name,
        "parameters": network.model.count_params(),
        "size": network.size,
        "networks": subject.networks,
        "heads": network.classes,
        "held_out": subject.run is not None,
        "real": 0 if reference is None else len(reference.names),
    }
