"""Paints a patient: from the skin inwards, the aorta last."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from stseg3d.synthesis.fields import correlated_noise
from stseg3d.synthesis.phantoms.patient import Patient, cage, curve, rotation
from stseg3d.synthesis.phantoms.shapes import Painter, Stroke
from stseg3d.synthesis.phantoms.skeleton import paint_arms, paint_cage, paint_pelvis, paint_spine
from stseg3d.synthesis.phantoms.vessels import paint_aorta, paint_branches, paint_tubes, paint_vessel_tree
from stseg3d.synthesis.scanner import AIR_HU

# Tissue, centre, half axes, rotation in degrees, roundness; painted in this order.
BELLY = (
    ("liver", (62, 2, -8), (70, 86, 84), (0, 14, 0), 2),
    ("liver", (2, 44, 16), (72, 40, 40), (0, 18, 0), 2),
    ("spleen", (-92, -34, 12), (24, 44, 48), (20, 0, -25), 2),
    ("bowel", (-58, 34, 18), (38, 40, 46), (0, -15, 0), 2),
    ("muscle", (-62, 58, 24), (24, 22, 30), (0, -15, 0), 2),
    ("kidney", (56, -44, -72), (25, 23, 52), (-8, -10, 20), 2),
    ("medulla", (52, -41, -72), (14, 13, 36), (-8, -10, 20), 2),
    ("visceral", (46, -36, -74), (10, 9, 20), (-8, -10, 20), 2),
    ("kidney", (-60, -44, -58), (25, 23, 54), (-8, 10, -20), 2),
    ("medulla", (-56, -41, -58), (14, 13, 37), (-8, 10, -20), 2),
    ("visceral", (-50, -36, -60), (10, 9, 21), (-8, 10, -20), 2),
    ("pancreas", (-20, 26, -52), (56, 11, 13), (0, 14, 8), 2),
    ("pancreas", (26, 28, -68), (16, 14, 22), (0, 0, 0), 2),
)
HEART = (
    ("mediastinum", (-20, 26, 58), (68, 52, 46), (0, -20, -25), 2),
    ("myocardium", (-22, 26, 58), (56, 42, 40), (0, -28, -35), 2),
    ("left_heart", (-40, 20, 52), (32, 20, 20), (0, -28, -40), 2),
    ("right_heart", (-8, 48, 52), (34, 17, 24), (0, -20, -28), 2),
    ("right_heart", (24, 24, 68), (20, 24, 27), (0, 0, 0), 2),
    ("left_heart", (-4, -10, 88), (34, 20, 22), (0, 0, 0), 2),
)


def paint_patient(painter: Painter, patient: Patient) -> Stroke | None:
    """Paint the whole body.

    Returns:
        The aorta with its wall, None where none of it is in the image.
    """
    paint_outline(painter, patient)
    paint_organs(painter, patient, BELLY)
    paint_vessel_tree(painter, patient, "portal", root=(60, 14, 6), ends=((60, 14, 6), (45, 55, 48)), branches=14, radius=3)
    paint_bowel(painter, patient)
    paint_lungs(painter, patient)
    paint_organs(painter, patient, HEART)
    paint_tubes(painter, patient)
    paint_airways(painter, patient)
    paint_spine(painter, patient)
    paint_cage(painter, patient)
    paint_pelvis(painter, patient)
    paint_branches(painter, patient)
    if patient.rng.uniform() < 0.2:
        paint_arms(painter, patient)
    return paint_aorta(painter, patient)


def paint_outline(painter: Painter, patient: Patient) -> None:
    """Skin, fat, muscle wall, the cavity's fat; slabs of slices, so that nothing as large as the image is held."""
    rx, ry, centre = cage(painter.z)
    shoulder = np.interp(painter.z, (120, 190, 225, 250), (0, 42, 46, 0)).astype(np.float32)
    hips = np.interp(painter.z, (-260, -180), (22, 0)).astype(np.float32)
    for start in range(0, len(painter.z), 16):
        k = slice(start, min(start + 16, len(painter.z)))
        for tissue, more, side in (
            ("muscle", patient.fat_mm + 2, 1.0),
            ("fat", patient.fat_mm, 1.0),
            ("muscle", 0.0, 0.9),
            ("visceral", -patient.wall_mm, 0.0),
        ):
            out = np.float32(more + patient.wall_mm)
            stroke = painter.profile((rx + out + side * (shoulder + hips), ry + out), centre, k)
            painter.paint(stroke, patient.hu[tissue])
            if tissue == "muscle" and more == 0:
                painter.paint(_marbled(painter, patient, stroke), patient.hu["fat"])


def _marbled(painter: Painter, patient: Patient, stroke: Stroke) -> Stroke:
    """The parts of a stroke where fat lies between muscles."""
    sigma = [4.0 / mm for mm in painter.spacing_mm]
    field = correlated_noise(patient.texture, stroke.occupancy.shape, sigma, truncate=2.5, mode="wrap")
    return Stroke(stroke.region, stroke.occupancy * np.clip(field / field.std() - np.float32(patient.marbling), 0, 1))


