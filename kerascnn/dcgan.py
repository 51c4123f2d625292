"""DCGAN: a generator and a discriminator of (transposed) convolutions, and their training.

Source: Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks,
https://arxiv.org/abs/1511.06434. Its rules: no pooling, BatchNorm everywhere but in the generator's output and the
discriminator's input, no hidden dense layers, ReLU and tanh in the generator, LeakyReLU 0.2 in the discriminator, z
uniform in [-1, 1], weights from N(0, 0.02), Adam with rate 0.0002 and beta 0.5.

Differs from the paper: pixels are in [0, 255] outside, in [-1, 1] inside; both networks step at the same time.
"""

import math
from typing import Any

import keras
from keras import layers, ops

from kerascnn.batch_norm import BatchNorm
from kerascnn.upsampling import require_at_least, require_shape, scaled


def dcgan(
    input_shape: tuple[int, int, int],
    *,
    latent: int = 100,
    width: float = 1.0,
    depth: int | None = None,
    kernel: int = 5,
    label_smoothing: float = 0.0,
    seed: int | None = None,
    name: str = "dcgan",
) -> "DCGAN":
    """Generator and discriminator in one model with the paper's optimiser: `dcgan(shape).fit(pictures)` trains both.

    Args:
        input_shape: (height, width, channels) of the pictures; the sides are multiples of 2^`depth`.
        latent: Length of z.
        width: Multiplies all numbers of filters.
        depth: How often the size is doubled; by default from 4 pixels (to 7) on the shorter side.
        kernel: Side of the convolutions' kernels, 5 in the paper.
        label_smoothing: Real pictures are judged against 1 minus this (one-sided, https://arxiv.org/abs/1606.03498);
            in [0, 1), usually 0.1.
        seed: Of z in training.
        name: Of the model.

    Raises:
        ValueError: A size or a number does not fit.

    >>> model = dcgan((32, 32, 3), width=0.25)
    >>> model.sample(2).shape
    (2, 32, 32, 3)
    """
    model = DCGAN(
        dcgan_generator(input_shape, latent=latent, width=width, depth=depth, kernel=kernel),
        dcgan_discriminator(input_shape, width=width, depth=depth, kernel=kernel),
        label_smoothing=label_smoothing,
        seed=seed,
        name=name,
    )
    model.compile(keras.optimizers.Adam(2e-4, beta_1=0.5))
    return model


def dcgan_generator(
    output_shape: tuple[int, int, int],
    *,
    latent: int = 100,
    width: float = 1.0,
    depth: int | None = None,
    kernel: int = 5,
    name: str = "generator",
) -> keras.Model:
    """z, uniform in [-1, 1], to float32 pixels in [0, 255]; the arguments are those of `dcgan`.

    Pictures of 64 pixels take 4x4x1024, then 512, 256, 128 filters at 8, 16, 32 pixels. No biases, as in the authors'
    code.
    """
    depth = _checked_depth(output_shape, depth)
    height, columns, channels = output_shape
    require_at_least(1, latent=latent, kernel=kernel)
    filters = [scaled(128 * 2**level, width) for level in reversed(range(depth))]
    start = (height // 2**depth, columns // 2**depth, filters[0])
    inputs = keras.Input((latent,), name="z")
    x = layers.Dense(math.prod(start), use_bias=False, kernel_initializer=_normal(), name="generator_project")(inputs)
    x = layers.Reshape(start, name="generator_reshape")(x)
    for number, count in enumerate([*filters[1:], channels], start=1):
        x = BatchNorm(momentum=0.9, epsilon=1e-5, name=f"generator_bn{number}")(x)
        x = layers.Activation("relu", name=f"generator_act{number}")(x)
        dtype = "float32" if number == depth else None
        x = _convolution(layers.Conv2DTranspose, count, kernel, f"generator_conv{number}", dtype)(x)
    x = layers.Activation("tanh", dtype="float32", name="generator_tanh")(x)
    return keras.Model(inputs, layers.Rescaling(127.5, 127.5, dtype="float32", name="generator_pixels")(x), name=name)


def dcgan_discriminator(
    input_shape: tuple[int, int, int],
    *,
    width: float = 1.0,
    depth: int | None = None,
    kernel: int = 5,
    name: str = "discriminator",
) -> keras.Model:
    """Raw pixels in [0, 255] to one float32 logit, above 0 for "real"; the arguments are those of `dcgan`."""
    depth = _checked_depth(input_shape, depth)
    require_at_least(1, kernel=kernel)
    inputs = keras.Input(input_shape, name="pixels")
    x = layers.Rescaling(1 / 127.5, -1.0, dtype="float32", name="discriminator_scale")(inputs)
    for level in range(depth):
        x = _convolution(layers.Conv2D, scaled(128 * 2**level, width), kernel, f"discriminator_conv{level + 1}")(x)
        if level:
            x = BatchNorm(momentum=0.9, epsilon=1e-5, name=f"discriminator_bn{level + 1}")(x)
        x = layers.LeakyReLU(0.2, name=f"discriminator_act{level + 1}")(x)
    x = layers.Flatten(name="discriminator_flatten")(x)
    logit = layers.Dense(1, use_bias=False, kernel_initializer=_normal(), dtype="float32", name="discriminator_logit")
    return keras.Model(inputs, logit(x), name=name)


def _checked_depth(shape: tuple[int, int, int], depth: int | None) -> int:
    require_shape(shape, fixed=True)
    depth = max(1, int(math.log2(min(shape[:2]) / 4))) if depth is None else depth
    require_at_least(1, depth=depth)
    require_shape(shape, 2**depth, fixed=True)
    return depth


def _normal() -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=0.02)


