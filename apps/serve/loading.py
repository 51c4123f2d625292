"""From a version's folder to a `Servable` that is warm and has shown that its answers are right."""

import json
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

from apps.serve.batching import BatchDone, Batcher, Workers
from apps.serve.servable import Servable
from apps.serve.settings import Settings
from apps.serve.signature import read_signatures
from apps.serve.tensorflow_runner import TensorFlowRunner


def load_servable(
    folder: Path,
    name: str,
    version: int,
    *,
    settings: Settings,
    workers: Workers,
    decoders: Executor,
    observe: Callable[[str, BatchDone], None],
) -> Servable:
    """Load a version, choose its runner, warm every batch size up, and check its canary examples; blocks.

    Args:
        folder: Of the version.
        name: Of the model.
        version: Its number.
        settings: The server's.
        workers: Compute the batches of all models.
        decoders: Threads that decode pictures.
        observe: Is told (name, batch) of every batch.

    Raises:
        FileNotFoundError, ValueError, OSError: It cannot be served; the message says why.
    """
    signatures = read_signatures(folder)
    described = folder / "assets.extra/kerascnn.json"
    metadata = json.loads(described.read_text(encoding="utf-8")) if described.is_file() else {}
    runner = TensorFlowRunner(folder)
    batcher = Batcher(runner.run, workers, settings, partial(observe, name))
    return Servable(name, version, signatures, metadata, runner, batcher, decoders, settings)
