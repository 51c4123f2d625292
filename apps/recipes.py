"""The named recipes: some fields of a recipe each; the others are worked out from the data."""

from collections.abc import Mapping
from typing import Any

Choices = Mapping[str, Any]  # some fields of a recipe, by name

# What suits the networks of 94% on CIFAR-10 in 3.29 Seconds, https://arxiv.org/abs/2404.00498, whatever the data.
AIRBENCH: Choices = {
    "flips": "alternating",
    "optimizer": "muon_sgd",
    "curve": "linear",
    "warmup": 0.1,
    # Behind a scale of 1.702, SiLU is the sigmoid approximation of GELU times 1.702, in less than half of its time.
    "activation": "silu",
    "frozen_scale": 1.702,
    # The best epochs are the last: while the rate is high, accuracies of epochs differ by chance.
    "patience": 0,
}

# What the recipes with them for CIFAR-10 share. The momentum, and the rates that suit muon_sgd, began with those of
# airbench94_muon, https://github.com/KellerJordan/cifar10-airbench, there for batches of 2,000: momentum 0.6 for
# kernels and 0.85 for the others (here one for all), rates of 0.24 for kernels and 0.053 per example for shifts.
_CIFAR10: Choices = {
    **AIRBENCH,
    "image_size": (32, 32),
    "width": 1.0,
    "batch_size": 500,
    "flip": True,
    "views": 1,
    "momentum": 0.88,
    "bias_rate": 440.0,
    "head_rate": 7.0,
    "weight_decay": 2.4e-3,
    "warmup": 0.0,
    "label_smoothing": 0.1,
    "smoothing": "all",
    "brightness": 0.1,
    "contrast": 0.13,
}

RECIPES: dict[str, Choices] = {
    "default": {},
    # Between 93 and 94 % on CIFAR-10 in minutes, on two cores.
    "cifar10-fast": {
        **_CIFAR10,
        "model": "airbench94",
        "epochs": 10,
        "scales": ((0.75, 0.5),),
        "crop": 2,
        # Smaller batches are faster on two cores; 0.75 times the rate of kernels for 500, half that of shifts and head.
        "batch_size": 250,
        "lr": 0.045,
        "momentum": 0.92,
        "bias_rate": 311.0,
        "head_rate": 5.0,
    },
    # The exercise of courses: ResNet-9, https://myrtle.ai/learn/how-to-train-your-resnet/, with its rate that rises up
    # to epoch 5 and falls linearly, cutout, and its weight decay of 5e-4, which a momentum of 0.9 makes ten times that.
    "cifar10-classic": {
        "model": "resnet9",
        "image_size": (32, 32),
        "width": 1.0,
        "epochs": 24,
        "batch_size": 512,
        "optimizer": "nesterov",
        "lr": 0.4,
        "momentum": 0.9,
        "weight_decay": 5e-3,
        "warmup": 5 / 24,
        "curve": "linear",
        "flip": True,
        "crop": 4,
        "cutout": 8,
        "label_smoothing": 0.0,
        "patience": 0,
    },
    # For a night: a wider and deeper network, longer, with more augmentation.
    "cifar10-best": {
        **_CIFAR10,
        "model": "airbench96",
        "epochs": 40,
        "scales": ((0.75, 0.4),),
        "hardest": 0.7,
        "hardest_from": 0.3,
        "crop": 4,
        "cutout": 12,
        # A longer training takes a higher rate of kernels; those of shifts and head stay.
        "lr": 0.12,
        "bias_rate": 220.0,
        "head_rate": 3.5,
    },
    "digits": {
        "model": "resnet9",
        "image_size": (16, 16),
        "epochs": 20,
        "flip": False,
        "crop": 0,
        "rotation": 10.0,
        "zoom": 0.1,
        "shear": 5.0,
        "translation": 0.06,
        "patience": 8,
    },
}
