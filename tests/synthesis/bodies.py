"""A small made-up label map: a spine, lungs, a heart, a liver and an aorta."""

from __future__ import annotations

import numpy as np

from stseg3d.geometry import Grid

NAMES = {1: "vertebrae_L1", 2: "lung_upper_lobe_left", 3: "heart", 4: "liver", 5: "aorta", 6: "colon", 7: "rib_left_1"}
AORTA = 5


def label_map(spacing_mm: float = 3.0) -> tuple[np.ndarray, Grid]:
    shape = tuple(round(mm / spacing_mm) for mm in (240, 180, 210))
    grid = Grid(shape, np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0]))
    x, y, z = np.meshgrid(*(spacing_mm * (np.arange(n) + 0.5) for n in shape), indexing="ij")
    labels = np.zeros(shape, dtype=np.uint8)
    labels[((x - 60) / 40) ** 2 + ((y - 100) / 50) ** 2 + ((z - 160) / 45) ** 2 < 1] = 2
    labels[((x - 125) / 40) ** 2 + ((y - 120) / 30) ** 2 + ((z - 150) / 35) ** 2 < 1] = 3
    labels[((x - 160) / 50) ** 2 + ((y - 110) / 45) ** 2 + ((z - 60) / 40) ** 2 < 1] = 4
    labels[((x - 60) / 30) ** 2 + ((y - 120) / 30) ** 2 + ((z - 50) / 40) ** 2 < 1] = 6
    labels[(x - 120) ** 2 + (y - 45) ** 2 < 18**2] = 1
    labels[(x - 112) ** 2 + (y - 76) ** 2 < 11**2] = AORTA
    labels[(np.abs(x - 18) < 4) & (np.abs(y - 100) < 40) & (np.abs(z - 150) < 6)] = 7
    return labels, grid
