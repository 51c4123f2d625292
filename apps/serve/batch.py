"""One batch in a worker's thread: rows of several requests joined, padded, computed and cut apart again."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from apps.serve.errors import Code, Refusal, invalid

LOG = logging.getLogger(__name__)

Tensors = Mapping[str, np.ndarray]
Outputs = dict[str, np.ndarray]
Key = tuple[str, frozenset[tuple[str, tuple[int, ...], np.dtype]]]  # signature; name, inner shape, dtype of inputs


@dataclass(eq=False, slots=True)
class Part:
    """A request, or some rows of one that is computed in parts.

    Args:
        key: Only parts with the same one can be joined.
        inputs: By name, [rows, ...].
        rows: 1 at least.
        size: Bytes.
        arrived: By the event loop's clock, as `deadline`.
        deadline: Dropped when it has passed.
        answer: Done early where the client has left or the deadline has passed.
        whole: Whether its rows are those of the request, so that any outputs are its answer.
        queued: Whether it waits for a worker.
        ripe: Whether it has waited long enough for others.
    """

    key: Key
    inputs: Tensors
    rows: int
    size: int
    arrived: float
    deadline: float
    answer: asyncio.Future[Outputs]
    whole: bool = True
    queued: bool = True
    ripe: bool = False


class Batch:
    """Parts that are computed together.

    Args:
        run: Computes a signature: (name, inputs) to outputs.
        parts: With the same key, in the order of their rows.
        sizes: The numbers of rows that are computed, ascending; others are padded with copies of the last row.
        inseparable: Signatures whose outputs cannot be cut by rows; one that turns out to be is added.
    """

    def __init__(
        self,
        run: Callable[[str, Tensors], Outputs],
        parts: Sequence[Part],
        sizes: Sequence[int],
        inseparable: set[str],
    ) -> None:
        self._run, self._sizes, self._inseparable = run, sizes, inseparable
        self.parts, self.signature = parts, parts[0].key[0]
        self.started = time.monotonic()
        self.padding: int | None = None  # of the first try
        self.computed = 0.0  # seconds
        self.failed = False
        self.answers: dict[Part, Outputs | Refusal] = {}

    def compute(self) -> None:
        """Fill `answers` with the outputs of every part, or with why there are none; never raises."""
        try:
            for part, answer in self._answers(self.parts):
                self.answers[part] = answer
        except Exception as error:  # not of the model, but of joining what it gave: no memory, halves that do not fit
            self.answers |= {part: as_refusal(error) for part in self.parts if part not in self.answers}

    def _answers(self, parts: Sequence[Part]) -> Iterator[tuple[Part, Outputs | Refusal]]:
        parts = [part for part in parts if not part.answer.done()]
        if not parts:
            return
        try:
            outputs = self._together(parts)
        except BaseException as error:  # whatever it is, those who wait are answered
            self.failed = True
            refusal = as_refusal(error)
            if len(parts) == 1 and refusal.code is Code.INTERNAL:
                LOG.error("Signature %s failed on %d rows.", self.signature, parts[0].rows, exc_info=error)
        else:
            yield from zip(parts, outputs, strict=True) if outputs else self._alone(parts)
            return
        exhausted = refusal.code is Code.RESOURCE_EXHAUSTED
        if len(parts) > 1:
            LOG.info("A batch of %d requests is tried again in smaller ones: %s", len(parts), refusal.message)
            size = (len(parts) + 1) // 2 if exhausted else 1
            for start in range(0, len(parts), size):
                yield from self._answers(parts[start : start + size])
        elif exhausted and parts[0].rows > 1 and self.signature not in self._inseparable:
            yield from self._in_halves(parts[0])
        else:
            yield parts[0], refusal

    def _together(self, parts: Sequence[Part]) -> list[Outputs] | None:
        """The outputs of each part; None where they cannot be cut by rows."""
        rows = sum(part.rows for part in parts)
        alone = len(parts) == 1 and parts[0].whole
        if self.signature in self._inseparable and not alone:
            return None
        padded = rows if self.signature in self._inseparable else next(size for size in self._sizes if size >= rows)
        self.padding = padded - rows if self.padding is None else self.padding
        inputs = join([part.inputs for part in parts], padded - rows)
        started = time.monotonic()
        try:
            outputs = self._run(self.signature, inputs)
        finally:
            self.computed += time.monotonic() - started
        if alone and padded == rows:
            return [outputs]
        if any(value.shape[:1] != (padded,) for value in outputs.values()):
            self._inseparable.add(self.signature)
            return None
        cuts, stop = [], 0
        for part in parts:
            start, stop = stop, stop + part.rows
            cuts.append(cut(outputs, start, stop))
        return cuts

    def _alone(self, parts: Sequence[Part]) -> Iterator[tuple[Part, Outputs | Refusal]]:
        """Of a signature that has turned out to be inseparable."""
        for part in parts:
            if part.whole:
                yield from self._answers([part])
            else:
                yield (
                    part,
                    invalid(
                        f'The outputs of signature "{self.signature}" do not have a row for each row of the inputs: '
                        f"it takes 1 to {self._sizes[-1]} rows at a time."
                    ),
                )

    def _in_halves(self, part: Part) -> Iterator[tuple[Part, Outputs | Refusal]]:
        """Of a part that is too large for the memory."""
        done: list[Outputs] = []
        for start, stop in ((0, part.rows // 2), (part.rows // 2, part.rows)):
            half = replace(part, inputs=cut(part.inputs, start, stop), rows=stop - start, whole=False)
            for _, answer in self._answers([half]):
                if isinstance(answer, Refusal):
                    yield part, answer
                    return
                done.append(answer)
        if len(done) == 2:  # else it is not waited for any more
            yield part, join(done)


def as_refusal(error: BaseException) -> Refusal:
    """What a client is told of it: nothing of the server's inside.

    A new one, without a traceback: that would keep the rows in memory, in a cycle.
    """
    if isinstance(error, Refusal):
        return Refusal(error.code, error.message, error.retry_after)
    if isinstance(error, MemoryError):
        return Refusal(Code.RESOURCE_EXHAUSTED, "The model ran out of memory.")
    return Refusal(Code.INTERNAL, "The model failed.")


def join(tensors: Sequence[Tensors], padding: int = 0) -> Outputs:
    """Rows of all of them by name, and `padding` copies of the last row.

    >>> join([{"x": np.array([1, 2])}, {"x": np.array([3])}], padding=1)
    {'x': array([1, 2, 3, 3])}
    """
    if len(tensors) == 1 and not padding:
        return dict(tensors[0])
    joined = {}
    for name in tensors[0]:
        values = [value[name] for value in tensors]
        if padding:
            values.append(np.broadcast_to(values[-1][-1:], (padding, *values[-1].shape[1:])))
        joined[name] = np.concatenate(values)
    return joined


def cut(tensors: Tensors, start: int, stop: int) -> Outputs:
    """Rows `start` to `stop` by name; views."""
    return {name: value[start:stop] for name, value in tensors.items()}


def size_of(tensors: Tensors) -> int:
    """Bytes; of byte strings their contents."""
    return sum(
        sum(len(item) for item in value.flat) if value.dtype.hasobject else value.nbytes for value in tensors.values()
    )


def row_of_zeros(tensors: Tensors) -> Outputs:
    """One row with the inner shapes and dtypes of these; of empty strings where they are strings.

    >>> row_of_zeros({"x": np.empty((0, 2), "uint8")})
    {'x': array([[0, 0]], dtype=uint8)}
    """
    return {
        name: np.full((1, *value.shape[1:]), b"" if value.dtype.hasobject else 0, value.dtype)
        for name, value in tensors.items()
    }
