"""Every augmentation by its name: `augment.random_crop(4)`. What they are made of is in the files they come from.

A list of them is a pipeline: `make_train(..., augmentation=[augment.random_crop(4), augment.horizontal_flip()])`.
Keras layers, KerasCV layers, Albumentations transforms and functions may stand in the same list (`adapters.py`).
"""

from pipelines.adapters import adapt
from pipelines.colour import brightness, contrast, gaussian_noise, grayscale, hue, saturation
from pipelines.erase import cutout, random_erasing
from pipelines.fill import FILL_MODES
from pipelines.geometry import (
    affine,
    alternating_flip,
    horizontal_flip,
    random_crop,
    random_resized_crop,
    shrink,
    vertical_flip,
)
from pipelines.mix import Mix, cutmix, mix_of, mixup
from pipelines.operation import Operation, one_of, with_probability
from pipelines.randaugment import randaugment

__all__ = [
    "FILL_MODES",
    "Mix",
    "Operation",
    "adapt",
    "affine",
    "alternating_flip",
    "brightness",
    "contrast",
    "cutmix",
    "cutout",
    "gaussian_noise",
    "grayscale",
    "horizontal_flip",
    "hue",
    "mix_of",
    "mixup",
    "one_of",
    "randaugment",
    "random_crop",
    "random_erasing",
    "random_resized_crop",
    "saturation",
    "shrink",
    "vertical_flip",
    "with_probability",
]
