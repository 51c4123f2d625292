"""What the command line and the schedulers' environments say of hosts and devices."""

import subprocess
import sys

import pytest

from apps.hosts import Asked, parse_hosts
from apps.options import parse_devices


@pytest.fixture(autouse=True)
def no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_nothing_said_is_this_process_alone() -> None:
    assert parse_hosts(None, None, None) is None
    assert parse_hosts("1", None, None) is None


@pytest.mark.parametrize("name", ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"])
def test_job_of_several_processes_is_recognised(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert parse_hosts(None, None, None) is None
    monkeypatch.setenv(name, "4")
    assert parse_hosts(None, None, None) == Asked()


def test_hosts_are_counted_numbered_and_meet_at_the_coordinator() -> None:
    assert parse_hosts("4", 3, "train-0.train:4444") == Asked(4, 3, "train-0.train:4444")
    assert parse_hosts("auto", None, None) == Asked()


@pytest.mark.parametrize(
    "hosts, host, coordinator, message",
    [
        ("two", 0, "a:1", "a number of processes, or `auto`. Received: two"),
        ("0", 0, "a:1", "Received: 0"),
        (None, 1, None, "`--hosts` must be a number"),
        ("2", None, "a:1", "needs `--host`"),
        ("2", 0, None, "needs `--host`"),
        ("2", 2, "a:1", "between 0 and 1. Received: 2"),
        ("2", 0, "a", "must be HOST:PORT, such as 10.0.0.1:4444. Received: a"),
        ("2", 0, "a:99999", "must be HOST:PORT"),
    ],
)
def test_wrong_hosts_say_what_is_right(hosts: str, host: int, coordinator: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_hosts(hosts, host, coordinator)


@pytest.mark.parametrize("devices", ["0", "-1", "two", ""])
def test_wrong_devices_say_what_is_right(devices: str) -> None:
    with pytest.raises(ValueError, match="`--devices` must be a number of devices, or `all`"):
        parse_devices(devices)


def test_hosts_need_jax() -> None:
    command = [sys.executable, "-m", "apps.cli", "compete", "digits", "--hosts", "2", "--host", "0"]
    ended = subprocess.run([*command, "--coordinator", "127.0.0.1:4444"], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr == (
        "kerascnn: error: Several processes train together on JAX only: set KERAS_BACKEND=jax in all of them, or start "
        "a single one.\n"
    )
