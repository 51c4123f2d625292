"""Batches for `model.fit`, a pure function of (seed, epoch, picture), whether the pictures are in memory or on disk."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.adapters import adapt
from pipelines.labels import MISSING, SMOOTHINGS, check_labels, class_weights, example_weights, smooth
from pipelines.mix import Mix, mix_labels
from pipelines.operation import Operation
from pipelines.order import AUGMENTATION, Order, on_disk
from pipelines.randomness import example_seeds, fork
from pipelines.service import LAST, made_elsewhere, refuse_unnamed
from pipelines.share import WHOLE, Share
from pipelines.stream import Pictures, Streamed

BALANCES = ("none", "weights", "sampling")


def make_train(
    pictures: Pictures,
    labels: Mapping[str, np.ndarray],
    num_classes: Mapping[str, int],
    *,
    batch_size: int,
    index: np.ndarray | None = None,
    augmentation: Sequence[Any] = (),
    label_smoothing: float = 0.0,
    smoothing: str = "others",
    balance: str = "none",
    seed: int = 0,
    first_epoch: int = 0,
    first_step: int = 0,
    only: np.ndarray | None = None,
    share: Share | None = None,
    own_shards: bool = False,
    service: str | None = None,
) -> tf.data.Dataset:
    """Endless training batches `(x, {head: y}, {head: weight})`, as many an epoch as its pictures fill.

    x is float32 [batch, height, width, channels] in [0, 255], y float32 [batch, classes], weight float32 [batch].

    Args:
        pictures: uint8 [N, height, width, channels], or `stream.Streamed`; the batches are the same.
        labels: For every head, N class numbers, or `MISSING`.
        num_classes: For every head, how many classes there are.
        batch_size: Pictures in a batch; the remainder of an epoch is left out, another one in each epoch.
        index: Which of the pictures to train on; None for all.
        augmentation: Operations of `pipelines.augment` and whatever `augment.adapt` takes, applied in this order;
            mixtures come last.
        label_smoothing: e; see `labels.smooth`.
        smoothing: "others" or "all"; see `labels.smooth`.
        balance: "weights" weighs the loss of each class by N / (K n), for each head on its own; "sampling" draws
            pictures of rare classes more often (over several heads, by the mean of these weights); "none".
        seed: Order and augmentation are a function of it, of the epoch and of the picture's place in `index` alone.
        first_epoch: Where to start, for a training that goes on.
        first_step: The first batch of that epoch; those before it are skipped without being made.
        only: Places in `index` that the epochs consist of; None for all. What happens to a picture stays the same.
        share: The part of every batch that this process makes, of `batch_size` / `share.of` pictures; None for all.
            The shares one after the other are the whole batch, bit for bit (but for Keras layers and functions that
            draw for a batch: `adapters.adapt`). Only its own pictures are read and augmented, and for each mixture
            one more, the next of the whole batch.
        own_shards: The process reads, epoch after epoch, only its own part of the files: streamed pictures as they lie
            on disk are cut into `share.of` pieces, and its part of every batch is drawn from its own piece, by (seed,
            epoch, `share.number`). A batch then depends on `share.of`, but what happens to a picture does not, and
            mixtures take their partners from the share's own part.
        service: "host:port" of a tf.data dispatcher whose workers read, decode and augment streamed pictures, each
            found there under the same path; see `pipelines.service`. The batches are the same.

    Raises:
        ValueError: `batch_size` exceeds the number of pictures or cannot be shared equally, lengths differ, a name is
            not known, options exclude each other, or no dispatcher answers.
    """
    check_labels(len(pictures), labels, num_classes)
    chosen = np.arange(len(pictures)) if index is None else np.asarray(index)
    if not 0 < batch_size <= len(chosen):
        raise ValueError(f"`batch_size` must lie between 1 and the {len(chosen)} pictures. Received: {batch_size}.")
    for name, value, known in (("balance", balance, BALANCES), ("smoothing", smoothing, SMOOTHINGS)):
        if value not in known:
            raise ValueError(f"`{name}` must be one of {', '.join(known)}. Received: {name}={value!r}.")
    if only is not None:
        _check_places(only, len(chosen), batch_size, balance)
    if service is not None and not isinstance(pictures, Streamed):
        raise ValueError("`service` is for pictures that are streamed. These are in memory, decoded: leave it out.")
    steps = in_order(augmentation)
    mixtures = sum(isinstance(step, Mix) for step in steps)
    chosen_labels = {head: values[chosen] for head, values in labels.items()}
    drawn = np.arange(len(chosen)) if only is None else np.asarray(only)
    rates = example_weights(chosen_labels, num_classes) if balance == "sampling" else None
    share = share or WHOLE
    own = share.size(batch_size)
    epoch_steps = len(drawn) // batch_size
    if own_shards:
        piece = np.array_split(_on_disk(pictures, chosen, drawn, balance), share.of)[share.number]
        order = Order(piece, len(chosen), epoch_steps, own, np.arange(own), seed, number=share.number)
    else:
        rows = share.rows(batch_size, following=mixtures)
        order = Order(drawn, len(chosen), epoch_steps, batch_size, rows, seed, rates)
    for name, number, most in (
        ("seed", seed, 2**31 - 1),
        ("first_epoch", first_epoch, 2**31 - 1),
        ("first_step", first_step, epoch_steps - 1),
    ):
        if not 0 <= number <= most:
            raise ValueError(f"`{name}` must lie between 0 and {most:,}. Received: {name}={number}.")
    if mixtures and (own if own_shards else batch_size) < 2:
        raise ValueError("`mixup` and `cutmix` mix pictures of one batch: `batch_size` must be at least 2.")
    targets = _targets(chosen_labels, num_classes, balance == "weights", most=batch_size)
    place_in_all = tf.constant(chosen, "int64")

    # The order of the steps, and why:
    # 1. the pictures of a step, from the order of its epoch; no epoch begins before the last was used up. Here alone a
    #    batch is cut among several processes, so that what follows knows nothing of them;
    # 2. read and decode (gather, for pictures in memory) by that order: random access makes any step reachable;
    # 3. batch before augmenting, since every operation works on a whole batch at once;
    # 4. one-hot and smoothed labels, and weights;
    # 5. operations on single pictures, as uint8, which is a quarter of the memory traffic of float32; then mixtures,
    #    which need pictures and labels finished;
    # 6. float32 at the very end, and the next batches are made while the network computes.
    def make(wanted: tf.data.Dataset, elsewhere: bool = False) -> tf.data.Dataset:
        """`(step, places of pictures that could not be read, batch)` for every wanted step."""
        visits = order.visits(wanted)
        if isinstance(pictures, Streamed):
            decoded = pictures.read(visits.flat_map(single), elsewhere=elsewhere)
            decoded = decoded.batch(len(order.rows), drop_remainder=True)
            return decoded.map(lambda x, readable, step, visits: finish(x, readable, step[0], visits, elsewhere))
        memory, readable = tf.constant(pictures), tf.ones([len(order.rows)], tf.bool)
        return visits.map(lambda step, visits: finish(tf.gather(memory, in_all(visits)), readable, step, visits))

    def in_all(visits: tf.Tensor) -> tf.Tensor:
        return tf.gather(place_in_all, visits % len(chosen))

    def single(step: tf.Tensor, visits: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices((in_all(visits), tf.fill([len(order.rows)], step), visits))

    def finish(
        x: tf.Tensor, readable: tf.Tensor, step: tf.Tensor, visits: tf.Tensor, elsewhere: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor, tuple]:
        places, epoch = visits % len(chosen), step // epoch_steps
        y, weight = {}, {}
        for head, (values, weights) in targets.items():
            y[head] = smooth(tf.gather(values, places), num_classes[head], label_smoothing, smoothing)
            weight[head] = tf.gather(weights, places) * tf.cast(readable, "float32")
        # A picture that is drawn twice is augmented twice.
        seeds = fork(example_seeds(seed, epoch, visits), AUGMENTATION)
        once = fork(example_seeds(seed, 0, places), AUGMENTATION)
        batch = augment_batch(x, y, weight, seeds, steps, once, epoch)
        if elsewhere:
            refuse_unnamed(batch[0].graph)
        lost = tf.boolean_mask(in_all(visits), ~readable)
        return step, lost, tf.nest.map_structure(lambda values: values[:own], batch)

    first = first_epoch * epoch_steps + first_step
    if service is not None and isinstance(pictures, Streamed):
        data = made_elsewhere(make, service, first, pictures.note)
    else:
        data = make(tf.data.Dataset.range(first, LAST)).map(lambda step, lost, batch: batch)
    data = data.map(lambda x, y, weight: (tf.cast(x, "float32"), y, weight))
    # Keras takes the number of all steps there are for the length of an epoch.
    return data.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)).prefetch(2)


def make_eval(
    pictures: Pictures,
    labels: Mapping[str, np.ndarray] | None = None,
    num_classes: Mapping[str, int] | None = None,
    *,
    batch_size: int = 256,
    share: Share | None = None,
) -> tf.data.Dataset:
    """Every picture once and in order, as `x` or, with labels, `(x, {head: y}, {head: weight})`.

    Args:
        pictures: uint8 [N, height, width, channels], or `stream.Streamed`.
        labels: For every head, N class numbers, or `MISSING`.
        num_classes: For every head, how many classes there are.
        batch_size: Pictures in a batch; the last one has the rest.
        share: The part of every batch that this process makes; None for all. All batches are then full: the last
            picture is repeated to the end with weight 0, and the others weigh so much more that the mean loss is that
            without it. Metrics that heed no weights count it.

    Raises:
        ValueError: `labels` come without `num_classes`, lengths differ, or a batch cannot be shared equally.
    """
    if (labels is None) != (num_classes is None):
        raise ValueError("`labels` and `num_classes` belong together. Received only one of them.")
    places, counts, most = _evaluated(len(pictures), batch_size, share)
    if isinstance(pictures, Streamed):
        data = pictures.read(tf.data.Dataset.from_tensor_slices(places))
    else:
        own = pictures if share is None else pictures[places]
        data = tf.data.Dataset.from_tensor_slices((own, np.ones(len(places), bool)))
    # Keras warns that the data ran out where their number is not known beforehand.
    data = data.batch(most).apply(tf.data.experimental.assert_cardinality(-(-len(places) // most)))
    data = data.map(lambda x, readable: (tf.cast(x, "float32"), readable))
    if labels is None or num_classes is None:
        return data.map(lambda x, readable: x).prefetch(2)
    check_labels(len(pictures), labels, num_classes)
    targets = _targets(labels, num_classes, balanced=False)
    y = {head: smooth(tf.gather(values, places), num_classes[head], 0.0) for head, (values, _) in targets.items()}
    weight = {head: tf.gather(weights, places) * counts for head, (_, weights) in targets.items()}
    answers = tf.data.Dataset.from_tensor_slices((y, weight)).batch(most)

    def join(data: tuple[tf.Tensor, tf.Tensor], answers: tuple[dict, dict]) -> tuple:
        (x, readable), (y, weight) = data, answers
        return x, y, {head: values * tf.cast(readable, "float32") for head, values in weight.items()}

    return tf.data.Dataset.zip((data, answers)).map(join).prefetch(2)


def _evaluated(count: int, batch_size: int, share: Share | None) -> tuple[np.ndarray, np.ndarray, int]:
    """Which of `count` pictures are evaluated, how much each counts (0 for padding), and how many make a batch."""
    if share is None:
        return np.arange(count), np.ones(count, "float32"), batch_size
    steps = -(-count // batch_size)
    places = (np.arange(steps)[:, None] * batch_size + share.rows(batch_size)).reshape(-1)
    # Keras divides the sum of a batch by all its rows.
    counts = np.where(places < count, steps * batch_size / max(count, 1), 0).astype("float32")
    return np.minimum(places, count - 1), counts, share.size(batch_size)


def in_order(augmentation: Sequence[Any]) -> list[Operation | Mix]:
    """The steps as operations; a `ValueError` unless mixtures come after all operations on single pictures."""
    steps = [adapt(step) for step in augmentation]
    is_mix = [isinstance(step, Mix) for step in steps]
    if is_mix != sorted(is_mix):
        raise ValueError(
            "`mixup` and `cutmix` must come after the operations on single pictures. Received: "
            f"{', '.join(step.name for step in steps)}."
        )
    return steps


def augment_batch(
    x: tf.Tensor,
    y: Mapping[str, tf.Tensor],
    weight: Mapping[str, tf.Tensor],
    seeds: tf.Tensor,
    steps: Sequence[Operation | Mix],
    once: tf.Tensor | None = None,
    epoch: tf.Tensor | int = 0,
) -> tuple[tf.Tensor, Mapping[str, tf.Tensor], Mapping[str, tf.Tensor]]:
    """Apply the steps in order, each with random numbers of its own; mixtures also to labels and weights.

    Args:
        x: Pictures, uint8 or float32 [B, height, width, channels], all but B static; what is mixed becomes float32.
        y: For every head, rows [B, classes].
        weight: For every head [B].
        seeds: uint32 [B, 3] of `randomness.example_seeds`.
        steps: Of `in_order`.
        once: The pictures' seeds of epoch 0, for operations that draw once for all epochs; None takes `seeds`.
        epoch: Its number, for the same.
    """
    for number, step in enumerate(steps):
        turn = None if isinstance(step, Mix) else step.turn
        drawn_from = seeds if turn is None or once is None else once
        choice = step.draw(fork(drawn_from, number), tuple(x.shape[1:]))
        if turn is not None:
            choice = turn(choice, epoch)
        if isinstance(step, Mix):
            x, kept = step.apply(x, choice)
            y, weight = mix_labels(y, weight, kept)
        else:
            x = step.apply(x, choice)
    return x, y, weight


def _check_places(only: np.ndarray, count: int, batch_size: int, balance: str) -> None:
    places = np.asarray(only)
    if len(places) < batch_size or places.min() < 0 or places.max() >= count or len(np.unique(places)) < len(places):
        raise ValueError(
            f"`only` needs different places from 0 to {count - 1}, a batch of {batch_size} at least. "
            f"Received {len(places)}: {places[:8].tolist()}."
        )
    if balance == "sampling":
        raise ValueError("`only` and `balance='sampling'` both choose pictures. Leave one of them out.")


def _on_disk(pictures: Pictures, chosen: np.ndarray, drawn: np.ndarray, balance: str) -> np.ndarray:
    """The drawn places in `chosen` as their pictures follow each other on disk."""
    if not isinstance(pictures, Streamed):
        raise ValueError("`own_shards` is for pictures that are streamed. These are in memory: leave it out.")
    if balance == "sampling":
        raise ValueError(
            "`balance='sampling'` draws from all pictures, `own_shards` from a part of them. Use balance='weights'."
        )
    return drawn[on_disk(pictures.encoded[chosen[drawn]])]


def _targets(
    labels: Mapping[str, np.ndarray], num_classes: Mapping[str, int], balanced: bool, most: float = np.inf
) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
    """For every head its labels and the weights of its examples in the loss: 0 for a missing label.

    The loss is a mean over all pictures. For the mean over those with a label, these weigh N / labels, at most `most`:
    for a batch in which one picture has a label, this is that picture's loss.
    """
    targets = {}
    for head, values in labels.items():
        known = (values != MISSING).astype("float32")
        if known.any():
            known *= np.float32(min(len(known) / np.count_nonzero(known), most))
        if balanced:
            known *= class_weights(values, num_classes[head])[np.maximum(values, 0)]
        targets[head] = (tf.constant(values, "int32"), tf.constant(known, "float32"))
    return targets
