"""Bones: vertebrae of cortex and spongy bone, ribs with their cartilage, pelvis, arms."""

from __future__ import annotations

import numpy as np

from stseg3d.synthesis.phantoms.patient import VERTEBRAE_MM, Patient, beside, cage, curve, rotation, spine_y
from stseg3d.synthesis.phantoms.shapes import Painter, Stroke


def _paint_bone(painter: Painter, patient: Patient, stroke: Stroke | None, core: Stroke | None) -> None:
    rng, bone = patient.rng, patient.bone
    painter.paint(stroke, bone * rng.uniform(420, 750))
    painter.paint(core, bone * rng.uniform(150, 300))


def paint_spine(painter: Painter, patient: Patient) -> None:
    """Paint vertebral bodies of cortex and spongy bone, arches, processes, discs, and the canal."""
    levels = np.asarray(VERTEBRAE_MM, dtype=float)
    bodies = np.column_stack([0 * levels, spine_y(levels), levels])
    full = curve([(0, *p) for p in zip(spine_y([-330, *levels, 280]), [-330, *levels, 280], strict=True)])
    painter.paint(painter.tube(full, 15), patient.hu["disc"])
    for n, centre in enumerate(bodies):
        size = np.interp(n, (0, 5, 16), (1.12, 1.0, 0.7))
        tilt = np.rad2deg(np.arctan(np.gradient(spine_y(levels), levels)[n]))
        radii = np.array([21 * size, 16.5 * size, np.gradient(levels)[n] * 0.41])
        for shrink, low, high in ((0, 420, 700), (2, 120, 280)):
            painter.paint(
                painter.ellipsoid(centre, radii - shrink, axes=rotation((-tilt, 0, 0)), power=4),
                patient.bone * patient.rng.uniform(low, high),
            )
        back = beside(centre, 0, -22 * size, 0)
        for side in (-1, 1):
            arch = curve([beside(centre, 13 * side, -10 * size, 4), beside(back, 17 * side, -6, 3), beside(back, 0, -18, -4)], 6)
            _paint_bone(painter, patient, painter.tube(arch, 5 * size), painter.tube(arch, 2.5 * size))
            process = curve([beside(back, 15 * side, -4, 2), beside(back, 38 * side, -8 - (n > 4) * 10, 4)], 8)
            painter.paint(painter.tube(process, 4.5 * size), patient.bone * 450)
        spinous = curve([beside(back, 0, -17, -4), beside(back, 0, -33 * size, -12 - 8 * (n > 5))], 8)
        _paint_bone(painter, patient, painter.tube(spinous, 5 * size), painter.tube(spinous, 2.5 * size))
    painter.paint(painter.tube(full - np.array([0, 25, 0]), 7.5), 25)


def paint_cage(painter: Painter, patient: Patient) -> None:
    """Paint ribs with their cartilage, sternum, collar bones and shoulder blades."""
    rng, hu = patient.rng, patient.hu
    for n, z in enumerate(VERTEBRAE_MM[5:]):  # from the twelfth rib up to the first
        turn = np.linspace(0.2, np.interp(n, (0, 2, 5, 11), (1.5, 2.2, 2.75, 2.9)), 22)
        drop = np.interp(n, (0, 3, 8, 11), (45, 80, 75, 25)) * (1 - np.cos(turn)) / 2
        for side in (-1, 1):
            height = z + 8 - drop + rng.normal(0, 1.5)
            rx, ry, centre = (row.astype(float) for row in cage(height))
            line = np.column_stack([side * (rx + 4) * np.abs(np.sin(turn)) ** 0.8, centre - (ry + 4) * np.cos(turn), height])
            line[0] = (20 * side, spine_y(z) - 16, z + 6)
            bony = line[:17] if n > 1 else line
            painter.paint(painter.tube(line[16:], 4.5), hu["cartilage"])
            _paint_bone(painter, patient, painter.tube(bony, 5.5), painter.tube(bony, 2.6))
    for side in (-1, 1):
        clavicle = curve([(12 * side, 54, 196), (55 * side, 46, 216), (105 * side, 6, 228), (150 * side, -8, 230)])
        _paint_bone(painter, patient, painter.tube(clavicle, 6.5), painter.tube(clavicle, 3.5))
        blade = rotation((8, 0, -38 * side))
        painter.paint(painter.ellipsoid((100 * side, -74, 165), (38, 4.5, 58), axes=blade), patient.bone * 480)
        painter.paint(painter.ellipsoid((165 * side, -6, 214), (25, 24, 26)), patient.bone * 520)
        painter.paint(painter.ellipsoid((165 * side, -6, 214), (21, 20, 22)), patient.bone * 200)
    front = [(float(cage(z)[2] + cage(z)[1]) + 3, z) for z in (194.0, 150.0, 110.0, 78.0)]
    for dx in (-8, 0, 8):
        line = curve([(dx, *p) for p in front])
        _paint_bone(painter, patient, painter.tube(line, 5.5), painter.tube(line, 4))


def paint_pelvis(painter: Painter, patient: Patient) -> None:
    """Paint sacrum, iliac wings and what of the hips may be in view."""
    bone = patient.bone
    for shrink, hu in ((0.0, 480), (3.0, 170)):
        painter.paint(painter.ellipsoid((0, -68, -245), np.array([44, 16, 36]) - shrink, axes=rotation((25, 0, 0))), bone * hu)
    for side in (-1, 1):
        for shrink, hu in ((0, 520), (2.5, 220)):
            wing = np.array([48, 8, 58]) - shrink
            painter.paint(painter.ellipsoid((92 * side, -20, -225), wing, axes=rotation((-14, 12 * side, 52 * side))), bone * hu)
            painter.paint(painter.ellipsoid((98 * side, 6, -318), np.array([27, 26, 27]) - shrink), bone * hu)
        painter.paint(painter.ellipsoid((84 * side, -78, -250), (46, 26, 62)), patient.hu["muscle"])


def paint_arms(painter: Painter, patient: Patient) -> None:
    """Paint arms at the sides of the body, for who cannot raise them."""
    for side in (-1, 1):
        x = side * (175 + patient.fat_mm + patient.rng.uniform(0, 15))
        line = curve(
            [(x - 12 * side, -6, 205), (x, -20, 100), (x + 6 * side, -20, -40), (x - 6 * side, 10, -200), (x - 6 * side, 20, -330)]
        )
        for radius, hu in (
            (40, patient.hu["fat"]),
            (38 - 0.4 * patient.fat_mm, patient.hu["muscle"]),
            (10, 700 * patient.bone),
            (6.0, 40.0),
        ):
            painter.paint(painter.tube(line, radius), hu)
