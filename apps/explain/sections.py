"""The parts of the page: what is measured in each, and its drawings with words for them."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from apps.console import percent
from apps.explain.drawings import evened, heated, side_by_side, whereabouts
from apps.explain.exciting import most_exciting
from apps.explain.filters import describe_filters
from apps.explain.grad_cam import class_maps
from apps.explain.maps import feature_maps, strongest_channels
from apps.explain.maximisation import Target, maximise, maximise_beyond, target_values
from apps.explain.network import CHANNELS, Network, has_maps
from apps.explain.occlusion import occlusion_maps
from apps.explain.receptive import framed, receptive_box
from apps.explain.subject import Pictures
from apps.pages.figures import as_picture, tiles
from pipelines.labels import MISSING

SIDE = 112  # pixels of a picture on the page
MAPS_SHOWN = 16  # channels of a layer
UNITS_SHOWN = 3  # of a layer
EXCITING_SHOWN = 4  # pictures of a unit
MOST_FILTERS = 64


def filters_section(model: keras.Model) -> dict[str, Any]:
    """The filters of the first layer: their picture, what it shows, and whether they look smooth.

    Raises:
        ValueError: The model has no convolution.
    """
    found = describe_filters(model)
    count, height, width, channels = found.pictures.shape
    shown = [one if channels == 3 else one[..., 0] for one in found.pictures[:MOST_FILTERS]]
    sheet = tiles(shown, columns=8)  # enlarged by the browser, which keeps the pixels sharp
    kinds = "in colour" if found.channels == 3 else "in grey"
    kinds += f", the mean of {found.channels} channels" if found.channels not in CHANNELS else ""
    words = f"{len(shown)} of {count} filters of {height}x{width} of layer {found.layer}, {kinds}."
    return {"picture": as_picture(sheet, words, side=320), "words": words, "note": found.note}


def looking_section(network: Network, shown: Pictures, colour: np.ndarray) -> tuple[list[dict[str, Any]], str]:
    """For every picture and head the answer, Grad-CAM and occlusion; and why there is no Grad-CAM, or nothing."""
    probabilities = network.probabilities(shown.pixels)
    chosen = {head: values.argmax(axis=1) for head, values in probabilities.items()}
    try:
        cams, missing = class_maps(network, shown.pixels, chosen), ""
    except ValueError as error:
        cams, missing = {}, str(error)
    rows = []
    for number, (picture, name) in enumerate(zip(shown.pixels, shown.names, strict=True)):
        of_picture = {head: int(numbers[number]) for head, numbers in chosen.items()}
        falls = occlusion_maps(network, picture, of_picture, colour)
        heads = [
            _head_of_picture(
                network,
                head,
                picture,
                of_picture[head],
                float(probabilities[head][number, of_picture[head]]),
                int(shown.truth[head][number]) if head in shown.truth else MISSING,
                cams[head][number] if cams else None,
                falls[head],
            )
            for head in of_picture
        ]
        rows.append({"name": name, "picture": _picture(picture, f"The picture {name}."), "heads": heads})
    return rows, missing


def _head_of_picture(
    network: Network,
    head: str,
    picture: np.ndarray,
    answer: int,
    probability: float,
    truth: int,
    cam: np.ndarray | None,
    fall: np.ndarray,
) -> dict[str, Any]:
    names = network.classes[head]
    said = f"class {names[answer]} of {head}"
    words = f"Grad-CAM for {said}: what speaks for it lies {whereabouts(cam)}." if cam is not None else ""
    most = float(fall.max())
    covered = f"Occlusion for {said}: what lowers its probability when it is covered lies {whereabouts(fall)}."
    return {
        "head": head,
        "answer": names[answer],
        "probability": probability,
        "truth": None if truth == MISSING else names[truth],
        "right": truth in (MISSING, answer),
        "cam": None if cam is None else _picture(heated(picture, cam), words),
        "nothing": cam is not None and not cam.any(),
        "occlusion": _picture(heated(picture, evened(fall)), covered),
        "fall": most,
    }


def maps_section(network: Network, shown: Pictures, layers: Sequence[str]) -> list[dict[str, Any]]:
    """The strongest feature maps of every layer that has such, for every picture."""
    names = [name for name in layers if has_maps(network.layer(name))]
    found = feature_maps(network, shown.pixels, names) if names else {}
    return [
        {
            "layer": name,
            "size": "{}x{}, {} channels".format(*maps.shape[1:]),
            "pictures": [_maps_of(name, one, words) for one, words in zip(maps, shown.names, strict=True)],
        }
        for name, maps in found.items()
    ]


def _maps_of(layer: str, maps: np.ndarray, name: str) -> dict[str, Any]:
    channels = strongest_channels(maps, MAPS_SHOWN).tolist()
    words = (
        f"The {len(channels)} strongest feature maps of {layer} for {name}: channels {', '.join(map(str, channels))}."
    )
    return {"name": name, "picture": as_picture(side_by_side(maps, channels), words, side=2 * SIDE)}


def receptive_section(network: Network, picture: np.ndarray, layers: Sequence[str]) -> list[dict[str, Any]]:
    """What the middle unit of every layer with maps sees, on a picture."""
    rows = []
    for name in layers:
        tensor = network.layer(name)
        if len(tensor.shape) != 4:
            continue
        box = receptive_box(network, name)
        size = "the whole picture" if box is None else f"{box.height}x{box.width} pixels"
        if box is not None and box != box.inside(network.size):
            size += ", some of them in the padding"
        row, column = (length // 2 for length in tensor.shape[1:3])
        words = f"The middle unit of {name} (row {row}, column {column} of its map) sees {size}."
        rows.append({"layer": name, "size": size, "picture": as_picture(framed(picture, box), words, side=SIDE)})
    return rows


def strongest_units(network: Network, layers: Sequence[str], pixels: np.ndarray | None) -> list[Target]:
    """Every layer as a whole, and its units with the largest activation in some picture, or the first ones."""
    chosen: list[Target] = []
    for name in layers:
        units = [Target(name, channel, False) for channel in range(network.layer(name).shape[-1])]
        if pixels is not None:
            largest = target_values(network, units, pixels).max(axis=0)
            units = [units[place] for place in np.argsort(-largest, kind="stable")]
        chosen += [Target(name, None, False), *units[:UNITS_SHOWN]]
    return chosen


def maximised_section(
    network: Network,
    targets: Sequence[Target],
    reference: Pictures | None,
    steps: int,
    on_progress: Callable[[int], None],
) -> list[dict[str, Any]]:
    """The picture made for every target, its value, the largest of real pictures, and which those are."""
    if reference is None:
        pictures, values = maximise(network, targets, steps=steps, on_progress=on_progress)
        real = None
    else:
        pictures, values, real = maximise_beyond(
            network, targets, reference.pixels, steps=steps, on_progress=on_progress
        )
    rows = []
    for number, (target, picture, value) in enumerate(zip(targets, pictures, values.tolist(), strict=True)):
        name, what = _names(network, target)
        rows.append(
            {
                "where": target.where,
                "is_class": target.is_class,
                "name": name,
                "picture": _picture(picture, f"The picture made for {what}: it answers with {value:.3g}."),
                "value": value,
                "most": math.nan if real is None else float(real[:, number].max()),
                "exciting": [] if real is None or reference is None else _exciting(reference, real[:, number], what),
            }
        )
    return rows


def _names(network: Network, target: Target) -> tuple[str, str]:
    """What is written below a made picture, and what it is called in a sentence."""
    if target.number is None:
        return "all", f"{target.where} as a whole"
    if target.is_class:
        name = network.classes[target.where][target.number]
        return name, f"class {name} of {target.where}"
    return f"unit {target.number}", f"unit {target.number} of {target.where}"


def _exciting(reference: Pictures, values: np.ndarray, what: str) -> list[dict[str, Any]]:
    return [
        {
            "name": reference.names[place],
            "value": float(values[place]),
            "picture": _picture(
                reference.pixels[place],
                f"{reference.names[place]}, where {what} answers with {values[place]:.3g}.",
                SIDE * 3 // 4,
            ),
        }
        for place in most_exciting(values, EXCITING_SHOWN).tolist()
    ]


def hidden_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The table of hidden units in words; what cannot be said is a dash."""

    def show(value: float, as_percent: bool) -> str:
        return "–" if math.isnan(value) else percent(value) if as_percent else f"{value:.2g}"

    return [
        {
            "name": row["name"],
            **{
                column: show(row[column], column in ("zeros", "dead"))
                for column in ("std", "zeros", "dead", "correlation", "sparsity")
            },
        }
        for row in rows
    ]


def _picture(pixels: np.ndarray, words: str, side: int = SIDE) -> Any:
    return as_picture(pixels if pixels.shape[-1] == 3 else pixels[..., 0], words, side=side)
