"""Picture of a case: slices through the object with contours and boxes, and the whole object before a radiograph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stseg3d.geometry import Box
from stseg3d.report.drawing import Colour, Picture, write_png, write_text
from stseg3d.report.panel import BOX_COLOUR, LABEL_COLOURS, TRUTH_COLOUR, Panel
from stseg3d.report.panels import draw_panels, panels_of_case
from stseg3d.volumes import Volume

PANEL_HEIGHT, PANELS_WIDTH, GAP, HEAD, FOOT, MIN_WIDTH = 760, 4000, 18, 44, 52, 420
BARS_MM = (*(n * 10.0**e for e in range(-6, 2) for n in (1, 2, 5)), 100.0)  # microscopy has pixels of nanometres
BACKGROUND: Colour = (0.035, 0.045, 0.065)
INK: Colour = (0.62, 0.67, 0.74)


def picture_of_case(
    volume: Volume, labels: NDArray[np.integer], boxes: Sequence[Box], path: str | Path, *, truth: NDArray[np.integer] | None = None
) -> Path:
    """Write a picture of a segmented case.

    It shows slices with most of the object from below, the front and the left, as in radiology, with contours and boxes, then the object
    as a solid body before a radiograph, with all boxes. A volume of depth 1 gives one panel.

    Args:
        volume: The image. If it is larger than 2 ** 29 voxels, only every n-th slice is read for the radiographs.
        labels: Segmentation in the axes of the volume, of any integer type; may be empty.
        boxes: Boxes in voxels of the volume; may be none.
        path: The PNG to write.
        truth: Ground truth in the axes of the volume, drawn as an orange line.

    Returns:
        The path.

    Raises:
        ValueError: If the labels, the truth or a box are not on the volume's grid.
    """
    panels = panels_of_case(volume, labels, boxes, truth=truth)
    drawn, scale = draw_panels(panels, volume, height=PANEL_HEIGHT, width=PANELS_WIDTH)
    return write_png(_sheet(drawn, panels, volume, scale, truth is not None), Path(path))


def _sheet(drawn: list[Picture], panels: list[Panel], volume: Volume, scale: float, has_truth: bool) -> Picture:
    """All panels in a row, aligned at the bottom, with titles above and name, legend and scale below."""
    height = HEAD + max(p.shape[0] for p in drawn) + FOOT
    width = max(GAP + sum(p.shape[1] + GAP for p in drawn), MIN_WIDTH)
    sheet: Picture = np.broadcast_to(np.array(BACKGROUND, dtype=np.float32), (height, width, 3)).copy()
    column = GAP
    for pixels, panel in zip(drawn, panels, strict=True):
        top = height - FOOT - pixels.shape[0]
        sheet[top : top + pixels.shape[0], column : column + pixels.shape[1]] = pixels
        write_text(sheet, panel.title, (top - 22, column), INK)
        column += pixels.shape[1] + GAP
    _write_foot(sheet, height - FOOT + 20, volume.name, panels, scale, has_truth)
    return sheet


def _write_foot(sheet: Picture, row: int, name: str, panels: list[Panel], scale: float, has_truth: bool) -> None:
    entries = [("segmentation", LABEL_COLOURS[0])] if any(p.labels.any() for p in panels) else [("nothing found", INK)]
    entries += [("truth", TRUTH_COLOUR)] if has_truth else []
    entries += [("boxes", BOX_COLOUR)] if any(p.boxes for p in panels) else []
    column = GAP
    for text, colour in entries:
        sheet[row : row + 14, column : column + 14] = colour
        column += 22 + write_text(sheet, text, (row, column + 22), INK) + 26
    bar_mm = max((n for n in BARS_MM if n * scale <= MIN_WIDTH / 3), default=BARS_MM[0])
    bar = round(bar_mm * scale)
    sheet[row + 5 : row + 9, column : column + bar] = INK
    column += bar + 10
    column += write_text(sheet, f"{bar_mm:g} mm", (row, column), INK) + 40
    letters = max((sheet.shape[1] - GAP - column) // 12, 0)
    title = Path(name).name[:letters]
    write_text(sheet, title, (row, sheet.shape[1] - GAP - 12 * len(title)), INK)
