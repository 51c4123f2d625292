"""Convolution whose filter gradient is fast for many small maps on TensorFlow's CPU; Keras' own everywhere else.

Why: where maps are small and many, the filter gradient of TensorFlow's oneDNN takes longer than the same products
computed as a forward convolution (512 maps of 4x4, batch 256, bfloat16, 2 cores: 80 against 43 ms).
"""

from typing import Any

import keras

if keras.config.backend() == "tensorflow":
    import tensorflow as tf
else:
    tf = None

MOST_PIXELS = 64  # of an output map; with larger ones oneDNN's own gradient is faster
FEWEST_PICTURES = 16  # with fewer (2 to 14, even) oneDNN computes wrong products where there is AMX, in TensorFlow 2.21


@keras.saving.register_keras_serializable(package="kerascnn")
class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D`: same arguments, weights and values, and the same gradient up to rounding."""

    def convolution_op(self, inputs: keras.KerasTensor, kernel: keras.KerasTensor) -> keras.KerasTensor:
        """Convolve without bias."""
        if tf is None or not self._fits(inputs):
            return super().convolution_op(inputs, kernel)
        return _convolve(
            tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel), self.strides[0], self.padding.upper()
        )

    def _fits(self, inputs: keras.KerasTensor) -> bool:
        """Small maps in bfloat16, nothing unusual, on a CPU."""
        plain = self.groups == 1 and set(self.dilation_rate) == {1} and self.strides[0] == self.strides[1]
        height, width = self.compute_output_shape(inputs.shape)[1:3]
        return (
            plain
            and self.compute_dtype == "bfloat16"
            and self.data_format == "channels_last"
            and self.kernel_size != (1, 1)
            and (self.padding == "valid" or (self.padding == "same" and self.strides[0] == 1))
            and None not in (height, width)
            and height * width <= MOST_PIXELS
            and not tf.config.list_logical_devices("GPU")
        )


def _convolve(x: Any, kernel: Any, stride: int, padding: str) -> Any:
    @tf.custom_gradient
    def convolve(x: Any, kernel: Any) -> tuple[Any, Any]:
        def gradients(upstream: Any) -> tuple[Any, Any]:
            steps = {"strides": [1, stride, stride, 1], "padding": padding}
            of_x = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(x), filter=kernel, out_backprop=upstream, **steps
            )
            of_kernel = tf.cond(
                tf.shape(x)[0] < FEWEST_PICTURES,
                lambda: tf.raw_ops.Conv2DBackpropFilter(
                    input=x, filter_sizes=tf.shape(kernel), out_backprop=upstream, **steps
                ),
                lambda: _filter_gradient(x, upstream, kernel.shape[:2], stride, padding),
            )
            return of_x, of_kernel

        return tf.nn.conv2d(x, kernel, stride, padding), gradients

    return convolve(x, kernel)


def _filter_gradient(x: Any, upstream: Any, size: tuple[int, int], stride: int, padding: str) -> Any:
    """The maps convolved with the gradient of the outputs, the pictures of the batch taking the place of channels."""
    x = tf.transpose(x, [3, 1, 2, 0])
    if padding == "SAME":
        x = tf.pad(x, [[0, 0], *([(kernel - 1) // 2, kernel // 2] for kernel in size), [0, 0]])
    # A stride of the convolution is a distance between the taps here.
    gradient = tf.nn.conv2d(x, tf.transpose(upstream, [1, 2, 0, 3]), 1, "VALID", dilations=stride)
    return tf.transpose(gradient[:, : size[0], : size[1]], [1, 2, 0, 3])
