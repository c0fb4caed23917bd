"""A body as a map of its tissues: the classes of a label map, and the unlabelled tissue between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from stseg3d.geometry import Box, Grid
from stseg3d.machine.json_files import read_json
from stseg3d.ops.resample import resample
from stseg3d.synthesis.fields import Field, Mask
from stseg3d.volumes import ArrayVolume

# Ids of what a label map leaves out, above its classes.
TABLE, OUTSIDE, INNER, MEDIASTINUM = 252, 253, 254, 255

# The table that a patient lies on: so far behind the lowest of the back, and so thick.
TABLE_MM = (4.0, 10.0)

# The surface of a body lies about so far outside what is labelled, and closes gaps up to twice the reach.
COVER_MM, REACH_MM = 22.0, 48.0
# Vessels that nobody labelled, the pulmonary artery first, run this near to the heart and the aorta, where lung is near too.
NEAR_HEART_MM, NEAR_LUNG_MM = 32.0, 45.0
ENVELOPE_MM = 4.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Anatomy(ArrayVolume):
    """Tissue ids as a volume of one channel, axes along the world's (RAS); :class:`SyntheticCT` gives them intensities.

    Args:
        depth_mm: Distance from the surface of the body, uint8 ``(X, Y, Z)``, 0 outside, at most 255.
        names: Name of each class that may occur.
        target: Class to segment, if any; a scan never hides it or confuses it with another.
    """

    depth_mm: NDArray[np.uint8]
    names: Mapping[int, str]
    target: int | None = None

    @property
    def ids(self) -> NDArray[np.uint8]:
        """Classes of the label map and ids of this module, ``(X, Y, Z)``."""
        ids: NDArray[np.uint8] = self.array[0]
        return ids

    def cut(self, box: Box) -> Anatomy:
        """The part in a box, as if the scanner had reconstructed no more."""
        return replace(self, array=self.array[(slice(None), *box.slices)], depth_mm=self.depth_mm[box.slices], grid=self.grid.crop(box))


def class_names(path: Path) -> dict[int, str]:
    """Name of each class of a label map, from a JSON with names by value."""
    return {int(k): str(name) for k, name in read_json(path.read_bytes(), f"{path}: file").items()}


def build_anatomy(
    labels: NDArray[np.uint8], grid: Grid, names: Mapping[int, str], name: str = "anatomy", target: int | None = None
) -> Anatomy:
    """A body around a label map: a surface, a wall and an inside; and a table below it, where the image reaches so far.

    Args:
        labels: Classes ``(X, Y, Z)``, 0 where nothing is labelled; values below 252.
        grid: Their grid, axes along the world's (RAS).
        names: Name of each class.
        name: What messages call it.
        target: Class that is to be segmented, if any.

    Returns:
        The anatomy. A label map of zeros gives a body that fills it.

    Raises:
        ValueError: If a class has no name.
    """
    found = set(np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist()) - {0}
    if found - set(names):
        msg = f"{name}: each class must have a name, got none for {sorted(found - set(names))}"
        raise ValueError(msg)
    coarse = grid.resized(tuple(max(round(n * mm / ENVELOPE_MM), 1) for n, mm in zip(grid.shape, grid.spacing_mm, strict=True)))
    near = _near_heart(labels, names, coarse).astype(np.float32)
    # Fractional voxels of the coarse grid: a surface without stairs.
    depth = resample(_depth_mm(resample(labels[None] > 0, coarse.shape)[0] > 0.05, coarse)[None], grid.shape)[0]
    ids = np.where(labels > 0, labels, np.where(depth > 0, np.uint8(INNER), np.uint8(OUTSIDE)))
    ids[(ids == INNER) & (resample(near[None], grid.shape)[0] > 0.5)] = MEDIASTINUM
    _lay_on_table(ids, grid)
    return Anatomy(array=ids[None], grid=grid, name=name, depth_mm=np.clip(depth, 0, 255).astype(np.uint8), names=names, target=target)


def _lay_on_table(ids: NDArray[np.uint8], grid: Grid) -> None:
    body = np.flatnonzero((ids != OUTSIDE).any(axis=(0, 2)))
    if not len(body):
        return
    behind, thick = (round(mm / grid.spacing_mm[1]) for mm in TABLE_MM)
    rows = slice(max(int(body[0]) - behind - max(thick, 1), 0), max(int(body[0]) - behind, 0))
    ids[:, rows][ids[:, rows] == OUTSIDE] = TABLE


def _depth_mm(labelled: Mask, grid: Grid) -> Field:
    """Depth under the surface of a body that holds what is labelled; negative outside."""
    if not labelled.any():
        return np.full(grid.shape, 255, dtype=np.float32)
    # What is cut by the border of the image goes on beyond it.
    pad = [(round(REACH_MM / mm),) * 2 for mm in grid.spacing_mm]
    away = ndimage.distance_transform_edt(~np.pad(labelled, pad, mode="edge"), sampling=grid.spacing_mm)
    reach = REACH_MM + COVER_MM
    inside = ndimage.distance_transform_edt(away <= reach, sampling=grid.spacing_mm) - REACH_MM
    core = tuple(slice(a, -b or None) for a, b in pad)
    depth: Field = ndimage.gaussian_filter(inside[core].astype(np.float32), 1.5)
    return depth


def _near_heart(labels: NDArray[np.uint8], names: Mapping[int, str], coarse: Grid) -> Mask:
    """Where great vessels run that label maps leave out, on the coarse grid."""
    near = np.ones(coarse.shape, dtype=bool)
    for words, mm in ((("heart", "aorta"), NEAR_HEART_MM), (("lung",), NEAR_LUNG_MM), (("heart",), 3 * NEAR_HEART_MM)):
        members = [k for k, name in names.items() if any(word in name for word in words)]
        mask = resample(np.isin(labels, members)[None], coarse.shape)[0] > 0.3
        if not mask.any():
            return np.zeros(coarse.shape, dtype=bool)
        near &= ndimage.distance_transform_edt(~mask, sampling=coarse.spacing_mm) < mm
    return near


def random_box(rng: np.random.Generator, shape: Sequence[int], least: ArrayLike) -> Box:
    """A box in an image of ``shape``; on each axis with a random place, and a random length of at least that part of the whole."""
    part = rng.uniform(np.asarray(least, dtype=float), 1.0)
    length = np.maximum(np.round(part * shape), 1).astype(int)
    start = [int(rng.integers(n - m + 1)) for n, m in zip(shape, length, strict=True)]
    return Box(tuple(start), tuple(int(a + m) for a, m in zip(start, length, strict=True)))
