"""The commands that look at finished runs: their options, and what they give to their programs."""

from pathlib import Path
from typing import Annotated

import typer

from apps.options import Debug, Overwrite, Quiet
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


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Folders of finished runs.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("compare.html"),
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Put finished runs side by side: what differs, scores, curves, whether the difference in accuracy is chance."""
    import_tensorflow(debug, devices=False)
    from apps.compare.compare import compare as run
    from apps.console import Console

    run(runs, out, overwrite=overwrite, console=Console(quiet))
