"""The losses of several heads in one: weighed by fixed numbers, or by weights that are learned."""

from collections.abc import Collection
from dataclasses import replace

from apps.data import Data, keras_names
from apps.recipe import Recipe, near_name
from callbacks import ParameterGroup


def loss_weights(recipe: Recipe, heads: Collection[str]) -> dict[str, float]:
    """What every head's loss is multiplied with: the recipe's weights, 1 for heads it does not name, with the sum 1.

    Raises:
        ValueError: The recipe weighs a head that is none of `heads`.
    """
    given = recipe.head_weights or {}
    for name in given:
        if name not in heads:
            raise ValueError(
                f"`head_weights` has an entry for {name!r}, which is no head.{near_name(name, list(heads))} "
                f"Heads: {', '.join(heads)}."
            )
    total = sum(given.get(head, 1.0) for head in heads)
    return {head: given.get(head, 1.0) / total for head in heads}


def check_heads(recipe: Recipe, heads: Collection[str]) -> None:
    """Raise a `ValueError` where the recipe's losses do not fit the heads, in the names of the user."""
    loss_weights(recipe, heads)
    if recipe.head_loss == "uncertainty" and len(heads) < 2:
        raise ValueError(
            "`head_loss=uncertainty` learns how much each of several heads counts, and there is only one: "
            f"{', '.join(heads)}. Leave it out."
        )


def in_keras_names(recipe: Recipe, data: Data) -> tuple[Recipe, Data]:
    """Both with every head called as Keras allows."""
    names = keras_names(data.classes)
    weights = recipe.head_weights and {names.get(head, head): weight for head, weight in recipe.head_weights.items()}
    return replace(recipe, head_weights=weights), data.with_keras_names()


def log_variances_group(recipe: Recipe, heads: int) -> ParameterGroup:
    """The rate of learned weights, whatever that of the network; without decay, which would pull them to 1.

    At the highest rate a head's log-variance moves by a tenth of its gradient in the published sum, momentum included,
    and so follows the mean loss of some twenty batches; AdamW, whose steps have one size, moves it by 0.01.
    """
    step = 0.01 if recipe.optimizer == "adamw" else 0.1 * heads * (1 - recipe.momentum)
    return ParameterGroup("log_variances$", rate=step / recipe.lr, decay=0.0)
