"""The command line `kerascnn`: options, their help, and errors as one line."""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

# Everything else is imported by the command that needs it: TensorFlow takes seconds, `--help` must not.

app = typer.Typer(
    name="kerascnn",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a folder of labelled pictures to a competition submission, an honest score estimate and a SavedModel.",
)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but warnings and errors.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error and TensorFlow's own messages.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"kerascnn {version('kerascnn')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def compete(
    data: Annotated[
        str,
        typer.Argument(
            help="`digits`, a folder with train.csv (and test.csv) and pictures, a folder with one sub-folder per "
            "class, an .npz with x_train and y_train, or a .zip of one of these."
        ),
    ],
    target: Annotated[
        list[str] | None,
        typer.Option(help="Column of train.csv to predict; repeat for several.", show_default="worked out"),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="Column whose values are never split between training and validation, such as a person; `none`.",
            show_default="a column named like one",
        ),
    ] = None,
    id_column: Annotated[
        str | None, typer.Option("--id", help="Column that names the picture file.", show_default="worked out")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="`default`, `digits`, or a JSON file such as the recipe.json of a run.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Network, such as resnet9 or resnet18.", show_default="by the size of the pictures"),
    ] = None,
    width: Annotated[
        float | None,
        typer.Option(help="Multiplies the filters of every layer.", show_default="0.5"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the pictures.", show_default="by their number")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures per step.", show_default="by their number")] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            metavar="HEIGHTxWIDTH", help="Pixels to resize to, as 128 or 128x96.", show_default="their own, to 128"
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(help="Highest learning rate of the one-cycle schedule.", show_default="by batch size"),
    ] = None,
    flip: Annotated[
        bool | None,
        typer.Option(
            "--flip/--no-flip", help="Mirror left and right.", show_default="unless the classes are digits/letters"
        ),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32 or bfloat16.", show_default="what this processor computes fastest")
    ] = None,
    val: Annotated[
        float | None,
        typer.Option(help="Fraction held out for validation, a number of folds (5), or 0.", show_default="0.1"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of split, weights, order and augmentation.", show_default="0")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder, must be new.", show_default="runs/NAME, runs/NAME-2, ...")
    ] = None,
    saved_models: Annotated[Path, typer.Option(help="Where the SavedModel goes, as NAME/VERSION.")] = Path(
        "saved_models"
    ),
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write probabilities.csv beside submission.csv.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop when a row or picture would be left out.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the plan and the expected time, write nothing.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run: that of --out, or the newest of this data.")
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train on labelled pictures, say what score to expect, predict the hidden ones, export, report."""
    from apps.recipe import RECIPES, check_choices, load_choices

    chosen = {
        "model": model,
        "width": width,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "flip": flip,
        "precision": precision,
        "val": val,
        "seed": seed,
        "image_size": _parse_size(image_size),
    }
    name = recipe or (data if data in RECIPES else "default")
    base = {} if resume and recipe is None else load_choices(name)  # a resumed run has a recipe already
    choices = check_choices({**base, **{field: value for field, value in chosen.items() if value is not None}})
    _start(debug)
    from apps.compete import compete as run
    from apps.console import Console

    run(
        data,
        choices,
        targets=target,
        group=group,
        id_column=id_column,
        out=out,
        saved_models=saved_models,
        strict=strict,
        dry_run=dry_run,
        resume=resume,
        probabilities=probabilities,
        console=Console(quiet),
    )


@app.command()
def predict(
    saved_model: Annotated[str, typer.Argument(help="A SavedModel, or saved_models/NAME for its highest version.")],
    paths: Annotated[list[str], typer.Argument(help="Picture files, folders (searched through) and CSV lists.")],
    out: Annotated[Path | None, typer.Option(help="CSV file to write instead of a table on the screen.")] = None,
    top: Annotated[int, typer.Option(help="How many classes to name for every picture, the likeliest first.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the --out file.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Predict pictures with an exported model. Exit code 1 when some of them could not be read."""
    _start(debug)
    from apps.console import Console
    from apps.predict import predict as run

    raise typer.Exit(run(saved_model, paths, out, top, overwrite, Console(quiet)))


def _parse_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip().lower())
    if not match:
        raise ValueError(f"`--image-size` must be a number of pixels, as 128, or HEIGHTxWIDTH. Received: {text!r}.")
    return int(match[1]), int(match[2] or match[1])


def _start(debug: bool) -> None:
    from apps.startup import import_tensorflow

    import_tensorflow(debug)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; an error is one line on standard error and exit code 2, Ctrl-C is 130."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(arguments or ["--help"], standalone_mode=False, prog_name="kerascnn")
    except KeyboardInterrupt:
        print("kerascnn: stopped", file=sys.stderr)
        code = 130
    except Exception as error:
        if "--debug" in arguments:
            raise
        code = 2
        print(f"kerascnn: error: {_one_line(error)}", file=sys.stderr)
    sys.exit(code or 0)


def _one_line(error: Exception) -> str:
    describe: Callable[[], Any] | None = getattr(error, "format_message", None)  # the option parser's errors
    text = str(describe() if describe else error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
    elif not isinstance(error, (ValueError, OSError)) and describe is None:
        text = f"{type(error).__name__}: {text} (`--debug` shows where)"
    return " ".join(text.split())


if __name__ == "__main__":
    main()
