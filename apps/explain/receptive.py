"""Which part of a picture a unit sees."""

from typing import NamedTuple

import keras
import numpy as np

from apps.explain.network import Network
from kerascnn.layer_table import output_views


class Box(NamedTuple):
    """Pixels from `top` to `bottom` and `left` to `right`, both ends counted; beyond the picture lies its padding."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        """In pixels."""
        return self.bottom - self.top + 1

    @property
    def width(self) -> int:
        """In pixels."""
        return self.right - self.left + 1

    def inside(self, size: tuple[int, int]) -> "Box":
        """The part that lies in a picture of (height, width).

        >>> Box(-3, 4, 2, 9).inside((8, 8))
        Box(top=0, bottom=4, left=2, right=7)
        """
        return Box(max(self.top, 0), min(self.bottom, size[0] - 1), max(self.left, 0), min(self.right, size[1] - 1))


def receptive_box(network: Network, name: str) -> Box | None:
    """What the middle unit of a layer's maps sees, exactly; None where it is the whole picture.

    Units see all of a picture of any size after a global pooling, a dense layer or a gate that is made of one.

    Raises:
        ValueError: There is no such layer.

    Source: https://distill.pub/2019/computing-receptive-fields
    """
    tensor = network.layer(name)
    (view,) = output_views(keras.Model(network.model.input, tensor))
    if view is None or view.whole:
        return None
    row, column = (length // 2 for length in tensor.shape[1:3])
    return Box(view.down.first(row), view.down.last(row), view.across.first(column), view.across.last(column))


def framed(picture: np.ndarray, box: Box | None, colour: tuple[int, int, int] = (217, 119, 43)) -> np.ndarray:
    """The picture, uint8 [height, width, 3], faded outside of the box; what the unit sees is as it was, framed.

    Args:
        picture: uint8 [height, width, 1 or 3].
        box: None for all of the picture.
        colour: Of the frame.
    """
    whole = np.broadcast_to(picture, (*picture.shape[:2], 3))
    scale = -(-192 // min(picture.shape[:2]))  # so that the frame is thin
    large = whole.repeat(scale, axis=0).repeat(scale, axis=1)
    faded = np.round(0.35 * large + 0.65 * 128).astype("uint8")
    top, bottom, left, right = (box or Box(0, picture.shape[0] - 1, 0, picture.shape[1] - 1)).inside(picture.shape[:2])
    if top > bottom or left > right:  # all padding
        return faded
    seen = (slice(scale * top, scale * (bottom + 1)), slice(scale * left, scale * (right + 1)))
    inner = (slice(seen[0].start + 2, seen[0].stop - 2), slice(seen[1].start + 2, seen[1].stop - 2))
    faded[seen] = colour
    faded[inner] = large[inner]
    return faded
