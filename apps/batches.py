"""The batches that a recipe's network is trained and watched on, or one host's share of them."""

from typing import Any

import numpy as np

from apps.augmentation import augmentation
from apps.data import Data
from apps.devices import ONE, Devices
from apps.recipe import Recipe
from pipelines import make_eval, make_train
from pipelines.stream import Streamed


def training_batches(
    recipe: Recipe,
    data: Data,
    index: np.ndarray,
    first_epoch: int = 0,
    size: tuple[int, int] | None = None,
    only: np.ndarray | None = None,
    first_step: int = 0,
    devices: Devices = ONE,
) -> Any:
    """The recipe's endless batches of the pictures of `index`, or `only` of some of these, shrunk to `size`.

    Of several hosts each makes its share. Shards that are read from disk are divided among them, where an epoch has
    all pictures alike.
    """
    pictures, share = data.pictures, devices.share
    in_shards = isinstance(pictures, Streamed) and bool(pictures.encoded.starts.any())
    alike = only is None and recipe.balance != "sampling"
    return make_train(
        pictures,
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
        share=share,
        own_shards=in_shards and alike and devices.hosts.of > 1,
        service=devices.decoder if isinstance(pictures, Streamed) else None,
    )


def held_out_batches(held_out: Data, devices: Devices = ONE) -> Any:
    """The pictures that a training is watched on, in batches that all devices get an equal part of."""
    share, batch_size = devices.share, devices.evaluated
    return make_eval(held_out.pictures, held_out.labels, held_out.num_classes, batch_size=batch_size, share=share)
