"""`kerascnn lr-find`: the learning-rate range test on the network and the batches that `compete` would train with."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

import pipelines
from apps import files
from apps.batches import training_batches
from apps.console import Console
from apps.heads import in_keras_names
from apps.network import build_network, compile_network, whiten
from apps.plan import Plan, make_plan, print_plan
from apps.recipes import Choices
from callbacks import LRFinder, RangeTest

PICTURES = (".png", ".svg", ".pdf")


def lr_find(
    source: str,
    choices: Choices,
    out: Path,
    *,
    targets: Sequence[str] | None,
    group: str | None,
    id_column: str | None,
    low: float,
    high: float,
    steps: int,
    sweep: str,
    train_with: Sequence[str],
    memory: float | None,
    strict: bool,
    overwrite: bool,
    console: Console,
) -> float:
    """Sweep the rate, print the table, write the picture, suggest a rate, and `train_with` it; returns it.

    Raises:
        ValueError, FileNotFoundError: The data, the choices or the range do not fit, or `out` exists.
    """
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists. Choose another name, or say `--overwrite`.")
    files.require_folder_of(out)
    if out.is_dir() or out.suffix.lower() not in PICTURES:
        raise ValueError(f"`--out` must be a file whose name ends in {', '.join(PICTURES)}. Received: {out}.")
    finder = LRFinder(low, high, steps, sweep)
    competition = pipelines.open_dataset(source, targets=targets, group=group, id_column=id_column)
    plan = make_plan(competition, choices, strict, console, None if memory is None else memory * 2**30)
    print_plan(plan, console)

    test = range_test(plan, finder, console)
    test.plot(out)
    for line in test.table().splitlines()[: -len(test.doubts) or None]:
        console.say(f"  {line}")
    name, rate = next(iter(test.suggestions.items()))
    for doubt in test.doubts:
        console.warn(doubt)
    console.say(f"picture   {out}")
    console.say(f"rate      {rate:.2g} ({name}): {shlex.join([*train_with, '--lr', f'{rate:.2g}'])}")
    return rate


def range_test(plan: Plan, finder: LRFinder, console: Console) -> RangeTest:
    """The sweep of `finder` on the plan's network and its first split; nothing of it stays."""
    recipe, data = in_keras_names(plan.recipe, plan.data)
    keras.utils.set_random_seed(recipe.seed)
    model = build_network(recipe, data, recipe.precision)
    whiten(model, data)
    compile_network(model, recipe, data.num_classes, len(finder.rates))
    batches = training_batches(recipe, data, plan.splits[0][0])
    with console.progress("range test", len(finder.rates)) as bar:
        return finder.run(
            model, batches, on_step=lambda step, rate, loss: bar.update(step + 1, f"rate {rate:.2g} · loss {loss:.3f}")
        )


def with_found_rate(plan: Plan, console: Console) -> Plan:
    """The plan with the rate that a range test suggests first; under muon_sgd those of shifts and head stay."""
    test = range_test(plan, LRFinder(1e-5), console)
    for doubt in test.doubts:
        console.warn(doubt)
    name, rate = next(iter(test.suggestions.items()))
    recipe = plan.recipe
    rates: dict[str, Any] = {"lr": float(f"{rate:.2g}")}
    if recipe.optimizer == "muon_sgd":
        rates |= {field: getattr(recipe, field) * recipe.lr / rates["lr"] for field in ("bias_rate", "head_rate")}
    console.say(f"rate      {rates['lr']:g} by the range test ({name}), instead of {recipe.lr:g}")
    return replace(plan, recipe=replace(recipe, **rates))


if __name__ == "__main__":
    from apps.cli import main

    main(["lr-find", *sys.argv[1:]])
