"""Keras' optimisers with parameter groups, gradient noise, partial freezing, and momentum that follows a schedule.

Whatever is set here is part of the training graph and of the saved model.
"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from callbacks.gradient_noise import GradientNoise
from callbacks.groups import ParameterGroup, as_groups, as_plain, factors
from callbacks.rates import LearningRateSchedule

_register = keras.saving.register_keras_serializable(package="callbacks")
_serialize, _deserialize = keras.saving.serialize_keras_object, keras.saving.deserialize_keras_object


class Grouped:
    """What this package adds to each of Keras' optimisers; stands before it in the list of base classes.

    Args:
        groups: `ParameterGroup`s; their factors multiply a variable's learning rate and weight decay.
        gradient_noise: `GradientNoise` to add to every gradient after clipping.
    """

    DECAYS: tuple[str, ...] = ("weight_decay",)  # attributes of Keras' optimiser that hold a weight decay
    SCHEDULED: tuple[str, ...] = ()  # arguments, besides the learning rate, that may be schedules

    def __init__(
        self,
        *args: Any,
        groups: Sequence[ParameterGroup | Mapping[str, Any]] | None = None,
        gradient_noise: GradientNoise | None = None,
        **kwargs: Any,
    ) -> None:
        schedules = {
            name: kwargs[name] for name in self.SCHEDULED if isinstance(kwargs.get(name), LearningRateSchedule)
        }
        # Keras' own classes want numbers; one that is not 0 lets them make their slots.
        super().__init__(*args, **{**kwargs, **dict.fromkeys(schedules, 0.9)})
        self.groups = as_groups(groups)
        self.gradient_noise = gradient_noise
        self._schedules = schedules
        self._active: list[keras.Variable] | None = None

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Make the slots, and find the group of every variable."""
        if self.built:
            return
        super().build(variables)  # type: ignore[misc]
        paths = [variable.path for variable in variables]
        # Keras turns lists that an optimiser holds into tracked ones; a tuple stays what it is.
        self._factors = tuple(factors(self.groups, paths))
        if self.gradient_noise is not None:
            self.gradient_noise.build(len(paths))
        for schedule in [self._learning_rate, *self._schedules.values()]:
            for variable in getattr(schedule, "variables", ()):
                self._track_variable(variable)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Keras' step with the group's rate and the noise."""
        index = self._get_variable_index(variable)
        if self.gradient_noise is not None:
            gradient = self.gradient_noise.add(gradient, index, self.iterations)
        rate = self._factors[index][0]
        self._move(gradient, variable, learning_rate * rate if rate != 1 else learning_rate)

    def _move(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(gradient, variable, learning_rate)  # type: ignore[misc]

    def _apply_weight_decay(self, variables: Iterable[Any]) -> None:
        """Keras' decay, once for all variables of equal factors."""
        usual = {name: getattr(self, name) for name in self.DECAYS}
        together: dict[float, list[Any]] = {}
        for variable in variables:
            rate, decay = self._factors[self._get_variable_index(variable)]
            together.setdefault(rate * decay, []).append(variable)
        try:
            for factor, members in together.items():
                for name, value in usual.items():
                    setattr(self, name, value * factor if value and factor else None)
                super()._apply_weight_decay(members)  # type: ignore[misc]
        finally:
            for name, value in usual.items():
                setattr(self, name, value)

    def train_only(self, variables: Sequence[keras.Variable] | None) -> None:
        """Leave all but `variables` alone from the next compiled step on, their slots too; None trains all again."""
        self._active = None if variables is None else list(variables)

    def stateless_apply(self, optimizer_variables: Any, grads: Any, trainable_variables: Any) -> Any:
        """JAX's way of `apply`; works for a part of the variables too."""
        active = self._active
        if active is None or len(trainable_variables) != len(active):
            return super().stateless_apply(optimizer_variables, grads, trainable_variables)  # type: ignore[misc]
        slots = self.variables
        mapping = [*zip(active, trainable_variables, strict=True), *zip(slots, optimizer_variables, strict=True)]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            self.apply(grads, active)
        return [scope.get_current_value(one) for one in active], [scope.get_current_value(one) for one in slots]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as plain values."""
        config = super().get_config()  # type: ignore[misc]
        schedules = {name: _serialize(schedule) for name, schedule in self._schedules.items()}
        noise = None if self.gradient_noise is None else _serialize(self.gradient_noise)
        return {**config, **schedules, "groups": as_plain(self.groups), "gradient_noise": noise}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
        """The optimiser of a `get_config`."""
        nested = {
            name: _deserialize(config[name], custom_objects=custom_objects)
            for name in ("gradient_noise", *cls.SCHEDULED)
            if isinstance(config.get(name), dict)
        }
        return super().from_config({**config, **nested}, custom_objects)  # type: ignore[misc]


@_register
class SGD(Grouped, keras.optimizers.SGD):
    """Stochastic gradient descent whose momentum may follow a schedule, also in Nesterov's form.

    Args:
        learning_rate: A float or a schedule.
        momentum: A float in [0, 1], or a schedule such as `CyclicMomentum`, which counts batches as the rate's does.
        nesterov: Whether to look ahead.
        **kwargs: `groups` and `gradient_noise` as in `Grouped`, the rest as in `keras.optimizers.SGD`; `weight_decay`
            is decoupled and multiplied by the rate.

    >>> from callbacks import CyclicMomentum, TriangularSchedule
    >>> rate = TriangularSchedule(0.01, 0.1, step_size=500)
    >>> SGD(rate, momentum=CyclicMomentum(rate), nesterov=True).name
    'SGD'
    """

    SCHEDULED = ("momentum",)

    def __init__(self, learning_rate: Any = 0.01, momentum: Any = 0.0, nesterov: bool = False, **kwargs: Any) -> None:
        super().__init__(learning_rate, momentum=momentum, nesterov=nesterov, **kwargs)

    def _move(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        schedule = self._schedules.get("momentum")
        if schedule is None:
            super()._move(gradient, variable, learning_rate)
            return
        # Keras asks `momentum != 0` in Python, which a value of the graph cannot answer.
        velocity = self.momentums[self._get_variable_index(variable)]
        kind = velocity.dtype
        momentum = ops.cast(schedule(self._iterations), kind)
        step = ops.cast(gradient, kind) * ops.cast(learning_rate, kind)
        self.assign(velocity, velocity * momentum - step)
        self.assign_add(variable, velocity * momentum - step if self.nesterov else velocity)


@_register
class Adam(Grouped, keras.optimizers.Adam):
    """Adam whose `beta_1` may follow a schedule; its bias is corrected with the value of the step, as in PyTorch.

    Args:
        learning_rate: A float or a schedule.
        beta_1: A float, or a schedule such as `CyclicMomentum`, which counts batches as the rate's does.
        **kwargs: `groups` and `gradient_noise` as in `Grouped`, the rest as in `keras.optimizers.Adam`.

    Source: https://arxiv.org/abs/1412.6980
    """

    SCHEDULED = ("beta_1",)

    def __init__(self, learning_rate: Any = 0.001, beta_1: Any = 0.9, **kwargs: Any) -> None:
        super().__init__(learning_rate, beta_1=beta_1, **kwargs)

    def _move(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        schedule, usual = self._schedules.get("beta_1"), self.beta_1
        try:
            if schedule is not None:
                self.beta_1 = ops.cast(schedule(self._iterations), variable.dtype)
            super()._move(gradient, variable, learning_rate)
        finally:
            self.beta_1 = usual


@_register
class AdamW(Adam):
    """Adam with decoupled weight decay. https://arxiv.org/abs/1711.05101"""

    def __init__(
        self, learning_rate: Any = 0.001, beta_1: Any = 0.9, weight_decay: float = 0.004, **kwargs: Any
    ) -> None:
        super().__init__(learning_rate, beta_1, weight_decay=weight_decay, **kwargs)


