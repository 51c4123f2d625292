"""Writing TFRecord shards: several processes, each shard whole or not at all, an interrupted writing goes on."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf

from pipelines.competition import Competition, encoded_pictures
from pipelines.decode import decode_picture
from pipelines.encoded import Encoded
from pipelines.pictures import why_unreadable
from pipelines.records import LABEL, PLACE, Row, ShardWriter, write_index
from pipelines.whole_file import UNFINISHED, whole_file

SHARD_BYTES = 64 * 2**20
PARTS = ("train", "val", "test")
SHUFFLE_SEED = (
    0  # neighbours on disk are not neighbours in the table, for those who read the shards one after the other
)


@dataclass(frozen=True)
class Job:
    """One shard to write: the pictures of some rows of a table, whose numbers it notes with their places."""

    path: Path
    numbers: list[int]
    rows: list[Row]
    encoded: Encoded

    @property
    def note(self) -> Path:
        """Where the places are noted; there only when the shard is complete."""
        return self.path.with_suffix(".json")


def write_records(
    competition: Competition,
    folder: Path,
    *,
    processes: int | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> list[str]:
    """Write shards of all pictures of a data set, hidden ones included; returns what was left out, a line each.

    Each picture is decoded once, to be sure that it can be, and stored as it is. Called again for the same data, it
    goes on after the shards that are complete.

    Args:
        competition: Of `pipelines.open_dataset`.
        folder: New, empty, or begun by an earlier call for the same data.
        processes: How many write at a time; None for one a core.
        on_progress: Called with the number of pictures done.

    Raises:
        ValueError: The folder holds something else.
    """
    everything = _all_rows(competition)
    jobs = _jobs(everything, competition.targets, folder)
    folder.mkdir(parents=True, exist_ok=True)
    _begin(folder, everything)
    done = sum(len(job.numbers) for job in jobs if job.note.is_file())
    on_progress(done)
    waiting = [job for job in jobs if not job.note.is_file()]
    # Processes of their own, not copies of this one: TensorFlow's threads do not survive a fork.
    with ProcessPoolExecutor(processes or os.cpu_count(), mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(write_shard, job): job for job in waiting}
        try:
            for future in as_completed(futures):
                future.result()
                done += len(futures[future].numbers)
                on_progress(done)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return _finish(folder, competition, everything, jobs)


def is_picture(data: bytes) -> bool:
    """Whether these bytes can be decoded."""
    try:
        _decode(data)
    except (ValueError, tf.errors.OpError):
        return False
    return True


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _decode(data: tf.Tensor) -> tf.Tensor:
    return decode_picture(data)


def write_shard(job: Job) -> None:
    """Write one shard, and beside it a note of where each picture begins and which could not be read."""
    places, unreadable = [], []
    with whole_file(job.path) as unfinished, ShardWriter(unfinished) as shard:
        for place, (number, row) in enumerate(zip(job.numbers, job.rows, strict=True)):
            try:
                data = job.encoded.read(place)
            except (OSError, ValueError):
                data = b""
            if is_picture(data):
                places.append([number, *shard.add(data, row)])
            else:
                unreadable.append([number, why_unreadable(job.encoded, place)])
    with whole_file(job.note) as unfinished:
        unfinished.write_text(json.dumps({"places": places, "unreadable": unreadable}), encoding="utf-8")


def _all_rows(competition: Competition) -> pd.DataFrame:
    """Every row, labelled and hidden: part, id, path, group, a column for each head, and its place if it is in a shard."""
    train = competition.train.drop(columns="path").assign(path=competition.train["path"])
    for target in competition.targets:
        train[LABEL + target] = competition.labels[target]
    tables = [train]
    if competition.test is not None:
        tables.append(competition.test.assign(part="test"))
    return pd.concat(tables, ignore_index=True).fillna({"group": "", **{LABEL + t: "" for t in competition.targets}})


def _jobs(everything: pd.DataFrame, targets: Sequence[str], folder: Path) -> list[Job]:
    """The shards: each part shuffled and divided into equal numbers of pictures, about 64 MiB each."""
    jobs = []
    for part in PARTS:
        rows = everything[(everything["part"] == part) & everything["path"].notna()]
        rows = rows.iloc[np.random.default_rng(SHUFFLE_SEED).permutation(len(rows))]
        encoded = encoded_pictures(rows)
        count = -(-encoded.total_bytes() // SHARD_BYTES)
        for number, chosen in enumerate(np.array_split(np.arange(len(rows)), count) if count else ()):
            table = rows.iloc[chosen]
            jobs.append(
                Job(
                    folder / f"{part}-{number:05d}-of-{count:05d}.tfrecord",
                    table.index.tolist(),
                    [
                        Row(row["id"], {target: row[LABEL + target] for target in targets})
                        for row in table.to_dict("records")
                    ],
                    encoded[chosen],
                )
            )
    return jobs


def _begin(folder: Path, everything: pd.DataFrame) -> None:
    """Note what is being written, or see that it is the same as in the folder already."""
    fingerprint = hashlib.sha256(everything.to_csv(index=False).encode("utf-8", "replace")).hexdigest()
    begun = folder / "unfinished.json"
    if begun.is_file():
        if json.loads(begun.read_text(encoding="utf-8"))["fingerprint"] != fingerprint:
            raise ValueError(f"{folder} was begun with other data. Choose another folder, or remove it.")
        for left_over in folder.glob(f"{UNFINISHED}*"):
            left_over.unlink(missing_ok=True)  # of a process that was killed
    elif any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty. Choose another folder.")
    else:
        with whole_file(begun) as unfinished:
            unfinished.write_text(json.dumps({"fingerprint": fingerprint}), encoding="utf-8")


def _finish(folder: Path, competition: Competition, everything: pd.DataFrame, jobs: Sequence[Job]) -> list[str]:
    """Join the shards' notes to index.csv; a labelled picture that cannot be read is left out of it."""
    index = everything.drop(columns=["path", *PLACE], errors="ignore")
    index[["shard", *PLACE]] = ""
    index = index.astype(object)
    unread = []
    for job in jobs:
        note = json.loads(job.note.read_text(encoding="utf-8"))
        for number, start, length, checksum in note["places"]:
            index.loc[number, ["shard", *PLACE]] = [job.path.name, start, length, checksum]
        unread += [(number, f"{everything['id'][number]}: {reason}") for number, reason in note["unreadable"]]
    left_out = [*competition.left_out, *(line for _, line in sorted(unread))]
    index = index[(index["shard"] != "") | (index["part"] == "test")]
    description = {
        "format": 1,
        "id_column": competition.id_column,
        "group_column": competition.group_column,
        "has_test": competition.test is not None,
        "columns": competition.columns,
        "left_out": left_out,
    }
    answers = competition.answers().reset_index(names=competition.id_column) if competition.answers else None
    write_index(folder, index, description, answers)
    for job in jobs:
        job.note.unlink(missing_ok=True)
    (folder / "unfinished.json").unlink(missing_ok=True)
    return left_out
