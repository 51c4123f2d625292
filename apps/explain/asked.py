"""What the options of `kerascnn explain` ask for: layers, classes and units by name."""

from collections.abc import Sequence
from dataclasses import dataclass

from apps.explain.maximisation import Target
from apps.explain.network import Network
from apps.recipe import near_name

MOST_CLASSES = 10  # made pictures of where none are asked for, of all heads together


@dataclass(frozen=True)
class Asked:
    """What to show.

    Attributes:
        layers: Names of hidden layers.
        classes: To make pictures of.
        units: To make pictures of; empty for the strongest of the layers.
    """

    layers: list[str]
    classes: list[Target]
    units: list[Target]


def parse_asked(network: Network, layers: Sequence[str], classes: Sequence[str], units: Sequence[str]) -> Asked:
    """Options as typed, or what suits the network where they are empty.

    Raises:
        ValueError: There is no such layer, class or unit.
    """
    for name in layers:
        network.layer(name)
    return Asked(
        list(layers) or network.shown_layers(),
        [_class(network, text) for text in classes] or _first_classes(network),
        [_unit(network, text) for text in units],
    )


def _first_classes(network: Network) -> list[Target]:
    of_each = max(1, MOST_CLASSES // len(network.classes))
    return [
        Target(head, number, True) for head, names in network.classes.items() for number in range(len(names[:of_each]))
    ]


def _class(network: Network, text: str) -> Target:
    """[HEAD=]NAME; without a head the first one with a class of this name."""
    head, equals, name = text.partition("=")
    if equals and head in network.classes:
        if name in network.classes[head]:
            return Target(head, list(network.classes[head]).index(name), True)
        known = list(network.classes[head])
        raise ValueError(f"Head {head!r} has no class {name!r}.{near_name(name, known)} Classes: {_listed(known)}.")
    for head, names in network.classes.items():
        if text in names:
            return Target(head, list(names).index(text), True)
    known = [name for names in network.classes.values() for name in names]
    heads = f" of heads {', '.join(network.classes)}" if len(network.classes) > 1 else ""
    raise ValueError(f"There is no class {text!r}.{near_name(text, known)} Classes{heads}: {_listed(known)}.")


def _unit(network: Network, text: str) -> Target:
    """LAYER:CHANNEL, channels counted from 0."""
    layer, colon, number = text.rpartition(":")
    if not colon or not number.isdecimal():
        raise ValueError(f"`--unit` must be LAYER:CHANNEL, such as conv1:5. Received: {text!r}.")
    channels = network.layer(layer).shape[-1]
    if int(number) >= channels:
        raise ValueError(f"Layer {layer!r} has channels 0 to {channels - 1}. Received: {text!r}.")
    return Target(layer, int(number), False)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (" …" if len(names) > 20 else "")
