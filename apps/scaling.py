"""What several devices do to the batch and the learning rate of a recipe."""

from dataclasses import replace

import keras

from apps.data import Data
from apps.devices import Devices
from apps.recipe import Recipe
from apps.resolve import suitable_rates
from pipelines.stream import Streamed

SCALINGS = ("keep", "suit", "linear", "root")
BATCH_NORMS = ("global", "device")


def check_scaling(scaling: str, batch_norm: str) -> None:
    """A `ValueError` where there is no such rule."""
    for name, value, known in (("scaling", scaling, SCALINGS), ("batch-norm", batch_norm, BATCH_NORMS)):
        if value not in known:
            raise ValueError(f"`--{name}` must be one of {', '.join(known)}. Received: {value}.")


def scale(recipe: Recipe, scaling: str, devices: Devices, most: int) -> Recipe:
    """The recipe with its batch on every device, and a rate that follows.

    Args:
        recipe: For one device.
        scaling: "keep" leaves the batch as it is, of which every device gets a part. The others give every device the
            whole batch: "linear" multiplies the rate by what the batch grows by (https://arxiv.org/abs/1706.02677),
            "root" by the root of this (https://arxiv.org/abs/1404.5997), and "suit" as the optimiser's rates are known
            to follow the batch (`resolve.suitable_rates`).
        devices: Of all hosts.
        most: Pictures that a batch may have.
    """
    if scaling == "keep" or devices.count == 1:
        return recipe
    batch_size = min(recipe.batch_size * devices.count, most)
    growth = batch_size / recipe.batch_size
    if scaling != "suit":
        return replace(recipe, batch_size=batch_size, lr=recipe.lr * (growth if scaling == "linear" else growth**0.5))
    before, after = (suitable_rates(recipe.optimizer, recipe.epochs, size) for size in (recipe.batch_size, batch_size))
    rates = {
        name: getattr(recipe, name) * after[name] / before[name]
        for name in ("lr", "bias_rate", "head_rate")
        if name in after
    }
    return replace(recipe, batch_size=batch_size, **rates)


def divide(recipe: Recipe, devices: Devices, may_change: bool = True) -> Recipe:
    """The recipe with a batch that the devices can share equally, a little smaller where it `may_change`.

    Raises:
        ValueError: It must not, or it has no picture for every device; or BatchNorm's parts do not fit the devices.
    """
    count, batch_size = devices.count, recipe.batch_size
    if batch_size % count and (batch_size < count or not may_change):
        nearest = max(1, round(batch_size / count)) * count
        raise ValueError(
            f"`batch_size` must be a multiple of the {count} devices, such as {nearest}. Received: {batch_size}."
        )
    batch_size -= batch_size % count
    if (parts := recipe.norm_parts or 1) > 1 and (batch_size % parts or parts % count):
        raise ValueError(
            f"`norm_parts` must divide the batch of {batch_size}, and be 1 or a multiple of the {count} devices. "
            f"Received: {parts}."
        )
    return replace(recipe, batch_size=batch_size)


def check_decoder(data: Data, decoder: str | None) -> None:
    """A `ValueError` where there is nothing for a decoder to do."""
    if decoder is not None and not isinstance(data.pictures, Streamed):
        raise ValueError(
            "`--decoder` decodes what is read from disk in every epoch, and these pictures are decoded and in memory. "
            "Leave it out, or keep them on disk by `--memory 0`."
        )


def check_several(recipe: Recipe, devices: Devices, paced: bool) -> None:
    """A `ValueError` for what cannot be trained on several devices or hosts.

    Args:
        recipe: Resolved.
        devices: Of all hosts.
        paced: Whether the clock decides how long the training is.
    """
    mirrored = devices.count > 1 and keras.backend.backend() == "tensorflow"
    for wrong, what, several, instead in (
        (mirrored and recipe.hardest < 1, "hardest", "devices of TensorFlow", "set KERAS_BACKEND=jax, or `hardest=1`"),
        (
            mirrored and recipe.average == "swa",
            "average=swa",
            "devices of TensorFlow",
            "set KERAS_BACKEND=jax, or take `ema`",
        ),
        (devices.hosts.of > 1 and paced, "--minutes", "hosts", "each has a clock of its own. Give `--epochs`"),
    ):
        if wrong:
            raise ValueError(f"`{what}` does not go with several {several}: {instead}.")
