"""Extent-aligned resampling: area where an axis shrinks (anti-aliased), linear where it grows.

All resampling in the package uses one small linear operator per axis, so that whole images, streamed images, regions and the way back
share one convention: the outer faces of the first and last voxel stay where they are. (Mixing conventions shifts a mask by a fraction
of a rough voxel; MONAI's ``Resize`` with ``mode="area"`` pools over whole voxels, so its cells overlap.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.geometry import Box, tiling
from stseg3d.machine.threads import map_in_threads
from stseg3d.volumes import CanonicalVolume, Volume, read_each
from stseg3d.volumes.volume import box_inside

Float = NDArray[np.float32]
# A slab: its place in the box, and its voxels. A part: the cells it contributes to, its sums, and the number of non-finite voxels.
Slab = tuple[Box, NDArray[Any]]
Part = tuple[tuple[slice, ...], NDArray[np.float64], int]
# Voxels of one streamed slab: 16 MB as float32, whatever the size of the volume.
SLAB_VOXELS = 4 << 20
# Rows multiplied at once, and multiplications in one product: fewer than OpenBLAS would share among threads, which would be slower
# (interface/gemm.c: SMP_THRESHOLD_MIN * GEMM_MULTITHREAD_THRESHOLD). Timed with tests/benchmarks/bench_resample.py.
BAND_ROWS, MAX_PRODUCT = 32, 1 << 18
# float32 holds all whole numbers up to this one.
MAX_EXACT_INTEGER = 1 << 24


@lru_cache(maxsize=256)
def _axis_weights(size: int, to: int) -> NDArray[np.int64]:
    """Integer weights of an axis operator, of shape ``(to, size)``; all rows have the same sum."""
    cell, voxel = np.arange(to)[:, None], np.arange(size)
    if size == to:
        return np.eye(size, dtype=np.int64)
    if to < size:  # in parts of a voxel, ``to`` of which make one, as ``size`` of them make a cell
        weights = np.minimum((cell + 1) * size, (voxel + 1) * to) - np.maximum(cell * size, voxel * to)
    else:  # in parts of a voxel, ``2 * to`` of which make one
        centres = np.clip((2 * cell + 1) * size - to, 0, 2 * to * (size - 1))
        weights = 2 * to - np.abs(centres - 2 * to * voxel)
    shared: NDArray[np.int64] = np.clip(weights, 0, None)
    return shared


@lru_cache(maxsize=256)
def axis_operator(size: int, to: int) -> Float:
    """Matrix of shape ``(to, size)`` that resamples one axis; its rows sum to 1.

    A shrinking axis averages the voxels under each cell, by the length they share with it. A growing axis interpolates linearly
    between voxel centres and repeats the last value beyond them.
    """
    weights = _axis_weights(size, to)
    rows: Float = (weights / weights[0].sum()).astype(np.float32)
    return rows


def as_float32(array: NDArray[Any]) -> Float:
    """Array as float32; torch converts float16, faster than numpy."""
    if array.dtype != np.float16:
        return array.astype(np.float32, copy=False)
    import torch

    widened: Float = torch.from_numpy(array).to(torch.float32).numpy()
    return widened


def as_float16(array: NDArray[Any]) -> NDArray[np.float16]:
    """Array as float16; torch converts float32, faster than numpy."""
    if array.dtype != np.float32:
        return array.astype(np.float16, copy=False)
    import torch

    narrowed: NDArray[np.float16] = torch.from_numpy(array).to(torch.float16).numpy()
    return narrowed


def _apply(array: NDArray[Any], matrix: Float, axis: int) -> Float:
    moved: Float = np.moveaxis(as_float32(array), axis, -1)
    return np.moveaxis(moved @ matrix.T, -1, axis)


def resample(array: NDArray[Any], shape: Sequence[int], mode: str = "linear") -> NDArray[Any]:
    """Image with another number of voxels over the same extent.

    Args:
        array: Image of shape ``(C, *S)``, of any real type.
        shape: Target shape, one entry per axis.
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
    # The axis that shrinks most goes first, which leaves less work for the others.
    changed = [a for a, n in enumerate(shape) if n != array.shape[a + 1]]
    for axis in sorted(changed, key=lambda a: shape[a] / array.shape[a + 1]):
        array = _apply(array, axis_operator(array.shape[axis + 1], int(shape[axis])), axis + 1)
    return np.ascontiguousarray(array, dtype=np.float32)


