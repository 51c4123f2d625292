"""Several devices and hosts train the network that one device trains; what stops one stops all, and they go on.

Each host is a real process of the command line on this machine, with JAX; all train the digits. The network is smooth,
so that rounding stays rounding: where a maximum has two candidates, or ReLU a zero, it decides between two trainings,
which after 33 steps differ by 0.08.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from callbacks import read_snapshot

pytest.importorskip("jax", reason="several hosts train on JAX: pip install 'kerascnn[jax]'")

OPTIONS = [
    *("--epochs", "3", "--batch-size", "128", "--lr", "0.05", "--model", "resnet20", "--width", "0.25"),
    *("--no-flip", "--set", "views=0"),
    *("--set", "mixup=0.2", "--set", "activation=silu", "--saved-models", "saved_models"),
]
SAME = 1e-4  # the largest difference of two weights; measured: 9e-6
A_MINUTE = 60


class Host:
    """A process `kerascnn compete digits --out run` in a folder, with JAX; one of several where there is a `port`."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        data: str = "digits",
        port: int = 0,
        number: int = 0,
        of: int = 1,
        environment: Mapping[str, str] = {},
    ) -> None:
        folder.mkdir(exist_ok=True, parents=True)
        several = ["--hosts", of, "--host", number, "--coordinator", f"127.0.0.1:{port}"] if port else []
        command = [sys.executable, "-m", "apps.cli", "compete", data, "--out", "run", *options, *several]
        self.process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
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


def start(folders: list[Path], *options: str, **data: str) -> list[Host]:
    """A host in each of the folders, all together."""
    port = free_port()
    return [
        Host(folder, *options, **data, port=port, number=number, of=len(folders))  # type: ignore[arg-type]
        for number, folder in enumerate(folders)
    ]


def succeed(*hosts: Host) -> str:
    """Wait until all have ended well; what the first one said."""
    ends = [host.end() for host in hosts]
    assert [code for code, *_ in ends] == [0] * len(hosts), ends
    return ends[0][1]


def difference(first: Path, second: Path) -> float:
    """The largest of all variables that two trainings ended with: weights, slots of the optimiser, seeds."""
    variables = [read_snapshot(folder / "run" / "checkpoints" / "1" / "last.npz")[0] for folder in (first, second)]
    return max(
        float(np.max(np.abs(one.astype("float64") - two), initial=0.0)) for one, two in zip(*variables, strict=True)
    )


def answers(folder: Path) -> str:
    return (folder / "run" / "submission.csv").read_text()


