"""One scan of a body: which phase, how bright each tissue is, how sharp and how noisy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stseg3d.training.synthesis.tissues import PHASE_CHANCES, PHASES, TISSUES

# Fillings of stomach and bowel: mean in HU and how often.
CONTENTS: tuple[tuple[tuple[float, float], float], ...] = (((-20, 40), 0.55), ((40, 120), 0.15), ((150, 700), 0.15), ((-120, 0), 0.15))

# How many classes a scan hides, or shows as bright as another one.
HIDDEN, CONFUSED = 0.03, 0.04


@dataclass(frozen=True, eq=False)
class Scan:
    """What differs from scan to scan.

    Attributes:
        seed: Seed of its textures.
        hu: Mean of each tissue.
        offsets_hu: What each class adds to the mean of its tissue, ``(256,)``.
        phase: Phase of the contrast medium.
        contents_hu: Mean of what fills stomach and bowel.
        gasless: How little gas is in them, in standard deviations of a smooth field.
        fat_mm: Thickness of the fat under the skin.
        muscle_mm: Thickness of the wall below it.
        fatness: Quantile of the inner tissue that is fat, not soft tissue.
        vessels: How many small vessels run through fat and lung, 0 to 1.
        calcified: How much of the aorta's wall is calcified, 0 to 1.
        thrombus: How much of the aorta is thrombus, 0 to 1; 0 in most scans.
        flap: Width in mm of a dissection's flap; 0 in most scans.
        false_lumen_hu: Difference of the second lumen, behind the flap.
        texture: Factor on what is uneven inside tissues.
        sharpness_mm: Standard deviation of the blur on each axis.
        slice_mm: Thickness of a slice along the third axis.
        noise_hu: Standard deviation of the noise.
        grain_mm: How far the noise is correlated, in the plane; 0 for white noise.
        floor_hu: Value of what lies outside the body or the scanner's circle.
        shading_hu: Smooth shading over the image.
        table_hu: Mean of the table.
        circle: Whether the image ends at the scanner's circle.
        hidden: Classes that look like the tissue between organs, ``(256,)``: what nobody labelled in other bodies.
        taken_for: Class that each class looks like, ``(256,)``: itself, but for a few.
    """

    seed: int
    hu: Mapping[str, float]
    offsets_hu: NDArray[np.float32]
    phase: str
    contents_hu: float
    gasless: float
    fat_mm: float
    muscle_mm: float
    fatness: float
    vessels: float
    calcified: float
    thrombus: float
    flap: float
    false_lumen_hu: float
    texture: float
    sharpness_mm: float
    slice_mm: float
    noise_hu: float
    grain_mm: float
    floor_hu: float
    shading_hu: float
    table_hu: float
    circle: bool
    hidden: NDArray[np.bool_]
    taken_for: NDArray[np.intp]


def draw_scan(rng: np.random.Generator) -> Scan:
    """A random scan."""
    phase = str(rng.choice(list(PHASE_CHANCES), p=list(PHASE_CHANCES.values())))
    hu = {name: rng.uniform(*PHASES[phase].get(name, tissue.hu)) + rng.normal(0, 4) for name, tissue in TISSUES.items()}
    if phase == "none":  # blood is blood
        blood = rng.uniform(*TISSUES["arteries"].hu)
        hu |= {name: blood + rng.normal(0, 2) for name in ("arteries", "veins", "portal", "right_heart", "pulmonary")}
    contents = CONTENTS[rng.choice(len(CONTENTS), p=[chance for _, chance in CONTENTS])][0]
    enhanced = phase != "none"
    return Scan(
        seed=int(rng.integers(2**32)),
        hu=hu,
        offsets_hu=rng.normal(0, 5, 256).astype(np.float32),
        phase=phase,
        contents_hu=rng.uniform(*contents),
        fat_mm=4 + 30 * rng.beta(1.5, 3),
        muscle_mm=rng.uniform(6, 18),
        fatness=rng.uniform(0.3, 0.95),
        vessels=rng.uniform(0, 1),
        calcified=float(rng.choice([0, 0, rng.uniform(0, 1)])),
        thrombus=float(rng.uniform(0.1, 0.6)) if rng.uniform() < 0.2 else 0.0,
        flap=float(rng.uniform(1.0, 3.0)) if enhanced and rng.uniform() < 0.2 else 0.0,
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
