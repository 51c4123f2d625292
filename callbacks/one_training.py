"""Several calls of `fit` that callbacks take for one training."""

from collections.abc import Mapping
from typing import Any

import keras


class OneTraining(keras.callbacks.CallbackList):
    """Callbacks that take several calls of `fit` for one training: it begins with the first and ends with `finish`.

    Made like Keras' class, given to every `fit` as `callbacks`; before each, `set_params` says its number of steps.

    >>> import keras, numpy
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> one = OneTraining([], add_history=True, model=model, verbose=0, epochs=2, steps=1)
    >>> for epoch in range(2):
    ...     _ = model.fit(numpy.ones((4, 1)), numpy.ones(4), initial_epoch=epoch, epochs=epoch + 1, callbacks=one)
    >>> one.finish()
    >>> model.history.epoch
    [0, 1]
    """

    begun = False
    last_logs: Mapping[str, Any] | None = None

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Tell the callbacks, the first time."""
        if not self.begun:
            self.begun = True
            super().on_train_begin(logs)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Keep the logs for `finish`."""
        self.last_logs = logs or self.last_logs

    def finish(self) -> None:
        """Tell the callbacks that the training has ended."""
        super().on_train_end(self.last_logs)
