"""Extent-aligned resampling: area where an axis shrinks (anti-aliased), linear where it grows.

Every resampling of the package goes through one small linear operator an axis, so that an image, its streamed copy, a region of it
and the way back all share one convention: the outer faces of the first and last voxel stay where they are. (Mixing conventions
shifts a mask by a fraction of a rough voxel; MONAI's ``Resize`` with ``mode="area"`` pools over whole voxels, so its cells overlap.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.geometry import Box

if TYPE_CHECKING:
    from stseg3d.volumes import Volume

Float = NDArray[np.float32]
# Voxels of one streamed slab: 16 MB as float32, whatever the size of the volume.
SLAB_VOXELS = 4 << 20


@lru_cache(maxsize=256)
def axis_operator(size: int, to: int) -> Float:
    """Matrix of shape ``(to, size)`` that resamples one axis; its rows sum to 1.

    A shrinking axis averages the voxels under each cell, by the length they share with it. A growing axis interpolates linearly
    between voxel centres and holds the last value beyond them.
    """
    if size == to:
        return np.eye(size, dtype=np.float32)
    if to < size:
        cells = np.linspace(0, size, to + 1)
        lower, upper = cells[:-1, None], cells[1:, None]
        voxel = np.arange(size)
        matrix = np.clip(np.minimum(upper, voxel + 1) - np.maximum(lower, voxel), 0, None)
    else:
        centres = np.clip((np.arange(to) + 0.5) * size / to - 0.5, 0, size - 1)
        matrix = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(size)))
    rows: Float = (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)
    return rows


def _apply(array: NDArray[Any], matrix: Float, axis: int) -> Float:
    moved: Float = np.moveaxis(array, axis, -1).astype(np.float32, copy=False)
    return np.moveaxis(moved @ matrix.T, -1, axis)


def resample(array: NDArray[Any], shape: Sequence[int], mode: str = "linear") -> NDArray[Any]:
    """The image on another number of voxels over the same extent.

    Args:
        array: Image of shape ``(C, *S)``, of any real type.
        shape: Wanted space shape, one entry an axis.
        mode: ``"linear"`` (area on axes that shrink) gives float32; ``"nearest"`` keeps values and type (for labels).

    Returns:
        Array of shape ``(C, *shape)``.

    Raises:
        ValueError: If ``mode`` is unknown or ``shape`` has another number of axes.
    """
    if mode not in ("linear", "nearest") or len(shape) != array.ndim - 1:
        msg = f"resample takes mode 'linear' or 'nearest' and {array.ndim - 1} axes, got mode={mode!r} shape={tuple(shape)}"
        raise ValueError(msg)
    if mode == "nearest":
        index = [((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(shape, array.shape[1:], strict=True)]
        picked: NDArray[Any] = array[np.ix_(np.arange(array.shape[0]), *index)]
        return picked
    # The axis that shrinks most goes first: what follows then works on less.
    changed = [a for a, n in enumerate(shape) if n != array.shape[a + 1]]
    for axis in sorted(changed, key=lambda a: shape[a] / array.shape[a + 1]):
        array = _apply(array, axis_operator(array.shape[axis + 1], int(shape[axis])), axis + 1)
    return np.ascontiguousarray(array, dtype=np.float32)


def resample_region(array: NDArray[Any], box: Box, region: Box) -> Float:
    """The part ``region`` of what ``array`` is after resampling to the voxels of ``box``.

    Args:
        array: Crop of shape ``(C, *S)`` that covers ``box``.
        box: Box that the crop covers, in image voxels.
        region: Part of ``box`` that is wanted, in image voxels.

    Returns:
        Float array of shape ``(C, *region.shape)``; equal to ``resample(array, box.shape)`` cut to ``region``.
    """
    inner = region.relative_to(box)
    out: NDArray[Any] = array
    for axis, span in enumerate(inner.slices):
        n, to = array.shape[axis + 1], box.shape[axis]
        # Asked of the whole axis: rows cut from an operator may happen to be square.
        out = out[(slice(None),) * (axis + 1) + (span,)] if n == to else _apply(out, axis_operator(n, to)[span], axis + 1)
    return np.ascontiguousarray(out, dtype=np.float32)


def slabs(shape: Sequence[int], channels: int = 1) -> Iterator[Box]:
    """Boxes that cut a volume into slabs of about :data:`SLAB_VOXELS` voxels along its last axis."""
    *rest, depth = shape
    thick = max(SLAB_VOXELS // (channels * prod(rest)), 1)
    for start in range(0, depth, thick):
        yield Box((*(0,) * len(rest), start), (*rest, min(start + thick, depth)))


def count_not_finite(array: NDArray[Any]) -> int:
    """Number of voxels that are NaN or infinite."""
    return array.size - int(np.count_nonzero(np.isfinite(array))) if array.dtype.kind == "f" else 0


def resample_volume(volume: Volume, shape: Sequence[int]) -> tuple[Float, int]:
    """The whole volume on a small grid of the same extent, read slab by slab.

    Args:
        volume: Volume of ``C`` channels.
        shape: Wanted space shape.

    Returns:
        Image of shape ``(C, *shape)``, equal to ``resample(volume.read(), shape)`` up to float rounding, and the number of voxels
        that were NaN or infinite (0 for integer volumes); such voxels make the result NaN.
    """
    axis = len(shape) - 1
    out = np.zeros((volume.channels, *shape), dtype=np.float32)
    last = axis_operator(volume.grid.shape[axis], int(shape[axis]))
    bad = 0
    for box in slabs(volume.grid.shape, volume.channels):
        slab = np.ascontiguousarray(volume.read(box))
        found = count_not_finite(slab)
        if found:
            slab[~np.isfinite(slab)] = np.nan  # infinity times a weight of 0 is NaN, too, but numpy warns of it
            bad += found
        columns = last[:, box.slices[axis]]
        touched = np.flatnonzero(columns.any(axis=1))
        # Along the slab's own axis first: one slab covers few cells of the small grid.
        part = slab.astype(np.float32, copy=False) @ columns[touched].T
        out[..., touched] += resample(part, (*shape[:-1], len(touched)))
    return out, bad
