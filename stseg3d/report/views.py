"""Views in the panels of a picture, in RAS axes: slices through the object, and the object before a radiograph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects, gaussian_filter

from stseg3d.geometry import Box
from stseg3d.volumes import Volume

Plane = NDArray[np.float32]
Labels = NDArray[np.integer]
READ_VOXELS = 2**24  # in memory at once for radiographs
PROJECTED_VOXELS = 2**29  # in larger images only every n-th slice is read for radiographs
SURFACE_VOXELS = 2**23  # larger objects are subsampled before their surface is found
CT_AIR_HU = -800


@dataclass(frozen=True)
class Window:
    """Intensities shown as black and as white."""

    low: float
    high: float

    def __call__(self, image: NDArray[np.floating] | Plane) -> Plane:
        """Brightness, 0 to 1."""
        brightness: Plane = np.clip((np.asarray(image, dtype=np.float32) - self.low) / (self.high - self.low), 0, 1)
        return brightness


@dataclass(frozen=True)
class Surface:
    """An object seen along an axis: cover, brightness and label of each pixel."""

    cover: Plane
    shade: Plane
    label: Labels


def grey(volume: Volume, box: Box) -> Plane:
    """Voxels in a box as one channel: colours are averaged, alpha and further channels are left out. NaN and infinities become 0."""
    image = volume.read(box)
    channels = 3 if volume.channels in (3, 4) else 1
    mean: Plane = np.nan_to_num(image[:channels].astype(np.float32).mean(axis=0), nan=0, posinf=0, neginf=0)
    return mean


def slice_at(volume: Volume, axis: int, index: int) -> Plane:
    """One slice across ``axis``."""
    box = volume.grid.box
    start, stop = list(box.start), list(box.stop)
    start[axis], stop[axis] = index, index + 1
    plane: Plane = np.squeeze(grey(volume, Box(tuple(start), tuple(stop))), axis=axis)
    return plane


def choose_window(slices: Sequence[Plane]) -> Window:
    """Window of soft tissue and vessels for CT, recognised by air; else the 1st to 99.7th percentile without background."""
    values = np.concatenate([plane.ravel() for plane in slices])
    if np.percentile(values, 2) > CT_AIR_HU * 2 and values.min() <= CT_AIR_HU:
        return Window(-170, 380)
    seen = values[values != values.min()]
    low, high = np.percentile(seen if seen.size else values, (1, 99.7))
    if low == high:  # a single value besides background
        low = values.min()
    return Window(float(low), float(max(high, low + 1e-6)))


def best_slices(mask: Labels, boxes: Sequence[Box]) -> tuple[int, int, int]:
    """Index on each axis of the slice with most of the object; without one, the middle of the first box or of the image."""
    if mask.any():
        areas = [np.count_nonzero(mask, axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
        i, j, k = (int(area.argmax()) for area in areas)
        return i, j, k
    box = next((b for b in boxes if not b.is_empty()), Box.of(mask.shape)).clip(mask.shape)
    i, j, k = (min((a + b) // 2, n - 1) for a, b, n in zip(box.start, box.stop, mask.shape, strict=True))
    return i, j, k


def radiographs(volume: Volume, window: Window) -> tuple[Plane, Plane]:
    """Mean brightness along the second axis and along the first, computed slab by slab.

    Returns:
        Planes of the axes (0, 2) and (1, 2).
    """
    shape = volume.grid.shape
    step = ceil(volume.grid.box.voxels / PROJECTED_VOXELS)
    thickness = 1 if step > 1 else max(READ_VOXELS // (shape[0] * shape[1]), 1)
    front, side = [], []
    for start in range(0, shape[2], step if step > 1 else thickness):
        slab = window(grey(volume, Box((0, 0, start), (shape[0], shape[1], min(start + thickness, shape[2])))))
        front.append(slab.mean(axis=1))
        side.append(slab.mean(axis=0))
    return np.concatenate(front, axis=1), np.concatenate(side, axis=1)


def surface(labels: Labels, axis: int, spacing_mm: Sequence[float], *, from_low: bool) -> Surface:
    """Labels as a solid body lit from the upper left, seen along ``axis``.

    Args:
        labels: Labels on three axes.
        axis: The axis to look along.
        spacing_mm: Size of a voxel.
        from_low: Whether the viewer is at the low end of the axis.

    Returns:
        Planes over the two other axes.
    """
    shape = tuple(n for a, n in enumerate(labels.shape) if a != axis)
    cover, shade, seen = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, labels.dtype)
    found = find_objects((labels != 0).astype(np.uint8))
    if not found:
        return Surface(cover, shade, seen)
    around = Box.from_slices(found[0]).grow((2, 2, 2)).clip(labels.shape)
    step = ceil((around.voxels / SURFACE_VOXELS) ** (1 / 3))
    part = np.moveaxis(labels[around.slices][::step, ::step, ::step], axis, 0)
    part = part if from_low else part[::-1]
    mm = [step * s for a, s in enumerate(spacing_mm) if a != axis]
    covered, shaded, label = _light(part, step * spacing_mm[axis], mm)
    inside = tuple(s for a, s in enumerate(around.slices) if a != axis)
    for whole, plane in ((cover, covered), (shade, shaded), (seen, label)):
        target = whole[inside]
        target[...] = np.repeat(np.repeat(plane, step, axis=0), step, axis=1)[: target.shape[0], : target.shape[1]]
    return Surface(cover, shade, seen)


def _light(part: Labels, depth_mm: float, plane_mm: Sequence[float]) -> tuple[Plane, Plane, Labels]:
    """Cover, shade and label of labels seen along their first axis from its start."""
    soft = gaussian_filter((part != 0).astype(np.float32), 0.8, mode="constant")
    hit = (soft > 0.5).argmax(axis=0)
    cover = soft.max(axis=0)
    at, before = (np.take_along_axis(soft, np.maximum(hit - back, 0)[None], axis=0)[0] for back in (0, 1))
    depth = (hit - np.clip((at - 0.5) / np.maximum(at - before, 1e-6), 0, 1)) * depth_mm
    nearest = distance_transform_edt(cover <= 0.5, return_distances=False, return_indices=True)
    depth = depth[tuple(nearest)]
    if min(depth.shape) < 2:
        return cover, np.ones_like(cover), part.max(axis=0)
    slopes = np.gradient(gaussian_filter(depth, 0.6), *plane_mm)
    # The planes' first axis runs to the left of the screen, the second up; the light comes from the upper left, in front.
    facing = (1 + 0.55 * slopes[0] + 0.6 * slopes[1]) / np.sqrt((1 + slopes[0] ** 2 + slopes[1] ** 2) * (1 + 0.55**2 + 0.6**2))
    index = np.minimum(hit + 1, len(part) - 1)[tuple(nearest)]
    label = np.take_along_axis(part, index[None], axis=0)[0]
    label = np.where(label == 0, part.max(axis=0), label)
    return cover, np.clip(facing, 0, 1).astype(np.float32), label
