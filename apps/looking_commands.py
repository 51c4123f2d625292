"""The commands that look at finished runs: their options, and what they give to their programs."""

from pathlib import Path
from typing import Annotated

import typer

from apps.options import Debug, Quiet
from apps.startup import import_tensorflow

# Everything else is imported by the command that needs it: TensorFlow takes seconds, `--help` must not.


def report(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run, such as runs/digits.")],
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write report.html of a finished run again, with pictures where its data can be reached."""
    import_tensorflow(debug)
    from apps.console import Console
    from apps.report.report import report as write

    write(run, Console(quiet))
