"""A recipe for a data set: what was chosen, and what suits the data for everything else."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import keras

from apps.phases import scaled
from apps.recipe import Recipe, check_choices
from apps.recipes import AIRBENCH, Choices
from pipelines.pictures import choose_size

# Pictures of up to so many pixels are small, others photographs. Small ones keep their resolution through the first
# layers; to this, airbench networks reduce photographs.
SMALL = 64
SMALLEST = 16  # for a side of fewer, `resnet9`, which takes 8 pixels; airbench networks need 9


def resolve(
    choices: Choices,
    pictures: int,
    size: tuple[int, int],
    classes: Sequence[Sequence[str]],
    own_validation: bool = False,
) -> Recipe:
    """The recipe for a data set: what was chosen, and what suits the data for everything else.

    Args:
        choices: Fields that are settled.
        pictures: How many there are to train on.
        size: (height, width) that suits the pictures.
        classes: Class names of every head.
        own_validation: Whether the data bring a val/ folder.
    """
    from kerascnn.registry import lookup

    choices = check_choices(choices)
    photographs = max(size) > SMALL  # and not small pictures, which are cut to the thing already
    from_scratch = choices.get("transfer", "none") == "none"
    tiny = min(choices.get("image_size", size)) < SMALLEST
    model = choices.get("model", ("resnet9" if tiny else "airbench94") if from_scratch else "mobilenet_v2")
    airbench = from_scratch and model.startswith("airbench")
    if airbench:  # which reduces late: filters are worth more than pixels that take the same time
        size = choose_size([size], longest=SMALL, smallest=SMALLEST)
    size = choices.get("image_size", size)
    small = max(size) <= SMALL
    batch_size = min(choices.get("batch_size", suitable_batch_size(pictures)), pictures)
    special = dict(AIRBENCH) if airbench else {}
    if airbench and choices.get("norm") not in (None, "batch"):
        special["frozen_scale"] = 0.0
    # About 200,000 pictures seen, which two CPU cores compute in some ten minutes.
    epochs = choices.get("epochs", min(60, max(8, 200_000 // max(pictures, 1))))
    optimizer = choices.get("optimizer", special.get("optimizer", "nesterov"))
    rates = suitable_rates(optimizer, epochs, batch_size, choices.get("lr"))
    suitable = {
        "model": model,
        # Half the width is four times as fast as the full one, for one or two points of accuracy. A picture of the
        # airbench networks costs at most what one of 32x32 pixels does at full width.
        "width": min(1.0, round(32 / math.sqrt(math.prod(size)), 2)) if airbench else 0.5 if from_scratch else 1.0,
        "image_size": size,
        "epochs": epochs,
        "batch_size": batch_size,
        **special,
        **rates,
        # What has learned already must not be shaken.
        "lr": rates["lr"] * (1.0 if from_scratch else 0.1),
        # Mirrored digits and letters are other signs or none.
        "flip": not all(len(name) == 1 for names in classes for name in names),
        "views": min(max(1, max(size) // 32), min(size) - 1),
        "crop": min(max(size) // 16, min(size) - 1),
        # Photographs show things at all distances.
        "cutout": min(max(size) // 4, *size) if photographs else 0,
        "rotation": 10.0 if photographs else 0.0,
        "zoom": 0.25 if photographs else 0.0,
        "translation": 0.1 if photographs else 0.0,
        "precision": fastest_precision(),
        "val": None if own_validation else 0.1,
        # Every cycle is trained to its end.
        **({"patience": 0} if choices.get("snapshots", 1) > 1 else {}),
        # Published weights need the strides that they were trained with.
        "stem": "small" if small and from_scratch and "stem" in lookup(model).own_options else None,
    }
    recipe = Recipe(**{**suitable, **choices, "batch_size": batch_size})
    check_choices(asdict(recipe))
    _check_together(recipe)
    return recipe


def _check_together(recipe: Recipe) -> None:
    """A `ValueError` where fields that are right alone do not fit each other."""
    size, batch_size = recipe.image_size, recipe.batch_size
    for name, most in (("crop", min(size) - 1), ("views", min(size) - 1), ("cutout", 2 * min(size) - 1)):
        if (value := getattr(recipe, name)) > most:
            raise ValueError(f"`{name}` must be at most {most} for pictures of {size[0]}x{size[1]}. Received: {value}.")
    for scale, _ in recipe.scales:
        height, width = scaled(size, scale)
        if min(height, width) < 8:
            raise ValueError(
                f"`scales` must leave at least 8 pixels of {size[0]}x{size[1]}. "
                f"Received: {scale:g}, which is {height}x{width}."
            )
    if recipe.hardest < 1 and recipe.balance == "sampling":
        raise ValueError("`hardest` and `balance=sampling` both choose pictures. Leave one of them out.")
    if recipe.head_weights and recipe.head_loss == "uncertainty":
        raise ValueError("`head_weights` fixes what `head_loss=uncertainty` learns. Leave one of them out.")
    if recipe.optimizer == "muon_sgd" and not recipe.momentum:
        raise ValueError("`momentum` must be positive with `optimizer=muon_sgd`. Received: momentum=0.")
    if recipe.transfer != "none":
        # Scales and kernels would not stay those that were published.
        for name, unused in (
            ("optimizer", ("nesterov", "adamw")),
            ("frozen_scale", (None, 0)),
            ("whitening", (None, 0)),
        ):
            if (value := getattr(recipe, name)) not in unused:
                raise ValueError(f"`{name}={value}` does not go with published weights (`transfer`). Leave one out.")
    if (recipe.mixup or recipe.cutmix) and batch_size < 2:
        raise ValueError("`mixup` and `cutmix` mix pictures of one batch: `batch_size` must be at least 2.")
    if recipe.seed + recipe.seeds > 2**31:
        raise ValueError(f"`seed` + `seeds` must be at most {2**31}. Received: {recipe.seed} + {recipe.seeds}.")
    if recipe.snapshots > 1:
        _check_cycles(recipe)


def _check_cycles(recipe: Recipe) -> None:
    """A `ValueError` where the cycles of `snapshots` cannot be."""
    if recipe.snapshots > recipe.epochs:
        raise ValueError(
            "`snapshots` must be at most `epochs`, since a cycle takes one or more. "
            f"Received: snapshots={recipe.snapshots}, epochs={recipe.epochs}."
        )
    for name, needed, why in (
        ("scales", (), "the first snapshots would know small pictures only: leave `scales` empty (`--set scales=[]`)"),
        ("hardest", 1.0, "epochs of different length make no equal cycles: leave `hardest` at 1"),
        ("patience", 0, "the rate rises again after every cycle, so that epochs get worse first: use `patience=0`"),
        ("average", "none", "an average would reach over several cycles: leave `average` at none"),
    ):
        if (value := getattr(recipe, name)) != needed:
            raise ValueError(f"`{name}` does not go with `snapshots`: {why}. Received: {name}={value}.")


def refuse_published(transfers: Iterable[str]) -> None:
    """A `ValueError` where a `transfer` would begin with published weights, which a competition forbids by default."""
    for transfer in transfers:
        if transfer != "none":
            raise ValueError(
                "A competition is from scratch unless you say that its rules allow published weights. "
                f"Received: transfer={transfer}. Add `--no-from-scratch` if they do."
            )


def suitable_rates(optimizer: str, epochs: int, batch_size: int, lr: float | None = None) -> dict[str, float]:
    """Rates and weight decay that suit an optimiser, by name of the field; with the rate `lr` where one was chosen.

    The rates of Nesterov's momentum grow with the batch (https://arxiv.org/abs/1706.02677), AdamW's with its root
    (https://arxiv.org/abs/2205.10287). The kernels of muon_sgd turn by the rate in every step whatever the batch; the
    longer a training, the more this regularises: for 9 epochs of CIFAR-10 0.06 was better than 0.1, for 48 epochs of
    2,000 photographs 0.2 was better than 0.08, and that than 0.03. Its rates of shifts and head, found for batches of
    500 and 32, grow with the root of the batch, and do not depend on the rate of the kernels.
    """
    batches = batch_size / 256
    if optimizer == "nesterov":
        return {"lr": 0.6 * batches}
    if optimizer == "adamw":
        return {"lr": 2e-3 * math.sqrt(batches), "weight_decay": 0.05}
    rate = lr or 0.02 * math.sqrt(epochs)
    shifts, head = 19 * math.sqrt(batches), 0.45 * math.sqrt(batches)
    return {"lr": rate, "bias_rate": shifts / rate, "head_rate": head / rate, "weight_decay": 2.4e-3}


def fastest_precision() -> str:
    """bfloat16 on a GPU of JAX, and where TensorFlow computes with it on a processor (AVX512_BF16 or AMX)."""
    if keras.backend.backend() == "jax":  # which on processors gains nothing by bfloat16
        return "bfloat16" if keras.distribution.list_devices()[0].startswith("gpu") else "float32"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "float32"
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def suitable_batch_size(pictures: int) -> int:
    """The power of two from 16 to 256 that gives an epoch at least 40 steps, as far as there is one.

    >>> suitable_batch_size(45_000), suitable_batch_size(4_000), suitable_batch_size(100)
    (256, 64, 16)
    """
    size = 256
    while size > 16 and size * 40 > pictures:
        size //= 2
    return size
