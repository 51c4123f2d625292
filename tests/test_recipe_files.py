"""Recipes as TOML files: the built-in ones, those of users, and back."""

import json
import re
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from apps.recipe import Recipe, load_choices
from apps.recipe_file import About, parse_toml, recipe_toml
from apps.recipes import RECIPES
from apps.resolve import resolve

ANIMALS = ["cat", "dog"]


def every_field() -> Recipe:
    """A recipe in which every field has a value of its own, and floats are awkward."""
    values = asdict(resolve({}, 1000, (32, 40), [ANIMALS]))
    values |= {"lr": 1e-4, "weight_decay": 1e-320, "momentum": 0.1 + 0.2, "warmup": 5 / 24, "bias_rate": 1e22}
    values |= {
        "scales": ((0.5, 0.2), (2 / 3, 0.3)),
        "image_size": (48, 32),
        "val": 'held "out"\\2.csv',
        "stem": "small",
    }
    values |= {"head_weights": {"label": 2.0, 'kids, "a".b = 1': 0.1}}
    values |= {"activation": "silu", "norm": "group", "dropout": 0.1, "stochastic_depth": 1e-9, "se": 4}
    values |= {"l1": 0.0, "l2": 5e-5, "initializer": "dirac", "input_noise": 3.0, "frozen_scale": 1.702, "whitening": 2}
    return Recipe(**values)


@pytest.mark.parametrize("absent", [(), ("stem", "val", "frozen_scale", "whitening", "activation")])
def test_recipe_written_and_loaded_is_the_same_recipe(tmp_path, absent) -> None:
    recipe = Recipe(**{**asdict(every_field()), **dict.fromkeys(absent)})
    assert all(value is None for name, value in asdict(recipe).items() if name in absent)
    path = tmp_path / "mine.toml"
    path.write_text(recipe_toml(recipe, About('a "b"', ("94.0 %, \\ 3 s", "b"))), encoding="utf-8")
    loaded = load_choices(str(path))
    assert set(loaded) == {field.name for field in fields(Recipe)}
    assert Recipe(**loaded) == recipe
    assert parse_toml(path.read_text(), "mine.toml")[1] == About('a "b"', ("94.0 %, \\ 3 s", "b"))
    # Nor does what suits the data take the place of what is None.
    allowed = {**loaded, "val": 0.1, "lr": 0.5}
    assert asdict(resolve(allowed, 1000, (48, 32), [ANIMALS])) == {**asdict(recipe), "val": 0.1, "lr": 0.5}


def test_every_built_in_recipe_says_what_it_is_and_settles_what_its_file_says() -> None:
    assert list(RECIPES) == ["cifar10-best", "cifar10-classic", "cifar10-fast", "default", "digits"]
    for name in RECIPES:
        about = parse_toml(RECIPES.file(name).read_text(encoding="utf-8"), name)[1]
        assert about.description
        assert about.measured
    fast = RECIPES["cifar10-fast"]
    assert (fast["model"], fast["scales"], fast["lr"], fast["image_size"]) == (
        "airbench94",
        ((0.75, 0.5),),
        0.045,
        (32, 32),
    )
    assert RECIPES["cifar10-classic"]["warmup"] == 5 / 24
    assert "nonsense" not in RECIPES
    with pytest.raises(TypeError):  # nobody changes a recipe for all others
        fast["lr"] = 1.0


def test_listed_recipes_and_a_printed_one_that_is_taken_again(run_here, tmp_path) -> None:
    process = run_here("recipes")
    assert process.returncode == 0, process.stderr
    for name in RECIPES:
        assert re.search(rf"^{name} +\S", process.stdout, re.MULTILINE)
    assert "measured: 93.7, 93.2 and 93.0 %" in process.stdout
    assert max(map(len, process.stdout.splitlines())) <= 120
    for name in RECIPES:
        (tmp_path / "printed").write_text(run_here("recipes", name).stdout, encoding="utf-8")
        assert dict(load_choices("printed")) == dict(RECIPES[name])
    assert "# Left open" in (tmp_path / "printed").read_text()
    # What is added at the end of a printed file belongs to the recipe, not to what is said about it.
    (tmp_path / "printed").write_text(run_here("recipes", "digits").stdout + "lr = 0.25\n", encoding="utf-8")
    assert load_choices("printed") == {**RECIPES["digits"], "lr": 0.25}


def test_recipe_of_a_run_becomes_a_file(run_here, tmp_path) -> None:
    recipe = every_field()
    (tmp_path / "recipe.json").write_text(json.dumps({"data": "x", "recipe": asdict(recipe)}))
    (tmp_path / "mine.toml").write_text(run_here("recipes", "recipe.json").stdout, encoding="utf-8")
    assert Recipe(**load_choices("mine.toml")) == recipe
    assert "# Left open" not in (tmp_path / "mine.toml").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr = 0.1\nepochs == 3\n", r"^broken.toml is not TOML: .*line 2.*\.$"),
        ("lr = 0.1\nlr = 0.2\n", r"is not TOML: .*line 2"),
        ("learning = 0.1\n", "A recipe has no field 'learning'"),
        ("weigth_decay = 0.1\n", "Did you mean 'weight_decay'"),
        ("epochs = 2.5\n", "`epochs` must be a whole number. Received: epochs=2.5"),
        ("lr = nan\n", "`lr` must be a number"),
        ("[augmentation]\ncutout = 8\n", "A recipe has no field 'augmentation'"),
        ("[about]\ndescription = 'x'\nlr = 0.1\n", r"no 'lr'. Fields of the recipe stand above \[about\]"),
        ("about.descriptoin = 'x'\n", "Did you mean 'description'"),
        ("about = 3\n", "`about` in broken.toml must hold"),
        ("about.measured = 'x'\n", "must be a list of texts"),
        ("about.description = 3\n", "`about.description` in broken.toml must be a text"),
        ("unset = 'stem'\n", "`unset` in broken.toml must list names"),
        ("unset = ['stemm']\n", "Did you mean 'stem'"),
        ("unset = ['epochs']\n", "`epochs` must be a whole number. Received: epochs=None"),
        ("stem = 'small'\nunset = ['stem']\n", "gives stem a value and lists it in `unset`"),
    ],
)
def test_broken_recipe_file_is_told_in_one_line(tmp_path, monkeypatch, text, message) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.toml").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        load_choices("broken.toml")
    assert "\n" not in str(error.value)


def test_file_that_is_no_text_is_told_in_one_line(tmp_path) -> None:
    (tmp_path / "picture.toml").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match="is no text in UTF-8"):
        load_choices(str(tmp_path / "picture.toml"))


def test_names_of_recipes_are_known_without_reading_a_file_and_without_heavy_imports() -> None:
    code = (
        "import sys, apps.options, apps.recipes as r; print(sorted(set(sys.modules) & {'tomllib', 'numpy', 'keras'}))"
    )
    root = Path(__file__).resolve().parent.parent
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert process.stdout.strip() == "[]"
