"""`kerascnn records`: a data set as TFRecord shards, which train faster than many small files."""

import time
from collections.abc import Sequence
from pathlib import Path

import pipelines
from apps import files
from apps.console import Console, duration
from pipelines.record_writer import write_records


def records(
    source: str,
    out: Path,
    *,
    targets: Sequence[str] | None,
    group: str | None,
    id_column: str | None,
    processes: int | None,
    strict: bool,
    console: Console,
) -> None:
    """Write the shards of a data set into the folder `out`, which may have been begun by an interrupted call.

    Raises:
        ValueError, FileNotFoundError: The data do not fit, `out` holds something else, or (`strict`) a row or a picture
            would be left out.
    """
    began = time.monotonic()
    competition = pipelines.open_dataset(source, targets=targets, group=group, id_column=id_column)
    for line in competition.columns:
        console.say(f"column    {line}")
    files.require_writable(out)
    hidden = 0 if competition.test is None else len(competition.test)
    try:
        with console.progress("writing", len(competition.train) + hidden) as bar:
            left_out = write_records(competition, out, processes=processes, strict=strict, on_progress=bar.update)
    except KeyboardInterrupt:
        console.warn("Stopped. The same command goes on after the shards that are complete.")
        raise
    for line in left_out:
        console.say(f"left out  {line}")
    shards = list(out.glob("[!.]*.tfrecord"))
    size = sum(shard.stat().st_size for shard in shards) / 2**20
    console.say(
        f"wrote     {out}, {len(shards)} shards, {size:,.1f} MiB, in {duration(time.monotonic() - began)}; train with: "
        f"kerascnn compete {out}"
    )
