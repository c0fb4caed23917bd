"""Variants of a body: size, posture and smooth elastic deformation of a label map, and vessels that widen and narrow."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from stseg3d.geometry import Box, Grid
from stseg3d.synthesis.fields import Field, Mask, smooth_field

# Elastic change: distance between knots and standard deviation, in mm. The second is organs against each other, the first the posture.
ELASTIC_MM = ((90.0, 7.0), (35.0, 2.2))
ROTATION_DEGREES = 7.0
# Bodies of children and of large adults, from those of adults; then each axis by itself.
SIZE, STRETCH = (0.78, 1.18), 0.08
MAX_WIDENING_MM = 14.0


def deformed(
    labels: NDArray[np.uint8], grid: Grid, rng: np.random.Generator, *, vessel: int | None = None, keep: Collection[int] = ()
) -> tuple[NDArray[np.uint8], Grid]:
    """A label map of another body.

    Args:
        labels: Classes ``(X, Y, Z)``.
        grid: Their grid.
        rng: Source of the change.
        vessel: Class that is widened and narrowed along its course too: aneurysms, and the narrow aorta of the young.
        keep: Classes that the vessel does not grow into.

    Returns:
        Classes of the same shape, and their grid: a larger body has larger voxels.
    """
    size = rng.uniform(*SIZE) * rng.uniform(1 - STRETCH, 1 + STRETCH, 3)
    affine = grid.affine.copy()
    affine[:3, :3] *= size
    moved = _moved(labels, grid.spacing_mm, rng)
    if vessel is not None:
        _resize_vessel(moved, tuple(float(mm * s) for mm, s in zip(grid.spacing_mm, size, strict=True)), rng, vessel, keep)
    return moved, Grid(grid.shape, affine)


def _moved(labels: NDArray[np.uint8], spacing_mm: Sequence[float], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Labels turned and bent; beyond the border they continue as at it."""
    shape = labels.shape
    turn = Rotation.from_euler("xyz", rng.uniform(-1, 1, 3) * ROTATION_DEGREES, degrees=True).as_matrix()
    at = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * np.float32(mm) for n, mm in zip(shape, spacing_mm, strict=True)]
    x, y, z = (axis.reshape([-1 if a == k else 1 for k in range(3)]) for a, axis in enumerate(at))
    source = np.empty((3, *shape), dtype=np.float32)
    for a in range(3):
        row = turn[a].astype(np.float32)
        source[a] = row[0] * x + row[1] * y + row[2] * z
        for scale_mm, sigma_mm in ELASTIC_MM:
            source[a] += np.float32(sigma_mm) * smooth_field(rng, shape, spacing_mm, scale_mm)
        source[a] = source[a] / np.float32(spacing_mm[a]) + np.float32((shape[a] - 1) / 2)
    moved: NDArray[np.uint8] = ndimage.map_coordinates(labels, source, order=0, mode="nearest")
    return moved


def _resize_vessel(
    labels: NDArray[np.uint8], spacing_mm: Sequence[float], rng: np.random.Generator, vessel: int, keep: Collection[int]
) -> None:
    """Move the vessel's wall in place: by a little everywhere, by much at some places of some bodies."""
    found = ndimage.find_objects((labels == vessel).astype(np.uint8))
    if not found:
        return
    room = [int(np.ceil((MAX_WIDENING_MM + 2) / mm)) for mm in spacing_mm]
    box = Box.from_slices(found[0]).grow(room).clip(labels.shape)
    part = labels[box.slices]
    inside = part == vessel
    distance = _signed_distance_mm(inside, spacing_mm)
    growth = rng.uniform(-1.2, 1.8) + np.float32(rng.uniform(0, 1.2)) * smooth_field(rng, part.shape, spacing_mm, 40.0)
    if rng.uniform() < 0.35:
        growth = growth + _bulge(rng, inside, spacing_mm)
    grown = distance < np.minimum(growth, MAX_WIDENING_MM)
    part[inside & ~grown] = 0
    part[grown & ~np.isin(part, list(keep))] = vessel


def _signed_distance_mm(inside: Mask, spacing_mm: Sequence[float]) -> Field:
    """Distance from the surface, negative inside; smooth, so that a surface drawn anew has no stairs."""
    outside, within = (ndimage.distance_transform_edt(mask, sampling=spacing_mm) for mask in (~inside, inside))
    distance: Field = ndimage.gaussian_filter((outside - within).astype(np.float32), 1.2)
    return distance


def _bulge(rng: np.random.Generator, inside: Mask, spacing_mm: Sequence[float]) -> Field:
    """An aneurysm: how far the wall moves, highest at some place of the vessel."""
    places = np.argwhere(inside)
    centre = places[rng.integers(len(places))]
    away = [((np.arange(n) - c) * mm) ** 2 for n, c, mm in zip(inside.shape, centre, spacing_mm, strict=True)]
    squared = away[0][:, None, None] + away[1][None, :, None] + away[2][None, None, :]
    height: Field = (rng.uniform(3, MAX_WIDENING_MM) * np.exp(-squared / (2 * rng.uniform(14, 34) ** 2))).astype(np.float32)
    return height
