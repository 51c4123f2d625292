"""Encoded pictures on disk, each a whole file or a stretch of a TFRecord shard, read in any order and checked."""

import contextlib
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from pipelines.python_op import PythonOp

WHOLE_FILE = UNCHECKED = -1
CHUNK = 64  # pictures read by one call of Python, at most: a call costs as much as reading several small ones
CHUNK_BYTES = 4 * 2**20  # of one call, about
READERS = 4  # calls at the same time, so that a disk or a network has several requests to answer


@dataclass(frozen=True)
class Encoded:
    """Where N encoded pictures lie.

    Attributes:
        paths: File names [N], as the system spells them (bytes).
        starts: Where in its file each begins, int64 [N].
        lengths: How many bytes each has, int64 [N]; `WHOLE_FILE` for all of the file.
        checksums: CRC-32 of each, int64 [N]; `UNCHECKED` where it is not known.
    """

    paths: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    checksums: np.ndarray

    @classmethod
    def files(cls, paths: Sequence[os.PathLike[str] | str]) -> "Encoded":
        """Whole files."""
        names = np.array([os.fsencode(path) for path in paths], object)
        count = len(names)
        return cls(names, np.zeros(count, "int64"), np.full(count, WHOLE_FILE), np.full(count, UNCHECKED))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: np.ndarray | slice) -> "Encoded":
        return Encoded(self.paths[index], self.starts[index], self.lengths[index], self.checksums[index])

    def name(self, index: int) -> str:
        """The file of one of them, for messages; in a shard with its place."""
        place = f" at byte {self.starts[index]:,}" if self.starts[index] else ""
        return os.fsdecode(self.paths[index]) + place

    def total_bytes(self) -> int:
        """How many bytes all of them take on disk; a file that is not there counts nothing."""
        unknown = [path for path, length in zip(self.paths, self.lengths, strict=True) if length == WHOLE_FILE]
        return int(self.lengths[self.lengths > 0].sum()) + sum(_file_size(path) for path in unknown)

    def read(self, index: int) -> bytes:
        """One encoded picture. Its length and checksum are noted the first time and compared from then on.

        Raises:
            OSError: The file cannot be read.
            ValueError: It does not hold what it held when the checksum was taken.
        """
        stretch = (column[index] for column in (self.paths, self.starts, self.lengths, self.checksums))
        data, self.checksums[index] = _read(*stretch)
        self.lengths[index] = len(data)
        return data

    def readable(self, most: int) -> np.ndarray:
        """The places of the first `most` that can be read now."""
        found: list[int] = []
        for place in range(len(self)):
            if len(found) == most:
                break
            with contextlib.suppress(OSError, ValueError):
                self.read(place)
                found.append(place)
        return np.array(found, int)

    def read_all(
        self, places: tf.data.Dataset, failed: set[str] | None = None, *, elsewhere: bool = False
    ) -> tf.data.Dataset:
        """`(place, bytes, more...)` for every one of the `places`, in their order.

        Args:
            places: Whole numbers below N, or `(place, more...)` with tensors that are carried along.
            failed: Takes the names of those that cannot be read, which give no bytes; None raises instead.
            elsewhere: Another process will read them: it is told all lengths and checksums known by now, and can note
                no others, nor any names.
        """

        def read_some(places: np.ndarray) -> np.ndarray:
            return np.array([self._read_or_note(int(place), failed) for place in places], object)

        if elsewhere:
            names, numbers = np.unique(self.paths, return_inverse=True)  # a shard holds many
            columns = [tf.constant(column) for column in (numbers, self.starts, self.lengths, self.checksums)]
            names = tf.constant(names)

        def read(places: tf.Tensor, *more: tf.Tensor) -> tuple[tf.Tensor, ...]:
            if elsewhere:
                number, *stretch = [tf.gather(column, places) for column in columns]
                data = _read_elsewhere([tf.gather(names, number), *stretch, failed is None], tf.string)
            else:
                data = tf.numpy_function(read_some, [places], tf.string)
            return places, tf.ensure_shape(data, [None]), *more

        sample = self[:: max(1, len(self) // 100)]
        chunk = int(CHUNK_BYTES * len(sample) / max(sample.total_bytes(), 1))
        return places.batch(min(max(chunk, 1), CHUNK)).map(read, num_parallel_calls=READERS).unbatch()

    def _read_or_note(self, place: int, failed: set[str] | None) -> bytes:
        try:
            return self.read(place)
        except (OSError, ValueError) as error:
            if failed is None:
                raise ValueError(f"{self.name(place)}: {error}") from error
            failed.add(self.name(place))
            return b""


def _file_size(path: bytes) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _read(path: bytes, start: int, length: int, checksum: int) -> tuple[bytes, int]:
    """A stretch of a file, or all of it, and its checksum; an `OSError` or `ValueError` if it is not what it was."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size if length == WHOLE_FILE else int(length)
        data = os.pread(descriptor, size, int(start))
    finally:
        os.close(descriptor)
    found = zlib.crc32(data)
    if checksum not in (UNCHECKED, found):
        raise ValueError("the file is damaged or has changed: its checksum differs")
    return data, found


@PythonOp
def _read_elsewhere(
    paths: np.ndarray, starts: np.ndarray, lengths: np.ndarray, checksums: np.ndarray, strict: np.ndarray
) -> np.ndarray:
    read = []
    for path, start, *expected in zip(paths, starts, lengths, checksums, strict=True):
        try:
            read.append(_read(path, start, *expected)[0])
        except (OSError, ValueError) as error:
            if strict:
                raise ValueError(f"{os.fsdecode(path)} at byte {start:,}: {error}") from error
            read.append(b"")
    return np.array(read, object)
