"""Sizes of the two networks' inputs and the box policy, from how large objects are and how they lie."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
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

Lengths = NDArray[np.float64]  # one for each axis


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


@dataclass(frozen=True)
class _Typical:
    """What sizes depend on: the kind of the task, and the typical volume and object of the data."""

    fingerprint: Fingerprint
    kind: TaskKind

    @cached_property
    def shape(self) -> Lengths:
        return median_of([case.shape for case in self.fingerprint.cases])

    @cached_property
    def spacing(self) -> Lengths:
        return median_of([case.spacing_mm for case in self.fingerprint.cases])

    @cached_property
    def long(self) -> NDArray[np.bool_]:
        """Axes of more than one voxel."""
        return self.shape > 1

    @cached_property
    def extents(self) -> NDArray[np.float64]:
        """Lengths of each case's volume in mm, ``(cases, axes)``."""
        return np.array([case.extent_mm for case in self.fingerprint.cases])

    @property
    def varying(self) -> bool:
        """Whether fields of view differ much."""
        shortest, longest = (self.extents.min(axis=0)[self.long], self.extents.max(axis=0)[self.long])
        return not self.fingerprint.pictures and bool((longest > VARYING * shortest).any())

    @cached_property
    def small_object(self) -> Lengths:
        """Lower quartile of the objects' lengths in mm."""
        extents = self.fingerprint.extents_mm(together=not self.kind.instances)
        return np.percentile(extents, 25, axis=0) if len(extents) else 16 * self.spacing

    @cached_property
    def cell(self) -> Lengths:
        """Wanted length of a rough voxel in mm: no longer than what an object needs to be found, and no shorter than a voxel."""
        cell: Lengths = self.small_object / CELLS
        gaps = self.fingerprint.gaps_mm()
        if self.kind.number_from and len(gaps):
            along = "LPIRAS".index(self.kind.number_from) % 3
            cell[along] = min(cell[along], float(np.percentile(gaps, 25)) / GAP_CELLS)
        return np.maximum(cell, self.spacing)


def sizes_for(fingerprint: Fingerprint, kind: TaskKind, *, stages: int | None = None) -> Sizes:
    """Sizes of the inputs for a data set.

    Args:
        fingerprint: Facts of the data set.
        kind: Kind of the task.
        stages: 1 or 2, if it is known.
    """
    typical = _Typical(fingerprint, kind)
    alone = _one_stage(typical)
    if stages == 1 or (stages is None and alone):
        return _whole(typical, alone or "given")
    rough, cell, by_mm = _rough(typical)
    share = _box_share(fingerprint, cell)
    reasons = {
        "rough": f"a small object spans {_shown(typical.small_object / cell, 2)} voxels of {_shown(cell, 2)} mm",
        "rough_spacing_mm": f"fields of view differ by more than {VARYING:g} times",
        "stages": "given" if stages == 2 else f"boxes around the objects hold {100 * share:.2g} % of the volume",
    }
    fine, most, least, why = _fine(typical, cell)
    fine_spacing = typical.spacing * min(max(most, 1.0), DOWNSCALE)
    return Sizes(rough, by_mm, tuple(cell), fine, tuple(fine_spacing), most, least, reasons | why)


def _one_stage(typical: _Typical) -> str:
    """Reason why two stages cannot pay; empty if they can."""
    shape, spacing = typical.shape, typical.spacing
    if prod(shape) <= WHOLE_VOXELS[typical.fingerprint.ndim]:
        return f"a volume has {prod(shape):.0f} voxels: one network sees all of it at once"
    share = _box_share(typical.fingerprint, typical.cell)
    if share > LARGE_SHARE:
        return f"boxes around the objects hold {100 * share:.2g} % of the volume"
    shrink = float((np.maximum(typical.cell, MIN_SHRINK * spacing * (shape > 64)) / spacing)[typical.long].max())
    return f"the rough copy would shrink less than {MIN_SHRINK:g} times" if shrink < MIN_SHRINK else ""


def _box_share(fingerprint: Fingerprint, cell: Lengths) -> float:
    """Median share of a volume in boxes around its objects, with a rough voxel on each side; overlaps count once, roughly."""
    shares = []
    for case in fingerprint.cases:
        found, extent = case.together, case.extent_mm
        if found is None:
            continue
        boxes = np.minimum(np.array(found.extents_mm) + 2 * np.minimum(cell, extent / 8), extent)
        outside = np.prod(1 - np.minimum(boxes.prod(axis=1) / extent.prod(), 1))
        shares.append(1 - outside ** (found.count / len(boxes)))  # of many objects only some are listed
    return float(np.median(shares)) if shares else 0.0


