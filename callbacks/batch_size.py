"""Batches that grow during training, and what a new batch size means for the learning rate."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any

import keras

from callbacks.one_training import OneTraining
from callbacks.updates import build_optimizer, parts_of


def linear_scaling(rate: float, batch_size: int, new_batch_size: int) -> float:
    """The rate for `new_batch_size` where `rate` was right for `batch_size`: k times the batch, k times the rate.

    Source: Accurate, Large Minibatch SGD, https://arxiv.org/abs/1706.02677

    >>> linear_scaling(0.1, 256, 1024)
    0.4
    """
    return rate * _ratio(batch_size, new_batch_size)


def square_root_scaling(rate: float, batch_size: int, new_batch_size: int) -> float:
    """As `linear_scaling`, but with the square root, which keeps the variance of the steps.

    Source: One weird trick, https://arxiv.org/abs/1404.5997, section 5

    >>> square_root_scaling(0.1, 256, 1024)
    0.2
    """
    return rate * math.sqrt(_ratio(batch_size, new_batch_size))


class BatchSizeSchedule:
    """The batch size of every epoch, and a training with it.

    Args:
        sizes: First epoch to batch size; epoch 0 is among them.

    Raises:
        ValueError: Epoch 0 is missing, or a number is none.

    Source: Don't Decay the Learning Rate, Increase the Batch Size, https://arxiv.org/abs/1711.00489

    >>> schedule = BatchSizeSchedule({0: 128, 10: 256, 15: 512})
    >>> schedule.size_at(9), schedule.size_at(10), schedule.phases(20)
    (128, 256, [(0, 10, 128), (10, 15, 256), (15, 20, 512)])
    """

    def __init__(self, sizes: Mapping[int, int]) -> None:
        for epoch, size in sizes.items():
            if not isinstance(epoch, Integral) or epoch < 0 or not isinstance(size, Integral) or size < 1:
                raise ValueError(f"`sizes` has epochs from 0 on and sizes from 1 on. Received: {epoch!r}: {size!r}.")
        if 0 not in sizes:
            raise ValueError(f"`sizes` must give the size of epoch 0. Received epochs: {sorted(sizes)}.")
        self.sizes = {int(epoch): int(sizes[epoch]) for epoch in sorted(sizes)}
        self._factors: list[float] = [1.0]

    @classmethod
    def instead_of_decay(
        cls,
        batch_size: int,
        rates: Sequence[float] | Callable[[int], float],
        maximum: int | None = None,
        epochs: int | None = None,
        multiple_of: int = 1,
    ) -> "BatchSizeSchedule":
        """Let the batch grow where the rate would fall: its size is proportional to 1 / rate.

        `batch_size` belongs to the highest rate, and to all epochs before it, so that a warm-up stays one of the rate.
        What `maximum` and the rounding leave to the rate is `rate_factor_at`.

        Args:
            batch_size: Examples at the highest rate.
            rates: The rate of every epoch, or a function of the epoch.
            maximum: Largest batch size.
            epochs: How many, where `rates` is a function.
            multiple_of: Sizes are rounded to multiples of this, for example 8; JAX compiles once for every size.

        >>> schedule = BatchSizeSchedule.instead_of_decay(100, [0.1, 0.1, 0.02, 0.004], maximum=1000)
        >>> [(schedule.size_at(epoch), round(schedule.rate_factor_at(epoch), 3)) for epoch in range(4)]
        [(100, 1.0), (100, 1.0), (500, 1.0), (1000, 0.4)]
        """
        rates = _as_list(rates, epochs)
        _require_sizes(batch_size=batch_size, multiple_of=multiple_of)
        if maximum is not None and maximum < batch_size:
            raise ValueError(f"`maximum` must be at least `batch_size`, {batch_size}. Received: maximum={maximum}.")
        if maximum is None and min(rates) == 0:
            raise ValueError("A rate of 0 has no batch size. Give a `maximum`, or rates above 0.")
        peak = max(rates)
        sizes = dict.fromkeys(range(rates.index(peak) + 1), batch_size)
        for epoch in range(len(sizes), len(rates)):
            wanted = batch_size * peak / rates[epoch] if rates[epoch] else math.inf
            wanted = wanted if maximum is None else min(wanted, maximum)
            sizes[epoch] = max(round(wanted / multiple_of) * multiple_of, batch_size)
            if maximum is not None and sizes[epoch] > maximum:
                sizes[epoch] = max(maximum // multiple_of * multiple_of, batch_size)
        schedule = cls(sizes)
        schedule._factors = [rate / peak * sizes[epoch] / batch_size for epoch, rate in enumerate(rates)]
        return schedule

    def size_at(self, epoch: int) -> int:
        """Examples in a batch during `epoch`."""
        return self.sizes[max(first for first in self.sizes if first <= epoch)]

    def rate_factor_at(self, epoch: int) -> float:
        """What multiplies the highest rate during `epoch`: 1 where the batch size does all that the decay did."""
        return self._factors[min(epoch, len(self._factors) - 1)]

    def phases(self, epochs: int, initial_epoch: int = 0) -> list[tuple[int, int, int]]:
        """(first epoch, end, batch size) of every run of epochs with one size, from `initial_epoch` to `epochs`."""
        phases: list[tuple[int, int, int]] = []
        for epoch in range(initial_epoch, epochs):
            size = self.size_at(epoch)
            if phases and phases[-1][2] == size:
                phases[-1] = (phases[-1][0], epoch + 1, size)
            else:
                phases.append((epoch, epoch + 1, size))
        return phases

    def fit(
        self,
        model: keras.Model,
        make_data: Callable[..., Any] | tuple[Any, ...],
        epochs: int,
        steps_per_epoch: Callable[[int], int] | None = None,
        callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.Callback | None = None,
        initial_epoch: int = 0,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Train as `model.fit` does, with the batch size of every epoch; callbacks see one training.

        TensorFlow compiles once more, when the size changes for the first time; JAX compiles once for every size.

        Args:
            model: Compiled.
            make_data: A function of the batch size that returns a data set, or arrays `(x, y)` or
                `(x, y, sample_weight)` for `fit` to divide into batches; or these arrays themselves. A function with
                an argument `first_epoch` gets the epoch at which its data begin.
            epochs: Number of the epoch before which training ends, as in `fit`.
            steps_per_epoch: A function from the batch size to the number of steps, for data without an end.
            callbacks: As in `fit`.
            initial_epoch: As in `fit`; it may lie anywhere.
            kwargs: All else goes to `model.fit`.

        Raises:
            ValueError: The optimiser averages weights (`use_ema`), which Keras would put in at every change of the
                size; the data's batch size cannot be changed; or a callback such as `OneCycle` takes all epochs for
                equally long.
        """
        _check_fit(model, make_data, steps_per_epoch, callbacks, kwargs)
        verbose = kwargs.pop("verbose", "auto")
        one = OneTraining(
            keras.tree.flatten(callbacks) if callbacks else [],
            add_history=True,
            add_progbar=verbose != 0,
            model=model,
            verbose=verbose,
            epochs=epochs,
            steps=None,
        )
        model._initial_epoch = None  # what BackupAndRestore set in a training before would begin this one
        begin = initial_epoch
        phases = self.phases(epochs, initial_epoch) or [(initial_epoch, epochs, self.size_at(initial_epoch))]
        try:
            for first, end, size in phases:
                first = max(first, begin)
                if first >= end and one.begun:
                    continue
                fit_arguments = _data_of(make_data, size, first)
                if steps_per_epoch is not None:
                    fit_arguments["steps_per_epoch"] = int(steps_per_epoch(size))
                one.set_params({**one.params, "steps": _steps(fit_arguments, kwargs)})
                model.fit(**fit_arguments, epochs=end, initial_epoch=first, callbacks=one, verbose=verbose, **kwargs)
                begin = max(begin, model._initial_epoch or 0)  # BackupAndRestore says so when training begins
                model._initial_epoch = None
                if model.stop_training:
                    break
        finally:
            model._initial_epoch = None
        one.finish()
        return model.history


