"""The audit of labelled and hidden pictures before a training: everything that can be found without a network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pipelines.duplicates import contradictions, duplicate_findings, straddling
from pipelines.finding import NOTE, Finding, by_severity
from pipelines.hints import OF_FILES, hint_features, hint_findings
from pipelines.label_noise import label_noise_findings
from pipelines.look import Look
from pipelines.shift import FEWEST_PICTURES, MOST_PICTURES, measure_shift, picture_statistics, shift_findings
from pipelines.split import Split
from pipelines.statistics import balance_findings, blank_findings, header_findings, unreadable_findings
from pipelines.twins import find_twins

ALL_PAIRS = 20_000  # pictures; of more, the short audit looks for near duplicates of hidden and held-out ones only


@dataclass(frozen=True)
class Evidence:
    """What an audit looks at.

    Attributes:
        ids, hidden_ids: Of the labelled and of the hidden pictures that can be read.
        look, hidden_look: What was kept of them.
        headers, hidden_headers: Of their files, or of some of them (`read_headers`; the index are places).
        extensions: Of the labelled pictures' files, by place.
        labels: Class numbers by head, `MISSING` where there is none.
        classes: Class names by head.
        groups: Of the labelled pictures; None without groups.
        splits: Index pairs (train, validation) of the labelled pictures.
        unreadable: A line for every file that cannot be read.
    """

    ids: np.ndarray
    look: Look
    headers: pd.DataFrame
    extensions: Mapping[int, str]
    labels: Mapping[str, np.ndarray]
    classes: Mapping[str, Sequence[str]]
    hidden_ids: np.ndarray
    hidden_look: Look
    hidden_headers: pd.DataFrame
    groups: np.ndarray | None = None
    splits: Sequence[Split] = ()
    unreadable: Sequence[str] = field(default_factory=tuple)

    @property
    def all_ids(self) -> np.ndarray:
        """Those of the labelled pictures, then of the hidden ones."""
        return np.concatenate([self.ids.astype(object), self.hidden_ids.astype(object)])


def audit(evidence: Evidence, on_step: Callable[[str], None] = lambda what: None) -> list[Finding]:
    """Everything that is found, the most serious first.

    Args:
        evidence: With the headers of all pictures.
        on_step: Called with a few words before every part of the work.
    """
    one = evidence
    found = unreadable_findings(one.unreadable)
    on_step("duplicates")
    twins = find_twins(one.look + one.hidden_look)
    found += duplicate_findings(twins, one.all_ids, len(one.ids), _files(one))
    found += contradictions(twins, one.ids, one.labels, one.classes)
    found += straddling(twins, one.ids, one.groups, one.splits)
    on_step("hints")
    found += _hints(one)
    on_step("train and test")
    found += _shift(one, rounds=10)
    on_step("labels")
    found += label_noise_findings(one.look.thumbnails, one.ids, one.labels, one.classes, one.groups)
    found += balance_findings(one.labels, one.classes)
    parts = (
        ("labelled", one.ids, one.look, one.headers),
        ("hidden", one.hidden_ids, one.hidden_look, one.hidden_headers),
    )
    for part, ids, look, headers in parts:
        found += header_findings(headers, ids, part)
        found += blank_findings(look.blank, ids, part)
    return by_severity(found)


def audit_briefly(evidence: Evidence) -> list[Finding]:
    """What changes the score: known hidden and held-out pictures, contradicting labels, hints, hidden pictures unlike.

    Without notes, and without hints that no network sees.

    Args:
        evidence: The headers may be of some of the pictures.
    """
    one = evidence
    look = one.look + one.hidden_look
    twins = find_twins(look, None if len(look) <= ALL_PAIRS else _in_question(one))
    found = duplicate_findings(twins, one.all_ids, len(one.ids), inside=False)
    found += contradictions(twins, one.ids, one.labels, one.classes)
    found += straddling(twins, one.ids, one.groups, one.splits)
    found += _hints(one, of_files=True)
    found += _shift(one, rounds=5)
    return [finding for finding in by_severity(found) if finding.severity != NOTE]


def _in_question(evidence: Evidence) -> np.ndarray:
    """Places of the hidden and the held-out pictures among the labelled, then the hidden ones."""
    hidden = len(evidence.ids) + np.arange(len(evidence.hidden_ids))
    return np.unique(np.concatenate([*(held for _, held in evidence.splits[:1]), hidden]).astype(int))


def _files(evidence: Evidence) -> np.ndarray | None:
    """A number for every file, equal for equal files; None unless all are known."""
    counts = len(evidence.ids), len(evidence.hidden_ids)
    tables = evidence.headers, evidence.hidden_headers
    if any(len(table) != count for table, count in zip(tables, counts, strict=True)):
        return None
    both = pd.concat(tables)
    return (both["bytes"].to_numpy("int64") << 32) + both["checksum"].to_numpy("int64")


def _hints(evidence: Evidence, of_files: bool = False) -> list[Finding]:
    places = evidence.headers.index.to_numpy()
    features = hint_features(evidence.headers, evidence.ids, evidence.extensions)
    # Class folders are listed one after the other: their order tells the class, as it must.
    if of_files or _in_class_folders(evidence):
        features = {name: feature for name, feature in features.items() if name in OF_FILES}
    labels = {head: values[places] for head, values in evidence.labels.items()}
    groups = None if evidence.groups is None else evidence.groups[places]
    return hint_findings(features, labels, evidence.classes, groups)


def _in_class_folders(evidence: Evidence) -> bool:
    """Whether the ids name a folder that is the class."""
    if len(evidence.labels) != 1:
        return False
    ((head, values),) = evidence.labels.items()
    names = evidence.classes[head]
    return all(
        str(name).count("/") and str(name).split("/")[-2] == names[value]
        for name, value in zip(evidence.ids[:1000], values[:1000], strict=True)
    )


def _shift(evidence: Evidence, rounds: int) -> list[Finding]:
    one = evidence
    places, hidden_places = (_spaced(table.index.to_numpy()) for table in (one.headers, one.hidden_headers))
    if min(len(places), len(hidden_places)) < FEWEST_PICTURES:
        return []
    thumbnails = one.look.thumbnails[places], one.hidden_look.thumbnails[hidden_places]
    headers = one.headers.loc[places], one.hidden_headers.loc[hidden_places]
    kinds = [(table["format"] + " " + table["mode"]).to_numpy() for table in headers]
    labelled, hidden = (picture_statistics(*pair) for pair in zip(thumbnails, headers, strict=True))
    groups = None if one.groups is None else one.groups[places]
    shift = measure_shift(labelled, hidden, thumbnails, (kinds[0], kinds[1]), groups, rounds)
    return shift_findings(shift, groups is not None)


def _spaced(places: np.ndarray) -> np.ndarray:
    return places[:: -(-len(places) // MOST_PICTURES) or 1]