def _rough(typical: _Typical) -> tuple[tuple[int, ...], Lengths, float | None]:
    """Size of the rough input, the length of its voxels, and its spacing if it is given by that."""
    long, spacing, varying = typical.long, typical.spacing, typical.varying
    ndim = int(long.sum())
    limit = ROUGH_VOXELS[3 if ndim > 2 else 2]
    extent = typical.extents.max(axis=0) if varying else np.median(typical.extents, axis=0)
    cell = np.where(long, np.maximum(typical.cell, np.where(extent / spacing > 64, MIN_SHRINK * spacing, spacing)), spacing)
    if varying:
        cell = np.where(long, max(float(np.exp(np.log(cell[long]).mean())), MIN_SHRINK * float(spacing[long].min())), cell)
    voxels = prod((extent / cell)[long])
    if voxels > limit:
        cell = np.where(long, cell * (voxels / limit) ** (1 / ndim), cell)
    if varying:
        mm = float(f"{cell[long].max():.2g}")
        rounded = tuple(int(-(-n // 16) * 16) if n > 1 else 1 for n in extent / mm * long)
        return rounded, np.where(long, mm, spacing), mm
    size = np.where(long, np.maximum(extent / cell, 8), 1)
    fitted = rounded_size(size, extent / size)
    return fitted, np.where(long, extent / np.array(fitted), spacing), None


def _fine(typical: _Typical, cell: Lengths) -> tuple[tuple[int, ...], float, float | None, dict[str, str]]:
    """Size of the fine input, longest and shortest box in fine inputs, and their reasons."""
    ndim, long, shape, spacing = typical.fingerprint.ndim, typical.long, typical.shape, typical.spacing
    extents = typical.fingerprint.extents_mm(together=not typical.kind.number_from)
    boxes = (extents + 2 * np.maximum(cell, 0.1 * extents)) / spacing
    boxes = np.minimum(np.maximum(boxes, 1), shape)
    large, median, small = (np.percentile(boxes, q, axis=0) for q in (90, 50, 10))
    wanted = np.where(long, np.minimum(np.maximum(large, MIN_FINE), np.maximum(shape, 8)), 1)
    shrink = max((prod(wanted) / FINE_VOXELS[ndim]) ** (1 / ndim), 1.0)
    fine = rounded_size(np.where(long, np.maximum(wanted / shrink, 8), 1), spacing * shrink)
    uneven = float((large / np.maximum(small, 1))[long].max())
    most = DOWNSCALE if uneven < 2 else 2.0
    least = None if uneven < 2 and (median >= np.array(fine) / 2)[long].all() else 1.0
    return (
        fine,
        most,
        least,
        {
            "fine": f"boxes: half within {_shown(median, 2)} voxels, 90 % within {_shown(large, 2)}",
            "max_downscale": f"longer boxes are tiled, so that no crop shrinks more than {most:g} times",
            "min_downscale": "small objects are seen at full resolution, not enlarged"
            if least
            else "boxes are alike: all fill the fine input",
        },
    )


def _whole(typical: _Typical, why: str) -> Sizes:
    """One stage: the whole volume if it is small, else tiles of it."""
    ndim, long, shape, spacing = typical.fingerprint.ndim, typical.long, typical.shape, typical.spacing
    if prod(shape) <= WHOLE_VOXELS[ndim]:
        upper = np.percentile([case.shape for case in typical.fingerprint.cases], 75, axis=0)
        fine = rounded_size(np.where(long, np.maximum(upper, 8), 1), spacing)
        reasons = {"fine": "the typical volume", "max_downscale": f"a volume more than {LARGER:g} times as long is seen in tiles"}
        return Sizes(None, None, tuple(spacing), fine, tuple(spacing), LARGER, None, {"stages": why, **reasons}, whole=True)
    extents = typical.fingerprint.extents_mm()
    small = np.percentile(extents, 10, axis=0) if len(extents) else 8 * spacing
    # The smallest objects keep eight voxels along each axis, and no tile is longer than the volume.
    most = float(np.clip((small / spacing)[long].min() / 8, 1.0, SHRINK_BACK))
    tile = np.minimum(np.where(long, FINE_VOXELS[ndim] ** (1 / ndim), 1), np.maximum(shape / most, 8))
    fine = rounded_size(np.where(long, tile, 1), spacing * most)
    reasons = {
        "fine": f"tiles, {most:.2g} times coarser than the volume" if most > 1 else "tiles at full resolution",
        "max_downscale": "small objects keep eight voxels along an axis" if most > 1 else "small objects need full resolution",
    }
    return Sizes(None, None, tuple(spacing), fine, tuple(spacing * most), float(f"{most:.2g}"), None, {"stages": why, **reasons})


def _shown(values: Lengths, digits: int) -> str:
    """Numbers along the axes, those of several digits as whole ones."""
    return " x ".join(f"{v:.{digits}g}" if v < 10**digits else f"{v:.0f}" for v in values)
