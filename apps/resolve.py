"""A recipe for a data set: what was chosen, and what suits the data for everything else."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from apps.phases import scaled
from apps.recipe import Recipe, check_choices
from apps.recipes import Choices

# What suits each optimiser, the rate for batches of 256. Those of muon_sgd are of cifar10-fast.
RATES: dict[str, dict[str, float]] = {
    "nesterov": {"lr": 0.6},
    "muon_sgd": {"lr": 0.03, "bias_rate": 440.0, "head_rate": 7.0},
    "adamw": {"lr": 2e-3, "weight_decay": 0.05},
}

SMALL = 64  # pictures up to this many pixels keep their resolution through the first layers


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

    size = choices.get("image_size", size)
    small = max(size) <= SMALL
    from_scratch = choices.get("transfer", "none") == "none"
    model = choices.get("model", ("resnet9" if small else "resnet18") if from_scratch else "mobilenet_v2")
    batch_size = min(choices.get("batch_size", suitable_batch_size(pictures)), pictures)
    rates = RATES[check_choices(choices).get("optimizer", "nesterov")]
    suitable = {
        "model": model,
        # On two cores half the width is four times as fast as the full one, for one or two points of accuracy.
        "width": 0.5 if from_scratch else 1.0,
        "image_size": size,
        # About 400,000 pictures seen, which two CPU cores compute in some ten minutes.
        "epochs": min(60, max(8, 400_000 // max(pictures, 1))),
        "batch_size": batch_size,
        **rates,
        # What has learned already must not be shaken.
        "lr": rates["lr"] * (1.0 if from_scratch else 0.1) * batch_size / 256,
        # Mirrored digits and letters are other signs or none.
        "flip": not all(len(name) == 1 for names in classes for name in names),
        "crop": max(size) // 16,
        # Larger pictures are photographs of things at all distances; small ones are cut to the thing already.
        "cutout": 0 if small else max(size) // 4,
        "rotation": 0.0 if small else 10.0,
        "zoom": 0.0 if small else 0.25,
        "translation": 0.0 if small else 0.1,
        "precision": fastest_precision(),
        "val": None if own_validation else 0.1,
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


def fastest_precision() -> str:
    """bfloat16 where the processor computes with it (AVX512_BF16 or AMX), float32 elsewhere."""
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
