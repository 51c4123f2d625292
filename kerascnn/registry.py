"""The table of networks: a name, the function that builds it, and its published parameter count."""

import difflib
import fnmatch
import math
from collections.abc import Callable
from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class Network:
    """One entry of the table; `parameters` counts trainable values for `classes` outputs at `input_shape`."""

    builder: Callable[..., keras.Model]
    parameters: int
    classes: int
    input_shape: tuple[int, int, int]


_NETWORKS: dict[str, Network] = {}


def register(name: str, network: Network) -> None:
    """Enter a network under `name`; a name can be taken only once."""
    if name in _NETWORKS:
        raise ValueError(f"A network named {name!r} is registered already. Choose another name.")
    _NETWORKS[name] = network


def list_models(pattern: str = "*") -> list[str]:
    """Names of the networks that match a shell pattern, sorted.

    >>> import kerascnn
    >>> kerascnn.list_models("resnet3*")
    ['resnet34']
    """
    return sorted(fnmatch.filter(_NETWORKS, pattern))


def lookup(name: str) -> Network:
    """The entry of `name`; an unknown name is a `ValueError` that lists near names and all names."""
    if name not in _NETWORKS:
        near = difflib.get_close_matches(name, _NETWORKS, n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"Unknown network {name!r}.{hint} Available: {', '.join(list_models())}.")
    return _NETWORKS[name]


def build(
    name: str,
    input_shape: tuple[int | None, int | None, int],
    num_classes: int | dict[str, int],
    **options: object,
) -> keras.Model:
    """Build a network that takes raw pixels in [0, 255] and returns float32 logits.

    Args:
        name: One of `list_models()`.
        input_shape: (height, width, channels) of a picture; height and width may be None.
        num_classes: Number of classes, or `{head: classes}` for a dict of outputs.
        **options: Passed to the builder: `mean` and `std` (per channel, in pixel units) for every network,
            the others as the builder's docstring says.

    Raises:
        ValueError: The name is unknown or an option does not fit.

    >>> import kerascnn
    >>> model = kerascnn.build("resnet9", (32, 32, 3), 10)
    >>> model.count_params()
    6577600
    """
    network = lookup(name)
    try:
        return network.builder(input_shape, num_classes, name=name, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ValueError(f"Network {name!r} has no such option: {error}.") from error


def describe(model_or_name: keras.Model | str) -> dict[str, object]:
    """Name, input shape, outputs and parameter counts of a model or of a registered name.

    >>> import kerascnn
    >>> kerascnn.describe("resnet9")["trainable_parameters"]
    6573120
    """
    model = model_or_name
    if isinstance(model, str):
        network = lookup(model)
        model = network.builder(network.input_shape, network.classes, name=model_or_name)
    trainable = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    outputs = model.output if isinstance(model.output, dict) else {"logits": model.output}
    return {
        "name": model.name,
        "input_shape": tuple(model.input_shape[1:]),
        "outputs": {head: tuple(tensor.shape[1:]) for head, tensor in outputs.items()},
        "trainable_parameters": trainable,
        "parameters": model.count_params(),
    }