def resample_region(array: NDArray[Any], box: Box, region: Box) -> Float:
    """Part ``region`` of ``array`` after resampling to the voxels of ``box``.

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
        # Decided for the whole axis: rows cut from an operator may happen to be square.
        out = out[(slice(None),) * (axis + 1) + (span,)] if n == to else _apply(out, axis_operator(n, to)[span], axis + 1)
    return np.ascontiguousarray(out, dtype=np.float32)


def slabs(shape: Sequence[int], channels: int = 1) -> Iterator[Box]:
    """Slabs of about :data:`SLAB_VOXELS` voxels, see :func:`stseg3d.geometry.slabs`."""
    return tiling.slabs(shape, SLAB_VOXELS, channels)


def count_not_finite(array: NDArray[Any]) -> int:
    """Number of voxels that are NaN or infinite."""
    return array.size - int(np.count_nonzero(np.isfinite(array))) if array.dtype.kind == "f" else 0


def resample_volume(volume: Volume, shape: Sequence[int], box: Box | None = None) -> tuple[Float, int]:
    """Volume, or a box of it, on a small grid of the same extent; large ones are read slab by slab.

    Up to :data:`SLAB_VOXELS` voxels are read at once and passed to :func:`resample`. Larger volumes are summed in the order of the file:
    integers exactly, so that the order of axes and bytes does not matter; real numbers in float64, so that another order very rarely
    changes the last bit of a float32. Several slabs are processed at once if torch has several threads.

    Args:
        volume: Volume of ``C`` channels.
        shape: Target shape, one entry per axis.
        box: Part of the volume, in its voxels; by default all of it.

    Returns:
        Image of shape ``(C, *shape)``, equal to ``resample(volume.read(box), shape)`` up to float rounding, and the number of voxels
        that were NaN or infinite (0 for integer volumes); such voxels make the result NaN or infinite.

    Raises:
        ValueError: If the box is not inside the volume, or ``shape`` has another number of axes.
    """
    box = volume.grid.box if box is None else box
    if len(shape) != volume.grid.ndim:
        msg = f"{volume.name}: shape must have {volume.grid.ndim} axes, got {tuple(shape)}"
        raise ValueError(msg)
    if volume.channels * box.voxels <= SLAB_VOXELS:
        # Contiguous first: the same numbers in the same order, however the file stores its axes.
        crop = np.ascontiguousarray(volume.read(box))
        with np.errstate(invalid="ignore"):  # infinity times a weight of 0 is NaN
            return resample(crop, shape), count_not_finite(crop)
    if not isinstance(volume, CanonicalVolume):
        return _streamed(volume, tuple(shape), box_inside(volume.grid, box, volume.name))
    # Along the file's own axes; only the small result is transposed and flipped.
    own = tuple(shape[volume.order.index(axis)] for axis in range(len(shape)))
    found, bad = resample_volume(volume.volume, own, volume.source_box(box_inside(volume.grid, box, volume.name)))
    return np.ascontiguousarray(volume.view(found)), bad


def _streamed(volume: Volume, shape: tuple[int, ...], box: Box) -> tuple[Float, int]:
    weights = [_axis_weights(n, to) for n, to in zip(box.shape, shape, strict=True)]
    total = np.zeros((volume.channels, *shape))
    bad = 0
    read = read_each(volume, (slab.shift(box.start) for slab in slabs(box.shape, volume.channels)))
    inside = ((slab.relative_to(box), voxels) for slab, voxels in read)
    for cells, part, own in map_in_threads(partial(_slab_sums, weights), inside):
        total[(slice(None), *cells)] += part
        bad += own
    return (total / prod(int(w[0].sum()) for w in weights)).astype(np.float32), bad


def _slab_sums(weights: Sequence[NDArray[np.int64]], slab: Slab) -> Part:
    """Cells that a slab contributes to, its weighted sums, and the number of its non-finite voxels."""
    box, voxels = slab
    columns = [w[:, span] for w, span in zip(weights, box.slices, strict=True)]
    cells = tuple(_span(w) for w in columns)
    with np.errstate(invalid="ignore"):  # infinity times a weight of 0 is NaN
        part = _sums(voxels, [w[span] for w, span in zip(columns, cells, strict=True)])
    return cells, part, 0 if np.isfinite(part).all() else count_not_finite(voxels)


def _span(weights: NDArray[np.int64]) -> slice:
    """Slice from the first to the last row that is not all zeros."""
    rows = np.flatnonzero(weights.any(axis=1))
    return slice(int(rows[0]), int(rows[-1]) + 1)


def _sums(array: NDArray[Any], weights: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """``array``, of shape ``(C, *S)``, times the weights of each axis."""
    axes = range(1, array.ndim)
    # Along memory: first axis fastest as in most files, or last.
    if array.strides[1] < array.strides[-1]:
        axes = axes[::-1]
    out: NDArray[Any] = np.ascontiguousarray(array.transpose(0, *axes))
    # The last axis, along which slabs are cut, goes first; but axes that grow after those that shrink.
    for axis in sorted(range(array.ndim - 1, 0, -1), key=lambda a: len(weights[a - 1]) >= weights[a - 1].shape[1]):
        at = axes.index(axis) + 1
        before, after = out.shape[:at], out.shape[at + 1 :]
        rows = out.reshape(prod(before), out.shape[at], prod(after))
        out = _row_sums(rows, weights[axis - 1]).reshape(*before, -1, *after)
    return out.astype(np.float64, copy=False).transpose(0, *(axes.index(axis) + 1 for axis in range(1, out.ndim)))


def _row_sums(array: NDArray[Any], weights: NDArray[np.int64]) -> NDArray[Any]:
    """``weights @ array`` for arrays ``(n, m)``, piece by piece: weights are zero except near the diagonal."""
    matrix = weights.astype(_exact_type(array, weights))
    lead, size, columns = array.shape
    out = np.zeros((lead, len(matrix), columns), matrix.dtype)
    for band in _pieces(size, BAND_ROWS):
        rows = _span(weights[:, band])
        own = matrix[rows, band]
        for piece in _pieces(lead if columns == 1 else columns, max(MAX_PRODUCT // own.size, 1)):
            if columns == 1:
                out[piece, rows, 0] += array[piece, band, 0].astype(matrix.dtype, copy=False) @ own.T
            else:
                out[:, rows, piece] += own @ array[:, band, piece].astype(matrix.dtype, copy=False)
    return out


def _pieces(size: int, most: int) -> list[slice]:
    return [slice(start, start + most) for start in range(0, size, most)]


def _exact_type(array: NDArray[Any], weights: NDArray[np.int64]) -> type[np.floating[Any]]:
    """float32 where it holds every sum of these integers, else float64."""
    if array.dtype.kind == "f":
        return np.float64
    most = max(-int(array.min()), int(array.max())) * int(weights.sum(axis=1).max())
    return np.float32 if most <= MAX_EXACT_INTEGER else np.float64
