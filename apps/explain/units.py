"""How alike and how sparse the hidden units of every layer are."""

from typing import Any

import numpy as np

from apps.explain.network import Network
from callbacks.probe import output_statistics

COLUMNS = ("std", "zeros", "dead", "correlation", "sparsity")
MOST_PICTURES = 128


def hidden_units(network: Network, pixels: np.ndarray) -> list[dict[str, Any]]:
    """A row for every hidden layer with weights or an activation: its "name", and `COLUMNS` (`callbacks.Monitor`).

    "correlation" is the mean absolute one between different units of a layer: 0 for units that each say something else,
    1 for copies of one. "sparsity" is 1 where a unit answers to one example or place only, 0 where to all alike. NaN
    where it cannot be said.

    Args:
        network: Of `open_network`.
        pixels: uint8 [N, height, width, channels]; of many, 128 evenly spaced ones are used.
    """
    some = pixels[:: -(-len(pixels) // MOST_PICTURES)].astype("float32")
    found = output_statistics(network.model, some)
    return [
        {"name": name, **{column: numbers[column] for column in COLUMNS}}
        for name, numbers in found.items()
        if name in network.hidden
    ]
