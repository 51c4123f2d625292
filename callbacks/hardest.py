"""Train on the hardest examples: remember the last loss of each, and name those of highest loss."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from callbacks.stateful import StatefulCallback


@keras.saving.register_keras_serializable(package="callbacks")
class ExampleLoss(keras.metrics.Metric):
    """The loss of every example since the last reset, in the order in which they came; the result is their mean.

    Args:
        capacity: The most examples whose losses are remembered; those beyond count for the mean only.
        loss: Targets and outputs [batch, classes] to losses [batch]; None is cross-entropy from logits.
        name: In the logs.
    """

    def __init__(
        self,
        capacity: int,
        loss: Callable[[Any, Any], Any] | None = None,
        name: str = "example_loss",
        dtype: Any = "float32",
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.capacity, self.loss = capacity, loss
        self.losses = self.add_variable((capacity + 1,), "zeros", name="losses")  # the last for all beyond
        self.seen = self.add_variable((), "zeros", dtype="int32", name="seen")
        self.total = self.add_variable((), "zeros", name="total")
        self.weight = self.add_variable((), "zeros", name="weight")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Append the losses of a batch, each times its weight."""
        loss = self.loss or (lambda y, x: keras.losses.categorical_crossentropy(y, x, from_logits=True))
        values = ops.cast(loss(y_true, y_pred), "float32")
        weights = ops.ones_like(values)
        if sample_weight is not None:
            weights = ops.cast(ops.reshape(sample_weight, (-1,)), "float32")
        places = ops.minimum(self.seen + ops.arange(ops.shape(values)[0], dtype="int32"), self.capacity)
        self.losses.assign(ops.scatter_update(self.losses, places[:, None], values * weights))
        self.seen.assign(self.seen + ops.shape(values)[0])
        self.total.assign(self.total + ops.sum(values * weights))
        self.weight.assign(self.weight + ops.sum(weights))

    def result(self) -> Any:
        """The mean, weighted."""
        return ops.divide_no_nan(self.total, self.weight)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        loss = self.loss and keras.saving.serialize_keras_object(self.loss)
        return {**super().get_config(), "capacity": self.capacity, "loss": loss}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ExampleLoss":
        """The metric of a `get_config`."""
        loss = config.get("loss")
        return cls(**{**config, "loss": loss and keras.saving.deserialize_keras_object(loss)})


class HardestExamples(StatefulCallback):
    """Remember the last loss of every training example; `choose` names the hardest, for the next epoch.

    An example that is left out keeps its loss, and comes back when those of the others have fallen below it. One that
    has not been seen yet is harder than all others. Compile the model with `metric()` for every output; `fit` every
    epoch on its own, all with the same `OneTraining`, since a training that begins anew forgets the losses; before
    each, say in `order` which examples its batches hold.

    Args:
        count: Of the training examples.

    Source: Selective-Backprop, https://arxiv.org/abs/1910.00762, with the losses of the last time instead of another
    forward pass. (airbench96_faster, https://github.com/KellerJordan/cifar10-airbench, chooses half of every batch by
    the losses of a smaller network.)

    >>> hardest = HardestExamples(4)
    >>> hardest.losses[:] = [0.5, 2.0, 0.1, 1.0]
    >>> hardest.choose(0.5)
    array([1, 3])
    """

    STATE = ("losses",)

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"`count` must be at least 1. Received: count={count}.")
        self.count = count
        self.order: np.ndarray | None = None
        super().__init__()

    def reset(self) -> None:
        """No example has been seen."""
        self.losses = np.full(self.count, np.inf, "float32")

    def metric(self, loss: Callable[[Any, Any], Any] | None = None) -> ExampleLoss:
        """A metric for one output of the model; the losses (`ExampleLoss`) of several outputs are added."""
        return ExampleLoss(self.count, loss)

    def choose(self, share: float) -> np.ndarray:
        """The examples of highest loss, in ascending order: `round(share * count)`, at least one."""
        if not 0 < share <= 1:
            raise ValueError(f"`share` must lie in (0, 1]. Received: share={share}.")
        hardest_first = np.argsort(-self.losses, kind="stable")
        return np.sort(hardest_first[: max(1, round(share * self.count))])

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """After the last batch, before a validation empties the metrics: take their losses."""
        if self.order is None:
            return
        steps = (self.params or {}).get("steps")
        if steps is None:
            raise ValueError("HardestExamples must know the number of steps: give `fit` steps_per_epoch.")
        if batch + 1 != steps:
            return
        model = self.model  # on JAX, the metrics have the values of the last step once the model has been asked for
        compiled = [one for group in model.metrics for one in getattr(group, "metrics", [group])]
        metrics = [one for one in compiled if isinstance(one, ExampleLoss)]
        if not metrics:
            raise ValueError(f"Compile {model.name!r} with `metric()` of HardestExamples for every output.")
        seen = self.order[: int(ops.convert_to_numpy(metrics[0].seen))]
        self.losses[seen] = sum(ops.convert_to_numpy(one.losses)[: len(seen)] for one in metrics)
