"""What is seen of a picture before it is decoded; the decoder itself is asked where it matters."""

import io
import struct
import zlib

import numpy as np
import psutil
import pytest
from PIL import Image

from apps.serve.errors import Code, Refusal
from apps.serve.pictures import COMPRESSED_CHUNKS, SCANS, check_picture, kind_of
from apps.serve.settings import Settings

ALL = Settings(formats=("jpeg", "png", "gif", "bmp", "webp"))
WIDTH, HEIGHT = 21, 13


def encoded(mode: str, kind: str, size: tuple[int, int] = (WIDTH, HEIGHT), **options: object) -> bytes:
    """A picture made by Pillow."""
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), "uint8")
    picture = Image.fromarray(noise)
    if mode == "I;16":
        picture = Image.fromarray(np.arange(size[0] * size[1], dtype="uint16").reshape(size[1], size[0]))
    picture.convert(mode).save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG's."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *extra: bytes, after: bytes = b"") -> bytes:
    """A black picture of 1 bit, made without keeping its pixels."""
    packer, parts, row = zlib.compressobj(9), [], b"\0" * (1 + (width + 7) // 8)
    parts = [packer.compress(row) for _ in range(height)]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    data = chunk(b"IDAT", b"".join((*parts, packer.flush())))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + data + after + chunk(b"IEND", b"")


def refusal(data: bytes, settings: Settings = ALL) -> Refusal:
    """What is said of it."""
    with pytest.raises(Refusal) as caught:
        check_picture(data, settings)
    return caught.value


PICTURES = [
    *(("L", "PNG", {}), ("1", "PNG", {}), ("P", "PNG", {}), ("RGB", "PNG", {}), ("RGBA", "PNG", {}), ("LA", "PNG", {})),
    *(("I;16", "PNG", {}), ("RGB", "PNG", {"interlace": 1})),
    *(("L", "JPEG", {}), ("RGB", "JPEG", {}), ("CMYK", "JPEG", {}), ("RGB", "JPEG", {"progressive": True})),
    *(("L", "JPEG", {"progressive": True}), ("RGB", "JPEG", {"restart_marker_blocks": 1})),
    *(("P", "GIF", {}), ("L", "BMP", {}), ("RGB", "BMP", {}), ("RGBA", "BMP", {})),
    *(("RGB", "WEBP", {}), ("RGB", "WEBP", {"lossless": True}), ("RGBA", "WEBP", {})),
    ("RGB", "WEBP", {"icc_profile": bytes(200)}),
]


@pytest.mark.parametrize(("mode", "kind", "options"), PICTURES)
def test_the_size_of_every_kind_is_read(mode: str, kind: str, options: dict) -> None:
    """The limit is exact: just passed at the picture's own number of pixels, just missed at one less."""
    data = encoded(mode, kind, **options)
    assert kind_of(data) == kind.lower()
    check_picture(data, Settings(formats=ALL.formats, max_pixels=WIDTH * HEIGHT))
    refused = refusal(data, Settings(formats=ALL.formats, max_pixels=WIDTH * HEIGHT - 1))
    assert refused.code is Code.TOO_LARGE
    assert f"{WIDTH}x{HEIGHT} pixels" in refused.message
    assert refused.message.endswith(f"this server accepts up to {WIDTH * HEIGHT - 1}.")


def test_rotation_colour_profiles_and_thumbnails_are_harmless() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    check_picture(encoded("RGB", "JPEG", exif=exif, icc_profile=bytes(200_000), comment=b"\xff\xc0" * 100), ALL)
    check_picture(encoded("RGB", "PNG", exif=exif, icc_profile=bytes(200_000)), ALL)
    thumbnail = encoded("RGB", "JPEG", (500, 500))
    hidden = b"\xff\xe1" + struct.pack(">H", len(thumbnail[:60_000]) + 2) + thumbnail[:60_000]
    data = encoded("RGB", "JPEG")
    check_picture(data[:2] + hidden + data[2:], Settings(max_pixels=WIDTH * HEIGHT))


def test_only_formats_of_the_list_are_let_in() -> None:
    assert Settings().formats == ("jpeg", "png")
    for kind in ("GIF", "BMP", "WEBP"):
        refused = refusal(encoded("P" if kind == "GIF" else "RGB", kind), Settings())
        assert refused.code is Code.INVALID_ARGUMENT
        assert refused.message == f"The data are {kind}; this server accepts JPEG and PNG."
    assert "accepts PNG." in refusal(encoded("RGB", "JPEG"), Settings(formats=("png",))).message


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "empty: 0 bytes"),
        (b"\xff\x0a" + bytes(20), "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"II*\0" + bytes(20), "TIFF"),
        (b"\0\0\0\x18ftypheic", "AVIF OR HEIF"),
        (b"%PDF-1.7", "PDF, not a picture"),
        (b"\n<!DOCTYPE html><html>", "HTML, not a picture"),
        (b"<?xml version='1.0'?><svg>", "SVG"),
        (b"just some words", "text, not a picture"),
        (b"/9j/4AAQSkZJRgABAQ", 'send it as {"b64"'),
        (bytes(40), "no picture of a known format"),
    ],
)
def test_fault_08_what_is_no_picture_is_named(data: bytes, named: str) -> None:
    refused = refusal(data)
    assert refused.code is Code.INVALID_ARGUMENT
    assert named in refused.message
    assert "accepts JPEG, PNG, GIF, BMP and WEBP." in refused.message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_fault_08_every_beginning_of_a_picture_is_judged_without_an_error(kind: str) -> None:
    """Cut anywhere, it is refused or left to the decoder."""
    data = encoded("P" if kind == "GIF" else "RGB", kind)
    for length in range(min(len(data), 700)):
        try:
            check_picture(data[:length], ALL)
        except Refusal as refused:
            assert refused.code is Code.INVALID_ARGUMENT
    if kind == "WEBP":
        assert "no size" in refusal(data[:14]).message
    else:
        assert "cut short" in refusal(data[:9]).message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_fault_08_random_damage_never_raises_anything_else(kind: str) -> None:
    data, random = encoded("P" if kind == "GIF" else "RGB", kind), np.random.default_rng(1)
    for _ in range(500):
        damaged = bytearray(data)
        for position in random.integers(4, min(len(data), 200), 6):
            damaged[position] = random.integers(0, 256)
        try:
            check_picture(bytes(damaged), ALL)
        except Refusal as refused:
            assert refused.code in (Code.INVALID_ARGUMENT, Code.TOO_LARGE)


