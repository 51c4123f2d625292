"""The command `kerascnn lr-find`."""

import re

import keras
import numpy as np
import pytest
from PIL import Image

from apps.console import Console


def test_suggestion_and_picture(run_here, colours, tmp_path) -> None:
    policy = keras.config.dtype_policy().name
    as_it_is = ("--strict", "--set", "batch_size=10", "--set", "width=0.125", "--image-size", "16x8")
    process = run_here("lr-find", colours, "--steps", 40, "--high", 100, *as_it_is)
    assert process.returncode == 0, process.stderr
    rates = [float(rate) for rate in re.findall(r"(?:valley|slope|/ 10)\s+([\d.e+-]+)$", process.stdout, re.MULTILINE)]
    assert len(rates) == 3
    assert all(1e-5 <= rate <= 100 for rate in rates)
    command = re.search(r"^rate      [\d.e+-]+ \(valley\): (.+)$", process.stdout, re.MULTILINE)[1].split()
    assert command[:3] == ["kerascnn", "compete", str(colours)]
    assert command[-2:] == ["--lr", f"{rates[0]:.2g}"]
    given = command[3:-2]
    assert sorted(given) == sorted(as_it_is)
    assert all(given[given.index(value) - 1].startswith("--") for value in as_it_is if not value.startswith("--"))
    with Image.open(tmp_path / "lr-find.png") as picture:
        assert np.asarray(picture).std() > 0
    assert [path.name for path in tmp_path.iterdir() if path.name != "colours"] == ["lr-find.png"]
    assert keras.config.dtype_policy().name == policy

    again = run_here("lr-find", colours)
    assert again.returncode == 2
    assert again.stderr == "kerascnn: error: lr-find.png exists. Choose another name, or say `--overwrite`.\n"


def test_bad_range_is_one_line_before_the_data_are_read(run_here, tmp_path) -> None:
    for options, message in (
        (["--sweep", "cubic"], "`sweep` must be 'exponential' or 'linear'"),
        (["--low", 1, "--high", 0.1], "`low` and `high` must satisfy 0 < low < high"),
        (["--steps", 3], "`steps` must be a whole number of at least 20"),
        (["--out", "nowhere/file.png"], "nowhere"),
        (["--out", "picture.xyz"], "`--out` must be a file whose name ends in .png, .svg, .pdf. Received: picture.xyz"),
    ):
        process = run_here("lr-find", tmp_path / "no-such-data", *options)
        assert process.returncode == 2
        assert message in process.stderr
        assert process.stderr.count("\n") == 1


def test_sweep_that_ends_too_low_is_said(run_here, colours) -> None:
    process = run_here("lr-find", colours, "--steps", 20, "--high", 1e-4, "--set", "width=0.125")
    assert process.returncode == 0
    assert "The loss did not fall up to the rate 0.0001: sweep on to a higher one" in " ".join(process.stderr.split())


def test_compete_trains_with_the_rate_that_the_range_test_finds(run_here, colours) -> None:
    """Under muon_sgd the rates of shifts and head, which are multiples of it, stay where they were."""
    from apps.lr_find import with_found_rate
    from apps.plan import make_plan
    from pipelines import open_dataset

    small = ("--set", "width=0.125", "--image-size", 16, "--batch-size", 10, "--epochs", 3)
    process = run_here("compete", colours, *small, "--auto-lr", "--dry-run")
    assert process.returncode == 0, process.stderr
    found = re.search(r"^rate      ([\d.e+-]+) by the range test \(valley\), instead of", process.stdout, re.MULTILINE)[
        1
    ]
    assert f"with one-cycle rate up to {found}, seed 0" in process.stdout
    both = run_here("compete", colours, *small, "--auto-lr", "--lr", 0.1)
    assert (both.returncode, "`--auto-lr` finds the rate, and `--lr 0.1` settles it" in both.stderr) == (2, True)

    choices = {"width": 0.125, "image_size": (16, 16), "batch_size": 10, "epochs": 3}
    plan = make_plan(open_dataset(colours), choices, False, Console(quiet=True))
    changed = with_found_rate(plan, Console(quiet=True)).recipe
    assert changed.lr != plan.recipe.lr
    for field in ("bias_rate", "head_rate"):
        assert getattr(changed, field) * changed.lr == pytest.approx(getattr(plan.recipe, field) * plan.recipe.lr)
