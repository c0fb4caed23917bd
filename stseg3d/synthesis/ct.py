"""A CT of a label map, synthesised when a box of it is read."""

from __future__ import annotations

from zlib import crc32

import numpy as np

from stseg3d.geometry import Box
from stseg3d.synthesis.label_maps import OUTSIDE, Anatomy
from stseg3d.synthesis.painting import Canvas, paint
from stseg3d.synthesis.scanner import Scan, beyond_circle, scanned
from stseg3d.volumes.volume import Array, box_inside

# Margin read around a box, for the blur.
HALO_MM = 4.0


class SyntheticCT:
    """A scan of the tissues of an anatomy, as a volume of one channel: float32, HU.

    Where two boxes overlap, they show the same body with different noise and texture.
    """

    dtype, channels = np.dtype(np.float32), 1

    def __init__(self, anatomy: Anatomy, scan: Scan) -> None:
        self.anatomy, self.scan = anatomy, scan
        self.grid, self.name = anatomy.grid, anatomy.name

    def read(self, box: Box | None = None) -> Array:
        """HU in ``box``, ``(1, *box.shape)``."""
        box = box_inside(self.grid, box, self.name)
        around = box.grow([int(np.ceil(HALO_MM / mm)) for mm in self.grid.spacing_mm]).clip(self.grid.shape)
        rng = np.random.default_rng([self.scan.seed, crc32(np.array([*box.start, *box.stop]).tobytes())])
        canvas = Canvas(self.anatomy.cut(around), self.scan, rng)
        paint(canvas)
        image = scanned(canvas.image, canvas.ids == OUTSIDE, self.scan, self.grid.spacing_mm, rng)
        if self.scan.circle:
            image[beyond_circle(self.grid, around)] = self.scan.floor_hu
        return image[box.relative_to(around).slices][None]
