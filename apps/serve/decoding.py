"""Pixels of an encoded picture, for SavedModels that do not bring their own way of decoding."""

import numpy as np
import tensorflow as tf

from apps.serve.errors import invalid

DAMAGED = "The picture cannot be decoded: its data are damaged or cut short."


def decode_rgb(data: bytes, spec_shape: tuple[int | None, ...], dtype: np.dtype) -> np.ndarray:
    """The pixels [height, width, 3] of a picture as they are in its file, with values from 0 to 255.

    Nothing is resized, rotated (EXIF) or scaled to another range: what the model was trained with is not known.

    Args:
        data: A file that `check_picture` let in.
        spec_shape: (height, width, 3) as the signature declares them, None for any.
        dtype: Of the result.

    Raises:
        Refusal: INVALID_ARGUMENT for damaged data, and for another size than the declared one.
    """
    try:
        if data.startswith(b"\xff\xd8\xff"):
            # The accurate method is what other decoders compute; TensorFlow's default differs by up to 5 levels.
            picture = tf.io.decode_jpeg(data, 3, dct_method="INTEGER_ACCURATE")
        else:
            picture = tf.io.decode_image(data, 3, expand_animations=False)
    except tf.errors.OpError as error:
        raise invalid(DAMAGED) from error
    pixels = picture.numpy()
    if any(side not in (None, found) for side, found in zip(spec_shape, pixels.shape, strict=True)):
        height, width = ("any" if side is None else side for side in spec_shape[:2])
        raise invalid(
            f"The picture is {pixels.shape[0]} high and {pixels.shape[1]} wide; this model takes {height} by {width} "
            "pixels and brings no way of resizing."
        )
    return pixels.astype(dtype, copy=False)
