"""Sizes of the two networks' inputs and the box policy, from how large objects are and how they lie."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from stseg3d.planning.architecture import rounded_size
from stseg3d.planning.fingerprint import Fingerprint, median_of
from stseg3d.planning.task_kind import TaskKind

CELLS = 4.0  # rough voxels along an object: enough to find it, and to see its shape
GAP_CELLS = 1.5  # rough voxels between two objects that must stay apart
MIN_SHRINK = 2.0  # two stages do not pay where the rough copy shrinks less (Benčević et al. 2023, tables 1-3)
LARGE_SHARE = 0.5  # of the volume inside the boxes: then the fine network may as well see all of it
ROUGH_VOXELS = {2: 192 * 192, 3: 64 * 64 * 64}  # at most, so that a step on two CPU cores takes less than a second
FINE_VOXELS = {2: 96 * 96, 3: 56 * 56 * 56}
WHOLE_VOXELS = {2: 128 * 128, 3: 64 * 64 * 64}  # a volume of no more is seen as a whole by one network
MIN_FINE = 32  # voxels along an axis that is that long
VARYING = 1.5  # ratio of the largest and smallest field of view from which the rough grid is given by its spacing
DOWNSCALE = 1.5  # a crop of a box of this many fine inputs loses little
LARGER = 2.0  # a volume that many times as long as the typical one is not squeezed into one input
SHRINK_BACK = 8.0  # a tile may be this much coarser than the volume, if its objects are large enough


@dataclass(frozen=True)
class Sizes:
    """Sizes of both inputs.

    Attributes:
        rough: Size of the rough input, None for one stage.
        rough_spacing_mm: Spacing of the rough grid, None where its size is fixed.
        cell_mm: Length of a rough voxel along each axis.
        fine: Size of the fine input.
        fine_spacing_mm: Spacing of the fine input's voxels, in the typical case.
        max_downscale: Longest box in fine inputs.
        min_downscale: Shortest box in fine inputs, None where small objects are brought to the size of the input.
        reasons: Reason of each of the former, by its name.
        whole: Whether the fine network sees a typical volume at once.
    """

    rough: tuple[int, ...] | None
    rough_spacing_mm: float | None
    cell_mm: tuple[float, ...]
    fine: tuple[int, ...]
    fine_spacing_mm: tuple[float, ...]
    max_downscale: float | None
    min_downscale: float | None
    reasons: dict[str, str]
    whole: bool = False


def sizes_for(fingerprint: Fingerprint, kind: TaskKind, *, stages: int | None = None) -> Sizes:
    """Sizes of the inputs for a data set.

    Args:
        fingerprint: Facts of the data set.
        kind: Kind of the task.
        stages: 1 or 2, if it is known.
    """
    shape, spacing = (median_of([getattr(case, name) for case in fingerprint.cases]) for name in ("shape", "spacing_mm"))
    cell = _cell_mm(fingerprint, kind, spacing)
    reasons = {"cell": f"a typical small object is {CELLS:g} rough voxels long"}
    alone = _one_stage(fingerprint, shape, spacing, cell)
    if stages == 1 or (stages is None and alone):
        return _whole(fingerprint, shape, spacing, reasons | {"stages": alone or "given"})
    extents = np.array([case.extent_mm for case in fingerprint.cases])
    long = shape > 1
    varying = bool((extents.max(axis=0)[long] > VARYING * extents.min(axis=0)[long]).any()) and not fingerprint.pictures
    rough, cell, by_mm = _rough(extents, cell, spacing, long=long, varying=varying)
    reasons["rough"] = f"voxels of {_shown(cell)} mm"
    reasons["rough"] += (
        f"; fields of view differ by more than {VARYING:g} times: by spacing" if by_mm else "; fields of view are alike: by size"
    )
    reasons["stages"] = "given" if stages == 2 else f"objects lie in {_box_share(fingerprint, cell):.0%} of the volume, in boxes"
    fine, most, least, why = _fine(fingerprint, kind, cell, shape, spacing)
    size = np.array(fine)
    scale = most if most and most > 1 else 1.0
    return Sizes(rough, by_mm, tuple(cell), fine, tuple(spacing * min(scale, DOWNSCALE) * (size > 0)), most, least, reasons | why)


def _cell_mm(fingerprint: Fingerprint, kind: TaskKind, spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """Length of a rough voxel along each axis, at least twice that of the volume's own."""
    extents = fingerprint.extents_mm(together=not kind.instances)
    small = np.percentile(extents, 25, axis=0) if len(extents) else 16 * spacing
    cell: NDArray[np.float64] = small / CELLS
    gaps = fingerprint.gaps_mm()
    if kind.instances and len(gaps):
        along = "RAS".index({"L": "R", "P": "A", "I": "S"}.get(kind.number_from or "", kind.number_from or "R"))
        apart = float(np.percentile(gaps, 25)) / GAP_CELLS
        if kind.number_from:
            cell[along] = min(cell[along], apart)
    return np.maximum(cell, spacing)


def _one_stage(fingerprint: Fingerprint, shape: NDArray[np.float64], spacing: NDArray[np.float64], cell: NDArray[np.float64]) -> str:
    """Reason why two stages cannot pay; empty if they can."""
    long = shape > 1
    if prod(shape) <= WHOLE_VOXELS[fingerprint.ndim]:
        return f"a volume has {prod(shape):.0f} voxels: one network sees all of it at once"
    share = _box_share(fingerprint, cell)
    if share > LARGE_SHARE:
        return f"boxes around the objects hold {share:.0%} of the volume"
    shrink = float((np.maximum(cell, MIN_SHRINK * spacing * (shape > 64)) / spacing)[long].max())
    return f"the rough copy would shrink less than {MIN_SHRINK:g} times" if shrink < MIN_SHRINK else ""


