"""Demonstration: the aorta bundle on a CT phantom or the user's own scan, with scores and a picture."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib

from stseg3d.bundle import find_bundle
from stseg3d.inference.segment import Segmenter
from stseg3d.metrics import Confusion, confusion
from stseg3d.report import picture_of_case
from stseg3d.synthesis import ct_phantom
from stseg3d.volumes import ensure_writable, open_volume, write_labels

logger = logging.getLogger(__name__)

BUNDLE_NAME = "aorta_ct_segmentation"


@dataclass(frozen=True, slots=True)
class Demonstration:
    """Result of the demo."""

    files: dict[str, Path]  # path of each file, by what it holds
    boxes: int  # number of boxes
    counts: Confusion | None  # agreement with the phantom's ground truth; None for the user's own scan


def demonstrate(
    output_dir: Path, scan: Path | None = None, *, seed: int = 8, device: str = "auto", shape: tuple[int, int, int] = (256, 256, 200)
) -> Demonstration:
    """Segment the aorta in a phantom, score it against the known truth, and draw it.

    Args:
        output_dir: Folder for all files; created if missing.
        scan: The user's own CT instead of the phantom, without scores.
        seed: Seed of the phantom.
        device: Name for :func:`stseg3d.bundle.select_device`.
        shape: Size of the phantom in voxels.
    """
    if scan:
        open_volume(scan)  # raises before anything is written
    ensure_writable(output_dir)
    segmenter = Segmenter(find_bundle(BUNDLE_NAME), device=device)
    files: dict[str, Path] = {"scan": scan} if scan else _write_phantom(output_dir, seed, shape)
    logger.info("segmenting %s", files["scan"])
    outcome = segmenter.segment(files["scan"], output_dir)
    files["segmentation"] = outcome.output
    files["what was done"] = output_dir / f"{outcome.case_id}_seg.json"
    labels = open_volume(outcome.output).read()[0]
    truth = open_volume(files["truth"]).read()[0] if "truth" in files else None
    logger.info("drawing")
    files["picture"] = output_dir / f"{outcome.case_id}_seg.png"
    picture_of_case(open_volume(files["scan"]), labels, outcome.boxes, files["picture"], truth=truth)
    counts = None if truth is None else confusion(labels, truth)
    return Demonstration(files, len(outcome.boxes), counts)


def _write_phantom(folder: Path, seed: int, shape: tuple[int, int, int]) -> dict[str, Path]:
    logger.info("making a CT phantom of %s voxels", " x ".join(map(str, shape)))
    image, label, grid = ct_phantom(shape, seed=seed)
    scan = folder / "phantom.nii.gz"
    header = nib.Nifti1Header()
    header.set_data_dtype(image.dtype)
    header.set_xyzt_units("mm", "sec")
    nib.save(nib.Nifti1Image(image, grid.affine, header), scan)
    return {"scan": scan, "truth": write_labels(label, folder / "phantom_truth.nii.gz", open_volume(scan))}
