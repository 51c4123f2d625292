"""`kill -9` at any moment, a full disk, and `--resume`: in the end everything is as if nothing had happened.

Each life is a real process. They are forks of one that has imported TensorFlow, which saves them the seconds of it.
"""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from callbacks import read_log

NURSERY = """
import json, os, random, resource, signal, sys, time
import apps.compete  # imports TensorFlow, which starts its threads only when it computes: a fork before that can live
from apps.cli import main

command = json.loads(sys.argv[1])

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def at_call(name, number, path_part):
    # Of os.NAME, when it is called for the NUMBER-th time for such a file.
    function, calls = getattr(os, name), []
    def counted(*arguments):
        where = os.readlink(f"/proc/self/fd/{arguments[0]}") if name == "fsync" else arguments[0]
        calls.append(1) if path_part in str(where) else None
        if len(calls) == number:
            kill()
        return function(*arguments)
    setattr(os, name, counted)

ENDS = {
    "in writing": lambda: at_call("fsync", 4, "last.npz"),  # the new file is there, without its name
    "between renamings": lambda: at_call("replace", 6, "last.npz"),  # the old one is moved away already
    "disk full": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
}

def live(arguments, end, seconds=None):
    process = os.fork()
    if process == 0:
        try:
            ENDS.get(end, lambda: None)()
            main([str(one) for one in arguments])
        except SystemExit as ended:
            sys.stdout.flush(); sys.stderr.flush()
            os._exit(ended.code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)
    status = os.waitpid(process, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

began = time.monotonic()
assert live([*command, "--out", "whole"], None) == 0
whole = time.monotonic() - began
moments = random.Random(0)
killed, run, ends, lives = 0, 0, ["in writing", "between renamings", "disk full"], []
while killed < 10:
    arguments = [*command, "--out", f"killed-{run}"]
    arguments += ["--resume"] if os.path.exists(f"killed-{run}/recipe.json") else []
    end = ends.pop(0) if ends else None
    code = live(arguments, end, None if end else moments.uniform(0.05, 0.6) * whole)
    lives.append([run, end, code])
    killed += code == -signal.SIGKILL
    run += code == 0
if os.path.exists(f"killed-{run}/recipe.json"):
    lives.append([run, None, live([*command, "--out", f"killed-{run}", "--resume"], None)])
    run += 1
print(json.dumps({"lives": lives, "runs": run}))
"""


@pytest.fixture(scope="module")
def lives(tmp_path_factory) -> tuple[Path, dict]:
    """The folder with the run "whole" and the runs "killed-0", ..., and how each life ended."""
    from conftest import make_colours

    folder = tmp_path_factory.mktemp("lives")
    make_colours(folder)
    options = "--model airbench94 --width 0.125 --image-size 18 --epochs 3 --batch-size 8 --deterministic"
    command = ["compete", "colours", *options.split(), "--checkpoint-minutes", 0, "--probabilities"]
    process = subprocess.run(
        [sys.executable, "-c", NURSERY, json.dumps(command)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr
    return folder, {**json.loads(process.stdout.splitlines()[-1]), "errors": process.stderr}


def weights(run: Path) -> dict[str, np.ndarray]:
    """All arrays of model.keras."""
    found: dict[str, np.ndarray] = {}
    with (
        zipfile.ZipFile(run / "model.keras") as archive,
        archive.open("model.weights.h5") as inner,
        h5py.File(inner) as file,
    ):
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def test_run_that_was_killed_again_and_again_gives_the_same_bits(lives) -> None:
    folder, told = lives
    assert sum(code == -9 for _, _, code in told["lives"]) >= 10
    expected = weights(folder / "whole")
    assert len(expected) > 20
    for number in range(told["runs"]):
        run = folder / f"killed-{number}"
        found = weights(run)
        assert found.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])
        for name in ("submission.csv", "probabilities.csv"):
            assert (run / name).read_bytes() == (folder / "whole" / name).read_bytes()
        assert not list(run.rglob("*unfinished*"))


def test_log_of_a_killed_run_has_every_epoch_once(lives) -> None:
    folder, told = lives
    for run in ["whole", *(f"killed-{number}" for number in range(told["runs"]))]:
        lines = read_log(folder / run / "logs/training-1.jsonl")
        epochs = [line for line in lines if "batch" not in line]
        assert [(line["epoch"], line["step"]) for line in epochs] == [(0, 6), (1, 12), (2, 18)]
        assert sorted(line["step"] for line in lines) == [line["step"] for line in lines]
        history = pd.read_csv(folder / run / "history.csv")
        assert history["loss"].tolist() == pytest.approx([line["logs"]["loss"] for line in epochs])


def test_kills_while_a_checkpoint_is_written_lose_one_step_at_most(lives) -> None:
    _, told = lives
    ends = {end: code for _, end, code in told["lives"] if end}
    assert ends == {"in writing": -9, "between renamings": -9, "disk full": 2}


def test_full_disk_is_one_line(lives) -> None:
    _, told = lives
    lines = [line for line in told["errors"].splitlines() if line.startswith("kerascnn: error")]
    assert len(lines) == 1
    assert "File too large. What is finished is kept; go on with: kerascnn compete colours --resume" in lines[0]
