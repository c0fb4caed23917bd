"""A data set of phantoms, in the layout of the Medical Segmentation Decathlon."""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib

from stseg3d.synthesis.phantoms.phantom import ct_phantom

logger = logging.getLogger(__name__)


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
    content = {
        "name": "aorta_ct_phantoms",
        "description": "CT phantoms made by stseg3d.synthesis.phantoms; the aorta from the valve to the bifurcation",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "aorta"},
        "numTraining": training,
        **{name: [_write_case(folder, name, n, seed, shape) for n in numbers] for name, numbers in lists.items()},
    }
    path = folder / "dataset.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def _write_case(folder: Path, part: str, number: int, seed: int, shape: tuple[int, int, int]) -> dict[str, str]:
    start = time.perf_counter()
    image, label, grid = ct_phantom(shape, seed=(seed, number))
    ending = "Tr" if part == "training" else "Ts"
    entry = {kind: f"./{kind}s{ending}/phantom_{number:05d}.nii.gz" for kind in ("image", "label")}
    for path, array in zip(entry.values(), (image, label), strict=True):
        volume = nib.Nifti1Image(array, grid.affine)
        volume.header.set_xyzt_units("mm")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        nib.save(volume, folder / path)
    logger.info("%s case %d: %.1f s", part, number, time.perf_counter() - start)
    return entry


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a data set as the command line asks."""
    parser = argparse.ArgumentParser(
        prog="python -m stseg3d.synthesis.phantoms", description="Write a data set of CT phantoms with their aorta."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--training", type=int, default=20)
    parser.add_argument("--validation", type=int, default=4)
    parser.add_argument("--shape", type=int, nargs=3, default=(160, 160, 128))
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args(arguments))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logger.info("%s", write_dataset(**options | {"shape": tuple(options["shape"])}))
