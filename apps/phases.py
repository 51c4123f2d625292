"""The phases of a training: which epochs see pictures of which size, and how many of them."""

from dataclasses import dataclass, replace

from apps.recipe import Recipe


@dataclass(frozen=True)
class Phase:
    """Epochs that are trained alike.

    Attributes:
        epochs: (first, end), counted from 0.
        size: (height, width) of the pictures; None for the recipe's.
        share: Of the pictures, the hardest, that an epoch consists of.
        first_step: Of the only epoch, of which an interrupted training has done the steps before.
    """

    epochs: tuple[int, int]
    size: tuple[int, int] | None = None
    share: float = 1.0
    first_step: int = 0


def phases(recipe: Recipe, first_epoch: int = 0, first_step: int = 0, more: int = 0) -> list[Phase]:
    """What is left of the training from a step of an epoch on; the last epoch always has the recipe's own size.

    Where a recipe chooses the hardest pictures, every epoch is a phase: they are chosen anew. `more` epochs like the
    last one follow.
    """
    sizes: list[tuple[int, tuple[int, int] | None]] = []  # (end, size)
    shares = 0.0
    for scale, share in recipe.scales:
        shares += share
        small = scaled(recipe.image_size, scale)
        end = min(round(shares * recipe.epochs), recipe.epochs - 1)
        sizes.append((end, small if small != recipe.image_size else None))
    sizes.append((recipe.epochs, None))
    chosen_from = max(1, round(recipe.hardest_from * recipe.epochs))  # to know what is hard, all have to be seen once
    found, begin = [], 0
    for end, size in sizes:
        for cut in range(begin + 1, end + 1) if recipe.hardest < 1 else [end]:
            if cut > begin:
                found.append(Phase((begin, cut), size, recipe.hardest if begin >= chosen_from else 1.0))
                begin = cut
    if recipe.hardest < 1:
        found += [replace(found[-1], epochs=(end + number, end + number + 1)) for number in range(more)]
    else:
        found[-1] = replace(found[-1], epochs=(found[-1].epochs[0], end + more))
    left = [phase for phase in found if phase.epochs[1] > first_epoch]
    left = [replace(phase, epochs=(max(phase.epochs[0], first_epoch), phase.epochs[1])) for phase in left]
    if left and first_step:
        begun, end = left[0], left[0].epochs[1]
        rest = [replace(begun, epochs=(first_epoch + 1, end))] if first_epoch + 1 < end else []
        left = [replace(begun, epochs=(first_epoch, first_epoch + 1), first_step=first_step), *rest, *left[1:]]
    return left


def scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) times a scale, in whole pixels."""
    return round(size[0] * scale), round(size[1] * scale)


def steps_of(recipe: Recipe, phase: Phase, pictures: int) -> int:
    """Steps of an epoch, at least one."""
    return max(1, round(phase.share * pictures) // recipe.batch_size)
