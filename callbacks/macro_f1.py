"""Macro F1 as a metric of `model.compile`."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="callbacks")
class MacroF1(keras.metrics.Metric):
    """The mean F1 over the classes that occur in truth or answers, as scikit-learn has it.

    Targets are rows [batch, classes] whose largest entry is the true class, as for `CategoricalAccuracy`; outputs are
    rows of logits or probabilities. An example counts as much as it weighs. (`keras.metrics.F1Score` takes the mean
    over all classes, so that one that does not occur counts as wrong.)

    Args:
        classes: K.
        name: In the logs.

    >>> import numpy as np
    >>> metric = MacroF1(3)
    >>> metric.update_state(np.eye(3)[[0, 0, 1]], np.eye(3)[[0, 1, 1]])
    >>> round(float(metric.result()), 3)
    0.667
    """

    def __init__(self, classes: int, name: str = "macro_f1", dtype: Any = "float32") -> None:
        super().__init__(name=name, dtype=dtype)
        self.classes = classes
        # Right answers, examples and answers of every class.
        self.counts = self.add_variable((3, classes), "zeros", name="counts")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count a batch."""
        truth, answers = (ops.one_hot(ops.argmax(rows, axis=-1), self.classes) for rows in (y_true, y_pred))
        counted = ops.cast(ops.stack([truth * answers, truth, answers]), "float32")
        if sample_weight is not None:
            counted = counted * ops.cast(ops.reshape(sample_weight, (1, -1, 1)), "float32")
        self.counts.assign(self.counts + ops.sum(counted, axis=1))

    def result(self) -> Any:
        """The mean; 0 before the first batch."""
        right, examples, answers = ops.unstack(ops.convert_to_tensor(self.counts), axis=0)
        occurs = ops.cast(examples + answers > 0, "float32")
        return ops.divide_no_nan(ops.sum(ops.divide_no_nan(2 * right, examples + answers)), ops.sum(occurs))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "classes": self.classes}