def _data_of(make_data: Any, size: int, first_epoch: int) -> dict[str, Any]:
    """The data's part of the arguments of `fit`."""
    if callable(make_data):
        wants_epoch = "first_epoch" in inspect.signature(make_data).parameters
        data = make_data(size, first_epoch=first_epoch) if wants_epoch else make_data(size)
    else:
        data = make_data
    if isinstance(data, tuple):
        return {**dict(zip(("x", "y", "sample_weight"), data, strict=False)), "batch_size": size}
    if hasattr(data, "shape") or isinstance(data, dict | list):
        raise ValueError(
            "`make_data` must return a data set, or a tuple of arrays, `(x, y)` or `(x,)`: nothing else is divided "
            f"into batches of {size}. Received: {type(data).__name__}."
        )
    return {"x": data}


def _steps(fit_arguments: Mapping[str, Any], kwargs: Mapping[str, Any]) -> int | None:
    """Steps of an epoch, as `fit` will count them; None where only the data's end tells."""
    if "steps_per_epoch" in fit_arguments:
        return int(fit_arguments["steps_per_epoch"])
    data = fit_arguments["x"]
    if "batch_size" in fit_arguments:
        examples = len(keras.tree.flatten(data)[0])
        if kwargs.get("validation_data") is None:
            examples = math.floor(examples * (1.0 - kwargs.get("validation_split", 0.0)))
        return -(-examples // fit_arguments["batch_size"])
    try:
        return int(data.num_batches if hasattr(data, "num_batches") else len(data))
    except (TypeError, NotImplementedError):  # no length, or no end
        return None


def _check_fit(model: keras.Model, make_data: Any, steps_per_epoch: Any, callbacks: Any, kwargs: Any) -> None:
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        raise ValueError("The model is not compiled. Call `model.compile(optimizer, loss)` first.")
    build_optimizer(model)
    if any(part.use_ema for part in parts_of(optimizer)):
        raise ValueError(
            "The optimiser has `use_ema=True`: Keras would replace the weights by their average at every change of "
            "the batch size. Compile without it, and average with a callback."
        )
    if not callable(make_data) and not isinstance(make_data, tuple):
        raise ValueError(
            "`make_data` must be a function of the batch size, or arrays `(x, y)`: the batches of ready-made data "
            f"cannot change. Received: {type(make_data).__name__}."
        )
    if steps_per_epoch is not None and not callable(steps_per_epoch):
        raise ValueError(
            "`steps_per_epoch` must be a function of the batch size, as larger batches are fewer, for example "
            f"`lambda size: examples // size`. Received: steps_per_epoch={steps_per_epoch!r}."
        )
    if isinstance(callbacks, keras.callbacks.CallbackList):
        raise ValueError("`callbacks` must be a list of callbacks, not a CallbackList.")
    if "batch_size" in kwargs:
        raise ValueError("`batch_size` comes from the schedule: leave it out.")
    for one in keras.tree.flatten(callbacks) if callbacks else []:
        if getattr(one, "COUNTS_EPOCHS", False):
            raise ValueError(
                f"{type(one).__name__} takes all epochs for equally long, and larger batches are fewer. Give the "
                "optimiser a schedule instead, its steps counted by `Steps(examples, batch_size=<this schedule>)`."
            )


def _as_list(rates: Sequence[float] | Callable[[int], float], epochs: int | None) -> list[float]:
    if callable(rates):
        if epochs is None:
            raise ValueError("`epochs` must be given where `rates` is a function of the epoch.")
        rates = [rates(epoch) for epoch in range(epochs)]
    values = [float(rate) for rate in rates]
    if not values or not all(0 <= rate < math.inf for rate in values) or max(values) == 0:
        raise ValueError(f"`rates` must be numbers from 0 on, one above 0. Received: {values[:8]}.")
    return values


def _ratio(batch_size: int, new_batch_size: int) -> float:
    _require_sizes(batch_size=batch_size, new_batch_size=new_batch_size)
    return new_batch_size / batch_size


def _require_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if not isinstance(size, Integral) or size < 1:
            raise ValueError(f"`{name}` must be a whole number, at least 1. Received: {name}={size!r}.")
