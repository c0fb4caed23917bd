"""Instances: one id per object, in a given order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stseg3d.geometry import Box
from stseg3d.ops.components import structure


def split_instances(
    mask: NDArray[np.bool_],
    seeds: NDArray[Any] | None,
    *,
    connectivity: int = 26,
    min_voxels: int = 1,
    spacing_mm: Sequence[float] | None = None,
) -> tuple[NDArray[np.int32], int]:
    """Objects of a mask: its connected components, those with several seeds divided among the seeds.

    Fine masks of neighbours often touch although the rough stage separated them; its components are the seeds. Components smaller than
    ``min_voxels`` belong to the nearest object, if there is one.

    Args:
        mask: Mask of shape ``S``.
        seeds: Ids of shape ``S`` (0 = none), or None: then components are the objects.
        connectivity: 6, 18 or 26.
        min_voxels: Minimum size of an object.
        spacing_mm: Spacing of the voxels, for distances; 1 mm by default.

    Returns:
        Ids of shape ``S``, ``1 .. n`` inside the mask, and ``n``; an empty mask gives zeros and 0.
    """
    element = structure(mask.ndim, connectivity)
    ids, count = ndimage.label(mask, element)
    if not count:
        return ids, 0
    out = np.zeros_like(ids)
    objects = 0
    for i, where in enumerate(ndimage.find_objects(ids), start=1):
        own = ids[where] == i
        if np.count_nonzero(own) < min_voxels:
            continue
        parts, n = _divide(own, seeds[where], min_voxels, spacing_mm) if seeds is not None else (own.astype(np.int32), 1)
        out[where][own] = parts[own] + objects
        objects += n
    if not objects:
        return ids, count
    return _adopt(out, mask, spacing_mm), objects


def split_at_necks(mask: NDArray[np.bool_], depth_mm: float, spacing_mm: Sequence[float]) -> tuple[NDArray[np.int32], int]:
    """Objects of a mask, those that touch divided at their necks: a watershed of the distance from the edge.

    Args:
        mask: Mask of shape ``S``; axes of one voxel do not count.
        depth_mm: Two parts are separate objects if the neck between them is at least this much nearer to the edge than the innermost
            voxel of either.
        spacing_mm: Spacing of each axis of ``S``.

    Returns:
        Ids of shape ``S``, ``1 .. n`` inside the mask, and ``n``; an empty mask gives zeros and 0.
    """
    import SimpleITK

    if not mask.any():
        return np.zeros(mask.shape, np.int32), 0
    long_axes = [axis for axis, n in enumerate(mask.shape) if n > 1] or [0]
    flat = mask.reshape([mask.shape[axis] for axis in long_axes])
    padded = np.pad(flat, 1)  # the image's edge counts as an edge: as good on real nuclei, and fewer of those at it are cut
    depth = ndimage.distance_transform_edt(padded, sampling=[spacing_mm[axis] for axis in long_axes]).astype(np.float32)
    if depth.ndim == 1:
        ids, _ = ndimage.label(padded)
    else:
        relief = np.where(padded, -depth, np.float32(2 * depth_mm))  # background so high that no object drains across it
        basins = SimpleITK.MorphologicalWatershed(
            SimpleITK.GetImageFromArray(relief), depth_mm, markWatershedLine=False, fullyConnected=True
        )
        ids = SimpleITK.GetArrayFromImage(basins) * padded
    inner = ids[(slice(1, -1),) * ids.ndim]
    names, dense = np.unique(inner, return_inverse=True)  # the background is a basin, too
    return dense.reshape(mask.shape).astype(np.int32) + (0 if 0 in names else 1), int(np.count_nonzero(names))


def _divide(
    mask: NDArray[np.bool_], seeds: NDArray[Any], min_voxels: int, spacing_mm: Sequence[float] | None
) -> tuple[NDArray[np.int32], int]:
    """One component divided by nearest seed; shares that are too small go to other seeds."""
    inside = np.where(mask, seeds, 0)
    names = np.unique(inside[inside > 0])
    while len(names) > 1:
        nearest = _nearest(np.isin(inside, names), spacing_mm)
        shares = np.searchsorted(names, inside[tuple(nearest)]) + 1
        sizes = np.bincount(shares[mask], minlength=len(names) + 1)[1:]
        if sizes.min() >= min_voxels:
            return np.where(mask, shares, 0).astype(np.int32), len(names)
        names = np.delete(names, int(sizes.argmin()))
    return mask.astype(np.int32), 1


def _adopt(ids: NDArray[np.int32], mask: NDArray[np.bool_], spacing_mm: Sequence[float] | None) -> NDArray[np.int32]:
    """Ids in which voxels of the mask without an id get that of the nearest voxel with one."""
    orphans = mask & (ids == 0)
    if orphans.any():
        nearest = _nearest(ids > 0, spacing_mm)
        ids[orphans] = ids[tuple(index[orphans] for index in nearest)]
    return ids


def _nearest(targets: NDArray[np.bool_], spacing_mm: Sequence[float] | None) -> NDArray[np.int32]:
    """Index of the nearest target of each voxel, of shape ``(ndim, *S)``."""
    index: NDArray[np.int32] = ndimage.distance_transform_edt(~targets, sampling=spacing_mm, return_distances=False, return_indices=True)
    return index


def order_instances(ids: NDArray[np.int32], count: int, axis: int, *, descending: bool = False) -> NDArray[np.int32]:
    """Objects ``1 .. count`` renumbered by the position of their centre along an axis, the lowest first unless ``descending``."""
    if not count:
        return ids
    # Object by object: scipy's center_of_mass takes 17 bytes per voxel of the whole array.
    centres = np.array([_centre(ids[where] == i, axis, where[axis].start) for i, where in enumerate(ndimage.find_objects(ids), start=1)])
    rank = np.empty(count + 1, dtype=np.int32)
    rank[0] = 0
    rank[1 + np.argsort(-centres if descending else centres, kind="stable")] = np.arange(1, count + 1)
    return rank[ids]


def _centre(mask: NDArray[np.bool_], axis: int, start: int) -> float:
    planes = np.count_nonzero(mask, axis=tuple(a for a in range(mask.ndim) if a != axis))
    return float(planes @ (start + np.arange(len(planes))) / planes.sum())


def seeds_on(box: Box, ids: NDArray[np.int32], shape: Sequence[int], size: Sequence[int] | None = None) -> NDArray[np.int32]:
    """Rough component ids under the voxels of a box of the image.

    Args:
        box: Box of the image, inside it.
        ids: Component ids on the rough grid, of the same extent as the image.
        shape: The image's shape.
        size: Number of samples along each axis; by default the box's voxels.

    Returns:
        Ids of shape ``size``, each from the rough voxel that holds the sample's centre.
    """
    index = []
    for a, n, whole, rough, samples in zip(box.start, box.shape, shape, ids.shape, size or box.shape, strict=True):
        centres = a + (np.arange(samples) + 0.5) * n / samples
        index.append(np.minimum((centres * rough / whole).astype(int), rough - 1))
    return ids[np.ix_(*index)]
