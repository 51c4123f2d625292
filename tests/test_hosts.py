"""Several devices and several hosts train the network that one device trains; what stops one stops all, and goes on.

Each host is a real process of the command line on this machine, with JAX; all train the digits.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from callbacks import read_snapshot

pytest.importorskip("jax", reason="several hosts train on JAX: pip install 'kerascnn[jax]'")

OPTIONS = ["--epochs", "3", "--batch-size", "128", "--lr", "0.05", "--width", "0.125", "--set", "mixup=0.2", "--set", "activation=silu", "--set", "noise=4"]
SAME = 2e-4  # of weights of about 1 after 120 steps: what other orders of summation make of float32
A_MINUTE = 60


class Host:
    """A process `kerascnn compete digits` in a folder; of several processes with their coordinator at `port`."""

    def __init__(self, folder: Path, *options: str, backend: str = "jax", port: int = 0, number: int = 0, of: int = 1):
        self.folder = folder
        several = ["--hosts", of, "--host", number, "--coordinator", f"127.0.0.1:{port}"] if of > 1 else []
        command = [sys.executable, "-m", "apps.cli", "compete", "digits", "--saved-models", folder / "saved_models"]
        command += [*options, *several, *([] if "--out" in options else ["--out", folder / "run"])]
        environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            list(map(str, command)), cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def end(self, seconds: float = 400) -> tuple[int, str, str]:
        """(exit code, standard output, standard error) once it has ended."""
        try:
            out, error = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode, out, error


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def train(folder: Path, *options: str, of: int = 1, backend: str = "jax") -> str:
    """Train to the end; what the first host says."""
    folder.mkdir(exist_ok=True, parents=True)
    port = free_port()
    hosts = [Host(folder, *options, port=port, number=number, of=of, backend=backend) for number in range(of)]
    ends = [host.end() for host in hosts]
    assert [code for code, *_ in ends] == [0] * of, ends
    return ends[0][1]


def weights(folder: Path) -> list[np.ndarray]:
    """What the training ended with: weights, slots of the optimiser, seeds."""
    return read_snapshot(folder / "run" / "checkpoints" / "1" / "last.npz")[0]


def difference(first: Path, second: Path) -> float:
    """The largest of all weights of two runs."""
    return max(
        float(np.max(np.abs(one.astype("float64") - two), initial=0.0))
        for one, two in zip(weights(first), weights(second), strict=True)
    )


def answers(folder: Path) -> str:
    return (folder / "run" / "submission.csv").read_text()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on one device, on JAX."""
    folder = tmp_path_factory.mktemp("alone")
    train(folder, *OPTIONS)
    return folder


def test_two_hosts_train_the_network_of_one(alone: Path, tmp_path: Path) -> None:
    said = train(tmp_path, *OPTIONS, of=2)
    assert "2 x cpu, 1 on each of 2 hosts: of a batch of 32, 16 pictures on each, BatchNorm over all of them" in said
    assert difference(alone, tmp_path) < SAME
    assert answers(alone) == answers(tmp_path)


def test_two_devices_of_jax_train_the_network_of_one(alone: Path, tmp_path: Path) -> None:
    said = train(tmp_path, *OPTIONS, "--devices", "2")
    assert "2 x cpu: of a batch of 32, 16 pictures on each" in said
    assert difference(alone, tmp_path) < SAME
    assert answers(alone) == answers(tmp_path)
