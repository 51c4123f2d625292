"""The alarms of a training: what they look at, and what to do in the words of the command line."""

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from apps.console import Console
from apps.data import Data
from apps.phases import phases
from apps.recipe import Recipe
from callbacks import Alarms
from pipelines import make_eval

SAMPLE = 2_000  # training pictures, at most, that a validation above training is compared with


class Evaluated:
    """The pictures of `index` without augmentation; the batches take memory while they are gone through only."""

    def __init__(self, data: Data, index: np.ndarray) -> None:
        self.data, self.index = data, index

    def __iter__(self) -> Iterator[Any]:
        """Batches (x, {head: y}, {head: weight})."""
        some = self.data.take(self.index)
        return iter(make_eval(some.pictures, some.labels, some.num_classes))


def make_alarms(
    recipe: Recipe,
    data: Data,
    names: Mapping[str, str],
    train_index: np.ndarray,
    val_index: np.ndarray,
    console: Console,
    what: str,
) -> Alarms:
    """The alarms of a training on `train_index` that is watched on `val_index`.

    Args:
        recipe: Resolved.
        data: With heads in Keras' names.
        names: By these, the user's.
        train_index, val_index: Places in `data`.
        console: Shows them as warnings.
        what: How to call the training there.
    """
    each = phases(recipe)
    full_size = next(phase.epochs[0] for phase in each if phase.size is None)
    weighs = len(data.classes) > 1 and recipe.head_loss == "fixed"
    others = f", or let it count more than the other{'s' if len(data.classes) > 2 else ''} (`--set head_weights=...`)"
    return Alarms(
        Evaluated(data, val_index),
        Evaluated(data, train_index[:: -(-len(train_index) // SAMPLE)]),
        data.classes,
        names,
        start_epoch=max(math.ceil(recipe.warmup * recipe.epochs), full_size),
        balanced=recipe.balance != "none",
        changes=[
            later.epochs[0]
            for earlier, later in pairwise(each)
            if (earlier.size, earlier.share) != (later.size, later.share)
        ],
        advice={
            "majority": (
                "Train for longer (`--epochs`), with a higher or lower rate (`--lr`), weigh rare classes up "
                f"(`--balance weights`){others if weighs else ''}. It may also be that the pictures "
                "do not tell it."
            ),
            "resume": (
                "Pictures trained on before may be held out now: the expected score would be too high. Start a new run."
            ),
            "above": (
                "The expected score may be too high: let `kerascnn check` look for copies of the same pictures on both "
                "sides of the split, and see whether those held out are of another, easier kind."
            ),
        },
        say=lambda text: console.warn(f"{what}: {text}"),
    )
