"""From the statistics of a `Monitor` to words: what is wrong with which layer, and what helps."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from callbacks.groups import NO_DECAY

# "As much as 40 % of your network can be dead if the rate is too high": https://cs231n.github.io/neural-networks-1/
DEAD_SHARE = 0.4
# Half of the outputs at the ends of the range: most of the gradient is lost on the way through the layer.
SATURATED_SHARE = 0.5
# With weights drawn too small, the last of ten layers has a deviation of this order at the beginning:
# https://cs231n.github.io/neural-networks-2/#init
COLLAPSED_STD = 1e-4
# Weights move by about 1e-3 of their size in a step, "around 1e-3": https://cs231n.github.io/neural-networks-3/#ratio
# Warnings begin two, and three, orders of magnitude away from it, as the rule is a rough one.
HIGHEST_UPDATE, LOWEST_UPDATE = 1e-1, 1e-6
# Single weights of the first layer get this much less, or more, gradient than those of the last one.
VANISHING_RATIO, EXPLODING_RATIO = 1e-4, 1e4
# At a rate of 0.001, small for plain gradient descent, a step with such a gradient replaces the weights as a whole.
EXPLODING_GRADIENT = 1e3
# These are said at once. All else must be found in two samples in a row: a warm-up, or branches that begin at zero,
# look strange in the first steps and are in order.
AT_ONCE = ("not finite", "no gradient")


class Symptom(NamedTuple):
    """One finding: its kind, the layer, and a sentence."""

    kind: str
    layer: str
    text: str


def is_kernel(name: str, shape: Sequence[int]) -> bool:
    """Whether a weight is a matrix or filter: scales and biases, which begin at one or zero, can have two axes too."""
    return len(shape) > 1 and not NO_DECAY.matches(name)


def symptoms(record: Mapping[str, Any], rate_share: float = 1.0) -> list[Symptom]:
    """All that one sample of a `Monitor` shows.

    Args:
        record: The sample.
        rate_share: Its learning rate as a share of the training's highest: small updates at the end of a decay, or at
            the beginning of a warm-up, are meant to be so.
    """
    found: list[Symptom] = []
    layers = record["layers"]
    largest = max(
        (one.get("update_ratio") or 0.0 for numbers in layers.values() for one in numbers["weights"].values()),
        default=0.0,
    )
    for layer, numbers in layers.items():
        found += _of_activation(layer, numbers["activation"], record["examples"], numbers["head"])
        for name, weight in numbers["weights"].items():
            found += _of_gradient(layer, name, weight)
            found += _of_update(layer, name, weight, LOWEST_UPDATE * rate_share, largest)
    return [*found, *_across_layers(layers)]


def _of_activation(layer: str, numbers: Mapping[str, Any], examples: int, head: bool) -> Iterator[Symptom]:
    if numbers["mean"] is None or numbers["std"] is None:
        yield Symptom(
            "not finite",
            layer,
            f"{layer}: its output is not finite. Lower the rate, clip the gradient, or look for a division by zero.",
        )
        return
    if numbers["dead"] >= DEAD_SHARE and numbers["function"].startswith("relu"):
        yield Symptom(
            "dead",
            layer,
            f"{layer}: {100 * numbers['dead']:.0f} % of its units are dead (zero for all {examples} probe examples). "
            "Lower the rate, or use a leaky activation.",
        )
    elif numbers["std"] < COLLAPSED_STD and numbers["function"] != "softmax":  # small anyway with very many classes
        yield Symptom(
            "collapsed",
            layer,
            f"{layer}: its output is nearly constant (standard deviation {numbers['std']:.1e}). "
            "Draw larger initial weights, or normalise.",
        )
    if (numbers["saturated"] or 0.0) >= SATURATED_SHARE and not head:  # an output that is sure of itself is no fault
        yield Symptom(
            "saturated",
            layer,
            f"{layer}: {100 * numbers['saturated']:.0f} % of its {numbers['function']} outputs are saturated. "
            "Draw smaller initial weights, normalise before it, or lower the rate.",
        )


def _of_gradient(layer: str, name: str, weight: Mapping[str, Any]) -> Iterator[Symptom]:
    if "gradient" in weight:
        gradient = weight["gradient"]
        if gradient is None:
            yield Symptom(
                "no gradient", layer, f"{layer}: its {name} gets no gradient. Connect it to the loss, or freeze it."
            )
        elif gradient["norm"] is None or weight["norm"] is None:
            yield Symptom(
                "not finite",
                layer,
                f"{layer}: its {name} or the gradient of it is not finite. Lower the rate, or clip the gradient.",
            )
        elif is_kernel(name, weight["shape"]) and gradient["norm"] > EXPLODING_GRADIENT * weight["norm"] > 0:
            yield Symptom(
                "exploding",
                layer,
                f"{layer}: the gradient of its {name} is {gradient['norm'] / weight['norm']:.0e} times as large as the "
                "weights. Clip the gradient, normalise, or scale the loss or the inputs down.",
            )


def _of_update(layer: str, name: str, weight: Mapping[str, Any], lowest: float, largest: float) -> Iterator[Symptom]:
    """`largest` is the largest update ratio of all layers."""
    ratio = weight.get("update_ratio")
    no_gradient = "gradient" in weight and not (weight["gradient"] or {}).get("norm")  # then the rate is not to blame
    if ratio is not None and ratio > HIGHEST_UPDATE:
        yield Symptom(
            "large updates",
            layer,
            f"{layer}: a step moves its {name} by {100 * ratio:.0f} % of its size; about 0.1 % is usual. "
            "Lower the rate.",
        )
    elif ratio is not None and ratio < lowest and not no_gradient:
        advice = (
            "Raise the rate."
            if largest < LOWEST_UPDATE
            else f"As others move by up to {largest:.0e}, look at its gradient, or its own rate."
        )
        yield Symptom(
            "small updates",
            layer,
            f"{layer}: a step moves its {name} by {ratio:.0e} of its size; about 1e-03 is usual. {advice}",
        )


def _across_layers(layers: Mapping[str, Any]) -> Iterator[Symptom]:
    """Does the gradient reach the first layer?"""
    sizes = [
        (layer, weight["gradient"]["norm"] / math.sqrt(math.prod(weight["shape"])))
        for layer, numbers in layers.items()
        for name, weight in numbers["weights"].items()
        if is_kernel(name, weight["shape"]) and weight.get("gradient") and weight["gradient"]["norm"] is not None
    ]
    if len(sizes) < 2:
        return
    (first, low), (last, high) = sizes[0], sizes[-1]
    if high == 0.0 == low:
        yield Symptom(
            "vanishing",
            first,
            f"{first}: neither its weights nor those of {last} get any gradient. Look for dead or saturated layers, or "
            "for a loss that does not depend on the output.",
        )
    elif low <= VANISHING_RATIO * high:
        yield Symptom(
            "vanishing",
            first,
            f"{first}: its weights get {low / high:.0e} of the gradient that those of {last} get. "
            "Use residual connections, normalisation, or an activation that does not saturate.",
        )
    elif low > EXPLODING_RATIO * high > 0:
        yield Symptom(
            "exploding",
            first,
            f"{first}: its weights get {low / high:.0e} times the gradient that those of {last} get. "
            "Draw smaller initial weights, normalise, or clip the gradient.",
        )
