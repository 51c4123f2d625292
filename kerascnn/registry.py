"""The table of networks: a name, the function that builds it, and its published parameter count."""

import difflib
import fnmatch
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import keras

from kerascnn.blocks import Net
from kerascnn.layer_table import without_values

COMMON_OPTIONS = tuple(option.name for option in fields(Net))
AUXILIARY = r"_auxiliary\d+$"  # how the names of auxiliary heads end


@dataclass(frozen=True)
class Network:
    """One entry of the table.

    Attributes:
        builder: Makes features of normalised pictures: `builder(net, x, **options)`, with a list of more features where
            auxiliary heads belong.
        parameters: Trainable values for `classes` outputs at `input_shape`.
        classes: Of the data that the network was published for.
        input_shape: Of its pictures.
        options: What differs from the defaults of `Net` and of the builder.
        residual: Whether it has branches to drop (`stochastic_depth`) and to gate (`se`).
    """

    builder: Callable[..., Any]
    parameters: int
    classes: int = 1000
    input_shape: tuple[int, int, int] = (224, 224, 3)
    options: Mapping[str, Any] = field(default_factory=dict)
    residual: bool = False

    @property
    def own_options(self) -> list[str]:
        """Names of the options that this network has besides the common ones."""
        return [name for name in inspect.signature(self.builder).parameters if name not in ("net", "x")]


_NETWORKS: dict[str, Network] = {}


def register(name: str, network: Network) -> None:
    """Enter a network under `name`; a name can be taken only once."""
    if name in _NETWORKS:
        raise ValueError(f"A network named {name!r} is registered already. Choose another name.")
    _NETWORKS[name] = network


def list_models(pattern: str = "*") -> list[str]:
    """Names of the networks that match a shell pattern, sorted.

    >>> import kerascnn
    >>> kerascnn.list_models("vgg1?")
    ['vgg11', 'vgg13', 'vgg16', 'vgg19']
    """
    return sorted(fnmatch.filter(_NETWORKS, pattern))


def lookup(name: str) -> Network:
    """The entry of `name`; an unknown name is a `ValueError` that lists near names and all names."""
    if name not in _NETWORKS:
        raise ValueError(f"Unknown network {name!r}.{_near(name, _NETWORKS)} Available: {', '.join(list_models())}.")
    return _NETWORKS[name]


def build(
    name: str,
    input_shape: tuple[int | None, int | None, int],
    num_classes: int | dict[str, int],
    **options: Any,
) -> keras.Model:
    """Build a network that takes raw pixels in [0, 255] and returns float32 logits.

    Args:
        name: One of `list_models()`.
        input_shape: (height, width, channels) of a picture; height and width may be None where nothing is flattened.
        num_classes: Number of classes, or `{head: classes}` for a dict of outputs. With auxiliary heads the outputs
            are a dict in any case. Several heads that are to be trained by `fit` on TensorFlow need names of ASCII
            letters, digits, "_", "-", "." and "/".
        **options: Those of `kerascnn.blocks.Net`, which every network has, and the network's own, such as
            `stem="small"` for small pictures; see `kerascnn models NAME`.

    Raises:
        ValueError: The name is unknown or an option does not fit.

    >>> import kerascnn
    >>> model = kerascnn.build("resnet9", (32, 32, 3), 10)
    >>> model.count_params()
    6577600
    """
    network = lookup(name)
    own = network.own_options
    for option in options:
        if option not in own and option not in COMMON_OPTIONS:
            known = [*own, *COMMON_OPTIONS]
            raise ValueError(
                f"Network {name!r} has no option {option!r}.{_near(option, known)} Options: {', '.join(known)}."
            )
    options = {**network.options, **options}
    net = Net(**{option: value for option, value in options.items() if option in COMMON_OPTIONS})
    if not network.residual and (net.stochastic_depth or net.se):
        raise ValueError(f"`{'se' if net.se else 'stochastic_depth'}` is for residual branches; {name!r} has none.")
    classes = num_classes if isinstance(num_classes, dict) else {"logits": num_classes}
    _check_arguments(input_shape, classes)

    inputs, x = net.pixels(input_shape)
    features = network.builder(net, x, **{option: value for option, value in options.items() if option in own})
    features, *auxiliary = features if isinstance(features, list) else [features]
    outputs = net.heads(features, classes)
    for number, extra in enumerate(auxiliary, 1):
        outputs |= net.heads(extra, classes, suffix=f"_auxiliary{number}")
    single = not isinstance(num_classes, dict) and not auxiliary
    return keras.Model(inputs, outputs["logits"] if single else outputs, name=name)


def describe(model_or_name: keras.Model | str) -> dict[str, object]:
    """Name, input shape, outputs and parameter counts of a model or of a registered name.

    >>> import kerascnn
    >>> kerascnn.describe("resnet9")["trainable_parameters"]
    6573120
    """
    model = model_or_name
    if isinstance(model, str):
        network = lookup(model)
        model = without_values(lambda: build(model_or_name, network.input_shape, network.classes))
    trainable = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    outputs = model.output if isinstance(model.output, dict) else {"logits": model.output}
    return {
        "name": model.name,
        "input_shape": tuple(model.input_shape[1:]),
        "outputs": {head: tuple(tensor.shape[1:]) for head, tensor in outputs.items()},
        "trainable_parameters": trainable,
        "parameters": model.count_params(),
    }


def _check_arguments(input_shape: Any, classes: dict[Any, Any]) -> None:
    if keras.config.image_data_format() != "channels_last":
        raise ValueError("The networks need `keras.config.set_image_data_format('channels_last')`.")
    sizes = list(input_shape) if isinstance(input_shape, tuple | list) else []
    known = [size for size in sizes if size is not None]
    if len(sizes) != 3 or sizes[-1] is None or not all(isinstance(size, int) and size > 0 for size in known):
        raise ValueError(
            "`input_shape` must be (height, width, channels), such as (224, 224, 3); height and width may be None. "
            f"Received: {input_shape!r}."
        )
    if not classes or not all(type(count) is int and count > 0 for count in classes.values()):
        raise ValueError(f"`num_classes` needs a whole number, at least one class, per head. Received: {classes}.")
    for head in classes:
        if not isinstance(head, str) or re.search(AUXILIARY, head):
            raise ValueError(f"A head needs a name that does not end in _auxiliary and a number. Received: {head!r}.")


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3)
    return f" Did you mean {' or '.join(near)}?" if near else ""
