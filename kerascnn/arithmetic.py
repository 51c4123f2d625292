"""Convolution arithmetic: sizes, the convolution as a matrix, and (`layer_table`) what every layer of a network does.

A guide to convolution arithmetic for deep learning, https://arxiv.org/abs/1603.07285
"""

from typing import Any

import numpy as np

from kerascnn.layer_table import LayerRow, layer_table, multiply_adds

__all__ = [
    "LayerRow",
    "convolution_matrix",
    "layer_table",
    "multiply_adds",
    "output_size",
    "same_padding",
    "transposed_output_size",
]


def output_size(n: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """Size of what a convolution or pooling makes of `n` pixels: floor((n - k + 2p) / s) + 1.

    Args:
        n: Pixels along one axis.
        kernel: Size k of the kernel, from 1 on; dilated it covers `dilation * (k - 1) + 1` pixels.
        stride: Pixels s from one window to the next.
        padding: Pixels p added on each side.
        dilation: Distance of neighbouring values of the kernel.

    Raises:
        ValueError: An argument is out of its range, or the kernel covers more than the padded picture.

    >>> output_size(224, kernel=7, stride=2, padding=3)
    112
    """
    _require(1, n=n, kernel=kernel, stride=stride, dilation=dilation)
    _require(0, padding=padding)
    covered = dilation * (kernel - 1) + 1
    if covered > n + 2 * padding:
        raise ValueError(
            f"The kernel must fit into the padded picture. Received: a kernel of {covered} pixels (kernel={kernel}, "
            f"dilation={dilation}) on {n + 2 * padding} (n={n}, padding={padding}). Raise `padding` or `n`."
        )
    return (n - covered + 2 * padding) // stride + 1


def same_padding(kernel: int) -> int:
    """Padding on each side, (k - 1) / 2, with which a convolution of stride 1 keeps the size of the picture.

    Raises:
        ValueError: The kernel is even: no padding that is equal on both sides keeps the size.

    >>> same_padding(7)
    3
    """
    _require(1, kernel=kernel)
    if kernel % 2 == 0:
        raise ValueError(f"Only an odd kernel keeps the size with equal padding on both sides. Received: {kernel=}.")
    return (kernel - 1) // 2


def transposed_output_size(n: int, kernel: int, stride: int = 1, padding: int = 0, output_padding: int = 0) -> int:
    """Size of what a transposed convolution makes of `n` pixels: (n - 1) s - 2p + (k - 1) + output_padding + 1.

    Args:
        n: Pixels along one axis.
        kernel: Size k of the kernel.
        stride: Pixels s of the output for a pixel of the input.
        padding: Pixels p of the output cut off on each side.
        output_padding: Pixels of the output added at the end, fewer than `stride`: `output_size` sends as many as
            `stride` sizes to the same n, and this chooses which of them comes back.

    Raises:
        ValueError: An argument is out of its range, or the padding cuts everything off.

    >>> transposed_output_size(6, kernel=3, stride=2, padding=1)
    11
    """
    _require(1, n=n, kernel=kernel, stride=stride)
    _require(0, padding=padding, output_padding=output_padding)
    if output_padding >= stride:
        raise ValueError(f"`output_padding` must be smaller than `stride`. Received: {output_padding=}, {stride=}.")
    size = (n - 1) * stride - 2 * padding + (kernel - 1) + output_padding + 1
    if size < 1:
        raise ValueError(
            f"A padding of {padding} on each side leaves nothing of {size + 2 * padding} pixels. Lower it."
        )
    return size


def convolution_matrix(kernel: Any, input_size: int | tuple[int, int], stride: int = 1, padding: int = 0) -> np.ndarray:
    """The convolution of a picture as a matrix, (out_h * out_w) x (in_h * in_w), for pictures flattened row by row.

    Its transpose is the transposed convolution, from out_h * out_w pixels to in_h * in_w.

    Args:
        kernel: Values of the kernel, (height, width), applied as Keras does: not mirrored.
        input_size: Pixels of the picture, (height, width) or one number for both.
        stride: Pixels from one window to the next.
        padding: Zeros added on each side.

    Raises:
        ValueError: The kernel has not two axes or does not fit into the padded picture.

    >>> convolution_matrix([[1, 2], [3, 4]], input_size=(2, 3)).astype(int)
    array([[1, 2, 0, 3, 4, 0],
           [0, 1, 2, 0, 3, 4]])
    """
    kernel = np.asarray(kernel)
    if kernel.ndim != 2:
        raise ValueError(f"`kernel` must have two axes, (height, width). Received: shape={kernel.shape}.")
    height, width = (input_size, input_size) if isinstance(input_size, int) else input_size
    rows = output_size(height, kernel.shape[0], stride, padding)
    columns = output_size(width, kernel.shape[1], stride, padding)
    matrix = np.zeros((rows, columns, height + 2 * padding, width + 2 * padding), kernel.dtype)
    for row, column in np.ndindex(rows, columns):
        top, left = row * stride, column * stride
        matrix[row, column, top : top + kernel.shape[0], left : left + kernel.shape[1]] = kernel
    return matrix[:, :, padding : padding + height, padding : padding + width].reshape(rows * columns, height * width)


def _require(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise ValueError(f"`{name}` must be at least {least}. Received: {name}={value}.")
