"""The command line `kerascnn`: its commands with their own options, and errors as one line."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from apps.options import (
    Data,
    Debug,
    Group,
    IdColumn,
    ImageSize,
    Memory,
    Overwrite,
    Quiet,
    RecipeName,
    Settings,
    Strict,
    Target,
    parse_size,
    parse_val,
    recipe_choices,
    training_options,
)

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


@app.command()
def compete(
    data: Data,
    target: Target = None,
    group: Group = None,
    id_column: IdColumn = None,
    recipe: RecipeName = None,
    model: Annotated[
        str | None,
        typer.Option(help="Network, such as resnet9 or resnet18.", show_default="airbench94"),
    ] = None,
    width: Annotated[
        float | None,
        typer.Option(help="Multiplies the filters of every layer.", show_default="by network and size of the pictures"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the pictures.", show_default="by their number")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="What all of it may take: epochs, size of pictures and width are chosen to fill it.",
            show_default="what suits the data, 20 at most",
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures per step.", show_default="by their number")] = None,
    image_size: ImageSize = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Highest learning rate of the one-cycle schedule.", show_default="by optimiser, epochs and batch size"
        ),
    ] = None,
    auto_lr: Annotated[
        bool, typer.Option("--auto-lr", help="Find the learning rate by a range test first, as `lr-find` does.")
    ] = False,
    flip: Annotated[
        bool | None,
        typer.Option(
            "--flip/--no-flip", help="Mirror left and right.", show_default="unless the classes are digits/letters"
        ),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32 or bfloat16.", show_default="what this processor computes fastest")
    ] = None,
    balance: Annotated[
        str | None,
        typer.Option(help="Rare classes: `weights` in the loss, `sampling` them more often.", show_default="none"),
    ] = None,
    transfer: Annotated[
        str | None,
        typer.Option(
            metavar="all|last|relearn",
            help="Begin with weights published for ImageNet: fine-tune all layers, the last third, or train that anew.",
            show_default="none",
        ),
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch/--no-from-scratch", help="Whether the rules forbid published weights.")
    ] = True,
    settings: Settings = None,
    val: Annotated[
        str | None,
        typer.Option(
            metavar="FRACTION|FOLDS|FILE",
            help="Fraction held out for validation, number of folds (5), 0, or CSV file of what to hold out.",
            show_default="0.1",
        ),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            metavar="accuracy|macro_f1|log_loss",
            help="What the competition counts, the mean over its targets: chooses the epoch, is what is estimated.",
            show_default="accuracy",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of split, weights, order and augmentation.", show_default="0")
    ] = None,
    deterministic: Annotated[
        bool | None,
        typer.Option(
            "--deterministic", help="The same bits every time, also after a kill and `--resume`.", show_default="off"
        ),
    ] = None,
    checkpoint_minutes: Annotated[
        float, typer.Option(min=0, help="How often training is written to disk, besides after every epoch.")
    ] = 2.0,
    seeds: Annotated[
        int | None, typer.Option(help="Networks for every split, of different seeds, averaged.", show_default="1")
    ] = None,
    snapshots: Annotated[
        int | None,
        typer.Option(help="Networks from one training, at the ends of so many cycles of the rate.", show_default="1"),
    ] = None,
    average: Annotated[
        str | None,
        typer.Option(metavar="ema|swa", help="Average the weights over the last steps.", show_default="none"),
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
    memory: Memory = None,
    strict: Strict = False,
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
    given = {
        "model": model,
        "width": width,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "flip": flip,
        "precision": precision,
        "balance": balance,
        "transfer": transfer,
        "val": parse_val(val),
        "score": score,
        "seed": seed,
        "deterministic": deterministic,
        "seeds": seeds,
        "snapshots": snapshots,
        "average": average,
        "image_size": parse_size(image_size),
    }
    # A resumed run has a recipe already: what is given now is only compared with it.
    choices = recipe_choices(data, recipe or ("default" if resume else None), settings, given)
    if minutes is not None and epochs is None and not any(one.startswith("epochs=") for one in settings or ()):
        choices.pop("epochs", None)  # a recipe's; those that are asked for beside --minutes are refused
    if auto_lr and lr is not None:
        raise ValueError(f"`--auto-lr` finds the rate, and `--lr {lr:g}` settles it. Leave one of them out.")
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
        memory=memory,
        minutes=minutes,
        checkpoint_minutes=checkpoint_minutes,
        auto_lr=auto_lr,
        from_scratch=from_scratch,
        console=Console(quiet),
    )


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
    _start(debug)
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
    _start(debug)
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
def show(
    data: Data,
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("augmentation.png"),
    target: Target = None,
    group: Group = None,
    id_column: IdColumn = None,
    recipe: RecipeName = None,
    settings: Settings = None,
    image_size: ImageSize = None,
    seed: Annotated[int | None, typer.Option(help="Of the augmentation.", show_default="0")] = None,
    count: Annotated[int, typer.Option(min=1, max=24, help="How many pictures.")] = 8,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a contact sheet: what every step of the augmentation makes of some pictures, and all steps together."""
    choices = recipe_choices(data, recipe, settings, {"image_size": parse_size(image_size), "seed": seed})
    _start(debug)
    from apps.console import Console
    from apps.show import show as run

    run(
        data,
        choices,
        out,
        targets=target,
        group=group,
        id_column=id_column,
        count=count,
        overwrite=overwrite,
        console=Console(quiet),
    )


