"""From the bytes of an encoded picture to pixels: the one function that training, `predict` and the server share.

Everything here is a TensorFlow graph, so that the exported SavedModel carries it along.
"""

from collections.abc import Callable

import tensorflow as tf

# The header is searched for the orientation; cameras write it into the first segment, which holds 64 KiB at most.
HEADER_BYTES = 1 << 17


def _rarely_needed(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """A graph function that stays one operation in the graphs that call it.

    Every operation of a branch that is not taken costs time all the same; written out, those of the branches below take
    a quarter of the time that decoding a JPEG of 256x256 takes.
    """
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})


def decode_picture(data: tf.Tensor, size: tuple[int, int] | None = None) -> tf.Tensor:
    """Decode one encoded picture to uint8 [height, width, 3].

    JPEG (grayscale, RGB, CMYK), PNG (1 to 16 bit, grayscale, palette), BMP (24 and 32 bit), GIF (first picture), WebP.
    A JPEG's EXIF rotation is applied, where it stands before the tables as the standard asks; what an opacity channel
    of a PNG or WebP shows through is white; 16-bit values keep their upper 8 bits.

    Args:
        data: A scalar string tensor, the whole file.
        size: (height, width) to resize to, by `resize`; None keeps the picture's own size.

    Raises:
        tf.errors.InvalidArgumentError: The bytes are not such a picture, or are cut short.
    """
    picture = tf.cond(_starts_with(data, b"\xff\xd8\xff"), lambda: _upright_jpeg(data), lambda: _decode_others(data))
    picture = tf.ensure_shape(picture, [None, None, 3])
    if size is None:
        return picture
    fits = tf.reduce_all(tf.shape(picture)[:2] == size)
    resized = tf.cond(fits, lambda: picture, lambda: _rarely_needed(resize)(picture, tf.constant(size)))
    return tf.ensure_shape(resized, [*size, 3])


@_rarely_needed
def _decode_others(data: tf.Tensor) -> tf.Tensor:
    return tf.case(
        [
            # Asked for 4 channels, TensorFlow fills in a wrong opacity for palettes of fewer than 256 colours; 0 asks
            # for the file's own: grey, grey and opacity, colour, or colour and opacity.
            (_starts_with(data, b"\x89PNG"), lambda: _on_white(tf.io.decode_png(data, channels=0))),
            (_starts_with(data, b"BM"), lambda: _true_colour_bmp(data)),
        ],
        default=lambda: _on_white(tf.io.decode_image(data, channels=0, expand_animations=False)),
    )


def resize(pictures: tf.Tensor, size: tuple[int, int] | tf.Tensor) -> tf.Tensor:
    """Resize uint8 [..., height, width, channels] by antialiased bilinear interpolation, rounded to uint8.

    A picture of the right size passes through unchanged, bit by bit.
    """
    resized = tf.image.resize(tf.cast(pictures, "float32"), size, method="bilinear", antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), "uint8")


def _starts_with(data: tf.Tensor, magic: bytes) -> tf.Tensor:
    # `substr` raises on a string that is shorter than the position, never on one shorter than the length.
    return tf.equal(tf.strings.substr(data, 0, len(magic)), magic)


