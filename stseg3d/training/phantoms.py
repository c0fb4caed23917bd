"""CT phantoms made in code alone: a body whose aorta is known voxel by voxel, to learn from, to test with and for the demo.

``python -m stseg3d.training.phantoms OUT --training 20 --validation 4`` writes a data set.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from stseg3d.geometry import Grid
from stseg3d.training.anatomy import AIR_HU, Painter, Patient, cage, draw_patient, paint_patient, paint_table

logger = logging.getLogger(__name__)


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
    return _scan(rng, painter, grid), label, grid


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


def _scan(rng: np.random.Generator, painter: Painter, grid: Grid) -> NDArray[np.int16]:
    """The painted image as a scanner shows it: blurred, with texture, correlated noise and streaks; int16."""
    image = painter.image
    gaussian_filter(image, rng.uniform(0.3, 0.7) * np.array([1, 1, rng.uniform(0.5, 1.2)]), output=image, truncate=3)
    tissue = np.clip((image + 1000) / 900, 0.15, 1)
    for sigma, low, high in ((rng.uniform(0.4, 0.9), 6, 36), (rng.uniform(1.6, 3.0), 3, 9)):
        noise = rng.standard_normal(grid.shape, dtype=np.float32)
        gaussian_filter(noise, (sigma, sigma, 0.5 * sigma), output=noise, truncate=3)
        noise *= np.float32(rng.uniform(low, high) / noise[::7, ::7, ::7].std())
        noise *= tissue
        image += noise
        del noise
    _add_streaks(rng, painter, image)
    return np.clip(np.rint(image, out=image), AIR_HU, 3071, out=image).astype(np.int16)


def _add_streaks(rng: np.random.Generator, painter: Painter, image: NDArray[np.float32]) -> None:
    """Streaks from side to side where the shoulders and hips take most of the photons."""
    strength = rng.uniform(0, 25) * (np.exp(-(((painter.z - 225) / 35) ** 2)) + 0.7 * np.exp(-(((painter.z + 250) / 40) ** 2)))
    for k in np.flatnonzero(strength > 1.0):
        noise = gaussian_filter1d(rng.standard_normal(image.shape[:2], dtype=np.float32), 9, axis=0)
        image[:, :, k] += np.float32(strength[k] / noise.std()) * noise * (image[:, :, k] > -500)


def write_dataset(
    folder: str | Path, training: int, validation: int, *, seed: int = 0, shape: tuple[int, int, int] = (160, 160, 128)
) -> Path:
    """Write phantoms in the layout of the Medical Segmentation Decathlon.

    Args:
        folder: Where to write; made if need be.
        training: Number of cases to train with.
        validation: Number of cases to validate with.
        seed: Seed of the data set; case n of a seed is the same in every data set.
        shape: Voxels of every image.

    Returns:
        Path of ``dataset.json``.
    """
    folder = Path(folder)
    lists = {"training": range(training), "validation": range(10_000, 10_000 + validation)}
    entries = {name: [_write_case(folder, name, n, seed, shape) for n in numbers] for name, numbers in lists.items()}
    content = {
        "name": "aorta_ct_phantoms",
        "description": "CT phantoms made by stseg3d.training.phantoms; the aorta from the valve to the bifurcation",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "aorta"},
        "numTraining": training,
        **entries,
    }
    path = folder / "dataset.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def _write_case(folder: Path, part: str, number: int, seed: int, shape: tuple[int, int, int]) -> dict[str, str]:
    start = time.perf_counter()
    image, label, grid = ct_phantom(shape, seed=(seed, number))
    ending = "Tr" if part == "training" else "Ts"
    entry = {kind: f"./{kind}s{ending}/phantom_{number:05d}.nii.gz" for kind in ("image", "label")}
    for kind, array in (("image", image), ("label", label)):
        path = folder / entry[kind]
        path.parent.mkdir(parents=True, exist_ok=True)
        volume = nib.Nifti1Image(array, grid.affine)
        volume.header.set_xyzt_units("mm")
        nib.save(volume, path)
    logger.info("%s case %d: %.1f s", part, number, time.perf_counter() - start)
    return entry


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a data set as the command line asks."""
    parser = argparse.ArgumentParser(
        prog="python -m stseg3d.training.phantoms", description="Write a data set of CT phantoms with their aorta."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--training", type=int, default=20)
    parser.add_argument("--validation", type=int, default=4)
    parser.add_argument("--shape", type=int, nargs=3, default=(160, 160, 128))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    path = write_dataset(options.folder, options.training, options.validation, seed=options.seed, shape=tuple(options.shape))
    logger.info("%s", path)


if __name__ == "__main__":
    main()
