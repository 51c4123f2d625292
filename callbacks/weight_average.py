"""A running average of the weights during training: exponential (EMA) or with equal shares (SWA)."""

import contextlib
import os
import warnings
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from callbacks.batch_statistics import check_batches, estimate, moving_statistics
from callbacks.rates import batches_seen
from callbacks.snapshots import copy_weights, write_snapshot
from callbacks.stateful import StatefulCallback
from callbacks.updates import parts_of, refuse_optimizer_average, updates_done
from callbacks.whole_file import writable_path

NOT_RUNNING = object()
PIECE = 1 << 15  # numbers averaged at once: they stay in the processor's cache


class WeightAverage(StatefulCallback):
    """Average the weights while they train; the training itself is not touched.

    The average is kept in float32 (float64 for float64 weights), in main memory. Integer weights and seeds are not
    averaged. During `fit` the model holds the raw weights.

    Args:
        decay: EMA: what is kept of the average at every update of the optimiser, in (0, 1). None: SWA, the mean of
            the weights at the ends of all epochs from `start_epoch` on.
        warmup: EMA: at the n-th update keep `min(decay, (1 + n) / (10 + n))`, so that the first weights are soon
            forgotten; as `num_updates` in tf.train.ExponentialMovingAverage.
        start_epoch: First epoch that is averaged, counted from 0.
        every: EMA: look at the weights after so many updates only (and at the end of every epoch), with the decay to
            the power of the updates since; the average forgets as fast as with 1 and costs less.
        batch_norm: BatchNormalization's moving statistics: "average" them too, "recompute" them for the averaged
            weights as the mean over `batches`, or "keep" the raw ones.
        batches: For "recompute": an array of inputs, a dataset or a list of batches. Some thousand examples are enough.
        validation_data: (x, y), (x, y, sample_weight) or a dataset. The averaged weights are evaluated on it after
            every epoch, and the logs get "average_val_loss" and "average_val_<metric>" for the callbacks after this.
        batch_size: For arrays in `batches` and `validation_data`; Keras' 32 if None.
        path: An .npz written at the end of every epoch: the averaged weights in the order of `model.get_weights()`,
            and in its values (`callbacks.snapshots.read_snapshot`) "raw", the same of the raw ones, and "epoch".
        finish: What the model holds at the end of `fit`: "average" or "raw". Both are then in `averaged_weights` and
            `raw_weights`. A next `fit` goes on from what the model holds.

    Raises:
        ValueError: At construction, when an argument is wrong. Before the first step, when the optimiser has `use_ema`
            or the state belongs to another network.

    Source: SWA https://arxiv.org/abs/1803.05407; EMA https://arxiv.org/abs/2411.18704

    >>> swa = WeightAverage(decay=None, start_epoch=10)
    >>> swa.averaged_weights is None
    True
    """

    STATE = ("average", "count")

    def __init__(
        self,
        decay: float | None = 0.999,
        warmup: bool = True,
        start_epoch: int = 0,
        every: int = 1,
        batch_norm: str = "average",
        batches: Any = None,
        validation_data: Any = None,
        batch_size: int | None = None,
        path: os.PathLike[str] | str | None = None,
        finish: str = "average",
    ) -> None:
        _check(decay, start_epoch, every, batch_norm, batches, finish)
        self.decay, self.warmup, self.start_epoch, self.every = decay, warmup, start_epoch, every
        self.batch_norm, self.batches, self.batch_size = batch_norm, batches, batch_size
        self.validation_data, self.finish = validation_data, finish
        self.path = writable_path(path) if path is not None else None
        self._fit: Any = NOT_RUNNING
        super().__init__()
        _ALL.add(self)

    def reset(self) -> None:
        """Forget the average."""
        self.average: list[np.ndarray] | None = None
        self.count = 0  # updates in the EMA, or epochs in the SWA
        self._last = 0
        self._final: tuple[list[np.ndarray], list[np.ndarray] | None] | None = None
        self._statistics: tuple[int, list[np.ndarray]] | None = None
        self._epoch_done: int | None = None

    def get_state(self) -> dict[str, Any]:
        """The average so far, for a checkpoint."""
        return {"average": _copies(self.average), "count": self.count}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `get_state()` at the next `fit`."""
        super().set_state({**state, "average": _copies(state["average"])})

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Start afresh, or, after `set_state`, with the average of the interrupted training."""
        super().on_train_begin(logs)
        model = self.model
        refuse_optimizer_average(model, "WeightAverage")
        own = {id(weight) for weight in moving_statistics(model)} if self.batch_norm != "average" else set()
        self._averaged = [
            weight for weight in model.weights if keras.backend.is_float_dtype(weight.dtype) and id(weight) not in own
        ]
        shapes = [tuple(weight.shape) for weight in self._averaged]
        if self.average is not None and [array.shape for array in self.average] != shapes:
            raise ValueError(
                f"The state of WeightAverage belongs to another network: it has {len(self.average)} arrays, "
                f"{len(shapes)} are needed. Use the recipe it was written with, or start without it."
            )
        self._fit, self._final, self._epoch_done = getattr(model, "history", None), None, None
        self._last = updates_done(model.optimizer)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Begin an EMA with the weights before its first epoch; refuse a second average that would overwrite this."""
        if sum(one.finish == "average" for one in _running(self.model)) > 1:
            raise ValueError(
                "Several WeightAverage would overwrite each other's weights at the end of `fit`. "
                "Give all but one `finish='raw'`."
            )
        optimizer = self.model.optimizer
        if self.decay is not None and self.average is None and epoch >= self.start_epoch:
            self._begin()
            self._last = updates_done(optimizer)
        parts = parts_of(optimizer)
        self._batches_before = max(batches_seen(part) for part in parts)
        self._accumulated = min(part.gradient_accumulation_steps or 1 for part in parts)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Average, when the optimiser has made enough updates since the last time."""
        if self.decay is None or self.average is None:
            return
        done = min(batch + 1, (self.params or {}).get("steps") or batch + 1)
        # Worked out without `self.model`, which on JAX costs more than this whole method.
        if (self._batches_before + done) // self._accumulated - self._last >= self.every:
            self._update()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Average, evaluate, write."""
        self.finish_epoch(epoch, logs)

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Put the average into the model, if asked for."""
        self.finish_training()

    def finish_epoch(self, epoch: int, logs: Any = None) -> None:
        """The work of `on_epoch_end`, done once: a callback that needs the average may ask for it before its turn."""
        if self._epoch_done == epoch:
            return
        self._epoch_done = epoch
        if self.decay is not None and self.average is not None:
            self._update()
        elif self.decay is None and epoch >= self.start_epoch:
            self.count += 1
            self._begin() if self.average is None else self._blend(1 / self.count)
        if self.average is None:
            return
        if self.validation_data is not None:
            found = self._evaluate()
            if logs is not None:
                logs.update(found)
        if self.path is not None:
            write_snapshot(self.path, self._averages(), {"epoch": epoch, "raw": copy_weights(self.model)})

    def finish_training(self) -> None:
        """The work of `on_train_end`, done once."""
        if self._fit is NOT_RUNNING:
            return
        for one in _running(self.model):  # while the model holds the raw weights, also for the others in this `fit`
            one._final = one._final or (copy_weights(self.model), one.averaged_weights)
        averages = self.averaged_weights
        self._fit = NOT_RUNNING
        if averages is None:
            warnings.warn(
                f"WeightAverage has no average: training ended before epoch {self.start_epoch} (`start_epoch`, "
                "counted from 0). The model holds the raw weights.",
                stacklevel=2,
            )
        elif self.finish == "average":
            self.model.set_weights(averages)

    @property
    def raw_weights(self) -> list[np.ndarray]:
        """As `model.get_weights()`: as they are during `fit`, and as training left them after it."""
        return self._final[0] if self._final is not None else copy_weights(self.model)

    @property
    def averaged_weights(self) -> list[np.ndarray] | None:
        """As `model.get_weights()`; None before the average begins."""
        if self._final is not None:
            return self._final[1]
        return None if self.average is None else self._averages()

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the model holds the averaged weights; afterwards what it held before, bit by bit."""
        averages = self.averaged_weights
        if averages is None:
            raise ValueError(f"There is no average yet. It begins with epoch {self.start_epoch} of `fit`.")
        before = copy_weights(self.model)
        self.model.set_weights(averages)
        try:
            yield
        finally:
            self.model.set_weights(before)

    def is_running(self, model: keras.Model) -> bool:
        """Whether this takes part in the running `fit` of `model`, whose `History` is a new one in every `fit`."""
        return self._model is model and self._fit is getattr(model, "history", None)

    def _begin(self) -> None:
        weights = [keras.ops.convert_to_numpy(weight) for weight in self._averaged]
        self.average = [np.array(weight, "float64" if weight.dtype == "float64" else "float32") for weight in weights]

    def _update(self) -> None:
        now = updates_done(self.model.optimizer)
        kept = 1.0
        for number in range(self.count + 1, self.count + now - self._last + 1):
            limit = (1 + number) / (10 + number) if self.warmup else 1.0
            kept *= min(self.decay or 1.0, limit)
        if now > self._last:
            self.count += now - self._last
            self._last = now
            self._blend(1 - kept)

    def _blend(self, share: float) -> None:
        """`average + share * (weight - average)`, in place and in pieces: weights that stand still stay exact."""
        for average, variable in zip(self.average or [], self._averaged, strict=True):
            weight = keras.ops.convert_to_numpy(variable).reshape(-1)
            flat = average.reshape(-1)
            for begin in range(0, flat.size, PIECE):
                piece = flat[begin : begin + PIECE]
                piece += (weight[begin : begin + PIECE].astype(flat.dtype, copy=False) - piece) * flat.dtype.type(share)

    def _averages(self) -> list[np.ndarray]:
        """New arrays, as `model.get_weights()`."""
        model = self.model
        weights = dict(zip(map(id, model.weights), copy_weights(model), strict=True))
        for variable, average in zip(self._averaged, self.average or [], strict=True):
            weights[id(variable)] = average.astype(weights[id(variable)].dtype)
        if self.batch_norm == "recompute":
            if self._statistics is None or self._statistics[0] != self.count:
                before = copy_weights(model)
                model.set_weights(list(weights.values()))
                try:
                    self._statistics = self.count, estimate(model, self.batches, self.batch_size)
                finally:
                    model.set_weights(before)
            weights.update(zip(map(id, moving_statistics(model)), self._statistics[1], strict=True))
        return list(weights.values())

    def _evaluate(self) -> dict[str, Any]:
        data = self.validation_data
        x, y, sample_weight = (
            keras.utils.unpack_x_y_sample_weight(data) if isinstance(data, tuple) else (data,) + (None,) * 2
        )
        with self.swapped():
            found = self.model.evaluate(
                x, y, sample_weight=sample_weight, batch_size=self.batch_size, verbose=0, return_dict=True
            )
        return {f"average_val_{name}": value for name, value in found.items()}


_ALL: "weakref.WeakSet[WeightAverage]" = weakref.WeakSet()


def running_average(model: keras.Model) -> WeightAverage | None:
    """The WeightAverage in the running `fit` of `model`; of several the one that puts its average in at the end."""
    return next(iter(sorted(_running(model), key=lambda one: one.finish)), None)


def _running(model: keras.Model) -> list[WeightAverage]:
    if getattr(model, "history", None) is None:
        return []
    return [average for average in _ALL if average.is_running(model)]


def _copies(arrays: list[np.ndarray] | None) -> list[np.ndarray] | None:
    return None if arrays is None else [np.array(array) for array in arrays]


def _check(decay: float | None, start_epoch: int, every: int, batch_norm: str, batches: Any, finish: str) -> None:
    if decay is not None and not 0 < decay < 1:
        raise ValueError(f"`decay` must lie in (0, 1), or be None for equal shares (SWA). Received: decay={decay}.")
    if start_epoch < 0:
        raise ValueError(f"`start_epoch` must be at least 0. Received: start_epoch={start_epoch}.")
    if every < 1 or (decay is None and every != 1):
        raise ValueError(f"`every` must be at least 1 update, and 1 with `decay=None`. Received: every={every}.")
    if batch_norm not in ("average", "recompute", "keep"):
        raise ValueError(f"`batch_norm` must be 'average', 'recompute' or 'keep'. Received: batch_norm={batch_norm!r}.")
    if finish not in ("average", "raw"):
        raise ValueError(f"`finish` must be 'average' or 'raw'. Received: finish={finish!r}.")
    if (batch_norm == "recompute") != (batches is not None):
        raise ValueError("`batch_norm='recompute'` and `batches`, training inputs to do it with, need each other.")
    if batches is not None:
        check_batches(batches)
