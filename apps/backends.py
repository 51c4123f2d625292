"""`kerascnn compete` on the backend that KERAS_BACKEND names: TensorFlow for all of it, or JAX for the training.

The SavedModel, and all that is written with it, needs networks on TensorFlow's backend, and a process has one backend:
so a process of its own trains on JAX, and then this one does the rest with TensorFlow.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from apps.hosts import ALONE, STOPPED, Asked, Hosts, describe_death, is_of_others, join, leave
from apps.new_process import DiedError, call_in_new_process

SECONDS_TO_SAY = 3.0  # for the other hosts, which end without the first, to say what is wrong


@dataclass(frozen=True)
class Where:
    """What the command line says of the processes and devices that train.

    Attributes:
        devices: Of this host; see `options.parse_devices`.
        hosts: That train together; None for this process alone.
        decoder: "HOST:PORT" of a tf.data service that makes the batches.
        quiet, debug: As on the command line.
    """

    devices: int | None = None
    hosts: Asked | None = None
    decoder: str | None = None
    quiet: bool = False
    debug: bool = False


def compete(order: Mapping[str, Any], how: Mapping[str, Any], where: Where) -> None:
    """`apps.compete.compete` by processes that have the right backend; of several hosts, each calls this.

    Args:
        order: Fields of `run_folder.Order`.
        how: Further arguments of `apps.compete.compete`.
        where: Devices and hosts.

    Raises:
        ValueError, FileNotFoundError: As there; another host has stopped; or several cannot train on this backend.
    """
    if os.environ.get("KERAS_BACKEND") == "jax":
        _compete_on_jax(order, how, where)
    elif where.hosts is None:
        _compete(order, how, where)
    else:
        raise ValueError(
            "Several processes train together on JAX only: set KERAS_BACKEND=jax in all of them, or start a single one."
        )


def _compete(order: Mapping[str, Any], how: Mapping[str, Any], where: Where, hosts: Hosts = ALONE) -> Any:
    """On the backend of this process; returns the run folder."""
    from apps.startup import import_tensorflow

    import_tensorflow(where.debug, parts=where.devices or 1)
    from apps.compete import compete as run
    from apps.console import Console
    from apps.devices import open_devices
    from apps.run_folder import Order

    devices = open_devices(where.devices, hosts, where.decoder)
    return run(Order(**order), **how, console=Console(where.quiet or not hosts.is_first), devices=devices)


def _compete_on_jax(order: Mapping[str, Any], how: Mapping[str, Any], where: Where) -> None:
    if find_spec("jax") is None:
        raise ValueError("KERAS_BACKEND=jax needs the package jax: pip install 'kerascnn[jax]'.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        run = call_in_new_process(_train_on_jax, order, how, where, debug=where.debug)
    except DiedError as error:
        if where.hosts is None:
            raise RuntimeError(f"The training was killed ({error}).") from error
        raise ValueError(describe_death(error, where.hosts)) from error
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if run is None:  # after a dry run, and on all hosts but the first
        return
    from apps.startup import import_tensorflow

    import_tensorflow(where.debug)
    from apps.compete import finish_trained
    from apps.console import Console
    from apps.run_folder import Order

    finish_trained(Order(**order), run, Console(where.quiet))


def _train_on_jax(order: Mapping[str, Any], how: Mapping[str, Any], where: Where) -> Any:
    """In a process of its own; returns the run folder on the first host, if there is something to finish in it."""
    if order["choices"].get("deterministic"):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true"
    import jax

    if where.devices is not None and where.devices > 1:
        jax.config.update("jax_num_cpu_devices", where.devices)
    hosts = join(where.hosts)
    try:
        run = _compete(order, how, where, hosts)
    except RuntimeError as error:
        if hosts.of == 1 or not is_of_others(error):
            raise
        raise ValueError(STOPPED) from error
    except ValueError:
        if hosts.of > 1 and hosts.is_first:
            time.sleep(SECONDS_TO_SAY)
        raise
    leave(hosts)
    return run if hosts.is_first else None
