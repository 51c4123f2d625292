"""The devices that a training runs on: one, several of this host, or those of several hosts."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import keras

from apps.hosts import ALONE, Hosts
from pipelines.share import Share

MOST_EVALUATED = 256  # pictures of a batch of the validation


@dataclass(frozen=True)
class Devices:
    """Devices that compute a step together, each on an equal part of its batch.

    Attributes:
        names: Those of this process; empty for the one that Keras takes by itself.
        hosts: The processes, each with as many devices.
        distribution: `tf.distribute.MirroredStrategy` or `keras.distribution.DataParallel`; None for one device.
        decoder: "HOST:PORT" of the tf.data service that makes the batches of streamed pictures; None makes them here.
    """

    names: Sequence[str] = ()
    hosts: Hosts = ALONE
    distribution: Any = None
    decoder: str | None = None

    @property
    def count(self) -> int:
        """Of all hosts together."""
        return max(1, len(self.names)) * self.hosts.of

    @property
    def share(self) -> Share | None:
        """The part of every batch that this process makes; None for one device."""
        return None if self.distribution is None else Share(self.hosts.number, self.hosts.of)

    @property
    def evaluated(self) -> int:
        """Pictures of a batch of the validation, which every device gets an equal part of."""
        return max(MOST_EVALUATED // self.count, 1) * self.count

    def scope(self) -> AbstractContextManager[Any]:
        """Where a network is built, compiled and trained on them."""
        return nullcontext() if self.distribution is None else self.distribution.scope()

    def meet(self) -> None:
        """Wait until all hosts are ready, and let their devices meet, which must come within seconds then."""
        if self.hosts.of == 1:
            return
        import jax
        import numpy as np

        self.hosts.from_all()
        layout = self.distribution.get_data_layout((self.count,)).backend_layout
        ones = jax.make_array_from_process_local_data(layout, np.ones(len(self.names), "float32"))
        jax.jit(jax.numpy.sum)(ones).block_until_ready()

    def describe(self) -> str:
        """In words, such as "4 x gpu, 2 on each of 2 hosts"."""
        kind = self.names[0].lower().split(":")[-2].strip("/").removeprefix("device:") if self.names else "device"
        return f"{self.count} x {kind}" + (
            f", {len(self.names)} on each of {self.hosts.of} hosts" if self.hosts.of > 1 else ""
        )


ONE = Devices()


def open_devices(asked: int | None, hosts: Hosts, decoder: str | None = None) -> Devices:
    """The devices that are asked for (`options.parse_devices`), on the backend that Keras has.

    A processor is one device, unless it was divided before (`startup.import_tensorflow`).

    Raises:
        ValueError: There are not so many, or not as many on all hosts.
    """
    if asked in (None, 1) and hosts.of == 1:
        return replace(ONE, decoder=decoder)
    jax = keras.backend.backend() == "jax"
    found = _of_jax() if jax else _of_tensorflow()
    each = hosts.from_all(min(asked or len(found), len(found)))
    if asked and asked > len(found):
        raise ValueError(f"`--devices {asked}` asks for more than there are: {', '.join(found)}. Take `--devices all`.")
    names = found[: asked or len(found)]
    if len(set(each)) > 1:
        raise ValueError(
            f"All hosts must have as many devices. They have, in order: {', '.join(map(str, each))}. Say the same "
            "`--devices` on all."
        )
    if len(names) * hosts.of == 1:
        return replace(ONE, decoder=decoder)
    return Devices(names, hosts, _data_parallel(len(names)) if jax else _mirrored(names), decoder)


def _of_jax() -> list[str]:
    import jax

    return [f"{device.platform}:{device.id}" for device in jax.local_devices()]


def _data_parallel(count: int) -> keras.distribution.DataParallel:
    """Of the first `count` devices of every process."""
    import jax

    of_process: dict[int, list[str]] = {}
    for device in jax.devices():
        of_process.setdefault(device.process_index, []).append(f"{device.platform}:{device.id}")
    devices = [name for names in of_process.values() for name in names[:count]]
    return keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)


def _of_tensorflow() -> list[str]:
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [device.name for device in devices]


def _mirrored(names: Sequence[str]) -> Any:
    import tensorflow as tf

    # Collectives of the parts of a processor get in each other's way where BatchNorm exchanges as well.
    exchange = tf.distribute.ReductionToOneDevice() if "CPU" in names[0] else None
    return tf.distribute.MirroredStrategy(list(names), cross_device_ops=exchange)
