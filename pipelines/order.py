"""Which pictures make the batch of a step: a pure function of (seed, step)."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from pipelines.encoded import Encoded
from pipelines.randomness import example_seeds, fork

ORDER, AUGMENTATION = range(2)  # what random numbers are for


@dataclass(frozen=True)
class Order:
    """The order of all epochs.

    Attributes:
        places: What an epoch consists of, each less than `count`; another remainder is left out in each epoch.
        count: Pictures in all.
        steps: Batches in an epoch.
        batch_size: Places that a step takes.
        rows: Of these, the ones that are made here.
        seed: Of the run.
        rates: How often each of the places is drawn on average (mean 1); None for once.
        number: Tells several orders of one seed apart.
    """

    places: np.ndarray
    count: int
    steps: int
    batch_size: int
    rows: np.ndarray
    seed: int
    rates: np.ndarray | None = None
    number: int = 0

    def visits(self, steps: tf.data.Dataset) -> tf.data.Dataset:
        """`(step, visits [rows])` for every one of the steps, counted from the first of epoch 0.

        A visit is a picture's place, and `count` more for each time it has come before in the same epoch.
        """

        def ordered(epoch: tf.Tensor) -> tf.Tensor:
            places, copies = order_of_epoch(len(self.places), self.rates, self.seed, epoch, self.number)
            return tf.gather(tf.constant(self.places, "int64"), places) + self.count * copies

        def of_step(known: tuple[tf.Tensor, tf.Tensor], step: tf.Tensor) -> tuple:
            epoch = step // self.steps
            known = tf.cond(epoch == known[0], lambda: known, lambda: (epoch, ordered(epoch)))
            return known, (step, tf.gather(known[1], step % self.steps * self.batch_size + self.rows))

        nothing = tf.constant(-1, "int64"), tf.zeros([len(self.places)], "int64")
        return steps.scan(nothing, of_step)


def order_of_epoch(
    count: int, rates: np.ndarray | None, seed: int, epoch: tf.Tensor, number: int = 0
) -> tuple[tf.Tensor, tf.Tensor]:
    """The places [count] of an epoch in order, and how often each has come before in the same epoch.

    With `rates` (mean 1), a picture of rate r comes floor(r) or ceil(r) times: evenly spaced points, moved by one
    random number, on a line on which every picture takes up its rate (systematic sampling).
    """
    shuffle = fork(example_seeds(seed, epoch, [-1 - number]), ORDER)[0]
    places = tf.range(count, dtype="int64")
    copies = tf.zeros([count], "int64")
    if rates is not None:
        ends = tf.constant(np.cumsum(rates) / np.sum(rates) * count)
        start = tf.cast(tf.cast(shuffle[2], "float32") * 2.0**-32, "float64")
        points = tf.cast(places, "float64") + start
        places = tf.searchsorted(ends, tf.minimum(points, ends[-1] - 1e-9), side="right", out_type="int64")
        copies = tf.range(count, dtype="int64") - tf.searchsorted(places, places, side="left", out_type="int64")
    order = tf.random.experimental.stateless_shuffle(tf.range(count), seed=tf.bitcast(shuffle[:2], "int32"))
    return tf.gather(places, order), tf.gather(copies, order)


def places_of_epoch(places: np.ndarray, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """The places in `index` of an epoch's pictures in the order of `make_train(only=places)`, without sampling."""
    order, _ = order_of_epoch(len(places), None, seed, tf.constant(epoch, "int64"))
    return np.asarray(places)[order.numpy()][: len(places) // batch_size * batch_size]


def on_disk(encoded: Encoded) -> np.ndarray:
    """The places of encoded pictures as they follow each other on disk: by file, then by where they begin."""
    _, file = np.unique(encoded.paths, return_inverse=True)
    return np.lexsort((encoded.starts, file))
