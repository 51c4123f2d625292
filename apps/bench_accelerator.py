"""`kerascnn bench accelerator`: networks in Keras on JAX beside the same in PyTorch, on the machine's accelerator.

`python -m apps.bench_accelerator` is the same on a machine without TensorFlow, which this imports nothing of.
"""

import argparse
import json
import os
from pathlib import Path

from apps.bench import Figure, describe_machine, record
from apps.console import Console
from apps.new_process import call_in_new_process


def bench_accelerator(rounds: int, console: Console) -> dict[str, list[Figure]]:
    """Pictures a second of training steps and of inference, in a process of its own, whose Keras is on JAX."""
    tables: dict[str, list[Figure]] = call_in_new_process(measure_here, rounds, console.quiet)
    return tables


def measure_here(rounds: int, quiet: bool = False) -> dict[str, list[Figure]]:
    """The same in this process, which must not have imported Keras yet."""
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # else JAX leaves PyTorch no memory
    from apps.bench_frameworks import bench_frameworks

    return bench_frameworks(rounds, Console(quiet))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m apps.bench_accelerator", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each; the median counts")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args()
    if chosen.rounds < 1:
        parser.error(f"`--rounds` must be at least 1. Received: {chosen.rounds}.")
    if chosen.json and not chosen.json.absolute().parent.is_dir():
        parser.error(f"There is no folder {chosen.json.absolute().parent} to write {chosen.json.name} to.")
    print(describe_machine())
    tables = measure_here(chosen.rounds)
    if chosen.json:
        unfinished = chosen.json.with_name(f".unfinished-{chosen.json.name}")
        unfinished.write_text(json.dumps(record("accelerator", chosen.rounds, tables), indent=1) + "\n")
        unfinished.replace(chosen.json)


if __name__ == "__main__":
    main()
