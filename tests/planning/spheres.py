"""Data sets of spheres, as files in folders: small enough to be examined and planned in a moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from stseg3d.planning.examine import objects_of
from stseg3d.planning.fingerprint import CaseFingerprint, Fingerprint, Intensity

Label = NDArray[np.uint8]


def spheres(shape: Sequence[int], *centres: Sequence[float], radius: float = 5, values: Sequence[int] = ()) -> Label:
    """Label map of spheres, numbered from 1 or with the given values."""
    label = np.zeros(shape, np.uint8)
    grid = np.indices(shape)
    for n, centre in enumerate(centres):
        inside = sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) < radius**2
        label[inside] = values[n] if values else n + 1
    return label


def write_case(
    folder: Path, name: str, label: NDArray[Any], *, spacing: Sequence[float] = (1, 1, 1), noise: float = 10, low: float = 50
) -> None:
    """An image, bright where the label is, in ``images`` and its label in ``labels``."""
    rng = np.random.default_rng(len(name))
    image = (low + 100 * (label > 0) + rng.normal(0, noise, label.shape)).astype(np.int16)
    for kind, array in (("images", image), ("labels", label)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, np.diag([*spacing, 1])), folder / kind / f"{name}.nii.gz")


def write_cases(folder: Path, count: int, label: Callable[[int], Label], **options: Any) -> Path:
    """Several cases."""
    for n in range(count):
        write_case(folder, f"case{n}", label(n), **options)
    return folder


def fingerprint_of(
    labels: Sequence[Label], names: dict[str, str], *, spacing: Sequence[float] = (1.0, 1.0, 1.0), low: float = 0.0, pictures: bool = False
) -> Fingerprint:
    """Fingerprint of label maps, as if their images had values from ``low``."""
    intensity = (Intensity(low, low + 5, low + 50, low + 95, low + 100, low + 50, 25.0),) * (3 if pictures else 1)
    cases = [
        CaseFingerprint(
            id=f"case{n}",
            shape=label.shape,
            spacing_mm=tuple(spacing),
            orientation="RAS",
            dtype="int16",
            intensity=intensity,
            foreground=intensity,
            zero_share=0.0,
            together=objects_of((label > 0).astype(np.uint8), spacing).get("1"),
            classes=objects_of(label, spacing),
        )
        for n, label in enumerate(labels)
    ]
    return Fingerprint(names, ("scan",), pictures, intensity, intensity, tuple(cases))
