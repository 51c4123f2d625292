"""Grad-CAM inside the graph of an export: where in a picture a network sees the class that it names.

Source: Grad-CAM, https://arxiv.org/abs/1610.02391
"""

from collections.abc import Mapping

import keras
import tensorflow as tf

PASSED_OVER = ("Pooling", "Dropout", "Padding", "InputLayer")  # in the class names of what makes no maps


def with_maps(model: keras.Model) -> keras.Model:
    """The same network with the outputs "logits" and "maps", both by head; see `last_maps`.

    Args:
        model: A functional model with a dict of outputs, as `kerascnn.build` makes it.
    """
    maps = {head: last_maps(keras.Model(model.input, logits)) for head, logits in model.output.items()}
    return keras.Model(model.input, {"logits": dict(model.output), "maps": maps})


def last_maps(model: keras.Model) -> keras.KerasTensor:
    """The last feature maps [N, height, width, channels] before the network pools or flattens them.

    Maps of a single pixel count only where there are no larger ones.

    Raises:
        ValueError: No layer has an output of that form.
    """
    nodes = [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]
    outputs = [
        output
        for node in nodes
        if not any(kind in type(node.operation).__name__ for kind in PASSED_OVER)
        for output in node.output_tensors
    ]
    found = [maps for maps in outputs if len(maps.shape) == 4]
    larger = [maps for maps in found if tuple(maps.shape[1:3]) != (1, 1)]
    if not found:
        raise ValueError(f"`explain` needs a network with feature maps [N, height, width, C]; {model.name!r} has none.")
    return (larger or found)[-1]


def heat_maps(model: keras.Model, pixels: tf.Tensor, chosen: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """How much each place of a picture speaks for a class: float32 [N, height, width] in [0, 1] by head.

    The maps are weighted by the mean gradient of the class's logit, added, cut off below 0, enlarged bilinearly to the
    size of the picture, and divided by their largest value. A picture where nothing speaks for the class has zeros.

    Args:
        model: What `with_maps` gives; called in inference mode, inside of a `tf.function`.
        pixels: float32 [N, height, width, 3] in [0, 255].
        chosen: The class number of every picture [N], by head.
    """
    said = model(pixels, training=False)
    found = {}
    for head, classes in chosen.items():
        maps, logits = said["maps"][head], said["logits"][head]
        score = tf.gather(logits, classes, batch_dims=1)
        (gradient,) = tf.gradients(score, maps, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        weights = tf.reduce_mean(tf.cast(gradient, tf.float32), axis=(1, 2), keepdims=True)
        speaking = tf.nn.relu(tf.reduce_sum(weights * tf.cast(maps, tf.float32), axis=-1, keepdims=True))
        enlarged = tf.image.resize(speaking, tf.shape(pixels)[1:3], "bilinear")[..., 0]
        found[head] = tf.math.divide_no_nan(enlarged, tf.reduce_max(enlarged, axis=(1, 2), keepdims=True))
    return found
