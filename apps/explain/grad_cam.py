"""Grad-CAM: where in a picture a network sees a class."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from apps.explain.network import BATCH, Network
from kerascnn.grad_cam import heat_maps, with_maps


def class_maps(network: Network, pixels: np.ndarray, chosen: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """How much each place of a picture speaks for a class: float32 [N, height, width] in [0, 1] by head.

    A picture where nothing speaks for the class has zeros.

    Args:
        network: Of `open_network`.
        pixels: uint8 [N, height, width, channels].
        chosen: The class number of every picture [N], by head.

    Raises:
        ValueError: The network has no feature maps.

    Source: Grad-CAM, https://arxiv.org/abs/1610.02391
    """
    model = with_maps(network.model)
    maps = tf.function(lambda batch, classes: heat_maps(model, batch, classes))
    parts = []
    for start in range(0, len(pixels), BATCH):
        batch = slice(start, start + BATCH)
        classes = {head: tf.constant(numbers[batch], tf.int32) for head, numbers in chosen.items()}
        parts.append(maps(tf.constant(pixels[batch], tf.float32), classes))
    return {head: np.concatenate([part[head].numpy() for part in parts]) for head in chosen}