def paint_organs(painter: Painter, patient: Patient, organs: Sequence[tuple[str, ArrayLike, ArrayLike, Sequence[float], int]]) -> None:
    """Paint ellipsoids with a wavy surface, each of a size and at a place of its own."""
    rng = patient.rng
    for tissue, centre, radii, degrees, power in organs:
        size = np.asarray(radii, dtype=float) * rng.uniform(0.88, 1.1, size=3)
        turn = rotation(np.asarray(degrees) + rng.normal(0, 5, size=3))
        wobble = (0.05 * size.min(), rng.uniform(9, 16), *rng.uniform(0, 2 * np.pi, size=3))
        painter.paint(painter.ellipsoid(patient.jitter(centre, 3), size, axes=turn, power=power, wobble=wobble), patient.hu[tissue])


def paint_bowel(painter: Painter, patient: Patient) -> None:
    """Paint wandering loops with gas or contrast in some, and the colon at both sides."""
    rng = patient.rng
    for _ in range(rng.integers(26, 50)):
        start = rng.uniform((-85, 20, -230), (85, 78, -70))
        line = curve(start + np.cumsum(rng.normal(0, (18, 9, 13), size=(7, 3)), axis=0))
        line = np.clip(line, (-98, 6, -300), (98, 84, -60))
        radius = rng.uniform(8, 15)
        painter.paint(painter.tube(line, radius), patient.hu["bowel"] + rng.normal(0, 8))
        filling = rng.choice([AIR_HU, rng.uniform(-5, 20), rng.uniform(60, 300)], p=[0.15, 0.7, 0.15])
        part = line[: max(len(line) // 2, 2)]
        painter.paint(painter.tube(part, radius - 3), filling)
    for side in (-1, 1):
        line = curve(patient.jitter([(100 * side, 0, -210), (104 * side, -4, -120), (92 * side, 24, -60)], 5))
        radii = rng.uniform(15, 22) * (1 + 0.15 * np.sin(np.arange(len(line)) * 0.9))
        painter.paint(painter.tube(line, radii), patient.hu["bowel"])
        painter.paint(painter.tube(line, radii - 3), rng.choice([AIR_HU, -150, 20]))


def paint_lungs(painter: Painter, patient: Patient) -> None:
    """Paint both lungs above the domes of the diaphragm, with their vessels, and the fat between them."""
    rng = patient.rng
    breath = rng.uniform(-22, 18)
    for side in (-1, 1):
        dome = rng.uniform(40, 56) - breath + 6 * side
        painter.paint(_lung(painter, side, dome), patient.hu["lung"] + rng.normal(0, 10))
        ends = ((68 * side, -10, 116), (62, 82, 104))
        paint_vessel_tree(painter, patient, "pulmonary", root=(40 * side, -8, 122), ends=ends, branches=60, radius=4.5)
        low, up = np.array([34 * side, -10, 118]), np.array([70 * side, -20, 70])
        painter.paint(painter.tube(curve([low, (low + up) / 2, up]), 4.0), patient.hu["pulmonary"])
    painter.paint(painter.ellipsoid((0, 6, 140), (46, 84, 122), wobble=(4, 17, *rng.uniform(0, 6, size=3))), patient.hu["mediastinum"])


def _lung(painter: Painter, side: int, dome: float) -> Stroke | None:
    region = painter.region((min(side * 150, 0), -120, dome - 110), (max(side * 150, 0), 120, 252))
    if region is None:
        return None
    rx, ry, centre = cage(painter.z)
    outline = painter.profile((rx - np.float32(4), ry - np.float32(4)), centre, region.slices[2])
    inside = outline.occupancy[region.slices[0], region.slices[1]]
    away = np.abs(region.x - 72 * side) / 70
    floor = np.float32(dome) - 48 * (away**2 + ((region.y - 14) / 92) ** 2)
    middle = 13 + 5 * np.sin(region.z / 21 + side) * np.cos(region.y / 17) - side * region.x  # an uneven inner face beside the midline
    apex = region.z - 240 + 0.02 * (region.x - 42 * side) ** 2
    distance = np.maximum(np.maximum(middle, apex), floor - region.z)
    return Stroke(region, inside * painter.soften(distance))


def paint_airways(painter: Painter, patient: Patient) -> None:
    """Paint trachea and main bronchi: a thin wall around air."""
    trachea = [(0, -10, 280), (2, -14, 220), (4, -22, 164)]
    for path, radius in (
        (trachea, 8.5),
        ([(4, -22, 164), (24, -20, 142), (46, -16, 118)], 6.5),
        ([(4, -22, 164), (-22, -22, 138), (-46, -22, 118)], 6),
    ):
        line = curve(patient.jitter(path, 1))
        painter.paint(painter.tube(line, radius + 1.5), patient.hu["muscle"])
        painter.paint(painter.tube(line, radius), AIR_HU + 20)


def paint_table(painter: Painter, back_y: float, shell_hu: float) -> None:
    """Paint the scanner's table, a curved shell over foam, under a back at ``back_y``."""
    region = painter.region((-210, -400, painter.z[0]), (210, back_y + 40, painter.z[-1]))
    if region is None:
        return
    x, y = np.asarray(region.x).mean(axis=2, keepdims=True), np.asarray(region.y).mean(axis=2, keepdims=True)
    depth = y - (np.float32(back_y) - 4 + 0.0009 * x * x)
    shell = painter.soften(np.abs(depth) - 1.5)
    foam = painter.soften(np.maximum(depth, -40 - depth))
    for occupancy, hu in ((foam, -940.0), (shell, shell_hu)):
        part = painter.image[region.slices]
        part += np.broadcast_to(occupancy, part.shape) * (np.float32(hu) - part) * (part < -900)
