"""One scan of a body: what differs from scan to scan, and what a scanner makes of an image of tissues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from stseg3d.geometry import Box, Grid
from stseg3d.synthesis.fields import Field, Mask, correlated_noise, smooth_field
from stseg3d.synthesis.tissues import draw_hu

AIR_HU, LOWEST_HU, HIGHEST_HU = -1024.0, -3024.0, 3071.0

# Fillings of stomach and bowel: mean in HU and how often.
CONTENTS: tuple[tuple[tuple[float, float], float], ...] = (((-20, 40), 0.55), ((40, 120), 0.15), ((150, 700), 0.15), ((-120, 0), 0.15))

# How many classes a scan hides, or shows as bright as another one.
HIDDEN, CONFUSED = 0.03, 0.04


@dataclass(frozen=True, eq=False)
class Scan:
    """What differs from scan to scan."""

    seed: int  # of its textures
    hu: Mapping[str, float]  # mean of each tissue
    offsets_hu: NDArray[np.float32]  # what each class adds to the mean of its tissue, (256,)
    contents_hu: float  # mean of what fills stomach and bowel
    gasless: float  # how little gas is in them, in standard deviations of a smooth field
    fat_mm: float  # thickness of the fat under the skin
    muscle_mm: float  # thickness of the wall below it
    fatness: float  # quantile of the inner tissue that is fat, not soft tissue
    vessels: float  # how many small vessels run through fat and lung, 0 to 1
    calcified: float  # how much of the aorta's wall is calcified, 0 to 1
    thrombus: float  # how much of the aorta is thrombus, 0 to 1; 0 in most scans
    flap: float  # width in mm of a dissection's flap; 0 in most scans
    false_lumen_hu: float  # difference of the second lumen, behind the flap
    texture: float  # factor on what is uneven inside tissues
    sharpness_mm: float  # standard deviation of the blur on each axis
    slice_mm: float  # thickness of a slice along the third axis
    noise_hu: float  # standard deviation of the noise
    grain_mm: float  # how far the noise is correlated, in the plane; 0 for white noise
    floor_hu: float  # value of what lies outside the body or the scanner's circle
    shading_hu: float  # smooth shading over the image
    table_hu: float  # mean of the table
    circle: bool  # whether the image ends at the scanner's circle
    hidden: Mask  # classes that look like the tissue between organs, (256,): what nobody labelled in other bodies
    taken_for: NDArray[np.intp]  # class that each class looks like, (256,): itself, but for a few


def draw_scan(rng: np.random.Generator) -> Scan:
    """A random scan."""
    phase, hu = draw_hu(rng)
    contents = CONTENTS[rng.choice(len(CONTENTS), p=[chance for _, chance in CONTENTS])][0]
    return Scan(
        seed=int(rng.integers(2**32)),
        hu=hu,
        offsets_hu=rng.normal(0, 5, 256).astype(np.float32),
        contents_hu=rng.uniform(*contents),
        fat_mm=4 + 30 * rng.beta(1.5, 3),
        muscle_mm=rng.uniform(6, 18),
        fatness=rng.uniform(0.3, 0.95),
        vessels=rng.uniform(0, 1),
        calcified=float(rng.choice([0, 0, rng.uniform(0, 1)])),
        thrombus=float(rng.uniform(0.1, 0.6)) if rng.uniform() < 0.2 else 0.0,
        flap=float(rng.uniform(1.0, 3.0)) if phase != "none" and rng.uniform() < 0.2 else 0.0,
        false_lumen_hu=float(-rng.uniform(0, 0.7) * max(hu["arteries"] - 40, 0)),
        texture=rng.uniform(0.3, 2.0),
        sharpness_mm=rng.uniform(0.4, 1.3),
        slice_mm=float(rng.choice([rng.uniform(0.5, 1.5), rng.uniform(1.5, 5.5)])),
        noise_hu=float(rng.choice([rng.uniform(4, 20), rng.uniform(15, 60)])),
        grain_mm=float(rng.choice([0.0, rng.uniform(0.6, 2.0)])),
        floor_hu=float(rng.choice([-1024, -1024, -1000, -2048, -3024])),
        shading_hu=rng.uniform(0, 12),
        table_hu=rng.uniform(-700, 60),
        circle=bool(rng.uniform() < 0.25),
        hidden=rng.uniform(size=256) < HIDDEN,
        gasless=rng.normal(0, 1),
        taken_for=np.where(rng.uniform(size=256) < CONFUSED, rng.integers(1, 120, 256), np.arange(256)),
    )


def scanned(image: Field, outside: Mask, scan: Scan, spacing_mm: Sequence[float], rng: np.random.Generator) -> Field:
    """An image of tissues ``(X, Y, Z)`` as a scan shows it: blurred, in slices, noisy, shaded, with a floor outside the body; HU."""

    def voxels(in_plane_mm: float, along_mm: float) -> list[float]:
        return [mm / s for mm, s in zip((in_plane_mm, in_plane_mm, along_mm), spacing_mm, strict=True)]

    image = gaussian_filter(image, voxels(scan.sharpness_mm, max(scan.slice_mm / 3, scan.sharpness_mm * 0.7)), truncate=2.5)
    noise = correlated_noise(rng, image.shape, voxels(scan.grain_mm, 0.4 * scan.grain_mm), truncate=2)
    if scan.grain_mm:
        noise /= max(float(noise.std()), 1e-6)
    image += np.float32(scan.noise_hu) * noise * noise_share(image)
    image += np.float32(scan.shading_hu) * smooth_field(rng, image.shape, spacing_mm, 120.0)
    image[outside] = np.maximum(image[outside], AIR_HU) if scan.floor_hu >= AIR_HU else np.float32(scan.floor_hu)
    return np.clip(image, LOWEST_HU, HIGHEST_HU, out=image)


def scanned_phantom(image: Field, z_mm: Field, rng: np.random.Generator) -> NDArray[np.int16]:
    """The image of a phantom as a random scan shows it: blurred, with texture, noise and streaks; HU.

    The image of tissues ``(X, Y, Z)`` is overwritten; ``z_mm`` is the height of each slice in the standard body.
    """
    gaussian_filter(image, rng.uniform(0.3, 0.7) * np.array([1, 1, rng.uniform(0.5, 1.2)]), output=image, truncate=3)
    share = noise_share(image)
    for sigma, low, high in ((rng.uniform(0.4, 0.9), 6, 36), (rng.uniform(1.6, 3.0), 3, 9)):
        noise = correlated_noise(rng, image.shape, (sigma, sigma, 0.5 * sigma), truncate=3)
        noise *= np.float32(rng.uniform(low, high) / noise[::7, ::7, ::7].std())
        noise *= share
        image += noise
        del noise
    _add_streaks(image, z_mm, rng)
    return np.clip(np.rint(image, out=image), AIR_HU, HIGHEST_HU, out=image).astype(np.int16)


def noise_share(image: Field) -> Field:
    """Share of the noise that each voxel shows: few photons are lost in lung and air, and so is their noise."""
    return np.clip((image + 1000) / 900, 0.15, 1)


def _add_streaks(image: Field, z_mm: Field, rng: np.random.Generator) -> None:
    """Streaks from side to side where the shoulders and hips take most of the photons."""
    strength = rng.uniform(0, 25) * (np.exp(-(((z_mm - 225) / 35) ** 2)) + 0.7 * np.exp(-(((z_mm + 250) / 40) ** 2)))
    for k in np.flatnonzero(strength > 1.0):
        noise = gaussian_filter1d(rng.standard_normal(image.shape[:2], dtype=np.float32), 9, axis=0)
        image[:, :, k] += np.float32(strength[k] / noise.std()) * noise * (image[:, :, k] > -500)


def beyond_circle(grid: Grid, box: Box) -> Mask:
    """Columns of a box outside the largest circle that fits into a slice, ``(X, Y)``."""
    spans = zip(box.start, box.stop, grid.shape[:2], grid.spacing_mm, strict=False)
    x, y = ((np.arange(low, high) + 0.5 - n / 2) * mm for low, high, n, mm in spans)
    radius = min(n * mm for n, mm in zip(grid.shape[:2], grid.spacing_mm, strict=False)) / 2
    return x[:, None] ** 2 + y[None, :] ** 2 > radius**2
