"""Encoded pictures on disk, each a whole file or a stretch of a TFRecord shard, read in any order and checked."""

import contextlib
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

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
        length = int(self.lengths[index])
        descriptor = os.open(self.paths[index], os.O_RDONLY)
        try:
            if length == WHOLE_FILE:
                length = os.fstat(descriptor).st_size
            data = os.pread(descriptor, length, int(self.starts[index]))
        finally:
            os.close(descriptor)
        checksum = zlib.crc32(data)
        if self.checksums[index] not in (UNCHECKED, checksum):
            raise ValueError("the file is damaged or has changed: its checksum differs")
        self.lengths[index], self.checksums[index] = len(data), checksum
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

    def read_all(self, places: tf.data.Dataset, failed: set[str] | None = None) -> tf.data.Dataset:
        """`(place, bytes)` for every one of the `places`, in their order.

        Args:
            places: Whole numbers below N.
            failed: Takes the names of those that cannot be read, which give no bytes; None raises instead.
        """

        def read_some(places: np.ndarray) -> np.ndarray:
            return np.array([self._read_or_note(int(place), failed) for place in places], object)

        def read(places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            data = tf.numpy_function(read_some, [places], tf.string)
            return places, tf.ensure_shape(data, [None])

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
