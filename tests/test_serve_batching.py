"""Batches: everybody gets what he would have got alone, whatever happens to the others."""

import asyncio
import gc
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apps.serve.background import COMPUTING
from apps.serve.batching import BatchDone, Batcher, Workers, ignore
from apps.serve.errors import Code, Refusal, invalid
from apps.serve.settings import Settings

POISON, TOXIN = -1.0, -2.0  # refused; raises something else
PATIENCE = 20.0  # seconds, for what takes milliseconds


class Model:
    """10 x + 1 for each row, and a record of what was computed; waits at its gate, which is open at first."""

    def __init__(self, most: int | None = None, aggregate: bool = False) -> None:
        self.calls: list[tuple[str, np.ndarray]] = []
        self.most, self.aggregate = most, aggregate
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        x = inputs["x"]
        self.calls.append((signature, np.array(x)))
        if not self.gate.wait(PATIENCE):
            raise RuntimeError("The test forgot to open the gate.")
        if self.most is not None and len(x) > self.most:
            raise Refusal(Code.RESOURCE_EXHAUSTED, "The model ran out of memory.")
        if (x == POISON).any():
            raise invalid("A row is poisoned.")
        if (x == TOXIN).any():
            raise KeyError("/secret/path")
        return {"y": np.sum(x) if self.aggregate else 10 * x + 1}

    @property
    def rows(self) -> list[int]:
        """Of each call."""
        return [len(x) for _, x in self.calls]


def rows_of(*values: float, inner: tuple[int, ...] = (2,)) -> dict[str, np.ndarray]:
    column = np.array(values, "float32").reshape(-1, *(1 for _ in inner))
    return {"x": np.broadcast_to(column, (len(values), *inner)).copy()}


@contextmanager
def working(count: int = 1) -> Iterator[Workers]:
    workers = Workers(count)
    try:
        yield workers
    finally:
        workers.close()


def play(scene: Callable[[Batcher, Workers], Awaitable[None]], model: Any, count: int = 1, **settings: Any) -> None:
    """One scene with a batcher of the model."""
    with working(count) as workers:

        async def whole() -> None:
            async with asyncio.timeout(60):
                await scene(Batcher(model, workers, Settings(**settings)), workers)

        asyncio.run(whole())


def ask(batcher: Batcher, inputs: Mapping[str, np.ndarray], seconds: float = PATIENCE, name: str = "s") -> asyncio.Task:
    return asyncio.create_task(batcher.submit(name, inputs, asyncio.get_running_loop().time() + seconds))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


