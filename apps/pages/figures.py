"""Figures for a page: drawings as SVG that follow the theme of the reader, pictures as WebP; each has words for it."""

import base64
import io
import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from PIL import Image

# These stand for the theme's own colours; nothing else is drawn in them.
INK, LINE = "#1d2126", "#d8dad6"
# Of lines, to be told apart on white and on black.
SERIES = ("#3d7fd6", "#d9772b", "#2f9e74", "#b2509e", "#c9463d", "#8a8d2e", "#6f6bd1", "#7f7f7f")
FEW_PIXELS = 64  # pictures no larger are kept exact, and enlarged without smoothing
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": LINE,
    "axes.edgecolor": LINE,
    "legend.fontsize": 8,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}
_numbers = itertools.count(1)


def new_figure(rows: int = 1, columns: int = 1, width: float = 5.2, height: float = 3.2, **subplots: Any) -> Any:
    """A Figure and its axes in the style of the pages; sizes are inches, of 72 points, on paper and page.

    Args:
        rows, columns: Of the axes.
        width, height: Of the whole figure; at most 5.2 wide, its words can be read on a phone.
        subplots: What `Figure.subplots` takes besides.
    """
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "axes.prop_cycle": cycler(color=SERIES)}):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, **subplots)
    return figure, axes


def as_svg(figure: Any, alternative: str) -> Markup:
    """A Figure as an inline SVG; `alternative` says in words what it shows."""
    import matplotlib

    _use_theme(figure)
    prefix = f"f{next(_numbers)}-"  # ids must be unique in the page
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": prefix}):
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawing = file.getvalue()
    opening, inside = drawing[drawing.index("<svg") :].split(">", 1)
    view = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', opening)[0]
    inside = re.sub(r"<metadata>.*?</metadata>", "", inside, flags=re.DOTALL).replace("\n", " ")
    inside = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", inside)
    inside = inside.replace(INK, "currentColor").replace(LINE, "var(--line)")
    return Markup(
        f'<svg role="img" aria-label="{escape(alternative)}" class="drawing" style="max-width: {view[0]}pt" '
        f'viewBox="0 0 {view[0]} {view[1]}">{inside}'
    )


def _use_theme(figure: Any) -> None:
    """Give words that were written in black the theme's colour, and legends no frame."""
    import matplotlib

    for axes in figure.axes:
        legend = axes.get_legend()
        words = [*axes.texts, *(legend.get_texts() if legend else ())]
        if legend:
            legend.set_frame_on(False)
        for text in words:
            if matplotlib.colors.to_hex(text.get_color()) == "#000000":
                text.set_color(INK)


def as_picture(pixels: np.ndarray, alternative: str, side: int | None = None) -> Markup:
    """A picture as an `<img>` with its bytes inside; `alternative` says in words what it shows.

    Args:
        pixels: uint8 [height, width] or [height, width, 3].
        alternative: Its text.
        side: Pixels of its longer side on the page; larger pictures are made that small before. None shows it as it is.
    """
    image = Image.fromarray(np.ascontiguousarray(pixels))
    few = max(image.size) <= FEW_PIXELS
    if side is not None and not few:
        image.thumbnail((2 * side, 2 * side))  # twice, for fine screens
    file = io.BytesIO()
    image.save(file, "WEBP", **({"lossless": True} if few else {"quality": 80}))
    scale = 1.0 if side is None else side / max(pixels.shape[:2])
    height, width = (max(1, round(scale * length)) for length in pixels.shape[:2])
    data = base64.b64encode(file.getvalue()).decode()
    kind = ' class="pixels"' if few else ""
    return Markup(
        f'<img{kind} alt="{escape(alternative)}" width="{width}" height="{height}" src="data:image/webp;base64,{data}">'
    )


def tiles(pictures: Sequence[np.ndarray], columns: int | None = None, gap: int = 1, scale: int = 1) -> np.ndarray:
    """Pictures of one size side by side in rows: uint8 [height, width, 3], with white gaps between.

    Args:
        pictures: uint8 [h, w] or [h, w, 3] each.
        columns: In a row; None makes about a square.
        gap: Pixels between them, after enlarging.
        scale: Times that every pixel is enlarged.

    >>> tiles([np.zeros((2, 3), "uint8")] * 3, columns=2, scale=2).shape
    (9, 13, 3)
    """
    columns = columns or int(np.ceil(np.sqrt(len(pictures))))
    height, width = (scale * length for length in pictures[0].shape[:2])
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, "uint8")
    for number, picture in enumerate(pictures):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        large = np.asarray(picture).repeat(scale, axis=0).repeat(scale, axis=1)
        sheet[top : top + height, left : left + width] = large if large.ndim == 3 else large[..., None]
    return sheet
