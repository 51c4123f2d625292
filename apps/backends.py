"""`kerascnn compete` on the backend that KERAS_BACKEND names: TensorFlow for all of it, or JAX for the training.

The SavedModel, and all that is written with it, needs networks on TensorFlow's backend, and a process has one backend:
so a process of its own trains on JAX, and then this one does the rest with TensorFlow.
"""

import os
from collections.abc import Mapping
from typing import Any

from apps.hosts import STOPPED, Asked
from apps.new_process import DiedError, call_in_new_process


def compete(
    order: Mapping[str, Any],
    how: Mapping[str, Any],
    devices: int | None = None,
    hosts: Asked | None = None,
    quiet: bool = False,
    debug: bool = False,
) -> None:
    """`apps.compete.compete`; of several hosts, each calls this.

    Args:
        order: Fields of `run_folder.Order`.
        how: Further arguments of `apps.compete.compete`.
        devices: Of this host; see `options.parse_devices`.
        hosts: That train together, None for this one alone.
        quiet, debug: As on the command line.

    Raises:
        ValueError, FileNotFoundError: As there; another host has stopped; or several cannot train on this backend.
    """
    if os.environ.get("KERAS_BACKEND") == "jax":
        _compete_on_jax(order, how, devices, hosts, quiet, debug)
        return
    if hosts is not None:
        raise ValueError(
            "Several processes train together on JAX only: set KERAS_BACKEND=jax in all of them, or start a single one."
        )
    _compete(order, how, devices, quiet, debug)


def _compete(
    order: Mapping[str, Any], how: Mapping[str, Any], devices: int | None, quiet: bool, debug: bool, hosts: Any = None
) -> Any:
    """On the backend of this process, from beginning to end; returns the run folder."""
    from apps.startup import import_tensorflow

    import_tensorflow(debug, parts=devices or 1)
    from apps.compete import compete as run
    from apps.console import Console
    from apps.devices import open_devices
    from apps.hosts import ALONE
    from apps.run_folder import Order

    hosts = hosts or ALONE
    console = Console(quiet or not hosts.is_first)
    return run(Order(**order), **how, console=console, devices=open_devices(devices, hosts))


def _compete_on_jax(
    order: Mapping[str, Any],
    how: Mapping[str, Any],
    devices: int | None,
    hosts: Asked | None,
    quiet: bool,
    debug: bool,
) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        run = call_in_new_process(_train_on_jax, order, how, devices, hosts, quiet, debug, debug=debug)
    except DiedError as error:
        raise (ValueError(STOPPED) if hosts else RuntimeError(f"The training was killed ({error}).")) from error
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if run is None:  # after a dry run, and on all hosts but the first
        return
    from apps.startup import import_tensorflow

    import_tensorflow(debug)
    from apps.compete import finish_trained
    from apps.console import Console
    from apps.run_folder import Order

    finish_trained(Order(**order), run, Console(quiet))


def _train_on_jax(
    order: Mapping[str, Any],
    how: Mapping[str, Any],
    devices: int | None,
    asked: Asked | None,
    quiet: bool,
    debug: bool,
) -> Any:
    """In a process of its own; returns the run folder on the first host, if there is something to finish in it."""
    import jax

    if order["choices"].get("deterministic"):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true"
    if devices is not None and devices > 1:
        jax.config.update("jax_num_cpu_devices", devices)
    from apps.hosts import join, leave

    hosts = join(asked)
    run = _compete(order, how, devices, quiet, debug, hosts)
    leave(hosts)
    return run if hosts.is_first else None
