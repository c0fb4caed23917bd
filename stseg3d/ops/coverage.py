"""How much of the objects lies inside boxes: the fine network cannot find what is outside all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.geometry import Box
from stseg3d.ops.resample import slabs


def box_coverage(label: NDArray[Any], boxes: Sequence[Box]) -> float:
    """Share of the labelled voxels that lie in at least one box.

    Args:
        label: Label map, of shape ``S``; every value above 0 is labelled.
        boxes: Boxes on the same grid, on as many axes; they may overlap and reach beyond the edge.

    Returns:
        Share in ``[0, 1]``; 1 if nothing is labelled, since nothing is missed.

    Example:
        >>> box_coverage(np.array([0, 1, 1, 2, 2]), [Box((2,), (4,)), Box((3,), (4,))])
        0.5
    """
    labelled = covered = 0
    for slab in slabs(label.shape):  # no mask of the whole volume is made
        inside = np.zeros(slab.shape, dtype=bool)
        for box in boxes:
            inside[box.relative_to(slab).clip(slab.shape).slices] = True
        labels = label[slab.slices] > 0
        labelled += int(np.count_nonzero(labels))
        covered += int(np.count_nonzero(labels & inside))
    return covered / labelled if labelled else 1.0
