"""Freeze layers for some epochs of one `fit`, and release them, without losing anything the optimiser knows."""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from callbacks.rates import unwrapped


class Freeze(keras.callbacks.Callback):
    """Keep layers as they are while `first_epoch <= epoch < until`; then they learn on, their momentum unforgotten.

    A frozen layer costs no gradient, and a frozen BatchNorm uses its moving statistics. The step is compiled anew when
    freezing begins and ends. After `fit` every layer is as trainable as before it; where a `fit` ended by an error,
    the next one with a `Freeze` sees to that, or `release`. Several can be used at once, also for the same layers.

    A model that is saved with `model.save` while layers are frozen is loaded with these frozen and, by Keras, without
    the optimiser's state; `Checkpoint` has no such limit.

    Args:
        layers: Regular expression that must fit from the beginning of a layer's name.
        until: Epoch from which the layers learn again; None keeps them frozen to the end.
        first_epoch: First epoch without learning.

    Raises:
        ValueError: In `on_train_begin`, where no layer fits, where the optimiser has `use_ema`, or, on JAX, where it
            is not of this package: Keras' own cannot leave out a part of the variables there. Before the first step
            of an epoch in which nothing is left to train.

    >>> callback = Freeze("stem|stage1", until=3)
    """

    def __init__(self, layers: str, until: int | None = None, first_epoch: int = 0) -> None:
        super().__init__()
        if first_epoch < 0 or (until is not None and until <= first_epoch):
            raise ValueError(
                "`until` must be above `first_epoch`, which must be at least 0. "
                f"Received: first_epoch={first_epoch}, until={until}."
            )
        try:
            re.compile(layers)
        except re.error as error:
            raise ValueError(f"`layers` is no regular expression: {layers!r} ({error}).") from error
        self.layers, self.until, self.first_epoch = layers, until, first_epoch

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Find the layers."""
        model = self.model
        _release_all(model)  # what an error had left
        _check_optimizer(model.optimizer)
        everything = [layer for layer in model._flatten_layers(include_self=False) if layer.weights]
        fitting = [layer for layer in everything if re.match(self.layers, layer.name)]
        self._found = [layer for layer in fitting if layer.trainable]
        if not everything:
            raise ValueError("The model has no weights yet. Begin it with `keras.Input(shape)`, or call it on a batch.")
        if not self._found:
            names = ", ".join(layer.name for layer in everything)
            why = "only layers that are not trainable anyway" if fitting else "no layer with weights"
            raise ValueError(f"`layers` fits {why}: {self.layers!r}. There are: {names}.")
        if not model.optimizer.built:  # on all weights, so that slots of all are there from the beginning
            model.optimizer.build(model.trainable_variables)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Freeze or release, where this epoch differs from the one before."""
        if not self.first_epoch <= epoch or (self.until is not None and epoch >= self.until):
            self.release()
        elif id(self) not in _frozen(self.model):
            _set_frozen(self.model, {**_frozen(self.model), id(self): self._found})

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Raise where all that could be trained has been frozen."""
        if batch == 0 and not self.model.trainable_variables:
            raise ValueError(f"Nothing is left to train: {self.layers!r} and whatever else is frozen are all layers.")

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Release."""
        self.release()

    def release(self) -> None:
        """Let the layers learn again; to be called only after a `fit` that ended by an error."""
        frozen = dict(_frozen(self.model)) if self.model is not None else {}
        if frozen.pop(id(self), None) is not None:
            _set_frozen(self.model, frozen)


class _Trainable:
    """What of a model was trainable before anything was frozen."""

    def __init__(self, model: keras.Model) -> None:
        self.layers = [(layer, layer.trainable) for layer in model._flatten_layers(include_self=False)]
        self.variables = [(variable, variable.trainable) for variable in model.variables]

    def restore(self) -> None:
        """Make it so again."""
        for layer, trainable in self.layers:  # the outer ones first: they set the inner ones too
            layer.trainable = trainable
        for variable, trainable in self.variables:
            variable.trainable = trainable


def _frozen(model: keras.Model) -> dict[int, Sequence[keras.layers.Layer]]:
    """The layers that are frozen at present, by the callback that wants it."""
    return vars(model).get("_freeze", (None, {}))[1]


def _set_frozen(model: keras.Model, frozen: Mapping[int, Sequence[keras.layers.Layer]]) -> None:
    # Through `vars`, so that Keras does not track the layers a second time.
    before, _ = vars(model).pop("_freeze", None) or (_Trainable(model), {})
    before.restore()
    for layer in [one for layers in frozen.values() for one in layers]:
        layer.trainable = False
    if frozen:
        vars(model)["_freeze"] = before, frozen
    optimizer = unwrapped(model.optimizer)
    if optimizer.built:
        _check_known(optimizer, model)
        if hasattr(optimizer, "train_only"):
            optimizer.train_only(model.trainable_variables)
    compile_anew(model)


def _release_all(model: keras.Model) -> None:
    if _frozen(model):
        _set_frozen(model, {})


def _check_optimizer(optimizer: Any) -> None:
    optimizer = unwrapped(optimizer)
    if getattr(optimizer, "use_ema", False):
        raise ValueError(
            "Freeze does not go together with `use_ema=True` of the optimiser. Use `WeightAverage` instead."
        )
    several, on_jax = hasattr(optimizer, "optimizers"), keras.backend.backend() == "jax"
    if several or (on_jax and not hasattr(optimizer, "train_only")):
        raise ValueError(
            f"{'' if several else 'On JAX, '}keras.optimizers.{type(optimizer).__name__} cannot train a part of the "
            "weights. Use an optimiser of this package, such as `callbacks.SGD`."
        )


def _check_known(optimizer: Any, model: keras.Model) -> None:
    known = {id(variable) for variable in optimizer._trainable_variables}
    missing = [variable.path for variable in model.trainable_variables if id(variable) not in known]
    if missing:
        raise ValueError(
            f"The optimiser was made while these weights did not learn, perhaps after a `fit` that ended by an error: "
            f"{', '.join(missing)}. They can learn now: call `model.compile` with a new optimiser, and `fit` again."
        )


def compile_anew(model: keras.Model) -> None:
    """Let Keras compile the model's steps again when they are next needed, with everything as it is then."""
    if keras.backend.backend() != "jax":
        model.make_train_function(force=True)
        return
    for name in ("train", "test"):
        # New objects: JAX would find what it has compiled for an equal one that is still referred to somewhere.
        attributes, step = vars(model), f"{name}_step"
        own = {step: attributes[step]} if step in attributes else {}
        attributes[step] = functools.partial(getattr(model, step))
        getattr(model, f"make_{name}_function")(force=True)
        del attributes[step]
        attributes.update(own)
    if model.predict_function is not None:
        model.make_predict_function(force=True)