async def refused(answer: Awaitable[Any]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await answer
    return caught.value


async def holding(batcher: Batcher, model: Model, value: float = 0.0) -> asyncio.Task:
    """Close the gate and send a row that a worker takes there."""
    model.gate.clear()
    calls = len(model.calls)
    task = ask(batcher, rows_of(value))
    await until(lambda: len(model.calls) > calls)
    return task


# What is computed together


def test_what_came_together_is_computed_together_and_padded() -> None:
    model = Model()

    async def scene(batcher: Batcher, _: Workers) -> None:
        answers = await asyncio.gather(*(ask(batcher, rows_of(value)) for value in (1, 2, 3, 4, 5)))
        assert [answer["y"].tolist() for answer in answers] == [[[10 * v + 1] * 2] for v in (1, 2, 3, 4, 5)]
        assert model.rows == [8]
        np.testing.assert_array_equal(model.calls[0][1][:, 0], [1, 2, 3, 4, 5, 5, 5, 5])

    play(scene, model)


def test_who_comes_while_the_worker_is_busy_joins_the_next_batch() -> None:
    model = Model()

    async def scene(batcher: Batcher, _: Workers) -> None:
        first = await holding(batcher, model)
        later = []
        for value in (1, 2, 3):
            later.append(ask(batcher, rows_of(value)))
            await asyncio.sleep(0.005)
        assert batcher.waiting == 3
        model.gate.set()
        await asyncio.gather(first, *later)
        assert model.rows == [1, 4]
        assert batcher.waiting == 0

    play(scene, model)


def test_other_shapes_dtypes_and_signatures_never_share_a_batch() -> None:
    model = Model()

    async def scene(batcher: Batcher, _: Workers) -> None:
        first = await holding(batcher, model)
        kinds = [rows_of(1), rows_of(2, inner=(3,)), {"x": rows_of(3)["x"].astype("float64")}]
        tasks = [ask(batcher, kind, name=name) for _ in range(2) for kind in kinds for name in ("s", "t")]
        await asyncio.sleep(0.01)
        model.gate.set()
        for task, kind in zip(tasks, (kind for _ in range(2) for kind in kinds for _ in "st"), strict=True):
            answer = (await task)["y"]
            np.testing.assert_array_equal(answer, 10 * kind["x"] + 1)
            assert answer.dtype == kind["x"].dtype
        await first
        assert model.rows == [1, *[2] * 6]
        assert sorted(name for name, _ in model.calls[1:]) == ["s"] * 3 + ["t"] * 3

    play(scene, model)


def test_no_batch_has_more_rows_than_allowed_and_order_is_kept() -> None:
    model = Model()

    async def scene(batcher: Batcher, _: Workers) -> None:
        first = await holding(batcher, model)
        tasks = [ask(batcher, rows_of(*[value] * size)) for value, size in ((1, 3), (2, 3), (3, 3), (4, 1))]
        await asyncio.sleep(0.01)
        model.gate.set()
        await asyncio.gather(first, *tasks)
        assert [x[:, 0].tolist() for _, x in model.calls] == [[0], [1, 1, 1, 2, 2, 2], [3, 3, 3, 4]]

    play(scene, model, max_batch=6)


def test_models_and_shapes_take_turns() -> None:
    """A crowd that waits at one model delays the single requests of others by one batch each."""
    model = Model()

    async def scene(crowded: Batcher, workers: Workers) -> None:
        other = Batcher(model, workers, Settings(max_batch=2))
        first = await holding(crowded, model)
        crowd = [ask(crowded, rows_of(1, 1), name="crowd") for _ in range(4)]
        await asyncio.sleep(0.005)
        few = [ask(crowded, rows_of(2), name="few"), ask(other, rows_of(3), name="other")]
        await asyncio.sleep(0.005)
        model.gate.set()
        await asyncio.gather(first, *crowd, *few)
        names = [name for name, _ in model.calls[1:]]
        assert names == ["crowd", "other", "few", "crowd", "crowd", "crowd"]

    play(scene, model, max_batch=2, queue_rows=100)


def test_a_batch_waits_until_it_is_full_if_told_to() -> None:
    model = Model()

    async def scene(batcher: Batcher, _: Workers) -> None:
        tasks = []
        for value in range(3):
            tasks.append(ask(batcher, rows_of(value)))
            await asyncio.sleep(0.002)
        await ask(batcher, rows_of(1, 2, 3, 4), name="full")
        assert model.rows == [4]
        tasks.append(ask(batcher, rows_of(3)))
        await asyncio.gather(*tasks)
        assert [x[:, 0].tolist() for _, x in model.calls] == [[1, 2, 3, 4], [0, 1, 2, 3]]
        waits = ask(batcher, rows_of(5))
        await asyncio.sleep(0.005)
        assert not waits.done()
        await batcher.close()  # waits for nobody else
        assert (await waits)["y"].tolist() == [[51, 51]]

    play(scene, model, max_batch=4, max_wait=30)


def test_a_batch_that_does_not_get_full_waits_no_longer_than_told() -> None:
    async def scene(batcher: Batcher, _: Workers) -> None:
        started = time.monotonic()
        leaves = ask(batcher, rows_of(0))
        await asyncio.sleep(0.02)
        tasks = [ask(batcher, rows_of(1)), ask(batcher, rows_of(2), name="other")]
        leaves.cancel()
        answers = await asyncio.gather(*tasks)
        assert [answer["y"][0, 0] for answer in answers] == [11, 21]
        assert time.monotonic() - started >= 0.06

    play(scene, Model(), max_wait=0.05)


def test_no_worker_is_left_free_beside_a_model_that_waits_for_more() -> None:
    model = Model()

    async def scene(patient: Batcher, workers: Workers) -> None:
        greedy = Batcher(model, workers, Settings(max_batch=2))
        model.gate.clear()
        tasks = [ask(patient, rows_of(1)), ask(greedy, rows_of(2, 2)), ask(greedy, rows_of(3, 3))]
        await until(lambda: model.rows == [2, 2])
        model.gate.set()
        await asyncio.gather(*tasks[1:])
        tasks[0].cancel()

    play(scene, model, count=2, max_wait=60)


# Sizes


@pytest.mark.parametrize("rows", [0, 1, 5, 8, 9, 16, 37])
def test_fault_28_any_number_of_rows_is_answered(rows: int) -> None:
    model = Model()

    async def scene(batcher: Batcher, _: Workers) -> None:
        inputs = rows_of(*range(rows), inner=(2, 3))
        answer = (await ask(batcher, inputs))["y"]
        assert answer.shape == (rows, 2, 3)
        assert answer.dtype == np.float32
        np.testing.assert_array_equal(answer, 10 * inputs["x"] + 1)
        assert sum(model.rows) == max(rows, 1) + {5: 3, 37: 3}.get(rows, 0)  # padded
        assert max(model.rows) <= 8
        assert batcher.waiting == 0

    play(scene, model, max_batch=8)


def test_fault_28_no_rows_of_strings() -> None:
    def lengths(_: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"n": np.array([[len(text), 1] for text in inputs["text"]])}

    async def scene(batcher: Batcher, _: Workers) -> None:
        none, some = await asyncio.gather(
            ask(batcher, {"text": np.empty(0, object)}), ask(batcher, {"text": np.array([b"abc", b""], object)})
        )
        assert none["n"].shape == (0, 2)
        assert some["n"].tolist() == [[3, 1], [0, 1]]

    play(scene, lengths)


@pytest.mark.parametrize("inputs", [{}, {"x": np.float32(1)}, {"x": np.zeros((2, 1)), "z": np.zeros((3, 1))}])
def test_inputs_without_common_rows_are_refused(inputs: dict[str, np.ndarray]) -> None:
    async def scene(batcher: Batcher, _: Workers) -> None:
        refusal = await refused(ask(batcher, inputs))
        assert refusal.code is Code.INVALID_ARGUMENT
        assert batcher.waiting == 0

    play(scene, Model())


def test_outputs_without_rows_are_computed_alone_and_unpadded() -> None:
    model = Model(aggregate=True)

    async def scene(batcher: Batcher, _: Workers) -> None:
        for _ in range(2):
            answers = await asyncio.gather(*(ask(batcher, rows_of(*[value] * 3)) for value in (1, 2, 3)))
            assert [float(answer["y"]) for answer in answers] == [6, 12, 18]
        assert model.rows == [8 + 8, 3, 3, 3, 3, 3, 3]  # tried together once
        for rows in (0, 17):
            refusal = await refused(ask(batcher, rows_of(*range(rows))))
            assert refusal.code is Code.INVALID_ARGUMENT
            assert "1 to 16 rows" in refusal.message

    play(scene, model, max_batch=16)


# Who fails


def test_fault_16_only_the_poisoned_request_fails() -> None:
    model = Model()

    async def scene(batcher: Batcher, _: Workers) -> None:
        tasks = [ask(batcher, rows_of(value)) for value in (1, POISON, 3, TOXIN, 5)]
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for value, answer in ((1, answers[0]), (3, answers[2]), (5, answers[4])):
            np.testing.assert_array_equal(answer["y"], [[10 * value + 1] * 2])
        assert (answers[1].code, answers[1].message) == (Code.INVALID_ARGUMENT, "A row is poisoned.")
        assert answers[3].code is Code.INTERNAL
        assert model.rows == [8, 1, 1, 1, 1, 1]
        assert (await ask(batcher, rows_of(6)))["y"].tolist() == [[61, 61]]

    play(scene, model)


def test_fault_16_a_row_of_nan_leaves_its_mates_alone() -> None:
    async def scene(batcher: Batcher, _: Workers) -> None:
        answers = await asyncio.gather(*(ask(batcher, rows_of(value)) for value in (1, np.nan, np.inf)))
        np.testing.assert_array_equal(answers[0]["y"], [[11, 11]])
        assert np.isnan(answers[1]["y"]).all()  # also where the last row, the infinite one, is repeated
        assert np.isposinf(answers[2]["y"]).all()

    play(scene, Model())


def test_fault_20_an_unknown_error_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    async def scene(batcher: Batcher, _: Workers) -> None:
        refusal = await refused(ask(batcher, rows_of(TOXIN)))
        assert refusal.code is Code.INTERNAL
        assert refusal.message == str(refusal) == "The model failed."

    with caplog.at_level(logging.ERROR):
        play(scene, Model())
    (record,) = caplog.records
    assert "/secret/path" in (record.exc_text or "")


@pytest.mark.parametrize("error", [SystemExit(3), MemoryError(), asyncio.CancelledError(), StopIteration()])
def test_fault_20_whatever_is_raised_the_worker_lives(error: BaseException) -> None:
    def run(_: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if inputs["x"][0, 0] == POISON:
            raise error
        return {"y": inputs["x"]}

    async def scene(batcher: Batcher, workers: Workers) -> None:
        refusal = await refused(ask(batcher, rows_of(POISON)))
        assert refusal.code is (Code.RESOURCE_EXHAUSTED if isinstance(error, MemoryError) else Code.INTERNAL)
        assert (await ask(batcher, rows_of(4)))["y"].tolist() == [[4, 4]]
        assert workers.longest() == 0

    play(scene, run)


def test_fault_20_where_memory_runs_out_halves_are_tried() -> None:
    model = Model(most=4)

    async def scene(batcher: Batcher, _: Workers) -> None:
        answers = await asyncio.gather(*(ask(batcher, rows_of(value)) for value in range(16)))
        assert [answer["y"][0, 0] for answer in answers] == [10 * value + 1 for value in range(16)]
        assert model.rows == [16, 8, 4, 4, 8, 4, 4]
        model.calls.clear()
        answer = await ask(batcher, rows_of(*range(16)))
        assert answer["y"][:, 1].tolist() == [10 * value + 1 for value in range(16)]
        assert model.rows == [16, 8, 4, 4, 8, 4, 4]
        model.most = 0
        model.calls.clear()
        alone = await refused(ask(batcher, rows_of(1)))
        large = await refused(ask(batcher, rows_of(*range(16))))
        assert alone.code is large.code is Code.RESOURCE_EXHAUSTED
        assert model.rows == [1, 16, 8, 4, 2, 1]  # the rest could not help any more

    play(scene, model)


# Who leaves


def test_fault_15_clients_that_leave_take_nobody_with_them() -> None:
    model = Model()

    async def scene(batcher: Batcher, _: Workers) -> None:
        running = await holding(batcher, model)
        queued = [ask(batcher, rows_of(value)) for value in range(1, 8)]
        await asyncio.sleep(0.01)
        running.cancel()
        for task in queued[::3]:  # 1, 4, 7
            task.cancel()
        await asyncio.sleep(0.01)
        assert batcher.waiting == 4
        model.gate.set()
        answers = await asyncio.gather(*queued, return_exceptions=True)
        for value, answer in enumerate(answers, 1):
            if value in (1, 4, 7):
                assert isinstance(answer, asyncio.CancelledError)
            else:
                np.testing.assert_array_equal(answer["y"], [[10 * value + 1] * 2])
        assert model.calls[1][1][:, 0].tolist() == [2, 3, 5, 6]
        assert running.cancelled()

    play(scene, model)


def test_fault_15_clients_that_leave_while_computed_do_not_shift_the_others() -> None:
    model = Model()

    async def scene(batcher: Batcher, _: Workers) -> None:
        model.gate.clear()
        tasks = [ask(batcher, rows_of(*[value] * size)) for value, size in ((1, 2), (2, 3), (3, 1), (4, 2))]
        await until(lambda: len(model.calls) == 1)
        tasks[1].cancel()
        await asyncio.sleep(0.005)
        model.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers[1], asyncio.CancelledError)
        assert [answers[i]["y"][:, 0].tolist() for i in (0, 2, 3)] == [[11, 11], [31], [41, 41]]
        assert model.rows == [8]

    play(scene, model)


def test_fault_15_a_large_request_that_leaves_is_not_computed_further() -> None:
    model = Model()

    async def scene(batcher: Batcher, _: Workers) -> None:
        model.gate.clear()
        large = ask(batcher, rows_of(*range(40)))
        await until(lambda: len(model.calls) == 1)
        assert batcher.waiting == 36
        large.cancel()
        await asyncio.sleep(0.005)
        assert batcher.waiting == 0
        model.gate.set()
        await ask(batcher, rows_of(1))
        assert model.rows == [4, 1]

    play(scene, model, max_batch=4)


def test_fault_18_what_is_too_late_is_not_computed() -> None:
    model = Model()

    async def scene(batcher: Batcher, _: Workers) -> None:
        first = await holding(batcher, model)
        late, large, patient = ask(batcher, rows_of(1), 0.02), ask(batcher, rows_of(*[2] * 9), 0.02), None
        await asyncio.sleep(0)
        patient = ask(batcher, rows_of(3))
        gone = ask(batcher, rows_of(4), -1.0)
        for task in (late, large, gone):
            refusal = await refused(task)
            assert refusal.code is Code.DEADLINE_EXCEEDED
        assert batcher.waiting == 1
        model.gate.set()
        await asyncio.gather(first, patient)
        assert [x[:, 0].tolist() for _, x in model.calls] == [[0], [3]]

    play(scene, model, max_batch=4)


def test_fault_18_who_is_too_late_or_has_left_takes_no_worker_even_before_he_has_noticed() -> None:
    model, seen = Model(), list[BatchDone]()

    async def scene(_: Batcher, workers: Workers) -> None:
        batcher = Batcher(model, workers, Settings(), seen.append)
        late = ask(batcher, rows_of(1), 0.02)
        asyncio.get_running_loop().call_soon(time.sleep, 0.05)  # between his submission and the batch
        assert (await refused(late)).code is Code.DEADLINE_EXCEEDED
        left = ask(batcher, rows_of(1))
        await asyncio.sleep(0)
        assert batcher.waiting == 1
        left.cancel()  # before the batch is formed, and he himself goes on after it
        await asyncio.wait([left])
        await batcher.close()

    play(scene, model)
    assert seen == []
    assert model.calls == []


def test_fault_15_who_leaves_before_the_second_try_is_not_computed_again() -> None:
    second, calls = threading.Event(), list[list[float]]()

    def run(_: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        calls.append(inputs["x"][:, 0].tolist())
        if len(calls) == 2:
            second.wait(PATIENCE)
        if (inputs["x"] == POISON).any():
            raise invalid("A row is poisoned.")
        return {"y": inputs["x"]}

    async def scene(batcher: Batcher, _: Workers) -> None:
        tasks = [ask(batcher, rows_of(value)) for value in (POISON, 2, 3, 4)]
        await until(lambda: len(calls) == 2)
        tasks[2].cancel()
        await asyncio.wait([tasks[2]])
        second.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [answers[i]["y"][0, 0] for i in (1, 3)] == [2, 4]
        assert calls == [[POISON, 2, 3, 4], [POISON], [2], [4]]

    play(scene, run)


def test_fault_19_a_call_that_hangs_costs_one_worker_until_it_ends() -> None:
    model, other = Model(), Model()

    async def scene(batcher: Batcher, workers: Workers) -> None:
        model.gate.clear()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 0.05
        refusal = await refused(batcher.submit("s", rows_of(1), deadline))
        assert refusal.code is Code.DEADLINE_EXCEEDED
        assert loop.time() >= deadline - 0.001
        healthy = Batcher(other, workers, Settings())
        for value in range(5):
            assert (await ask(healthy, rows_of(value)))["y"][0, 0] == 10 * value + 1
        before = workers.longest()
        await asyncio.sleep(0.01)
        assert workers.longest() > before > 0.04  # the clocks of deadlines and of batches differ a little
        second = ask(batcher, rows_of(2))
        await until(lambda: len(model.calls) == 2)
        waits = ask(healthy, rows_of(3))
        await asyncio.sleep(0.01)
        assert healthy.waiting == 1  # both workers hang now
        model.gate.set()
        assert (await second)["y"][0, 0] == 21
        assert (await waits)["y"][0, 0] == 31
        await until(lambda: workers.longest() == 0)

    play(scene, model, count=2)


# Overload


def test_fault_17_a_full_queue_refuses_at_once() -> None:
    model = Model()

    async def scene(batcher: Batcher, _: Workers) -> None:
        first = await holding(batcher, model)
        tasks = [ask(batcher, rows_of(value)) for value in range(80)]
        await asyncio.sleep(0)
        assert batcher.waiting == 8
        await asyncio.sleep(0)
        assert [task.done() for task in tasks] == [False] * 8 + [True] * 72
        refusal = await refused(tasks[-1])
        assert (refusal.code, refusal.retry_after) == (Code.UNAVAILABLE, 2.5)
        assert "queue is full: 8 of at most 8 rows" in refusal.message
        tasks[0].cancel()
        await asyncio.sleep(0.005)
        replacement = ask(batcher, rows_of(99))  # on the place that has become free
        model.gate.set()
        assert (await replacement)["y"][0, 0] == 991
        answers = await asyncio.gather(*tasks[1:8])
        assert [answer["y"][0, 0] for answer in answers] == [10 * value + 1 for value in range(1, 8)]
        await first
        await asyncio.gather(*tasks, return_exceptions=True)

    play(scene, model, queue_rows=8, retry_after=2.5)


def test_fault_17_room_that_is_reserved_counts_as_taken_until_its_rows_come() -> None:
    """Pictures that are being decoded: what does not fit behind them is refused before it is decoded."""
    model = Model()

    async def scene(batcher: Batcher, _: Workers) -> None:
        batcher.check_room()
        with batcher.reserve(8, 100):
            assert batcher.waiting == 0
            with pytest.raises(Refusal, match="queue is full: 8 of at most 8 rows"):
                batcher.check_room()
            with pytest.raises(Refusal, match="queue is full"), batcher.reserve(1, 1):
                raise AssertionError
            assert (await refused(ask(batcher, rows_of(1)))).code is Code.UNAVAILABLE
        batcher.check_room()
        with pytest.raises(KeyError), batcher.reserve(8, 100):
            raise KeyError
        batcher.check_room()  # free again, however the block has ended

    play(scene, model, queue_rows=8)


def test_fault_17_the_queue_is_bounded_in_bytes_too() -> None:
    model = Model()

    async def scene(batcher: Batcher, _: Workers) -> None:
        first = await holding(batcher, model)
        kept = ask(batcher, rows_of(1, inner=(10,)))  # 40 bytes
        await asyncio.sleep(0)
        refusal = await refused(ask(batcher, rows_of(1, inner=(20,))))
        assert refusal.code is Code.UNAVAILABLE
        assert "queue is full: 40 of at most 100 bytes" in refusal.message
        texts = {"x": np.array([b"x" * 61], object)}  # not the 8 bytes of a pointer
        assert "bytes wait" in (await refused(ask(batcher, texts))).message
        model.gate.set()
        await asyncio.gather(first, kept)

    play(scene, model, queue_bytes=100)


def test_fault_17_a_request_larger_than_the_queue_is_let_in_where_nothing_waits() -> None:
    model = Model()

    async def scene(batcher: Batcher, _: Workers) -> None:
        answer = await ask(batcher, rows_of(*range(50)))
        assert answer["y"][:, 0].tolist() == [10 * value + 1 for value in range(50)]
        first = await holding(batcher, model)
        waits = ask(batcher, rows_of(1))
        await asyncio.sleep(0)
        assert (await refused(ask(batcher, rows_of(*range(50))))).code is Code.UNAVAILABLE
        model.gate.set()
        await asyncio.gather(first, waits)

    play(scene, model, max_batch=4, queue_rows=8)


# The end


def test_close_computes_what_waits() -> None:
    model = Model()

    async def scene(batcher: Batcher, _: Workers) -> None:
        await batcher.close()  # with nothing to do
        batcher = Batcher(model, _, Settings(max_batch=4))
        first = await holding(batcher, model)
        tasks = [ask(batcher, rows_of(value)) for value in range(10)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0.01)
        assert not closing.done()
        assert (await refused(ask(batcher, rows_of(1)))).code is Code.UNAVAILABLE
        tasks[3].cancel()
        model.gate.set()
        await closing
        await first
        answers = await asyncio.gather(*tasks[:3], *tasks[4:])
        assert [answer["y"][0, 0] for answer in answers] == [1, 11, 21, 41, 51, 61, 71, 81, 91]

    play(scene, model)


def test_close_waits_for_a_batch_whose_client_has_left() -> None:
    model = Model()

    async def scene(batcher: Batcher, workers: Workers) -> None:
        first = await holding(batcher, model)
        first.cancel()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(batcher.close(), 0.02)
        model.gate.set()
        await batcher.close()
        assert workers.longest() == 0

    play(scene, model)


def test_close_waits_for_every_worker() -> None:
    gates = {1.0: threading.Event(), 2.0: threading.Event()}

    def run(_: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        gates[float(inputs["x"][0, 0])].wait(PATIENCE)
        return {"y": inputs["x"]}

    async def scene(batcher: Batcher, _: Workers) -> None:
        one, two = ask(batcher, rows_of(1), name="one"), ask(batcher, rows_of(2), name="two")
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0.005)
        gates[1.0].set()
        await one
        await asyncio.sleep(0.005)
        assert not closing.done()
        gates[2.0].set()
        await asyncio.gather(two, closing)

    play(scene, run, count=2)


def test_closed_workers_end_their_threads() -> None:
    before = set(threading.enumerate())
    workers = Workers(3)
    threads = set(threading.enumerate()) - before
    assert len(threads) == 3
    assert all(thread.daemon for thread in threads)  # one that hangs must not keep the process
    workers.close()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_workers_that_are_free_keep_nothing_of_the_last_batch() -> None:
    """Neither pictures nor the model of a version that is unloaded."""

    async def scene(_: Batcher, workers: Workers) -> None:
        model = Model()
        batcher = Batcher(model, workers, Settings())
        await ask(batcher, rows_of(1))
        await refused(ask(batcher, rows_of(POISON)))
        await batcher.close()
        kept = weakref.ref(model)
        del model, batcher
        for _ in range(1000):
            gc.collect()
            if kept() is None:
                break
            await asyncio.sleep(0.001)
        assert kept() is None

    play(scene, Model())


@pytest.mark.parametrize("end", ["right", "poison", "toxin", "late", "left", "large", "large poison"])
def test_rows_are_given_free_without_waiting_for_the_garbage_collector(end: str) -> None:
    """Else a storm of requests that fail would fill the memory with their pictures."""
    model = Model()

    async def scene(batcher: Batcher, _: Workers) -> None:
        gc.disable()
        value = {"poison": POISON, "toxin": TOXIN, "large poison": POISON}.get(end, 1.0)
        inputs = rows_of(*[value] * (100 if "large" in end else 1))
        kept = weakref.ref(inputs["x"])
        model.calls.clear()
        mate = ask(batcher, rows_of(5))
        task = ask(batcher, inputs, -1.0 if end == "late" else PATIENCE)
        del inputs
        await asyncio.sleep(0)
        if end == "left":
            task.cancel()
        await asyncio.wait([task, mate])
        assert task.cancelled() or (task.exception() is None) == (end in ("right", "large"))
        del task
        await until(lambda: kept() is None)

    logging.getLogger("apps.serve.batch").disabled = True  # pytest keeps what is logged
    try:
        play(scene, model)
    finally:
        gc.enable()
        logging.getLogger("apps.serve.batch").disabled = False


def test_the_metrics_are_told_of_every_batch() -> None:
    model, seen = Model(), list[BatchDone]()

    async def scene(_: Batcher, workers: Workers) -> None:
        batcher = Batcher(model, workers, Settings(), seen.append)
        await asyncio.gather(ask(batcher, rows_of(1, 2)), ask(batcher, rows_of(3)))
        await asyncio.gather(ask(batcher, rows_of(1)), ask(batcher, rows_of(POISON)), return_exceptions=True)

    play(scene, model)
    assert [(done.rows, done.padding, done.requests, done.failed) for done in seen] == [
        (3, 1, 2, False),
        (2, 0, 2, True),
    ]
    assert all(0 <= done.computed < PATIENCE and all(0 <= wait < PATIENCE for wait in done.waited) for done in seen)
    assert [len(done.waited) for done in seen] == [2, 2]


# Anything, in any order


@pytest.mark.parametrize("seed", range(12))
def test_everybody_gets_his_own_answer_whatever_happens(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """Random sizes, shapes, deadlines, departures, poison and lack of memory; two models, one of which is slow."""
    uvloop = pytest.importorskip("uvloop")
    rng = np.random.default_rng(seed)
    most = int(rng.choice([3, 5, 100]))

    def factor(model: int, name: str) -> float:
        return 10.0 * (model + 1) + (name == "t")

    def make(model: int) -> Callable[[str, Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
        noise = np.random.default_rng((seed, model))

        def run(name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            x = inputs["x"]
            time.sleep(float(noise.uniform(0, 0.002)) * model)
            if len(x) > most:
                raise Refusal(Code.RESOURCE_EXHAUSTED, "The model ran out of memory.")
            if (x == POISON).any():
                raise invalid("A row is poisoned.")
            if (x == TOXIN).any():
                raise KeyError
            return {"y": factor(model, name) * x, "sum": x.reshape(len(x), -1).sum(1)}

        return run

    async def client(batchers: list[Batcher], index: int, counts: dict[str, int]) -> None:
        model, name = int(rng.integers(2)), str(rng.choice(["s", "t"]))
        rows = int(rng.choice([0, 1, 1, 1, 1, 2, 3, 7, 8, 9, 30]))
        inner = ((2,), (3, 1))[int(rng.integers(2))]
        x = (100 * index + np.arange(rows)).reshape(-1, *(1 for _ in inner)) * np.ones((rows, *inner))
        sick = float(rng.choice([0, 0, 0, 0, 0, 0, POISON, TOXIN]))
        if sick and rows:
            x[int(rng.integers(rows))] = sick
        deadline = asyncio.get_running_loop().time() + float(rng.choice([-1.0, 0.003, 60, 60, 60, 60]))
        leaves = float(rng.choice([0.0, 0.002, 60, 60, 60, 60]))
        await asyncio.sleep(float(rng.choice([0.0, 0.001, 0.004])))
        task = asyncio.create_task(batchers[model].submit(name, {"x": x}, deadline))
        done, _ = await asyncio.wait([task], timeout=leaves)
        if not done:
            task.cancel()
        try:
            answer = await task
        except asyncio.CancelledError:
            assert leaves < 60
            counts["left"] += 1
        except Refusal as refusal:
            if refusal.code is Code.UNAVAILABLE:
                assert "queue is full" in refusal.message
            elif refusal.code is Code.DEADLINE_EXCEEDED:
                assert time.monotonic() >= deadline - 0.005
            else:
                assert rows
                assert refusal.code is {POISON: Code.INVALID_ARGUMENT, TOXIN: Code.INTERNAL}[sick]
            counts[refusal.code.name] += 1
        else:
            assert not (sick and rows)
            assert answer["y"].shape == x.shape
            np.testing.assert_array_equal(answer["y"], factor(model, name) * x)
            np.testing.assert_array_equal(answer["sum"], x.reshape(rows, x[:1].size or inner[0]).sum(1))
            counts["right"] += 1

    async def whole(workers: Workers) -> None:
        settings = Settings(max_batch=8, queue_rows=60, max_wait=float(rng.choice([0.0, 0.002])))
        batchers = [Batcher(make(model), workers, settings) for model in range(2)]
        counts = dict.fromkeys(["right", "left", *(code.name for code in Code)], 0)
        for wave in range(4):
            await asyncio.gather(*(client(batchers, 40 * wave + index, counts) for index in range(40)))
        assert [batcher.waiting for batcher in batchers] == [0, 0]
        for batcher in batchers:
            await asyncio.wait_for(batcher.close(), PATIENCE)
        assert workers.longest() == 0
        assert sum(counts.values()) == 160
        assert counts["right"] > 0

    caplog.set_level(logging.CRITICAL, "apps.serve.batch")
    with working(2) as workers:
        (uvloop if seed % 3 else asyncio).run(whole(workers))
        gc.collect()
    assert caplog.records == []  # asyncio tells there of an error that nobody has looked at


# With TensorFlow


def test_fault_27_every_answer_is_that_of_a_request_alone(models: Path) -> None:
    from apps.serve.tensorflow_runner import TensorFlowRunner

    runner = TensorFlowRunner(models / "tiny/1")
    pictures = np.random.default_rng(0).integers(0, 256, (200, 1, 8, 8, 3)).astype("uint8")
    alone = [runner.run("serving_default", {"image": image}) for image in pictures]
    assert len({float(answer["colour"][0, 0]) for answer in alone}) > 190  # they do differ

    async def scene(batcher: Batcher, _: Workers) -> None:
        for clients in (1, 2, 3, 7, 31, 32, 33, 64, 200):
            answers = await asyncio.gather(
                *(ask(batcher, {"image": image}, name="serving_default") for image in pictures[:clients])
            )
            for answer, expected in zip(answers, alone, strict=False):
                for head in ("colour", "size"):
                    np.testing.assert_allclose(answer[head], expected[head], rtol=0, atol=1e-6)
        together = await ask(batcher, {"image": np.concatenate(pictures)}, name="serving_default")
        np.testing.assert_allclose(
            together["colour"], np.concatenate([answer["colour"] for answer in alone]), rtol=0, atol=1e-6
        )

    play(scene, runner.run, count=2, queue_rows=200)


def test_fault_24_models_with_equal_names_inside_never_mix(tmp_path: Path) -> None:
    from serving_examples import half_plus_two

    from apps.serve.tensorflow_runner import TensorFlowRunner

    constants = ((0.5, 2.0), (3.0, 100.0))
    runners = [TensorFlowRunner(half_plus_two(tmp_path / f"{half}", half, two)) for half, two in constants]

    async def scene(_: Batcher, workers: Workers) -> None:
        batchers = [Batcher(runner.run, workers, Settings(queue_rows=400)) for runner in runners]
        asked = [(model, float(value)) for value in range(150) for model in (0, 1)]
        answers = await asyncio.gather(
            *(ask(batchers[model], {"x": np.array([v], "float32")}, name="serving_default") for model, v in asked)
        )
        for (model, value), answer in zip(asked, answers, strict=True):
            half, two = constants[model]
            assert answer["y"].tolist() == [half * value + two]

    play(scene, ignore, count=2)


def test_only_signatures_with_rows_on_both_sides_are_batched() -> None:
    from tensorflow.core.protobuf import meta_graph_pb2

    from apps.serve.signature import Signature, TensorSpec

    def batched(taken: list[tuple[int | None, ...] | None], given: list[tuple[int | None, ...] | None]) -> bool:
        inputs = {f"x{i}": TensorSpec(f"x{i}", np.dtype("float32"), shape) for i, shape in enumerate(taken)}
        outputs = {f"y{i}": TensorSpec(f"y{i}", np.dtype("float32"), shape) for i, shape in enumerate(given)}
        return Signature("s", inputs, outputs, meta_graph_pb2.SignatureDef()).batched

    assert batched([(None, 3)], [(None,), None])
    assert not batched([(None, 3)], [(None,), ()])  # a mean over the rows
    assert not batched([(None, 3)], [(4,)])  # a table
    assert not batched([(1, 3)], [(None,)])
    assert not batched([], [(None,)])


@pytest.mark.skipif(sys.platform != "linux", reason="Threads have a niceness of their own on Linux alone.")
def test_threads_that_compute_let_the_event_loop_go_first() -> None:
    """Else a refusal waits for the processor behind four threads that multiply matrices."""
    seen: list[int] = []

    def run(_: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return {"y": inputs["x"]}

    async def scene() -> None:
        workers = Workers(1)
        await Batcher(run, workers, Settings()).submit("s", {"x": np.zeros(1)}, asyncio.get_running_loop().time() + 60)
        workers.close()

    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    asyncio.run(scene())
    assert seen == [max(own, COMPUTING)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


def test_requests_of_too_many_rows_are_refused_before_they_are_cut() -> None:
    """A shape of some bytes can say [1000000000000, 0]."""

    async def scene(batcher: Batcher, _: Workers) -> None:
        for inputs in ({"x": np.zeros([10**12, 0], "float32")}, rows_of(*[1.0] * 8193)):
            refusal = await refused(ask(batcher, inputs))
            assert (refusal.code, refusal.message[:34]) == (Code.INVALID_ARGUMENT, "A request can have 8192 rows at mo")
        assert (await ask(batcher, rows_of(*[1.0] * 8192)))["y"].shape == (8192, 2)

    play(scene, Model(), max_batch=2)


def test_fault_20_halves_that_do_not_fit_together_fail_alone_and_the_worker_goes_on() -> None:
    def run(_: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if len(inputs["x"]) > 2:
            raise Refusal(Code.RESOURCE_EXHAUSTED, "The model ran out of memory.")
        return {"y": np.zeros([len(inputs["x"]), int(inputs["x"][0, 0])])}  # as wide as the first number says

    async def scene(batcher: Batcher, _: Workers) -> None:
        assert (await refused(ask(batcher, rows_of(1, 1, 2, 2)))).code is Code.INTERNAL
        assert (await ask(batcher, rows_of(3)))["y"].shape == (1, 3)

    play(scene, run)
