"""What computes a loaded version: the one thing that TensorFlow and OpenVINO have in common here."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np


class Runner(Protocol):
    """A loaded version that can be called from several threads at once.

    `run` gives the outputs of a signature by name, as NumPy arrays; what goes wrong is a `Refusal`: the client's data
    INVALID_ARGUMENT, no memory left RESOURCE_EXHAUSTED, everything else INTERNAL.
    """

    name: str

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute a signature; blocks, so it belongs into a thread."""
        ...

    def close(self) -> None:
        """Give memory back; nothing is run afterwards."""
        ...
