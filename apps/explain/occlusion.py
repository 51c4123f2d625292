"""Occlusion sensitivity: which part of a picture an answer needs."""

from collections.abc import Mapping

import numpy as np

from apps.explain.network import Network


def occlusion_maps(
    network: Network,
    picture: np.ndarray,
    chosen: Mapping[str, int],
    colour: np.ndarray | float | None = None,
    side: int | None = None,
) -> dict[str, np.ndarray]:
    """How much the probability of a class falls when a square covers a place: float64 [height, width] by head.

    The square moves by half its side. A pixel has the mean over all squares that cover it; where the probability rises
    instead, the value is negative.

    Args:
        network: Of `open_network`.
        picture: uint8 [height, width, channels].
        chosen: The class number by head.
        colour: Of the square; the picture's mean where None.
        side: Of the square in pixels; a quarter of the shorter side of the picture where None.

    Raises:
        ValueError: The square is larger than the picture.

    Source: Visualizing and Understanding Convolutional Networks, https://arxiv.org/abs/1311.2901, section 4.2
    """
    height, width = picture.shape[:2]
    side = max(1, min(height, width) // 4) if side is None else side
    if not 1 <= side <= min(height, width):
        raise ValueError(f"`side` must be from 1 to {min(height, width)} pixels. Received: {side}.")
    colour = picture.mean(axis=(0, 1)) if colour is None else colour
    squares = [
        (slice(top, top + side), slice(left, left + side))
        for top in _starts(height, side)
        for left in _starts(width, side)
    ]
    pictures = np.repeat(picture[None].astype("float32"), len(squares) + 1, axis=0)  # the last one is whole
    for covered, square in zip(pictures, squares, strict=False):
        covered[square] = np.round(colour)
    probabilities = network.probabilities(pictures)
    falls = {
        head: probabilities[head][-1, number] - probabilities[head][:-1, number] for head, number in chosen.items()
    }
    return {head: _mean_over_squares(values, squares, (height, width)) for head, values in falls.items()}


def _starts(length: int, side: int) -> list[int]:
    """Where the squares begin: at both ends, and at most half a side apart."""
    steps = -(-(length - side) // max(1, side // 2))
    return np.unique(np.linspace(0, length - side, steps + 1).round().astype(int)).tolist()


def _mean_over_squares(values: np.ndarray, squares: list[tuple[slice, slice]], size: tuple[int, int]) -> np.ndarray:
    total, count = np.zeros(size), np.zeros(size)
    for value, square in zip(values, squares, strict=True):
        total[square] += value
        count[square] += 1
    return total / count
