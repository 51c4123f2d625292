"""A classifier for the tests of the page: two heads, heat maps, class names that are nasty to a browser."""

import json
import os
from pathlib import Path

HOSTILE = "<img src=x onerror=alert(1)>"
PAGE_CLASSES = {"colour": [HOSTILE, "green", "blue", "white", "black", "grey", "yellow"], "bright": ["no", "yes"]}


def colour_model(folder: Path, size: int = 8) -> Path:
    """A SavedModel without weights, of size x size pixels: the reddest, greenest, bluest, ... class; left is hot."""
    import tensorflow as tf

    directions = tf.constant(
        [[3, -2, -2], [-2, 3, -2], [-2, -2, 3], [1, 1, 1], [-1, -1, -1], [0, 0, 0], [1.5, 1.5, -3]], tf.float32
    )

    class Colours(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8, name="image")])
        def sized(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
            mean = tf.reduce_mean(tf.cast(image, tf.float32) / 127.5 - 1, axis=(1, 2))
            bright = 4 * tf.reduce_mean(mean, axis=1, keepdims=True)
            return {
                "colour": tf.nn.softmax(mean @ tf.transpose(directions)),
                "bright": tf.nn.softmax(tf.concat([-bright, bright], 1)),
            }

        @tf.function(input_signature=[tf.TensorSpec([], tf.string, name="image_bytes")])
        def decode(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            picture = tf.io.decode_image(image_bytes, channels=3, expand_animations=False)
            resized = tf.image.resize(picture, (size, size))
            return {"image": tf.ensure_shape(tf.cast(resized, tf.uint8), [size, size, 3])}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def encoded(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            spec = tf.TensorSpec([size, size, 3], tf.uint8)
            return self.sized(tf.map_fn(lambda data: self.decode(data)["image"], image_bytes, fn_output_signature=spec))

        @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8, name="image")])
        def explain(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
            across, down = tf.meshgrid(tf.linspace(0.0, 1.0, size), tf.linspace(0.0, 1.0, size))
            rows = tf.ones([tf.shape(image)[0], 1, 1])
            return {
                "colour": rows * (1 - across),
                "bright": rows * tf.exp(-8 * ((across - 0.5) ** 2 + (down - 0.5) ** 2)),
            }

    module = Colours()
    signatures = {
        "serving_default": module.sized,
        "serving_sized": module.sized,
        "serving_bytes": module.encoded,
        "decode": module.decode,
        "explain": module.explain,
    }
    tf.saved_model.save(module, os.fspath(folder), signatures=signatures)
    described = folder / "assets.extra/kerascnn.json"
    described.parent.mkdir()
    described.write_text(json.dumps({"classes": PAGE_CLASSES, "image_size": [size, size]}), encoding="utf-8")
    return folder
