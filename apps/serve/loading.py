"""From a version's folder to a `Servable` that is warm and has shown that its answers are right."""

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from apps.serve.batching import BatchDone, Batcher, Workers
from apps.serve.canary import made_up_example, recorded_examples
from apps.serve.choosing import choose, main_signature
from apps.serve.errors import Refusal
from apps.serve.runner import Runner
from apps.serve.servable import Servable
from apps.serve.settings import Settings
from apps.serve.signature import Signature, read_signatures
from apps.serve.tensorflow_runner import TensorFlowRunner, give_memory_back, plain_message

LOG = logging.getLogger(__name__)
METADATA = "assets.extra/kerascnn.json"
SWITCH_SECONDS = 0.0005  # between two threads' turns, Python's own being 0.005: gaps of 41 instead of 253 ms


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
        FileNotFoundError, ValueError, OSError: It cannot be served; the message says why, without paths.
    """
    with quick_turns():
        signatures = read_signatures(folder)
        if not signatures:
            raise ValueError("The SavedModel has no signatures, so there is nothing to call.")
        metadata = read_metadata(folder)
        tensorflow = load_tensorflow(folder)
        try:
            _check_functions(signatures, tensorflow)
            examples = recorded_examples(folder, signatures, metadata, tensorflow)
            runner = choose(f"{name} {version}", tensorflow, signatures, examples, settings)
            warm_up(runner, signatures, settings)
        except BaseException:
            tensorflow.close()
            raise
        give_memory_back()  # of the candidates that lost
    batcher = Batcher(runner.run, workers, settings, partial(observe, name))
    return Servable(name, version, signatures, metadata, runner, batcher, decoders, settings)


def read_metadata(folder: Path) -> Mapping[str, Any]:
    """What `assets.extra/kerascnn.json` says; nothing for SavedModels of others.

    Raises:
        ValueError: It is damaged.
    """
    path = folder / METADATA
    if not path.is_file():
        return {}
    try:
        metadata = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error
    classes = metadata.get("classes", {}) if isinstance(metadata, dict) else None
    if not isinstance(classes, dict) or not all(isinstance(names, list) for names in classes.values()):
        raise ValueError(f'{path.name} must be an object in which "classes" has a list of names for each head.')
    return metadata


def load_tensorflow(folder: Path) -> TensorFlowRunner:
    """A SavedModel in TensorFlow.

    Raises:
        FileNotFoundError: Its variables are missing.
        ValueError: It is damaged. The message is one sentence, whatever TensorFlow raised.
    """
    try:
        return TensorFlowRunner(folder)
    except Exception as error:
        LOG.debug("%s cannot be loaded.", folder, exc_info=True)
        variables = folder / "variables"
        shards = list(variables.glob("variables.data-*")) if variables.is_dir() else []
        if not (variables / "variables.index").is_file() or not shards:
            raise FileNotFoundError(
                "The SavedModel's variables are missing, or were not copied to their end."
            ) from error
        # Python's own errors come out of the middle of TensorFlow's code, and say nothing to people.
        said = f": {plain_message(error)}" if hasattr(error, "error_code") or isinstance(error, OSError) else ""
        raise ValueError(f"The SavedModel is damaged or cut short{said or '.'}") from error


def _check_functions(signatures: Mapping[str, Signature], runner: TensorFlowRunner) -> None:
    missing = sorted(signatures.keys() - runner.functions.keys())
    if missing:
        raise ValueError(f"The SavedModel is damaged: it has no functions for its signatures {', '.join(missing)}.")


def warm_up(runner: Runner, signatures: Mapping[str, Signature], settings: Settings) -> None:
    """Compute once what the first requests would have to wait for: every allowed number of rows.

    The signature that most requests are computed with is warmed with all of them, others with one row. What refuses
    made-up numbers stays cold.
    """
    main = main_signature(signatures)
    for name, signature in signatures.items():
        for rows in settings.batch_sizes if name == main else (1,):
            example = made_up_example(signature, rows)
            if example is None:
                break
            try:
                runner.run(name, example.inputs)
            except Refusal as refusal:
                LOG.warning("Signature %s was not warmed up with %d rows: %s", name, rows, refusal.message)
                break


class _Turns:
    """Shortens Python's turns while somebody needs it."""

    def __init__(self) -> None:
        self._lock, self._users, self._before = threading.Lock(), 0, 0.0

    def begin(self) -> None:
        with self._lock:
            if not self._users:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(min(SWITCH_SECONDS, self._before))
            self._users += 1

    def end(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                sys.setswitchinterval(self._before)


_TURNS = _Turns()


@contextmanager
def quick_turns() -> Iterator[None]:
    """Inside the block, threads that hold Python's lock for long give it up sooner; may be nested and shared.

    A load is such a thread, and requests are answered meanwhile.
    """
    _TURNS.begin()
    try:
        yield
    finally:
        _TURNS.end()
