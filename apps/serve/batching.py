"""Greedy batches: what waits is computed together as soon as a worker is free.

Queues and workers belong to the event loop alone; a worker's thread only gets a batch that is formed.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue

from apps.serve.background import COMPUTING, step_behind
from apps.serve.batch import Batch, Key, Outputs, Part, Tensors, cut, join, row_of_zeros, size_of
from apps.serve.errors import Code, Refusal, invalid
from apps.serve.settings import Settings

MOST_PARTS = 4096  # of one request; so many are made in some 50 ms, while nobody else is answered


@dataclass(frozen=True)
class BatchDone:
    """What a computed batch was like, for the metrics.

    Args:
        rows: Of requests.
        padding: Rows added to reach an allowed size, at the first try.
        requests: How many it answered; the parts of a large one count each.
        waited: Seconds that each of them waited for a worker.
        computed: Seconds of the model, with those of further tries.
        failed: Whether the model raised, even where a further try succeeded.
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

    Models take turns, one batch each. A batch that hangs keeps its worker until it ends; the others go on. The threads
    are daemons, so that one that hangs does not keep the process from ending.

    Args:
        count: How many batches may be computed at the same time.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._line: deque[Batcher] = deque()  # those with rows that wait; the first is next
        self._running: dict[Batch, float] = {}  # when they were started
        self._batches: SimpleQueue[tuple[Batch, Callable[[], object]] | None] = SimpleQueue()
        self._woken = False
        for index in range(count):
            threading.Thread(target=_work, args=(self._batches,), name=f"batch_{index}", daemon=True).start()

    def longest(self) -> float:
        """Seconds that the oldest batch of those being computed has taken so far; 0 where all are free."""
        return time.monotonic() - min(self._running.values()) if self._running else 0.0

    def close(self) -> None:
        """End the threads that are free; one that hangs is left behind."""
        for _ in range(self.count):
            self._batches.put(None)

    def wake(self, batcher: "Batcher") -> None:
        """Compute what waits there when a worker is free.

        Not before the event loop has done what it has at hand: requests that came together are computed together.
        """
        if batcher not in self._line:
            self._line.append(batcher)
        if not self._woken and len(self._running) < self.count:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._woken, unripe = False, 0
        while len(self._running) < self.count and unripe < len(self._line):
            batcher = self._line.popleft()
            batch = batcher.take()
            if batch:
                self._running[batch] = batch.started
                loop = asyncio.get_running_loop()
                self._batches.put((batch, partial(loop.call_soon_threadsafe, self._finished, batcher, batch)))
            if batcher.waiting:
                self._line.append(batcher)
                unripe = 0 if batch else unripe + 1

    def _finished(self, batcher: "Batcher", batch: Batch) -> None:
        del self._running[batch]
        self._start()  # before the answers, so that the worker need not wait for them
        batcher.give(batch)


def _work(batches: "SimpleQueue[tuple[Batch, Callable[[], object]] | None]") -> None:
    step_behind(COMPUTING)
    while job := batches.get():
        batch, finished = job
        batch.compute()
        with suppress(RuntimeError):  # the event loop is closed
            finished()
        del job, batch, finished  # until the next one they would keep its rows, and a version that is unloaded


