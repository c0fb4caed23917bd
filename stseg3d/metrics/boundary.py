"""Boundary IoU (Cheng et al. 2021, CVPR, arXiv:2103.16562): how well two masks agree along their boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np

from stseg3d.metrics.surfaces import Mask, distances_to, find_surface, tight_slices
from stseg3d.metrics.voxels import Confusion, confusion

WIDTH_FRACTION = 0.02  # of the image's diagonal, Cheng et al. 2021, sec. 5
SLAB_VOXELS = 2**24  # of one distance transform: about 200 MiB


def boundary_confusions(prediction: Mask, label: Mask, spacing_mm: Sequence[float], widths_mm: Sequence[float]) -> list[Confusion]:
    """Voxel counts of the boundaries of each width, from one distance transform per mask.

    The boundary of a mask is its voxels no farther than the width from a voxel outside, measured between centres; all beyond the image is
    outside. Voxels with a face towards the outside always belong to it, so it is never thinner than a voxel. (The authors' code erodes by
    squares in two dimensions, which makes boundaries wider along diagonals than their text says.)

    Args:
        prediction: Mask of shape ``S``, its flat axes dropped already.
        label: Mask of the same shape.
        spacing_mm: Spacing of each axis of ``S``.
        widths_mm: Widths of the boundary; the paper's is :data:`WIDTH_FRACTION` of the image's diagonal.

    Raises:
        ValueError: If a width is negative.
    """
    if min(widths_mm) < 0:
        msg = f"the width of a boundary must not be negative, got {min(widths_mm)} mm"
        raise ValueError(msg)
    box = tight_slices(prediction | label)
    masks = [np.pad(mask[box], 1) for mask in (prediction, label)]
    length = len(masks[0])
    # Slab by slab along the first axis, with a margin as wide as the widest boundary.
    reach = ceil(max(widths_mm) / spacing_mm[0]) + 1
    step = max(reach, SLAB_VOXELS // masks[0][0].size - 2 * reach) if masks[0].ndim > 1 else length
    counts = [Confusion(0, 0, 0) for _ in widths_mm]
    for start in range(0, length, step):
        first = max(start - reach, 0)
        core = slice(start - first, start - first + step)
        found = [find_boundaries(mask[first : start + step + reach], spacing_mm, widths_mm) for mask in masks]
        counts = [sum_ + confusion(ours[core], theirs[core]) for sum_, ours, theirs in zip(counts, *found, strict=True)]
    return counts


def find_boundaries(mask: Mask, spacing_mm: Sequence[float], widths_mm: Sequence[float]) -> list[Mask]:
    """Boundaries of a mask, one per width; voxels beyond the array are unknown, so the array needs a margin."""
    surface = find_surface(mask)
    box = tuple(slice(max(span.start - 1, 0), span.stop + 1) for span in tight_slices(mask))
    if not surface.any() or max(widths_mm) < min(spacing_mm):
        return [surface] * len(widths_mm)
    depth = distances_to(~mask[box], spacing_mm)
    found = []
    for width in widths_mm:
        boundary = surface.copy()
        boundary[box] |= mask[box] & (depth <= width * (1 + 1e-5))  # the depth is rounded to 32 bits
        found.append(boundary)
    return found
