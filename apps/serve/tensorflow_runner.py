"""Computes a SavedModel with TensorFlow."""

import ctypes
import gc
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from typing import Any, Self

import numpy as np
import tensorflow as tf

from apps.serve.errors import Code, Refusal, invalid
from apps.serve.processor import cores
from apps.serve.servable import DECODE

LOG = logging.getLogger(__name__)
LONGEST_MESSAGE = 300  # characters of TensorFlow's words that a client is told
# What TensorFlow and OpenVINO add to a message: names of graph nodes, where they were made, what to switch on.
_NOISE = re.compile(r"\{\{.*?\}\}|\[\[.*?\]\]|\[Op:.*?\]|\(defined at .*?\)|Graph execution error:", re.DOTALL)
_TRACE = re.compile(
    r"^\s*(Detected at node|File \"|<stack traces|node:? |\d+ (root error|successful)|\(\d+\)|Exception from |Check ')",
    re.M,
)
_PATH = re.compile(r"(?:\w+:)?(?:/[\w.@+-]+){2,}/?")
_PREPARING = threading.Lock()


def prepare_tensorflow() -> str | None:
    """Make TensorFlow ready for serving, once per process; must come before it computes anything.

    Memory on a GPU is taken as it is needed, not all at once. A GPU that is there but does not compute is said aloud in
    the log and left alone. Threads are as many as the process has cores.

    Returns:
        The device that everything must be computed on; None where TensorFlow may choose.
    """
    with _PREPARING:
        return _prepare()


@cache
def _prepare() -> str | None:
    gpus = tf.config.list_physical_devices("GPU")
    try:
        tf.config.threading.set_intra_op_parallelism_threads(int(os.environ.get("TF_NUM_INTRAOP_THREADS", cores())))
        tf.config.threading.set_inter_op_parallelism_threads(int(os.environ.get("TF_NUM_INTEROP_THREADS", "2")))
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:  # somebody else in this process has computed something before
        LOG.info("TensorFlow was in use before the server: its threads and its GPU memory are left as they are.")
    # What was imported lives until the end: the collections at each unloading need not look through it.
    gc.collect()
    gc.freeze()
    return _without_broken_gpu(gpus) if gpus else None


def _without_broken_gpu(gpus: list[Any]) -> str | None:
    try:
        with tf.device("/GPU:0"):
            picture, kernel = tf.ones([1, 8, 8, 3]), tf.ones([3, 3, 3, 4])
            answer = tf.nn.conv2d(picture, kernel, 1, "VALID")  # needs the driver, the kernels and cuDNN
            if "GPU" not in answer.device.upper() or not np.allclose(answer.numpy(), 27):
                raise RuntimeError(f"it computed on {answer.device}, or wrongly")
    except Exception as error:  # whatever it is, the CPU still works
        LOG.warning("The GPU is visible but does not compute, so the CPU does: %s", plain_message(error))
        with suppress(RuntimeError):  # where it is too late to hide it, every call names the CPU all the same
            tf.config.set_visible_devices([], "GPU")
        return "/CPU:0"
    LOG.info("Computing on %s.", ", ".join(gpu.name for gpu in gpus))
    return None


def on_gpu() -> bool:
    """Whether a GPU computes."""
    return prepare_tensorflow() is None and bool(tf.config.list_logical_devices("GPU"))


class TensorFlowRunner:
    """A `Runner` of every signature of a SavedModel, in the precision in which it was exported.

    Args:
        saved_model: Its folder.

    Raises:
        Exception: Whatever TensorFlow raises for a damaged one; see `loading.load_tensorflow`.
    """

    def __init__(self, saved_model: os.PathLike[str] | str) -> None:
        self.name, self.precision = "tensorflow", "float32"
        device = prepare_tensorflow()
        self._device = device
        self._options: Any = None
        with self._placed():
            self._model: Any = tf.saved_model.load(os.fspath(saved_model), tags=["serve"])
        self.functions: dict[str, Any] = dict(self._model.signatures)

    def in_reduced_precision(self) -> Self | None:
        """The same loaded version with convolutions and products in bfloat16 (on a GPU: float16); None where not.

        Only the calls of this runner are computed so: TensorFlow's rewriter is told with each call. `decode` is not.
        Source: "Auto mixed precision" of TensorFlow's graph optimizer Grappler.
        """
        try:
            from tensorflow.core.protobuf import rewriter_config_pb2
            from tensorflow.python.eager import context

            config = context.context().config
            config.allow_soft_placement = True
            rewrite = config.graph_options.rewrite_options
            if on_gpu():
                rewrite.auto_mixed_precision = rewriter_config_pb2.RewriterConfig.ON
            else:
                rewrite.auto_mixed_precision_onednn_bfloat16 = rewriter_config_pb2.RewriterConfig.ON
            options = context.FunctionCallOptions(config_proto=config)
        except (ImportError, AttributeError):  # not a public interface: another TensorFlow may have another
            return None
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.precision = "float16" if on_gpu() else "bfloat16"
        other.name, other._options = f"tensorflow {other.precision}", options
        return other

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute a signature; blocks."""
        try:
            with self._placed(), self._optimized(signature):
                tensors = {name: tf.constant(value) for name, value in inputs.items()}
                return {name: value.numpy() for name, value in self.functions[signature](**tensors).items()}
        except (tf.errors.InvalidArgumentError, TypeError, ValueError) as error:
            raise invalid(plain_message(error)) from error
        except (tf.errors.ResourceExhaustedError, MemoryError) as error:
            LOG.warning("Out of memory in signature %s: %s", signature, plain_message(error))
            raise Refusal(Code.RESOURCE_EXHAUSTED, "The model ran out of memory.") from error
        except Exception as error:
            LOG.exception("Signature %s failed.", signature)
            raise Refusal(Code.INTERNAL, "The model failed.") from error

    def close(self) -> None:
        """Give memory back."""
        self._model = None
        self.functions = {}
        give_memory_back()

    def _placed(self) -> Any:
        return tf.device(self._device) if self._device else nullcontext()

    def _optimized(self, signature: str) -> Any:
        return nullcontext() if self._options is None or signature == DECODE else _call_options(self._options)


@contextmanager
def _call_options(options: Any) -> Iterator[None]:
    """Functions called by this thread inside the block are computed with these options."""
    from tensorflow.python.eager import context

    state = context.context()
    before = state.function_call_options
    state.function_call_options = options
    try:
        yield
    finally:
        state.function_call_options = before


def give_memory_back() -> None:
    """Free what is unreachable, and hand what the allocator keeps to the system (Linux with glibc; ~70 MB seen)."""
    gc.collect()
    with suppress(AttributeError, OSError, TypeError):  # on another system
        ctypes.CDLL(None).malloc_trim(0)


def plain_message(error: BaseException) -> str:
    """What went wrong in TensorFlow's or OpenVINO's words, without node names, traces and paths; one line.

    >>> plain_message(ValueError("{{function_node f}} Incompatible shapes: [2] vs. [3]\\n [[{{node f/mul}}]] [Op:f]"))
    'Incompatible shapes: [2] vs. [3]'
    >>> plain_message(OSError("SavedModel file does not exist at: /home/me/models/m/1"))
    'SavedModel file does not exist at: ...'
    """
    text = _NOISE.sub("", str(getattr(error, "message", None) or error))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not _TRACE.match(line)]
    line = _PATH.sub("...", re.sub(r"\s+", " ", lines[0])) if lines else type(error).__name__
    return line if len(line) <= LONGEST_MESSAGE else f"{line[: LONGEST_MESSAGE - 3]}..."
