"""`kerascnn compare RUN RUN...`: finished runs side by side, on a page and in the console."""

import os
import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from apps import files
from apps.compare.curves import draw_curves
from apps.compare.differences import cautions, differences
from apps.compare.significance import Pair, compare_pairs, in_words
from apps.compare.tables import Table, cost_table, difference_table, pair_table, score_table
from apps.console import Console
from apps.finished_run import FinishedRun, read_run
from apps.pages.figures import SERIES
from apps.pages.page import write_page

WIDTH = 120  # of running text
SAME = "Data, recipe and versions are the same: what differs is left to chance."


def compare(folders: Sequence[Path], out: Path, *, overwrite: bool, console: Console) -> None:
    """Compare finished runs.

    Args:
        folders: Of two runs at least, and as many at most as there are colours to tell them apart.
        out: The page to write.
        overwrite: Whether to replace it.
        console: Says the same in short.

    Raises:
        ValueError: One run, one twice or too many are given, a file is damaged, or `out` exists.
        FileNotFoundError: One is no run or not finished, or there is no folder for `out`.
    """
    check_folders(folders)
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists. Choose another name by `--out`, or say `--overwrite`.")
    files.require_folder_of(out)
    runs = [read_run(folder) for folder in folders]
    names = name_runs(folders)
    pairs, found, cautious = compare_pairs(runs), differences(runs), cautions(runs, names)
    print_comparison(runs, names, found, cautious, pairs, console)
    write_page(
        out,
        "compare/compare.html.jinja",
        title=", ".join(names),
        command=shlex.join(["kerascnn", "compare", *map(os.fspath, folders), "--out", os.fspath(out)]),
        runs=[(name, os.fspath(run.folder), colour) for name, run, colour in zip(names, runs, SERIES, strict=False)],
        same=SAME,
        differing=difference_table(found, names),
        cautions=cautious,
        scores=score_table(runs, names),
        costs=cost_table(runs, names),
        curves=draw_curves(runs, names),
        tests=[(pair, in_words(pair, names)) for pair in pairs],
        heads=list(dict.fromkeys(pair.head for pair in pairs)),
        counts=pair_table(pairs, names),
    )
    console.say(f"wrote     {out}")


def check_folders(folders: Sequence[Path]) -> None:
    """A `ValueError` where these are not several different runs."""
    if len(folders) < 2:
        raise ValueError(f"`compare` needs two runs at least. Received: {', '.join(map(str, folders)) or 'none'}.")
    if len(folders) > len(SERIES):
        raise ValueError(f"`compare` takes {len(SERIES)} runs at most. Received: {len(folders)}.")
    seen: dict[Path, Path] = {}
    for folder in folders:
        if (before := seen.setdefault(folder.resolve(), folder)) is not folder:
            raise ValueError(f"{before} and {folder} are the same run. Name each run once.")


def name_runs(folders: Sequence[Path]) -> list[str]:
    """The names of the folders, or their paths where two have one name.

    >>> name_runs([Path("runs/a"), Path("runs/b")]), name_runs([Path("x/a"), Path("y/a")])
    (['a', 'b'], ['x/a', 'y/a'])
    """
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [os.fspath(folder) for folder in folders]


def print_comparison(
    runs: Sequence[FinishedRun],
    names: Sequence[str],
    found: Sequence[tuple[str, Sequence[str]]],
    cautious: Sequence[str],
    pairs: Sequence[Pair],
    console: Console,
) -> None:
    """What the page says, without its curves."""
    if found:
        _say(difference_table(found, names), console)
    else:
        console.say(SAME)
    for table in (score_table(runs, names), cost_table(runs, names)):
        console.say()
        _say(table, console)
    console.say()
    several = len({pair.head for pair in pairs}) > 1
    for pair in pairs:
        _say_wrapped("test", f"{pair.head + ': ' if several else ''}{in_words(pair, names)}", console)
    for sentence in cautious:
        _say_wrapped("note", sentence, console)


def _say(table: Table, console: Console) -> None:
    console.table(table.headings, table.rows, table.sides)


def _say_wrapped(title: str, text: str, console: Console) -> None:
    for line in textwrap.wrap(
        text, WIDTH, initial_indent=f"{title:<10}", subsequent_indent=" " * 10, break_on_hyphens=False
    ):
        console.say(line)


if __name__ == "__main__":
    from apps.cli import main

    main(["compare", *sys.argv[1:]])
