"""The commands that look at finished runs: their options, and what they give to their programs."""

from pathlib import Path
from typing import Annotated

import typer

from apps.options import Debug, ImageSize, Overwrite, Quiet, parse_size
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


def explain(
    source: Annotated[
        str,
        typer.Argument(metavar="RUN_OR_MODEL", help="A finished run, such as runs/digits, or a .keras file."),
    ],
    pictures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PICTURE]...",
            help="Picture files, folders and CSV lists.",
            show_default="mistakes and typical ones of the run's held-out pictures",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Page to write.", show_default="RUN/explain.html, or NAME-explain.html")
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(help="Layer to look at; repeat for several.", show_default="four, spread over the depth"),
    ] = None,
    class_name: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="[HEAD=]NAME",
            help="Class to make a picture of; repeat for several.",
            show_default="the first 10",
        ),
    ] = None,
    unit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER:CHANNEL",
            help="Unit to make a picture of; repeat for several.",
            show_default="every layer as a whole and its strongest 3",
        ),
    ] = None,
    image_size: ImageSize = None,
    steps: Annotated[int, typer.Option(min=1, help="Of making a picture: more take longer.")] = 192,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show what a network looks at: filters, Grad-CAM, occlusion, feature maps, pictures made to excite it."""
    size = parse_size(image_size)
    import_tensorflow(debug)
    from apps.console import Console
    from apps.explain.command import explain as run

    run(
        source,
        pictures or [],
        out=out,
        layers=layer or [],
        classes=class_name or [],
        units=unit or [],
        size=size,
        steps=steps,
        overwrite=overwrite,
        console=Console(quiet),
    )
