"""The named recipes, a TOML file each: some fields of a recipe; the others are worked out from the data."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

Choices = Mapping[str, Any]  # some fields of a recipe, by name

# What suits the networks of 94% on CIFAR-10 in 3.29 Seconds, https://arxiv.org/abs/2404.00498, whatever the data.
AIRBENCH: Choices = {
    "flips": "alternating",
    "optimizer": "muon_sgd",
    "curve": "linear",
    "warmup": 0.1,
    # Behind a scale of 1.702, SiLU is the sigmoid approximation of GELU times 1.702, in less than half of its time.
    "activation": "silu",
    "frozen_scale": 1.702,
    # The best epochs are the last: while the rate is high, accuracies of epochs differ by chance.
    "patience": 0,
}


class BuiltIn(Mapping[str, Choices]):
    """The choices of the recipes of this folder by name; a file is read when its choices are asked for."""

    folder = Path(__file__).parent

    def __getitem__(self, name: str) -> Choices:
        if name not in self._names():
            raise KeyError(name)
        return _read(self.file(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def file(self, name: str) -> Path:
        """Where a recipe stands."""
        return self.folder / f"{name}.toml"

    def _names(self) -> tuple[str, ...]:
        return _names(self.folder)


@cache
def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in folder.glob("*.toml")))


@cache
def _read(path: Path) -> Choices:
    from apps.recipe import check_choices
    from apps.recipe_file import parse_toml

    return MappingProxyType(dict(check_choices(parse_toml(path.read_text(encoding="utf-8"), path.name)[0])))


RECIPES = BuiltIn()
