"""Tissue by tissue, from ids to Hounsfield units."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stseg3d.synthesis.fields import Field, Mask, smooth_field
from stseg3d.synthesis.label_maps import INNER, MEDIASTINUM, TABLE, Anatomy
from stseg3d.synthesis.scanner import Scan
from stseg3d.synthesis.tissues import HOLLOW_CLASSES, TISSUES, tissue_of

SKIN_MM = 2.5


class Canvas:
    """An image in the making: at first the mean of each class, as it looks in a scan."""

    def __init__(self, anatomy: Anatomy, scan: Scan, rng: np.random.Generator) -> None:
        self.scan, self.rng, self.depth_mm, self.spacing_mm = scan, rng, anatomy.depth_mm, anatomy.grid.spacing_mm
        shown = np.arange(256, dtype=np.uint8)
        shown[[k for k in anatomy.names if scan.hidden[k] and k != anatomy.target]] = INNER
        self.ids: NDArray[np.uint8] = shown[anatomy.ids]
        # By tissue, and by name of the class.
        self.classes: dict[str, list[int]] = {name: [k] for k, name in anatomy.names.items() if name not in TISSUES}
        mean, self.uneven_hu = np.full(256, -1000, dtype=np.float32), np.zeros(256, dtype=np.float32)
        for k, name in anatomy.names.items():
            tissue = tissue_of(name)
            self.classes.setdefault(tissue, []).append(k)
            mean[k] = scan.hu[tissue] + (scan.offsets_hu[k] if tissue != "gas" else 0)
            self.uneven_hu[k] = TISSUES[tissue].texture_hu
        other = [k for k in anatomy.names if k != anatomy.target and int(scan.taken_for[k]) in anatomy.names]
        mean[other] = mean[scan.taken_for[other]]
        mean[TABLE] = scan.table_hu
        self.image: Field = mean[self.ids]

    def field(self, scale_mm: float) -> Field:
        """Smooth noise of this image, see :func:`smooth_field`."""
        return smooth_field(self.rng, self.ids.shape, self.spacing_mm, scale_mm)

    def hu(self, tissue: str) -> np.float32:
        """Mean of a tissue."""
        return np.float32(self.scan.hu[tissue])

    def threads(self, scale_mm: float, width: float) -> Mask:
        """Thin winding tubes: where two smooth fields are both next to 0."""
        return self.field(scale_mm) ** 2 + self.field(scale_mm) ** 2 < width**2

    def where(self, *names: str) -> Mask:
        """Voxels of tissues or classes."""
        chosen = np.zeros(256, dtype=bool)
        chosen[[k for name in names for k in self.classes.get(name, ())]] = True
        return chosen[self.ids]

    def edge(self, mask: Mask, mm: float) -> Mask:
        """Voxels of a mask within ``mm`` of its surface; at least one voxel's width."""
        core = ndimage.uniform_filter(mask.astype(np.float32), [max(2 * round(mm / s) + 1, 3) for s in self.spacing_mm], mode="nearest")
        found: Mask = mask & (core < 0.98)
        return found


def paint(canvas: Canvas) -> None:
    """Fill in what one mean a class leaves out."""
    fillings = (
        (_fill_lungs, ("lung",)),
        (_fill_bones, ("spongy_bone",)),
        (_fill_hollow, HOLLOW_CLASSES),
        (_fill_heart, ("heart",)),
        (_fill_aorta, ("aorta",)),
    )
    if (between := canvas.ids >= INNER).any():
        _fill_between(canvas, between)
    for fill, names in fillings:
        if (mask := canvas.where(*names)).any():
            fill(canvas, mask)
    scale_mm = canvas.rng.uniform(2.5, 8)
    canvas.image += np.float32(canvas.scan.texture) * canvas.uneven_hu[canvas.ids] * canvas.field(scale_mm)


