"""Recipes as TOML texts: flat, every field of a recipe at the top, and what is said of it under `about`."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apps.recipe import Recipe

UNSET = "unset"  # the key that lists the fields which are None: TOML has no null


@dataclass(frozen=True)
class About:
    """What a recipe's file says of it beside the fields.

    Attributes:
        description: What it is, in a line.
        measured: Results, a text each, with machine and command.
    """

    description: str = ""
    measured: tuple[str, ...] = ()


def parse_toml(text: str, name: str) -> tuple[dict[str, Any], About]:
    """The fields that a TOML text settles, names and values not yet checked, and what it says about the recipe.

    Args:
        text: Of the file.
        name: Of the file, for errors.

    Raises:
        ValueError: It is not TOML (with the line), or a text under `about` is none.

    >>> parse_toml('about.description = "short"\\nepochs = 5\\nunset = ["stem"]', "short.toml")
    ({'epochs': 5, 'stem': None}, About(description='short', measured=()))
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{name} is not TOML: {error}.") from error
    about = _about(values.pop("about", {}), name)
    unset = values.pop(UNSET, [])
    if not isinstance(unset, list) or not all(isinstance(field, str) for field in unset):
        raise ValueError(f"`{UNSET}` in {name} must list names of fields that are None. Received: {unset!r}.")
    if twice := [field for field in unset if field in values]:
        raise ValueError(f"{name} gives {twice[0]} a value and lists it in `{UNSET}`. Leave one out.")
    return {**values, **dict.fromkeys(unset)}, about


def recipe_toml(recipe: "Recipe | Mapping[str, Any]", about: About | None = None) -> str:
    """A recipe, or some fields of one, as the TOML text that is read as exactly the same.

    >>> print(recipe_toml({"lr": 1e-4, "scales": ((0.75, 0.5),), "head_weights": {"kids": 2.0}, "stem": None}), end="")
    lr = 0.0001
    scales = [[0.75, 0.5]]
    head_weights = { "kids" = 2.0 }
    unset = ["stem"]
    """
    values = dict(recipe) if isinstance(recipe, Mapping) else asdict(recipe)
    if unset := [name for name, value in values.items() if value is None]:
        values[UNSET] = unset
    lines = []
    if about is not None:
        lines += [f"about.description = {_inline(about.description)}"]
        lines += [f"about.measured = {_inline(about.measured)}"] if about.measured else []
        lines += [""]
    for name, value in values.items():
        if value is not None:
            lines.append(f"{name} = {_inline(value)}")
    return "\n".join(lines) + "\n"


def _inline(value: Any) -> str:
    """A value of TOML on one line."""
    import tomli_w

    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_inline(key)} = {_inline(one)}' for key, one in value.items())} }}"
    return tomli_w.dumps({"a": value}).removeprefix("a = ").rstrip("\n")


def _about(said: Any, name: str) -> About:
    if not isinstance(said, dict):
        raise ValueError(f"`about` in {name} must hold `description` and `measured`. Received: {said!r}.")
    for key in said:
        if key not in ("description", "measured"):
            near = difflib.get_close_matches(key, ["description", "measured"], n=1)
            hint = f" Did you mean {near[0]!r}?" if near else " Fields of the recipe stand above [about]."
            raise ValueError(f"`about` in {name} has `description` and `measured`, and no {key!r}.{hint}")
    description, measured = said.get("description", ""), said.get("measured", [])
    if not isinstance(description, str):
        raise ValueError(f"`about.description` in {name} must be a text. Received: {description!r}.")
    if not isinstance(measured, list) or not all(isinstance(text, str) for text in measured):
        raise ValueError(f"`about.measured` in {name} must be a list of texts. Received: {measured!r}.")
    return About(description, tuple(measured))
