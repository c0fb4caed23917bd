"""The order of boxes along a vessel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import depth_first_order, minimum_spanning_tree, shortest_path
from scipy.spatial.distance import cdist

# More boxes than this come from noise, and the memory of their tree grows with the square of their number.
LONGEST_CHAIN = 1000


def chain_order(centres_mm: NDArray[np.float64]) -> list[int]:
    """Order of boxes from one end of their chain to the other, with branches where they leave it.

    The chain is the minimum spanning tree of the centres; its ends are the two that lie farthest apart along it, and it begins at the
    one with the higher last coordinate: the head end of a volume whose last axis points up.

    Args:
        centres_mm: Centres of the boxes, ``(N, D)``.

    Returns:
        Indices ``0 .. N - 1``, reordered; unchanged for more than :data:`LONGEST_CHAIN` boxes.
    """
    if len(centres_mm) > LONGEST_CHAIN:
        return list(range(len(centres_mm)))
    if len(centres_mm) < 3:
        return sorted(range(len(centres_mm)), key=lambda n: -float(centres_mm[n, -1]))
    # No distance of 0: a sparse graph takes it for no connection.
    tree = minimum_spanning_tree(cdist(centres_mm, centres_mm) + 1e-6)
    # The box farthest from any box is one end, and the box farthest from that end is the other.
    one = int(np.argmax(shortest_path(tree, directed=False, indices=0)))
    other = int(np.argmax(shortest_path(tree, directed=False, indices=one)))
    first = max((one, other), key=lambda n: float(centres_mm[n, -1]))
    order, _ = depth_first_order(tree, first, directed=False)
    return [int(n) for n in order]
