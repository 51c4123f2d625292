"""Decoding: every kind of file a folder of pictures may hold, against Pillow, and the same bits everywhere."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from pipelines.decode import decode_picture, exif_orientation, resize
from pipelines.encoded import Encoded
from pipelines.pictures import choose_size, load_pictures, open_pictures, picture_sizes, why_unreadable
from pipelines.stream import Streamed


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def decoded(data: bytes, size=None) -> np.ndarray:
    return decode_picture(tf.constant(data), size).numpy()


def noise(mode: str = "RGB", size: tuple[int, int] = (13, 9)) -> Image.Image:
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,), "LA": (2,)}[mode]
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], *channels)).astype("uint8")
    return Image.fromarray(pixels, mode) if mode != "LA" else Image.merge("LA", (noise("L"), noise("L").rotate(180)))


def smooth(size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A gentle picture, on which lossy decoders must agree."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    return Image.fromarray(np.stack([255 * x, 255 * y, 255 * (1 - x)], axis=-1).astype("uint8"))


def test_png_of_every_colour_mode() -> None:
    np.testing.assert_array_equal(decoded(encoded(noise(), "PNG")), np.asarray(noise()))
    grey = np.asarray(noise("L"))[..., None].repeat(3, axis=-1)
    np.testing.assert_array_equal(decoded(encoded(noise("L"), "PNG")), grey)
    palette = noise().quantize(16)
    np.testing.assert_array_equal(decoded(encoded(palette, "PNG")), np.asarray(palette.convert("RGB")))
    bits = noise("L").convert("1")
    np.testing.assert_array_equal(decoded(encoded(bits, "PNG"))[..., 0], np.asarray(bits) * 255)


def test_sixteen_bit_png_keeps_the_upper_byte() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (9, 13)).astype("uint16")
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(values), "PNG"))[..., 1], values >> 8)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_lie_on_white(mode) -> None:
    picture = noise(mode)
    white = Image.new("RGBA", picture.size, "white")
    expected = np.asarray(Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")).astype(int)
    assert np.abs(decoded(encoded(picture, "PNG")).astype(int) - expected).max() <= 1


def test_transparent_palette_colour_is_white() -> None:
    picture = noise().quantize(4)
    data = decoded(encoded(picture, "PNG", transparency=0))
    assert (data[np.asarray(picture) == 0] == 255).all()


def test_transparent_parts_of_webp_lie_on_white() -> None:
    white = Image.new("RGBA", noise("RGBA").size, "white")
    expected = np.asarray(Image.alpha_composite(white, noise("RGBA")).convert("RGB")).astype(int)
    data = encoded(noise("RGBA"), "WEBP", lossless=True, exact=True)
    assert np.abs(decoded(data).astype(int) - expected).max() <= 1


def test_bmp_with_a_palette_is_refused_rather_than_shown_in_wrong_colours(tmp_path) -> None:
    (tmp_path / "a.bmp").write_bytes(encoded(noise().quantize(16), "BMP"))
    _, errors = load_pictures(Encoded.files([tmp_path / "a.bmp"]), (9, 13))
    assert errors == {0: "a BMP with a palette is not supported; save it as PNG"}


def test_file_name_that_is_not_utf_8(tmp_path) -> None:
    import os

    path = os.fsencode(tmp_path) + b"/gr\xf6\xdfe.png"
    with open(path, "wb") as file:
        file.write(encoded(noise(), "PNG"))
    pictures, errors = load_pictures(Encoded.files([os.fsdecode(path)]), (9, 13))
    assert errors == {}
    np.testing.assert_array_equal(pictures[0], np.asarray(noise()))


@pytest.mark.parametrize("kind", ["BMP", "GIF", "WEBP"])
def test_other_formats(kind) -> None:
    picture = noise().quantize(16).convert("RGB")
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(picture, kind, **options)
    np.testing.assert_array_equal(decoded(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_jpeg_equals_pillow() -> None:
    for picture in (smooth(), smooth().convert("L")):
        data = encoded(picture, "JPEG", quality=95, subsampling=0)
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
        assert np.abs(decoded(data).astype(int) - expected).max() <= 1


def test_cmyk_jpeg_shows_its_colours() -> None:
    data = encoded(smooth().convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decoded(data).astype(int) - np.asarray(smooth()).astype(int)).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["little", "big"])
def test_exif_rotation_is_applied_as_pillow_does(orientation, order) -> None:
    exif = Image.Exif()
    exif.endian = "<" if order == "little" else ">"
    exif[0x010F] = "a camera"  # entries before and after the one that counts
    exif[0x0112] = orientation
    exif[0x0131] = "a program"
    data = encoded(smooth(), "JPEG", quality=95, subsampling=0, exif=exif)
    assert exif_orientation(tf.constant(data)).numpy() == orientation
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))).astype(int)
    result = decoded(data).astype(int)
    assert result.shape == expected.shape
    assert np.abs(result - expected).max() <= 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xe1",
        b"\xff\xd8\xff\xe1\xff\xffExif\x00\x00II*\x00\xff\xff\xff\xff",
        b"\xff\xd8\xff\xe1\x00\x10Exif\x00\x00MM\x00*\x7f\xff\xff\xff",
        b"\xff\xd8\xff\xe0\x00\x00" * 50,
        b"not a picture at all",
    ],
)
def test_damaged_headers_have_no_rotation(data) -> None:
    assert exif_orientation(tf.constant(data)).numpy() == 1


def test_size_is_kept_bit_by_bit_when_it_is_right() -> None:
    np.testing.assert_array_equal(decoded(encoded(noise(), "PNG"), (9, 13)), np.asarray(noise()))


def test_resizing_does_not_alias() -> None:
    """One pixel wide stripes reduced four times are an even grey; without antialiasing they would stay stripes."""
    stripes = np.zeros((1, 32, 32, 3), "uint8")
    stripes[:, :, ::2] = 255
    small = resize(tf.constant(stripes), (8, 8)).numpy()[:, :, 1:-1]
    assert np.abs(small.astype(int) - 127).max() <= 2


def test_resizing_agrees_with_pillow() -> None:
    ours = resize(tf.constant(np.asarray(smooth((64, 48)))[None]), (24, 40)).numpy()[0]
    theirs = np.asarray(smooth((64, 48)).resize((40, 24), Image.Resampling.BILINEAR))
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


def test_unreadable_files_are_reported_one_by_one(tmp_path) -> None:
    good = encoded(smooth(), "PNG")
    files = {
        "good.png": good,
        "truncated.png": good[: len(good) // 2],
        "truncated.jpg": encoded(smooth(), "JPEG")[:-200],
        "text.jpg": b"this is a text file",
        "empty.png": b"",
        "größe 日本.png": good,
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    paths = [tmp_path / name for name in files] + [tmp_path / "missing.png"]
    pictures, errors = load_pictures(Encoded.files(paths), (48, 64))
    assert {paths[index].name: reason for index, reason in errors.items()} == {
        "truncated.png": "the picture is damaged or cut short",
        "truncated.jpg": "the picture is damaged or cut short",
        "text.jpg": "not a JPEG, PNG, BMP, GIF or WebP picture",
        "empty.png": "the file is empty (0 bytes)",
        "missing.png": "No such file or directory",
    }
    for index in (0, 5):
        np.testing.assert_array_equal(pictures[index], np.asarray(smooth()))


def test_png_with_a_wrong_checksum_is_unreadable(tmp_path) -> None:
    data = bytearray(encoded(noise(), "PNG"))
    start = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[start - 4 : start])
    data[start + 4 + length : start + 8 + length] = struct.pack(">I", zlib.crc32(b"something else"))
    (tmp_path / "a.png").write_bytes(data)
    assert why_unreadable(Encoded.files([tmp_path / "a.png"]), 0) == "the picture is damaged or cut short"


def test_pictures_that_would_fill_the_memory_are_streamed(tmp_path) -> None:
    smooth((64, 48)).save(tmp_path / "a.png")
    encoded = Encoded.files([tmp_path / "a.png"] * 10)
    pictures, errors = open_pictures(encoded, (200_000, 200_000))
    assert isinstance(pictures, Streamed)
    assert (pictures.shape, errors) == ((10, 200_000, 200_000, 3), {})


def test_picture_sizes_are_those_after_rotation(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth((64, 48)).save(tmp_path / "turned.jpg", exif=exif)
    smooth((64, 48)).save(tmp_path / "upright.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    paths = [tmp_path / name for name in ("turned.jpg", "upright.jpg", "broken.jpg")]
    assert picture_sizes(Encoded.files(paths)) == [(64, 48), (48, 64)]


def test_training_size_keeps_the_shape_of_the_median_picture() -> None:
    assert choose_size([(3000, 4000)]) == (96, 128)
    assert choose_size([(28, 28)] * 3 + [(500, 20)]) == (32, 32)  # 28 rounds to a multiple of 8
    assert choose_size([(4, 4)]) == (8, 8)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("before", ["jfif", "nothing", "jfif and a comment", "jfif with a preview", "colour profile"])
def test_rotation_is_found_wherever_it_stands_among_the_application_segments(before, orientation) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = encoded(smooth((64, 48)), "JPEG", quality=95)
    length = struct.unpack(">H", plain[4:6])[0]
    jfif, rest = plain[2 : 4 + length], plain[4 + length :]
    assert jfif[4:8] == b"JFIF" and length == 16
    body = exif.tobytes()
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    first = {
        "jfif": jfif,
        "nothing": b"",
        "jfif and a comment": jfif + b"\xff\xfe" + struct.pack(">H", 7) + b"hello",
        # A preview of one pixel: its size stands in the last two bytes, three bytes of colour follow.
        "jfif with a preview": jfif[:2] + struct.pack(">H", 19) + jfif[4:-2] + b"\x01\x01" + b"abc",
        "colour profile": jfif + b"\xff\xe2" + struct.pack(">H", 16) + b"ICC_PROFILE\0\x01\x01",
    }[before]
    data = plain[:2] + first + segment + rest
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(decoded(data), expected)
    assert decoded(data).shape == ((48, 64, 3) if orientation == 1 else (64, 48, 3))