@app.command("lr-find")
def lr_find(
    context: typer.Context,
    data: Data,
    out: Annotated[Path, typer.Option(help="Picture to write: .png, .svg or .pdf.")] = Path("lr-find.png"),
    target: Target = None,
    group: Group = None,
    id_column: IdColumn = None,
    recipe: RecipeName = None,
    settings: Settings = None,
    image_size: ImageSize = None,
    low: Annotated[float, typer.Option(help="Lowest rate.")] = 1e-5,
    high: Annotated[float, typer.Option(help="Highest rate; the sweep ends where the loss explodes.")] = 10.0,
    steps: Annotated[int, typer.Option(help="Batches between them.")] = 100,
    sweep: Annotated[str, typer.Option(help="`exponential` or `linear`.")] = "exponential",
    memory: Memory = None,
    strict: Strict = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find a learning rate: train for a moment with a rising one, and see where the loss falls and explodes."""
    choices = recipe_choices(data, recipe, settings, {"image_size": parse_size(image_size)})
    _start(debug)
    from apps.console import Console
    from apps.lr_find import lr_find as run

    run(
        data,
        choices,
        out,
        targets=target,
        group=group,
        id_column=id_column,
        low=low,
        high=high,
        steps=steps,
        sweep=sweep,
        train_with=["kerascnn", "compete", data, *training_options(context)],
        memory=memory,
        strict=strict,
        overwrite=overwrite,
        console=Console(quiet),
    )


@app.command()
def check(
    data: Data,
    target: Target = None,
    group: Group = None,
    id_column: IdColumn = None,
    recipe: RecipeName = None,
    settings: Settings = None,
    image_size: ImageSize = None,
    val: Annotated[
        str | None,
        typer.Option(metavar="FRACTION|FOLDS|FILE", help="What `compete` would hold out.", show_default="0.1"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the split and of the network.", show_default="0")] = None,
    training: Annotated[
        bool, typer.Option("--training/--no-training", help="Whether to try the network for a moment, too.")
    ] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the findings to this file.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the --json file.")] = False,
    memory: Memory = None,
    strict: Strict = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Look for what is wrong with the data, then try the network. Exit code 1 when something serious was found."""
    given = {"image_size": parse_size(image_size), "val": parse_val(val), "seed": seed}
    choices = recipe_choices(data, recipe, settings, given)
    _start(debug)
    from apps.check import check as run
    from apps.console import Console

    code = run(
        data,
        choices,
        targets=target,
        group=group,
        id_column=id_column,
        memory=memory,
        strict=strict,
        training=training,
        json_file=json_file,
        overwrite=overwrite,
        console=Console(quiet),
    )
    raise typer.Exit(code)


@app.command()
def search(
    data: Data,
    over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD[=RANGE]",
            help="A field of the recipe: lr=1e-3..1, label_smoothing=0..0.2:linear, batch_size=32,64,128, "
            "model=resnet9,airbench94; a rate without a range is searched around the recipe's own. Repeat for several.",
            show_default="lr, weight_decay",
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Short trials.", show_default="20")] = None,
    fine: Annotated[
        int | None, typer.Option(help="Long trials after them, of the best and around these.", show_default="5")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Of a long trial.", show_default="the recipe's")] = None,
    coarse: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION|EPOCHS", help="Of a short trial: below 1 a fraction of --epochs.", show_default="0.25"
        ),
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(metavar="random|tpe", help="How values are chosen.", show_default="random")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="By when to be done, of this call: half of it for the short trials.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="How many train at a time, sharing the processor.")] = 1,
    target: Target = None,
    group: Group = None,
    id_column: IdColumn = None,
    recipe: RecipeName = None,
    settings: Settings = None,
    image_size: ImageSize = None,
    val: Annotated[
        str | None,
        typer.Option(metavar="FRACTION|FOLDS|FILE", help="What trials are scored on.", show_default="0.1"),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            metavar="accuracy|macro_f1|log_loss", help="By what trials are compared.", show_default="accuracy"
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the values that are tried and of every training.", show_default="0")
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch/--no-from-scratch", help="Whether the rules forbid published weights.")
    ] = True,
    out: Annotated[
        Path | None, typer.Option(help="Folder, must be new.", show_default="searches/NAME, searches/NAME-2, ...")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the search of --out, or the newest of this data; several may."),
    ] = False,
    parent: Annotated[int | None, typer.Option(hidden=True, help="The process that this one helps.")] = None,
    memory: Memory = None,
    strict: Strict = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Search values for a recipe: many short trainings, then a few long ones around the best."""
    given = {
        "epochs": epochs,
        "val": parse_val(val),
        "score": score,
        "seed": seed,
        "image_size": parse_size(image_size),
    }
    choices = recipe_choices(data, recipe or ("default" if resume else None), settings, given)
    from apps.startup import share_processor

    share_processor(processes)
    _start(debug)
    from apps.console import Console
    from apps.search import search as run
    from apps.search_folder import Order

    columns = {"targets": target, "group": group, "id_column": id_column}
    options: dict[str, Any] = {"over": over, "trials": trials, "fine": fine, "coarse": coarse, "sampler": sampler}
    asked = {name: value for name, value in options.items() if value is not None}
    run(
        Order(data, columns, choices, **asked, from_scratch=from_scratch),
        asked.keys(),
        minutes=minutes,
        processes=processes,
        out=out,
        resume=resume,
        parent=parent,
        memory=memory,
        strict=strict,
        console=Console(quiet),
    )


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
    _start(debug)
    from apps.console import Console
    from apps.models import models as run

    run(name, size=size, classes=classes, options=options, json_file=json_file, console=Console(quiet))


@app.command()
def bench(
    name: Annotated[
        str,
        typer.Argument(
            help="`pipeline`: augmentation, streaming, and their share of a training; `callbacks`: what they cost; "
            "`networks`: a training step and inference, beside PyTorch's; `building`: seconds to build each network; "
            "`train`: the steps of cifar10-fast, beside those of the fastest public recipe in PyTorch; `step`: where "
            "the time of a step goes, by kind of operation."
        ),
    ],
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each; the median counts.")] = 7,
    debug: Debug = False,
) -> None:
    """Measure speed side by side: all contestants in turn, medians of several rounds, warm-up apart."""
    _start(debug)
    from apps.bench import bench as run
    from apps.console import Console

    run(name, json_file, rounds, Console())


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
