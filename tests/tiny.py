"""A bundle and data sets so small that a training takes seconds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.bundle import ConfigParser
from numpy.typing import NDArray

from stseg3d.bundle import METADATA, PLAN, config_parser, find_bundle, open_bundle, write_plan
from stseg3d.geometry import Box
from stseg3d.plan import Plan, set_entries

SIZE = (16, 16, 16)
UNET = {"channels": [4, 8], "strides": [2], "num_res_units": 0}


def read_config(bundle: Path, *names: str, overrides: dict[str, Any] | None = None, trust: bool = False) -> ConfigParser:
    """Parser of a bundle's configs, by default of ``inference.json``."""
    return config_parser(open_bundle(bundle, trust=trust), names or ["inference.json"], overrides=overrides)


def tiny_bundle(root: Path, **entries: Any) -> Path:
    """The vertebrae bundle without weights, its networks and inputs made small, and further entries of the plan set."""
    source = find_bundle("vertebrae_mr")
    (root / "configs").mkdir(parents=True)
    shutil.copy(source / METADATA, root / METADATA)
    plan = Plan.parse((source / PLAN).read_bytes())
    small: dict[str, Any] = {"policy#min_volume_mm3": 0.0}
    for stage in ("rough", "fine"):
        small[f"{stage}#size"] = list(SIZE)
        small |= {f"{stage}#network#{key}": value for key, value in UNET.items()}
    write_plan(root, set_entries(plan, small | entries))
    return root


def blocks(shape: tuple[int, ...], *boxes: Box) -> NDArray[np.uint8]:
    """A label map of bright blocks, the first with value 1."""
    label = np.zeros(shape, dtype=np.uint8)
    for value, box in enumerate(boxes, start=1):
        label[box.slices] = value
    return label


def tiny_dataset(folder: Path, labels: list[NDArray[np.uint8]]) -> Path:
    """A volume for each label map, bright where it is not 0; two to train, the others to validate."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    cases = []
    for n, label in enumerate(labels):
        image = (label > 0) * 200 + rng.integers(0, 30, label.shape)
        for kind, array in (("image", image.astype(np.int16)), ("label", label)):
            nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"{kind}{n}.nii.gz")
        cases.append({"image": f"image{n}.nii.gz", "label": f"label{n}.nii.gz"})
    path = folder / "dataset.json"
    path.write_text(json.dumps({"name": "blocks", "training": cases[:2], "validation": cases[2:]}))
    return path
