"""Writing TFRecord shards: several processes, each shard whole or not at all, an interrupted writing goes on."""

import fcntl
import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
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
# Neighbours on disk are not neighbours in the table, for those who read the shards one after the other.
SHUFFLE_SEED = 0


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
    strict: bool = False,
    on_progress: Callable[[int], None] = lambda done: None,
) -> list[str]:
    """Write shards of all pictures of a data set, hidden ones included; returns what was left out, a line each.

    Each picture is decoded once, to be sure that it can be, and stored as it is. Called again for the same data, it
    goes on after the shards that are complete.

    Args:
        competition: Of `pipelines.open_dataset`.
        folder: New, empty, or begun by an earlier call for the same data.
        processes: How many write at a time; None for one a core.
        strict: Raise when a row or a picture would be left out.
        on_progress: Called with the number of pictures done.

    Raises:
        ValueError: The folder holds something else, another process writes into it, or (`strict`) something would be
            left out.
    """
    if strict:
        _refuse(competition.left_out)
    everything = _all_rows(competition)
    answers = competition.answers().reset_index(names=competition.id_column) if competition.answers else None
    jobs = _jobs(everything, competition.targets, folder)
    with _begun(folder, everything, jobs):
        done = sum(len(job.numbers) for job in jobs if job.note.is_file())
        on_progress(done)
        waiting = [job for job in jobs if not job.note.is_file()]
        # Processes of their own, not copies of this one: TensorFlow's threads do not survive a fork.
        with ProcessPoolExecutor(processes or os.cpu_count(), get_context("spawn"), _start_process) as pool:
            with _quiet():
                futures = {pool.submit(write_shard, job): job for job in waiting}
            try:
                for future in as_completed(futures):
                    future.result()
                    done += len(futures[future].numbers)
                    on_progress(done)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return _finish(folder, competition, everything, answers, jobs, strict)


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


@contextmanager
def _quiet() -> Iterator[None]:
    """What is started meanwhile prints nothing, if TensorFlow's messages are not wanted: some ignore its log level."""
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "3":
        yield
        return
    standard_error, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)
        os.close(nowhere)


def _start_process() -> None:
    """What a process does before its first shard: leave GPUs and Ctrl-C to its parent, and never outlive it."""
    tf.config.set_visible_devices([], "GPU")
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_parent() -> None:
        if parent := parent_process():
            parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _all_rows(competition: Competition) -> pd.DataFrame:
    """Every row, labelled and hidden: part, id, path, group, a column for each head; if it is in a shard, its place."""
    train = competition.train.copy()
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
        count = min(len(rows), max(1, -(-encoded.total_bytes() // SHARD_BYTES)))
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


@contextmanager
def _begun(folder: Path, everything: pd.DataFrame, jobs: Sequence[Job]) -> Iterator[None]:
    """Note what is being written, or see that it is what the folder was begun with; keep other processes out."""
    sizes = [(job.path.name, job.encoded.total_bytes()) for job in jobs]
    table = everything.to_csv(index=False).encode("utf-8", "surrogateescape")
    fingerprint = hashlib.sha256(table + json.dumps(sizes).encode()).hexdigest()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is not a folder. Choose another name.")
    folder.mkdir(parents=True, exist_ok=True)
    begun = folder / "unfinished.json"
    if not begun.is_file():
        if any(not entry.name.startswith(UNFINISHED) for entry in folder.iterdir()):
            raise ValueError(f"{folder} is not empty. Choose another folder.")
        with whole_file(begun) as unfinished:
            unfinished.write_text(json.dumps({"fingerprint": fingerprint}), encoding="utf-8")
    with begun.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"Another process is writing into {folder}. Wait for it, or stop it.") from None
        if json.load(file)["fingerprint"] != fingerprint:
            raise ValueError(f"{folder} was begun with other data. Choose another folder, or remove it.")
        for left_over in folder.glob(f"{UNFINISHED}*"):
            left_over.unlink(missing_ok=True)  # of a process that was killed
        yield


def _finish(
    folder: Path,
    competition: Competition,
    everything: pd.DataFrame,
    answers: pd.DataFrame | None,
    jobs: Sequence[Job],
    strict: bool,
) -> list[str]:
    """Join the shards' notes to index.csv; a labelled picture that cannot be read is left out of it."""
    places, unreadable = [], []
    for job in jobs:
        note = json.loads(job.note.read_text(encoding="utf-8"))
        places += [(number, [job.path.name, *place]) for number, *place in note["places"]]
        unreadable += note["unreadable"]
    is_test = everything["part"] == "test"
    left_out = list(competition.left_out)
    for number, reason in sorted(unreadable):
        left_out.append(
            f"{everything['id'][number]}: {reason}{' (predicted by class frequency)' if is_test[number] else ''}"
        )
    if strict:
        _refuse(left_out)
    numbers = [number for number, _ in places]
    found = pd.DataFrame([place for _, place in places], numbers, ["shard", *PLACE], dtype=object)
    index = everything.drop(columns=["path", *PLACE], errors="ignore").join(found)
    index = index[index["shard"].notna() | is_test]
    description = {
        "id_column": competition.id_column,
        "group_column": competition.group_column,
        "has_test": competition.test is not None,
        "columns": competition.columns,
        "left_out": left_out,
    }
    write_index(folder, index, description, answers)
    for job in jobs:
        job.note.unlink(missing_ok=True)
    (folder / "unfinished.json").unlink(missing_ok=True)
    return left_out


def _refuse(left_out: Sequence[str]) -> None:
    if left_out:
        raise ValueError(
            f"`--strict` allows nothing to be left out, and {len(left_out)} things would be, such as {left_out[0]}."
        )