@_register
class Adagrad(Grouped, keras.optimizers.Adagrad):
    """AdaGrad. https://jmlr.org/papers/v12/duchi11a.html"""


@_register
class RMSprop(Grouped, keras.optimizers.RMSprop):
    """RMSProp. https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf"""


@_register
class Muon(Grouped, keras.optimizers.Muon):
    """Muon: momentum made orthogonal for matrices, AdamW for the rest.

    Convolution kernels count as matrices of (height * width * inputs) rows and (outputs) columns, which Keras' own
    class leaves to AdamW. Vectors, embeddings, depthwise kernels and layers of `exclude_layers` (patterns of their
    paths; the output layer is one by custom) are AdamW's.

    Source: https://kellerjordan.github.io/posts/muon/
    """

    DECAYS = ("weight_decay", "adam_weight_decay")

    def _should_use_adamw(self, variable: Any) -> bool:
        if len(variable.shape) < 2 or 1 in _as_matrix(variable.shape):
            return True
        if len(variable.shape) == 2:
            return super()._should_use_adamw(variable)
        return any(re.search(pattern, variable.path) for pattern in self.exclude_layers)

    def zeropower_via_newtonschulz5(self, x: Any, steps: int) -> Any:
        """The nearest orthogonal matrix, nearly, in the shape of `x`."""
        matrix = super().zeropower_via_newtonschulz5(ops.reshape(x, _as_matrix(x.shape)), steps)
        return ops.reshape(matrix, x.shape)

    def lr_adjust(self, x: Any) -> Any:
        """The update times `rms_rate * sqrt(larger side of the matrix)`, so that Adam's rates fit."""
        return x if self.rms_rate is None else x * self.rms_rate * math.sqrt(max(_as_matrix(x.shape)))


def _as_matrix(shape: Sequence[int]) -> tuple[int, int]:
    return math.prod(shape[:-1]), shape[-1]


OPTIMIZERS: dict[str, tuple[type, dict[str, Any]]] = {
    "sgd": (SGD, {}),
    "momentum": (SGD, {"momentum": 0.9}),
    "nesterov": (SGD, {"momentum": 0.9, "nesterov": True}),
    "adagrad": (Adagrad, {}),
    "rmsprop": (RMSprop, {}),
    "adam": (Adam, {}),
    "adamw": (AdamW, {}),
    "muon": (Muon, {}),
}


def get_optimizer(name: str, learning_rate: Any, **options: Any) -> Any:
    """An optimiser by name: sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw or muon.

    Args:
        name: As above.
        learning_rate: A number or a schedule.
        **options: Of the optimiser's class, such as `momentum`, `weight_decay` or `groups`.

    Raises:
        ValueError: There is no such optimiser or option.

    >>> get_optimizer("nesterov", 0.1, momentum=0.95).nesterov
    True
    """
    if name not in OPTIMIZERS:
        near = difflib.get_close_matches(name, OPTIMIZERS, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"There is no optimiser {name!r}. There are: {', '.join(OPTIMIZERS)}.{hint}")
    kind, usual = OPTIMIZERS[name]
    rate = learning_rate if isinstance(learning_rate, LearningRateSchedule) else float(learning_rate)
    return kind(rate, **{**usual, **options})
