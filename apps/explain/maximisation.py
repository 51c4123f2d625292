"""Activation maximisation: the picture that a class or a unit answers to more than to any real one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from apps.explain.network import Network, predict

RATE = 0.2  # of Adam
CHECKED_EVERY = 8  # steps, after which the rounded pictures are measured
MOST_PIXELS = 1 << 19  # of the pictures made at a time: ten of 224x224


@dataclass(frozen=True)
class Target:
    """What is to be maximised: a class of a head, a unit (channel) of a hidden layer, or the layer as a whole.

    Attributes:
        where: Name of the head or of the layer.
        number: Of the class or of the channel; None for the whole layer.
        is_class: Whether it is a class.
    """

    where: str
    number: int | None
    is_class: bool


class MeanSquare(keras.layers.Layer):
    """The mean square of all that a layer gives for a picture, [N, 1]."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Of x [N, ...]."""
        return keras.ops.mean(
            keras.ops.square(keras.ops.reshape(x, (keras.ops.shape(x)[0], -1))), axis=1, keepdims=True
        )


def target_values(network: Network, targets: Sequence[Target], pixels: np.ndarray) -> np.ndarray:
    """How strongly every picture answers: float32 [N, targets].

    Of a class it is the logit, of a unit the mean of its map, of a layer the mean square of all it gives.

    Args:
        network: Of `open_network`.
        targets: What is measured.
        pixels: uint8 [N, height, width, channels].
    """
    model, columns = _measured(network, targets)
    answers = predict(model, pixels)
    return np.stack(
        [answers[place][:, target.number or 0] for place, target in zip(columns, targets, strict=True)], axis=1
    )