def _convolution(
    kind: type[layers.Layer], filters: int, kernel: int, name: str, dtype: str | None = None
) -> layers.Layer:
    return kind(
        filters, kernel, 2, padding="same", use_bias=False, kernel_initializer=_normal(), dtype=dtype, name=name
    )


@keras.saving.register_keras_serializable(package="kerascnn")
class DCGAN(keras.Model):
    """A generator and a discriminator that train each other by `fit(pictures)`, on every Keras backend.

    One loss holds both players' losses, and each reaches its own player's weights only. Adam computes weight by weight,
    so one optimiser for both equals two with the same rate. Real and generated pictures pass the discriminator as
    two batches, each with its own BatchNorm statistics.

    Metrics: both losses, and the shares of real and of generated pictures that the discriminator judges rightly.

    Args:
        generator: (batch, latent) to pixels.
        discriminator: Pixels to (batch, 1) logits.
        label_smoothing: The target of real pictures is 1 minus this.
        seed: Of z.
    """

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        label_smoothing: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        # The two networks have policies of their own; between them, pixels and losses are float32.
        super().__init__(**{"dtype": "float32", **kwargs})
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"`label_smoothing` must be in [0, 1). Received: label_smoothing={label_smoothing}.")
        self.generator, self.discriminator = generator, discriminator
        self.label_smoothing, self.seed = label_smoothing, seed
        self.seeds = keras.random.SeedGenerator(seed)
        names = ("generator_loss", "discriminator_loss", "real_accuracy", "fake_accuracy")
        self.means = {name: keras.metrics.Mean(name=name) for name in names}
        self.built = True

    def call(self, pictures: keras.KerasTensor, training: bool | None = None) -> dict[str, keras.KerasTensor]:
        """Logits of the pictures, and of equally many generated ones as each player sees them."""
        judge = self.discriminator
        z = keras.random.uniform((ops.shape(pictures)[0], self.generator.input_shape[1]), -1.0, 1.0, seed=self.seeds)
        generated = self.generator(z, training=training)
        # Each weight is read once, for all three: TensorFlow's optimiser of graphs forgets that a reading without a
        # gradient comes before the update, and now and then the generator met the discriminator of the next step.
        weights = [ops.copy(variable.value) for variable in judge.trainable_variables]
        others = [ops.copy(variable.value) for variable in judge.non_trainable_variables]
        # The generator's loss must not move the discriminator's weights, nor count twice in its BatchNorm statistics.
        fixed = [ops.stop_gradient(weight) for weight in weights]
        to_generator, _ = judge.stateless_call(fixed, others, generated, training=training)
        real, others = judge.stateless_call(weights, others, pictures, training=training)
        fake, others = judge.stateless_call(weights, others, ops.stop_gradient(generated), training=training)
        if training:
            for variable, value in zip(judge.non_trainable_variables, others, strict=True):
                variable.assign(value)
        return {"real": real, "fake": fake, "to_generator": to_generator}

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> keras.KerasTensor:
        """The sum of both players' losses (the generator's is the non-saturating one)."""
        discriminator_loss = _cross_entropy(y_pred["real"], 1.0 - self.label_smoothing) + _cross_entropy(
            y_pred["fake"], 0.0
        )
        generator_loss = _cross_entropy(y_pred["to_generator"], 1.0)
        self.means["generator_loss"].update_state(generator_loss)
        self.means["discriminator_loss"].update_state(discriminator_loss)
        self.means["real_accuracy"].update_state(y_pred["real"] > 0)
        self.means["fake_accuracy"].update_state(y_pred["fake"] <= 0)
        return generator_loss + discriminator_loss

    def sample(self, count: int, seed: int | None = None) -> Any:
        """`count` generated pictures as an array of float32 pixels, with the running BatchNorm statistics."""
        z = keras.random.uniform((count, self.generator.input_shape[1]), -1.0, 1.0, seed=seed)
        return self.generator.predict(z, verbose=0)

    def save_own_variables(self, store: Any) -> None:
        """Write the state of z's random numbers, which Keras leaves out, so that training goes on as it would have."""
        store["seeds"] = ops.convert_to_numpy(self.seeds.state)

    def load_own_variables(self, store: Any) -> None:
        """Read what `save_own_variables` wrote."""
        self.seeds.state.assign(store["seeds"])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "generator": keras.saving.serialize_keras_object(self.generator),
            "discriminator": keras.saving.serialize_keras_object(self.discriminator),
            "label_smoothing": self.label_smoothing,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "DCGAN":
        """Build from what `get_config` returns."""
        networks = {
            part: keras.saving.deserialize_keras_object(config[part], custom_objects)
            for part in ("generator", "discriminator")
        }
        return cls(**{**config, **networks})


def _cross_entropy(logits: keras.KerasTensor, target: float) -> keras.KerasTensor:
    return ops.mean(ops.binary_crossentropy(ops.full_like(logits, target), logits, from_logits=True))
