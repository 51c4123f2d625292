"""Train the sub-pixel super-resolution network on digits: from 4x4 pixels to 8x8.

The small pictures are means of 2x2 pixels of the real ones. The measure is the PSNR on held-out digits, beside that of
bicubic enlargement.
"""

from pathlib import Path

import keras

from apps.examples.command_line import run
from apps.examples.contact_sheet import check_out, write_sheet
from apps.examples.digits import halve, load_digits, psnr, resize
from kerascnn import decoders

EPOCHS = 40


def train(
    out: Path, epochs: int = EPOCHS, seed: int = 0, overwrite: bool = False, upsampling: str = "subpixel"
) -> dict[str, float]:
    """Train, print the PSNR, write the picture; returns the PSNR in dB of the network and of bicubic enlargement."""
    check_out(out, overwrite)
    keras.utils.set_random_seed(seed)
    digits, held_out = load_digits()
    small, small_held_out = halve(digits), halve(held_out)
    model = decoders.super_resolution((None, None, 1), 2, upsampling=upsampling)
    steps = epochs * -(-len(digits) // 64)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps)), "mse")
    model.fit(small, digits, batch_size=64, epochs=epochs, verbose=0)

    enlarged = model.predict(small_held_out, verbose=0).clip(0, 255)
    bicubic = resize(small_held_out, 8)
    ratios = {"network": psnr(enlarged - held_out), "bicubic": psnr(bicubic - held_out)}
    print(f"PSNR in dB on {len(held_out)} held-out digits: network {ratios['network']:.2f}, ", end="")
    print(f"bicubic {ratios['bicubic']:.2f}")
    write_sheet(
        out,
        {"4x4": small_held_out[:12], "bicubic": bicubic[:12], "network": enlarged[:12], "real 8x8": held_out[:12]},
    )
    print(f"wrote {out}")
    return ratios


if __name__ == "__main__":
    run(train, EPOCHS)
