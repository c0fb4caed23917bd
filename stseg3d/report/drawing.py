"""Drawing on arrays: contours, frames and letters with smooth edges; PNG.

A picture is of shape ``(rows, columns, 3)``, float32 in 0..1. Letters are drawn here because no required package draws any; Pillow or
matplotlib would be one more, for 35 lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from stseg3d.machine.files import atomic_write

Picture = NDArray[np.float32]
Colour = tuple[float, float, float]

# Seven rows of five dots per letter; each row is a digit in base 32 whose highest bit is the leftmost dot.
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_/:%()+, "
ROWS = (
    "EHHVHHHUHHUHHUEHGGGHEUHHHHHUVGGUGGVVGGUGGGEHGNHHEHHHVHHHE44444E72222ICHIKOKIHGGGGGGV"
    "HRLLHHHHHPLJHHEHHHHHEUHHUGGGEHHHLIDUHHUKIHFGGE11UV444444HHHHHHEHHHHHA4HHHLLLAHHA4AHH"
    "HHHA444V1248GVEHJLPHE4C4444EEH1248VV2421HE26AIV22VGU11HE68GUHHEV124888EHHEHHEEHHF12C"
    "00000CC000E000000000V01248G00CC0CC0OP248J324888428422248044V44000000C80000000"
)


def resize(image: Picture, shape: Sequence[int], order: int = 1) -> Picture:
    """Image at another size over the same extent, smoothed first along axes that shrink."""
    factors = [n / m for n, m in zip(shape, image.shape, strict=True)]
    sigma = [max(0.5 / f - 0.5, 0) for f in factors]
    smooth = gaussian_filter(image, sigma, mode="nearest") if max(sigma) > 0 else image
    larger: Picture = zoom(smooth, factors, order=order, mode="nearest", grid_mode=True)
    return larger


def mix(picture: Picture, cover: Picture, colour: Colour | Picture) -> None:
    """Blend ``colour`` into the picture by ``cover`` (0..1, one value per pixel)."""
    picture += cover[..., None] * (np.asarray(colour, dtype=np.float32) - picture)


def contour(soft: Picture, width: float) -> Picture:
    """Cover of a line of this width in pixels along the level 0.5 of a soft mask."""
    slope = np.hypot(*np.gradient(soft)) if min(soft.shape) > 1 else np.zeros_like(soft)
    distance = np.abs(soft - 0.5) / np.maximum(slope, 1e-3)
    cover: Picture = np.clip(width / 2 + 0.5 - distance, 0, 1).astype(np.float32)
    return cover


def draw_frame(
    picture: Picture, low: tuple[int, int], high: tuple[int, int], colour: Colour, *, width: int = 2, strength: float = 1.0
) -> None:
    """Outline a rectangle, rows and columns ``low`` to ``high``, with the line inside and no pixel drawn twice."""
    (top, left), (bottom, right) = low, high
    rows = slice(top + width, max(bottom - width, top + width))
    for strip in (
        (slice(top, top + width), slice(left, right)),
        (slice(max(bottom - width, top + width), bottom), slice(left, right)),
        (rows, slice(left, left + width)),
        (rows, slice(max(right - width, left + width), right)),
    ):
        part = picture[strip]
        part += np.float32(strength) * (np.asarray(colour, dtype=np.float32) - part)


def write_text(picture: Picture, text: str, at: tuple[int, int], colour: Colour, size: int = 2) -> int:
    """Write text with ``size`` pixels per dot and its upper left corner ``at`` (row, column); unknown characters are blank.

    Returns:
        Width of the text in pixels.
    """
    places = [LETTERS.index(letter) if letter in LETTERS else len(LETTERS) - 1 for letter in text.upper()]
    codes = [ROWS[7 * n : 7 * n + 7] for n in places]
    if not codes:
        return 0
    dots = np.zeros((9, 6 * len(codes) + 2), dtype=np.float32)
    for n, code in enumerate(codes):
        dots[1:8, 6 * n + 1 : 6 * n + 6] = [[int(row, 32) >> bit & 1 for bit in (4, 3, 2, 1, 0)] for row in code]
    # Smooth enlarging and a cut at half height join the dots of a stroke.
    cover = np.clip((resize(dots, [size * n for n in dots.shape]) - 0.5) * size + 0.6, 0, 1)
    row, column = at[0] - size, at[1] - size
    part = picture[max(row, 0) : row + cover.shape[0], max(column, 0) : column + cover.shape[1]]
    top, left = max(-row, 0), max(-column, 0)
    mix(part, cover[top : top + part.shape[0], left : left + part.shape[1]], colour)
    return 6 * len(codes) * size


def write_png(picture: Picture, path: Path) -> Path:
    """Write the picture, whole or not at all."""
    levels = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    with atomic_write(path) as temporary:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(levels, isVector=True), str(temporary), useCompression=True)
    return path
