"""`kerascnn recipes [NAME]`: the built-in recipes with their results, or one recipe as a TOML file."""

import textwrap
from dataclasses import fields

from apps.console import Console
from apps.recipe import Recipe, load_choices
from apps.recipe_file import parse_toml, recipe_toml
from apps.recipes import RECIPES

WIDTH = 120  # of running text


def recipes(name: str | None, console: Console) -> None:
    """Print all built-in recipes, or one: `name` is a built-in one's, a TOML file or the recipe.json of a run.

    Raises:
        FileNotFoundError, ValueError: There is no such recipe; a file's field does not fit.
    """
    if name is None:
        list_recipes(console)
    else:
        print(as_toml(name), end="")


def list_recipes(console: Console) -> None:
    """Print what every built-in recipe is, and its measured results."""
    column = max(map(len, RECIPES)) + 2
    for name in RECIPES:
        about = parse_toml(RECIPES.file(name).read_text(encoding="utf-8"), name)[1]
        said = [about.description, *(f"measured: {text}" for text in about.measured)]
        lines = []
        for text in said:
            lines += _wrap(text, WIDTH - column, indent="  ")
        console.say(f"{name:{column}}{lines[0]}")
        for line in lines[1:]:
            console.say(" " * column + line)
    console.say()
    console.say(
        "`kerascnn recipes NAME` prints one as a TOML file; `kerascnn compete DATA --recipe NAME|FILE` takes it."
    )


def as_toml(name: str) -> str:
    """A recipe as the TOML text with which `--recipe` trains alike; a comment names the fields it leaves open."""
    choices = load_choices(name)
    text = RECIPES.file(name).read_text(encoding="utf-8") if name in RECIPES else recipe_toml(choices)
    if left := [field.name for field in fields(Recipe) if field.name not in choices]:
        said = _wrap(f"Left open, for what suits the data or does nothing: {', '.join(left)}.", WIDTH - 2)
        text += "\n" + "".join(f"# {line}\n" for line in said)
    return text


def _wrap(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)
