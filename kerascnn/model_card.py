"""The page that goes with an exported model: plain facts for whoever finds it without its makers."""

from collections.abc import Iterator, Mapping
from typing import Any

CARD = "assets.extra/MODEL_CARD.md"
MOST_NAMED = 50  # classes that are listed by name


def model_card(metadata: Mapping[str, Any]) -> str:
    """Markdown, from what `export_model` writes as metadata; what is not known is left out.

    Args:
        metadata: "classes" by head; where they are known "name", "image_size" (height, width), "data" ("name", and
            how many labelled "pictures"), "score" (the formula), "expected" ("value", "low", "high" and "pictures" by
            head), "recipe", "versions" and "classifier" (`Classifier.describe`).

    >>> print(model_card({"classes": {"animal": ["cat", "dog"]}}))
    # Image classifier
    <BLANKLINE>
    Answers `animal`: 2 classes (cat, dog).
    <BLANKLINE>
    ## Licence
    <BLANKLINE>
    None is stated here; what the pictures it was trained on allow comes first.
    <BLANKLINE>
    """
    sections = [
        [f"# {metadata['name']}" if "name" in metadata else "# Image classifier"],
        list(_answers(metadata["classes"])),
        list(_inside(metadata)),
        list(_training(metadata)),
        list(_expected(metadata)),
        list(_recipe(metadata.get("recipe"))),
        list(_versions(metadata.get("versions"))),
        ["## Licence", "", "None is stated here; what the pictures it was trained on allow comes first."],
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _answers(classes: Mapping[str, Any]) -> Iterator[str]:
    for head, names in classes.items():
        shown = ", ".join(map(str, names[:MOST_NAMED])) + (", ..." if len(names) > MOST_NAMED else "")
        yield f"Answers `{head}`: {len(names)} classes ({shown})."


def _inside(metadata: Mapping[str, Any]) -> Iterator[str]:
    if "image_size" not in metadata:
        return
    height, width = metadata["image_size"]
    yield "## What is inside"
    yield ""
    yield "- `serving_bytes` takes encoded pictures, `serving_default` uint8 pixels [N, height, width, 3] of any size."
    yield f"- Decoding, EXIF rotation, resizing to {height}x{width} (height x width) and normalisation are inside."
    if one := metadata.get("classifier"):
        count = one["networks"]
        several = f"{count} networks, their probabilities averaged" if count > 1 else "One network"
        yield (
            f"- {several}: `{one['network']}`, {one['parameters']:,} parameters, "
            f"{one['batch_norm_layers'] or 'no'} layers of BatchNorm that are not folded into others, "
            f"computed in {one['precision']}."
        )
        views = [
            *(["its mirror image"] if one["mirror"] else []),
            *(
                [f"both moved (pixels: {one['shift']})" if one["mirror"] else f"it moved (pixels: {one['shift']})"]
                if one["shift"]
                else []
            ),
        ]
        yield f"- Averaged over the picture{''.join(f' and {view}' for view in views)}." if views else "- One view."
        for head, temperature in one["temperatures"].items():
            yield f"- The probabilities of `{head}` are calibrated with the temperature {temperature:.3g}."


def _training(metadata: Mapping[str, Any]) -> Iterator[str]:
    if data := metadata.get("data"):
        yield "## Training data"
        yield ""
        yield f"`{data['name']}`, {data['pictures']:,} labelled pictures."


def _expected(metadata: Mapping[str, Any]) -> Iterator[str]:
    if "expected" not in metadata:
        return
    yield "## Expected score"
    yield ""
    if not metadata["expected"]:
        yield "Not known: no labelled picture was held out of the training."
        return
    yield f"By `{metadata['score']}`, from pictures that were held out of the training; the interval holds 19 in 20."
    yield ""
    yield "| head | expected | interval | pictures |"
    yield "|---|---|---|---|"
    for head, one in metadata["expected"].items():
        yield f"| {head} | {one['value']:.4f} | {one['low']:.4f} to {one['high']:.4f} | {one['pictures']:,} |"


def _recipe(recipe: Mapping[str, Any] | None) -> Iterator[str]:
    if recipe:
        yield "## Recipe"
        yield ""
        yield "| choice | value |"
        yield "|---|---|"
        for name, value in recipe.items():
            yield f"| {name} | {value} |"


def _versions(versions: Mapping[str, str] | None) -> Iterator[str]:
    if versions:
        yield "## Versions"
        yield ""
        yield ", ".join(f"{package} {version}" for package, version in versions.items())
