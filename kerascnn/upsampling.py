"""What decoders need beyond Keras' layers: sub-pixel shuffling, unpooling, and checks of sizes."""

from collections.abc import Sequence

import keras
from keras import layers, ops


def require_shape(shape: Sequence[int | None], multiple: int = 1, *, fixed: bool = False) -> None:
    """Raise a `ValueError` unless `shape` is that of pictures which can be halved so often.

    Args:
        shape: (height, width, channels).
        multiple: Of how many pixels the sides must be multiples.
        fixed: Whether the sides must be known; otherwise they may be None.
    """
    if len(shape) != 3 or not shape[2] or (fixed and None in shape):
        sides = "known sides" if fixed else "sides that may be None"
        raise ValueError(f"A picture's shape is (height, width, channels), with {sides}. Received: {tuple(shape)}.")
    if any(side is not None and (side < 1 or side % multiple) for side in shape[:2]):
        raise ValueError(
            f"Height and width must be multiples of {multiple} pixels. Received: {shape[0]}x{shape[1]}. "
            "Pad or resize the pictures, or choose a lower `depth`."
        )


def require_at_least(least: int, **arguments: int) -> None:
    """Raise a `ValueError` unless every argument is a whole number of at least `least`."""
    for argument, value in arguments.items():
        if not isinstance(value, int) or value < least:
            raise ValueError(
                f"`{argument}` must be a whole number of at least {least}. Received: {argument}={value!r}."
            )


def scaled(filters: int, width: float) -> int:
    """A number of filters times `width`, at least one.

    >>> scaled(64, 0.25)
    16
    """
    if not width > 0:
        raise ValueError(f"`width` must be positive: it multiplies all numbers of filters. Received: width={width}.")
    return max(1, round(filters * width))


def depth_to_space(maps: keras.KerasTensor, scale: int) -> keras.KerasTensor:
    """Move channels to places: channel `(i scale + j) c + k` to channel k of the sub-pixel in row i, column j."""
    _, height, width, channels = ops.shape(maps)
    rest = channels // scale**2
    maps = ops.reshape(maps, (-1, height, width, scale, scale, rest))
    return ops.reshape(ops.transpose(maps, (0, 1, 3, 2, 4, 5)), (-1, height * scale, width * scale, rest))


@keras.saving.register_keras_serializable(package="kerascnn")
class RequireMultiple(layers.Layer):
    """Returns its input unchanged; pictures whose sides are no multiples of `multiple` are a `ValueError`."""

    def __init__(self, multiple: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.multiple = multiple

    def call(self, pictures: keras.KerasTensor) -> keras.KerasTensor:
        """Check (batch, height, width, channels)."""
        require_shape(pictures.shape[1:], self.multiple)
        return pictures

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """That of the input."""
        return input_shape

    def get_config(self) -> dict[str, object]:
        """The constructor's arguments."""
        return {**super().get_config(), "multiple": self.multiple}


@keras.saving.register_keras_serializable(package="kerascnn")
class DepthToSpace(layers.Layer):
    """Sub-pixel convolution's shuffle: (height, width, scale^2 c) to (scale height, scale width, c).

    The order is that of TensorFlow's operation of this name.

    Args:
        scale: How many times larger the result is.

    Source: https://arxiv.org/abs/1609.05158, equation 4.
    """

    def __init__(self, scale: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        require_at_least(1, scale=scale)
        self.scale = scale

    def call(self, maps: keras.KerasTensor) -> keras.KerasTensor:
        """Shuffle (batch, height, width, channels)."""
        return depth_to_space(maps, self.scale)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The sides times `scale`, the channels divided by `scale`^2."""
        batch, height, width, channels = input_shape
        if channels is None or channels % self.scale**2:
            raise ValueError(
                f"The number of channels must be a multiple of scale^2 = {self.scale**2}. Received: {channels}."
            )
        sides = [side and side * self.scale for side in (height, width)]
        return (batch, *sides, channels // self.scale**2)

    def get_config(self) -> dict[str, object]:
        """The constructor's arguments."""
        return {**super().get_config(), "scale": self.scale}


@keras.saving.register_keras_serializable(package="kerascnn")
class Unpool(layers.Layer):
    """Undoes a 2x2 max pooling: each value returns to the place of the maximum, the other three are zero.

    It is called with the maps to enlarge and the maps as they were before the pooling, whose maxima say the places
    (the first one where several are equal).

    Source: https://arxiv.org/abs/1505.04366, section 3.1 (switch variables); also SegNet, https://arxiv.org/abs/1511.00561
    """

    def call(self, maps: keras.KerasTensor, before: keras.KerasTensor) -> keras.KerasTensor:
        """(batch, h, w, c) and (batch, 2h, 2w, c) to (batch, 2h, 2w, c)."""
        corners = [before[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        largest = ops.maximum(ops.maximum(corners[0], corners[1]), ops.maximum(corners[2], corners[3]))
        values, free = [], ops.ones_like(largest, dtype="bool")
        for corner in corners:
            here = ops.logical_and(free, ops.equal(corner, largest))
            free = ops.logical_and(free, ops.logical_not(here))
            values.append(ops.where(here, maps, ops.zeros_like(maps)))
        return depth_to_space(ops.concatenate(values, axis=-1), 2)

    def compute_output_shape(
        self, maps_shape: tuple[int | None, ...], before_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """That of the maps before the pooling."""
        return before_shape


@keras.saving.register_keras_serializable(package="kerascnn")
class ICNR(keras.initializers.Initializer):
    """Starts a sub-pixel convolution as a nearest-neighbour enlargement, free of the checkerboard pattern.

    All `scale`^2 filters that make the sub-pixels of one channel get the same He-uniform start.

    Args:
        scale: That of the `DepthToSpace` layer which follows.
        seed: For the same start every time.

    Source: https://arxiv.org/abs/1707.02937
    """

    def __init__(self, scale: int, seed: int | None = None) -> None:
        self.scale, self.seed = scale, seed

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> keras.KerasTensor:
        """A kernel of (height, width, inputs, scale^2 channels)."""
        one = (*shape[:-1], shape[-1] // self.scale**2)
        return ops.tile(keras.initializers.HeUniform(self.seed)(one, dtype), (1, 1, 1, self.scale**2))

    def get_config(self) -> dict[str, object]:
        """The constructor's arguments."""
        return {"scale": self.scale, "seed": self.seed}