class Batcher:
    """Joins the requests of one loaded version into batches.

    What waits is computed in order of arrival, up to `settings.max_batch` rows of one signature, inner shape and dtype
    at a time; such groups take turns. The last row is repeated up to the next of `settings.batch_sizes`, and what comes
    of it is cut off.

    * A request with more rows than `max_batch` is computed in parts, `MOST_PARTS` at most; where nothing waits it is
      let in at any size.
    * One without rows is computed with a row of zeros (or of an empty string) for its outputs' inner shapes and dtypes.
    * Where a batch fails, each of its requests is tried once more alone, so that only the culprit's fails; where memory
      runs out, in halves, down to single rows.
    * Where an output does not have a row for each row that went in, nobody can tell whose it is: from then on the
      requests of that signature are computed one by one and without padding. Those that do not fit into a batch, or
      have no rows, are refused.

    Args:
        run: Computes a signature of the version, in a worker's thread: (name, inputs) to outputs.
        workers: Shared with the other versions.
        settings: The sizes and limits.
        observe: Is told of every batch.
    """

    def __init__(
        self,
        run: Callable[[str, Tensors], Outputs],
        workers: Workers,
        settings: Settings,
        observe: Callable[[BatchDone], None] = ignore,
    ) -> None:
        self._run, self._workers, self._settings, self._observe = run, workers, settings, observe
        self._sizes = settings.batch_sizes
        self._inseparable: set[str] = set()  # signatures
        self._queues: dict[Key, deque[Part]] = {}  # none of them empty; the first is next
        self._rows = self._bytes = 0  # that wait
        self._reserved = 0, 0  # rows and bytes
        self._computing = 0  # batches
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def submit(self, signature: str, inputs: Tensors, deadline: float) -> Outputs:
        """The outputs for some rows: every input has the same length along its first side.

        Cancelled, rows that still wait are dropped at once.

        Args:
            signature: What to compute.
            inputs: By name, [rows, ...].
            deadline: By the event loop's clock; passed, the rows are dropped.

        Raises:
            Refusal: INVALID_ARGUMENT for too many rows; UNAVAILABLE where the queue is full, at once;
                DEADLINE_EXCEEDED, at the deadline; INTERNAL for an exception that is no refusal; or whatever `run`
                raised for these rows.
        """
        sides = {value.shape[:1] for value in inputs.values()}
        if len(sides) != 1 or () in sides:
            raise invalid("Every input must have the same number of rows, along its first side.")
        ((rows,),) = sides
        parts = self._parts(signature, inputs if rows else row_of_zeros(inputs), rows, deadline)
        self._enter(parts)
        timer = asyncio.get_running_loop().call_at(deadline, _expire, parts)
        try:
            if len(parts) == 1:
                outputs = await parts[0].answer
            else:
                outputs = join(await asyncio.gather(*(part.answer for part in parts)))
        finally:
            timer.cancel()
            self._forget(parts)
            del parts  # an exception holds this frame and would be held by it: a cycle, with the rows in it
        return outputs if rows else cut(outputs, 0, 0)

    @property
    def waiting(self) -> int:
        """Rows that wait for a worker."""
        return self._rows

    def check_room(self, rows: int = 1, size: int = 0) -> None:
        """Refuse rows that would not be let in now; where nothing waits, any number is.

        Raises:
            Refusal: UNAVAILABLE: the queue is full, or closed.
        """
        waiting, used = self._rows + self._reserved[0], self._bytes + self._reserved[1]
        most, space, wait = self._settings.most_queued_rows, self._settings.queue_bytes, self._settings.retry_after
        if self._closed:
            raise Refusal(Code.UNAVAILABLE, "This version is being unloaded.", wait)
        if waiting and waiting + rows > most:
            raise Refusal(Code.UNAVAILABLE, f"The queue is full: {waiting} of at most {most} rows wait.", wait)
        if waiting and used + size > space:
            raise Refusal(Code.UNAVAILABLE, f"The queue is full: {used} of at most {space} bytes wait.", wait)

    @contextmanager
    def reserve(self, rows: int, size: int) -> Iterator[None]:
        """Keep room for rows that are not ready yet, to be submitted right after the block.

        Raises:
            Refusal: UNAVAILABLE, as `check_room`.
        """
        self.check_room(rows, size)
        self._reserved = self._reserved[0] + rows, self._reserved[1] + size
        try:
            yield
        finally:
            self._reserved = self._reserved[0] - rows, self._reserved[1] - size

    async def close(self) -> None:
        """Compute what waits, then return; new requests are refused. One that hangs is waited for."""
        self._closed = True
        if self._rows:
            self._workers.wake(self)
        await self._idle.wait()

    def take(self) -> Batch | None:
        """The next batch, for `Workers`; None where nobody waits any more, or for a fuller one."""
        at_once = self._settings.max_wait <= 0 or self._closed
        for key, queue in list(self._queues.items()):
            if at_once or queue[0].ripe or sum(part.rows for part in queue) >= self._settings.max_batch:
                del self._queues[key]
                parts = self._pull(queue, 1 if key[0] in self._inseparable else len(queue))
                if queue:
                    self._queues[key] = queue  # behind the others
                if parts:
                    self._computing += 1
                    return Batch(self._run, parts, self._sizes, self._inseparable)
        return None

    def give(self, batch: Batch) -> None:
        """Answer with a batch that is computed, for `Workers`."""
        for part, answer in batch.answers.items():
            if part.answer.done():  # its client has left, or its deadline has passed
                continue
            if isinstance(answer, Refusal):
                part.answer.set_exception(answer)
            else:
                part.answer.set_result(answer)
        self._computing -= 1
        self._settle()
        rows, waited = (
            sum(part.rows for part in batch.parts),
            tuple(batch.started - part.arrived for part in batch.parts),
        )
        self._observe(BatchDone(rows, batch.padding or 0, len(waited), waited, batch.computed, batch.failed))

    def _parts(self, signature: str, inputs: Tensors, rows: int, deadline: float) -> list[Part]:
        """A request's rows, of which no part is larger than a batch."""
        key = signature, frozenset((name, value.shape[1:], value.dtype) for name, value in inputs.items())
        most, now, answer = self._settings.max_batch, time.monotonic(), asyncio.get_running_loop().create_future
        if rows <= most:
            return [Part(key, inputs, max(rows, 1), size_of(inputs), now, deadline, answer(), whole=rows > 0)]
        if rows > most * MOST_PARTS:
            raise invalid(f"A request can have {most * MOST_PARTS} rows at most. Received: {rows}.")
        cuts = [cut(inputs, start, start + most) for start in range(0, rows, most)]
        counts = [min(most, rows - start) for start in range(0, rows, most)]
        return [
            Part(key, some, count, size_of(some), now, deadline, answer(), whole=False)
            for some, count in zip(cuts, counts, strict=True)
        ]

    def _enter(self, parts: Sequence[Part]) -> None:
        rows, size = sum(part.rows for part in parts), sum(part.size for part in parts)
        self.check_room(rows, size)
        self._rows, self._bytes = self._rows + rows, self._bytes + size
        self._queues.setdefault(parts[0].key, deque()).extend(parts)
        self._idle.clear()
        if self._settings.max_wait > 0:
            asyncio.get_running_loop().call_later(self._settings.max_wait, self._ripen, parts)
        self._workers.wake(self)

    def _leave(self, part: Part) -> None:
        part.queued, self._rows, self._bytes = False, self._rows - part.rows, self._bytes - part.size

    def _forget(self, parts: Sequence[Part]) -> None:
        """Nobody waits for these any more."""
        for part in parts:
            part.answer.cancel()  # where it is done, nothing
            if part.queued:
                self._leave(part)
                self._queues[part.key].remove(part)
                if not self._queues[part.key]:
                    del self._queues[part.key]
        self._settle()

    def _ripen(self, parts: Sequence[Part]) -> None:
        for part in parts:
            part.ripe = True
        if self._rows:
            self._workers.wake(self)

    def _pull(self, queue: deque[Part], most: int) -> list[Part]:
        """Up to `most` parts from the front that fit into a batch, without those that nobody waits for."""
        parts: list[Part] = []
        room, now = self._settings.max_batch, time.monotonic()
        while queue and len(parts) < most and queue[0].rows <= room:
            part = queue.popleft()
            self._leave(part)
            if part.deadline <= now:
                _expire([part])
            if not part.answer.done():
                parts.append(part)
                room -= part.rows
        return parts

    def _settle(self) -> None:
        if not self._rows and not self._computing:
            self._idle.set()


def _expire(parts: Sequence[Part]) -> None:
    for part in parts:
        if not part.answer.done():
            part.answer.set_exception(Refusal(Code.DEADLINE_EXCEEDED, "The request was not answered in time."))
