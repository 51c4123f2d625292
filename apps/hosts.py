"""The processes that train one network together: how they meet, what the first one tells the others, how they part."""

import json
import os
from dataclasses import dataclass
from typing import Any

PATIENCE = 30  # seconds without a sign of life after which a process counts as stopped
TO_START = 300  # seconds in which all processes must have started
COUNTED = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")  # how many processes a scheduler says it started


@dataclass(frozen=True)
class Hosts:
    """Where this process stands among those that train together: its number, from 0, and how many there are."""

    number: int = 0
    of: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that decides, and writes files."""
        return self.number == 0

    def from_first(self, value: Any = None) -> Any:
        """What the first process gives, which JSON can hold, on all of them; all must call it."""
        if self.of == 1:
            return value
        import numpy as np
        from jax.experimental.multihost_utils import broadcast_one_to_all

        text = np.frombuffer(json.dumps(value).encode() if self.is_first else b"", "uint8")
        length = int(broadcast_one_to_all(np.int32(len(text))))
        text = np.asarray(broadcast_one_to_all(text if self.is_first else np.zeros(length, "uint8")))
        return json.loads(text.astype("uint8").tobytes())


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

    try:
        jax.distributed.initialize(
            asked.coordinator,
            asked.count,
            asked.number,
            initialization_timeout=TO_START,
            heartbeat_timeout_seconds=PATIENCE,
            shutdown_timeout_seconds=PATIENCE,
        )
    except ValueError as error:
        raise ValueError(
            "No job of SLURM, Open MPI or Kubernetes is recognised here. Say `--hosts COUNT --host NUMBER "
            f"--coordinator HOST:PORT` ({error})."
        ) from error
    except RuntimeError as error:
        raise ValueError(
            f"Not all processes have come together within {TO_START} s: is {asked.coordinator or 'the first one'} "
            f"reachable, and was each started with a `--host` of its own? ({_first_line(error)})"
        ) from error
    return Hosts(jax.process_index(), jax.process_count())


def leave(hosts: Hosts) -> None:
    """Wait until all processes have come here, and part."""
    if hosts.of > 1:
        import jax

        jax.distributed.shutdown()


def describe_stop(error: RuntimeError) -> str:
    """A sentence for what JAX raises when another process does not answer any more."""
    return f"{STOPPED} ({_first_line(error)})"


STOPPED = (
    "Another process of this training has stopped, so that this one cannot go on: see what it said. What is finished "
    "is kept; start all of them again with `--resume`, as many as you like."
)


def _first_line(error: Exception) -> str:
    """The last part of a message that wraps others, in at most 160 characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rsplit("Error dispatching computation: ", 1)[-1][:160]


def _check_address(coordinator: str) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"`--coordinator` must be HOST:PORT, such as 10.0.0.1:4444. Received: {coordinator}.")
