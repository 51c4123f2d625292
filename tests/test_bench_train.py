"""The benchmark of whole trainings: both sides learn, and the projected times follow from the speeds."""

import keras
import pytest

from apps import bench_pytorch, bench_train
from apps.bench import Figure
from apps.console import Console

needs_pytorch = pytest.mark.skipif(not bench_pytorch.INSTALLED, reason="PyTorch is not installed: kerascnn[torch].")


def test_projected_time_is_that_of_all_epochs_at_their_sizes(monkeypatch, capsys) -> None:
    recipe = {**bench_train.RECIPES["cifar10-fast"], "epochs": 10, "scales": ((0.75, 0.6),)}
    recipe |= {"hardest": 0.5, "hardest_from": 0.8}
    monkeypatch.setattr(bench_train, "RECIPES", {"cifar10-fast": recipe})
    monkeypatch.setattr(bench_pytorch, "INSTALLED", False)
    asked = []

    def measured(contestants, rounds):
        asked.extend(one.name for one in contestants)
        return [
            Figure(one.name, median, median, median) for one, median in zip(contestants, (900.0, 450.0), strict=True)
        ]

    monkeypatch.setattr(bench_train, "measure", measured)
    tables = bench_train.bench_train(1, Console())
    assert asked == ["kerascnn, 24x24, batch 250", "kerascnn, 32x32, batch 250"]
    (time,) = tables["Projected time of the whole training, 45,000 pictures"]
    # Six epochs at 24 pixels, two at 32, and two with half of the pictures: 300 + 200 + 100 s.
    assert time.median == 6 * 45_000 / 900 + 2 * 45_000 / 450 + 2 * 22_500 / 450
    assert "PyTorch is not installed" in capsys.readouterr().out


def test_our_contestant_trains_with_its_pipeline(monkeypatch) -> None:
    choices = {**bench_train.RECIPES["cifar10-fast"], "width": 0.125, "batch_size": 16, "precision": "float32"}
    recipe = bench_train.resolve(choices, 45_000, (32, 32), [["cat", "dog"]])
    data = bench_train.random_data(64)
    monkeypatch.setattr(bench_train, "random_data", lambda: data)
    keras.utils.set_random_seed(0)
    step = bench_train.contestant(recipe, (16, 16)).start()
    losses = [float(step()[0]) for _ in range(25)]
    assert losses[-1] < losses[0]


@needs_pytorch
def test_the_reference_learns_its_batch(monkeypatch) -> None:
    monkeypatch.setattr(bench_train, "REFERENCE_BATCH", 8)
    bench_pytorch.torch.manual_seed(0)
    step = bench_train.reference_step("float32")
    losses = [step() for _ in range(8)]
    assert losses[-1] < 0.5 * losses[0]
