"""The processes that train one network together: how they meet, what the first one tells the others, how they part."""

import json
import os
import signal
import socket
from dataclasses import dataclass
from itertools import count
from typing import Any

from apps.new_process import DiedError, note

PATIENCE = 30  # seconds without a sign of life after which a process counts as stopped
TO_START = 300  # seconds in which all processes must have started
LONGEST = 86_400  # seconds that one of them may prepare while the others wait
COUNTED = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")  # how many processes a scheduler says it started


@dataclass(frozen=True)
class Hosts:
    """Where this process stands among those that train together: its number, from 0, and how many there are.

    They talk by way of the first one's coordination service, which waits as long as its processes live: devices only
    meet where all are known to be ready (`apps.devices.Devices.meet`).
    """

    number: int = 0
    of: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that decides, and writes files."""
        return self.number == 0

    def from_first(self, value: Any = None) -> Any:
        """What the first process gives, which JSON can hold, on all of them; all must call it."""
        return self.from_all(value if self.is_first else None)[0]

    def from_all(self, value: Any = None) -> list[Any]:
        """What each process gives, in order; all must call it."""
        if self.of == 1:
            return [value]
        client, turn = _client(), next(_TURNS)
        client.key_value_set(f"kerascnn/{turn}/{self.number}", json.dumps(value))
        return [
            json.loads(client.blocking_key_value_get(f"kerascnn/{turn}/{number}", 1000 * LONGEST))
            for number in range(self.of)
        ]

    def agree(self, error: str | None) -> None:
        """A `ValueError` on all where one of them has an error; all must call it."""
        for number, said in enumerate(self.from_all(error)):
            if said is not None:
                raise ValueError(said if number == self.number else f"Host {number} says: {said}")


_TURNS = count()  # all processes take the same turns


def _client() -> Any:
    from jax._src.distributed import global_state  # JAX has no public name for it

    return global_state.client


ALONE = Hosts()


@dataclass(frozen=True)
class Asked:
    """What the command line says of the hosts; None for what the scheduler's environment says."""

    count: int | None = None
    number: int | None = None
    coordinator: str | None = None


def parse_hosts(hosts: str | None, host: int | None, coordinator: str | None) -> Asked | None:
    """What is asked for; None for this process alone.

    Args:
        hosts: How many processes, or "auto" for what the environment of SLURM, Open MPI or Kubernetes says; None is
            "auto" in a job of several.
        host: The number of this one, from 0.
        coordinator: "HOST:PORT" of the first one.

    Raises:
        ValueError: They do not fit each other.

    >>> parse_hosts("2", 1, "10.0.0.1:4444")
    Asked(count=2, number=1, coordinator='10.0.0.1:4444')
    """
    if hosts is None and host is None and coordinator is None:
        started = [number for name in COUNTED if (number := os.environ.get(name, "")).isdigit()]
        return Asked() if max(map(int, started), default=0) > 1 else None
    if hosts == "auto":
        return Asked(None, host, coordinator)
    if hosts is None or not hosts.isdigit() or int(hosts) < 1:
        raise ValueError(f"`--hosts` must be a number of processes, or `auto`. Received: {hosts}.")
    count = int(hosts)
    if count == 1:
        return None
    if host is None or coordinator is None:
        raise ValueError(
            f"`--hosts {count}` needs `--host`, the number of this process from 0, and `--coordinator HOST:PORT`, "
            "where the first one listens; `--hosts auto` takes them from SLURM, Open MPI or Kubernetes."
        )
    if not 0 <= host < count:
        raise ValueError(f"`--host` must lie between 0 and {count - 1}. Received: {host}.")
    _check_address(coordinator)
    return Asked(count, host, coordinator)


def join(asked: Asked | None) -> Hosts:
    """Wait for the other processes, with JAX; before anything is computed with it.

    Raises:
        ValueError: There is no scheduler that says who they are, or they did not all come.
    """
    if asked is None:
        return ALONE
    import jax

    if asked.number == 0 and asked.coordinator is not None:
        _check_port(asked.coordinator)
    try:
        jax.distributed.initialize(
            asked.coordinator,
            asked.count,
            asked.number,
            initialization_timeout=TO_START,
            heartbeat_timeout_seconds=PATIENCE,
            shutdown_timeout_seconds=LONGEST,
        )
    except ValueError as error:
        raise ValueError(
            "No job of SLURM, Open MPI or Kubernetes is recognised here. Say `--hosts COUNT --host NUMBER "
            f"--coordinator HOST:PORT` ({error})."
        ) from error
    note(JOINED)
    return Hosts(jax.process_index(), jax.process_count())


def leave(hosts: Hosts) -> None:
    """Wait until all processes have come here, and part."""
    if hosts.of > 1:
        import jax

        jax.distributed.shutdown()


def is_of_others(error: RuntimeError) -> bool:
    """Whether this is what JAX raises when another process does not answer any more."""
    return any(word in str(error) for word in ("Gloo", "gloo", "NCCL", "oordination", "onnection", "UNAVAILABLE"))


def describe_death(error: DiedError, asked: Asked) -> str:
    """A sentence for the end of this process' training by JAX itself, or by a signal."""
    if error.code == -signal.SIGKILL:
        return f"The training of this process was killed, perhaps for want of memory. {AGAIN}"
    if error.noted != JOINED:
        return (
            f"Not all processes have come together within {TO_START} s: is {asked.coordinator or 'the first one'} "
            "reachable, and was each started, with a `--host` of its own?"
        )
    return STOPPED


JOINED = "joined"
AGAIN = "What is finished is kept; start all of them again with `--resume`."
STOPPED = f"Another process of this training has stopped, so that this one cannot go on: see what it said. {AGAIN}"


def _check_address(coordinator: str) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"`--coordinator` must be HOST:PORT, such as 10.0.0.1:4444. Received: {coordinator}.")


def _check_port(coordinator: str) -> None:
    """A `ValueError` where the first process cannot listen."""
    port = int(coordinator.rpartition(":")[2])
    try:
        with socket.create_server(("", port)):
            pass
    except OSError as error:
        raise ValueError(
            f"Port {port} cannot be listened at ({os.strerror(error.errno or 0)}). Take another one in `--coordinator`."
        ) from error