def _box_share(fingerprint: Fingerprint, cell: NDArray[np.float64]) -> float:
    """Median share of a volume in boxes around its objects, with a rough voxel on each side; overlaps count once, roughly."""
    shares = []
    for case in fingerprint.cases:
        found, extent = case.together, case.extent_mm
        if found is None:
            continue
        boxes = np.minimum(np.array(found.extents_mm) + 2 * np.minimum(cell, extent / 8), extent)
        shares.append(1 - np.prod(1 - np.minimum(boxes.prod(axis=1) / extent.prod(), 1)))
    return float(np.median(shares)) if shares else 0.0


def _rough(
    extents: NDArray[np.float64], cell: NDArray[np.float64], spacing: NDArray[np.float64], *, long: NDArray[np.bool_], varying: bool
) -> tuple[tuple[int, ...], NDArray[np.float64], float | None]:
    """Size of the rough input, the length of its voxels, and its spacing if it is given by that."""
    ndim = int(long.sum())
    extent = extents.max(axis=0) if varying else np.median(extents, axis=0)
    cell = np.where(long, np.maximum(cell, np.where(extent / spacing > 64, MIN_SHRINK * spacing, spacing)), spacing)
    if varying:
        cell = np.where(long, max(float(np.exp(np.log(cell[long]).mean())), MIN_SHRINK * float(spacing[long].min())), cell)
    voxels = prod((extent / cell)[long])
    if voxels > ROUGH_VOXELS[min(ndim, 3)]:
        cell = np.where(long, cell * (voxels / ROUGH_VOXELS[min(ndim, 3)]) ** (1 / ndim), cell)
    size = np.where(long, np.maximum(extent / cell, 8), 1)
    if varying:
        mm = float(f"{cell[long].max():.2g}")
        rounded = tuple(int(-(-n // 16) * 16) if n > 1 else 1 for n in extent / mm * long)
        return rounded, np.where(long, mm, spacing), mm
    fitted = rounded_size(size, extent / size)
    return fitted, np.where(long, extent / np.array(fitted), spacing), None


def _fine(
    fingerprint: Fingerprint, kind: TaskKind, cell: NDArray[np.float64], shape: NDArray[np.float64], spacing: NDArray[np.float64]
) -> tuple[tuple[int, ...], float | None, float | None, dict[str, str]]:
    """Size of the fine input, longest and shortest box in fine inputs, and their reasons."""
    ndim, long = fingerprint.ndim, shape > 1
    extents = fingerprint.extents_mm(together=not kind.number_from)
    boxes = (extents + 2 * np.maximum(cell, 0.1 * extents)) / spacing
    boxes = np.minimum(np.maximum(boxes, 1), shape)
    large, median = (np.percentile(boxes, q, axis=0) for q in (90, 50))
    wanted = np.where(long, np.minimum(np.maximum(large, MIN_FINE), np.maximum(shape, 8)), 1)
    shrink = max((prod(wanted) / FINE_VOXELS[ndim]) ** (1 / ndim), 1.0)
    fine = rounded_size(np.where(long, np.maximum(wanted / shrink, 8), 1), spacing * shrink)
    reasons = {"fine": f"a box is {_shown(median)} voxels, and 90 % are within {_shown(large)}"}
    uneven = float((large / np.maximum(np.percentile(boxes, 10, axis=0), 1))[long].max())
    most = DOWNSCALE if uneven < 2 else 2.0
    reasons["max_downscale"] = f"longer boxes are tiled, so that no crop shrinks more than {most:g} times"
    least = None if uneven < 2 and (median >= np.array(fine) / 2)[long].all() else 1.0
    reasons["min_downscale"] = "objects vary in size: small ones are seen at full resolution, not larger" if least else "objects are alike"
    return fine, most, least, reasons


def _whole(fingerprint: Fingerprint, shape: NDArray[np.float64], spacing: NDArray[np.float64], reasons: dict[str, str]) -> Sizes:
    """One stage: the whole volume if it is small, else tiles of it."""
    ndim, long = fingerprint.ndim, shape > 1
    if prod(shape) <= WHOLE_VOXELS[ndim]:
        upper = np.percentile([case.shape for case in fingerprint.cases], 75, axis=0)
        fine = rounded_size(np.where(long, np.maximum(upper, 8), 1), spacing)
        why = {"fine": "the typical volume", "max_downscale": f"a volume more than {LARGER:g} times as long is seen in tiles"}
        return Sizes(None, None, tuple(spacing), fine, tuple(spacing), LARGER, None, reasons | why, whole=True)
    extents = fingerprint.extents_mm()
    small = np.percentile(extents, 10, axis=0) if len(extents) else 8 * spacing
    # The smallest objects keep eight voxels along each axis, and no tile is longer than the volume.
    most = float(np.clip((small / spacing)[long].min() / 8, 1.0, SHRINK_BACK))
    tile = np.minimum(np.where(long, FINE_VOXELS[ndim] ** (1 / ndim), 1), np.maximum(shape / most, 8))
    fine = rounded_size(np.where(long, tile, 1), spacing * most)
    reasons |= {
        "fine": f"tiles, {most:.2g} times coarser than the volume",
        "max_downscale": "small objects keep eight voxels along an axis",
    }
    return Sizes(None, None, tuple(spacing), fine, tuple(spacing * most), float(f"{most:.2g}"), None, reasons)


def _shown(values: NDArray[np.float64]) -> str:
    return " x ".join(f"{v:.3g}" for v in values)
