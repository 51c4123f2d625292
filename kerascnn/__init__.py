"""Networks: Keras functional builders, found by name.

>>> import kerascnn
>>> model = kerascnn.build("resnet9", (32, 32, 3), {"colour": 3, "shape": 5})
>>> {head: logits.shape for head, logits in model.output.items()}
{'colour': (None, 3), 'shape': (None, 5)}
"""

from typing import Any

from kerascnn import (  # noqa: F401  (importing a family of classifiers registers its networks)
    airbench,
    alexnet,
    arithmetic,
    convnext,
    decoders,
    densenet,
    efficientnet,
    googlenet,
    inception_v3,
    lenet,
    mobilenet,
    preact_resnet,
    resnet,
    resnet9,
    resnet_cifar,
    vgg,
    xception,
)
from kerascnn.auxiliary import auxiliary_weights, without_auxiliary
from kerascnn.fold import fold_batch_norm
from kerascnn.fully_convolutional import fully_convolutional
from kerascnn.imagenet import load_imagenet
from kerascnn.multi_task import soft_sharing, uncertainty_weighted
from kerascnn.registry import build, describe, list_models
from kerascnn.transfer_learning import freeze, layer_groups, transfer, unfreeze
from kerascnn.whitening import fit_whitening

__all__ = [
    "arithmetic",
    "auxiliary_weights",
    "build",
    "decoders",
    "describe",
    "fit_whitening",
    "fold_batch_norm",
    "freeze",
    "fully_convolutional",
    "layer_groups",
    "list_models",
    "load_imagenet",
    "soft_sharing",
    "transfer",
    "uncertainty_weighted",
    "unfreeze",
    "without_auxiliary",
]


def __getattr__(name: str) -> Any:
    """`Classifier` and `export_model`, which need TensorFlow: imported when they are asked for, not before."""
    if name not in ("Classifier", "export_model"):
        raise AttributeError(f"module 'kerascnn' has no attribute {name!r}")
    from kerascnn import export

    return getattr(export, name)
