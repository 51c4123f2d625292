"""The command line `kerascnn`: its commands, with those of the `..._commands` modules, and errors as one line."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from apps.looking_commands import compare, explain, report
from apps.options import Data, Debug, Group, IdColumn, Overwrite, Quiet, Strict, Target, parse_size
from apps.serve_command import serve
from apps.startup import import_tensorflow
from apps.training_commands import check, compete, lr_find, search, show

# Everything else is imported by the command that needs it: TensorFlow takes seconds, `--help` must not.

app = typer.Typer(
    name="kerascnn",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a folder of labelled pictures to a competition submission, an honest score estimate and a SavedModel.",
)


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


for command in (compete, check, search, lr_find, show, report, explain, compare):
    app.command(command.__name__.replace("_", "-"))(command)


@app.command()
def predict(
    saved_model: Annotated[str, typer.Argument(help="A SavedModel, or saved_models/NAME for its highest version.")],
    paths: Annotated[list[str], typer.Argument(help="Picture files, folders (searched through) and CSV lists.")],
    out: Annotated[Path | None, typer.Option(help="CSV file to write instead of a table on the screen.")] = None,
    top: Annotated[int, typer.Option(help="How many classes to name for every picture, the likeliest first.")] = 1,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Predict pictures with an exported model. Exit code 1 when some of them could not be read."""
    import_tensorflow(debug)
    from apps.console import Console
    from apps.predict import predict as run

    raise typer.Exit(run(saved_model, paths, out, top, overwrite, Console(quiet)))


@app.command()
def records(
    data: Data,
    out: Annotated[Path, typer.Argument(help="Folder for the shards: new, or begun by an interrupted call.")],
    target: Target = None,
    group: Group = None,
    id_column: IdColumn = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="How many write at a time.", show_default="one a core")
    ] = None,
    strict: Strict = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a data set as TFRecord shards: a few large files, checked once, quick to read in any order."""
    import_tensorflow(debug)
    from apps.console import Console
    from apps.records import records as run

    run(
        data,
        out,
        targets=target,
        group=group,
        id_column=id_column,
        processes=processes,
        strict=strict,
        console=Console(quiet),
    )


@app.command()
def decode(
    role: Annotated[str, typer.Argument(metavar="dispatcher|worker", help="Of a service one is the dispatcher.")],
    dispatcher: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where a worker finds its dispatcher.", show_default=False),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="To listen at; 0 takes a free one.", show_default="5050; a worker: a free one"
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="By which trainings reach a worker's machine.", show_default="its address towards the dispatcher"
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Read, decode and augment pictures for trainings on other machines: one dispatcher, any number of workers."""
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import_tensorflow(debug)
    from apps.console import Console
    from apps.decode import decode as run

    run(role, dispatcher=dispatcher, host=host, port=port, console=Console())


@app.command()
def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            help="One to print as a TOML file: a built-in recipe, a file or the recipe.json of a run.",
            show_default="lists the built-in ones",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """List the built-in recipes with their measured results, or print one as the file that `--recipe` takes."""
    from apps.console import Console
    from apps.recipes.listing import recipes as run

    run(name, Console())


@app.command()
def models(
    name: Annotated[str, typer.Argument(help="A network, or a pattern such as 'resnet5*'.")] = "*",
    image_size: Annotated[
        str | None,
        typer.Option(metavar="HEIGHTxWIDTH", help="Pixels of the pictures.", show_default="the network's own"),
    ] = None,
    classes: Annotated[int | None, typer.Option(min=1, help="Of one head.", show_default="the network's own")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="OPTION=VALUE",
            help="Any option of the network, such as stem=small or width=0.5; repeat for several.",
            show_default=False,
        ),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List the networks; of one: size, receptive field, parameters and multiply-adds of every layer, its options."""
    from apps.recipe import parse_settings

    size, options = parse_size(image_size), parse_settings(settings or ())
    import_tensorflow(debug)
    from apps.console import Console
    from apps.models import models as run

    run(name, size=size, classes=classes, options=options, json_file=json_file, console=Console(quiet))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run, such as runs/digits.")],
    format: Annotated[
        str, typer.Option(metavar="saved_model|onnx|openvino|litert", help="What to write.")
    ] = "saved_model",
    precision: Annotated[
        str, typer.Option(metavar="float32|bfloat16", help="What a SavedModel computes in; answers are float32.")
    ] = "float32",
    explain: Annotated[
        bool, typer.Option("--explain/--no-explain", help="Whether a SavedModel gives heat maps (Grad-CAM) too.")
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where NAME/VERSION goes.", show_default="that of the run's first export, else FORMAT_models"
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the model.", show_default="as first exported")] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Export a finished run again: the same answers, as a SavedModel or for another runtime, checked first."""
    import_tensorflow(debug)
    from apps.console import Console
    from apps.export import export as export_run

    export_run(
        run,
        format=format,
        precision=precision,
        explain=explain,
        out=out,
        name=name,
        console=Console(quiet),
    )


app.command()(serve)


@app.command()
def bench(
    name: Annotated[
        str,
        typer.Argument(
            help="`pipeline`: augmentation, streaming, and their share of a training; `callbacks`: what they cost; "
            "`networks`: a training step and inference, beside PyTorch's; `building`: seconds to build each network; "
            "`train`: the steps of cifar10-fast, beside those of the fastest public recipe in PyTorch; `step`: where "
            "the time of a step goes, by kind of operation; `serve`: the server, beside FastAPI and LitServe; "
            "`distributed`: two processes that train one network on JAX, beside one, and what their exchange costs; "
            "`accelerator`: networks on JAX beside the same in PyTorch, on a GPU."
        ),
    ],
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each; the median counts.")] = 7,
    debug: Debug = False,
) -> None:
    """Measure speed side by side: all contestants in turn, medians of several rounds, warm-up apart."""
    import_tensorflow(debug)
    from apps.bench import bench as run
    from apps.console import Console

    run(name, json_file, rounds, Console())


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
