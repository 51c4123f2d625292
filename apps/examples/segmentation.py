"""Train the segmentation network to find digits on striped paper.

Every picture is a real digit, enlarged to 24x24, in a grey of its own, on stripes of a direction, width and two greys
of their own; noise is added. The answer is the clean digit above half of its full ink. The measure is the share of
pixels that are right on held-out digits, beside what the best threshold reaches.
"""

from pathlib import Path

import keras
import numpy as np

from apps.examples.command_line import run
from apps.examples.contact_sheet import check_out, write_sheet
from apps.examples.digits import load_digits
from kerascnn import decoders

EPOCHS = 8
SIZE = 24


def train(
    out: Path, epochs: int = EPOCHS, seed: int = 0, overwrite: bool = False, upsampling: str = "transposed"
) -> dict[str, float]:
    """Train, print the accuracy, write the picture; returns the share of right pixels, also that of the threshold."""
    check_out(out, overwrite)
    keras.utils.set_random_seed(seed)
    digits, held_out = load_digits(SIZE)
    generator = np.random.default_rng(seed)
    papers, masks = on_stripes(digits, generator), digits[..., 0] > 127.5
    held_papers, held_masks = on_stripes(held_out, generator), held_out[..., 0] > 127.5
    model = decoders.segmentation(papers.shape[1:], 2, upsampling=upsampling, width=0.25)
    steps = epochs * -(-len(digits) // 32)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(papers, masks.astype("int32"), batch_size=32, epochs=epochs, verbose=0)

    found = model.predict(held_papers, verbose=0).argmax(axis=-1) == 1
    plain = above_best_threshold(held_papers[..., 0], held_masks)
    right = {"network": float((found == held_masks).mean()), "threshold": float((plain == held_masks).mean())}
    print(f"pixels right on {len(held_out)} held-out digits: network {right['network']:.1%}, ", end="")
    print(f"best threshold {right['threshold']:.1%}")
    answers = {"threshold": plain, "network": found, "answer": held_masks}
    write_sheet(
        out,
        {"picture": held_papers[:12], **{title: 255.0 * masks[:12, ..., None] for title, masks in answers.items()}},
    )
    print(f"wrote {out}")
    return right


def on_stripes(digits: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The digits as ink on striped paper: dark, middle and bright grey fall to ink and stripes by chance."""
    shape = (len(digits), 1, 1, 1)
    greys = generator.permuted(np.tile([50.0, 125.0, 200.0], (len(digits), 1)), axis=1)
    ink, one, other = (greys + generator.uniform(-20, 20, greys.shape)).T.reshape(3, *shape)
    angle, period = generator.uniform(0, np.pi, shape), generator.uniform(4, 10, shape)
    across, down = np.arange(SIZE)[None, None, :, None], np.arange(SIZE)[None, :, None, None]
    phase = 2 * np.pi * ((across * np.cos(angle) + down * np.sin(angle)) / period + generator.uniform(0, 1, shape))
    paper = (one + other) / 2 + (one - other) / 2 * np.tanh(3 * np.sin(phase))
    cover = np.clip(digits / 85 - 1, 0, 1)  # no ink up to a third, all of it from two thirds on
    pictures = paper + (ink - paper) * cover + generator.normal(0, 10, digits.shape)
    return np.clip(pictures, 0, 255).astype("float32")


def above_best_threshold(pictures: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The pixels above, or below, a grey that is chosen for every picture on its own with the answer at hand."""
    guesses = [sign * pictures > sign * grey for grey in range(0, 256, 5) for sign in (1, -1)]
    right = np.array([(guess == masks).mean(axis=(1, 2)) for guess in guesses])
    return np.array(guesses)[right.argmax(axis=0), np.arange(len(pictures))]


if __name__ == "__main__":
    run(train, EPOCHS)