def _fill_between(canvas: Canvas, between: Mask) -> None:
    """Skin, fat, the muscular wall, and the inside: fat with soft tissue, small vessels and, near the heart, large ones."""
    scan, image = canvas.scan, canvas.image
    depth = canvas.depth_mm + 2 * canvas.field(25.0)
    fat = scan.fat_mm * (1 + 0.35 * canvas.field(60.0))
    layer = canvas.field(9.0) * 0.6 + canvas.field(22.0) * 0.7
    soft = canvas.hu("muscle") + 8 * canvas.field(6.0)
    lipid = canvas.hu("fat") + 8 * canvas.field(12.0)
    marbled = np.where(layer > 2 * scan.fatness - 0.6, soft, lipid)
    inside = np.where(depth < fat + scan.muscle_mm * (1 + 0.3 * canvas.field(30.0)), np.where(layer > -1.1, soft, lipid), marbled)
    filled = np.where(depth < SKIN_MM, canvas.hu("skin"), np.where(depth < fat, lipid, inside))
    np.copyto(image, filled.astype(np.float32), where=between)
    deep = between & (depth > fat)
    for tissue, width in (("arteries", 0.16), ("veins", 0.2)):
        threads = canvas.threads(canvas.rng.uniform(18, 40), width * scan.vessels)
        image[deep & threads] = canvas.hu(tissue) * np.float32(canvas.rng.uniform(0.7, 1.0))
    great = canvas.ids == MEDIASTINUM
    if great.any():
        shape = canvas.field(24.0) + 0.3 * canvas.field(10.0)
        image[great & (shape > 0.55)] = canvas.hu("pulmonary")
        image[great & (shape < -1.0)] = canvas.hu("veins")


def _fill_lungs(canvas: Canvas, lung: Mask) -> None:
    for scale_mm, width in ((9.0, 0.2), (22.0, 0.2)):
        vessels = canvas.threads(scale_mm, width * (0.4 + canvas.scan.vessels))
        canvas.image[lung & vessels] = canvas.hu("pulmonary") * np.float32(0.6 if scale_mm < 10 else 0.9)
    if canvas.rng.uniform() < 0.2:  # what a lung fills with when it is ill
        canvas.image[lung & (canvas.field(30.0) > 1.2)] = canvas.rng.uniform(-300, 60)


def _fill_bones(canvas: Canvas, bone: Mask) -> None:
    cortex = canvas.edge(bone, canvas.rng.uniform(0.8, 2.0))
    hard = canvas.hu("cortical_bone") * (1 + 0.2 * canvas.field(8.0))
    canvas.image[cortex] = np.maximum(hard, canvas.image + 80)[cortex]


def _fill_hollow(canvas: Canvas, hollow: Mask) -> None:
    """Stomach and bowel: a wall, and food, fluid, contrast medium or gas in it."""
    filling = canvas.field(14.0)
    lumen = hollow & ~canvas.edge(hollow, 1.5)
    canvas.image[lumen] = (canvas.scan.contents_hu + 15 * canvas.field(5.0))[lumen]
    canvas.image[lumen & (filling > 0.9 + 0.8 * canvas.scan.gasless)] = canvas.hu("gas")


def _fill_heart(canvas: Canvas, heart: Mask) -> None:
    """Chambers, where smooth noise says so: left ones as bright as the aorta, right ones as the veins or as the medium that comes in."""
    where = canvas.field(32.0) + 0.25 * canvas.field(10.0)
    inner = heart & ~canvas.edge(heart, 3.0)
    canvas.image[inner & (where > 0.25)] = canvas.hu("arteries") * np.float32(canvas.rng.uniform(0.85, 1.05))
    canvas.image[inner & (where < -0.25)] = canvas.hu("right_heart")


def _fill_aorta(canvas: Canvas, aorta: Mask) -> None:
    """A wall of soft tissue, in some thrombus, plaques, or a flap with a second lumen behind it."""
    scan, image = canvas.scan, canvas.image
    edge = canvas.edge(aorta, 1.0)
    wall = edge & (canvas.field(12.0) > canvas.rng.uniform(-0.5, 2.5))
    image[wall] = (0.5 * image + 0.5 * canvas.hu("thrombus"))[wall]
    if scan.thrombus:
        lumen = ndimage.distance_transform_edt(aorta, sampling=canvas.spacing_mm)
        image[aorta & (lumen < 14 * scan.thrombus * (1 + 0.6 * canvas.field(30.0)))] = canvas.hu("thrombus")
    if scan.flap:
        side = canvas.field(28.0)
        steep = np.sqrt(sum(g**2 for g in np.gradient(side, *canvas.spacing_mm)))
        image[aorta & (side > 0)] += np.float32(scan.false_lumen_hu)
        image[aorta & (np.abs(side) < 0.5 * scan.flap * steep)] = canvas.hu("thrombus")
    if scan.calcified:
        image[edge & (canvas.field(5.0) > 3.2 - 1.6 * scan.calcified)] = canvas.hu("calcification")
