"""Provenance: the JSON beside labels, which says how they came about."""

from __future__ import annotations

import platform
from functools import cache, reduce
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from stseg3d.geometry import Box
from stseg3d.inference.boxfile import describe_box
from stseg3d.inference.segmentation import Segmentation
from stseg3d.volumes import FileVolume, Volume

PACKAGES = ("stseg3d", "torch", "monai", "numpy", "scipy", "nibabel", "SimpleITK", "pydicom")


def describe_segmentation(found: Segmentation, volume: Volume) -> dict[str, Any]:
    """The image's grid and what was found on it: volumes, boxes, components without a box, counts, warnings."""
    return {
        "grid": {
            "shape": list(volume.grid.shape),
            "spacing_mm": [round(s, 6) for s in volume.grid.spacing_mm],
            "orientation": volume.grid.orientation,
            "dtype": str(volume.dtype),
        },
        **({"dicom": volume.about} if isinstance(volume, FileVolume) and volume.about else {}),
        "volume_ml": volumes_ml(found, volume),
        "boxes": [
            describe_box(b.box, volume.grid) | {"components": sorted(b.components), "clipped": b.clipped, "tile": b.tile}
            for b in found.boxes
        ],
        "dropped": [describe_box(d.box, volume.grid) | {"volume_mm3": d.volume_mm3, "why": d.why} for d in found.dropped],
        "counts": {k: int(v) for k, v in found.counts.items()},
        "warnings": found.warnings,
    }


def volumes_ml(found: Segmentation, volume: Volume) -> dict[str, float]:
    """Volume of each label or instance, in ml."""
    where = reduce(Box.union, (b.box for b in found.boxes), found.boxes[0].box if found.boxes else volume.grid.box)  # no labels elsewhere
    labels = found.labels[where.slices]
    counts = np.zeros(int(labels.max()) + 1, dtype=np.int64)
    for k in range(labels.shape[-1]):  # slice by slice: numpy counts in integers of 8 bytes a voxel
        plane = labels[..., k]
        if plane.max():  # ten times quicker than counting
            counts += np.bincount(plane.ravel(order="K"), minlength=len(counts))
    return {str(k): round(float(n) * volume.grid.voxel_mm3 / 1000, 3) for k, n in enumerate(counts) if k and n}


def versions(runtime: str) -> dict[str, str]:
    """Versions of Python and of the packages that a result may depend on, including the runtime."""
    packages = PACKAGES if runtime in PACKAGES else (*PACKAGES, runtime)
    return {"python": platform.python_version()} | {package: _version(package) for package in packages}


@cache  # each answer is read from files
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
