"""Pictures decoded and augmented on other machines, by TensorFlow's tf.data service, in the order they have here.

A dispatcher hands out the numbers of the steps, each once; a worker makes the batches of the steps it was given; the
process that trains puts them back in order. Whoever reaches a dispatcher or a worker can make it run what he likes:
they belong in a network of one's own.
"""

import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines import augment, encoded  # noqa: F401  their Python functions, which a worker calls by name
from pipelines.python_op import unnamed_functions

LAST = 2**62  # no training takes so many steps
AHEAD = 64  # batches that are kept, at most, while one before them is missing
AHEAD_BYTES = 4 * 2**30  # the same, while it leaves some


def start_dispatcher(port: int) -> tf.data.experimental.service.DispatchServer:
    """A dispatcher that listens at `port` of this machine; 0 takes a free one. It ends with the object."""
    return tf.data.experimental.service.DispatchServer(tf.data.experimental.service.DispatcherConfig(port=port))


def start_worker(dispatcher: str, port: int = 0, host: str | None = None) -> tuple[Any, str]:
    """A worker, which ends with the object, and its address.

    Args:
        dispatcher: "host:port".
        port: To listen at; 0 takes a free one.
        host: By which the others reach this machine; None for the address from which it reaches the dispatcher.

    Raises:
        ValueError: There is no dispatcher.
    """
    host = host or _reached_from(dispatcher)
    if not port:
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
    address = f"{host}:{port}"
    config = tf.data.experimental.service.WorkerConfig(
        dispatcher_address=_plain(dispatcher), worker_address=address, port=port
    )
    return tf.data.experimental.service.WorkerServer(config), address


def made_elsewhere(
    make: Callable[..., tf.data.Dataset], dispatcher: str, first: int, note: Callable[[Any], Any]
) -> tf.data.Dataset:
    """The batches of all steps from `first` on, made by the workers, in the order of the steps.

    A step that is still missing when `AHEAD` later ones are there went with its worker, or that one is slow: its batch
    is made here, the same. Without any worker this waits for one.

    Args:
        make: From a data set of steps to one of `(step, anything, batch)`; with `elsewhere=True` one that other
            processes can run.
        dispatcher: "host:port".
        first: The first step.
        note: Called with the `anything` of each batch that came from a worker.

    Raises:
        ValueError: There is no dispatcher.
    """
    _reached_from(dispatcher)
    service = tf.data.experimental.service
    # Each step is given to one worker; compressing pixels costs more than sending them.
    there = make(tf.data.Dataset.range(first, LAST), elsewhere=True).apply(
        service.distribute(service.ShardingPolicy.DYNAMIC, f"grpc://{_plain(dispatcher)}", compression=None)
    )

    @tf.function(autograph=False)
    def made_here(step: tf.Tensor) -> Any:
        return make(tf.data.Dataset.range(step, step + 1)).get_single_element()[2]

    size = sum(spec.dtype.size * np.prod(spec.shape) for spec in tf.nest.flatten(there.element_spec[2]))
    most = int(np.clip(AHEAD_BYTES // size, 4, AHEAD))

    def arriving() -> Iterator[tuple[int, Any]]:
        for step, noted, batch in there:
            note(noted)
            yield int(step), batch

    return tf.data.Dataset.from_generator(
        lambda: in_order(arriving(), first, lambda step: made_here(tf.constant(step, "int64")), most),
        output_signature=there.element_spec[2],
    )


def in_order(
    arriving: Iterable[tuple[int, Any]], step: int, made_here: Callable[[int], Any], most: int
) -> Iterator[Any]:
    """The batches of `(step, batch)` from `step` on, in order.

    One that is missing while `most` later ones wait is `made_here`, and dropped if it comes after all.
    """
    waiting = {}
    for number, batch in arriving:
        if number >= step:
            waiting[number] = batch
        while step in waiting or len(waiting) >= most:
            yield waiting.pop(step) if step in waiting else made_here(step)
            step += 1


def refuse_unnamed(graph: tf.Graph) -> None:
    """Raise a `ValueError` if another process could not run this graph of an augmentation."""
    if unnamed_functions(graph):
        raise ValueError(
            "`service` cannot run Python functions on other machines: leave out the transforms of Albumentations and "
            "functions that call `tf.numpy_function` or `tf.py_function`, or `service`."
        )


def _plain(address: str) -> str:
    """ "host:port" without "grpc://"."""
    return address.removeprefix("grpc://")


def _reached_from(dispatcher: str) -> str:
    """The address of this machine that the dispatcher sees; a `ValueError` if there is none."""
    host, _, port = _plain(dispatcher).rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"The dispatcher's address must be host:port. Received: {dispatcher!r}.")
    try:
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            return connection.getsockname()[0]
    except OSError as error:
        raise ValueError(
            f"No dispatcher answers at {dispatcher} ({error}). Start it with `kerascnn decode dispatcher`."
        ) from error
