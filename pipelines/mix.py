"""Operations that mix every picture with another of the batch: mixup and cutmix, and the labels with them.

The partner of a picture is the next one of its batch, which is as random as the order of the epoch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from pipelines.erase import inside
from pipelines.operation import Choice, Size, as_float, select
from pipelines.randomness import fork, uniform

KNOTS = 4096  # of the table that inverts the Beta distribution; between them the inverse is linear


@dataclass(frozen=True)
class Mix:
    """A mixture of pictures: `apply` returns float32 pictures, and how much of its own pixels each has kept [B]."""

    name: str
    draw: Callable[[tf.Tensor, Size], Choice]
    apply: Callable[[tf.Tensor, Choice], tuple[tf.Tensor, tf.Tensor]]


def mixup(alpha: float = 0.2, probability: float = 1.0) -> Mix:
    """Blend each picture with its partner, in a proportion of its own drawn from Beta(alpha, alpha).

    Source: mixup: Beyond Empirical Risk Minimization, https://arxiv.org/abs/1710.09412
    """
    proportion = _proportion(alpha, probability)

    def apply(pictures: tf.Tensor, kept: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        values, share = as_float(pictures), tf.reshape(kept, [-1, 1, 1, 1])
        return share * values + (1.0 - share) * partner(values), kept

    return Mix("mixup", lambda seeds, size: proportion(seeds), apply)


def cutmix(alpha: float = 1.0, probability: float = 1.0) -> Mix:
    """Replace a rectangle of each picture by the same one of its partner.

    The rectangle has the picture's shape, a share of its area drawn from Beta(alpha, alpha) and a centre anywhere; what
    lies outside the picture is cut off, and the labels follow the pixels that are left.

    Source: CutMix: Regularization Strategy to Train Strong Classifiers, https://arxiv.org/abs/1905.04899
    """
    proportion = _proportion(alpha, probability)

    def draw(seeds: tf.Tensor, size: Size) -> tf.Tensor:
        side = tf.sqrt(1.0 - proportion(fork(seeds, 0)))[:, None] * size[:2]
        length = tf.cast(side, "int32")  # rounded down, as in the authors' code
        centre = tf.cast(uniform(fork(seeds, 1), 2) * size[:2], "int32")
        return tf.concat([centre - length // 2, length], axis=1)

    def apply(pictures: tf.Tensor, box: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows, columns = inside(box, *pictures.shape[1:3])
        covered = rows[:, :, None] & columns[:, None, :]
        mixed = tf.where(covered[..., None], partner(pictures), pictures)
        return as_float(mixed), 1.0 - tf.reduce_mean(tf.cast(covered, "float32"), axis=[1, 2])

    return Mix("cutmix", draw, apply)


def mix_of(first: Mix, second: Mix) -> Mix:
    """For every picture one of two mixtures, equally likely."""

    def draw(seeds: tf.Tensor, size: Size) -> Choice:
        return (
            uniform(fork(seeds, 0), 1)[:, 0] < 0.5,
            first.draw(fork(seeds, 1), size),
            second.draw(fork(seeds, 2), size),
        )

    def apply(pictures: tf.Tensor, choice: Choice) -> tuple[tf.Tensor, tf.Tensor]:
        is_first, own_first, own_second = choice
        mixed, kept = zip(first.apply(pictures, own_first), second.apply(pictures, own_second), strict=True)
        return select(is_first, *mixed), tf.where(is_first, *kept)

    return Mix(f"{first.name} or {second.name}", draw, apply)


def partner(values: tf.Tensor) -> tf.Tensor:
    """For every example of a batch its partner's values: the next one's, the first one's for the last."""
    return tf.roll(values, shift=-1, axis=0)


def mix_labels(
    labels: Mapping[str, tf.Tensor], weights: Mapping[str, tf.Tensor], kept: tf.Tensor
) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
    """Labels and weights of mixed pictures, so that the loss is the pictures' losses in proportion to their pixels.

    The weight of a label is its example's weight times its share of the pixels: a partner without a label adds nothing.

    Args:
        labels: For every head, one row [B, classes] for an example.
        weights: For every head [B].
        kept: Share of the pixels that are an example's own [B].
    """
    mixed, summed = {}, {}
    for head, label in labels.items():
        own, other = kept * weights[head], (1.0 - kept) * partner(weights[head])
        summed[head] = own + other
        rows = own[:, None] * label + other[:, None] * partner(label)
        mixed[head] = tf.math.divide_no_nan(rows, summed[head][:, None])
    return mixed, summed


def _proportion(alpha: float, probability: float) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from seeds to the share of its own that each picture keeps: Beta(alpha, alpha), or all of it."""
    if alpha <= 0 or not 0 <= probability <= 1:
        raise ValueError(
            "`alpha` must be positive and `probability` lie in [0, 1]. "
            f"Received: alpha={alpha}, probability={probability}."
        )
    # Knots crowd at 0 and 1, where the distribution does for small alpha.
    knots = np.sin(np.linspace(0, np.pi / 2, KNOTS)) ** 2
    cumulated = tf.math.betainc(np.float64(alpha), np.float64(alpha), knots).numpy().astype("float32")

    def draw(seeds: tf.Tensor) -> tf.Tensor:
        number, mixed = tf.unstack(uniform(seeds, 2), axis=1)
        right = tf.clip_by_value(tf.searchsorted(cumulated, number, side="right"), 1, KNOTS - 1)
        low, high = tf.gather(cumulated, right - 1), tf.gather(cumulated, right)
        first, last = (tf.gather(knots.astype("float32"), place) for place in (right - 1, right))
        kept = first + (last - first) * tf.math.divide_no_nan(number - low, high - low)
        return tf.where(mixed < probability, kept, 1.0)

    return draw
