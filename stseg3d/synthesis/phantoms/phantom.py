"""One phantom: a random body, a field of view over it, and its scan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stseg3d.geometry import Grid
from stseg3d.synthesis.phantoms.body import paint_patient, paint_table
from stseg3d.synthesis.phantoms.patient import Patient, cage, draw_patient
from stseg3d.synthesis.phantoms.shapes import Painter
from stseg3d.synthesis.scanner import scanned_phantom


def ct_phantom(
    shape: tuple[int, int, int] = (256, 256, 200), *, spacing_mm: Sequence[float] | None = None, seed: int | Sequence[int] = 0
) -> tuple[NDArray[np.int16], NDArray[np.uint8], Grid]:
    """A CT of a random body with its aorta.

    The body has lungs, heart, great vessels, spine, ribs, organs and bowel. Its size and fat, the phase of contrast (also none), the
    density of the bones, path and width of the aorta (with aneurysm, thrombus, plaques), noise, sharpness and field of view (trunk, chest
    or belly) follow from the seed.

    Args:
        shape: Voxels on each axis (right, front, top); small ones are as good, the voxels grow.
        spacing_mm: Size of a voxel; by default such that the field of view holds what it should.
        seed: Seed of everything, as numpy takes it.

    Returns:
        The image in HU (int16), the label (uint8, 1 = aorta) and their grid, axes along the world's (RAS).
        Aorta is the vessel with its wall and thrombus, from the aortic valve over the arch to the bifurcation, or to the border of the
        image. The arteries that leave it (to head, arms, organs and legs) are in the image but, as in TotalSegmentator, not in the label.
        The label is one 26-connected piece as long as the image is not narrower than the aorta's own course.
    """
    rng = np.random.default_rng(seed)
    patient = draw_patient(rng)
    grid = _field_of_view(rng, patient, shape, spacing_mm)
    painter = Painter(grid, patient.scale, patient.bend)
    whole = paint_patient(painter, patient)
    label = np.zeros(grid.shape, dtype=np.uint8)
    if whole is not None:
        label[whole.region.slices] = whole.occupancy > 0.5
    if rng.uniform() < 0.8:
        _, depth, centre = cage(np.zeros(1))
        paint_table(painter, float(centre[0] - depth[0]) - patient.fat_mm - patient.wall_mm - 6, rng.uniform(-400, 60))
    return scanned_phantom(painter.image, painter.z, rng), label, grid


def _field_of_view(rng: np.random.Generator, patient: Patient, shape: Sequence[int], spacing_mm: Sequence[float] | None) -> Grid:
    """Whole trunk, chest or belly; the top lies above the arch or below the root, so that no two pieces of the aorta are seen."""
    arch, root = patient.aorta[:, 2].max() * patient.scale[2], patient.aorta[0, 2] * patient.scale[2]
    part = rng.choice(["trunk", "chest", "belly"], p=[0.55, 0.2, 0.25])
    length = {"trunk": rng.uniform(430, 540), "chest": rng.uniform(220, 330), "belly": rng.uniform(190, 310)}[part]
    if spacing_mm is None:
        width = rng.uniform(330, 430) * patient.scale[0]
        spacing_mm = (width / max(shape[:2]), width / max(shape[:2]), length / shape[2])
    top = root - 35 - rng.uniform(0, 70) if part == "belly" else arch + 25 + rng.uniform(0, 45)
    extent = np.asarray(shape) * np.asarray(spacing_mm, dtype=float)
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = (*(rng.uniform(-12, 12, size=2) - extent[:2] / 2), top - extent[2])
    return Grid(tuple(shape), affine)
