"""Parameter groups: rate and weight decay by the names of layers and variables."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import keras

from callbacks.schedules import number


@dataclass(frozen=True)
class ParameterGroup:
    """All variables whose path fits `pattern`, and what multiplies their rate and their weight decay.

    A variable may be in several groups: the factors multiply.

    Attributes:
        pattern: Regular expression that must fit from the beginning of some part of `variable.path`: "stem" fits
            "stem_conv/kernel" and "sequential/stem/bias", but not "my_stem/bias". Leave the name of a Sequential out:
            the path has it at first, but not after loading.
        rate: Multiplies the learning rate; at least 0.
        decay: Multiplies the weight decay; at least 0.

    >>> [ParameterGroup("stem", rate=0.1).matches(path) for path in ("stem_conv/kernel", "my_stem/kernel")]
    [True, False]
    """

    pattern: str
    rate: float = 1.0
    decay: float = 1.0

    def __post_init__(self) -> None:
        """Check the numbers and the pattern."""
        for name in ("rate", "decay"):
            if not 0 <= number(getattr(self, name)) < float("inf"):
                raise ValueError(f"`{name}` of a group must be at least 0. Received: {name}={getattr(self, name)!r}.")
        try:
            re.compile(self.pattern)
            re.compile(self._anchored)  # "(?i)a" is one alone only
        except (re.error, TypeError) as error:
            raise ValueError(f"`pattern` is no regular expression: {self.pattern!r} ({error}).") from error

    def matches(self, path: str) -> bool:
        """Whether the variable of this path belongs to the group."""
        return re.search(self._anchored, path) is not None

    @property
    def _anchored(self) -> str:
        return f"(?:^|/)(?:{self.pattern})"


# Scales, shifts and biases are not decayed: https://arxiv.org/abs/1812.01187, section 3.1.
NO_DECAY = ParameterGroup(r"(gamma|beta|scale|bias)$", decay=0.0)


def discriminative_rates(model: keras.Model, groups: int = 3, factor: float = 0.5) -> list[ParameterGroup]:
    """Split a network's layers into consecutive parts; each learns `factor` times as fast as the part behind it.

    Args:
        model: Built; its layers in their order are cut into parts with about equally many layers that have weights.
        groups: Number of parts, at least 2.
        factor: In (0, 1]; 1 / 2.6 in the source.

    Source: discriminative fine-tuning, https://arxiv.org/abs/1801.06146
    """
    # Of one model or another: the name of a Sequential is part of its layers' paths, but not after loading.
    models = {one.name for one in model._flatten_layers() if isinstance(one, keras.Model)}
    names: list[str] = []
    for variable in model.trainable_variables:  # in the order of the layers
        name = _without(models, variable.path.split("/")[:-1])
        if name not in names:
            names.append(name)
    if not names:
        raise ValueError("The model has no weights to train yet. Begin it with `keras.Input(shape)`, or unfreeze it.")
    if not 2 <= groups <= len(names):
        raise ValueError(f"`groups` must be 2 to {len(names)}, the layers with weights. Received: groups={groups}.")
    if not 0 < factor <= 1:
        raise ValueError(f"`factor` must lie in (0, 1]. Received: factor={factor}.")
    cuts = [round(part * len(names) / groups) for part in range(groups + 1)]
    before = f"(({'|'.join(map(re.escape, sorted(models)))})/)*"
    # The whole path, so that "block" means neither "stem/block" nor "block/conv".
    return [
        ParameterGroup(
            f"^{before}({'|'.join(map(re.escape, names[begin:end]))})/[^/]+$", rate=factor ** (groups - 1 - part)
        )
        for part, (begin, end) in enumerate(pairwise(cuts))
    ]


def _without(models: set[str], parts: list[str]) -> str:
    """The path without the models that it begins with."""
    while len(parts) > 1 and parts[0] in models:
        parts = parts[1:]
    return "/".join(parts)


def as_groups(groups: Sequence[ParameterGroup | Mapping[str, Any]] | None) -> list[ParameterGroup]:
    """Groups, also from the plain dicts of a saved optimiser."""
    if groups is not None and (isinstance(groups, str | Mapping) or not isinstance(groups, Sequence)):
        raise ValueError(f"`groups` must be a list of ParameterGroup. Received: {groups!r}.")
    known = set(ParameterGroup.__dataclass_fields__)
    for one in groups or ():
        if isinstance(one, Mapping) and not {"pattern"} <= set(one) <= known:
            raise ValueError(f"A group has `pattern`, and may have `rate` and `decay`. Received: {dict(one)}.")
    made = [ParameterGroup(**one) if isinstance(one, Mapping) else one for one in groups or ()]
    for one in made:
        if not isinstance(one, ParameterGroup):
            raise ValueError(f"`groups` must be a list of ParameterGroup. Received in it: {one!r}.")
    return made


def as_plain(groups: Sequence[ParameterGroup]) -> list[dict[str, Any]]:
    """Groups as plain dicts."""
    return [{**asdict(group), "rate": float(group.rate), "decay": float(group.decay)} for group in groups]


def factors(groups: Sequence[ParameterGroup], paths: Sequence[str]) -> list[tuple[float, float]]:
    """For every path the factors of rate and decay.

    Raises:
        ValueError: A group matches none of the paths.
    """
    for group in groups if paths else ():  # without any, Keras is loading an .h5 file
        if not any(group.matches(path) for path in paths):
            shown = ", ".join(paths[:12]) + (", ..." if len(paths) > 12 else "")
            raise ValueError(f"The group {group.pattern!r} matches no variable. There are {len(paths)}: {shown}.")
    found = []
    for path in paths:
        rate = decay = 1.0
        for group in groups:
            if group.matches(path):
                rate, decay = rate * group.rate, decay * group.decay
        found.append((rate, decay))
    return found
