"""What a search tells: the lines on the screen, best.toml and result.json."""

import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from apps import files, run_folder
from apps.console import Console, duration
from apps.recipe_file import About, recipe_toml
from apps.search_folder import BEST, RESULT, Order
from apps.study import COARSE, FINE, Finished, Study
from apps.trials import Trainer


def print_search(study: Study, trainer: Trainer, console: Console) -> None:
    """What will be done, line by line."""
    order, plan = trainer.order, trainer.plan
    folds = f"{len(plan.splits)} folds" if len(plan.splits) > 1 else f"{len(plan.splits[0][1]):,} held out"
    console.say(f"data      {len(plan.data.pictures):,} labelled pictures, {folds}")
    console.say(
        f"search    {order.trials} coarse trials of {trainer.coarse_epochs} epochs, {order.fine} fine trials of "
        f"{trainer.epochs}, {order.sampler}, scored by {plan.recipe.score}"
        f"{' (negative: higher is better)' if plan.recipe.score == 'log_loss' else ''}"
    )
    for name, found in study.space(COARSE).items():
        console.say(f"          {name}: {found}")
    if done := sum(len(study.finished(stage)) for stage in (COARSE, FINE)):
        console.say(f"          {done} trials have ended already")
    console.say(f"folder    {' '.join([os.fspath(study.folder), *study.store.options])}")


def tell(study: Study, trainer: Trainer, console: Console) -> None:
    """Say how the trials of all processes ended, write their table, and the best recipe where it is a new one."""
    for one in study.news():
        ending = {
            "complete": f"score {one.score:.4f}" if one.score is not None else "",
            "pruned": "pruned",
            "failed": f"failed: {one.why}",
            "interrupted": f"will be repeated: {one.why}",
        }[one.state]
        console.say(
            f"  {one.stage} trial {one.number + 1}: {in_words(one.values)}: {ending}, {one.epochs} epochs, "
            f"{duration(one.seconds)}"
        )
    for line in study.new_widenings():
        console.warn(line[0].upper() + line[1:])
    with study.locked():
        study.write_table()
        if best := study.best():
            text = best_toml(best, trainer)
            path = study.folder / BEST
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                files.write_text(path, text)


def best_toml(best: Finished, trainer: Trainer) -> str:
    """The complete recipe of the best trial, at the length of the fine stage."""
    trained = trainer.coarse_epochs if best.stage == COARSE else trainer.epochs
    about = About(
        f"found by `kerascnn search {trainer.order.data}`: {in_words(best.values)}",
        (f"score {best.score:.4f} on held-out pictures after {trained} of {trainer.epochs} epochs",),
    )
    return recipe_toml(trainer.recipe(FINE, best.values), about)


def conclude(study: Study, trainer: Trainer, console: Console) -> None:
    """What was found: in words, and in result.json, the last file, once all trials that were asked for have ended.

    Raises:
        ValueError: No trial has a score.
    """
    best, ended = study.best(), [*study.finished(COARSE), *study.finished(FINE)]
    if best is None:
        why = next((one.why for one in ended if one.why), "there was no time for one")
        raise ValueError(f"None of {len(ended)} trials has a score. First: {why}")
    borders, importances = study.at_border(), study.importances()
    own, space = trainer.recipe(FINE), study.space(best.stage)
    rows = [("field", "best", "recipe's own", "searched last", "")]
    for name, value in best.values.items():
        notes = [f"importance {importances[name]:.2f}"] if name in importances else []
        notes += [f"at the {borders[name]} border"] if name in borders else []
        rows.append((name, show(value), show(getattr(own, name)), str(space[name]), ", ".join(notes)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        console.say("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    counts = {state: sum(one.state == state for one in ended) for state in ("complete", "pruned", "failed")}
    console.say(f"trials    {', '.join(f'{count} {state}' for state, count in counts.items())}")
    length = f"{trainer.coarse_epochs if best.stage == COARSE else trainer.epochs} epochs"
    console.say(f"best      {best.stage} trial {best.number + 1}, score {best.score:.4f} after {length}")
    if best.stage == COARSE and trainer.order.fine:
        console.warn("No fine trial has a score: the best is that of a short training.")
    for name, side in borders.items():
        console.warn(f"The best {name} lies at the {side} border of {space[name]}: search on beyond it.")
    command = compete_command(trainer.order, study.folder)
    console.say(f"wrote     {study.folder / BEST}: {command}")
    with suppress(OSError):  # another process looks at the same end
        (study.folder / "trials").rmdir()
    left = {stage: count for stage in (COARSE, FINE) if (count := study.left(stage))}
    if left:
        console.warn(
            f"{' and '.join(f'{count} {stage}' for stage, count in left.items())} trials of those asked for are left: "
            f"the time is over. Go on with: {resume_command(trainer.order.data, study)}"
        )
        return
    files.write_json(
        study.folder / RESULT,
        {
            "stage": best.stage,
            "trial": best.number,
            "score": best.score,
            "values": best.values,
            "at_border": borders,
            "importances": importances,
            "trials": counts,
            "command": command,
            "versions": run_folder.package_versions(),
            "commit": run_folder.source_commit(),
        },
    )


def resume_command(source: str, study: Study) -> str:
    """The command that goes on with a search; of a password, three stars."""
    out = os.fspath(study.folder)
    return shlex.join(["kerascnn", "search", source, "--resume", "--out", out, *study.store.options])


def compete_command(order: Order, out: Path) -> str:
    """The command that trains with the best recipe on the same data."""
    command = ["kerascnn", "compete", order.data, "--recipe", os.fspath(out / BEST)]
    for target in order.columns["targets"] or ():
        command += ["--target", target]
    for option, name in (("--group", "group"), ("--id", "id_column")):
        if order.columns[name]:
            command += [option, order.columns[name]]
    return shlex.join(command + ([] if order.from_scratch else ["--no-from-scratch"]))


def in_words(values: Mapping[str, Any]) -> str:
    """Values of fields on one line.

    >>> in_words({"lr": 0.0512345, "model": "resnet9"})
    'lr 0.05123, model resnet9'
    """
    return ", ".join(f"{name} {show(value)}" for name, value in values.items())


def show(value: Any) -> str:
    """A value in few digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
