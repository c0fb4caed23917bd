"""A standard body in mm (x to the right, y to the front, z to the top; z = 0 near the last thoracic vertebra), varied at random.

All numbers are drawn by eye after anatomy atlases and CT; none is measured on a patient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator, make_interp_spline
from scipy.spatial.transform import Rotation

from stseg3d.synthesis.tissues import draw_phantom_hu

Points = NDArray[np.float64]

# Height of each vertebra's centre, from the fifth lumbar to the first thoracic.
VERTEBRAE_MM = (-205, -170, -135, -101, -68, -38, -10, 17, 43, 68, 92, 115, 137, 158, 179, 199, 218)
# z and y of the vertebral bodies' centres: lumbar lordosis and thoracic kyphosis.
SPINE_MM = ((-300, -230, -170, -100, -30, 50, 120, 200, 260), (-60, -42, -22, -22, -38, -56, -62, -50, -30))
# z, half width, half depth and y of the centre of the inside of the rib cage and belly.
CAGE_MM = (
    (-420, -300, -200, -100, 0, 80, 150, 200, 235, 265),
    (128, 130, 122, 122, 134, 134, 120, 92, 58, 48),
    (78, 80, 80, 86, 96, 98, 88, 68, 48, 42),
    (0, 5, 14, 14, 8, 4, -2, -8, -12, -14),
)
# Aorta from the root over the arch to the bifurcation: x, y relative to the spine's centre, z, radius.
AORTA_MM = (
    (-4, 8, 14, 9, -3, -15, -24, -29, -28, -25, -18, -10, -7, -6, -4),
    (76, 88, 90, 82, 66, 44, 24, 12, 14, 20, 27, 31, 31, 31, 30),
    (92, 118, 145, 168, 183, 188, 177, 155, 110, 60, 10, -35, -90, -140, -176),
    (16, 16, 15.5, 15, 14.5, 14, 13.5, 13, 12.5, 12, 11.5, 10.5, 9.5, 9, 9),
)


def curve(points: ArrayLike, step_mm: float = 4.0) -> Points:
    """Points about every ``step_mm`` along a smooth curve through ``points`` (``(N, D)``, the first three columns in mm)."""
    points = np.asarray(points, dtype=float)
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points[:, :3], axis=0), axis=1))])
    at = np.linspace(0, along[-1], max(int(along[-1] / step_mm), 2) + 1)
    fine: Points = make_interp_spline(along, points, k=min(3, len(points) - 1))(at)
    return fine


def beside(point: ArrayLike, right: float, front: float, up: float) -> Points:
    """The point so many mm further to the right, to the front and up."""
    there: Points = np.asarray(point, dtype=float) + np.array([right, front, up])
    return there


def cage(z: ArrayLike) -> tuple[NDArray[np.float32], ...]:
    """Half width, half depth and y of the centre of the inside of the rib cage at these heights."""
    smooth = (PchipInterpolator(CAGE_MM[0], row)(np.clip(z, CAGE_MM[0][0], CAGE_MM[0][-1])) for row in CAGE_MM[1:])
    return tuple(row.astype(np.float32) for row in smooth)


@dataclass(frozen=True)
class Dissection:
    """A torn inner wall that parts the aorta's lumen in two."""

    start: float  # where it begins, as a fraction of the centre line
    stop: float
    angle: float  # direction of the false lumen at its beginning, in radians
    turns: float  # how often it winds round the aorta
    shift: float  # distance of the flap from the centre line, as a fraction of the lumen's radius
    width_mm: float  # thickness of the flap
    hu: float  # intensity of the false lumen


