"""Train the convolutional auto-encoder on digits: 64 pixels through a code of 8 numbers.

The measure is the root mean square error on held-out digits, in pixel units of [0, 255], beside that of the best
linear code of the same size (principal components).
"""

from pathlib import Path

import keras
import numpy as np

from apps.examples.command_line import run
from apps.examples.contact_sheet import check_out, write_sheet
from apps.examples.digits import load_digits, root_mean_square
from kerascnn import decoders

CODE = 8
EPOCHS = 60


def train(out: Path, epochs: int = EPOCHS, seed: int = 0, overwrite: bool = False) -> dict[str, float]:
    """Train, print the errors, write the picture; returns the errors of the network and of the linear code."""
    check_out(out, overwrite)
    keras.utils.set_random_seed(seed)
    digits, held_out = load_digits()
    model = decoders.autoencoder(digits.shape[1:], CODE)
    steps = epochs * -(-len(digits) // 64)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps)), "mse")
    model.fit(digits, digits, batch_size=64, epochs=epochs, verbose=0)

    restored = model.predict(held_out, verbose=0)
    linear = principal_components(digits, held_out, CODE)
    errors = {"network": root_mean_square(restored - held_out), "linear": root_mean_square(linear - held_out)}
    print(f"{CODE} numbers for 64 pixels, {len(held_out)} held-out digits, root mean square error in pixel units:")
    print(f"auto-encoder {errors['network']:.1f}, principal components {errors['linear']:.1f}")
    write_sheet(out, {"held out": held_out[:12], "auto-encoder": restored[:12], "linear code": linear[:12]})
    print(f"wrote {out}")
    return errors


def principal_components(digits: np.ndarray, held_out: np.ndarray, count: int) -> np.ndarray:
    """The held-out pictures, restored from their `count` principal components."""
    from sklearn.decomposition import PCA

    fitted = PCA(count, random_state=0).fit(digits.reshape(len(digits), -1))
    codes = fitted.transform(held_out.reshape(len(held_out), -1))
    return fitted.inverse_transform(codes).reshape(held_out.shape)


if __name__ == "__main__":
    run(train, EPOCHS)
