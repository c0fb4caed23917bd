"""Where a crop's mask is cut off by its box."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stseg3d.geometry import Box, edges, overlapping
from stseg3d.ops.fuse import FineCrop


def faces_of(box: Box) -> list[tuple[int, int]]:
    """Faces of a box: axis, and 0 for the lower or 1 for the upper one."""
    return [(axis, side) for axis in range(box.ndim) for side in (0, 1)]


def touched_faces(crop: FineCrop, shape: Sequence[int], boxes: NDArray[np.int64]) -> set[tuple[int, int]]:
    """Inner faces of a crop's box, not those of the image, at which its mask is cut off.

    A cut inside another one of the boxes near by, given by :func:`stseg3d.geometry.edges`, does not count, as that box holds the rest of
    the object.

    Returns:
        Pairs of axis and side, 0 for the lower and 1 for the upper face.
    """
    mask = crop.probabilities[0] < crop.probabilities[1:].max(axis=0)
    near = boxes[..., overlapping(crop.box, boxes)]
    near = near[..., (near != edges([crop.box])).any(axis=(0, 1))]
    touched = set()
    for axis, side in faces_of(crop.box):
        at = (crop.box.start, crop.box.stop)[side][axis]
        if at == (0, shape[axis])[side] or mask.shape[axis] == 1:
            continue
        plane = np.argwhere(np.take(mask, -1 if side else 0, axis=axis))
        if not len(plane):
            continue
        patch = _patch(crop, plane, axis, side)
        low, high = edges([patch])
        if not ((near[0] <= low) & (high <= near[1])).all(axis=0).any():
            touched.add((axis, side))
    return touched


def _patch(crop: FineCrop, plane: NDArray[np.int64], axis: int, side: int) -> Box:
    """Box of image voxels, two thick across the face, around the place where a mask touches it."""
    low, high = np.insert(plane.min(axis=0), axis, 0), np.insert(plane.max(axis=0) + 1, axis, 0)
    scale = np.array(crop.box.shape) / crop.probabilities.shape[1:]
    start = np.array(crop.box.start) + np.floor(low * scale)
    stop = np.array(crop.box.start) + np.ceil(high * scale)
    face = (crop.box.start, crop.box.stop)[side][axis]
    start[axis], stop[axis] = face - 1, face + 1
    return Box(tuple(start.astype(int)), tuple(stop.astype(int)))