def maximise(
    network: Network,
    targets: Sequence[Target],
    *,
    steps: int = 192,
    colours: np.ndarray | None = None,
    begin: np.ndarray | None = None,
    seed: int = 0,
    on_progress: Callable[[int], None] = lambda done: None,
) -> tuple[np.ndarray, np.ndarray]:
    """For every target the picture found, uint8 [targets, height, width, channels], and its value [targets].

    Adam climbs in the coefficients of the picture's Fourier transform, scaled so that low frequencies move first; a
    sigmoid keeps the pixels in range, and every step sees the pictures shifted by a few pixels at random. Both keep the
    fine noise away that a network answers to as well. Every eighth step the pictures are rounded to whole levels and
    measured as they are, and the best are kept: the values are those of the pictures that are given back.

    Args:
        network: Of `open_network`.
        targets: What is maximised; all at the same time.
        steps: Of the climb.
        colours: [channels, channels] that mixes the colours, see `colours_of`; each for itself where None.
        begin: A picture for every target to begin with, uint8 [targets, height, width, channels]; noise where None.
        seed: Of the noise and the shifts.
        on_progress: Called with the steps done, times the targets.

    Sources: https://distill.pub/2017/feature-visualization, https://arxiv.org/abs/1506.06579
    """
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1. Received: {steps}.")
    at_a_time = max(1, MOST_PIXELS // (network.size[0] * network.size[1]))
    pictures, values = [], []
    for start in range(0, len(targets), at_a_time):
        some = targets[start : start + at_a_time]
        first = None if begin is None else begin[start : start + at_a_time]
        best = np.empty(0), np.empty(0)
        for done, best in enumerate(_climb(network, some, steps, colours, first, seed)):  # noqa: B007  (used: the last one)
            on_progress(start * steps + min(done * CHECKED_EVERY, steps) * len(some))
        pictures.append(best[0])
        values.append(best[1])
    return np.concatenate(pictures), np.concatenate(values)


def maximise_beyond(
    network: Network,
    targets: Sequence[Target],
    pixels: np.ndarray,
    *,
    steps: int = 192,
    on_progress: Callable[[int], None] = lambda done: None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`maximise` in the colours of real pictures, and further than any of these.

    Where the climb from noise ends below the best real picture, another begins there.

    Args:
        network: Of `open_network`.
        targets: What is maximised.
        pixels: The real pictures, uint8 [N, height, width, channels].
        steps: Of each climb.
        on_progress: Called with the steps done, times the targets; the second climbs are not counted.

    Returns:
        The pictures, their values, and those of the real pictures [N, targets].
    """
    colours, real = colours_of(pixels), target_values(network, targets, pixels)
    pictures, values = maximise(network, targets, steps=steps, colours=colours, on_progress=on_progress)
    below = np.flatnonzero(values <= real.max(axis=0))
    if len(below):
        begin = pixels[real[:, below].argmax(axis=0)]
        others = maximise(network, [targets[int(row)] for row in below], steps=steps, colours=colours, begin=begin)
        higher = others[1] > values[below]
        pictures[below[higher]], values[below[higher]] = others[0][higher], others[1][higher]
    return pictures, values, real


def colours_of(pixels: np.ndarray) -> np.ndarray:
    """How the colours of pictures go together: [channels, channels], so that grey pictures give grey ones.

    The square root of the covariance of the channels, of mean variance 1.

    Args:
        pixels: uint8 [N, height, width, channels].
    """
    flat = pixels.reshape(-1, pixels.shape[-1])
    flat = flat[:: -(-len(flat) // 100_000)].astype("float64")
    covariance = np.atleast_2d(np.cov(flat.T))
    values, vectors = np.linalg.eigh(covariance)
    mean = float(np.trace(covariance)) / len(covariance)
    if not mean > 0:  # all of one colour
        return np.eye(len(covariance), dtype="float32")
    return (vectors * np.sqrt(np.maximum(values, 0.0) / mean)).T.astype("float32")


def _measured(network: Network, targets: Sequence[Target]) -> tuple[keras.Model, list[str]]:
    """A model whose outputs [N, C] are those of the targets' layers and heads, and the output of every target."""
    found: dict[tuple[str, bool, bool], keras.KerasTensor] = {}
    for target in targets:
        tensor = network.model.output[target.where] if target.is_class else network.layer(target.where)
        if target.number is None:
            tensor = MeanSquare(name=f"mean_square_{len(found)}", dtype="float32")(tensor)
        elif not 0 <= target.number < tensor.shape[-1]:
            what = "classes" if target.is_class else "channels"
            raise ValueError(f"{target.where!r} has {tensor.shape[-1]} {what}. Received: number {target.number}.")
        elif len(tensor.shape) == 4:
            tensor = keras.layers.GlobalAveragePooling2D(dtype="float32")(tensor)
        found.setdefault(_key(target), tensor)
    names = {key: str(number) for number, key in enumerate(found)}
    model = keras.Model(network.model.input, {names[key]: tensor for key, tensor in found.items()})
    return model, [names[_key(target)] for target in targets]


def _key(target: Target) -> tuple[str, bool, bool]:
    """Targets of one output have one key."""
    return target.where, target.is_class, target.number is None


def _climb(
    network: Network,
    targets: Sequence[Target],
    steps: int,
    colours: np.ndarray | None,
    begin: np.ndarray | None,
    seed: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The best pictures so far and their values, at the beginning and after every eighth step."""
    model, columns = _measured(network, targets)
    (height, width), channels = network.size, network.channels
    mix = np.eye(channels, dtype="float32") if colours is None else colours
    scale = _scale(height, width)
    shape = (2, len(targets), channels, height, width // 2 + 1)
    spectrum = keras.Variable(tf.zeros(shape), dtype="float32")
    optimizer = keras.optimizers.Adam(RATE)
    optimizer.build([spectrum])
    most = (max(1, height // 16), max(1, width // 16))

    def draw() -> tf.Tensor:
        planes = tf.signal.irfft2d(tf.complex(spectrum[0], spectrum[1]) * scale, [height, width])
        return 255.0 * tf.sigmoid(tf.tensordot(tf.transpose(planes, [0, 2, 3, 1]), mix, 1))

    def measure(pixels: tf.Tensor) -> tf.Tensor:
        answers = model(pixels, training=False)
        rows = [answers[place][row, target.number or 0] for row, (place, target) in enumerate(pairs)]
        return tf.stack([tf.cast(value, tf.float32) for value in rows])

    pairs = list(zip(columns, targets, strict=True))

    @tf.function
    def step(number: tf.Tensor) -> None:
        shift = [
            tf.random.stateless_uniform([], (number, seed + 1 + axis), -most[axis], most[axis] + 1, tf.int32)
            for axis in (0, 1)
        ]
        with tf.GradientTape() as tape:
            loss = -tf.reduce_sum(measure(tf.roll(draw(), shift, (1, 2))))
        optimizer.apply([tape.gradient(loss, spectrum.value)], [spectrum])

    @tf.function
    def look() -> tuple[tf.Tensor, tf.Tensor]:
        rounded = tf.round(draw())
        return tf.cast(rounded, tf.uint8), measure(rounded)

    @tf.function
    def slopes() -> tf.Tensor:
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(measure(draw()))
        return tf.reduce_max(tf.abs(tape.gradient(total, spectrum.value)), axis=(0, 2, 3, 4))

    if begin is None:
        _begin_with_noise(spectrum, slopes, seed)
    else:
        spectrum.assign(_spectrum_of(begin, mix, scale))
    best, values = (part.numpy() for part in look())
    yield best, values
    for number in range(steps):
        step(tf.constant(number))
        if (number + 1) % CHECKED_EVERY == 0 or number + 1 == steps:
            pictures, found = (part.numpy() for part in look())
            better = found > values
            best[better], values[better] = pictures[better], found[better]
            yield best, values


def _begin_with_noise(spectrum: keras.Variable, slopes: Callable[[], tf.Tensor], seed: int) -> None:
    """Noise for every target; stronger noise, up to 64 times, where a unit is silent and so shows no way up."""
    silent = np.ones(spectrum.shape[1], bool)
    for trial in range(13):
        noise = 0.1 * 2 ** (trial / 2) * tf.random.stateless_normal(spectrum.shape, (seed, trial))
        spectrum.assign(tf.where(silent[None, :, None, None, None], noise, spectrum.value))
        silent = slopes().numpy() == 0
        if not silent.any():
            break


def _scale(height: int, width: int) -> np.ndarray:
    """What the coefficients [height, width // 2 + 1] are multiplied by: one over their frequency, as in photographs."""
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    return (np.sqrt(height * width) / np.maximum(frequencies * max(height, width), 1.0)).astype("complex64")


def _spectrum_of(pictures: np.ndarray, mix: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The coefficients that draw these pictures; black and white are drawn as nearly so."""
    share = np.clip(pictures / 255.0, 1 / 255, 254 / 255)
    planes = (np.log(share / (1 - share)) @ np.linalg.pinv(mix)).transpose(0, 3, 1, 2)
    spectrum = np.fft.rfft2(planes) / scale
    return np.stack([spectrum.real, spectrum.imag])
