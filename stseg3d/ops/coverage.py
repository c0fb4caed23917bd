"""How much of the objects lies inside boxes: what no box holds, no fine network can find."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.geometry import Box
from stseg3d.ops.resample import slabs


def box_coverage(label: NDArray[Any], boxes: Sequence[Box]) -> float:
    """Share of the labelled voxels that lie in at least one box.

    Args:
        label: Label map, of shape ``S``; every value above 0 is labelled.
        boxes: Boxes on the same grid, on as many axes; they may overlap, and reach over the edge.

    Returns:
        Share in ``[0, 1]``; 1 where nothing is labelled, for then nothing is missed.

    Example:
        >>> box_coverage(np.array([0, 1, 1, 2, 2]), [Box((2,), (4,)), Box((3,), (4,))])
        0.5
    """
    labelled = covered = 0
    for part, inside in _slabs(label, boxes):
        labelled += int(np.count_nonzero(part > 0))
        covered += int(np.count_nonzero(part[inside] > 0))
    return covered / labelled if labelled else 1.0


def object_coverage(ids: NDArray[Any], boxes: Sequence[Box]) -> dict[int, float]:
    """Share of each object's voxels that lie in at least one box.

    Args:
        ids: Integer map of objects, of shape ``S``; every value above 0 is one object (or class).
        boxes: As for :func:`box_coverage`.

    Returns:
        Share in ``[0, 1]`` by id, in order of id; empty where there is no object.

    Example:
        >>> object_coverage(np.array([0, 1, 1, 2, 2]), [Box((2,), (5,))])
        {1: 0.5, 2: 1.0}
    """
    labelled: Counter[int] = Counter()
    covered: Counter[int] = Counter()
    for part, inside in _slabs(ids, boxes):
        labelled.update(_voxels(part))
        covered.update(_voxels(part[inside]))
    return {own: covered[own] / voxels for own, voxels in sorted(labelled.items())}


def _slabs(label: NDArray[Any], boxes: Sequence[Box]) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
    """The label slab by slab, each with a mask of the boxes' union: no mask of the whole volume is made."""
    for slab in slabs(label.shape):
        inside = np.zeros(slab.shape, dtype=bool)
        for box in boxes:
            inside[box.relative_to(slab).clip(slab.shape).slices] = True
        yield label[slab.slices], inside


def _voxels(ids: NDArray[Any]) -> dict[int, int]:
    own, counts = np.unique(ids[ids > 0], return_counts=True)
    return dict(zip(own.tolist(), counts.tolist(), strict=True))
