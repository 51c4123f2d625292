"""What a recipe does to training pictures, and in which order."""

from collections.abc import Sequence

from apps.recipe import Recipe
from pipelines import augment


def augmentation(
    recipe: Recipe, mean: Sequence[float] = (0, 0, 0), size: tuple[int, int] | None = None
) -> list[augment.Operation | augment.Mix]:
    """The random operations of a recipe, in the order in which they act.

    Args:
        recipe: Resolved.
        mean: The data's mean colour, which fills the holes of cutout: zero once the network has normalised it.
        size: (height, width) that the finished pictures are shrunk to; None leaves them as they are.
    """
    steps: list[augment.Operation | augment.Mix] = []

    # 1. What chooses the part of the picture that is seen: first, while every pixel is an original one, and so that
    #    nothing is computed for what is cut away.
    if recipe.resized_crop:
        steps.append(augment.random_resized_crop(recipe.image_size, (recipe.resized_crop, 1.0)))
    if recipe.crop:
        steps.append(augment.random_crop(recipe.crop, recipe.fill))
    # 2. What moves pixels, all in one interpolation; mirroring costs nothing and may come anywhere here.
    if recipe.rotation or recipe.zoom or recipe.shear or recipe.translation:
        steps.append(augment.affine(recipe.rotation, recipe.zoom, recipe.shear, recipe.translation, recipe.fill))
    if recipe.flip:
        steps.append(augment.alternating_flip() if recipe.flips == "alternating" else augment.horizontal_flip())
    if recipe.vertical_flip:
        steps.append(augment.vertical_flip())
    # 3. What changes values: after the geometry, so that filled-in pixels change like their neighbours.
    if recipe.randaugment:
        steps.append(augment.randaugment(recipe.randaugment, recipe.magnitude, recipe.fill))
    for name in ("brightness", "contrast", "saturation", "hue"):
        if amount := getattr(recipe, name):
            steps.append(getattr(augment, name)(amount))
    if recipe.grayscale:
        steps.append(augment.grayscale(recipe.grayscale))
    # 4. Noise after colours, as a camera adds it; no interpolation smooths it away any more.
    if recipe.noise:
        steps.append(augment.gaussian_noise(recipe.noise))
    # 5. Holes last: they must stay empty, and keep their size.
    if recipe.cutout:
        steps.append(augment.cutout(recipe.cutout, value=[round(value) for value in mean]))
    if recipe.erasing:
        steps.append(augment.random_erasing(recipe.erasing))
    if size is not None:
        steps.append(augment.shrink(size))
    # 6. Mixtures of finished pictures, together with their finished labels.
    if recipe.mixup and recipe.cutmix:
        steps.append(augment.mix_of(augment.mixup(recipe.mixup), augment.cutmix(recipe.cutmix)))
    elif recipe.mixup:
        steps.append(augment.mixup(recipe.mixup))
    elif recipe.cutmix:
        steps.append(augment.cutmix(recipe.cutmix))
    return steps
