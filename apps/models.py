"""`kerascnn models [NAME]`: the networks, or what every layer of one makes, sees and costs."""

import inspect
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import kerascnn
from apps import files
from apps.console import Console
from kerascnn.blocks import Net
from kerascnn.layer_table import LayerRow, layer_table, multiply_adds, without_values
from kerascnn.published import MULTIPLY_ADDS, Published, published
from kerascnn.registry import lookup

WIDTH = 120  # of running text
HEADINGS = ("layer", "kind", "output", "field", "stride", "parameters", "multiply-adds")


def models(
    name: str,
    *,
    size: tuple[int, int] | None,
    classes: int | None,
    options: Mapping[str, Any],
    json_file: Path | None,
    console: Console,
) -> None:
    """Print the networks that match a pattern, or one network.

    Args:
        name: Of a network, or a shell pattern.
        size: (height, width) of the pictures, of one network only, as the next two.
        classes: Number of classes.
        options: Of the builder.
        json_file: Where to write the figures.
        console: Where to print.

    Raises:
        ValueError: There is no such network, or it cannot be built so.
        FileNotFoundError: There is no folder for `json_file`.
    """
    if json_file is not None:
        files.require_folder_of(json_file)
    if any(sign in name for sign in "*?["):
        if size or classes or options:
            raise ValueError(
                f"`--image-size`, `--classes` and `--set` are for one network. Received: the pattern {name!r}."
            )
        found: object = list_networks(name, console)
    else:
        found = show_network(name, size, classes, options, console)
    if json_file is not None:
        files.write_json(json_file, found)


def list_networks(pattern: str, console: Console) -> list[dict[str, Any]]:
    """Print a line for every network that matches, building none, and return what it says."""
    names = kerascnn.list_models(pattern)
    if not names:
        raise ValueError(f"No network matches {pattern!r}. Available: {', '.join(kerascnn.list_models())}.")
    table, found = [], []
    links: dict[str, str] = {}
    for name in names:
        network, figures = lookup(name), published(name)
        links |= {figure.source: figure.link for figure in figures[:1]}
        pictures = "x".join(map(str, network.input_shape))
        known = f"{_accuracy(figures[0])} ({figures[0].source})" if figures else ""
        costs = MULTIPLY_ADDS.get(name)
        table.append((name, f"{network.parameters:,}", f"{costs / 1e6:,.1f} M" if costs else "", pictures, known))
        found.append(
            {
                "name": name,
                "trainable_parameters": network.parameters,
                "multiply_adds": costs,
                "input_shape": network.input_shape,
                "classes": network.classes,
                "published": [asdict(figure) for figure in figures],
            }
        )
    console.table(("network", "parameters", "multiply-adds", "pictures", "published accuracy"), table, "<>><<")
    console.say()
    console.say(f"{len(names)} networks; one in detail: kerascnn models NAME")
    for source, link in links.items():
        console.say(f"{source}: {link}")
    return found


def show_network(
    name: str, size: tuple[int, int] | None, classes: int | None, options: Mapping[str, Any], console: Console
) -> dict[str, Any]:
    """Print the layers of a network, their sums, its published accuracy and its options, and return them."""
    network = lookup(name)
    shape = (*(size or network.input_shape[:2]), network.input_shape[2])
    classes = classes or network.classes
    model = without_values(lambda: kerascnn.build(name, shape, classes, **options))
    rows = layer_table(model)
    sums = {
        "trainable_parameters": sum(row.trainable_parameters for row in rows),
        "parameters": sum(row.parameters for row in rows),
        "multiply_adds": multiply_adds(rows),
    }
    figures = published(name)

    chosen = "".join(f", {option}={value!r}" for option, value in options.items())
    console.say(f"{name}: {'x'.join(map(str, shape))} pixels, {classes} classes{chosen}")
    console.say()
    console.table(HEADINGS, [_line(row) for row in rows], "<<<>>>>")
    console.say()
    console.say(f"parameters     {sums['trainable_parameters']:,} trainable, {sums['parameters']:,} in all")
    console.say(f"multiply-adds  {sums['multiply_adds']:,} a picture, of convolutions and dense layers")
    for figure in figures:
        _say_wrapped("published", f"{_accuracy(figure)} ({figure.source}, {figure.link})", console)
    own, common = _options(name)
    _say_wrapped("options", own, console)
    _say_wrapped("common", common, console)
    return {
        "name": name,
        "input_shape": shape,
        "classes": classes,
        "options": dict(options),
        **sums,
        "published": [asdict(figure) for figure in figures],
        "layers": [_plain(row) for row in rows],
    }


def _options(name: str) -> tuple[str, str]:
    """The network's own options with the common ones that it changes, and the others, with their defaults."""
    network = lookup(name)
    parameters = inspect.signature(network.builder).parameters
    own = {option: parameters[option].default for option in network.own_options} | dict(network.options)
    common = {option.name: option.default for option in fields(Net) if option.name not in own}
    texts = [
        ", ".join(f"{option}={value!r}".replace(" ", "") for option, value in options.items())
        for options in (own, common)
    ]
    return texts[0] or "none", texts[1]


def _accuracy(figure: Published) -> str:
    return f"{figure.accuracy:.2f} % {figure.data}"


def _line(row: LayerRow) -> tuple[str, ...]:
    return (
        row.name,
        row.kind,
        "x".join(map(str, row.output_shape)),
        "all" if row.receptive_field is None else _pair(row.receptive_field),
        "" if row.stride is None else _pair(row.stride),
        f"{row.parameters:,}" if row.parameters else "",
        f"{row.multiply_adds:,}" if row.multiply_adds else "",
    )


def _pair(sides: Sequence[object]) -> str:
    """Height and width, once where they are equal."""
    return "x".join(dict.fromkeys(map(str, sides)))


def _plain(row: LayerRow) -> dict[str, Any]:
    """As JSON can hold it."""
    return {**asdict(row), "stride": row.stride and [float(side) for side in row.stride]}


def _say_wrapped(title: str, text: str, console: Console) -> None:
    for line in textwrap.wrap(text, WIDTH, initial_indent=f"{title:<15}", subsequent_indent=" " * 15):
        console.say(line)
