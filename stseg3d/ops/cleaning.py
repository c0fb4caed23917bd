"""Cleaning of labels: components that a plan's output does not want, such as all but the largest one of a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stseg3d.ops.components import find_components

FOREGROUND = "foreground"  # all classes together


def clean(
    labels: NDArray[Any], classes: Sequence[str], *, largest_only: Sequence[str], least_mm3: Mapping[str, float], voxel_mm3: float
) -> dict[str, int]:
    """Clear unwanted components of a label map, in place: first those of the foreground, then those of each class.

    Components have 26 neighbours, as in nnU-Net (Isensee et al. 2021, Nature Methods 18:203). Of several largest ones all are kept.

    Args:
        labels: Classes ``(*S)``.
        classes: Their names, background first.
        largest_only: Names of classes of which the largest component is kept, or ``"foreground"`` for all classes together.
        least_mm3: Least volume of a component, by the same names.
        voxel_mm3: Volume of a voxel.

    Returns:
        Number of components and of voxels that were cleared, as ``removed_components`` and ``removed_voxels``.
    """
    removed = {"removed_components": 0, "removed_voxels": 0}
    around = dict(zip(classes[1:], class_boxes(labels, len(classes)), strict=True))
    for name in dict.fromkeys((FOREGROUND, *classes[1:])):
        if name not in (*largest_only, *least_mm3):
            continue
        inside = labels if name == FOREGROUND else labels[around[name]]
        ids, found = find_components(inside > 0 if name == FOREGROUND else inside == classes.index(name))
        least = max(least_mm3.get(name, 0.0) / voxel_mm3, found[0].voxels if found and name in largest_only else 0)
        gone = [component for component in found if component.voxels < least]
        if gone:
            unwanted = np.zeros(len(found) + 1, dtype=np.bool_)
            unwanted[[component.id for component in gone]] = True
            inside[unwanted[ids]] = 0
        removed["removed_components"] += len(gone)
        removed["removed_voxels"] += sum(component.voxels for component in gone)
    return removed


def class_boxes(labels: NDArray[Any], kinds: int) -> list[tuple[slice, ...]]:
    """Slices around each class above 0 of a label map, empty ones where there is none.

    Args:
        labels: Classes ``(*S)``.
        kinds: Number of classes, including background.
    """
    nothing = (slice(0, 0),) * labels.ndim
    found = ndimage.find_objects(labels, max_label=kinds - 1) if kinds > 1 else []
    return [slices or nothing for slices in found]
