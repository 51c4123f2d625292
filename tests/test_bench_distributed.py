"""The benchmark of training together: the processes really train one network, and the figures follow from the times."""

import os

import numpy as np
import pytest

from apps import bench_distributed
from apps.bench_distributed import Case, Worker, tables_of
from apps.console import Console

TINY = Case("tiny", {"model": "lenet5", "width": 1.0, "batch_size": 8, "image_size": (32, 32)}, 100, (32, 32), 3)
needs_two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="Two processor cores are needed.")


@needs_two_cores
def test_two_processes_together_train_one_network_and_two_apart_do_not(monkeypatch, capsys) -> None:
    pytest.importorskip("jax")
    losses: dict[Worker, list[float]] = {}
    hear = Worker.hear

    def listen(worker: Worker) -> dict[str, float]:
        said = hear(worker)
        heard = losses.setdefault(worker, [])
        if "loss" in said:
            heard.append(said["loss"])
        return said

    monkeypatch.setattr(Worker, "hear", listen)
    tables = bench_distributed.bench_distributed(1, Console(), [TINY], seconds=0.001)
    speeds, scaling, step = tables.values()
    assert {figure.unit for figure in speeds} == {"pictures/s"}
    assert all(figure.median > 0 for figure in (*speeds, *scaling))
    assert step[-1].name.startswith("gradients of")
    assert "tiny, 32x32, float32: training" in capsys.readouterr().out
    # Warm-up and one round: the first alone, with half a batch, and with half beside the second; two batches together.
    first, second, *together = losses.values()
    assert [len(first), len(second), *map(len, together)] == [6, 2, 4, 4]
    assert together[0] == together[1]
    assert together[0] != first[:4]


def test_figures_by_hand() -> None:
    # Two rounds of the same: 8 s alone, 4 s with half, 5 s beside another, 6 s and 10 s together.
    times = np.array([[8.0, 4.0, 5.0, 6.0, 10.0]] * 2)
    speeds, scaling, step = tables_of(times, "title", batch=32, parameters=1_000_000).values()
    assert [figure.median for figure in speeds] == pytest.approx([4, 4, 32 / 5, 32 / 6, 6.4])
    assert [figure.median for figure in scaling] == pytest.approx([8 / 6, 200 / 3, 1.6, 80])
    assert [figure.median for figure in step] == pytest.approx([6000, 4000, 1000, 1000, 100 / 6, 4])
    assert [figure.unit for figure in step] == ["ms", "ms", "ms", "ms", "%", "MB"]


def test_ratios_are_taken_within_a_round() -> None:
    times = np.array([[8.0, 4.0, 5.0, 6.0, 10.0]])
    _, scaling, _ = tables_of(np.concatenate([times, 3 * times, 7 * times]), "title", batch=32, parameters=1).values()
    for figure in scaling:
        assert figure.low == pytest.approx(figure.high)


def test_machine_with_one_core_is_told_so_in_one_line(run_here, monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3})
    process = run_here("bench", "distributed")
    assert process.returncode == 2
    assert process.stderr == "kerascnn: error: `bench distributed` needs two processor cores. Received: 1.\n"


def test_process_that_ends_is_reported_with_its_last_words() -> None:
    order = {"core": 9_999, "number": 0, "recipe": {}, "classes": 2, "asked": None}
    with Worker(order) as worker, pytest.raises(RuntimeError, match=r"has ended: OSError: .*Invalid argument"):
        worker.hear()
