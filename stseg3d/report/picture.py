"""The picture of a case: slices through the object with its contours and boxes, and the whole of it in front of a radiograph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stseg3d.geometry import Box
from stseg3d.report.drawing import Colour, Picture, write_png, write_text
from stseg3d.report.panel import BOX_COLOUR, LABEL_COLOURS, TRUTH_COLOUR, Panel, Screen, Span, cropped, draw
from stseg3d.report.views import Labels, best_slices, choose_window, radiographs, slice_at, surface
from stseg3d.volumes import CanonicalVolume, Volume

PANEL_HEIGHT, PANELS_WIDTH, GAP, HEAD, FOOT, MIN_WIDTH = 760, 4000, 18, 44, 52, 420
BACKGROUND: Colour = (0.035, 0.045, 0.065)
INK: Colour = (0.62, 0.67, 0.74)


def picture_of_case(
    volume: Volume, labels: NDArray[np.integer], boxes: Sequence[Box], path: str | Path, *, truth: NDArray[np.integer] | None = None
) -> Path:
    """Write a picture of a segmented case.

    Slices through most of the object from below, in front and the left, as radiologists look at them, with contours and the boxes they
    cut; then the object as a solid body in front of a radiograph, with all boxes. A volume of depth 1 gives one panel.

    Args:
        volume: The image. Of one larger than 2 ** 29 voxels only every n-th slice is read for the radiographs.
        labels: Segmentation in the axes of the volume, of any integer type; may be empty.
        boxes: Boxes in voxels of the volume; may be none.
        path: The PNG to write.
        truth: Ground truth in the axes of the volume, drawn as an orange line.

    Returns:
        The path.

    Raises:
        ValueError: If the labels, the truth or a box are not on the volume's grid.
    """
    _check(volume, labels, boxes, truth)
    lies_flat = _lies_flat(volume)
    view = CanonicalVolume(volume, "RAS")
    seen = view.view(np.asarray(labels))
    known = None if truth is None else view.view(np.asarray(truth))
    seen_boxes = [view.view_box(box) for box in boxes]
    panels = _without_air(_panels(view, seen, known, seen_boxes), view.grid.shape)
    spacing = view.grid.spacing_mm
    extents = [[n * spacing[a] for n, a in zip(p.image.shape, p.axes, strict=True)] for p in panels]
    scale = min(PANEL_HEIGHT / max(e[1] for e in extents), PANELS_WIDTH / sum(e[0] for e in extents))
    sizes = [(max(round(scale * width), 8), max(round(scale * height), 8)) for width, height in extents]
    drawn = [draw(panel, Screen(width, height, lies_flat)) for panel, (width, height) in zip(panels, sizes, strict=True)]
    return write_png(_sheet(drawn, panels, volume, scale, truth is not None), Path(path))


def _check(volume: Volume, labels: ArrayLike, boxes: Sequence[Box], truth: ArrayLike | None) -> None:
    for name, array in (("labels", labels), ("truth", truth)):
        if array is not None and np.shape(array) != volume.grid.shape:
            msg = f"{name} must be of the volume's shape {volume.grid.shape}, got {np.shape(array)}"
            raise ValueError(msg)
    if volume.grid.ndim != 3:
        msg = f"volume must have three axes, got {volume.grid.ndim}"
        raise ValueError(msg)
    for box in boxes:
        if not volume.grid.box.contains(box):
            msg = f"boxes must be inside the volume of shape {volume.grid.shape}, got {box}"
            raise ValueError(msg)


def _lies_flat(volume: Volume) -> bool:
    """Whether this is a picture, not a patient: depth 1, and axes that nobody placed in the world."""
    affine, spacing = volume.grid.affine, volume.grid.spacing_mm
    return volume.grid.shape[2] == 1 and np.array_equal(affine, np.diag([*spacing, 1.0]))


def _panels(view: CanonicalVolume, labels: Labels, truth: Labels | None, boxes: list[Box]) -> list[Panel]:
    """Slices across each axis along which there is more than one, then the two outside views."""
    at = best_slices(labels if truth is None or labels.any() else truth, boxes)
    flat = [axis for axis, n in enumerate(view.grid.shape) if n == 1]
    shown = [(2, "axial"), (1, "coronal"), (0, "sagittal")]
    if flat:
        shown = [(axis, "") for axis in flat[-1:]]
    planes = [slice_at(view, axis, at[axis]) for axis, _ in shown]
    window = choose_window(planes)
    panels = []
    for (axis, title), plane in zip(shown, planes, strict=True):
        across = [b for b in boxes if b.start[axis] <= at[axis] < b.stop[axis]]
        cut = tuple(at[axis] if a == axis else slice(None) for a in range(3))
        true = None if truth is None else truth[cut]
        panels.append(Panel(title, _others(axis), window(plane), labels[cut], true, _spans(across, axis)))
    if flat:
        return panels
    for axis, title, image in zip((1, 0), ("from the front", "from the left"), radiographs(view, window), strict=True):
        body = surface(labels, axis, view.grid.spacing_mm, from_low=axis == 0)
        true = None if truth is None else truth.max(axis=axis)
        panels.append(Panel(title, _others(axis), image, labels.max(axis=axis), true, _spans(boxes, axis), body))
    return panels


def _without_air(panels: list[Panel], shape: tuple[int, ...]) -> list[Panel]:
    """The panels cut to where the radiographs show something, or a label or a box lies, and a little more."""
    keep = [np.zeros(n, dtype=bool) for n in shape]
    for panel in panels[3:]:
        here = panel.image > 0.05 * panel.image.max()
        here |= panel.labels != 0
        for n, axis in enumerate(panel.axes):
            keep[axis] |= np.count_nonzero(here, axis=1 - n) > 0.02 * here.shape[1 - n]
            for low, high in panel.boxes:
                keep[axis][low[n] : high[n]] = True
    if not all(k.any() for k in keep):
        return panels
    ends = [(int(k.argmax()), len(k) - int(k[::-1].argmax())) for k in keep]
    ends = [(max(a - n // 40 - 1, 0), min(b + n // 40 + 1, n)) for (a, b), n in zip(ends, shape, strict=True)]
    low, high = zip(*ends, strict=True)
    return [cropped(p, (low[p.axes[0]], low[p.axes[1]]), (high[p.axes[0]], high[p.axes[1]])) for p in panels]


def _others(axis: int) -> tuple[int, int]:
    first, second = (a for a in range(3) if a != axis)
    return first, second


def _spans(boxes: Sequence[Box], axis: int) -> list[Span]:
    a, b = _others(axis)
    return sorted({((box.start[a], box.start[b]), (box.stop[a], box.stop[b])) for box in boxes})


def _sheet(drawn: list[Picture], panels: list[Panel], volume: Volume, scale: float, has_truth: bool) -> Picture:
    """All panels in a row, their lower edges level, with titles above and name, legend and scale below."""
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
    bar_mm = max((n for n in (1, 2, 5, 10, 20, 50, 100) if n * scale <= MIN_WIDTH / 3), default=1)
    bar = round(bar_mm * scale)
    sheet[row + 5 : row + 9, column : column + bar] = INK
    column += bar + 10
    column += write_text(sheet, f"{bar_mm} mm", (row, column), INK) + 40
    letters = max((sheet.shape[1] - GAP - column) // 12, 0)
    title = Path(name).name[:letters]
    write_text(sheet, title, (row, sheet.shape[1] - GAP - 12 * len(title)), INK)
