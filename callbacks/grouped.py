"""What this package's optimisers add to Keras': parameter groups, gradient noise, schedules for more than the rate."""

import difflib
import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import keras
from keras import ops

from callbacks.combinators import CyclicMomentum
from callbacks.gradient_noise import GradientNoise
from callbacks.groups import ParameterGroup, as_groups, as_plain, factors
from callbacks.rates import LearningRateSchedule
from callbacks.schedules import number

# `Grouped` is mixed into subclasses of it only, and so relies on what they have.
_Base: Any = object
_serialize, _deserialize = keras.saving.serialize_keras_object, keras.saving.deserialize_keras_object


class Grouped(_Base):
    """What this package adds to each of Keras' optimisers; stands before it in the list of base classes.

    Takes all arguments of Keras' class, by position and by name, and numbers of every kind as learning rate.

    Args:
        groups: `ParameterGroup`s; their factors multiply a variable's learning rate and weight decay.
        gradient_noise: `GradientNoise` to add to every gradient after clipping.

    Raises:
        ValueError: An option does not exist, or is of the wrong kind.
    """

    SCHEDULED: tuple[str, ...] = ()  # arguments, besides the learning rate, that may be schedules

    def __init_subclass__(cls, **options: Any) -> None:
        """Show Keras' arguments and those of this class in `help`."""
        super().__init_subclass__(**options)
        own = [one for one in inspect.signature(Grouped.__init__).parameters.values() if one.kind is one.KEYWORD_ONLY]
        theirs = list(_keras_signature(cls).parameters.values())[1:]
        if "__init__" in vars(cls):  # with arguments of its own first, all others by name
            first = list(inspect.signature(cls.__init__).parameters.values())[1:-1]
            names = [one.name for one in first]
            theirs = [*first, *(one.replace(kind=one.KEYWORD_ONLY) for one in theirs if one.name not in names)]
        cls.__signature__ = inspect.Signature([*(one for one in theirs if one.name != "kwargs"), *own])

    def __init__(
        self,
        *args: Any,
        groups: Sequence[ParameterGroup | Mapping[str, Any]] | None = None,
        gradient_noise: GradientNoise | None = None,
        **kwargs: Any,
    ) -> None:
        given = dict(_keras_signature(type(self)).bind(self, *args, **kwargs).arguments)
        del given["self"]
        self._check(given)
        if gradient_noise is not None and not isinstance(gradient_noise, GradientNoise):
            raise ValueError(f"`gradient_noise` must be a GradientNoise or None. Received: {gradient_noise!r}.")
        if "learning_rate" in given:
            given["learning_rate"] = _as_rate(given["learning_rate"])
        given.update({name: float(given[name]) for name in self.SCHEDULED if isinstance(given.get(name), Real)})
        schedules = {name: given[name] for name in self.SCHEDULED if isinstance(given.get(name), LearningRateSchedule)}
        # Keras' own classes want numbers; one that is not 0 lets them make their slots.
        super().__init__(**{**given, **dict.fromkeys(schedules, 0.9)})
        for name, schedule in schedules.items():
            setattr(self, name, schedule)
        self.groups = as_groups(groups)
        self.gradient_noise = gradient_noise
        self._active: tuple[int, ...] | None = None  # numbers, since Keras would take the variables for slots

    def _check(self, given: dict[str, Any]) -> None:
        kind, options = type(self).__name__, list(inspect.signature(type(self)).parameters)
        for name in given.pop("kwargs", {}):
            near = difflib.get_close_matches(name, options, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{kind} has no option {name!r}.{hint} There are: {', '.join(options)}.")
        for name, value in given.items():
            if isinstance(value, LearningRateSchedule) and name not in ("learning_rate", *self.SCHEDULED):
                raise ValueError(
                    f"`{name}` of {kind} must be a number, not a schedule. What can follow one: `learning_rate`, "
                    "`momentum` of SGD, and `beta_1` of Adam and AdamW."
                )
            if name.endswith("weight_decay") and value is not None and not 0 <= number(value) < math.inf:
                raise ValueError(f"`{name}` must be at least 0 and finite, or None. Received: {name}={value!r}.")

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Make the slots, and find the group of every variable.

        Raises:
            ValueError: A group matches no variable.
        """
        if self.built:
            return
        found = tuple(factors(self.groups, [variable.path for variable in variables]))
        super().build(variables)
        self._factors = found
        schedules = [self._learning_rate, *(getattr(self, name) for name in self.SCHEDULED)]
        for variable in [one for schedule in schedules for one in getattr(schedule, "variables", ())]:
            if not any(variable is known for known in self._variables):
                self._track_variable(variable)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Keras' step with the group's rate and decay and the noise."""
        index = self._get_variable_index(variable)
        if self.gradient_noise is not None:
            gradient = self.gradient_noise.add(gradient, index, self.iterations)
        rate, decay = self._factors[index]
        decay *= self._weight_decay_of(self._trainable_variables[index]) or 0.0
        if rate != 1:
            learning_rate = learning_rate * rate
        if decay and self._use_weight_decay(variable):
            kind = variable.dtype
            self.assign_sub(variable, variable * ops.cast(decay, kind) * ops.cast(learning_rate, kind))
        self._move(gradient, variable, learning_rate)

    def _move(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(gradient, variable, learning_rate)

    def _apply_weight_decay(self, variables: Iterable[Any]) -> None:
        """Nothing: `update_step` does it, which knows the variable's group."""

    def _weight_decay_of(self, variable: keras.Variable) -> float | None:
        return self.weight_decay

    def train_only(self, variables: Sequence[keras.Variable] | None) -> None:
        """Leave all but `variables` alone from the next compiled step on, their slots too; None trains all again.

        What gradient accumulation has gathered for the others is dropped.
        """
        if variables is None:
            self._active = None
            return
        self._check_variables_are_known(variables)
        active = tuple(self._get_variable_index(one) for one in variables)
        self._active = None if active == tuple(range(len(self._trainable_variables))) else active
        if self.gradient_accumulation_steps:
            for index, gathered in enumerate(self._accumulated_gradients):
                if index not in active:
                    gathered.assign(ops.zeros(gathered.shape, gathered.dtype))

    def stateless_apply(self, optimizer_variables: Any, grads: Any, trainable_variables: Any) -> Any:
        """JAX's way of `apply`; works for a part of the variables too."""
        if self._active is None:
            return super().stateless_apply(optimizer_variables, grads, trainable_variables)
        active, slots = [self._trainable_variables[number] for number in self._active], self.variables
        mapping = [*zip(active, trainable_variables, strict=True), *zip(slots, optimizer_variables, strict=True)]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            self.apply(grads, active)
        return [scope.get_current_value(one) for one in active], [scope.get_current_value(one) for one in slots]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as plain values."""
        config = super().get_config()
        schedules = {name: config[name] for name in self.SCHEDULED if isinstance(config[name], LearningRateSchedule)}
        config.update({name: _serialize(schedule) for name, schedule in schedules.items()})
        noise = None if self.gradient_noise is None else _serialize(self.gradient_noise)
        return {**config, "groups": as_plain(self.groups), "gradient_noise": noise}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
        """The optimiser of a `get_config`."""
        nested = {
            name: _deserialize(config[name], custom_objects=custom_objects)
            for name in ("gradient_noise", *cls.SCHEDULED)
            if isinstance(config.get(name), dict)
        }
        return super().from_config({**config, **nested}, custom_objects)


def _keras_signature(kind: Any) -> inspect.Signature:
    """Of the constructor of Keras' class that `Grouped` stands before."""
    return inspect.signature(kind.__mro__[kind.__mro__.index(Grouped) + 1].__init__)


def _as_rate(value: Any) -> Any:
    """A learning rate as Keras takes it."""
    if isinstance(value, CyclicMomentum):
        raise ValueError("CyclicMomentum is for `momentum` of SGD and `beta_1` of Adam, not for `learning_rate`.")
    if isinstance(value, LearningRateSchedule):
        return value
    try:
        rate = float("nan") if callable(value) else float(value)
    except (TypeError, ValueError):
        rate = float("nan")
    if not 0 <= rate < float("inf"):
        raise ValueError(
            "`learning_rate` must be a number of at least 0, or a LearningRateSchedule; a function would be called "
            f"once, when the step is compiled. Received: learning_rate={value!r}."
        )
    return rate
