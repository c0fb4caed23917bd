"""Tilings of a box by overlapping boxes, the product of one chain of intervals per axis; and slabs, which do not overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import ceil, prod

from stseg3d.geometry.box import Box


def cover_axis(start: int, stop: int, length: int, overlap: float = 0.0) -> list[tuple[int, int]]:
    """Fewest equal intervals that cover ``start..stop``, evenly spaced, none longer than ``length``.

    Args:
        start: First voxel.
        stop: One past the last voxel.
        length: Longest interval, in voxels, at least 1.
        overlap: Least fraction of ``length`` that neighbours share, in ``[0, 1)``.

    Returns:
        Half-open intervals in order; none where ``stop <= start``.

    Raises:
        ValueError: If ``length`` or ``overlap`` is out of range.

    Example:
        >>> cover_axis(0, 10, 4)
        [(0, 4), (3, 7), (6, 10)]
    """
    if length < 1 or not 0 <= overlap < 1:
        msg = f"length must be at least 1 and overlap in [0, 1), got length={length} overlap={overlap}"
        raise ValueError(msg)
    extent = stop - start
    if extent <= 0:
        return []
    if extent <= length:
        return [(start, stop)]
    step = max(int(length * (1 - overlap)), 1)
    n = ceil((extent - length) / step) + 1
    starts = [start + round(i * (extent - length) / (n - 1)) for i in range(n)]
    return [(a, a + length) for a in starts]


def tiles(box: Box, shape: Sequence[int], overlap: float = 0.0) -> list[Box]:
    """Overlapping tiles that cover ``box``, none larger than ``shape``, which share at least a fraction ``overlap`` in ``[0, 1)``.

    Returns:
        Tiles in row-major order, all inside ``box``; none for an empty box.
    """
    axes = zip(box.start, box.stop, shape, strict=True)
    chains = [cover_axis(a, b, n, overlap) for a, b, n in axes]
    return [Box(tuple(a for a, _ in spans), tuple(b for _, b in spans)) for spans in product(*chains)]


def slabs(shape: Sequence[int], voxels: int, channels: int = 1) -> Iterator[Box]:
    """Boxes of about this many voxels that cut a volume along the last axis longer than 1, the slowest in most files."""
    axis = max((a for a, n in enumerate(shape) if n > 1), default=0)
    thick = max(voxels * shape[axis] // (channels * prod(shape)), 1)
    for low in range(0, shape[axis], thick):
        start, stop = [0] * len(shape), list(shape)
        start[axis], stop[axis] = low, min(low + thick, shape[axis])
        yield Box(tuple(start), tuple(stop))
