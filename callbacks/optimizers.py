"""Keras' optimisers with parameter groups, gradient noise, partial freezing, and momentum that follows a schedule.

Whatever is set here is part of the training graph and of the saved model.
"""

import difflib
import math
import re
from collections.abc import Sequence
from numbers import Real
from typing import Any

import keras
from keras import ops

from callbacks.grouped import Grouped
from callbacks.groups import NO_DECAY
from callbacks.rates import LearningRateSchedule

_register = keras.saving.register_keras_serializable(package="callbacks")


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
    >>> optimizer = SGD(rate, momentum=CyclicMomentum(rate, low=0.85, high=0.95), nesterov=True)
    >>> round(float(optimizer.momentum(500)), 4)
    0.85
    """

    SCHEDULED = ("momentum",)
    momentum: Any

    def _move(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if not isinstance(self.momentum, LearningRateSchedule):
            super()._move(gradient, variable, learning_rate)
            return
        # Keras asks `momentum != 0` in Python, which a value of the graph cannot answer.
        velocity = self.momentums[self._get_variable_index(variable)]
        kind = velocity.dtype
        momentum = ops.cast(self.momentum(self._iterations), kind)
        # Not with operators: on TensorFlow the gradient of an embedding is sparse.
        step = ops.multiply(ops.cast(gradient, kind), ops.cast(learning_rate, kind))
        self.assign(velocity, ops.subtract(velocity * momentum, step))
        self.assign_add(variable, ops.subtract(velocity * momentum, step) if self.nesterov else velocity)


@_register
class Adam(Grouped, keras.optimizers.Adam):
    """Adam whose `beta_1` may follow a schedule; its bias is corrected with the value of the step, as in PyTorch.

    Args:
        learning_rate: A float or a schedule.
        beta_1: A float, or a schedule such as `CyclicMomentum`, which counts batches as the rate's does.
        **kwargs: `groups` and `gradient_noise` as in `Grouped`, the rest as in `keras.optimizers.Adam`.

    Raises:
        ValueError: In `build`, where `beta_2` is 1 in the precision of the weights, with which Keras' class would leave
            them as they are: 0.999 in bfloat16. Under the policy mixed_bfloat16 the weights are float32.

    Source: https://arxiv.org/abs/1412.6980
    """

    SCHEDULED = ("beta_1",)
    beta_1: Any

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Make the slots."""
        _refuse_rounded("beta_2", self.beta_2, variables)
        super().build(variables)

    def _move(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        usual = self.beta_1
        try:
            if isinstance(usual, LearningRateSchedule):
                self.beta_1 = ops.cast(usual(self._iterations), variable.dtype)
            super()._move(gradient, variable, learning_rate)
        finally:
            self.beta_1 = usual


@_register
class AdamW(Adam, keras.optimizers.AdamW):
    """Adam with decoupled weight decay, 0.004 where none is given. https://arxiv.org/abs/1711.05101"""


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
    class leaves to AdamW. AdamW's are vectors, scales and biases of any shape (those of a GRU have two axes), matrices
    of one row or column, depthwise kernels, embeddings, the projections of Keras' attention layers (their three axes
    are no convolution's), and layers of `exclude_layers` (patterns of their paths; the output layer is one by custom).

    Source: https://kellerjordan.github.io/posts/muon/
    """

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Make the slots; a ValueError as with Adam."""
        _refuse_rounded("adam_beta_2", self.adam_beta_2, [one for one in variables if self._should_use_adamw(one)])
        super().build(variables)

    def _should_use_adamw(self, variable: keras.Variable) -> bool:
        path, shape = variable.path.lower(), variable.shape
        return (
            len(shape) < 2
            or NO_DECAY.matches(variable.path)
            or 1 in _as_matrix(shape)
            or "depthwise" in path
            or (self.exclude_embeddings and "embedding" in path)
            or (len(shape) == 3 and re.search(r"(^|/)(query|key|value|attention_output)/kernel$", path) is not None)
            or any(re.search(pattern, variable.path) for pattern in self.exclude_layers)
        )

    def _move(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        # Keras' class multiplies matrices by the rate as it is, which TensorFlow refuses in bfloat16.
        super()._move(gradient, variable, ops.cast(learning_rate, variable.dtype))

    def _weight_decay_of(self, variable: keras.Variable) -> float | None:
        return self.adam_weight_decay if self._should_use_adamw(variable) else self.weight_decay

    def zeropower_via_newtonschulz5(self, x: Any, steps: int) -> Any:
        """The nearest orthogonal matrix, nearly, in the shape of `x`."""
        matrix = super().zeropower_via_newtonschulz5(ops.reshape(x, _as_matrix(x.shape)), steps)
        return ops.reshape(matrix, x.shape)

    def lr_adjust(self, x: Any) -> Any:
        """The update times `rms_rate * sqrt(larger side of the matrix)`, so that Adam's rates fit."""
        return x if self.rms_rate is None else x * self.rms_rate * math.sqrt(max(_as_matrix(x.shape)))


@_register
class MuonSGD(SGD):
    """Muon for convolution kernels, which keep their norm; SGD with Nesterov's momentum for everything else.

    With velocity = momentum * velocity + gradient and step = gradient + momentum * velocity, a kernel, seen as a matrix
    of (height * width * inputs) rows, is scaled to the norm sqrt(outputs) and moves by rate * orthogonal(step); all
    other weights, those of dense layers too, move by rate * step, for which `groups` set much higher rates. Decay of
    kernels is undone by their next scaling; what is in a group of rate 0 stays as it is.

    Args:
        learning_rate: A float or a schedule; 0.24 for batches of 2,000 in the source.
        momentum: A float in (0, 1); in the source 0.6 for kernels and 0.85 for all other weights.
        iterations: Of Newton and Schulz, which bring the larger singular values to about 0.5 to 1.5; one of less than
            a hundredth of the norm needs more than three of them.
        **kwargs: As in `callbacks.SGD`.

    Source: https://kellerjordan.github.io/posts/muon/ in the form of airbench94_muon,
    https://github.com/KellerJordan/cifar10-airbench
    """

    newton_schulz: int

    def __init__(self, learning_rate: Any = 0.02, momentum: float = 0.9, iterations: int = 3, **kwargs: Any) -> None:
        if not isinstance(momentum, Real) or not 0 < momentum < 1:
            raise ValueError(f"`momentum` of MuonSGD must be a number in (0, 1). Received: momentum={momentum!r}.")
        if iterations < 1:
            raise ValueError(f"`iterations` must be at least 1. Received: iterations={iterations}.")
        if not kwargs.get("nesterov", True):
            raise ValueError("MuonSGD has Nesterov's momentum only. Leave `nesterov` out.")
        super().__init__(learning_rate=learning_rate, momentum=momentum, **{**kwargs, "nesterov": True})
        self.newton_schulz = iterations

    def _move(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        if self._factors[index][0] == 0:
            return
        velocity, kind = self.momentums[index], variable.dtype
        gradient, rate = ops.cast(gradient, kind), ops.cast(learning_rate, kind)
        self.assign(velocity, velocity * self.momentum + gradient)
        step = gradient + velocity * self.momentum
        depthwise = "depthwise" in self._trainable_variables[index].path
        if len(variable.shape) != 4 or depthwise or 1 in _as_matrix(variable.shape):
            self.assign_sub(variable, rate * step)
            return
        norm = ops.sqrt(ops.sum(ops.square(variable)))
        scale = math.sqrt(variable.shape[-1]) / ops.maximum(norm, 1e-7)
        self.assign(variable, variable * scale - rate * self._orthogonal(step))

    def _orthogonal(self, kernel: Any) -> Any:
        """Nearly the nearest orthogonal matrix, by the quintic iteration of the source, in bfloat16 as there."""
        rows, columns = _as_matrix(kernel.shape)
        x = ops.reshape(kernel, (rows, columns))
        x = ops.cast(x / (ops.sqrt(ops.sum(ops.square(x))) + 1e-7), "bfloat16")
        x = ops.transpose(x) if rows > columns else x
        for _ in range(self.newton_schulz):
            gram = ops.matmul(x, ops.transpose(x))
            x = 3.4445 * x + ops.matmul(-4.7750 * gram + 2.0315 * ops.matmul(gram, gram), x)
        x = ops.transpose(x) if rows > columns else x
        return ops.reshape(ops.cast(x, kernel.dtype), kernel.shape)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = {**super().get_config(), "iterations": self.newton_schulz}
        del config["nesterov"]
        return config


HALF_SPACING = {"bfloat16": 2.0**-9, "float16": 2.0**-12}  # of the numbers just below 1


def _refuse_rounded(name: str, beta: float, variables: Sequence[keras.Variable]) -> None:
    """Raise where the bias correction, the square root of 1 - beta ** step, would be 0 in every step."""
    for variable in variables:
        if 1 - beta <= HALF_SPACING.get(variable.dtype, 0.0):
            raise ValueError(
                f"`{name}` is rounded to 1 in {variable.dtype}, the type of {variable.path}, which would never change. "
                f"Train with float32 weights, as under the policy mixed_{variable.dtype}, or take a smaller {name}. "
                f"Received: {name}={beta}."
            )


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
    "muon_sgd": (MuonSGD, {}),
}


def get_optimizer(name: str, learning_rate: Any, **options: Any) -> Any:
    """An optimiser by name: a key of `OPTIMIZERS`, such as nesterov, adamw or muon_sgd.

    Args:
        name: As above.
        learning_rate: A number or a schedule.
        **options: Of the class `callbacks.SGD`, `Adagrad`, `RMSprop`, `Adam`, `AdamW`, `Muon` or `MuonSGD`, such as
            `momentum`, `weight_decay` or `groups`.

    Raises:
        ValueError: There is no such optimiser or option.

    >>> get_optimizer("nesterov", 0.1, momentum=0.95).nesterov
    True
    """
    if not isinstance(name, str) or name not in OPTIMIZERS:
        near = difflib.get_close_matches(str(name).lower(), OPTIMIZERS, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"There is no optimiser {name!r}. There are: {', '.join(OPTIMIZERS)}.{hint}")
    kind, usual = OPTIMIZERS[name]
    return kind(learning_rate, **{**usual, **options})
