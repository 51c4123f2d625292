"""Greedy batches: what waits is computed together as soon as a worker is free."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from apps.serve.settings import Settings

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class BatchDone:
    """What a computed batch was like, for the metrics.

    Args:
        rows: Of requests.
        padding: Rows added to reach an allowed size.
        requests: How many it answered.
        waited: Seconds that each of them waited for a worker.
        computed: Seconds of the model.
        failed: Whether the model raised.
    """

    rows: int
    padding: int
    requests: int
    waited: tuple[float, ...]
    computed: float
    failed: bool = False


def ignore(_: BatchDone) -> None:
    """Do nothing with it."""


class Workers:
    """The threads that compute batches, shared by all models: a batch is only formed when one of them is free.

    Args:
        count: How many batches may be computed at the same time.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = asyncio.Semaphore(count)
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="batch")

    def longest(self) -> float:
        """Seconds that the oldest batch of those being computed has taken so far; 0 where all are free."""
        return 0.0

    def close(self) -> None:
        """End the threads that are free; one that hangs is left behind."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class Batcher:
    """Joins the requests of one loaded version into batches.

    Args:
        run: Computes a signature of the version, in a worker's thread: (name, inputs) to outputs.
        workers: Shared with the other versions.
        settings: The sizes and limits.
        observe: Is told of every batch.
    """

    def __init__(
        self,
        run: Callable[[str, Tensors], dict[str, np.ndarray]],
        workers: Workers,
        settings: Settings,
        observe: Callable[[BatchDone], None] = ignore,
    ) -> None:
        self._run, self._workers, self._settings, self._observe = run, workers, settings, observe

    async def submit(self, signature: str, inputs: Tensors, deadline: float) -> dict[str, np.ndarray]:
        """The outputs for some rows: every input has the same length along its first side.

        Args:
            signature: What to compute.
            inputs: By name, [rows, ...].
            deadline: By the event loop's clock; passed, the rows are dropped.

        Raises:
            Refusal: UNAVAILABLE where the queue is full, DEADLINE_EXCEEDED, or whatever `run` raised for these rows.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._workers._executor, self._run, signature, inputs)

    @property
    def waiting(self) -> int:
        """Rows that wait for a worker."""
        return 0

    async def close(self) -> None:
        """Compute what waits, then return."""
