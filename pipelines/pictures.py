"""Reading many picture files at once: their sizes from the headers, their pixels decoded in parallel into one array."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
import tensorflow as tf
from PIL import Image

from pipelines.decode import decode_picture

LONGEST_SIDE = 128  # pictures larger than this are reduced to it, unless the user asks for another size


def load_pictures(
    paths: Sequence[os.PathLike[str] | str],
    size: tuple[int, int],
    *,
    decode: Callable[[tf.Tensor, tuple[int, int]], tf.Tensor] = decode_picture,
    on_progress: Callable[[int], None] = lambda done: None,
) -> tuple[np.ndarray, dict[int, str]]:
    """Decode files into uint8 [N, height, width, 3]; unreadable ones are left black and returned as {index: reason}.

    Raises:
        ValueError: The decoded pictures would not fit in half of the free memory.
    """
    needed, free = len(paths) * size[0] * size[1] * 3, psutil.virtual_memory().available
    if needed > free / 2:
        raise ValueError(
            f"{len(paths):,} pictures of {size[0]}x{size[1]} need {needed / 2**30:.1f} GiB of memory, more than half "
            f"of the {free / 2**30:.1f} GiB that are free. Choose a smaller `--image-size`."
        )
    pictures = np.zeros((len(paths), *size, 3), "uint8")
    unread = np.ones(len(paths), bool)

    def read(index: tf.Tensor, path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return index, decode(tf.io.read_file(path), size)

    names = tf.constant([os.fsencode(path) for path in paths], tf.string)
    data = tf.data.Dataset.from_tensor_slices((tf.range(len(paths)), names))
    options = tf.data.Options()
    options.deterministic = False  # the index travels along, so the order may be whatever is quickest
    data = data.map(read, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors().batch(64).with_options(options)
    done = 0
    for index, decoded in data.as_numpy_iterator():
        pictures[index] = decoded
        unread[index] = False
        done += len(index)
        on_progress(done)
    return pictures, {index: why_unreadable(paths[index]) for index in np.flatnonzero(unread).tolist()}


def why_unreadable(path: os.PathLike[str] | str) -> str:
    """One line that says why a file could not be decoded."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        return error.strerror or str(error)
    if not data:
        return "the file is empty (0 bytes)"
    try:
        decode_picture(tf.constant(data))
    except tf.errors.OpError:
        if data[:2] == b"BM" and data[28:29] not in (b"\x18", b"\x20"):
            return "a BMP with a palette is not supported; save it as PNG"
        known = data[:8].startswith((b"\xff\xd8\xff", b"\x89PNG", b"BM", b"GIF8")) or data[8:12] == b"WEBP"
        return "the picture is damaged or cut short" if known else "not a JPEG, PNG, BMP, GIF or WebP picture"
    return "could not be resized"


def picture_sizes(paths: Sequence[os.PathLike[str] | str], sample: int = 500) -> list[tuple[int, int]]:
    """(height, width) of an evenly spaced sample of the files, from their headers; unreadable files are passed over."""
    sizes = []
    for path in paths[:: max(1, len(paths) // sample)]:
        try:
            with Image.open(path) as picture:
                width, height = picture.size
                turned = picture.getexif().get(0x0112, 1) >= 5
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            continue
        sizes.append((width, height) if turned else (height, width))
    return sizes


def choose_size(sizes: Sequence[tuple[int, int]], longest: int = LONGEST_SIDE, smallest: int = 8) -> tuple[int, int]:
    """The (height, width) to train at: the median picture, reduced to `longest`, in multiples of 8.

    >>> choose_size([(32, 32)]), choose_size([(224, 168), (224, 168), (100, 400)])
    ((32, 32), (128, 96))
    """
    if not sizes:
        return (longest, longest)
    height, width = np.median([size[0] for size in sizes]), np.median([size[1] for size in sizes])
    scale = min(1.0, longest / max(height, width))
    rounded = [max(smallest, 8 * round(side * scale / 8)) for side in (height, width)]
    return (rounded[0], rounded[1])
