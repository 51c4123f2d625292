"""From a version's folder to a `Servable` that is warm and has shown that its answers are right."""

import json
from concurrent.futures import Executor
from pathlib import Path

from apps.serve.batching import Batcher
from apps.serve.servable import Servable
from apps.serve.settings import Settings
from apps.serve.signature import read_signatures
from apps.serve.tensorflow_runner import TensorFlowRunner


def load_servable(folder: Path, name: str, version: int, settings: Settings, threads: Executor) -> Servable:
    """Load a version, choose its runner, warm every batch size up, and check its canary examples; blocks.

    Raises:
        FileNotFoundError, ValueError, OSError: It cannot be served; the message says why.
    """
    signatures = read_signatures(folder)
    described = folder / "assets.extra/kerascnn.json"
    metadata = json.loads(described.read_text(encoding="utf-8")) if described.is_file() else {}
    runner = TensorFlowRunner(folder)
    batcher = Batcher(runner.run, threads, settings)
    return Servable(name, version, signatures, metadata, runner, batcher, threads, settings)
