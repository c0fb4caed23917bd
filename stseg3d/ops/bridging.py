"""Gaps between the pieces of one long object, bridged before it gets its boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from stseg3d.ops.components import structure

Mask = NDArray[np.bool_]
Points = NDArray[np.intp]

# Noise falls into thousands of pieces, and each pair of them would be looked at: only the largest may be parts of one object.
MOST_PIECES = 256


def bridged(mask: Mask, spacing_mm: Sequence[float], bridge_mm: float, connectivity: int = 26) -> tuple[Mask, int]:
    """A mask whose components are joined by straight lines where little is between them.

    Pieces are joined shortest gap first and never twice, as in a minimum spanning tree: a chain stays a chain. Of more than
    :data:`MOST_PIECES` pieces only the largest are joined.

    Args:
        mask: Mask of shape ``S``.
        spacing_mm: Size of a voxel.
        bridge_mm: Longest gap, from the surface of one piece to that of the other; 0 for none.
        connectivity: 6, 18 or 26; lines are 26-connected and thickened until they connect so.

    Returns:
        The mask with the lines (``mask`` itself where there is nothing to join), and the number of gaps that were bridged.
    """
    if not bridge_mm:
        return mask, 0
    element = structure(mask.ndim, connectivity)
    ids, count = ndimage.label(mask, element)
    if count < 2:
        return mask, 0
    largest = np.argsort(-np.bincount(ids.ravel())[1:], kind="stable")[:MOST_PIECES] + 1
    surface = np.argwhere(np.isin(ids, largest) & ~ndimage.binary_erosion(mask))
    owner = ids[tuple(surface.T)]
    pieces = [surface[owner == n] for n in largest]
    out, group, bridges = mask.copy(), np.arange(len(pieces)), 0
    for _, a, b, start, stop in sorted(_gaps(pieces, np.asarray(spacing_mm, dtype=float), bridge_mm), key=lambda gap: gap[0]):
        if group[a] != group[b]:
            group[group == group[b]] = group[a]
            out |= _line(start, stop, mask.shape, element)
            bridges += 1
    return out, bridges


def _gaps(pieces: list[Points], spacing_mm: NDArray[np.float64], bridge_mm: float) -> list[tuple[float, int, int, Points, Points]]:
    """Length and ends of each gap that is short enough: the nearest voxels of two pieces."""
    trees = [KDTree(piece * spacing_mm) for piece in pieces]
    gaps = []
    for a, tree in enumerate(trees):
        for b in range(a + 1, len(trees)):
            # Between the centres of the voxels at both ends lie the gap and half a voxel of each piece.
            distance, nearest = tree.query(trees[b].data, distance_upper_bound=bridge_mm + spacing_mm.max() + 1e-6)
            best = int(np.argmin(distance))
            if np.isfinite(distance[best]):
                gaps.append((float(distance[best]), a, b, pieces[a][nearest[best]], pieces[b][best]))
    return gaps


def _line(start: Points, stop: Points, shape: Sequence[int], element: Mask) -> Mask:
    line = np.zeros(shape, dtype=bool)
    steps = int(np.abs(stop - start).max())
    line[tuple(np.rint(np.linspace(start, stop, steps + 1)).astype(int).T)] = True
    return line if element.all() else ndimage.binary_dilation(line, np.ones((3,) * line.ndim, dtype=bool))
