"""The network of a recipe: built for its data, checked before any training, and compiled."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import keras
import numpy as np

import kerascnn
from apps.data import Data, evenly_spaced
from apps.heads import check_heads, log_variances_group, loss_weights
from apps.kept_weights import cycles_schedule
from apps.phases import phases
from apps.recipe import NETWORK_OPTIONS, Recipe
from callbacks import NO_DECAY, HardestExamples, MacroF1, OneCycleSchedule, Paced, ParameterGroup, get_optimizer
from kerascnn.graph import functional
from kerascnn.imagenet import check_published
from kerascnn.layer_table import without_values
from kerascnn.whitening import PIXELS, PatchWhitening
from pipelines.stream import read_batches

ANY_SIZE = (None, None)


def build_network(recipe: Recipe, data: Data, precision: str, any_size: bool = False) -> keras.Model:
    """The recipe's network with the normalisation of these pictures, computing in `precision`.

    With `transfer` it has the published weights and their normalisation, and what they leave is frozen. With
    `any_size` it takes pictures of every size, which networks that flatten them cannot. Before it is trained,
    `whiten` fits its first layer.
    """
    mean, std = data.statistics
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    try:
        model = _build(recipe, data.num_classes, ANY_SIZE if any_size else recipe.image_size, mean=mean, std=std)
    finally:
        keras.config.set_dtype_policy(policy)
    if recipe.transfer != "none":
        model = kerascnn.transfer(model, recipe.transfer)
    # Learned weights of the losses are weights of the model: what checkpoints keep, and what snapshots put back.
    return kerascnn.uncertainty_weighted(model, mean=True) if recipe.head_loss == "uncertainty" else model


def network_alone(model: keras.Model) -> keras.Model:
    """The network of `build_network`, of the same layers, without learned weights of the losses."""
    return functional(model) if hasattr(model, "log_variances") else model


def whiten(model: keras.Model, data: Data) -> None:
    """Fit the whitening of a network that has one to some of the pictures."""
    if any(isinstance(layer, PatchWhitening) for layer in model.layers):
        some = evenly_spaced(data.pictures, max(1, PIXELS // math.prod(data.pictures.shape[1:3])))
        kerascnn.fit_whitening(model, np.concatenate([*read_batches(some, 100)]))


def check_network(recipe: Recipe, num_classes: Mapping[str, int]) -> None:
    """Raise a `ValueError` where the recipe's network cannot be; takes a moment, since no weights are made."""
    check_heads(recipe, num_classes)
    if recipe.transfer != "none":
        check_published(recipe.model)
    smaller = list(dict.fromkeys(phase.size for phase in phases(recipe) if phase.size))
    for size in (*([ANY_SIZE] if smaller else []), *smaller, recipe.image_size):
        without_values(partial(_build, recipe, num_classes, size))


def _build(
    recipe: Recipe, num_classes: Mapping[str, int], size: tuple[int | None, int | None], **options: Any
) -> keras.Model:
    options |= {name: getattr(recipe, name) for name in NETWORK_OPTIONS if getattr(recipe, name) is not None}
    return kerascnn.build(recipe.model, (*size, 3), dict(num_classes), width=recipe.width, **options)


def compile_network(
    model: keras.Model,
    recipe: Recipe,
    classes: Mapping[str, int],
    total_steps: int,
    hardest: HardestExamples | None = None,
    paced: bool = False,
) -> None:
    """Attach the losses (their mean over the heads, weighted), the optimiser and the one-cycle schedule.

    `classes` and the recipe have heads in Keras' names (`heads.in_keras_names`). The schedule's pace can be changed
    where it is `paced`.
    """
    metrics = {head: [keras.metrics.CategoricalAccuracy(name="accuracy")] for head in classes}
    if recipe.score != "accuracy":  # what `apps.training.validation_score` looks for, in the validation's logs
        for head, values in metrics.items():
            values.append(
                MacroF1(classes[head])
                if recipe.score == "macro_f1"
                else keras.metrics.CategoricalCrossentropy(name="log_loss", from_logits=True)
            )
    if hardest is not None:
        for values in metrics.values():
            values.append(hardest.metric())
    model.compile(
        make_optimizer(recipe, total_steps, len(classes), paced),
        loss={head: keras.losses.CategoricalCrossentropy(from_logits=True, name=head) for head in classes},
        loss_weights=None if recipe.head_loss == "uncertainty" else loss_weights(recipe, classes),
        weighted_metrics=metrics,
        # On processors XLA makes TensorFlow's step slower; JAX without it runs every operation on its own.
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )


def make_optimizer(recipe: Recipe, total_steps: int, heads: int = 1, paced: bool = False) -> keras.optimizers.Optimizer:
    """The recipe's optimiser, its rate on the one-cycle schedule or its snapshots', `paced` if wanted."""
    rate: keras.optimizers.schedules.LearningRateSchedule = OneCycleSchedule(
        recipe.lr, total_steps, warmup=recipe.warmup, tail=0.0, final_factor=1e-4, curve=recipe.curve
    )
    if recipe.snapshots > 1:
        rate = cycles_schedule(recipe, total_steps)
    rate = Paced(rate) if paced else rate
    groups = [NO_DECAY]
    if recipe.bias_rate != 1:
        groups.append(ParameterGroup(r"(beta|bias)$", rate=recipe.bias_rate))
    if recipe.head_rate != 1:
        groups.append(ParameterGroup("head_.*kernel$", rate=recipe.head_rate))
    if recipe.head_loss == "uncertainty":
        groups.append(log_variances_group(recipe, heads))
    options: dict[str, Any] = {"groups": groups, "weight_decay": recipe.weight_decay}
    if recipe.optimizer != "adamw":
        options["momentum"] = recipe.momentum
    return get_optimizer(recipe.optimizer, rate, **options)
