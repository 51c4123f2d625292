"""`kerascnn decode`: one process of a tf.data service, which reads, decodes and augments pictures for trainings."""

import os
import signal
import sys
import threading

from apps.console import Console
from pipelines.service import start_dispatcher, start_worker

PORT = 5050  # of a dispatcher
ROLES = ("dispatcher", "worker")


def decode(role: str, dispatcher: str | None, host: str | None, port: int | None, console: Console) -> None:
    """Start a dispatcher, or a worker of the `dispatcher`, print its address and wait to be stopped.

    Raises:
        ValueError: The role is not known, a worker has no dispatcher, or a dispatcher has one or a host.
    """
    if role not in ROLES:
        raise ValueError(f"ROLE must be one of {', '.join(ROLES)}. Received: {role!r}.")
    if (role == "worker") != (dispatcher is not None):
        raise ValueError("A worker needs --dispatcher HOST:PORT, and a dispatcher has none.")
    if role == "dispatcher" and host is not None:
        raise ValueError("--host is for workers: a dispatcher has no address to tell.")
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    if dispatcher is None:
        server = start_dispatcher(PORT if port is None else port)
        console.say(f"dispatcher at port {server.target.rpartition(':')[2]}")
    else:
        server, address = start_worker(dispatcher, port or 0, host)
        console.say(f"worker at {address}")
    ended.wait()
    console.say("stopped")
    sys.stdout.flush()
    os._exit(0)  # TensorFlow's own end of a worker that has work waits for ever
