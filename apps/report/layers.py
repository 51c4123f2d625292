"""What the report shows of the inside of a network: activations and gradients over the training, symptoms."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from apps.pages.figures import SERIES, as_svg, new_figure
from callbacks.monitor import gradient_norm, update_ratio
from callbacks.symptoms import is_kernel, symptoms

MOST_LAYERS = 6  # whose distributions are drawn
Record = Mapping[str, Any]


def draw_distributions(records: Sequence[Record]) -> Markup:
    """Activations and gradients of some layers over the steps: the median, and the bands of 50 % and 98 %."""
    layers = with_kernels(records)
    names = [layers[place] for place in np.unique(np.linspace(0, len(layers) - 1, MOST_LAYERS).round().astype(int))]
    steps = [record["step"] for record in records]
    figure, grid = new_figure(len(names), 2, height=1.0 + 1.1 * len(names), sharex=True, squeeze=False)
    for row, name in zip(grid, names, strict=True):
        layer = [record["layers"][name] for record in records]
        _draw_bands(row[0], steps, [numbers["activation"]["percentiles"] for numbers in layer])
        _draw_bands(row[1], steps, [_gradient(numbers)["percentiles"] for numbers in layer])
        row[0].set_ylabel(name if len(name) <= 16 else f"…{name[-15:]}", fontsize=8)
    grid[0, 0].set_title("output")
    grid[0, 1].set_title("gradient of its weights")
    for axes in grid[-1]:
        axes.set_xlabel("step")
    return as_svg(figure, f"Distributions of outputs and gradients of {', '.join(names)} over the training.")


def _draw_bands(axes: Any, steps: Sequence[int], percentiles: Sequence[Sequence[float | None]]) -> None:
    low, lower, middle, upper, high = np.array([_known(values) for values in percentiles], float).T
    axes.fill_between(steps, low, high, color=SERIES[0], alpha=0.18, linewidth=0)
    axes.fill_between(steps, lower, upper, color=SERIES[0], alpha=0.35, linewidth=0)
    axes.plot(steps, middle, color=SERIES[0], linewidth=1.2)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    axes.locator_params(nbins=3, axis="y")


def _known(values: Sequence[float | None]) -> list[float]:
    return [np.nan if value is None else value for value in values]


def _gradient(numbers: Record) -> Mapping[str, Any]:
    """The gradient of a layer's largest weight."""
    weight = max(numbers["weights"].values(), key=lambda one: int(np.prod(one["shape"])))
    return weight.get("gradient") or {"percentiles": [None] * 5}


def draw_layers(records: Sequence[Record]) -> Markup:
    """Spread of the outputs, norm of the gradient and update ratio of every layer with a kernel."""
    import matplotlib

    values: dict[str, Callable[[Record], float | None]] = {
        "deviation of the output": lambda numbers: numbers["activation"]["std"],
        "norm of the gradient": gradient_norm,
        "update ratio": update_ratio,
    }
    names = with_kernels(records)
    figure, grid = new_figure(len(values), 1, height=5.6, sharex=True)
    steps = [record["step"] for record in records]
    for axes, (title, value) in zip(grid, values.items(), strict=True):
        for depth, name in enumerate(names):
            # Not to the ends of the scale, which could not be seen on one of the themes.
            colour = matplotlib.colormaps["plasma"](0.1 + 0.7 * depth / max(len(names) - 1, 1))
            shown = _known([value(record["layers"][name]) for record in records])
            label = f"{name} (first)" if depth == 0 else f"{name} (last)" if depth == len(names) - 1 else None
            axes.plot(steps, shown, color=colour, linewidth=1.2, label=label)
        axes.set(ylabel=title, yscale="log")
    grid[2].axhline(1e-3, color=SERIES[7], linestyle="--", linewidth=1)
    grid[0].legend(loc="best", fontsize=8)
    grid[-1].set_xlabel("step")
    words = f"Spread of the outputs, gradient norm and update ratio of {len(names)} layers over the training."
    return as_svg(figure, words)


def with_kernels(records: Sequence[Record]) -> list[str]:
    """Names of the layers with a matrix or filters that are trained, from input to output."""
    found = records[0]["layers"]
    return [
        name
        for name, numbers in found.items()
        if any(is_kernel(weight, facts["shape"]) for weight, facts in numbers["weights"].items())
    ]


def found_symptoms(records: Sequence[Record]) -> list[str]:
    """What the last two samples both show of the layers, in words."""
    highest = max(map(_rate, records)) or 1.0

    def of(record: Record) -> dict[tuple[str, str], str]:
        return {(one.kind, one.layer): one.text for one in symptoms(record, _rate(record) / highest)}

    before = of(records[-2]) if len(records) > 1 else {}
    return [text for key, text in of(records[-1]).items() if key in before or len(records) == 1]


def _rate(record: Record) -> float:
    """The learning rate of a sample, the highest of several optimisers; 0 where it is not known."""
    return float(np.max(record["learning_rate"] or 0.0))


def typical_update(records: Sequence[Record]) -> float | None:
    """The median update ratio of the kernels over the training, where the rate was at least half its highest."""
    highest = max(map(_rate, records))
    ratios = [
        ratio
        for record in records
        if _rate(record) >= 0.5 * highest
        for numbers in record["layers"].values()
        if (ratio := update_ratio(numbers)) is not None
    ]
    return float(np.median(ratios)) if ratios else None
