"""Reading many pictures at once: their sizes from the headers, their pixels into memory, or a check for streaming."""

import io
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import psutil
import tensorflow as tf
from PIL import Image

from pipelines.decode import decode_picture
from pipelines.encoded import Encoded
from pipelines.stream import Pictures, Streamed

LONGEST_SIDE = 128  # pictures larger than this are reduced to it, unless the user asks for another size


def open_pictures(
    encoded: Encoded,
    size: tuple[int, int],
    *,
    memory: float | None = None,
    verified: bool = False,
    strict: bool = False,
    on_progress: Callable[[int], None] = lambda done: None,
) -> tuple[Pictures, dict[int, str]]:
    """Pictures for training in one of two regimes, and {place: reason} of those that cannot be read.

    Decoded into memory where they take up no more than `memory`; else streamed: checked once, and decoded anew whenever
    they are needed. The batches made from them are the same.

    Args:
        encoded: Where they lie; lengths and checksums are noted there.
        size: (height, width) to resize to.
        memory: Bytes that the decoded pictures may take; None for `free_for_pictures`.
        verified: They have been decoded when their checksums were taken: comparing those is check enough.
        strict: Of a stream, see `Streamed`.
        on_progress: Called with the number of pictures done.
    """
    if decoded_bytes(len(encoded), size) <= (free_for_pictures() if memory is None else memory):
        return load_pictures(encoded, size, on_progress=on_progress)
    return Streamed(encoded, size, strict), check_pictures(encoded, verified, on_progress)


def free_for_pictures() -> float:
    """Bytes that decoded pictures may take: a quarter of what is free, since TensorFlow keeps a copy of them."""
    return psutil.virtual_memory().available / 4


def decoded_bytes(count: int, size: tuple[int, int]) -> int:
    """What so many decoded pictures take."""
    return count * size[0] * size[1] * 3


def load_pictures(
    encoded: Encoded,
    size: tuple[int, int],
    *,
    decode: Callable[[tf.Tensor, tuple[int, int]], tf.Tensor] = decode_picture,
    on_progress: Callable[[int], None] = lambda done: None,
) -> tuple[np.ndarray, dict[int, str]]:
    """Decode into uint8 [N, height, width, 3]; unreadable pictures are left black and returned as {place: reason}."""
    pictures = np.zeros((len(encoded), *size, 3), "uint8")
    unread = np.ones(len(encoded), bool)
    done = 0
    for places, decoded in _decoded(encoded, lambda data: decode(data, size)):
        pictures[places] = decoded
        unread[places] = False
        done += len(places)
        on_progress(done)
    return pictures, {place: why_unreadable(encoded, place) for place in np.flatnonzero(unread).tolist()}


def check_pictures(
    encoded: Encoded, verified: bool = False, on_progress: Callable[[int], None] = lambda done: None
) -> dict[int, str]:
    """{place: reason} of the pictures that cannot be read: decoded one after the other, and forgotten."""
    unread = np.ones(len(encoded), bool)
    done = 0
    decode = tf.strings.length if verified else lambda data: tf.shape(decode_picture(data))[0]
    for places, _ in _decoded(encoded, decode):
        unread[places] = False
        done += len(places)
        on_progress(done)
    return {place: why_unreadable(encoded, place) for place in np.flatnonzero(unread).tolist()}


def _decoded(encoded: Encoded, decode: Callable[[tf.Tensor], tf.Tensor]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places and what `decode` makes of them, in batches, as they become ready; what cannot be read is passed over."""
    data = encoded.read_all(tf.data.Dataset.range(len(encoded)), failed=set())
    data = data.filter(lambda place, data: tf.strings.length(data) > 0)
    data = data.map(lambda place, data: (place, decode(data)), num_parallel_calls=tf.data.AUTOTUNE)
    options = tf.data.Options()
    options.deterministic = False  # the place travels along, so the order may be whatever is quickest
    return data.ignore_errors().batch(64).with_options(options).as_numpy_iterator()


def why_unreadable(encoded: Encoded, place: int) -> str:
    """One line that says why a picture could not be decoded."""
    try:
        data = encoded.read(place)
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:
        return str(error)
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


def picture_sizes(encoded: Encoded, sample: int = 500) -> list[tuple[int, int]]:
    """(height, width) of an evenly spaced sample, from the headers; what cannot be read is passed over."""
    sizes = []
    for place in range(0, len(encoded), max(1, len(encoded) // sample)):
        try:
            with Image.open(io.BytesIO(encoded.read(place))) as picture:
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
