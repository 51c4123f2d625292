"""What a trial of a search trains, and how it is scored."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import keras

from apps.console import Console
from apps.epoch_log import validation_score
from apps.heads import check_heads
from apps.network import check_network
from apps.plan import Plan, make_plan
from apps.ranges import Range, Space, around, parse_over
from apps.recipe import NETWORK_OPTIONS, Recipe, override
from apps.recipes import Choices
from apps.resolve import resolve, suitable_rates
from apps.search_folder import Order
from apps.study import FINE, Pruned, Trial
from apps.training import train
from pipelines.competition import Competition
from pipelines.pictures import choose_size, picture_sizes

OF_NETWORK = ("model", "width", "image_size", "scales", "optimizer", "transfer")  # beside NETWORK_OPTIONS


class Trainer:
    """The data, decoded and split, and the recipes that values make of what was asked for."""

    def __init__(
        self, competition: Competition, order: Order, strict: bool, console: Console, memory: float | None
    ) -> None:
        self.competition, self.order, self.strict, self.memory = competition, order, strict, memory
        self.plan: Plan = make_plan(competition, order.choices, strict, console, memory)
        if not len(self.plan.splits[0][1]):
            raise ValueError("`search` needs pictures held out for validation, and none are.")
        self.pictures = len(self.plan.encoded)
        self.size = choose_size(picture_sizes(self.plan.encoded))
        self.epochs = self._resolve(order.choices).epochs
        coarse = math.ceil(order.coarse * self.epochs) if order.coarse < 1 else int(order.coarse)
        if coarse > self.epochs:
            raise ValueError(f"`--coarse` must be at most the epochs, {self.epochs}. Received: {coarse}.")
        self.coarse_epochs = coarse

    def recipe(self, stage: str, values: Choices | None = None) -> Recipe:
        """The complete recipe with these values, as a trial of the stage trains it.

        Rates are those of the fine stage. A coarse trial has the one that corresponds to it: a short training with
        muon_sgd takes a lower rate. The rates of shifts and head stay where the rate of the kernels moves, as
        `resolve.suitable_rates` has them.

        Raises:
            ValueError: The values do not fit each other.
        """
        base, values = dict(self.order.choices), dict(values or {})
        choices = dict(override(base, values))
        recipe = self._resolve({**choices, "epochs": self.epochs})
        if recipe.optimizer == "muon_sgd" and "lr" in values and "lr" in base:
            settled = [name for name in ("bias_rate", "head_rate") if name in choices and name not in values]
            recipe = replace(recipe, **{name: getattr(recipe, name) * base["lr"] / recipe.lr for name in settled})
        if stage == FINE:
            return recipe
        short, full = (
            suitable_rates(recipe.optimizer, epochs, recipe.batch_size)["lr"]
            for epochs in (self.coarse_epochs, self.epochs)
        )
        factor = short / full
        corresponding = {"epochs": self.coarse_epochs, "lr": recipe.lr * factor}
        if recipe.optimizer == "muon_sgd":
            corresponding |= {"bias_rate": recipe.bias_rate / factor, "head_rate": recipe.head_rate / factor}
        return replace(recipe, **corresponding)  # type: ignore[arg-type]

    def fits(self, name: str, value: Any) -> bool:
        """Whether a field can have the value, and would keep it."""
        try:
            return bool(getattr(self.recipe(FINE, {name: value}), name) == value)
        except ValueError:
            return False

    def space(self) -> Space:
        """What is searched; every end of a range and every value was seen to fit.

        Raises:
            ValueError: One does not.
        """
        own, space, networks = self.recipe(FINE), {}, set()
        classes = {head: len(names) for head, names in self.plan.competition.classes.items()}
        for name, given in parse_over(self.order.over).items():
            found = around(name, getattr(own, name)) if given is None else given
            for value in (found.low, found.high) if isinstance(found, Range) else found.values:
                recipe = self.recipe(FINE, {name: value})
                check_heads(recipe, classes)
                network = tuple(getattr(recipe, field) for field in (*OF_NETWORK, *NETWORK_OPTIONS))
                if network not in networks:
                    check_network(recipe, classes)
                    networks.add(network)
                if getattr(recipe, name) != value:
                    raise ValueError(
                        f"`{name}` can be at most {getattr(recipe, name)} with {self.pictures} pictures. "
                        f"Received: {name}={value}."
                    )
            space[name] = found
        return space

    def first(self, space: Space) -> dict[str, Any]:
        """The recipe's own values, which every search should know the score of."""
        own = self.recipe(FINE)
        return {name: getattr(own, name) for name in space}

    def plan_for(self, recipe: Recipe) -> Plan:
        """The plan with the pictures at the recipe's size; only the last one is kept."""
        if recipe.image_size != self.plan.recipe.image_size:
            choices = {**asdict(recipe), "seed": self.plan.recipe.seed, "val": self.plan.recipe.val}
            self.plan = make_plan(self.competition, choices, self.strict, Silent(quiet=True), self.memory)
        return self.plan

    def score(self, trial: Trial, parent: int | None) -> float:
        """Train the trial's recipe; with folds, the mean of their scores, and only the first one is pruned.

        Raises:
            Pruned: It is worse than others at the same epoch.
            ValueError: It diverged, or its values do not fit each other.
        """
        recipe = self.recipe(trial.stage, trial.values)
        plan = self.plan_for(recipe)
        heads = list(plan.data.with_keras_names().classes)
        scores = []
        for number, (train_index, val_index) in enumerate(plan.splits):
            watch = Watch(trial, recipe, heads, number == 0, parent)
            folder = trial.folder / str(number)
            one = train(recipe, plan.data, train_index, val_index, folder, Silent(quiet=True), callbacks=[watch])
            scores.append(math.nan if one.score is None else one.score)
            del one
        if not math.isfinite(score := sum(scores) / len(scores)):
            raise ValueError("no epoch had a finite score")
        return score

    def _resolve(self, choices: Choices) -> Recipe:
        own_validation = bool((self.plan.competition.train["part"] == "val").any())
        return resolve(choices, self.pictures, self.size, list(self.plan.competition.classes.values()), own_validation)


class Silent(Console):
    """Of trials, nothing is said but how they end."""

    def warn(self, line: str) -> None:
        """Nothing."""


class Watch(keras.callbacks.Callback):
    """Tell a trial its score after every epoch, and stop it when it is hopeless, never in the warm-up.

    Args:
        trial: Told of every epoch.
        recipe: Of the training.
        heads: Whose score counts.
        prunes: Whether this training, the trial's first, may be stopped.
        parent: The process without which this one has no reason to go on.
    """

    def __init__(self, trial: Trial, recipe: Recipe, heads: Sequence[str], prunes: bool, parent: int | None) -> None:
        super().__init__()
        self.trial, self.heads, self.prunes, self.parent = trial, list(heads), prunes, parent
        self.by = recipe.score
        self.warmup, self.epochs = math.ceil(recipe.warmup * recipe.epochs), recipe.epochs

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Report, and raise `Pruned` where the trial is hopeless."""
        stop_without(self.parent)
        self.trial.report(validation_score(logs or {}, self.heads, self.by))
        if self.prunes and self.warmup < epoch + 1 < self.epochs and self.trial.is_hopeless():
            raise Pruned


def stop_without(parent: int | None) -> None:
    """Raise `KeyboardInterrupt` in a process whose parent has died."""
    if parent is not None and os.getppid() != parent:
        raise KeyboardInterrupt
