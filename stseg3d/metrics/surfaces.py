"""How far the surfaces of a prediction and its label lie apart, in mm; for empty masks see :mod:`stseg3d.metrics`.

The surface of a mask is its voxels that share a face with a voxel outside; everything beyond the image is outside. Distances are
measured between voxel centres, to the nearest voxel of the other surface, and every surface voxel counts the same. This is MONAI's
definition, so values compare with published ones. Where voxels are much longer along one axis, they stand for unequal areas of surface;
only a reconstruction of the surface would mend that (Nikolov et al. 2021, J Med Internet Res 23:e26151), and values would then depend on
the reconstruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
# Above this number of surface voxels, as in masks of a network that learned nothing, a tree would take minutes
# (tests/benchmarks/bench_metrics.py): a distance transform is used.
MAX_TREE_VOXELS = 2_000_000


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceDistances:
    """Distance of each surface voxel to the other surface, in mm."""

    from_prediction: NDArray[np.float64]  # from the prediction's surface voxels to the label's surface; empty if the prediction is
    from_label: NDArray[np.float64]  # from the label's surface voxels to the prediction's surface; empty if the label is
    worst_mm: float  # distance assumed where only one of the masks is empty: the image's diagonal

    @property
    def convention(self) -> float | None:
        """Value of every distance if a mask is empty: 0 if both are, ``worst_mm`` if one is; None if neither is."""
        empty = (not self.from_prediction.size) + (not self.from_label.size)
        return (None, self.worst_mm, 0.0)[empty]


def surface_distances(prediction: Mask, label: Mask, spacing_mm: Sequence[float]) -> SurfaceDistances:
    """Distances between the surfaces of two masks of one shape.

    Args:
        prediction: Mask of shape ``S``. Axes of one voxel are dropped first, or every voxel of a slice would be surface.
        label: Mask of the same shape.
        spacing_mm: Spacing of each axis of ``S``.

    Raises:
        ValueError: If the shapes differ, or the spacing is not one positive number an axis.
    """
    prediction, label, spacing = drop_flat_axes(prediction, label, spacing_mm)
    worst_mm = diagonal_mm(label.shape, spacing)
    box = tight_slices(prediction | label)
    ours, theirs = find_surface(prediction[box]), find_surface(label[box])
    if not (ours.any() and theirs.any()):
        worst = [np.full(np.count_nonzero(surface), worst_mm) for surface in (ours, theirs)]
        return SurfaceDistances(worst[0], worst[1], worst_mm)
    return SurfaceDistances(_distances(ours, theirs, spacing), _distances(theirs, ours, spacing), worst_mm)


def _distances(surface: Mask, other: Mask, spacing: Sequence[float]) -> NDArray[np.float64]:
    """Distance of each voxel of ``surface`` to the nearest of ``other``, voxels on both first; neither is empty."""
    from scipy.spatial import cKDTree  # takes 0.2 s, which `stseg3d --help` is spared

    alone = surface & ~other
    found = np.zeros(np.count_nonzero(surface))
    count = np.count_nonzero(alone)
    if count > MAX_TREE_VOXELS:
        found[-count:] = distances_to(other, spacing)[alone]
    elif count:
        # A tree of surface voxels, not a distance transform of all voxels: less memory, and 64 bits.
        tree = cKDTree(np.argwhere(other) * np.asarray(spacing), balanced_tree=False)
        found[-count:] = tree.query(np.argwhere(alone) * np.asarray(spacing), workers=-1)[0]
    return found


def distances_to(targets: Mask, spacing_mm: Sequence[float]) -> NDArray[np.floating]:
    """Distance of each voxel to the nearest target, as float32; 0 or less inside ``targets``, which must not be empty."""
    if targets.ndim == 1:
        exact: NDArray[np.float64] = ndimage.distance_transform_edt(~targets, sampling=spacing_mm)
        return exact
    import SimpleITK as sitk  # noqa: N813

    # Needs less than scipy's 20 bytes a voxel, and is no slower (tests/benchmarks/bench_metrics.py).
    image = sitk.GetImageFromArray(targets.view(np.uint8))
    image.SetSpacing(list(spacing_mm)[::-1])
    signed = sitk.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    found: NDArray[np.float32] = sitk.GetArrayFromImage(signed)
    return found


def hausdorff(distances: SurfaceDistances, percentile: float = 95) -> float:
    """Percentile of the distances (linearly interpolated), the larger of the two directions, in mm."""
    if distances.convention is not None:
        return distances.convention
    return float(max(np.percentile(d, percentile) for d in (distances.from_prediction, distances.from_label)))


def average_distance(distances: SurfaceDistances) -> float:
    """Mean distance over the voxels of both surfaces together, in mm."""
    if distances.convention is not None:
        return distances.convention
    return float(np.concatenate([distances.from_prediction, distances.from_label]).mean())


def average_distance_from_prediction(distances: SurfaceDistances) -> float:
    """Mean distance from the prediction's surface to the label's, in mm: large where the prediction has too much."""
    return float(distances.from_prediction.mean()) if distances.convention is None else distances.convention


def average_distance_from_label(distances: SurfaceDistances) -> float:
    """Mean distance from the label's surface to the prediction's, in mm: large where the prediction lacks something."""
    return float(distances.from_label.mean()) if distances.convention is None else distances.convention


def surface_dice(distances: SurfaceDistances, tolerance_mm: float) -> float:
    """Fraction of both surfaces no farther than ``tolerance_mm`` from the other, in ``[0, 1]``."""
    if distances.convention is not None:
        return float(not distances.convention)
    reach = tolerance_mm * (1 + 1e-6)  # three voxels of 0.7 mm count as 2.1 mm despite rounding
    near = [np.count_nonzero(d <= reach) for d in (distances.from_prediction, distances.from_label)]
    return float(sum(near) / (distances.from_prediction.size + distances.from_label.size))


def find_surface(mask: Mask) -> Mask:
    """Voxels of a mask that share a face with a voxel outside; everything beyond the array is outside."""
    inside = mask.copy()
    for axis in range(mask.ndim):
        ours, all_ours = np.moveaxis(inside, axis, 0), np.moveaxis(mask, axis, 0)
        ours[1:] &= all_ours[:-1]
        ours[:-1] &= all_ours[1:]
        ours[:1] = ours[-1:] = False
    return np.logical_xor(mask, inside, out=inside)


def tight_slices(mask: Mask) -> tuple[slice, ...]:
    """Tight box of a mask, as slices; empty for an empty mask."""
    spans = []
    for axis in range(mask.ndim):
        planes = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        spans.append(slice(int(planes[0]), int(planes[-1]) + 1) if planes.size else slice(0, 0))
    return tuple(spans)


def drop_flat_axes(prediction: Mask, label: Mask, spacing_mm: Sequence[float]) -> tuple[Mask, Mask, tuple[float, ...]]:
    """Two masks and their spacing, checked, without axes of one voxel; an image of a single voxel keeps its last axis.

    Raises:
        ValueError: If the shapes differ, or the spacing is not one positive number an axis.
    """
    shape = label.shape
    if prediction.shape != shape:
        msg = f"prediction must have the label's shape {shape}, got {prediction.shape}"
        raise ValueError(msg)
    if len(spacing_mm) != len(shape) or not all(0 < s < float("inf") for s in spacing_mm):
        msg = f"spacing_mm must be {len(shape)} positive numbers for shape {shape}, got {tuple(spacing_mm)}"
        raise ValueError(msg)
    kept = [axis for axis, n in enumerate(shape) if n != 1] or [len(shape) - 1]
    flat = tuple(axis for axis in range(len(shape)) if axis not in kept)
    return prediction.squeeze(flat), label.squeeze(flat), tuple(float(spacing_mm[axis]) for axis in kept)


def diagonal_mm(shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """Length of an image from corner to corner."""
    return sqrt(sum((n * s) ** 2 for n, s in zip(shape, spacing_mm, strict=True)))
