"""What an audit keeps of every picture: a thumbnail, a digest of its pixels, and what the header of its file says."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from pipelines.encoded import Encoded
from pipelines.stream import Pictures, read_batches

SIDE = 16  # of a thumbnail, in pixels: 768 bytes a picture
BATCH = 500  # pictures read at once
BLANK = 8  # levels between the darkest and the brightest value of a channel, up to which nothing can be seen


@dataclass(frozen=True)
class Look:
    """What is kept of N pictures.

    Attributes:
        thumbnails: uint8 [N, 16, 16, 3].
        digests: uint64 [N]: equal for equal pixels, and for others with a probability of N^2 / 2^65.
        blank: bool [N]: one colour all over.
    """

    thumbnails: np.ndarray
    digests: np.ndarray
    blank: np.ndarray

    def __len__(self) -> int:
        return len(self.digests)

    def __add__(self, other: "Look") -> "Look":
        """These pictures, then the others."""
        return Look(
            np.concatenate([self.thumbnails, other.thumbnails]),
            np.concatenate([self.digests, other.digests]),
            np.concatenate([self.blank, other.blank]),
        )


def look_at(pictures: Pictures, on_progress: Callable[[int], None] = lambda done: None) -> Look:
    """Look at every picture, uint8 [N, height, width, 3] in memory or on disk, once and in order."""
    count = len(pictures)
    thumbnails = np.zeros((count, SIDE, SIDE, 3), "uint8")
    digests, blank = np.zeros(count, "uint64"), np.zeros(count, bool)
    done = 0
    for batch in read_batches(pictures, BATCH):
        for place, picture in enumerate(batch, done):
            thumbnails[place] = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            digests[place] = _digest(picture)
            # Noise may be gone from a thumbnail; what is seen in a thumbnail is seen in the picture.
            blank[place] = _is_flat(thumbnails[place]) and _is_flat(picture)
        done += len(batch)
        on_progress(done)
    return Look(thumbnails, digests, blank)


def _is_flat(picture: np.ndarray) -> bool:
    pixels = picture.reshape(-1, 3)
    return bool((pixels.max(axis=0) - pixels.min(axis=0) <= BLANK).all())


def _digest(picture: np.ndarray) -> int:
    data = np.ascontiguousarray(picture).data
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def read_headers(
    encoded: Encoded, places: np.ndarray, on_progress: Callable[[int], None] = lambda done: None
) -> pd.DataFrame:
    """A row for each of the places, which is its index: "bytes", "checksum", "height", "width", "format", "mode".

    Sizes are those of the picture upright; the format is "JPEG", "PNG", ..., the mode Pillow's ("L" is grey, "P" has a
    palette, "RGBA" opacity, "CMYK" printing colours). What cannot be read is passed over.
    """
    rows, found = [], []
    for done, place in enumerate(places):
        if done % BATCH == 0:
            on_progress(done)
        try:
            data = encoded.read(int(place))
            with Image.open(io.BytesIO(data)) as picture:
                width, height = picture.size
                # JPEGs alone are turned by the decoder.
                turned = picture.format == "JPEG" and picture.getexif().get(0x0112, 1) >= 5
                size = (width, height) if turned else (height, width)
                rows.append((len(data), int(encoded.checksums[place]), *size, picture.format, picture.mode))
                found.append(int(place))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            continue
    columns = ["bytes", "checksum", "height", "width", "format", "mode"]
    return pd.DataFrame(rows, columns=columns, index=found)
