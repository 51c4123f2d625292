"""Shared by the tests: a cache of their own, quiet TensorFlow, small competitions, one trained run."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun in the background of a script; what we start inherits it
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from serving_examples import Server

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpacked archives go to a temporary folder, also those of started processes."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["KERASCNN_CACHE"] = str(folder)
    return folder


def paint(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (12, 10), seed: int = 0) -> Path:
    """A picture of one noisy colour, (height, width) pixels."""
    noise = np.random.default_rng(seed).integers(-40, 41, (*size, 3))
    pixels = np.clip(np.array(colour) + noise, 0, 255).astype("uint8")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def multi_optimizer() -> type:
    """Keras' optimiser made of several."""
    import keras

    if not hasattr(keras.optimizers, "MultiOptimizer"):
        pytest.skip("This Keras has no MultiOptimizer.")
    return keras.optimizers.MultiOptimizer


COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """A competition that is easy to learn: 60 pictures of three colours, 9 hidden ones, answers."""
    return make_colours(tmp_path)


def make_colours(folder: Path) -> Path:
    """Write that competition to the folder "colours" in `folder`."""
    root = folder / "colours"
    train, test, answers = ["image,label"], ["image"], ["image,label"]
    for index in range(60):
        label = list(COLOURS)[index % 3]
        paint(root / "train" / f"{index:03d}.png", COLOURS[label], seed=index)
        train.append(f"{index:03d},{label}")
    for index in range(9):
        label = list(COLOURS)[index % 3]
        paint(root / "test" / f"{index:03d}.png", COLOURS[label], seed=1000 + index)
        test.append(f"{index:03d}")
        answers.append(f"{index:03d},{label}")
    for name, rows in (("train.csv", train), ("test.csv", test), ("answers.csv", answers)):
        (root / name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def kerascnn(*arguments: object, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "apps.cli", *map(str, arguments)]
    options = {"env": {**os.environ, "PYTHONPATH": str(ROOT)}, **options}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300, **options)


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One short `kerascnn compete digits`, whose folder and printed lines many tests look at."""
    folder = tmp_path_factory.mktemp("digits")
    process = kerascnn("compete", "digits", "--epochs", 6, "--probabilities", cwd=folder)
    assert process.returncode == 0, process.stderr
    return folder, process


@pytest.fixture
def run_cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`kerascnn ARGUMENTS` in a process of its own, in the test's folder."""
    return lambda *arguments, **options: kerascnn(*arguments, **{"cwd": tmp_path, **options})


@pytest.fixture
def run_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`kerascnn ARGUMENTS` in this process, which has TensorFlow loaded already: for what ends before training."""
    from apps.cli import main

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return subprocess.CompletedProcess(arguments, ended.value.code or 0, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved_models folder with `half` (version 123) and `tiny` (version 1), not to be changed."""
    from serving_examples import half_plus_two, tiny_classifier

    folder = tmp_path_factory.mktemp("saved_models")
    half_plus_two(folder / "half/123")
    tiny_classifier(folder / "tiny/1")
    return folder


@pytest.fixture(scope="session")
def server(models: Path) -> Iterator["Server"]:
    """A real server of `models`, shared: leave it as it is."""
    from serving_examples import Server

    with Server(models, "--exact") as server:
        yield server
