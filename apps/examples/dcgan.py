"""Train the DCGAN on digits, and draw new ones.

The measures are both losses, the shares of real and of generated digits that the discriminator judges rightly (about
half of them if it could only guess), the mean pixel, and the distance of a picture to the one most like it (near zero
if the generator always drew the same).
"""

from pathlib import Path

import keras
import numpy as np

from apps.examples.command_line import run
from apps.examples.contact_sheet import check_out, write_sheet
from apps.examples.digits import load_digits
from kerascnn import decoders

EPOCHS = 60


def train(out: Path, epochs: int = EPOCHS, seed: int = 0, overwrite: bool = False) -> dict[str, float]:
    """Train, print the measures, write the picture; returns the measures, those of `fit` for the last epoch."""
    check_out(out, overwrite)
    keras.utils.set_random_seed(seed)
    digits = np.concatenate(load_digits())
    model = decoders.dcgan(digits.shape[1:], width=0.5, depth=2, kernel=4, label_smoothing=0.1, seed=seed)
    model.compile(keras.optimizers.Adam(5e-4, beta_1=0.5))  # a higher rate than the paper's: there is little time
    history = model.fit(digits, batch_size=64, epochs=epochs, verbose=0).history

    drawn = model.sample(300, seed=seed)
    measures = {name: values[-1] for name, values in history.items()}
    measures |= {"mean_drawn": float(drawn.mean()), "mean_real": float(digits.mean())}
    measures |= {"nearest_drawn": nearest(drawn), "nearest_real": nearest(digits[:300])}
    print(f"{len(history['loss']) * -(-len(digits) // 64):,} steps; the last epoch and 300 new digits:")
    for name, value in measures.items():
        print(f"  {name:<20} {value:7.2f}")
    write_sheet(out, {"real": digits[:12], **{f"drawn {row + 1}": drawn[12 * row : 12 * row + 12] for row in range(4)}})
    print(f"wrote {out}")
    return measures


def nearest(pictures: np.ndarray) -> float:
    """How far a picture is from the one most like it: the mean over all, root mean square in pixel units."""
    flat = pictures.reshape(len(pictures), -1)
    squares = np.mean((flat[:, None] - flat) ** 2, axis=-1)
    np.fill_diagonal(squares, np.inf)
    return float(np.sqrt(squares.min(axis=1)).mean())


if __name__ == "__main__":
    run(train, EPOCHS)
