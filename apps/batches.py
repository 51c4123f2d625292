"""The batches of a recipe."""

from typing import Any

import numpy as np

from apps.augmentation import augmentation
from apps.data import Data
from apps.recipe import Recipe
from pipelines import make_train


def training_batches(
    recipe: Recipe,
    data: Data,
    index: np.ndarray,
    first_epoch: int = 0,
    size: tuple[int, int] | None = None,
    only: np.ndarray | None = None,
    first_step: int = 0,
) -> Any:
    """The recipe's endless batches of the pictures of `index`, or `only` of some of these, shrunk to `size`."""
    return make_train(
        data.pictures,
        data.labels,
        data.num_classes,
        index=index,
        batch_size=recipe.batch_size,
        augmentation=augmentation(recipe, data.statistics[0], size),
        label_smoothing=recipe.label_smoothing,
        smoothing=recipe.smoothing,
        balance=recipe.balance,
        seed=recipe.seed,
        first_epoch=first_epoch,
        first_step=first_step,
        only=only,
    )
