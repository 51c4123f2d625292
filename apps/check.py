"""`kerascnn check`: the audit of data before a training, and the start-up of the network that `compete` would train."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pipelines
from apps import files
from apps.audit import audit_plan
from apps.console import Console
from apps.first_steps import first_steps
from apps.plan import make_plan, print_plan
from apps.recipes import Choices
from pipelines.finding import SERIOUS, SEVERITIES, Finding, by_severity


def check(
    source: str,
    choices: Choices,
    *,
    targets: Sequence[str] | None,
    group: str | None,
    id_column: str | None,
    memory: float | None,
    strict: bool,
    training: bool,
    json_file: Path | None,
    overwrite: bool,
    console: Console,
) -> int:
    """Print what is wrong with the data, the most serious first, then try the network for a moment.

    Args:
        source: What `pipelines.open_dataset` takes.
        choices: Fields of the recipe that are settled.
        targets, group, id_column, memory, strict: As in `compete`.
        training: Whether to try the network.
        json_file: Where to write the findings.
        overwrite: Whether to replace it.
        console: Where to print.

    Returns:
        1 when something serious was found, else 0.

    Raises:
        ValueError, FileNotFoundError: The data or the choices do not fit, or `json_file` exists.
    """
    if json_file is not None:
        if json_file.exists() and not overwrite:
            raise ValueError(f"{json_file} exists. Choose another name, or say `--overwrite`.")
        files.require_folder_of(json_file)
    competition = pipelines.open_dataset(source, targets=targets, group=group, id_column=id_column)
    plan = make_plan(competition, choices, strict, console, None if memory is None else memory * 2**30)
    found = audit_plan(plan, console)
    say_findings(found, console)
    written: dict[str, Any] = {"data": source, "findings": [asdict(finding) for finding in found]}
    if training:
        console.say()
        print_plan(plan, console)
        steps = first_steps(plan, console)
        search = shlex.join(["kerascnn", "search", source])
        console.say(f"step 4    try rates and weight decays for an epoch or a few, by chance on a log scale: {search}")
        console.say("step 5    narrow both around the best and train longer: the same command does so by itself")
        console.say("step 6    look at the curves of loss and accuracy in the report, and begin again where they point")
        if steps.findings:
            say_findings(by_severity(steps.findings), console)
        found = [*found, *steps.findings]
        written["findings"] = [asdict(finding) for finding in by_severity(found)]
        written["first_steps"] = {name: value for name, value in asdict(steps).items() if name != "findings"}
    if json_file is not None:
        files.write_json(json_file, written)
        console.say(f"wrote     {json_file}")
    counts = [sum(finding.severity == severity for finding in found) for severity in SEVERITIES]
    console.say(f"found     {counts[0]} serious, {counts[1]} warnings, {counts[2]} notes")
    return int(any(finding.severity == SERIOUS for finding in found))


def say_findings(found: Sequence[Finding], console: Console) -> None:
    """Every finding with its examples, and what to do."""
    for finding in found:
        console.say(f"{finding.severity:<8}  {finding.what}")
        if finding.examples:
            console.say(f"          such as {'; '.join(finding.examples)}")
        if finding.advice:
            console.say(f"          {finding.advice}")


if __name__ == "__main__":
    from apps.cli import main

    main(["check", *sys.argv[1:]])
