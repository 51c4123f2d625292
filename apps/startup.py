"""Import TensorFlow: without the chatter at its start, which hides the one line a user needs, and with a quick end."""

import atexit
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


def share_processor(processes: int) -> None:
    """Give each of several processes, this one and those it starts, its part of the threads; before TensorFlow."""
    if processes > 1:
        threads = str(max(1, len(os.sched_getaffinity(0)) // processes))
        for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(name, threads)
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


def import_tensorflow(debug: bool = False, devices: bool = True, parts: int = 1) -> ModuleType:
    """TensorFlow; what its C++ parts print meanwhile is dropped unless `debug`. Beside JAX, it leaves GPUs alone.

    Args:
        debug: Shows it.
        devices: Lists the devices, which prints most; afterwards threads and a GPU's memory can no longer be set.
        parts: Of the processor, as devices where there is no GPU.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if not debug:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with silent(not debug):
        import tensorflow as tf

        if os.environ["KERAS_BACKEND"] == "jax":
            tf.config.set_visible_devices([], "GPU")
        elif parts > 1 and not tf.config.list_physical_devices("GPU"):
            processor = tf.config.list_physical_devices("CPU")[0]
            logical = [tf.config.LogicalDeviceConfiguration()] * parts
            tf.config.set_logical_device_configuration(processor, logical)
        if devices:
            tf.config.list_logical_devices()
    # Python's last garbage collections would walk through all of TensorFlow, 2 s at the end of every command.
    atexit.register(gc.freeze)
    return tf


@contextmanager
def silent(wanted: bool = True) -> Iterator[None]:
    """Drop what libraries print on standard error: some lines heed no log level, only the file descriptor stops them.

    Python's own lines are dropped too, but for the errors that leave the block.
    """
    standard_error = os.dup(2)
    try:
        if wanted:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
        yield
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)
