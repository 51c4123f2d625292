"""A PNG that shows rows of grey pictures, each row with its title."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from apps import files
from pipelines.whole_file import whole_file

CELL, GAP, TITLE = 64, 4, 110  # pixels


def check_out(out: Path, overwrite: bool) -> None:
    """Raise unless a PNG can be written to `out`: before any training.

    Raises:
        ValueError, FileNotFoundError: `out` exists, is no PNG, or has no folder.
    """
    if out.is_dir() or out.suffix.lower() != ".png":
        raise ValueError(f"`--out` must be a file whose name ends in .png. Received: {out}.")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists. Choose another name, or say `--overwrite`.")
    files.require_folder_of(out)


def write_sheet(out: Path, rows: Mapping[str, np.ndarray]) -> None:
    """Write rows of pictures, (count, height, width, 1) in [0, 255], enlarged to one size without smoothing."""
    columns = max(len(pictures) for pictures in rows.values())
    sheet = Image.new("L", (TITLE + columns * (CELL + GAP), len(rows) * (CELL + GAP) + GAP), 255)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for line, (title, pictures) in enumerate(rows.items()):
        top = GAP + line * (CELL + GAP)
        draw.text((GAP, top + CELL // 2), title, 0, font, anchor="lm")
        for column, picture in enumerate(pictures):
            pixels = np.round(np.clip(picture[..., 0], 0, 255)).astype("uint8")
            cell = Image.fromarray(pixels).resize((CELL, CELL), Image.Resampling.NEAREST)
            sheet.paste(cell, (TITLE + column * (CELL + GAP), top))
    with whole_file(out) as unfinished:
        sheet.save(unfinished, format="png")
