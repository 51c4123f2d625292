"""Networks: Keras functional builders, found by name.

>>> import kerascnn
>>> model = kerascnn.build("resnet9", (32, 32, 3), {"colour": 3, "shape": 5})
>>> {head: logits.shape for head, logits in model.output.items()}
{'colour': (None, 3), 'shape': (None, 5)}
"""

from kerascnn import resnet, resnet9  # noqa: F401  (importing a family registers its networks)
from kerascnn.registry import build, describe, list_models

__all__ = ["build", "describe", "list_models"]
