"""Vessels: veins, trees inside organs, the arteries that leave the aorta, and the aorta."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import KDTree

from stseg3d.synthesis.phantoms.patient import Dissection, Patient, Points, beside, curve, spine_y
from stseg3d.synthesis.phantoms.shapes import Painter, Stroke

# Tissue, radii at both ends and points; jittered as a whole. y of the points marked "spine" counts from the vertebral bodies' centres.
TUBES = (
    ("portal", (6, 5), ((14, 22, -70), (14, 26, -40), (34, 18, -8), (62, 14, 8)), False),
    ("portal", (5, 4), ((12, 24, -52), (-30, 10, -40), (-74, -22, -4)), False),
    ("portal", (5, 3), ((12, 26, -62), (10, 34, -110), (24, 40, -160)), False),
    ("venous", (5, 3), ((30, -2, 30), (52, -4, 22), (84, 10, 6)), False),
    ("venous", (11, 12), ((17, 28, -188), (20, 28, -120), (22, 30, -60), (26, 34, -10), (26, 52, 30), (24, 74, 60)), True),
    ("venous", (8, 6), ((17, 28, -188), (34, 24, -215), (50, 14, -250), (66, 40, -310)), True),
    ("venous", (8, 6), ((15, 26, -188), (-22, 22, -212), (-48, 12, -250), (-66, 40, -310)), True),
    ("venous", (5, 4), ((20, 26, -74), (36, 6, -74), (50, -14, -74)), True),
    ("venous", (5, 4), ((18, 30, -68), (-12, 46, -64), (-34, 16, -60), (-48, -12, -60)), True),
    ("venous", (3, 4), ((8, 20, -20), (8, 22, 60), (9, 20, 140), (20, 40, 150), (26, 64, 148)), True),
    ("superior", (10, 10), ((24, 22, 196), (27, 20, 160), (28, 14, 125), (26, 16, 88)), False),
    ("superior", (7, 7), ((-62, 10, 222), (-38, 34, 212), (-8, 40, 202), (24, 24, 194)), False),
    ("superior", (7, 8), ((64, 8, 222), (44, 22, 214), (25, 24, 194)), False),
    ("superior", (6, 6), ((38, 12, 212), (36, 8, 275)), False),
    ("superior", (6, 6), ((-40, 12, 212), (-38, 8, 275)), False),
    ("right_heart", (15, 13), ((-16, 50, 82), (-20, 44, 108), (-22, 26, 132), (-24, 8, 142)), False),
    ("pulmonary", (11, 8), ((-22, 16, 138), (0, 4, 136), (28, -2, 132), (50, -6, 122)), False),
    ("pulmonary", (11, 8), ((-23, 10, 142), (-38, -8, 144), (-52, -14, 130)), False),
    ("left_heart", (7, 5), ((20, -12, 92), (40, -12, 96), (58, -14, 100)), False),
    ("left_heart", (7, 5), ((-26, -12, 94), (-44, -14, 98), (-58, -18, 100)), False),
    ("muscle", (8, 6), ((-3, 30, 275), (-3, 30, 200), (6, 30, 150), (-2, 30, 90), (-14, 46, 40), (-34, 66, 24)), True),
    ("muscle", (16, 20), ((34, 4, -60), (40, 8, -140), (56, 22, -220), (74, 56, -300)), True),
    ("muscle", (16, 20), ((-34, 4, -60), (-40, 8, -140), (-56, 22, -220), (-74, 56, -300)), True),
    ("muscle", (24, 20), ((34, -38, -290), (34, -40, -150), (30, -38, -20), (24, -30, 120), (18, -26, 270)), True),
    ("muscle", (24, 20), ((-34, -38, -290), (-34, -40, -150), (-30, -38, -20), (-24, -30, 120), (-18, -26, 270)), True),
)


def paint_tubes(painter: Painter, patient: Patient) -> None:
    """Paint veins, pulmonary arteries, oesophagus and the long muscles."""
    for tissue, radii, points, spinal in TUBES:
        line = patient.jitter(points, 1.5)
        if spinal:
            line[:, 1] += spine_y(line[:, 2])
        line = curve(line)
        size = patient.rng.uniform(0.85, 1.15) * np.linspace(*radii, len(line))
        painter.paint(painter.tube(line, size), patient.hu[tissue])


def paint_vessel_tree(
    painter: Painter, patient: Patient, tissue: str, *, root: ArrayLike, ends: tuple[ArrayLike, ArrayLike], branches: int, radius: float
) -> None:
    """Paint vessels from ``root`` to random ends in an ellipsoid (its centre and half axes), thinner and thinner."""
    rng, root = patient.rng, np.asarray(root, dtype=float)
    for _ in range(branches):
        direction = rng.normal(size=3)
        end = np.asarray(ends[0]) + np.asarray(ends[1]) * direction / np.linalg.norm(direction) * rng.uniform(0.4, 1)
        middle = (root + end) / 2 + rng.normal(0, 9, size=3)
        line = curve([root, middle, end], 7)
        painter.paint(painter.tube(line, np.linspace(radius * rng.uniform(0.5, 1), 0.6, len(line))), patient.hu[tissue])
        twig = curve([middle, middle + 0.4 * (end - root) + rng.normal(0, 16, size=3)], 12)
        painter.paint(painter.tube(twig, np.linspace(radius * 0.4, 0.5, len(twig))), patient.hu[tissue])


def paint_branches(painter: Painter, patient: Patient) -> None:
    """Paint the arteries that leave the aorta: to the head and arms, to the organs, and to the legs."""
    arch, low, end = patient.arch, patient.descending, patient.aorta[-1, :3]
    paths: list[tuple[float, float, list[Points | tuple[float, float, float]]]] = [
        (6.5, 5.5, [arch(2), beside(arch(2), 12, 4, 24), (28, 4, 222)]),
        (4, 3.5, [(28, 4, 222), (26, -2, 250), (28, 0, 285)]),
        (4.5, 3.5, [(28, 4, 222), (58, -8, 232), (120, -14, 222), (150, -20, 190)]),
        (4, 3.5, [arch(-9), beside(arch(-9), -4, 2, 28), (-26, -2, 250), (-28, 0, 285)]),
        (5, 3.5, [arch(-19), beside(arch(-19), -8, -4, 26), (-58, -8, 232), (-120, -14, 222), (-150, -20, 190)]),
        (4.5, 3, [low(-34), beside(low(-34), 2, 24, 2), beside(low(-34), 38, 30, 8), (60, 20, 4)]),
        (3.5, 2.5, [beside(low(-34), 2, 22, 2), beside(low(-34), -40, 4, 8), (-82, -26, 10)]),
        (4.5, 2.5, [low(-50), beside(low(-50), 2, 20, -8), beside(low(-50), 4, 26, -45), beside(low(-50), 14, 32, -110)]),
        (3.5, 2.5, [low(-66), beside(low(-66), 26, -6, -2), (48, -38, -72)]),
        (3.5, 2.5, [low(-64), beside(low(-64), -22, -6, 0), (-52, -38, -60)]),
        (2.5, 1.5, [low(-128), beside(low(-128), -6, 14, -16), beside(low(-128), -22, 14, -60)]),
    ]
    wind = patient.iliac_mm
    for side in (-1, 1):
        split = beside(end, 24 * side, -10, -44)
        paths += [
            (7, 5.5, [end, beside(end, (9 + wind) * side, 1 + wind, -18), split]),
            (5.5, 5, [split, beside(split, (20 - wind) * side, 16 - 2 * wind, -40), (70 * side, 60 + wind, -300), (76 * side, 66, -400)]),
            (4, 3, [split, beside(split, 8 * side, -24, -30), beside(split, 14 * side, -40, -60)]),
        ]
    for start, stop, points in paths:
        loose = [0, *[3] * (len(points) - 2), 0]
        line = curve(np.stack([patient.jitter(p, sigma) for p, sigma in zip(points, loose, strict=True)]), 3.5)
        size = patient.rng.uniform(0.85, 1.15) * np.linspace(start, stop, len(line))
        painter.paint(painter.tube(line, size + 1), patient.hu["wall"])
        painter.paint(painter.tube(line, size), patient.hu["aorta"])


def _paint_flap(painter: Painter, torn: Dissection, lumen: Points, inside: Stroke, flap_hu: float) -> None:
    """Paint a false lumen and the flap before it: a sheet that winds along the centre line.

    ``lumen`` has x, y, z and the radius in mm along it, ``inside`` is the lumen as it was painted.
    """
    along = np.linspace(0, 1, len(lumen))
    ahead = np.gradient(lumen[:, :3], axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    right = np.array([1.0, 0, 0]) - ahead[:, :1] * ahead
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    angle = torn.angle + 2 * np.pi * torn.turns * along
    outward = np.cos(angle)[:, None] * right + np.sin(angle)[:, None] * np.cross(ahead, right)
    filled = np.nonzero(inside.occupancy > 0)
    region = inside.region
    points = np.column_stack([np.broadcast_to(axis, region.shape)[filled] for axis in (region.x, region.y, region.z)])
    nearest = KDTree(lumen[:, :3]).query(points)[1]
    beyond = ((points - lumen[nearest, :3]) * outward[nearest]).sum(axis=1) - torn.shift * lumen[nearest, 3]
    here = (along[nearest] >= torn.start) & (along[nearest] <= torn.stop)
    for occupancy, hu in ((painter.soften(-beyond), torn.hu), (painter.soften(np.abs(beyond) - torn.width_mm / 2), flap_hu)):
        amount = np.zeros(region.shape, dtype=np.float32)
        amount[filled] = occupancy * here * inside.occupancy[filled]
        painter.paint(Stroke(region, amount), hu)


def paint_aorta(painter: Painter, patient: Patient) -> Stroke | None:
    """Paint the aorta: wall or thrombus around the lumen, with calcified plaques in the wall or a flap in the lumen of some.

    Returns:
        The aorta with its wall, None where none of it is in the image.
    """
    rng, hu = patient.rng, patient.hu
    line = patient.aorta[:, :3]
    outer, lumen = patient.aorta[:, 3], patient.aorta[:, 4]
    whole = painter.paint(painter.tube(line, outer), hu["wall"])
    lumen_line = line + np.array([0, -0.45, 0]) * np.maximum(outer - lumen - 2, 0)[:, None]  # thrombus lies in front
    inside = painter.paint(painter.tube(lumen_line, lumen), hu["aorta"])
    if patient.dissection and inside:
        _paint_flap(painter, patient.dissection, np.column_stack([lumen_line, lumen]), inside, hu["wall"])
    for _ in range(rng.choice([0, 0, 4, 12, 30])):
        n = rng.integers(30, len(line) - 2)
        angle = rng.uniform(0, 2 * np.pi)
        tangent = line[n + 1] - line[n]
        across = np.cross(tangent, (np.sin(angle), np.cos(angle), 0.3))
        spot = line[n] + across / max(np.linalg.norm(across), 1e-6) * (outer[n] - 0.8)
        painter.paint(painter.ellipsoid(spot, rng.uniform((1, 1, 1.5), (3, 3, 6))), rng.uniform(350, 1000))
    return whole