@dataclass(frozen=True)
class Patient:
    """What differs from body to body; everything is drawn from ``rng`` once, by :func:`draw_patient`."""

    rng: np.random.Generator  # source of all further variation in shape
    texture: np.random.Generator  # source of noise, apart, so that a body is the same at any resolution
    scale: tuple[float, float, float]  # size relative to the standard body on each axis
    lean_mm: tuple[float, float, float, float]  # amplitude (right, front), wavelength, and phase in radians, of a lean of the whole body
    fat_mm: float  # thickness of the fat under the skin
    wall_mm: float  # thickness of the muscle wall
    marbling: float  # fat between the muscles: 0 for much, 2 for next to none
    bone: float  # density of the bones, 1 for a healthy adult
    hu: dict[str, float]  # intensity of each tissue
    aorta: Points  # x, y, z, outer radius and lumen radius in mm along the centre line, from the root to the bifurcation
    iliac_mm: float = 0.0  # how far the iliac arteries wind
    dissection: Dissection | None = None  # a flap in the aorta, in few

    def bend(self, z: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Shift (right, front) in mm of the slices at these heights."""
        right, front, length, phase = self.lean_mm
        angle = z * np.float32(2 * np.pi / length) + np.float32(phase)
        return np.float32(right) * np.sin(angle), np.float32(front) * np.cos(angle)

    def jitter(self, points: ArrayLike, sigma_mm: float) -> Points:
        """The points, each moved a little at random."""
        points = np.asarray(points, dtype=float)
        return points + self.rng.normal(0, sigma_mm, points.shape)

    def descending(self, z: float) -> Points:
        """Point of the aorta's centre line behind the top of the arch, at this height."""
        part = self.aorta[self.aorta[:, 2].argmax() :, :3]
        point: Points = part[np.abs(part[:, 2] - z).argmin()]
        return point

    def arch(self, x: float) -> Points:
        """Point of the upper face of the aortic arch nearest to this x."""
        part = self.aorta[self.aorta[:, 2] > self.aorta[:, 2].max() - 12]
        point: Points = part[np.abs(part[:, 0] - x).argmin(), :3] + np.array([0, 0, 6])
        return point


def spine_y(z: ArrayLike) -> Points:
    """Centres of the vertebral bodies at these heights: their y."""
    y: Points = PchipInterpolator(*SPINE_MM)(np.clip(z, SPINE_MM[0][0], SPINE_MM[0][-1]))
    return y


def draw_aorta(rng: np.random.Generator) -> Points:
    """Centre line and radii of a random aorta: arch of any height and width, tortuous with age, now and then an aneurysm.

    Returns:
        Points of shape ``(N, 5)``: x, y, z, outer radius, lumen radius, all in mm, from the root to the bifurcation.
    """
    age = rng.uniform(0, 1)
    *centre_line, radii = np.array(AORTA_MM, dtype=float)
    control = np.column_stack(centre_line)
    control[:, :2] *= rng.uniform(0.9, 1.12, size=2)
    control[:7, 2] += np.clip((control[:7, 2] - 92) / 96, 0, 1) * rng.uniform(-10, 14)
    control += rng.normal(0, 1.5, control.shape)
    control[:, 1] += spine_y(control[:, 2])
    line = curve(np.column_stack([control, radii * rng.uniform(0.85, 1.05 + 0.25 * age)]), 3.0)
    along = np.arange(len(line)) * 3.0
    # Sideways waves of the descending part; to the front only, as the spine is behind.
    free = np.clip((along - 150) / 60, 0, 1) * np.clip((along[-1] - along) / 25, 0.3, 1)
    for axis in (0, 1):
        wave = np.sin(along * 2 * np.pi / rng.uniform(90, 220) + rng.uniform(0, 2 * np.pi))
        line[:, axis] += free * rng.uniform(0, 3 + 11 * age**2) * (0.5 * (wave + 1) if axis else wave)
    outer = line[:, 3]
    lumen = outer - rng.uniform(0.8, 1.8)
    if rng.uniform() < 0.25:
        centre, width = rng.choice([along[-1] - 55, along[-1] - 200, 45]), rng.uniform(18, 40)
        bulge = rng.uniform(0.4, 1.5) * np.exp(-(((along - centre) / width) ** 2))
        line[:, 1] += 0.7 * bulge * outer  # what is behind stays where it is
        lumen = lumen * (1 + bulge * rng.uniform(0.1, 1))
        outer = outer * (1 + bulge)
    return np.column_stack([line[:, :3], outer, lumen])


def draw_patient(rng: np.random.Generator) -> Patient:
    """A random body."""
    # Apart from the body's own numbers, so that these are the same as if there were no more of them.
    texture, vessels = rng.spawn(2)
    size = rng.uniform(0.9, 1.1)
    patient = Patient(
        rng=rng,
        texture=texture,
        scale=(size * rng.uniform(0.94, 1.08), size * rng.uniform(0.92, 1.08), size * rng.uniform(0.95, 1.05)),
        lean_mm=(rng.uniform(0, 9), rng.uniform(0, 7), rng.uniform(300, 700), rng.uniform(0, 2 * np.pi)),
        fat_mm=4 + 30 * rng.beta(1.5, 3),
        wall_mm=rng.uniform(9, 18),
        marbling=rng.uniform(0.6, 2.0),
        bone=rng.uniform(0.55, 1.15),
        hu=draw_phantom_hu(rng),
        aorta=draw_aorta(rng),
        iliac_mm=14 * vessels.beta(1, 3),
    )
    return replace(patient, dissection=draw_dissection(vessels, patient.hu["aorta"]))


def draw_dissection(rng: np.random.Generator, lumen_hu: float) -> Dissection | None:
    """A flap, in one of five bodies with contrast medium: without it nobody would see one."""
    if rng.uniform() > 0.2 or lumen_hu < 120:
        return None
    start, stop = rng.uniform(0.02, 0.45), rng.uniform(0.6, 1.0)
    angle, turns = rng.uniform(0, 2 * np.pi), rng.uniform(-1.0, 1.0)
    return Dissection(start, stop, angle, turns, rng.uniform(-0.3, 0.4), rng.uniform(1.0, 2.5), lumen_hu * rng.uniform(0.35, 1.0))


def rotation(degrees: ArrayLike) -> NDArray[np.float64]:
    """Rotation about x, then y, then z."""
    turn: NDArray[np.float64] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return turn
