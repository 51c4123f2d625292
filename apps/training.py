"""Train one network on one split, with `model.fit`."""

import itertools
import re
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kerascnn
from apps.augmentation import augmentation
from apps.console import Bar, Console, duration, percent
from apps.recipe import NETWORK_OPTIONS, Recipe, scaled
from callbacks import (
    NO_DECAY,
    Checkpoint,
    EarlyStopping,
    HardestExamples,
    OneCycleSchedule,
    ParameterGroup,
    TerminateOnDivergence,
    get_optimizer,
)
from kerascnn.imagenet import check_published
from kerascnn.layer_table import without_values
from kerascnn.whitening import PatchWhitening
from pipelines import make_eval, make_train
from pipelines.batches import places_of_epoch
from pipelines.stream import Pictures, read_batches

# Pictures that the normalisation and the whitening are computed from, whether they are in memory or on disk.
SAMPLE = 5_000
WHITENED = 1_000
ANY_SIZE = (None, None)


@dataclass(frozen=True)
class Data:
    """Labelled pictures, uint8 [N, height, width, 3] in memory or on disk; class numbers and class names by head."""

    pictures: Pictures
    labels: Mapping[str, np.ndarray]
    classes: Mapping[str, Sequence[str]]

    @property
    def num_classes(self) -> dict[str, int]:
        """Number of classes by head."""
        return {head: len(names) for head, names in self.classes.items()}

    @cached_property
    def statistics(self) -> tuple[list[float], list[float]]:
        """`channel_statistics` of the pictures."""
        return channel_statistics(self.pictures)

    def with_keras_names(self) -> "Data":
        """The same with every head called as Keras allows (`keras_names`)."""
        names = keras_names(self.classes)
        return Data(
            self.pictures,
            {names[head]: values for head, values in self.labels.items()},
            {names[head]: values for head, values in self.classes.items()},
        )

    def take(self, index: np.ndarray) -> "Data":
        """The pictures of `index`."""
        return Data(self.pictures[index], {head: values[index] for head, values in self.labels.items()}, self.classes)


@dataclass(frozen=True)
class Trained:
    """A network in float32 with the weights of its best epoch (counted from 1), and how training went."""

    model: keras.Model
    history: list[dict[str, float]]
    best_epoch: int
    seconds: float
    pictures_per_second: float


def keras_names(heads: Iterable[str]) -> dict[str, str]:
    """A name for every head that Keras takes for a loss: ASCII letters, digits and a few signs, no two alike.

    >>> keras_names(["label", "hair colour/tone", "größe"])
    {'label': 'label', 'hair colour/tone': 'hair_colour_tone_1', 'größe': 'gr__e_2'}
    """
    names: dict[str, str] = {}
    for number, head in enumerate(heads):
        name = re.sub(r"[^A-Za-z0-9_]", "_", head)
        if name != head or not re.match("[A-Za-z0-9]", name):
            name = f"{name.lstrip('_')}_{number}".lstrip("_")
        while name in names.values():
            name += "_"
        names[head] = name
    return names


def build_network(recipe: Recipe, data: Data, precision: str, any_size: bool = False) -> keras.Model:
    """The recipe's network with the normalisation of these pictures, computing in `precision`.

    With `transfer` it has the published weights and their normalisation, and what they leave is frozen. With
    `any_size` it takes pictures of every size, which networks that flatten them cannot.
    """
    mean, std = data.statistics
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    try:
        model = _build(recipe, data.num_classes, ANY_SIZE if any_size else recipe.image_size, mean=mean, std=std)
    finally:
        keras.config.set_dtype_policy(policy)
    if any(isinstance(layer, PatchWhitening) for layer in model.layers):
        kerascnn.fit_whitening(model, np.concatenate([*read_batches(evenly_spaced(data.pictures, WHITENED), 100)]))
    return model if recipe.transfer == "none" else kerascnn.transfer(model, recipe.transfer)


def check_network(recipe: Recipe, num_classes: Mapping[str, int]) -> None:
    """Raise a `ValueError` where the recipe's network cannot be; takes a moment, since no weights are made."""
    if recipe.transfer != "none":
        check_published(recipe.model)
    sizes = [scaled(recipe.image_size, scale) for scale, _ in recipe.scales]
    for size in (*([ANY_SIZE] if sizes else []), *sizes, recipe.image_size):
        without_values(lambda size=size: _build(recipe, num_classes, size))


