"""The benchmark of the networks: both sides compute the same, and ours is measured without PyTorch too."""

from dataclasses import replace

import keras
import numpy as np
import pytest

import kerascnn
from apps import bench_networks, bench_pytorch
from apps.bench_networks import CASES, Case
from apps.console import Console

needs_pytorch = pytest.mark.skipif(not bench_pytorch.INSTALLED, reason="PyTorch is not installed: kerascnn[torch].")
RESNET = Case("resnet18", 8, 2, 10, 11_173_962, {"stem": "small"})
LENET = Case("lenet5", 32, 8, 10, 62_006)


@needs_pytorch
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_both_sides_give_the_same_logits_with_the_same_weights(case: Case) -> None:
    theirs = bench_networks.pytorch_model(case)
    assert bench_pytorch.count_parameters(theirs) == case.parameters
    ours = kerascnn.build(case.name, (64, 64, 3), case.classes, **case.options)
    copy_weights(ours, theirs, np.random.default_rng(1))
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype("float32")
    expected = bench_pytorch.inference_step(theirs, pictures, "float32")()
    assert expected.std() > 0.01
    np.testing.assert_allclose(ours(pictures), expected, atol=1e-4 * np.abs(expected).max())


def copy_weights(ours: keras.Model, theirs, generator: np.random.Generator) -> None:
    """Ours, with random BatchNorms, into PyTorch's; the blocks of both are made in the order of our names."""
    torch = bench_pytorch.torch
    parts = ("stem", "whitening", "stage", "group", "head")
    layers = sorted(
        (layer for layer in ours.layers if layer.weights),
        key=lambda layer: ([layer.name.startswith(part) for part in parts].index(True), layer.name),
    )
    modules = [module for module in theirs.modules() if isinstance(getattr(module, "weight", None), torch.Tensor)]
    for layer, module in zip(layers, modules, strict=True):
        if "norm" in layer.name:
            layer.set_weights([generator.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
        names = {"kernel": "weight", "gamma": "weight", "beta": "bias"}
        names |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
        for variable in layer.weights:
            name, value = names.get(variable.name, variable.name), keras.ops.convert_to_numpy(variable)
            value = value.transpose((3, 2, 0, 1)) if value.ndim == 4 else value.T
            assert getattr(module, name).shape == value.shape
            getattr(module, name).data = torch.tensor(value)


@needs_pytorch
def test_pytorchs_airbench94_gives_the_same_logits_with_the_same_weights() -> None:
    theirs = bench_pytorch.airbench94()
    torch = bench_pytorch.torch
    # 24 biases of the whitening, which ours does not have.
    assert bench_pytorch.count_parameters(theirs) == 1_971_328 + 24
    torch.nn.init.zeros_(theirs[1].bias)
    ours = kerascnn.build("airbench94", (32, 32, 3), 10, epsilon=1e-5)  # PyTorch's layer has 1e-5
    copy_weights(ours, theirs, np.random.default_rng(1))
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    expected = bench_pytorch.inference_step(theirs, pictures, "float32")()
    assert expected.std() > 0.01
    np.testing.assert_allclose(ours(pictures), expected, atol=1e-4 * np.abs(expected).max())


@needs_pytorch
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_pytorchs_step_learns_the_batch(precision: str) -> None:
    bench_pytorch.torch.manual_seed(0)
    model = bench_pytorch.resnet("resnet18", 10, "small")
    step = bench_pytorch.training_step(model, *RESNET.data(), precision)
    losses = [step() for _ in range(8)]
    assert losses[-1] < 0.5 * losses[0]


def test_our_step_learns_the_batch() -> None:
    keras.utils.set_random_seed(0)
    step = bench_networks.our_training(LENET, "bfloat16")
    losses = [float(step()) for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]
    assert keras.config.dtype_policy().name == "float32"


def test_our_step_alone_is_measured_where_pytorch_is_not_installed(monkeypatch, capsys) -> None:
    monkeypatch.setattr(bench_pytorch, "INSTALLED", False)
    tables = bench_networks.bench_networks(1, Console(), [LENET], seconds=0.001)
    titles = [
        f"lenet5, 32x32, batch 8, {precision}: {work}"
        for precision in ("bfloat16", "float32")
        for work in ("training step", "inference")
    ]
    assert list(tables) == titles
    assert [[figure.name for figure in figures] for figures in tables.values()] == [["kerascnn"]] * 4
    printed = capsys.readouterr().out
    assert printed.startswith("PyTorch is not installed, the figures are of kerascnn alone.")
    assert all(title in printed for title in titles)


@needs_pytorch
def test_the_same_network_of_pytorch_is_measured_beside_ours(capsys) -> None:
    tables = bench_networks.bench_networks(1, Console(), [RESNET], ["float32"], seconds=0.001)
    for figures in tables.values():
        assert [figure.name for figure in figures] == ["kerascnn", "PyTorch"]
        assert all(figure.median > 0 for figure in figures)
    assert "not installed" not in capsys.readouterr().out


def test_networks_of_different_size_are_not_compared() -> None:
    with pytest.raises(ValueError, match=r"needs 62,000 parameters.*Received: 62,006"):
        bench_networks.our_training(replace(LENET, parameters=62_000), "float32")


def test_building_lists_the_slowest_first_without_the_largest(capsys) -> None:
    tables = bench_networks.bench_building(1, Console(), "lenet5")
    (figures,) = tables.values()
    assert [(figure.name, figure.unit) for figure in figures] == [("lenet5", "s")]
    assert "lenet5" in capsys.readouterr().out
