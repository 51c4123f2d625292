"""`apps.training.train` in parts: smaller pictures first, and going on between the parts."""

from pathlib import Path

import numpy as np
import pytest

from apps import training
from apps.console import Console
from apps.recipe import resolve

CLASSES = {"label": ["dark", "light"]}


@pytest.fixture
def data() -> training.Data:
    generator = np.random.default_rng(0)
    labels = np.arange(48) % 2
    pictures = generator.integers(0, 128, (48, 18, 18, 3)) + 100 * labels[:, None, None, None]
    return training.Data(pictures.astype("uint8"), {"label": labels.astype("int32")}, CLASSES)


def train(data: training.Data, folder: Path, resume: bool = False, **choices: object) -> training.Trained:
    chosen = {"model": "airbench94", "width": 0.125, "epochs": 4, "batch_size": 8, "precision": "float32"}
    chosen |= {"scales": ((0.5, 0.25), (0.75, 0.25)), "optimizer": "muon", "lr": 0.02, **choices}
    recipe = resolve(chosen, 40, (18, 18), list(CLASSES.values()))
    index = np.arange(48)
    return training.train(recipe, data, index[:40], index[40:], folder, Console(quiet=True), resume=resume)


def test_training_stopped_between_two_sizes_goes_on_to_the_same_weights(data, tmp_path, monkeypatch) -> None:
    sizes = []
    batches = training.training_batches

    def noted(recipe, data, index, first_epoch=0, size=None):
        sizes.append((first_epoch, size))
        return batches(recipe, data, index, first_epoch, size)

    monkeypatch.setattr(training, "training_batches", noted)
    whole = train(data, tmp_path / "whole")
    assert sizes == [(0, (9, 9)), (1, (14, 14)), (2, None)]
    assert [row["epoch"] for row in whole.history] == [1, 2, 3, 4]
    assert whole.best_epoch >= 3  # the best of the epochs at full size
    phases = training.phases
    monkeypatch.setattr(training, "phases", lambda recipe, first: phases(recipe, first)[:2])
    train(data, tmp_path / "part")
    monkeypatch.setattr(training, "phases", phases)
    resumed = train(data, tmp_path / "part", resume=True)
    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in whole.history]
    for found, expected in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert resumed.seconds > sum(row["seconds"] for row in resumed.history[:2])


def test_networks_that_flatten_their_picture_refuse_smaller_ones(data) -> None:
    recipe = resolve({"model": "lenet5", "scales": ((0.5, 0.5),)}, 40, (18, 18), list(CLASSES.values()))
    with pytest.raises(ValueError, match="flattens the picture: its height and width must be given"):
        training.check_network(recipe, data.num_classes)


def test_sizes_that_the_network_cannot_reduce_are_refused(data) -> None:
    recipe = resolve({"model": "airbench94", "scales": ((0.5, 0.5),)}, 40, (16, 16), list(CLASSES.values()))
    with pytest.raises(ValueError, match=r"`airbench` needs 8 pixels .* Received: 7x7"):
        training.check_network(recipe, data.num_classes)
