"""How findings are drawn: heat over a picture, maps side by side; and in words where in a picture something lies."""

from collections.abc import Sequence

import numpy as np

from apps.explain.maps import as_grey
from apps.pages.figures import tiles

SHARE = 0.75  # of the heat where it is strongest, over a picture
WARM, COLD = (222, 60, 40), (60, 110, 230)
CELL = 32  # pixels that a map is enlarged to, about


def heated(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A picture in dim grey under a map: uint8 [height, width, 3].

    Args:
        picture: uint8 [height, width, 1 or 3].
        heat: [height, width] in [-1, 1]: red above zero, blue below, the picture alone at zero.
    """
    grey = 0.55 * picture.mean(axis=-1, keepdims=True).repeat(3, axis=-1) + 0.2 * 255
    share = SHARE * np.abs(heat)[..., None]
    colour = np.where(heat[..., None] >= 0, WARM, COLD)
    return np.round((1 - share) * grey + share * colour).clip(0, 255).astype("uint8")


def evened(heat: np.ndarray) -> np.ndarray:
    """A map divided by its largest absolute value; zeros stay."""
    largest = float(np.abs(heat).max())
    return heat / largest if largest > 0 else heat


def side_by_side(maps: np.ndarray, channels: Sequence[int], columns: int = 4) -> np.ndarray:
    """Some channels of maps [height, width, C], each in its own range of greys: uint8 [height, width, 3]."""
    scale = max(1, CELL // max(maps.shape[:2]))
    return tiles([as_grey(maps[..., channel]) for channel in channels], columns, gap=2, scale=scale)


def whereabouts(heat: np.ndarray) -> str:
    """Where the positive part of a map [height, width] has its middle, in words.

    >>> heat = np.zeros((9, 9))
    >>> heat[1, 8] = 1
    >>> whereabouts(heat), whereabouts(np.ones((9, 9))), whereabouts(-heat)
    ('at the upper right', 'in the middle', 'nowhere')
    """
    weight = np.maximum(heat, 0.0)
    if not weight.any():
        return "nowhere"
    rows, columns = np.indices(weight.shape)
    down, across = ((weight * place).sum() / weight.sum() for place in (rows, columns))
    height, width = weight.shape
    vertical = ("upper", "", "lower")[int(min(2, 3 * (down + 0.5) // height))]
    horizontal = ("left", "", "right")[int(min(2, 3 * (across + 0.5) // width))]
    words = " ".join(word for word in (vertical, horizontal) if word)
    return f"at the {words}" if words else "in the middle"
