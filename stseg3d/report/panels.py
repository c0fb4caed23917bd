"""The panels that show a case: the slices with most of the object, and the object from outside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stseg3d.geometry import Box
from stseg3d.ops.resample import resample_region
from stseg3d.report.drawing import Picture
from stseg3d.report.panel import Panel, Screen, Span, cropped, draw
from stseg3d.report.views import Labels, Plane, best_slices, choose_window, radiographs, slice_at, surface
from stseg3d.volumes import CanonicalVolume, Volume


def panels_of_case(
    volume: Volume,
    labels: NDArray[np.integer],
    boxes: Sequence[Box],
    *,
    truth: NDArray[np.integer] | None = None,
    rough: Volume | None = None,
    threshold: float = 0.5,
) -> list[Panel]:
    """Panels of a case: slices seen from below, the front and the left, as in radiology, then the object from the front and the left.

    Args:
        volume: The image. If it is larger than 2 ** 29 voxels, only every n-th slice is read for the radiographs.
        labels: Segmentation in the axes of the volume, of any integer type; may be empty.
        boxes: Boxes in voxels of the volume; may be none.
        truth: Ground truth in the axes of the volume.
        rough: Rough map: one channel over the extent of the volume, at any resolution, along any axes.
        threshold: Level of its outline.

    Returns:
        Five panels, cropped to their content; one for a volume of depth 1.

    Raises:
        ValueError: If the labels, the truth, the rough map or a box are not on the volume's grid.
    """
    _check(volume, labels, boxes, truth)
    view = CanonicalVolume(volume, "RAS")
    found = None if rough is None else _rough_on(view, rough, threshold)
    known = None if truth is None else view.view(np.asarray(truth))
    panels = _panels(view, view.view(np.asarray(labels)), known, [view.view_box(box) for box in boxes], found)
    return _without_air(panels, view.grid.shape)


def draw_panels(panels: Sequence[Panel], volume: Volume, *, height: float, width: float) -> tuple[list[Picture], float]:
    """All panels in pixels, at one scale.

    Args:
        panels: Panels of the volume.
        volume: The image.
        height: Maximum height of a panel, in pixels.
        width: Maximum width of all panels side by side, in pixels.

    Returns:
        Pictures, and pixels per mm.
    """
    spacing = CanonicalVolume(volume, "RAS").grid.spacing_mm
    extents = [[n * spacing[a] for n, a in zip(p.image.shape, p.axes, strict=True)] for p in panels]
    scale = min(height / max(e[1] for e in extents), width / sum(e[0] for e in extents))
    sizes = [(max(round(scale * across), 8), max(round(scale * up), 8)) for across, up in extents]
    flat = _lies_flat(volume)
    return [draw(panel, Screen(*size, flat)) for panel, size in zip(panels, sizes, strict=True)], scale


def _rough_on(view: CanonicalVolume, rough: Volume, threshold: float) -> Plane:
    """Rough map in the axes of the view, shifted so that its outline is at 0.5."""
    turned = CanonicalVolume(rough, "RAS")
    if rough.channels != 1 or not turned.grid.resized(view.grid.shape).is_close(view.grid, tolerance_voxels=0.5):
        msg = f"rough must be one channel over the volume's extent, got {rough.channels} and another extent: {rough.name}"
        raise ValueError(msg)
    shifted: Plane = turned.read()[0].astype(np.float32) - np.float32(threshold - 0.5)
    return shifted


def _cut(rough: Plane, whole: Box, axis: int, index: int) -> Plane:
    """Slice of a rough map at a slice of the image, in the image's resolution."""
    start, stop = list(whole.start), list(whole.stop)
    start[axis], stop[axis] = index, index + 1
    plane: Plane = np.squeeze(resample_region(rough[None], whole, Box(tuple(start), tuple(stop)))[0], axis=axis)
    return plane


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
    """Whether this is a plain picture: depth 1, and no position in the world."""
    affine, spacing = volume.grid.affine, volume.grid.spacing_mm
    return volume.grid.shape[2] == 1 and np.array_equal(affine, np.diag([*spacing, 1.0]))


def _panels(view: CanonicalVolume, labels: Labels, truth: Labels | None, boxes: list[Box], rough: Plane | None) -> list[Panel]:
    """Slices across each axis longer than 1, then the two outside views."""
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
        found = None if rough is None else _cut(rough, view.grid.box, axis, at[axis])
        panels.append(Panel(title, _others(axis), window(plane), labels[cut], true, _spans(across, axis), rough=found))
    if flat:
        return panels
    for axis, title, image in zip((1, 0), ("from the front", "from the left"), radiographs(view, window), strict=True):
        body = surface(labels, axis, view.grid.spacing_mm, from_low=axis == 0)
        true = None if truth is None else truth.max(axis=axis)
        panels.append(Panel(title, _others(axis), image, labels.max(axis=axis), true, _spans(boxes, axis), body))
    return panels


def _without_air(panels: list[Panel], shape: tuple[int, ...]) -> list[Panel]:
    """Panels cropped to the content of the radiographs, labels and boxes, with a small margin."""
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
