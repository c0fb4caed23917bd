"""Which of many boxes overlap one: a single comparison of arrays, fast for thousands of boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stseg3d.geometry.box import Box


def edges(boxes: Sequence[Box]) -> NDArray[np.int64]:
    """Starts and stops of ``N`` boxes on ``D`` axes, of shape ``(2, D, N)``; without boxes ``D`` is 0."""
    found = np.array([(box.start, box.stop) for box in boxes], dtype=np.int64)
    return np.ascontiguousarray(np.moveaxis(found.reshape(len(boxes), 2, -1 if boxes else 0), 0, -1))


def overlapping(box: Box, others: NDArray[np.int64]) -> NDArray[np.intp]:
    """Indices of the boxes that share at least one voxel with ``box``, in ascending order.

    Args:
        box: Box on ``D`` axes.
        others: :func:`edges` of the other boxes, ``(2, D, N)``.

    Returns:
        Indices into ``0 .. N - 1``.

    Example:
        >>> overlapping(Box((0,), (4,)), edges([Box((3,), (5,)), Box((4,), (6,)), Box((0,), (1,))])).tolist()
        [0, 2]
    """
    low, high = edges([box])
    return np.flatnonzero((np.maximum(others[0], low) < np.minimum(others[1], high)).all(axis=0))
