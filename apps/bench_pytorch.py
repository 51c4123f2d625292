"""The networks of the benchmarks in PyTorch, each ready to train on one fixed batch or predict it.

They run in PyTorch's best ordinary mode: channels last, bfloat16 by autocast; eager on a CPU, on an accelerator with
`torch.compile`. PyTorch is optional: without it this module can be imported and nothing else. Source of the
residual networks: https://arxiv.org/abs/1512.03385, with the stride of a bottleneck block in its 3x3 convolution; of
airbench94: https://arxiv.org/abs/2404.00498.
"""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kerascnn.blocks import IMAGENET_MEAN, IMAGENET_STD

INSTALLED = importlib.util.find_spec("torch") is not None
torch: Any = importlib.import_module("torch") if INSTALLED else None
Module: Any = torch.nn.Module if INSTALLED else object


class Normalise(Module):
    """Raw pixels to zero mean and unit variance, in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).reshape(1, 3, 1, 1))

    def forward(self, x: Any) -> Any:
        """Subtract and divide."""
        return (x - self.mean) / self.std


class Residual(Module):
    """ReLU(branch + shortcut), with the shortcut projected where the block changes the shape."""

    def __init__(self, branch: Sequence[Any], inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.branch = torch.nn.Sequential(*branch)
        changes = stride != 1 or inputs != outputs
        self.shortcut = torch.nn.Sequential(*conv_bn(inputs, outputs, 1, stride) if changes else ())
        self.relu = torch.nn.ReLU(inplace=True)

    def forward(self, x: Any) -> Any:
        """Add both ways."""
        return self.relu(self.branch(x) + self.shortcut(x))


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[Any]:
    """Convolution without bias, then BatchNorm."""
    conv = torch.nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False)
    return [conv, torch.nn.BatchNorm2d(outputs)]


def conv_bn_relu(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[Any]:
    """Convolution, BatchNorm, non-linearity."""
    return [*conv_bn(inputs, outputs, kernel, stride), torch.nn.ReLU(inplace=True)]


def basic_block(inputs: int, filters: int, stride: int) -> Residual:
    """Two 3x3 convolutions."""
    branch = [*conv_bn_relu(inputs, filters, 3, stride), *conv_bn(filters, filters, 3)]
    return Residual(branch, inputs, filters, stride)


def bottleneck_block(inputs: int, filters: int, stride: int) -> Residual:
    """1x1 to fewer maps, 3x3, 1x1 to four times as many."""
    branch = [*conv_bn_relu(inputs, filters, 1), *conv_bn_relu(filters, filters, 3, stride)]
    return Residual([*branch, *conv_bn(filters, 4 * filters, 1)], inputs, 4 * filters, stride)


# name: (block, its outputs per filter, blocks per stage)
VARIANTS = {
    "resnet18": (basic_block, 1, (2, 2, 2, 2)),
    "resnet50": (bottleneck_block, 4, (3, 4, 6, 3)),
}


def resnet(name: str, num_classes: int, stem: str = "imagenet") -> Any:
    """One of `VARIANTS`; `stem` is "imagenet" (7x7, a quarter of the picture) or "small" (3x3, all of it)."""
    block, expansion, blocks = VARIANTS[name]
    steps = [Normalise(), *(conv_bn_relu(3, 64, 3) if stem == "small" else conv_bn_relu(3, 64, 7, 2))]
    if stem == "imagenet":
        steps.append(torch.nn.MaxPool2d(3, 2, 1))
    channels = 64
    for stage, count in enumerate(blocks):
        for index in range(count):
            filters = 64 * 2**stage
            steps.append(block(channels, filters, 2 if stage > 0 and index == 0 else 1))
            channels = expansion * filters
    model = torch.nn.Sequential(
        *steps, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(channels, num_classes)
    )
    return model.to(memory_format=torch.channels_last)


class Scale(Module):
    """Multiplies by a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Any) -> Any:
        """Multiply."""
        return x * self.factor


def airbench94() -> Any:
    """The network of the fastest public recipe for CIFAR-10; the whitening is frozen but for its bias."""
    whitening = torch.nn.Conv2d(3, 24, 2)
    whitening.weight.requires_grad_(False)
    steps = [Normalise(), whitening, torch.nn.GELU()]
    for inputs, filters in ((24, 64), (64, 256), (256, 256)):
        (first, first_norm), (second, second_norm) = conv_bn(inputs, filters, 3), conv_bn(filters, filters, 3)
        steps += [first, torch.nn.MaxPool2d(2), first_norm, torch.nn.GELU(), second, second_norm, torch.nn.GELU()]
        for norm in (first_norm, second_norm):
            norm.weight.requires_grad_(False)
    head = torch.nn.Linear(256, 10, bias=False)
    model = torch.nn.Sequential(*steps, torch.nn.MaxPool2d(3), torch.nn.Flatten(), head, Scale(1 / 9))
    return model.to(memory_format=torch.channels_last)


def count_parameters(model: Any) -> int:
    """Trainable values."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def training_step(model: Any, x: np.ndarray, y: np.ndarray, precision: str) -> Callable[[], float]:
    """Forward, backward and one update by SGD with Nesterov's momentum; x is (n, height, width, 3), y the classes."""
    step = training(model, x, y, precision)
    return lambda: step().item()


def inference_step(model: Any, x: np.ndarray, precision: str) -> Callable[[], np.ndarray]:
    """Float32 logits of x (n, height, width, 3)."""
    step = inference(model, x, precision)
    return lambda: step().numpy()


def training(
    model: Any, x: np.ndarray, y: np.ndarray, precision: str, device: str = "cpu", compiled: bool = False
) -> Callable[[], Any]:
    """The step of `training_step` on a device, with `torch.compile` if `compiled`; its loss is not waited for."""
    model = model.to(device).train()
    pictures, labels = _channels_last(x, device), torch.from_numpy(y).to(device)
    optimizer = torch.optim.SGD(
        [one for one in model.parameters() if one.requires_grad], lr=0.01, momentum=0.9, nesterov=True
    )
    forward = torch.compile(model) if compiled else model

    def step() -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = forward(pictures)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def inference(
    model: Any, x: np.ndarray, precision: str, device: str = "cpu", compiled: bool = False
) -> Callable[[], Any]:
    """The step of `inference_step` on a device, with `torch.compile` if `compiled`; its logits are not waited for."""
    model = model.to(device).eval()
    pictures = _channels_last(x, device)
    forward = torch.compile(model) if compiled else model

    def step() -> Any:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            return forward(pictures).float()

    return step


def _channels_last(x: np.ndarray, device: str) -> Any:
    pictures = torch.from_numpy(x).to(device).permute(0, 3, 1, 2)
    return pictures.contiguous(memory_format=torch.channels_last)
