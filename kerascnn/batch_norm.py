"""BatchNorm with TensorFlow's fused kernel where there is one; over a batch on several devices, or its parts.

Why: Keras 3 composes BatchNorm of elementary operations. On the TensorFlow backend, CPU, that takes ten times as long
as the fused kernel (532 against 56 ms forward and backward, 256x32x32x128 in bfloat16, 2 cores) and half of the
training time of a residual network. XLA, which the JAX backend always uses, fuses by itself.
"""

from typing import Any

import keras
from keras import ops

if keras.config.backend() == "tensorflow":
    import tensorflow as tf
else:
    tf = None


@keras.saving.register_keras_serializable(package="kerascnn")
class BatchNorm(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` (same arguments, weights and values), fast for pictures on TensorFlow.

    Args:
        frozen_scale: What the scale stays at, instead of being trained; 0 trains it.
        parts: Equal parts of a batch that are normalised each with its own statistics, whatever the number of devices:
            1 for those of the whole batch, also over devices and hosts, which must exchange them then; as many as
            devices for statistics of each device's own share. The running statistics are the mean over the parts.
        **options: Of Keras' class.

    Raises:
        ValueError: `parts` is not positive; in training, the devices of a TensorFlow strategy do not divide them.

    Source: Batch Normalization, https://arxiv.org/abs/1502.03167; frozen scales,
    https://myrtle.ai/learn/how-to-train-your-resnet-8-bag-of-tricks/; parts, there called ghost batches,
    https://arxiv.org/abs/1705.08741
    """

    def __init__(self, *, frozen_scale: float = 0.0, parts: int = 1, **options: Any) -> None:
        if parts < 1:
            raise ValueError(f"`parts` of a batch must be at least 1. Received: parts={parts}.")
        if frozen_scale:
            options["gamma_initializer"] = keras.initializers.Constant(frozen_scale)
        super().__init__(**options)
        self.frozen_scale, self.parts = frozen_scale, parts

    def add_weight(self, *args: Any, **options: Any) -> keras.Variable:
        """Keras' method; a frozen scale is not trainable, and running statistics are the mean over devices."""
        if self.frozen_scale and options.get("name") == "gamma":
            options["trainable"] = False
        if str(options.get("name")).startswith("moving_"):
            options["aggregation"] = "mean"  # else those of TensorFlow's first replica
        return super().add_weight(*args, **options)

    def get_config(self) -> dict[str, Any]:
        """Keras', the frozen scale and the parts."""
        return {**super().get_config(), "frozen_scale": self.frozen_scale, "parts": self.parts}

    def call(self, inputs: keras.KerasTensor, training: bool | None = None, mask: object = None) -> keras.KerasTensor:
        """Normalise (batch, height, width, channels) with the batch's statistics, or the running ones."""
        use_batch = bool(training) and self.trainable
        alone = tf is None or tf.distribute.in_cross_replica_context()
        replicas = 1 if alone else tf.distribute.get_strategy().num_replicas_in_sync
        last = self.axis in (-1, len(inputs.shape) - 1) and self.center and self.scale and mask is None
        if use_batch and last and self.parts != replicas:
            return self._normalise_parts(inputs, replicas)
        if tf is None or not last or len(inputs.shape) != 4:
            return super().call(inputs, training=training, mask=mask)
        running = {} if use_batch else {"mean": self.moving_mean.value, "variance": self.moving_variance.value}
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            tf.convert_to_tensor(inputs),
            ops.cast(self.gamma, "float32"),
            ops.cast(self.beta, "float32"),
            epsilon=self.epsilon,
            is_training=use_batch,
            **running,
        )
        if use_batch:
            # The kernel returns the unbiased variance; Keras keeps the biased one.
            count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), "float32")
            self._average(self.moving_mean, mean)
            self._average(self.moving_variance, variance * (count - 1.0) / count)
        return outputs

    def _normalise_parts(self, inputs: keras.KerasTensor, replicas: int) -> keras.KerasTensor:
        """Of `parts` of a batch each with its statistics; this is the share of one of `replicas` of TensorFlow."""
        if self.parts % replicas and self.parts != 1:
            raise ValueError(
                f"`parts` must be 1 or a multiple of the {replicas} devices. Received: parts={self.parts}."
            )
        here, shape = max(1, self.parts // replicas), ops.shape(inputs)
        values = ops.reshape(ops.cast(inputs, "float32"), (here, -1, *shape[1:]))
        mean, variance = ops.moments(values, axes=list(range(1, len(values.shape) - 1)), keepdims=True)
        if self.parts < replicas:  # these are of a share only
            exchange = tf.distribute.get_replica_context()
            mean, square = exchange.all_reduce(tf.distribute.ReduceOp.MEAN, [mean, variance + mean**2])
            variance = square - mean**2
        others = list(range(len(values.shape) - 1))
        self._average(self.moving_mean, ops.mean(mean, axis=others))
        self._average(self.moving_variance, ops.mean(variance, axis=others))
        scale = ops.cast(self.gamma, "float32") * ops.rsqrt(variance + self.epsilon)
        outputs = (values - mean) * scale + ops.cast(self.beta, "float32")
        return ops.cast(ops.reshape(outputs, shape), self.compute_dtype)

    def _average(self, running: keras.Variable, batch: keras.KerasTensor) -> None:
        running.assign(self.momentum * running + (1.0 - self.momentum) * ops.cast(batch, running.dtype))
