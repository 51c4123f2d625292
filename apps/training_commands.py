"""The commands that make a plan of a training: their options, and what they give to their programs.

Each function is a command of `cli.app`; it has one argument an option, which the library for command lines asks for.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from apps.options import (
    STORAGE,
    Data,
    Debug,
    FromScratch,
    Group,
    IdColumn,
    ImageSize,
    Memory,
    Overwrite,
    Quiet,
    RecipeName,
    ScoreName,
    Seed,
    Settings,
    Strict,
    Target,
    TensorBoard,
    Val,
    parse_devices,
    parse_size,
    parse_val,
    recipe_choices,
    training_options,
)
from apps.startup import import_tensorflow

# Everything else is imported by the command that needs it: TensorFlow takes seconds, `--help` must not.


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
    from_scratch: FromScratch = True,
    settings: Settings = None,
    val: Val = None,
    score: ScoreName = None,
    seed: Seed = None,
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
    tensorboard: TensorBoard = False,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="N|all",
            help="Devices of this host (GPUs, or parts of the processor) that train together.",
            show_default="1; all with --hosts",
        ),
    ] = None,
    scaling: Annotated[
        str,
        typer.Option(
            metavar="keep|suit|linear|root",
            help="`keep` shares the batch among the devices; the others give it to each, and raise the rate.",
        ),
    ] = "keep",
    batch_norm: Annotated[
        str,
        typer.Option(metavar="global|device", help="Whose pictures BatchNorm's statistics are of: all, or a device's."),
    ] = "global",
    hosts: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="Processes that train together, all started alike with KERAS_BACKEND=jax; `auto` asks the scheduler.",
            show_default="1; auto in a job of SLURM or Open MPI",
        ),
    ] = None,
    host: Annotated[int | None, typer.Option(help="With --hosts N: the number of this process, from 0.")] = None,
    coordinator: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="With --hosts N: where process 0 listens.")
    ] = None,
    decoder: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="A dispatcher (`kerascnn decode`) whose workers decode and augment what is read from disk.",
            show_default="this host",
        ),
    ] = None,
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
    order = {
        "data": data,
        "columns": {"targets": target, "group": group, "id_column": id_column},
        "choices": choices,
        "saved_models": str(saved_models),
        "probabilities": probabilities,
        "strict": strict,
        "memory": memory,
        "minutes": minutes,
        "checkpoint_minutes": checkpoint_minutes,
        "tensorboard": tensorboard,
    }
    how = {
        "out": out,
        "dry_run": dry_run,
        "resume": resume,
        "auto_lr": auto_lr,
        "from_scratch": from_scratch,
        "scaling": scaling,
        "batch_norm": batch_norm,
    }
    from apps.backends import Where
    from apps.backends import compete as run
    from apps.hosts import parse_hosts

    run(order, how, Where(parse_devices(devices), parse_hosts(hosts, host, coordinator), decoder, quiet, debug))


def check(
    data: Data,
    target: Target = None,
    group: Group = None,
    id_column: IdColumn = None,
    recipe: RecipeName = None,
    settings: Settings = None,
    image_size: ImageSize = None,
    val: Val = None,
    seed: Seed = None,
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
    import_tensorflow(debug)
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
    val: Val = None,
    score: ScoreName = None,
    seed: Seed = None,
    from_scratch: FromScratch = True,
    out: Annotated[
        Path | None, typer.Option(help="Folder, must be new.", show_default="searches/NAME, searches/NAME-2, ...")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the search of --out, or the newest of this data; several may."),
    ] = False,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar=STORAGE,
            help="A database by which several machines work on one search: postgresql://USER:PASSWORD@HOST/NAME, "
            "mysql://..., or sqlite:///FILE on one machine.",
            show_default="a file in the folder",
        ),
    ] = None,
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
    import_tensorflow(debug)
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
        storage=storage or None,
        parent=parent,
        memory=memory,
        strict=strict,
        console=Console(quiet),
    )


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
    import_tensorflow(debug)
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


def show(
    data: Data,
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("augmentation.png"),
    target: Target = None,
    group: Group = None,
    id_column: IdColumn = None,
    recipe: RecipeName = None,
    settings: Settings = None,
    image_size: ImageSize = None,
    seed: Seed = None,
    count: Annotated[int, typer.Option(min=1, max=24, help="How many pictures.")] = 8,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a contact sheet: what every step of the augmentation makes of some pictures, and all steps together."""
    choices = recipe_choices(data, recipe, settings, {"image_size": parse_size(image_size), "seed": seed})
    import_tensorflow(debug)
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
