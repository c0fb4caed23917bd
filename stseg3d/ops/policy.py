"""Numbers of the policies: which components get a box, what the box is like, and what the fine stage does in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stseg3d.geometry import Grid
from stseg3d.ops.components import structure
from stseg3d.ops.fuse import FUSIONS


@dataclass(frozen=True)
class BoxPolicy:
    """Numbers by which components become boxes; a box never grows along an axis of one voxel.

    Args:
        threshold: Minimum foreground probability of the rough mask.
        connectivity: 6, 18 or 26 neighbours.
        bridge_mm: Components with a gap of at most this size, surface to surface, are joined across it, such as a vessel that the rough
            network saw in pieces. Counted as ``bridged``.
        min_volume_mm3: Smaller components are dropped, and counted.
        min_length_mm: Components whose box is shorter than this on its longest axis are dropped, and counted.
        max_components: Number of components kept (per class if ``per_class``), heaviest by summed probability first; None for no limit.
        margin_mm: Context on each side; the largest of the three margins counts.
        margin_fraction: Context on each side, as a fraction of the component's extent.
        margin_rough_voxels: Context on each side, in voxels of the rough grid, which limit the accuracy of its edge.
        keep_aspect: Grow the box (in mm) to the aspect of the fine input, as in the paper; otherwise crops are stretched.
        max_downscale: A box longer than this multiple of the fine input on any axis is split into tiles; no limit by default.
        max_spacing_mm: The same limit in mm: no crop is sampled coarser than this.
        min_downscale: A box grows to at least this multiple of the fine input: at 1 the crop of a small object holds more of its
            surroundings and is not upsampled.
        min_spacing_mm: The same limit in mm: no crop is sampled finer than this.
        tile_overlap: Fraction of a tile that neighbours of a split share.
        per_class: Find components of each foreground class separately, instead of those of all classes together.
        chain: Give the boxes in order along their chain, end to end, instead of component by component.
        merge: Merge overlapping boxes if their union has no more voxels than the two.

    Raises:
        ValueError: If a value is out of range.
    """

    threshold: float = 0.5
    connectivity: int = 26
    bridge_mm: float = 0.0
    min_volume_mm3: float = 0.0
    min_length_mm: float = 0.0
    max_components: int | None = None
    margin_mm: float = 0.0
    margin_fraction: float = 0.1
    margin_rough_voxels: float = 1.0
    keep_aspect: bool = False
    max_downscale: float | None = None
    min_downscale: float | None = None
    max_spacing_mm: float | None = None
    min_spacing_mm: float | None = None
    tile_overlap: float = 0.25
    per_class: bool = False
    chain: bool = False
    merge: bool = True

    def __post_init__(self) -> None:
        ranges = {
            "threshold": (0, 1),
            "tile_overlap": (0, 0.9),
            "max_downscale": (0.1, np.inf),
            "min_downscale": (0.1, np.inf),
            "max_components": (1, np.inf),
        }
        margins = ("margin_mm", "margin_fraction", "margin_rough_voxels")
        limits = ("bridge_mm", "min_volume_mm3", "min_length_mm", "max_spacing_mm", "min_spacing_mm")
        ranges |= dict.fromkeys((*margins, *limits), (0, np.inf))
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                msg = f"{name} must be in [{low}, {high}], got {value}"
                raise ValueError(msg)
        structure(3, self.connectivity)

    def longest_box(self, image: Grid, fine_size: Sequence[int]) -> tuple[int, ...]:
        """Longest box that is not split, in image voxels on each axis; the image's shape if there is no limit."""
        limits = []
        for n, fine, spacing in zip(image.shape, fine_size, image.spacing_mm, strict=True):
            by_factor = fine * self.max_downscale if self.max_downscale else n
            by_spacing = fine * self.max_spacing_mm / spacing if self.max_spacing_mm else n
            limits.append(max(int(min(n, by_factor, by_spacing)), 1))
        return tuple(limits)


@dataclass(frozen=True)
class FinePolicy:
    """Settings of the fine stage.

    Args:
        batch_size: Crops in one batch, fewer on the CPU if they are large; if memory runs out, half as many for the rest of the case.
        fusion: Where crops overlap: ``"mean"``, ``"max"`` or ``"or"``.
        border_growth: Where the fine mask touches an inner face of its box, the box grows there by this fraction of its extent and
            is run again; 0 turns this off.
        only_proposed: Keep only the parts of a crop's mask that touch the component the box was made for; a neighbour at the edge
            belongs to another box.

    Raises:
        ValueError: If ``batch_size`` or ``border_growth`` is out of range, or ``fusion`` is unknown.
    """

    batch_size: int = 4
    fusion: str = "mean"
    border_growth: float = 0.25
    only_proposed: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1 or not 0 <= self.border_growth <= 1:
            msg = f"batch_size must be at least 1 and border_growth in [0, 1], got {self.batch_size} and {self.border_growth}"
            raise ValueError(msg)
        if self.fusion not in FUSIONS:
            msg = f"fusion must be one of {FUSIONS}, got {self.fusion!r}"
            raise ValueError(msg)
