"""What a unit of a layer sees of the picture, exactly, through any graph of layers.

Computing receptive fields of convolutional neural networks, https://distill.pub/2019/computing-receptive-fields
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any, NamedTuple

from keras import layers

Shape = Sequence[Any]  # sizes, None where unknown

WINDOWS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D, layers.MaxPooling2D, layers.AveragePooling2D)
# How far, in pixels of its input, an enlarged pixel looks to either side.
INTERPOLATION = {"nearest": 0, "bilinear": 1, "bicubic": 2, "lanczos3": 3, "lanczos5": 5}


@dataclass(frozen=True)
class Reach:
    """Which pixels of the picture the units of a layer depend on, along one axis.

    Unit u sees the pixels from `first(u)` to `last(u)`. After upsampling neighbours differ in how many they see, and
    all repeats after a period: `firsts` and `lasts` hold one period, the next lies `shift` pixels further on.

    >>> conv = Reach().window(kernel=3, stride=2, padding=1)
    >>> conv.size, conv.stride
    (3, Fraction(2, 1))
    >>> conv.window(kernel=3, stride=1, padding=1).size
    7
    """

    firsts: tuple[int, ...] = (0,)
    lasts: tuple[int, ...] = (0,)
    shift: int = 1

    @property
    def size(self) -> int:
        """The receptive field in pixels: the most that a unit sees."""
        return max(last - first + 1 for first, last in zip(self.firsts, self.lasts, strict=True))

    @property
    def stride(self) -> Fraction:
        """Pixels of the picture from one unit to the next."""
        return Fraction(self.shift, len(self.firsts))

    def first(self, unit: int) -> int:
        """The first pixel that a unit sees; negative in the padding."""
        periods, place = divmod(unit, len(self.firsts))
        return self.firsts[place] + periods * self.shift

    def last(self, unit: int) -> int:
        """The last pixel that a unit sees."""
        periods, place = divmod(unit, len(self.lasts))
        return self.lasts[place] + periods * self.shift

    def window(self, kernel: int, stride: int, padding: int) -> "Reach":
        """After a convolution or pooling: unit u takes `kernel` units from u * stride - padding on."""
        period = len(self.firsts) // math.gcd(len(self.firsts), stride)
        starts = [unit * stride - padding for unit in range(period)]
        return Reach(
            tuple(self.first(start) for start in starts),
            tuple(self.last(start + kernel - 1) for start in starts),
            self.shift * period * stride // len(self.firsts),
        )

    def spread(self, kernel: int, stride: int, padding: int) -> "Reach":
        """After a transposed convolution: unit u adds to `kernel` units from u * stride - padding on."""
        ends = [unit + padding for unit in range(len(self.firsts) * stride)]
        return Reach(
            tuple(self.first(-((kernel - 1 - end) // stride)) for end in ends),
            tuple(self.last(end // stride) for end in ends),
            self.shift,
        )

    def union(self, other: "Reach") -> "Reach":
        """Where two branches of equal stride meet: all that one or the other sees, and what lies between."""
        units = range(math.lcm(len(self.firsts), len(other.firsts)))
        return Reach(
            tuple(min(self.first(unit), other.first(unit)) for unit in units),
            tuple(max(self.last(unit), other.last(unit)) for unit in units),
            self.shift * len(units) // len(self.firsts),
        )


class View(NamedTuple):
    """What the units of a map see, down and across; everything if `whole`."""

    down: Reach = Reach()
    across: Reach = Reach()
    whole: bool = False


def view_after(layer: Any, views: Sequence[View | None], shapes: Sequence[Shape], output_shape: Shape) -> View | None:
    """What the units of an output see; None where they have no place in the picture."""
    if len(output_shape) != 4 or all(view is None for view in views):
        return None
    if len(views) > 1 or views[0] is None:
        return _joined(views, shapes, output_shape)
    view, shape = views[0], shapes[0]
    if isinstance(layer, WINDOWS):
        return _each(view, lambda reach, axis: _window(layer, reach, axis, shape[1 + axis]))
    if isinstance(layer, layers.Conv2DTranspose):
        return _each(view, lambda reach, axis: _spread(layer, reach, axis))
    if isinstance(layer, layers.ZeroPadding2D):
        before = [first for first, _ in layer.padding]
        if layer.data_format == "channels_first":  # a way to pad the channels: the layer's last axis
            before = [0, before[0]]
        return _each(view, lambda reach, axis: reach.window(1, 1, before[axis]))
    if isinstance(layer, layers.Cropping2D):
        return _each(view, lambda reach, axis: reach.window(1, 1, -layer.cropping[axis][0]))
    return _resized(layer, view, shape[1:3], output_shape[1:3])


def _each(view: View, change: Callable[[Reach, int], Reach]) -> View:
    return View(change(view.down, 0), change(view.across, 1), view.whole)


def _window(layer: Any, reach: Reach, axis: int, size: int | None) -> Reach:
    """After a convolution or pooling of `size` pixels."""
    kernel, stride, padding = _kernel(layer, axis), layer.strides[axis], 0
    if layer.padding == "same":
        # An unknown size counts as a multiple of the stride.
        rest = stride if size is None else (size - 1) % stride + 1
        padding = max(kernel - rest, 0) // 2
    return reach.window(kernel, stride, padding)


def _spread(layer: Any, reach: Reach, axis: int) -> Reach:
    """After a transposed convolution; Keras cuts the end off so that `tail` pixels follow the last input's first."""
    kernel, stride, padding = _kernel(layer, axis), layer.strides[axis], 0
    if layer.padding == "same":
        tail = stride if layer.output_padding is None else kernel % 2 + layer.output_padding[axis]
        padding = max(kernel - tail, 0) // 2
    return reach.spread(kernel, stride, padding)