def wait_for(path: Path, seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on one device."""
    folder = tmp_path_factory.mktemp("alone")
    succeed(Host(folder, *OPTIONS))
    return folder


def test_two_hosts_train_the_network_of_one_and_only_the_first_writes(alone: Path, tmp_path: Path) -> None:
    first, second, devices = tmp_path / "first", tmp_path / "second", tmp_path / "devices"
    said = succeed(*start([first, second], *OPTIONS))
    assert "2 x cpu, 1 on each of 2 hosts: of a batch of 128, 64 pictures on each, BatchNorm over all of them" in said
    assert difference(alone, first) < SAME
    assert answers(alone) == answers(first)
    assert not list(second.iterdir())
    record = json.loads((first / "run" / "recipe.json").read_text())
    assert record["devices"] == "jax, 2 x cpu, 1 on each of 2 hosts"

    succeed(Host(devices, *OPTIONS, "--devices", "2"))  # of a single host
    assert difference(devices, first) == 0
    assert answers(devices) == answers(first)


def test_statistics_of_each_device_are_those_of_parts_on_one(tmp_path: Path) -> None:
    several, one = tmp_path / "several", tmp_path / "one"
    said = succeed(Host(several, *OPTIONS, "--devices", "2", "--batch-norm", "device"))
    assert "BatchNorm in 2 parts" in said
    succeed(Host(one, *OPTIONS, "--set", "norm_parts=2"))
    assert difference(several, one) < SAME


def test_network_trained_on_jax_is_exported_as_it_is(alone: Path) -> None:
    code = """
import json, sys
import keras, kerascnn, numpy as np, tensorflow as tf
network = keras.saving.load_model(sys.argv[1] + "/run/model.keras")
pictures = np.load(sys.argv[2])
np.save(sys.argv[3], network.predict(pictures.astype("float32"), verbose=0)["label"])
"""
    from sklearn.datasets import load_digits

    digits = load_digits().images[:360]
    small = np.repeat(np.kron(digits * 15, np.ones((2, 2)))[..., None], 3, axis=-1).astype("uint8")
    np.save(alone / "pictures.npy", small)
    files = [str(alone), str(alone / "pictures.npy"), str(alone / "logits.npy")]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, *files], env=environment, check=True, capture_output=True)
    trained = read_snapshot(alone / "run" / "checkpoints" / "1" / "best.npz")[0]

    import keras
    import tensorflow as tf

    import kerascnn  # noqa: F401

    written = keras.saving.load_model(alone / "run" / "model.keras").get_weights()
    assert all(np.array_equal(one, two) for one, two in zip(trained, written, strict=True))
    result = json.loads((alone / "run" / "result.json").read_text())
    served = tf.saved_model.load(str(next((alone / "saved_models" / "run").iterdir())))
    probabilities = served.signatures["serving_default"](tf.constant(small))["label"].numpy()
    logits = np.load(alone / "logits.npy") / result["heads"]["label"]["temperature"]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.abs(probabilities - expected).max() < 1e-4


@pytest.mark.parametrize("killed, then", [(1, 1), (0, 2)])
def test_killed_host_stops_the_other_and_any_number_goes_on(
    killed: int, then: int, alone: Path, tmp_path: Path
) -> None:
    hosts = start([tmp_path, tmp_path], *OPTIONS, "--checkpoint-minutes", "0")
    wait_for(tmp_path / "run" / "checkpoints" / "1" / "last.npz")
    hosts[killed].process.kill()
    code, _, error = hosts[1 - killed].end(A_MINUTE)
    assert code == 2
    assert "Another process of this training has stopped" in error.strip().splitlines()[-1]
    assert "--resume" in error
    hosts[killed].end()

    again = start([tmp_path] * then, "--resume") if then > 1 else [Host(tmp_path, "--resume")]
    assert re.search(r"going on (in epoch \d of 3, after step \d+ of|after epoch [12] of 3)", succeed(*again))
    assert difference(alone, tmp_path) < SAME
    assert answers(alone) == answers(tmp_path)


def test_silent_host_stops_the_other_within_a_minute(tmp_path: Path) -> None:
    hosts = start([tmp_path, tmp_path], *OPTIONS, "--epochs", "500", "--checkpoint-minutes", "0")
    wait_for(tmp_path / "run" / "checkpoints" / "1" / "last.npz")
    trainer = int(subprocess.check_output(["pgrep", "-P", str(hosts[1].process.pid), "-f", "spawn_main"]).split()[0])
    os.kill(trainer, signal.SIGSTOP)  # as where a cable is cut
    try:
        code, _, error = hosts[0].end(A_MINUTE)
        assert code == 2
        assert "Another process of this training has stopped" in error.strip().splitlines()[-1]
    finally:
        os.kill(trainer, signal.SIGKILL)
        hosts[1].end()


def test_job_of_slurm_needs_no_options(tmp_path: Path) -> None:
    job = {
        "SLURM_JOB_ID": str(free_port() % 4096),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
    }
    hosts = [
        Host(tmp_path, *OPTIONS, "--epochs", "1", environment={**job, "SLURM_PROCID": number, "SLURM_LOCALID": number})
        for number in "01"
    ]
    assert "2 x cpu, 1 on each of 2 hosts: of a batch of 128, 64 pictures on each" in succeed(*hosts)


def test_hosts_wait_for_one_another_longer_than_devices_do(tmp_path: Path) -> None:
    """Devices that meet wait for 30 seconds."""
    code = """
import sys, time
import jax
jax.config.update("jax_num_cpu_devices", 2)
from apps.hosts import Asked, join, leave
from apps.devices import open_devices
number = int(sys.argv[1])
hosts = join(Asked(2, number, sys.argv[2]))
devices = open_devices(0, hosts)
time.sleep(35 * (number == 0))
assert hosts.from_first({"number": number}) == {"number": 0}
time.sleep(35 * (number == 1))
devices.meet()
time.sleep(35 * (number == 0))
leave(hosts)
"""
    address = f"127.0.0.1:{free_port()}"
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    both = [subprocess.Popen([sys.executable, "-c", code, number, address], env=environment) for number in "01"]
    assert [one.wait(300) for one in both] == [0, 0]


def test_host_with_another_number_of_devices_is_named(tmp_path: Path) -> None:
    port = free_port()
    hosts = [Host(tmp_path, "--devices", n, port=port, number=i, of=2) for i, n in enumerate("21")]
    for host in hosts:
        code, _, error = host.end()
        assert code == 2
        assert "All hosts must have as many devices. They have, in order: 2, 1" in error
    assert not (tmp_path / "run").exists()


def test_interrupt_of_the_command_alone_stops_the_training(tmp_path: Path) -> None:
    host = Host(tmp_path, *OPTIONS, "--epochs", "500", "--checkpoint-minutes", "0")
    wait_for(tmp_path / "run" / "checkpoints" / "1" / "last.npz")
    host.process.send_signal(signal.SIGINT)
    code, _, error = host.end(A_MINUTE)
    assert code == 130
    assert "Go on with: KERAS_BACKEND=jax kerascnn compete digits --resume --out run" in error


def test_resume_keeps_its_batch_or_says_why_not(alone: Path, tmp_path: Path) -> None:
    host = Host(tmp_path, *OPTIONS, "--checkpoint-minutes", "0")
    wait_for(tmp_path / "run" / "checkpoints" / "1" / "last.npz")
    host.process.kill()
    host.end()
    code, _, error = Host(tmp_path, "--resume", "--devices", "3").end()
    assert code == 2
    assert "`batch_size` must be a multiple of the 3 devices, such as 129. Received: 128." in error


def test_port_in_use_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, error = Host(tmp_path, port=taken.getsockname()[1], number=0, of=2).end()
    assert code == 2
    assert "cannot be listened at (Address already in use). Take another one in `--coordinator`." in error


def test_host_with_other_data_is_named(tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    generator = np.random.default_rng(0)
    for folder in folders:
        folder.mkdir()
        pictures = generator.integers(0, 256, (64, 16, 16, 3), "uint8")
        np.savez(folder / "data.npz", x_train=pictures, y_train=np.arange(64) % 2)
    first, second = start(folders, *OPTIONS[2:], "--epochs", "1", "--batch-size", "16", data="data.npz")
    code, _, error = second.end()
    assert code == 2
    assert "Host 1 finds other data in data.npz than the first one: labelled pictures" in error
    code, _, error = first.end(A_MINUTE)
    assert code == 2
    assert "Host 1 says: Host 1 finds other data" in error
    assert not (folders[0] / "run").exists()


def test_error_of_the_first_host_is_told_by_all(tmp_path: Path) -> None:
    for host in start([tmp_path, tmp_path], "--batch-size", "33", "--epochs", "1"):
        code, _, error = host.end()
        assert code == 2
        assert "`batch_size` must be a multiple of the 2 devices, such as 32. Received: 33." in error
