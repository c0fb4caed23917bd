"""Each embedded bundle in a folder of its own, a small scan in which it finds something, and the labels that `stseg3d segment` gives it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from stseg3d.bundle import WEIGHTS, bundle_names, find_bundle
from stseg3d.inference.segment import Segmenter
from stseg3d.synthesis.phantoms import write_dataset
from stseg3d.volumes import load_dataset
from tests.phantoms import near
from tests.training.conftest import bundle, dataset, trained, trained_once

__all__ = ["bundle", "dataset", "trained", "trained_once"]  # the tiny ones, for what trains


@dataclass(frozen=True)
class Contract:
    """What a loader is given, and what is due.

    Attributes:
        bundle: A copy of an embedded bundle, whose folder is called as the original is.
        image: File of a scan.
        labels: Label map on the scan's grid, as ``Segmenter`` writes it.
    """

    bundle: Path
    image: Path
    labels: NDArray[np.generic]

    @property
    def affine(self) -> NDArray[np.float64]:
        found: NDArray[np.float64] = nib.load(self.image).affine
        return found


def spine(path: Path) -> Path:
    """Five bright discs between dark bodies: what the vertebrae bundle takes for the bodies of a lumbar spine. Stored as L P S."""
    shape, spacing = (24, 64, 64), np.array((3.2, 3.5, 3.5))
    middle = spacing * shape / 2
    apart = [(np.arange(n) + 0.5) * s - m for n, s, m in zip(shape, spacing, middle, strict=True)]
    image = np.full(shape, 150.0)
    x, y, z = np.ix_(*apart)
    image[np.broadcast_to((abs(x) <= 24) & (abs(y) <= 17), shape)] = 250
    for place in range(-3, 4):
        image[(x / 24) ** 4 + (y / 17) ** 4 + ((z - 36 * place) / 13) ** 4 <= 1] = 60
    image += np.random.default_rng(0).normal(0, 8, shape)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1])
    affine[:3, 3] = (30, 110, -400)
    nib.save(nib.Nifti1Image(image[::-1, ::-1].astype(np.int16), affine), path)
    return path


def nuclei(path: Path) -> Path:
    """Bright discs in one slice of three channels, (i, j, 1, 3)."""
    mask = near(np.array([[20.0, 20], [20, 34], [60, 70], [99, 40]]), 8, (110, 90))
    grey = (30 + 180 * mask).astype(np.uint8)
    picture = np.stack([grey, grey // 2, 255 - grey], axis=-1)[:, :, None]
    nib.save(nib.Nifti1Image(picture, np.diag([0.5, 0.5, 1, 1])), path)
    return path


def chest(path: Path) -> Path:
    """A CT phantom."""
    case = load_dataset(write_dataset(path.parent / "chest", training=1, validation=0, seed=3, shape=(64, 64, 56))).training[0]
    return Path(shutil.copy(case.image, path))


SCANS = {"aorta_ct_segmentation": chest, "nuclei_segmentation": nuclei, "vertebrae_mr_segmentation": spine}


@pytest.fixture(scope="session", params=bundle_names())
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, NDArray[np.generic]]:
    """Name of a bundle, a scan, and the labels that are due."""
    folder = tmp_path_factory.mktemp("contract")
    image = SCANS[request.param](folder / "scan.nii.gz")
    outcome = Segmenter(request.param, device="cpu").segment(image, folder / "out")
    return request.param, image, np.asarray(nib.load(outcome.output).dataobj)


@pytest.fixture
def contract(case: tuple[str, Path, NDArray[np.generic]], tmp_path: Path) -> Contract:
    name, image, labels = case
    copy = tmp_path / name
    shutil.copytree(find_bundle(name), copy, ignore=shutil.ignore_patterns("logs", "stages", "eval"))
    if not (copy / WEIGHTS).is_file():
        pytest.skip(f"{name} has no {WEIGHTS} yet")
    return Contract(copy, image, labels)


def files(folder: Path) -> set[Path]:
    """What lies in a bundle: a loader that only segments must leave it as it was."""
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
