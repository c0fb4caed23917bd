"""Hounsfield units for tissues: a CT that is made where it is read."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stseg3d.geometry import Box, Grid
from stseg3d.training.synthesis.anatomy import OUTSIDE, Anatomy
from stseg3d.training.synthesis.fields import Field
from stseg3d.training.synthesis.painting import Canvas, paint
from stseg3d.training.synthesis.scan import Scan
from stseg3d.volumes.volume import Array, box_inside

# What is read beyond a box, so that blur knows its surroundings.
HALO_MM = 4.0
LOWEST_HU, HIGHEST_HU = -3024.0, 3071.0


@dataclass(frozen=True, eq=False)
class SyntheticCT:
    """A scan of an anatomy, as a volume of one channel: float32, HU.

    Two boxes agree in what the body is, not in noise and texture where they overlap: each is a look of its own.

    Args:
        anatomy: Tissues.
        scan: How they look.
    """

    anatomy: Anatomy
    scan: Scan

    @property
    def grid(self) -> Grid:
        """Grid of the anatomy."""
        return self.anatomy.grid

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """Type of the voxels."""
        return np.dtype(np.float32)

    @property
    def channels(self) -> int:
        """One."""
        return 1

    @property
    def name(self) -> str:
        """Where the anatomy comes from."""
        return self.anatomy.name

    def read(self, box: Box | None = None) -> Array:
        """HU in ``box``."""
        box = box_inside(self.grid, box, self.name)
        around = box.grow([int(np.ceil(HALO_MM / mm)) for mm in self.grid.spacing_mm]).clip(self.grid.shape)
        rng = np.random.default_rng([self.scan.seed, crc32(np.array([*box.start, *box.stop]).tobytes())])
        canvas = Canvas(self.anatomy.cut(around), self.scan, rng)
        paint(canvas)
        image = _scanned(canvas)
        if self.scan.circle:
            image[_beyond_circle(self.grid, around)] = self.scan.floor_hu
        return image[box.relative_to(around).slices][None]


def _beyond_circle(grid: Grid, box: Box) -> NDArray[np.bool_]:
    """Columns of a box outside the largest circle that fits into a slice."""
    away = [
        (np.arange(*span) + 0.5 - n / 2) * mm
        for span, n, mm in zip(zip(box.start, box.stop, strict=True), grid.shape, grid.spacing_mm, strict=True)
    ]
    radius = min(n * mm for n, mm in zip(grid.shape[:2], grid.spacing_mm, strict=False)) / 2
    beyond: NDArray[np.bool_] = away[0][:, None] ** 2 + away[1][None, :] ** 2 > radius**2
    return beyond


def _scanned(canvas: Canvas) -> Field:
    """The image as a scanner shows it: blurred, in slices, noisy, and blind outside its circle."""
    scan, rng, spacing_mm = canvas.scan, canvas.rng, canvas.spacing_mm
    along = max(scan.slice_mm / 3, scan.sharpness_mm * 0.7)
    sigma = [mm / s for mm, s in zip((scan.sharpness_mm, scan.sharpness_mm, along), spacing_mm, strict=True)]
    image: Field = ndimage.gaussian_filter(canvas.image, sigma, truncate=2.5)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    if scan.grain_mm:
        grain = [mm / s for mm, s in zip((scan.grain_mm, scan.grain_mm, 0.4 * scan.grain_mm), spacing_mm, strict=True)]
        noise = ndimage.gaussian_filter(noise, grain, truncate=2)
        noise /= max(float(noise.std()), 1e-6)
    # Few photons are lost in lung and air, and so is their noise.
    image += np.float32(scan.noise_hu) * noise * np.clip((image + 1000) / 900, 0.15, 1)
    image += np.float32(scan.shading_hu) * canvas.field(120.0)
    image[canvas.ids == OUTSIDE] = np.maximum(image[canvas.ids == OUTSIDE], -1024) if scan.floor_hu >= -1024 else np.float32(scan.floor_hu)
    return np.clip(image, LOWEST_HU, HIGHEST_HU, out=image)