def _on_white(picture: tf.Tensor) -> tf.Tensor:
    """From 1 (grey), 2 (grey, opacity), 3 (colour) or 4 (colour, opacity) channels to 3."""
    picture = tf.cast(tf.ensure_shape(picture, [None, None, None]), "int32")
    channels = tf.shape(picture)[2]
    colour = tf.cond(channels < 3, lambda: tf.repeat(picture[..., :1], 3, axis=2), lambda: picture[..., :3])
    opacity = tf.cond(channels % 2 == 0, lambda: picture[..., -1:], lambda: tf.fill([1, 1, 1], 255))
    return tf.cast((colour * opacity + 255 * (255 - opacity) + 127) // 255, "uint8")


def _true_colour_bmp(data: tf.Tensor) -> tf.Tensor:
    # TensorFlow ignores the palette of a BMP, so one with a palette must be refused, not shown in wrong colours.
    bits = tf.io.decode_raw(tf.strings.substr(data, 28, 1), "uint8")
    true_colour = tf.debugging.assert_equal(tf.reduce_all((bits == 24) | (bits == 32)), True, "a BMP with a palette")
    with tf.control_dependencies([true_colour] if true_colour is not None else []):
        return tf.io.decode_bmp(data, channels=0)[..., :3]


def _upright_jpeg(data: tf.Tensor) -> tf.Tensor:
    # The accurate method is what every other decoder computes; TensorFlow's default differs by up to 5 levels.
    picture = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
    return tf.cond(_may_hold_exif(data), lambda: _turned(picture, data), lambda: picture)


@_rarely_needed
def _turned(picture: tf.Tensor, data: tf.Tensor) -> tf.Tensor:
    transposed = lambda: tf.transpose(picture, [1, 0, 2])  # noqa: E731
    return tf.switch_case(
        exif_orientation(data) - 1,
        [
            lambda: picture,
            lambda: picture[:, ::-1],
            lambda: picture[::-1, ::-1],
            lambda: picture[::-1],
            transposed,
            lambda: transposed()[:, ::-1],
            lambda: transposed()[::-1, ::-1],
            lambda: transposed()[::-1],
        ],
    )


def _may_hold_exif(data: tf.Tensor) -> tf.Tensor:
    """False for the usual file without EXIF, so that its header need not be searched, which takes as long as decoding.

    Application segments come first in a JPEG: either there is none, or one of 16 bytes that says JFIF, then others.
    """
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, 22) + b"\0" * 22, "uint8")[:22], "int32")
    is_application = lambda place: (header[place] == 0xFF) & (header[place + 1] // 16 == 0xE)  # noqa: E731
    is_short_jfif = tf.reduce_all(header[2:6] == [0xFF, 0xE0, 0, 16])
    return is_application(2) & ~(
        is_short_jfif & (header[20] == 0xFF) & (header[21] // 16 != 0xE) & (header[21] != 0xFE)
    )


def exif_orientation(data: tf.Tensor) -> tf.Tensor:
    """The orientation tag (0x0112) of a JPEG file's first picture, an int32 from 1 to 8; 1 where there is none.

    Source: the EXIF 2.3 standard, section 4.6.4 (tag 274), and the JPEG segment layout of ITU-T T.81, annex B.
    """
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, HEADER_BYTES), "uint8"), "int32")
    # Reading past the end gives zeros, which ends every search below.
    header = tf.pad(header, [[0, 16]])
    end = tf.size(header) - 16

    def number(position: tf.Tensor, count: int, little_endian: tf.Tensor | bool = False) -> tf.Tensor:
        start = tf.clip_by_value(position, 0, end)
        digits = header[start : start + count]
        digits = tf.where(little_endian, digits[::-1], digits)
        return tf.reduce_sum(digits * [256**power for power in range(count - 1, -1, -1)])

    def next_segment(position: tf.Tensor) -> tf.Tensor:
        return position + 2 + tf.maximum(number(position + 2, 2), 2)

    def is_other_segment(position: tf.Tensor) -> tf.Tensor:
        marker = number(position, 2)
        is_segment = (marker >= 0xFFC0) & (marker != 0xFFDA) & (position < end)
        is_exif = (marker == 0xFFE1) & (number(position + 4, 3) == 0x457869) & (number(position + 7, 1) == 0x66)
        return is_segment & ~is_exif

    segment = tf.while_loop(is_other_segment, lambda position: (next_segment(position),), (tf.constant(2),))[0]
    found = number(segment, 2) == 0xFFE1
    tiff = segment + 10
    little = number(tiff, 2) == 0x4949
    directory = tiff + number(tiff + 4 + tf.where(little, 0, 2), 2, little)
    entries = tf.minimum(number(directory, 2, little), 256)

    def is_other_entry(entry: tf.Tensor) -> tf.Tensor:
        return (entry < entries) & (number(directory + 2 + 12 * entry, 2, little) != 0x0112)

    entry = tf.while_loop(is_other_entry, lambda entry: (entry + 1,), (tf.constant(0),))[0]
    value = number(directory + 2 + 12 * entry + 8, 2, little)
    valid = found & (entry < entries) & (value >= 1) & (value <= 8)
    return tf.where(valid, value, 1)