def _kernel(layer: Any, axis: int) -> int:
    """Pixels that the kernel or pooling window covers."""
    if layer.data_format != "channels_last":
        raise ValueError(f"`layer_table` reads networks with channels last. Layer {layer.name!r} has them first.")
    if hasattr(layer, "pool_size"):
        return layer.pool_size[axis]
    return layer.dilation_rate[axis] * (layer.kernel_size[axis] - 1) + 1


def _resized(layer: Any, view: View, sizes: Shape, output_sizes: Shape) -> View | None:
    """After any other layer: as before, or enlarged or reduced by a whole factor; otherwise all may be mixed."""
    if isinstance(layer, layers.UpSampling2D):
        factors = [Fraction(factor) for factor in layer.size]
    elif tuple(sizes) == tuple(output_sizes):
        return view
    elif None in (*sizes, *output_sizes) or tuple(output_sizes) == (1, 1) or isinstance(layer, layers.Reshape):
        return None
    else:
        factors = [Fraction(after, before) for before, after in zip(sizes, output_sizes, strict=True)]
    around = INTERPOLATION.get(getattr(layer, "interpolation", "nearest"))
    if around is None or any(1 not in (factor.numerator, factor.denominator) for factor in factors):
        return None

    def change(reach: Reach, axis: int) -> Reach:
        up, down = factors[axis].numerator, factors[axis].denominator
        if around and up > 1:
            return reach.spread(2 * around * up - up % 2, up, (around - 1) * up + up // 2)
        return reach.spread(up, up, 0).window(down, down, 0)

    return _each(view, change)


def _joined(views: Sequence[View | None], shapes: Sequence[Shape], output_shape: Shape) -> View | None:
    """Where branches meet, coarser ones enlarged; what has no place of its own is mixed into every unit."""
    sizes = tuple(output_shape[1:3])
    if sizes not in {tuple(shape[1:3]) for shape in shapes if len(shape) == 4}:
        return None
    placed = [
        view
        for view, shape in zip(views, shapes, strict=True)
        if view is not None and (sizes == (1, 1) or tuple(shape[1:3]) != (1, 1))
    ]
    joined = []
    for reaches in zip(*(view[:2] for view in placed), strict=True):
        factors = [reach.stride / min(other.stride for other in reaches) for reach in reaches]
        if any(factor.denominator > 1 for factor in factors):
            return None
        same = [reach.spread(int(factor), int(factor), 0) for reach, factor in zip(reaches, factors, strict=True)]
        joined.append(reduce(Reach.union, same))
    whole = len(placed) < len(views) or any(view.whole for view in placed)
    return View(joined[0], joined[1], whole) if joined else None
