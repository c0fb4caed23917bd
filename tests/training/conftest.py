"""A bundle and a data set so small that a training takes seconds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from stseg3d.bundle import find_bundle

SIZE = (16, 16, 16)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The vertebrae bundle without weights, its networks and inputs made small."""
    root = tmp_path / "tiny_segmentation"
    shutil.copytree(find_bundle("vertebrae_mr") / "configs", root / "configs")
    for name in ("train.json", "inference.json"):
        path = root / "configs" / name
        config = json.loads(path.read_text())
        for stage in ("rough", "fine"):
            config[f"{stage}_stage"]["size"] = SIZE
            config[f"{stage}_network_def"] |= {"channels": [4, 8], "strides": [2], "num_res_units": 0}
        config["policy"] |= {"min_volume_mm3": 0.0}
        config["validate_every"] = {"rough": 1, "fine": 1}
        path.write_text(json.dumps(config))
    return root


@pytest.fixture
def dataset(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Three small volumes, each with two bright blocks."""
    folder = tmp_path / "data"
    folder.mkdir()
    cases = []
    for n in range(3):
        label = np.zeros((24, 24, 24), dtype=np.uint8)
        label[4:10, 6:16, 4 + n : 12 + n] = 1
        label[14:20, 6:16, 10:18] = 2
        image = (label > 0) * 200 + rng.integers(0, 30, label.shape)
        for kind, array in (("image", image.astype(np.int16)), ("label", label)):
            nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"{kind}{n}.nii.gz")
        cases.append({"image": f"image{n}.nii.gz", "label": f"label{n}.nii.gz"})
    path = folder / "dataset.json"
    path.write_text(json.dumps({"name": "blocks", "training": cases[:2], "validation": cases[2:]}))
    return path