def _build(
    recipe: Recipe, num_classes: Mapping[str, int], size: tuple[int | None, int | None], **options: Any
) -> keras.Model:
    options |= {name: getattr(recipe, name) for name in NETWORK_OPTIONS if getattr(recipe, name) is not None}
    return kerascnn.build(recipe.model, (*size, 3), dict(num_classes), width=recipe.width, **options)


def evenly_spaced(pictures: Pictures, count: int) -> Pictures:
    """At most so many of them."""
    return pictures[:: -(-len(pictures) // count)]


def channel_statistics(pictures: Pictures) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of every channel over an evenly spaced sample of pictures, in pixel units."""
    histograms = np.zeros((pictures.shape[-1], 256))
    # A few at a time: counting needs eight bytes for each byte.
    for batch in read_batches(evenly_spaced(pictures, SAMPLE), 100):
        for channel, histogram in enumerate(histograms):
            histogram += np.bincount(batch[..., channel].reshape(-1), minlength=256)
    values = np.arange(256, dtype="float64")
    mean, std = [], []
    for histogram in histograms / histograms[0].sum():
        mean.append(float(histogram @ values))
        # Pictures of one single colour have no spread to divide by.
        std.append(float(max(np.sqrt(histogram @ (values - mean[-1]) ** 2), 1.0)))
    return mean, std


def compile_network(
    model: keras.Model,
    recipe: Recipe,
    classes: Mapping[str, int],
    total_steps: int,
    hardest: HardestExamples | None = None,
) -> None:
    """Attach the losses (the mean over the heads), the optimiser and the one-cycle schedule."""
    metrics = {head: [keras.metrics.CategoricalAccuracy(name="accuracy")] for head in classes}
    for values in metrics.values() if hardest else ():
        values.append(hardest.metric())
    model.compile(
        make_optimizer(recipe, total_steps),
        loss={head: keras.losses.CategoricalCrossentropy(from_logits=True, name=head) for head in classes},
        loss_weights={head: 1 / len(classes) for head in classes},
        weighted_metrics=metrics,
        jit_compile=False,
    )


def make_optimizer(recipe: Recipe, total_steps: int) -> keras.optimizers.Optimizer:
    """The recipe's optimiser, its rate on the one-cycle schedule."""
    rate = OneCycleSchedule(
        recipe.lr, total_steps, warmup=recipe.warmup, tail=0.0, final_factor=1e-4, curve=recipe.curve
    )
    groups = [NO_DECAY]
    if recipe.bias_rate != 1:
        groups.append(ParameterGroup(r"(beta|bias)$", rate=recipe.bias_rate))
    if recipe.head_rate != 1:
        groups.append(ParameterGroup("head_.*kernel$", rate=recipe.head_rate))
    options: dict[str, Any] = {"groups": groups, "weight_decay": recipe.weight_decay or None}
    if recipe.optimizer != "adamw":
        options["momentum"] = recipe.momentum
    return get_optimizer(recipe.optimizer, rate, **options)


def train(
    recipe: Recipe,
    data: Data,
    train_index: np.ndarray,
    val_index: np.ndarray,
    folder: Path,
    console: Console,
    what: str = "training",
    resume: bool = False,
) -> Trained:
    """Train the recipe's network on `train_index`, watch it on `val_index`, keep the best epoch.

    Args:
        recipe: Resolved.
        data: All labelled pictures.
        train_index, val_index: Which of them to train on and to watch; without any to watch, the last epoch is kept.
        folder: For "last.npz", from which an interrupted training goes on, and "best.npz".
        console: Shows the progress.
        what: How to call it there.
        resume: Go on from what `folder` holds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = data.with_keras_names()
    held_out = data.take(val_index)
    keras.utils.set_random_seed(recipe.seed)
    model = build_network(recipe, data, recipe.precision, any_size=bool(recipe.scales))
    hardest = HardestExamples(len(train_index)) if recipe.hardest < 1 else None
    steps = [steps_of(recipe, phase, len(train_index)) for phase in phases(recipe) for _ in range(*phase.epochs)]
    compile_network(model, recipe, data.num_classes, sum(steps), hardest)

    stopping = EarlyStopping(
        lambda logs: validation_score(logs, list(data.classes)),
        mode="max",
        patience=recipe.patience or None,
        path=folder / "best.npz",
    )
    progress = EpochLog(console, what, steps, list(data.classes))
    divergence = TerminateOnDivergence()
    watched: dict[str, Any] = {"log": progress, "divergence": divergence}
    watched |= {"hardest": hardest} if hardest else {}
    watched |= {"stopping": stopping} if len(val_index) else {}
    checkpoint = Checkpoint(folder / "last.npz", watched)
    first_epoch, stopped = checkpoint.restore(model) if resume else (0, False)
    if first_epoch:
        console.say(f"  {what}: going on after epoch {first_epoch} of {recipe.epochs}")
    start = time.monotonic() - progress.seconds_before
    if first_epoch < recipe.epochs and not stopped:
        watch = make_eval(held_out.pictures, held_out.labels, data.num_classes) if len(val_index) else None
        size: Any = None
        with console.progress(what, sum(steps)) as progress.bar, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Training diverged|Epoch .* no finite|EarlyStopping saw no")  # said below
            for phase in phases(recipe, first_epoch):
                begin, end = phase.epochs
                only = None
                if hardest:
                    only = hardest.choose(phase.share)
                    batch_size = min(recipe.batch_size, len(train_index))
                    hardest.order = places_of_epoch(only, batch_size, recipe.seed, begin)
                for callback in watched.values() if begin > first_epoch else ():
                    callback.set_state(callback.get_state())  # a new `fit` goes on from there
                if size != phase.size:
                    # The step of another size is another graph: it knows the size, and takes the faster kernels.
                    model.make_train_function(force=True)
                    size = phase.size
                model.fit(
                    training_batches(recipe, data, train_index, begin, size, only),
                    steps_per_epoch=steps[begin],
                    epochs=end,
                    initial_epoch=begin,
                    validation_data=watch,
                    # While the pictures are small no epoch can be the best one.
                    callbacks=[*(one for one in watched.values() if size is None or one is not stopping), checkpoint],
                    verbose=0,
                    shuffle=False,
                )
                if model.stop_training:
                    break
        if divergence.message:
            raise ValueError(f"{divergence.message} With `--lr` that is a new run.")
    elif len(val_index) and stopping.best_weights is not None:
        model.set_weights(stopping.best_weights)
    finished = build_network(recipe, data, "float32")
    finished.set_weights(model.get_weights())
    seconds = time.monotonic() - start
    pictures = sum(steps[: len(progress.history)]) * min(recipe.batch_size, len(train_index))
    speed = pictures / max(sum(row["seconds"] for row in progress.history), 1e-9)
    best = len(progress.history) if stopping.best_epoch is None else stopping.best_epoch + 1
    return Trained(finished, progress.history, best, seconds, speed)


@dataclass(frozen=True)
class Phase:
    """Epochs (first, end) that are trained alike: size of the pictures (None: their own), share that is trained on."""

    epochs: tuple[int, int]
    size: tuple[int, int] | None
    share: float


def phases(recipe: Recipe, first_epoch: int = 0) -> list[Phase]:
    """What is left of the training from `first_epoch` on; the hardest pictures are chosen anew for every epoch."""
    ends, shares = [], 0.0
    for scale, share in recipe.scales:
        shares += share
        ends.append((round(shares * recipe.epochs), scaled(recipe.image_size, scale)))
    ends.append((recipe.epochs, None))
    # To know what is hard, all have to be seen once.
    chosen_from = max(1, round(recipe.hardest_from * recipe.epochs)) if recipe.hardest < 1 else recipe.epochs
    found, begin = [], 0
    for end, size in ends:
        # What is chosen, and in which order it comes, must be known for every epoch on its own.
        for cut in range(begin + 1, end + 1) if recipe.hardest < 1 else [end] if end > begin else []:
            found.append(Phase((begin, cut), size, recipe.hardest if begin >= chosen_from else 1.0))
            begin = cut
    return [
        Phase((max(phase.epochs[0], first_epoch), phase.epochs[1]), phase.size, phase.share)
        for phase in found
        if phase.epochs[1] > first_epoch
    ]


def steps_of(recipe: Recipe, phase: Phase, pictures: int) -> int:
    """Steps of an epoch, at least one."""
    return max(1, round(phase.share * pictures) // min(recipe.batch_size, pictures))


def training_batches(
    recipe: Recipe,
    data: Data,
    index: np.ndarray,
    first_epoch: int = 0,
    size: tuple[int, int] | None = None,
    only: np.ndarray | None = None,
) -> Any:
    """The recipe's endless batches of the pictures of `index`, or `only` of some of these, shrunk to `size`."""
    return make_train(
        data.pictures,
        data.labels,
        data.num_classes,
        index=index,
        batch_size=min(recipe.batch_size, len(index)),
        augmentation=augmentation(recipe, data.statistics[0], size),
        label_smoothing=recipe.label_smoothing,
        smoothing=recipe.smoothing,
        balance=recipe.balance,
        seed=recipe.seed,
        first_epoch=first_epoch,
        only=only,
    )


def measure_seconds(recipe: Recipe, data: Data, train_counts: Sequence[int], steps: int = 5) -> float:
    """How long training on so many pictures (one number a fold) would take here: a few real steps, the median."""
    data = data.with_keras_names()
    model = build_network(recipe, data, recipe.precision, any_size=bool(recipe.scales))
    compile_network(model, recipe, data.num_classes, steps)
    total = 0.0
    everything = np.arange(len(data.pictures))
    for size, parts in itertools.groupby(phases(recipe), key=lambda phase: phase.size):
        model.make_train_function(force=True)
        batches = iter(training_batches(recipe, data, everything, size=size))
        seconds = []
        for _ in range(steps + 2):
            start = time.monotonic()
            model.train_on_batch(*next(batches))
            seconds.append(time.monotonic() - start)
        step = float(np.median(seconds[2:]))  # the first two steps compile and warm up
        for phase in parts:
            epochs = phase.epochs[1] - phase.epochs[0]
            total += step * epochs * sum(steps_of(recipe, phase, count) for count in train_counts)
    # An evaluation costs about a third of a training step: forward only.
    evaluated = sum(len(data.pictures) - count for count in train_counts) / recipe.batch_size / 3
    return total + recipe.epochs * step * evaluated


def validation_score(logs: Mapping[str, float], heads: Sequence[str]) -> float:
    """What makes one epoch better than another: the mean accuracy, and of equally accurate ones the lower loss."""
    return mean_accuracy(logs, heads, "val_") - 1e-6 * float(logs["val_loss"])


def mean_accuracy(logs: Mapping[str, float], heads: Sequence[str], prefix: str = "") -> float:
    """The mean of the heads' accuracies in Keras' logs, which call a single head's just "accuracy"."""
    names = [
        f"{prefix}{head}_accuracy" if f"{prefix}{head}_accuracy" in logs else f"{prefix}accuracy" for head in heads
    ]
    return float(np.mean([logs[name] for name in names]))


class EpochLog(keras.callbacks.Callback):
    """Record every epoch and show the progress: steps (so many an epoch) on a bar, a line for every epoch."""

    def __init__(self, console: Console, what: str, steps: Sequence[int], heads: Sequence[str]) -> None:
        super().__init__()
        self.console, self.what, self.steps, self.heads = console, what, steps, heads
        self.epochs = len(steps)
        self.history: list[dict[str, float]] = []
        self.seconds_before = 0.0
        self.bar: Bar | None = None

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Remember when this sitting began."""
        self._began = time.monotonic()
        self._done_before = len(self.history)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Start the epoch's clock."""
        self._epoch, self._epoch_began = epoch, time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Move the bar."""
        logs = logs or {}
        self._training_seconds = time.monotonic() - self._epoch_began
        if self.bar is not None:
            self.bar.update(
                sum(self.steps[: self._epoch]) + batch + 1,
                f"epoch {self._epoch + 1} of {self.epochs} · loss {logs['loss']:.3f}",
            )

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Write the epoch down and print its line."""
        logs = logs or {}
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row = {
            "epoch": epoch + 1,
            "lr": rate,
            **{name: float(value) for name, value in logs.items()},
            "seconds": self._training_seconds,
        }
        self.history.append(row)
        now = time.monotonic()
        left = (now - self._began) / (epoch + 1 - self._done_before) * (self.epochs - epoch - 1)
        accuracy = f"accuracy {percent(mean_accuracy(logs, self.heads))}"
        if any(name.startswith("val_") for name in logs):
            accuracy += f", validation {percent(mean_accuracy(logs, self.heads, 'val_'))}"
        self.console.say(
            f"  {self.what}: epoch {epoch + 1} of {self.epochs}, loss {logs['loss']:.4f}, {accuracy}, "
            f"{duration(now - self._epoch_began)}, {duration(left)} left"
        )

    def get_state(self) -> dict[str, Any]:
        """The log so far, for the checkpoint."""
        return {"history": self.history, "seconds": self.seconds_before + time.monotonic() - self._began}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on after `get_state()`."""
        self.history, self.seconds_before = list(state["history"]), float(state["seconds"])
