"""Networks: Keras functional builders, found by name.

>>> import kerascnn
>>> model = kerascnn.build("resnet9", (32, 32, 3), {"colour": 3, "shape": 5})
>>> {head: logits.shape for head, logits in model.output.items()}
{'colour': (None, 3), 'shape': (None, 5)}
"""

from kerascnn import (  # noqa: F401  (importing a family registers its networks)
    alexnet,
    convnext,
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
from kerascnn.registry import build, describe, list_models

__all__ = ["build", "describe", "list_models"]
