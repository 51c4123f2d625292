"""The audit of a plan's pictures: in full for `kerascnn check`, in a few lines at the start of `kerascnn compete`."""

import os
import time
from pathlib import Path

import numpy as np

from apps.console import Console, duration
from apps.plan import Plan
from pipelines.audit import Evidence, audit, audit_briefly
from pipelines.competition import encoded_pictures
from pipelines.encoded import Encoded
from pipelines.finding import Finding
from pipelines.look import look_at, read_headers
from pipelines.split import Split
from pipelines.stream import Pictures, Streamed

BRIEF_HEADERS = 1500  # files of each kind whose headers the short audit reads
BRIEF_STREAMED = 2000  # pictures of each kind that it decodes where they are read from disk


def audit_plan(plan: Plan, console: Console) -> list[Finding]:
    """Look at everything."""
    began = time.monotonic()
    evidence = collect(plan, console)
    found = audit(evidence, lambda what: console.say(f"  looking at {what}"))
    console.say(
        f"audit     {len(plan.data.pictures) + len(plan.test_pictures):,} pictures in "
        f"{duration(time.monotonic() - began)}"
    )
    return found


def brief_audit(plan: Plan, console: Console) -> list[str]:
    """Say in a few lines what changes the score, and return it; never stops a run."""
    began = time.monotonic()
    try:
        sampled = [isinstance(pictures, Streamed) for pictures in (plan.data.pictures, plan.test_pictures)]
        found = audit_briefly(collect(plan, Console(quiet=True), brief=True))
    except Exception as error:  # whatever it is: an audit is no reason not to train
        console.warn(f"The audit failed and says nothing ({type(error).__name__}: {error}).")
        return []
    of = f" (a sample of up to {BRIEF_STREAMED:,} each, since they are read from disk)" if any(sampled) else ""
    lines = [finding.what for finding in found]
    seconds = duration(time.monotonic() - began)
    if not lines:
        console.say(f"audit     nothing serious in {seconds}{of}; more by `kerascnn check`")
    for line in lines:
        console.say(f"audit     {line}")
    if lines:
        console.say(f"          what to do, and more, by `kerascnn check` (this took {seconds}{of})")
    return lines


def collect(plan: Plan, console: Console, brief: bool = False) -> Evidence:
    """What the audit looks at; in `brief` the headers of some files, and some of the pictures that are on disk."""
    competition = plan.competition
    pictures, hidden_pictures = plan.data.pictures, plan.test_pictures
    hidden_encoded = Encoded.files([])
    if competition.test is not None and plan.test_readable.any():
        hidden_encoded = encoded_pictures(competition.test[plan.test_readable])
    ids, hidden_ids = competition.train["id"].to_numpy(), plan.test_ids[plan.test_readable]
    chosen, hidden_chosen = (_sample(one, brief) for one in (pictures, hidden_pictures))
    encoded, hidden_encoded = plan.encoded[chosen], hidden_encoded[hidden_chosen]
    total = len(chosen) + len(hidden_chosen)
    with console.progress("looking", total) as bar:
        look = look_at(_part(pictures, chosen), bar.update)
        hidden_look = look_at(_part(hidden_pictures, hidden_chosen), lambda done: bar.update(len(chosen) + done))
    places, hidden_places = (_some(len(one), BRIEF_HEADERS if brief else len(one)) for one in (encoded, hidden_encoded))
    with console.progress("headers", len(places) + len(hidden_places)) as bar:
        headers = read_headers(encoded, places, bar.update)
        hidden_headers = read_headers(hidden_encoded, hidden_places, lambda done: bar.update(len(places) + done))
    return Evidence(
        ids=ids[chosen],
        look=look,
        headers=headers,
        extensions={place: Path(os.fsdecode(encoded.paths[place])).suffix.lower() for place in headers.index},
        labels={head: values[chosen] for head, values in plan.data.labels.items()},
        classes=plan.data.classes,
        hidden_ids=hidden_ids[hidden_chosen],
        hidden_look=hidden_look,
        hidden_headers=hidden_headers,
        groups=None if plan.groups is None else plan.groups[chosen],
        splits=_among(plan.splits, chosen),
        unreadable=plan.left_out[len(competition.left_out) :],
    )


def _sample(pictures: Pictures, brief: bool) -> np.ndarray:
    return _some(len(pictures), BRIEF_STREAMED if brief and isinstance(pictures, Streamed) else len(pictures))


def _part(pictures: Pictures, chosen: np.ndarray) -> Pictures:
    """The chosen pictures; all of them are not copied."""
    return pictures if len(chosen) == len(pictures) else pictures[chosen]


def _some(count: int, most: int) -> np.ndarray:
    """Evenly spaced places below `count`, at most so many."""
    return np.arange(0, count, max(1, -(-count // max(most, 1))))


def _among(splits: list[Split], chosen: np.ndarray) -> list[Split]:
    """The splits of the chosen pictures, as places among them."""
    return [(np.flatnonzero(np.isin(chosen, train)), np.flatnonzero(np.isin(chosen, held))) for train, held in splits]
