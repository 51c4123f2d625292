"""What the user sees: plain lines, and progress bars where there is a terminal."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

SECONDS_BETWEEN_LINES = 15.0


class Console:
    """Lines on standard output, warnings on standard error; nothing but warnings with `quiet`."""

    def __init__(self, quiet: bool = False, file: TextIO | None = None) -> None:
        self.quiet = quiet
        self._rich = RichConsole(file=file or sys.stdout, highlight=False, soft_wrap=True)

    def say(self, line: str = "") -> None:
        """Print one line."""
        if not self.quiet:
            self._rich.print(line, markup=False, emoji=False)

    def table(self, headings: Sequence[str], lines: Sequence[Sequence[str]], sides: str) -> None:
        """Print columns as wide as their longest text, with "<" in `sides` to the left, with ">" to the right."""
        widths = [max(map(len, column)) for column in zip(headings, *lines, strict=True)]
        for line in (headings, *lines):
            cells = [f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True)]
            self.say("  ".join(cells).rstrip())

    def warn(self, line: str) -> None:
        """Print one line on standard error, also with `quiet`."""
        print(f"warning: {line}", file=sys.stderr, flush=True)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator["Bar"]:
        """A bar with the time left in a terminal, a line every 15 seconds elsewhere."""
        if self.quiet or not self._rich.is_terminal:
            yield Bar(self, what, total)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        with Progress(*columns, console=self._rich, transient=True) as bar:
            yield Bar(self, what, total, bar)


class Bar:
    """A piece of work in progress: `done` of `total`."""

    def __init__(self, console: Console, what: str, total: int, bar: Progress | None = None) -> None:
        self._console, self._what, self._total, self._bar = console, what, total, bar
        self._bar_id = bar.add_task(what, total=total, left="") if bar else None
        self._start = self._last_line = time.monotonic()

    def update(self, done: int, note: str = "", left: float | None = None, total: int | None = None) -> None:
        """Say how much is done, with a short note; `left` (seconds) and `total` where the caller knows them better."""
        now = time.monotonic()
        self._total = self._total if total is None else total
        if left is None:
            left = (now - self._start) * (self._total - done) / max(done, 1)
        what, still = f"{self._what} {note}".rstrip(), f"{duration(left)} left"
        if self._bar is not None and self._bar_id is not None:
            self._bar.update(self._bar_id, completed=done, total=self._total, description=what, left=still)
        elif done and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._console.say(f"  {what}, {done:,} of {self._total:,}, {still}")


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(7.6), duration(74), duration(3725)
    ('8 s', '1 min 14 s', '1 h 2 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def percent(fraction: float) -> str:
    """A fraction as a percentage with one digit.

    >>> percent(0.98765)
    '98.8 %'
    """
    return f"{100 * fraction:.1f} %"