def test_a_size_of_zero_is_refused() -> None:
    assert "0x5 pixels" in refusal(png(0, 5)).message
    assert "5x0 pixels" in refusal(png(5, 0)).message
    jpeg = encoded("RGB", "JPEG")
    frame = jpeg.index(b"\xff\xc0") + 5
    assert f"{WIDTH}x0 pixels" in refusal(jpeg[:frame] + b"\0\0" + jpeg[frame + 2 :]).message
    assert refusal(jpeg[:frame] + b"\0\0" + jpeg[frame + 2 :]).code is Code.INVALID_ARGUMENT
    bmp = bytearray(encoded("RGB", "BMP"))
    bmp[18:22] = struct.pack("<i", -5)
    assert "-5x13 pixels" in refusal(bytes(bmp)).message


@pytest.mark.parametrize("side", [12_000, 25_000])
def test_fault_09_a_png_bomb_is_refused_without_decoding(side: int) -> None:
    data = png(side, side)
    assert len(data) < 200_000
    before = psutil.Process().memory_info().rss
    refused = refusal(data)
    assert psutil.Process().memory_info().rss - before < 20 << 20
    assert refused.code is Code.TOO_LARGE
    assert f"{side}x{side} pixels (width x height), {side * side:,} in all; " in refused.message
    assert refused.message.endswith("this server accepts up to 50,000,000.")


def test_fault_09_a_huge_size_in_a_header_is_refused() -> None:
    jpeg = encoded("RGB", "JPEG")
    frame = jpeg.index(b"\xff\xc0") + 5
    refused = refusal(jpeg[:frame] + b"\xff\xff\xff\xff" + jpeg[frame + 4 :])
    assert refused.code is Code.TOO_LARGE
    assert "65535x65535" in refused.message
    absurd = bytearray(png(5, 5))
    absurd[16:20] = b"\xff\xff\xff\xff"
    assert refusal(bytes(absurd)).code is Code.INVALID_ARGUMENT
    bmp = bytearray(encoded("RGB", "BMP"))
    bmp[18:26] = struct.pack("<ii", 1 << 30, -(1 << 31))
    assert refusal(bytes(bmp)).code is Code.TOO_LARGE
    gif = bytearray(encoded("P", "GIF"))
    gif[6:10] = b"\xff\xff\xff\xff"
    assert refusal(bytes(gif)).code is Code.TOO_LARGE
    webp = encoded("RGB", "WEBP", icc_profile=bytes(200))
    assert refusal(webp[:24] + b"\xff" * 6 + webp[30:]).code is Code.TOO_LARGE


