"""Gaps between the pieces of one long object, bridged before it gets its boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree

from stseg3d.ops.components import structure

Mask = NDArray[np.bool_]


def bridged(mask: Mask, spacing_mm: Sequence[float], bridge_mm: float, connectivity: int = 26) -> tuple[Mask, int]:
    """Mask with straight lines that join components across short gaps.

    Pieces are joined along the minimum spanning tree of their gaps: a chain stays a chain.

    Args:
        mask: Mask of shape ``S``.
        spacing_mm: Size of a voxel.
        bridge_mm: Longest gap, from the surface of one piece to that of the other; 0 for none.
        connectivity: 6, 18 or 26; for 6 and 18 the lines, which are 26-connected, are thickened.

    Returns:
        Mask with the lines (``mask`` itself if there is nothing to join), and the number of bridged gaps.
    """
    if not bridge_mm:
        return mask, 0
    element = structure(mask.ndim, connectivity)
    ids, count = ndimage.label(mask, element)
    if count < 2:
        return mask, 0
    pairs, ends = _gaps(mask, ids, np.asarray(spacing_mm, dtype=float), bridge_mm)
    lines = np.zeros_like(mask)
    for start, stop in ends[_tree(pairs, ends, np.asarray(spacing_mm, dtype=float), count)]:
        steps = int(np.abs(stop - start).max())
        lines[tuple(np.rint(np.linspace(start, stop, steps + 1)).astype(int).T)] = True
    if not element.all():
        lines = ndimage.binary_dilation(lines, np.ones((3,) * mask.ndim, dtype=bool))
    out = mask | lines
    return out, count - int(ndimage.label(out, element)[1])


def _gaps(
    mask: Mask, ids: NDArray[np.int32], spacing_mm: NDArray[np.float64], bridge_mm: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Gaps that are short enough, each at its narrowest place: ids of both pieces ``(N, 2)``, voxels at both ends ``(N, 2, D)``.

    Two pieces have a gap between them if the voxels nearest to one border on those nearest to the other.
    """
    nearest = ndimage.distance_transform_edt(~mask, sampling=spacing_mm, return_distances=False, return_indices=True)
    owner = ids[tuple(nearest)]
    ends = []
    for axis in range(mask.ndim):
        low, high = (tuple(slice(*span) if a == axis else slice(None) for a in range(mask.ndim)) for span in ((None, -1), (1, None)))
        border = owner[low] != owner[high]
        ends.append(np.stack([nearest[(slice(None), *side)][:, border].T for side in (low, high)], axis=1))
    found = np.concatenate(ends).astype(np.intp)
    length = _length_mm(found, spacing_mm)
    # Between the centres of the voxels at both ends lie the gap and half a voxel of each piece.
    found = found[length <= bridge_mm + spacing_mm.max() + 1e-6]
    pairs = np.sort(ids[tuple(np.moveaxis(found, -1, 0))], axis=1).astype(np.intp)
    order = np.lexsort((_length_mm(found, spacing_mm), pairs[:, 1], pairs[:, 0]))
    _, first = np.unique(pairs[order], axis=0, return_index=True)
    return pairs[order][first], found[order][first]


def _tree(pairs: NDArray[np.intp], ends: NDArray[np.intp], spacing_mm: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Indices of the gaps to bridge."""
    graph = coo_array((_length_mm(ends, spacing_mm), tuple(pairs.T - 1)), shape=(count, count)).tocsr()
    tree = minimum_spanning_tree(graph).tocoo()
    chosen = np.isin(pairs[:, 0] * (count + 1) + pairs[:, 1], (tree.row + 1) * (count + 1) + tree.col + 1)
    return np.flatnonzero(chosen)


def _length_mm(ends: NDArray[np.intp], spacing_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    length: NDArray[np.float64] = np.linalg.norm((ends[:, 0] - ends[:, 1]) * spacing_mm, axis=1)
    return length
