"""The real handwritten digits inside scikit-learn, as the examples use them."""

import numpy as np
from PIL import Image

HELD_OUT = 297  # the last ones, by writers of whom the networks see little


def load_digits(size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """1,500 pictures to train on and 297 held out: float32 pixels in [0, 255], (count, size, size, 1).

    They are 8x8; other sizes are bicubic enlargements.

    >>> [pictures.shape for pictures in load_digits(16)]
    [(1500, 16, 16, 1), (297, 16, 16, 1)]
    """
    from sklearn import datasets

    pictures = datasets.load_digits().images.astype("float32") * (255 / 16)
    pictures = resize(pictures[..., None], size)
    return pictures[:-HELD_OUT], pictures[-HELD_OUT:]


def resize(pictures: np.ndarray, size: int) -> np.ndarray:
    """Square grey pictures, (count, side, side, 1), at another size: bicubic, limited to [0, 255]."""
    if size == pictures.shape[1]:
        return pictures
    rows = [
        np.asarray(Image.fromarray(picture[..., 0]).resize((size, size), Image.Resampling.BICUBIC))
        for picture in pictures
    ]
    return np.clip(np.stack(rows)[..., None], 0, 255)


def halve(pictures: np.ndarray) -> np.ndarray:
    """Half as high and wide: means of 2x2 pixels."""
    count, height, width, channels = pictures.shape
    return pictures.reshape(count, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def root_mean_square(difference: np.ndarray) -> float:
    """The usual size of a difference, in pixel units.

    >>> root_mean_square(np.array([3.0, -3.0]))
    3.0
    """
    return float(np.sqrt(np.mean(np.square(difference, dtype="float64"))))


def psnr(difference: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of pixels in [0, 255]: 20 log10(255 / root mean square).

    >>> round(psnr(np.array([25.5, -25.5])), 6)
    20.0
    """
    return float(20 * np.log10(255 / root_mean_square(difference)))
