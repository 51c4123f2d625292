"""The benchmark for accelerators: it runs where there is no TensorFlow, with the recipe's own optimiser."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from apps import bench_pytorch

ROOT = Path(__file__).resolve().parent.parent
# As if they were not installed.
HIDE = """
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        hidden = name.split(".")[0] in ("tensorflow", "pipelines", "typer", *others)
        return None if hidden else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path = [Hiding(finder) for finder in sys.meta_path]
"""
# The contestants of airbench94 make a step, those of ResNet-50 take too long here.
COMMAND = """
others = ["torch"]
import apps.bench
from apps.bench import Figure

def measure(contestants, rounds):
    for one in contestants:
        if one.pictures == 32:
            one.start()()
    return [Figure(one.name, 1.0, 1.0, 1.0) for one in contestants]

apps.bench.measure = measure
from apps.bench_accelerator import main
main()
"""
BESIDE = """
others = []
import os
os.environ["KERAS_BACKEND"] = "jax"
from apps.bench_frameworks import Work, bench_frameworks
from apps.bench_networks import Case
from apps.console import Console

case = Case("resnet18", 8, 2, 10, 11_173_962, {"stem": "small"})
tables = bench_frameworks(1, Console(), [Work(case, steps=2, seconds=0.001)])
for figures in tables.values():
    ours, theirs = figures
    assert ours.name == "kerascnn" and theirs.name in ("PyTorch, torch.compile", "PyTorch, eager"), figures
    assert ours.median > 0 and theirs.median > 0
"""


def run(code: str, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Python in a process that finds no TensorFlow, though KERAS_BACKEND names it."""
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-c", HIDE + code, *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_runs_without_tensorflow_and_writes_its_figures(tmp_path) -> None:
    pytest.importorskip("jax")
    process = run(COMMAND, tmp_path, "--rounds", 1, "--json", "figures.json")
    assert process.returncode == 0, process.stderr
    assert "JAX works on cpu (cpu)\nPyTorch is not installed" in process.stdout
    written = json.loads((tmp_path / "figures.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]
    assert (written["benchmark"], written["rounds"]) == ("accelerator", 1)
    names = {title: [figure["name"] for figure in figures] for title, figures in written["figures"].items()}
    assert names == {
        f"{case}, bfloat16, cpu: {work}": ours
        for case, ours in (
            ("resnet50, 64x64, batch 4", ["kerascnn"]),
            ("airbench94, 32x32, batch 32", ["kerascnn", "kerascnn, cifar10-fast"]),
        )
        for work in ("training step", "inference")
    }


def test_wrong_arguments_are_told_before_anything_is_measured(tmp_path) -> None:
    for arguments, expected in (
        (("--rounds", 0), "`--rounds` must be at least 1. Received: 0."),
        (("--json", "none/figures.json"), f"There is no folder {tmp_path}/none to write figures.json to."),
    ):
        process = run(COMMAND, tmp_path, *arguments)
        assert process.returncode == 2
        assert expected in process.stderr


@pytest.mark.skipif(not bench_pytorch.INSTALLED, reason="PyTorch is not installed: kerascnn[torch].")
def test_the_same_network_in_pytorch_is_measured_in_the_same_process(tmp_path) -> None:
    pytest.importorskip("jax")
    process = run(BESIDE, tmp_path)
    assert process.returncode == 0, process.stderr


def test_optimiser_is_the_one_that_the_recipe_trains_with() -> None:
    code = (
        "from apps.bench_frameworks import recipe_optimizer\n"
        "from apps.network import make_optimizer\n"
        "from apps.recipes import RECIPES\n"
        "from apps.resolve import resolve\n"
        "recipe = resolve(RECIPES['cifar10-fast'], 45_000, (32, 32), [['cat', 'dog']])\n"
        "ours, expected = recipe_optimizer(500).get_config(), make_optimizer(recipe, 500).get_config()\n"
        "assert ours.pop('name') in expected.pop('name')\n"
        "assert ours == expected, (ours, expected)\n"
    )
    pytest.importorskip("jax")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=300)