def test_fault_09_compressed_comments_are_counted() -> None:
    """Each would be inflated by the decoder, for nothing: 2 KB to 2 MB."""
    comment = chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(2_000_000), 9))
    profile = chunk(b"iCCP", b"key\0\0" + zlib.compress(bytes(2_000_000), 9))
    check_picture(png(8, 8, *[comment] * COMPRESSED_CHUNKS), ALL)
    for extra in (comment, profile, comment.replace(b"zTXt", b"iTXt")):
        for data in (
            png(8, 8, *[extra] * (COMPRESSED_CHUNKS + 1)),
            png(8, 8, after=extra * (COMPRESSED_CHUNKS + 1)),
        ):
            assert refusal(data).code is Code.TOO_LARGE
            assert f"more than {COMPRESSED_CHUNKS} compressed" in refusal(data).message


def test_fault_09_the_decoder_passes_over_what_is_let_in_of_them() -> None:
    """Eight comments and a profile of 50 MB: libpng takes the time, 8 MB at once, and no more."""
    import tensorflow as tf

    comment = chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(2_000_000), 9))
    packer = zlib.compressobj(9)
    large = b"".join(packer.compress(bytes(1 << 20)) for _ in range(50)) + packer.flush()
    data = png(8, 8, chunk(b"iCCP", b"key\0\0" + large), *[comment] * (COMPRESSED_CHUNKS - 1))
    check_picture(data, ALL)
    tf.io.decode_png(png(8, 8))
    before = psutil.Process().memory_info().rss
    assert tf.io.decode_png(data).shape[:2] == (8, 8)
    assert psutil.Process().memory_info().rss - before < 100 << 20


def test_fault_09_all_pictures_of_a_gif_count() -> None:
    file = io.BytesIO()
    Image.new("P", (1000, 1000)).save(file, "GIF")
    gif = file.getvalue()
    first = gif.rindex(b"\x2c\0\0\0\0")
    data = gif[:first] + gif[first:-1] * 60 + b";"
    assert refusal(data).code is Code.TOO_LARGE
    assert "60,000,000 in all" in refusal(data).message
    check_picture(gif, ALL)


def test_fault_08_a_jpeg_that_ends_within_its_header_is_refused() -> None:
    """Even where its size is known already: libjpeg would write a line to standard error for each."""
    for options in ({}, {"progressive": True}):
        jpeg = encoded("RGB", "JPEG", **options)
        scan = jpeg.index(b"\xff\xda")
        for length in (0, 5, 7):
            message = refusal(jpeg[: scan + length]).message
            assert message == "The JPEG picture is cut short: it ends within its header."
        assert refusal(jpeg[:scan] + b"\xff\xd9" + jpeg[scan:]).code is Code.INVALID_ARGUMENT


def test_fault_09_the_scans_of_a_jpeg_are_counted() -> None:
    """Thousands of empty scans, 31 bytes each, would keep the decoder busy for hours."""
    jpeg = encoded("RGB", "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    refused = refusal(jpeg[:-2] + jpeg[last:-2] * SCANS + b"\xff\xd9")
    assert refused.code is Code.TOO_LARGE
    assert refused.message == f"The JPEG picture has more than {SCANS} scans."
    check_picture(jpeg + jpeg[last:] * SCANS, ALL)  # what is behind the end of the picture is not looked at


def test_many_segments_take_no_time() -> None:
    assert "more than 20,000 segments" in refusal(b"\xff\xd8\xff" + b"\xff\xe1\0\2" * 1_000_000).message
    assert "more than 20,000 chunks" in refusal(png(5, 5, chunk(b"prVt", b"") * 1_000_000)).message
    gif = encoded("P", "GIF")
    assert "more than 200,000 blocks" in refusal(gif[:-1] + b"\x21\xfe" + b"\1a" * 1_000_000).message
    check_picture(b"\xff\xd8" + b"\xff" * 1_000_000 + encoded("RGB", "JPEG")[3:], ALL)


def test_the_size_is_where_the_decoder_finds_it() -> None:
    """Bytes between the segments, and fill bytes, are passed over as libjpeg does."""
    import tensorflow as tf

    jpeg = encoded("RGB", "JPEG")
    start = jpeg.index(b"\xff\xdb")
    data = jpeg[:start] + b"garbage\xff\x00\xff\xff" + jpeg[start:]
    assert tuple(tf.io.decode_jpeg(data).shape) == (HEIGHT, WIDTH, 3)
    check_picture(data, Settings(max_pixels=WIDTH * HEIGHT))
    assert refusal(data, Settings(max_pixels=WIDTH * HEIGHT - 1)).code is Code.TOO_LARGE
