"""Connected components of a mask and their sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stseg3d.geometry import Box

# Neighbours of a voxel in three dimensions -> how many axes may differ by one (scipy's rank of a structuring element).
CONNECTIVITIES = {6: 1, 18: 2, 26: 3}


@dataclass(frozen=True)
class Component:
    """One connected component of a mask."""

    id: int  # its value in the array of component ids, from 1
    box: Box  # tight box, on the mask's grid
    voxels: int  # number of voxels
    weight: float  # sum of the probabilities inside; equal to `voxels` for a plain mask


def structure(ndim: int, connectivity: int) -> NDArray[np.bool_]:
    """Structuring element of ``connectivity`` (6, 18 or 26 neighbours, as counted in three dimensions) on ``ndim`` axes.

    Raises:
        ValueError: If ``connectivity`` is not one of these.
    """
    if connectivity not in CONNECTIVITIES:
        msg = f"connectivity must be one of {sorted(CONNECTIVITIES)}, got {connectivity}"
        raise ValueError(msg)
    element: NDArray[np.bool_] = ndimage.generate_binary_structure(ndim, min(CONNECTIVITIES[connectivity], ndim))
    return element


def find_components(
    mask: NDArray[np.bool_], connectivity: int = 26, weights: NDArray[Any] | None = None
) -> tuple[NDArray[np.int32], list[Component]]:
    """Components of ``mask``, the heaviest first.

    Args:
        mask: Mask of shape ``S``.
        connectivity: 6, 18 or 26.
        weights: Probabilities of shape ``S``; by default every voxel weighs 1.

    Returns:
        Array of ids (0 outside), and the components sorted by weight, an empty list if there are none.
    """
    ids, count = ndimage.label(mask, structure(mask.ndim, connectivity))
    if not count:
        return ids, []
    voxels = np.bincount(ids.ravel(), minlength=count + 1)
    # Without weights the voxels are counted; numpy would take 8 bytes per voxel to sum a mask.
    weight = voxels if weights is None or weights.dtype == bool else np.bincount(ids.ravel(), weights=weights.ravel(), minlength=count + 1)
    boxes = ndimage.find_objects(ids)
    found = [Component(i, Box.from_slices(boxes[i - 1]), int(voxels[i]), float(weight[i])) for i in range(1, count + 1)]
    return ids, sorted(found, key=lambda c: (-c.weight, c.id))
