"""Encoded pictures from strangers: which kinds are let in, and how large they may be, seen before they are decoded."""

import re
import struct
from collections.abc import Callable

from apps.serve.errors import Code, Refusal, invalid
from apps.serve.settings import Settings

# What a file begins with. The first five are decoded where `settings.formats` lets them in; the others are only named.
MAGIC: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    ("jpeg", re.compile(rb"\xff\xd8\xff")),
    ("png", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("gif", re.compile(rb"GIF8[79]a")),
    ("bmp", re.compile(rb"BM")),
    ("webp", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    ("jpeg xl", re.compile(rb"\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n")),
    ("tiff", re.compile(rb"II\*\x00|MM\x00\*")),
    ("avif or heif", re.compile(rb"....ftyp", re.DOTALL)),
    ("pdf", re.compile(rb"%PDF-")),
    ("svg", re.compile(rb"\s*(<\?xml[^>]*>\s*)?<svg", re.IGNORECASE)),
    ("html", re.compile(rb"\s*<(!doctype|html|head|body)", re.IGNORECASE)),
    ("base64", re.compile(rb"/9j/|iVBORw0KGgo|R0lGOD|data:image/")),
    ("text", re.compile(rb"[\t\n\r\x20-\x7e]{8}|[\t\n\r\x20-\x7e]+\Z")),
)
SEGMENTS = 20_000  # of a JPEG or PNG are looked at; real files have a few thousand at most
BLOCKS = 200_000  # of a GIF, of up to 255 bytes
# Each scan of a progressive JPEG is decoded at the whole picture's size, and takes 31 bytes only: real ones have 20.
SCANS = 64
# libpng inflates each to 8 MB, which takes it 40 ms: real files have a colour profile and a few comments.
COMPRESSED_CHUNKS = 8

JPEG_MARKER = re.compile(rb"\xff([^\x00\xff])", re.DOTALL)  # as libjpeg looks for the next one
JPEG_AFTER_SCAN = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
JPEG_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
JPEG_ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length

Size = tuple[int, int]


def check_picture(data: bytes, settings: Settings) -> None:
    """Refuse what must not be decoded, by its first bytes and its header; takes microseconds and no memory.

    Whether the rest of the data is whole is left to the decoder.

    Args:
        data: The whole file.
        settings: `formats` are let in, up to `max_pixels`; of a GIF all its pictures count, for all are decoded.

    Raises:
        Refusal: INVALID_ARGUMENT for another format than `settings.formats` or a damaged header; TOO_LARGE for more
            pixels than `settings.max_pixels`, and for a small file that keeps the decoder busy for minutes.

    >>> check_picture(b"<html>404 Not Found</html>", Settings())
    Traceback (most recent call last):
    apps.serve.errors.Refusal: The data are HTML, not a picture; this server accepts JPEG and PNG.
    """
    kind = kind_of(data)
    if kind not in settings.formats or kind not in READERS:
        received = _received(kind) if data else "empty: 0 bytes"
        raise invalid(f"The data are {received}; this server accepts {_listed(settings.formats)}.")
    try:
        width, height, pixels = READERS[kind](data)
    except (struct.error, IndexError):  # the end of the data, before the size was found
        raise invalid(f"The {kind.upper()} picture is cut short: its header ends too early.") from None
    if width < 1 or height < 1:
        raise invalid(f"The {kind.upper()} picture has a size of {width}x{height} pixels (width x height).")
    if pixels > settings.max_pixels:
        raise Refusal(
            Code.TOO_LARGE,
            f"The {kind.upper()} picture has {width}x{height} pixels (width x height), {pixels:,} in all; "
            f"this server accepts up to {settings.max_pixels:,}.",
        )


def kind_of(data: bytes) -> str:
    """What a file is by its first bytes: "jpeg", "png", "gif", "bmp", "webp" or a word for something else.

    >>> kind_of(b"GIF89a...")
    'gif'
    """
    return next((kind for kind, magic in MAGIC if magic.match(data)), "unknown")


def _received(kind: str) -> str:
    if kind == "unknown":
        return "no picture of a known format"
    if kind == "base64":
        return 'base64 text, not a picture: send it as {"b64": "..."}'
    return f"{'text' if kind == 'text' else kind.upper()}, not a picture" if kind in NO_PICTURES else kind.upper()


def _listed(formats: tuple[str, ...]) -> str:
    names = [name.upper() for name in formats]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else "no encoded pictures"


def _jpeg(data: bytes) -> tuple[int, int, int]:
    """Finds the frame as libjpeg does, so that both see the same size."""
    size: Size | None = None
    scans = components = frame = 0
    at, pattern = 2, JPEG_MARKER
    for _ in range(SEGMENTS):
        marker = pattern.search(data, at)
        if marker is None or marker[1] == b"\xd9":
            break
        pattern, at = JPEG_MARKER, marker.end()
        code = marker[1][0]
        if code in JPEG_ALONE:
            continue
        (length,) = struct.unpack_from(">H", data, at)
        if code in JPEG_FRAMES and size is None:
            height, width, components = struct.unpack_from(">HHB", data, at + 3)
            size, frame = (width, height), code
        elif code == 0xDA:
            if size is None:
                break
            if at + length > len(data):
                break
            scans, pattern = scans + 1, JPEG_AFTER_SCAN
            if frame not in JPEG_PROGRESSIVE and data[at + 2] == components:
                break  # everything is in this scan, and the decoder stops after it
            if scans > SCANS:
                raise Refusal(Code.TOO_LARGE, f"The JPEG picture has more than {SCANS} scans.")
        at += max(2, length)
    else:
        raise invalid(f"The JPEG picture has more than {SEGMENTS:,} segments.")
    if size is None:
        raise invalid("The JPEG picture is damaged or cut short: its header has no size.")
    if not scans:  # the decoder would refuse it too, and write a line to standard error
        raise invalid("The JPEG picture is cut short: it ends within its header.")
    return (*size, size[0] * size[1])


def _png(data: bytes) -> tuple[int, int, int]:
    length, kind, width, height = struct.unpack_from(">I4sII", data, 8)
    if length != 13 or kind != b"IHDR":
        raise invalid("The PNG picture is damaged: it does not begin with its header.")
    if max(width, height) >= 1 << 31:
        raise invalid(f"The PNG picture has a size of {width}x{height} pixels (width x height), which none can have.")
    at, compressed = 33, 0
    for _ in range(SEGMENTS):
        if at + 8 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IEND":
            break
        compressed += kind in {b"zTXt", b"iTXt", b"iCCP"}
        if compressed > COMPRESSED_CHUNKS:
            raise Refusal(
                Code.TOO_LARGE, f"The PNG picture has more than {COMPRESSED_CHUNKS} compressed comments and profiles."
            )
        at += 12 + length
    else:
        raise invalid(f"The PNG picture has more than {SEGMENTS:,} chunks.")
    return width, height, width * height


def _gif(data: bytes) -> tuple[int, int, int]:
    """Adds up all pictures: the decoder keeps every one, though only the first is used."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + _colour_table(flags)
    pixels, blocks = 0, 0
    while at < len(data) and data[at] != 0x3B:
        if data[at] == 0x2C:
            frame_width, frame_height, flags = struct.unpack_from("<HHB", data, at + 5)
            pixels += frame_width * frame_height
            at += 11 + _colour_table(flags)
        else:
            at += 2
        while at < len(data) and data[at] and blocks < BLOCKS:
            at, blocks = at + 1 + data[at], blocks + 1
        at, blocks = at + 1, blocks + 1
        if blocks >= BLOCKS:
            raise invalid(f"The GIF picture has more than {BLOCKS:,} blocks.")
    return width, height, max(pixels, width * height)


def _colour_table(flags: int) -> int:
    """Its bytes."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _bmp(data: bytes) -> tuple[int, int, int]:
    width, height = struct.unpack_from("<ii", data, 18)
    height = abs(height)  # negative where the first row is the upper one
    return width, height, width * height


def _webp(data: bytes) -> tuple[int, int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", data, 24)
        width, height = (low_width | high_width << 16) + 1, (low_height | high_height << 16) + 1
    elif kind == b"VP8L" and data[20:21] == b"\x2f":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise invalid("The WEBP picture is damaged: its header has no size.")
    return width, height, width * height


# By kind: the bytes of a file to (width, height, pixels that the decoder keeps).
READERS: dict[str, Callable[[bytes], tuple[int, int, int]]] = {
    "jpeg": _jpeg,
    "png": _png,
    "gif": _gif,
    "bmp": _bmp,
    "webp": _webp,
}
NO_PICTURES = {"pdf", "html", "text"}
