"""Several tasks at once: heads on one network (hard sharing) or networks that pull at each other (soft sharing).

Hard sharing with fixed weights needs nothing from here: build with a dict of heads and give `compile` the weights.

>>> import kerascnn
>>> model = kerascnn.build("resnet9", (32, 32, 3), {"age": 5, "hair": 3}, width=0.125)
>>> losses = {head: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for head in model.output}
>>> model.compile("sgd", losses, loss_weights={"age": 1.0, "hair": 0.3})

`uncertainty_weighted` learns the weights, `soft_sharing` gives every task a network of its own.
Source: An Overview of Multi-Task Learning in Deep Neural Networks, https://arxiv.org/abs/1706.05098
"""

import itertools
import re
from typing import Any

import keras
from keras import ops

from kerascnn.graph import copy_weights, functional


@keras.saving.register_keras_serializable(package="kerascnn")
class UncertaintyWeighted(keras.Model):
    """A functional model with a dict of outputs that learns the weight of every head's loss.

    Source: https://arxiv.org/abs/1705.07115
    """

    def __init__(self, *args: object, mean: bool = False, **kwargs: object):
        super().__init__(*args, **kwargs)
        self.mean = mean
        if not isinstance(self.output, dict):
            raise ValueError(f"Expected a model with a dict of heads. Received one with output {self.output}.")
        self.log_variances = self.add_weight((len(self.output),), "zeros", "float32", name="log_variances")

    def head_weights(self) -> dict[str, float]:
        """What every head's loss is multiplied with now, exp(-s)."""
        weights = ops.convert_to_numpy(ops.exp(-self.log_variances))
        return {head: float(weight) for head, weight in zip(sorted(self.output), weights, strict=True)}

    def compute_loss(
        self,
        x: object = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> keras.KerasTensor:
        """Sum, or mean, over the heads of exp(-s) * loss + s / 2, and the regularisers."""
        super().compute_loss(x, y, y_pred, sample_weight, training)  # checks the form of `y`, records every head's loss
        total = sum(ops.sum(loss) for loss in self.losses)
        order, trained = sorted(self.output), set()
        share = 1 / len(order) if self.mean else 1.0
        for (head,), loss, fixed, _ in self._compile_loss._flat_losses:
            weight = sample_weight[head] if isinstance(sample_weight, dict) else sample_weight
            value = ops.cast(loss(y[head], y_pred[head], weight), "float32")
            log_variance = self.log_variances[order.index(head)]
            total += share * ops.exp(-log_variance) * value * (1.0 if fixed is None else fixed)
            if head not in trained:
                total += share * log_variance / 2
            trained.add(head)
        return total

    def get_config(self) -> dict[str, object]:
        """The graph, and whether the mean is taken."""
        return {**super().get_config(), "mean": self.mean}


def uncertainty_weighted(model: keras.Model, mean: bool = False) -> keras.Model:
    """The same network, of the same layers, that learns the weight of every head's loss.

    The loss is the sum over heads of exp(-s) * loss + s / 2, where s = log sigma^2 is the head's log-variance, a
    trainable value that starts at 0. For a constant loss L the best s is log(2 L): hard tasks get small weights. The
    total may be negative. Labels are a dict; `loss_weights` and per-head sample weights work as ever. Weight decay
    would pull the weights to 1: `optimizer.exclude_from_weight_decay(var_names=["log_variances"])`.

    Args:
        model: A functional model with a dict of at least two heads.
        mean: Divide the sum by the number of heads: it then begins as the mean of the losses, and a learning rate that
            suits the mean suits it too. The best s is the same.

    Raises:
        ValueError: The model has no dict of heads.

    Source: Multi-Task Learning Using Uncertainty to Weigh Losses, https://arxiv.org/abs/1705.07115, equation 10
        (classification, 1 / sigma^2; a regression's 1 / (2 sigma^2) is a `loss_weights` of 0.5).

    >>> import kerascnn
    >>> model = uncertainty_weighted(kerascnn.build("resnet9", (32, 32, 3), {"age": 5, "hair": 3}, width=0.125))
    >>> model.head_weights()
    {'age': 1.0, 'hair': 1.0}
    """
    plain = functional(model)
    if not isinstance(plain.output, dict) or len(plain.output) < 2:
        raise ValueError(
            f"Expected a model with a dict of at least two heads. Received one with output {plain.output}. "
            'Build it with `num_classes={"head": classes, ...}`.'
        )
    return UncertaintyWeighted(inputs=plain.input, outputs=plain.output, mean=mean, name=model.name)


@keras.saving.register_keras_serializable(package="kerascnn")
class SoftSharing(keras.Model):
    """A functional model of towers of one architecture, one per output, whose weights pull at each other.

    Source: https://aclanthology.org/P15-2139
    """

    def __init__(self, *args: object, strength: float, **kwargs: object):
        super().__init__(*args, **kwargs)
        self.strength = strength
        towers = [_shared_layers(keras.Model(self.input, tensor)) for tensor in self.output.values()]
        if any(list(map(_form, tower)) != list(map(_form, towers[0])) for tower in towers):
            raise ValueError(
                "The towers need one architecture: layers of the same kinds, in the same order, with weights of the "
                "same shapes, up to the head. Build every tower with the same name and options."
            )
        self.shared = [[layer.name for layer in tower] for tower in towers]

    def sharing_loss(self) -> keras.KerasTensor:
        """`strength` times the sum, over all pairs of towers, of the squared distance of their weights."""
        by_name = {layer.name: layer for layer in self.layers}
        towers = [[weight for name in tower for weight in by_name[name].weights] for tower in self.shared]
        squares = [
            ops.sum(ops.square(ops.cast(one, "float32") - ops.cast(other, "float32")))
            for pair in itertools.combinations(towers, 2)
            for one, other in zip(*pair, strict=True)
            if one.trainable or other.trainable
        ]
        return self.strength * sum(squares)

    def compute_loss(
        self,
        x: object = None,
        y: object = None,
        y_pred: object = None,
        sample_weight: object = None,
        training: bool = True,
    ) -> keras.KerasTensor:
        """The losses of all towers and the pull between them."""
        return super().compute_loss(x, y, y_pred, sample_weight, training) + self.sharing_loss()

    def get_config(self) -> dict[str, object]:
        """The graph and the strength."""
        return {**super().get_config(), "strength": self.strength}


def soft_sharing(towers: dict[str, keras.Model], strength: float) -> keras.Model:
    """One model of several networks on the same picture, one per task, whose weights are pulled together.

    The loss gets `strength` times the sum of (a - b)^2 over all pairs of towers and all values of corresponding
    weights. Those are the weights at the same place of two towers (kernels, biases, BatchNorm's gamma and beta, not
    its statistics), except those of the last layer with weights, a tower's head. A weight frozen in all towers adds
    nothing. The towers are copied, with their weights; layers are renamed to TASK_LAYER.
    `keras.Model(model.input, model.output[task])` is one of them again.

    Args:
        towers: {task: network of one architecture with one output}, at least two; heads may differ.
        strength: Weight of the pull, at least 0.

    Returns:
        A model of the common input with outputs {task: logits}.

    Raises:
        ValueError: The towers do not fit together.

    Source: Low Resource Dependency Parsing: Cross-lingual Parameter Sharing in a Neural Network Parser,
        https://aclanthology.org/P15-2139; overview: https://arxiv.org/abs/1706.05098, 2.2

    >>> import kerascnn
    >>> towers = {task: kerascnn.build("resnet9", (32, 32, 3), 10, width=0.125) for task in ("age", "hair")}
    >>> model = soft_sharing(towers, strength=0.01)
    >>> {task: logits.shape for task, logits in model.output.items()}
    {'age': (None, 10), 'hair': (None, 10)}
    """
    if strength < 0:
        raise ValueError(f"`strength` must be at least 0. Received: {strength}.")
    plain = {task: functional(tower) for task, tower in towers.items()}
    forms = {(tuple(tower.inputs[0].shape), tower.inputs[0].dtype) for tower in plain.values()}
    single = all(len(tower.inputs) == 1 and isinstance(tower.output, keras.KerasTensor) for tower in plain.values())
    if len(plain) < 2 or len(forms) != 1 or not single:
        raise ValueError(
            "Expected at least two towers, each of one output, and one input of the same form. Received: "
            f"{ {task: (tower.input_shape, tower.output_shape) for task, tower in plain.items()} }."
        )
    prefixes = {task: re.sub(r"\W", "_", task, flags=re.ASCII) for task in plain}
    if len(set(prefixes.values())) < len(plain):
        raise ValueError(f"Names of tasks must differ in letters or digits. Received: {list(plain)}.")
    first = next(iter(plain.values())).inputs[0]
    inputs = keras.Input(batch_shape=first.shape, dtype=first.dtype, name=first.name)
    outputs = {task: _copy(tower, inputs, prefixes[task]).output for task, tower in plain.items()}
    return SoftSharing(inputs=inputs, outputs=outputs, strength=float(strength), name="soft_sharing")


def _copy(tower: keras.Model, inputs: keras.KerasTensor, prefix: str) -> keras.Model:
    """A tower with weights of its own on common inputs, its layers named PREFIX_LAYER."""

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config({**layer.get_config(), "name": f"{prefix}_{layer.name}"})

    structure = keras.tree.map_structure(lambda _: inputs, tower.input)
    copied = keras.models.clone_model(tower, structure, clone)
    for layer in tower.layers:
        if not isinstance(layer, keras.layers.InputLayer):
            copy_weights(layer.get_weights(), copied.get_layer(f"{prefix}_{layer.name}"))
    return copied


def _shared_layers(tower: keras.Model) -> list[keras.layers.Layer]:
    return [layer for layer in tower.layers if layer.weights][:-1]


def _form(layer: keras.layers.Layer) -> tuple:
    return type(layer), [(weight.name, tuple(weight.shape)) for weight in layer.weights]
