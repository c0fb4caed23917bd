"""A bundle and a data set so small that a comparison takes seconds, and one that was made of them."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from stseg3d.bundle import find_bundle
from stseg3d.compare import Comparison, compare
from stseg3d.compare.runs import SLIDING, TWO_STAGE, Run

UNET = {"channels": [4, 8], "strides": [2], "num_res_units": 0}
SHAPE = (40, 32, 24)


@dataclass(frozen=True)
class Compared:
    """A comparison at 16, with the rough network alone at 32, in a folder."""

    bundle: Path
    data: Path
    folder: Path
    comparison: Comparison

    def run(self, kind: str) -> Run:
        stages = ("fine",) if kind == SLIDING else ("rough", "fine")
        return Run(self.folder / "016" / kind, 16, (16, 16, 16), kind, stages)

    @property
    def two_stage(self) -> Run:
        return self.run(TWO_STAGE)

    @property
    def sliding(self) -> Run:
        return self.run(SLIDING)


def make_bundle(root: Path) -> Path:
    """The vertebrae bundle without weights, its networks and inputs made small."""
    shutil.copytree(find_bundle("vertebrae_mr") / "configs", root / "configs")
    for name in ("train.json", "inference.json"):
        path = root / "configs" / name
        config = json.loads(path.read_text())
        for stage in ("rough", "fine"):
            config[f"{stage}_stage"]["size"] = (16, 16, 16)
            config[f"{stage}_network_def"] |= UNET
        config["policy"] |= {"min_volume_mm3": 0.0}
        path.write_text(json.dumps(config))
    return root


def make_dataset(folder: Path) -> Path:
    """Four small volumes, each with two bright blocks; two to train, two to validate."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    cases = []
    for n in range(4):
        label = np.zeros(SHAPE, dtype=np.uint8)
        label[6:18, 6:20, 4 + n : 12 + n] = 1
        label[24:34, 10:24, 10:18] = 2
        image = (label > 0) * 200 + rng.integers(0, 30, label.shape)
        for kind, array in (("image", image.astype(np.int16)), ("label", label)):
            nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"{kind}{n}.nii.gz")
        cases.append({"image": f"image{n}.nii.gz", "label": f"label{n}.nii.gz"})
    path = folder / "dataset.json"
    path.write_text(json.dumps({"name": "blocks", "training": cases[:2], "validation": cases[2:]}))
    return path


@contextmanager
def restored_logging() -> Iterator[None]:
    """Training sets up the root logger, with a stream that pytest closes after the test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    with restored_logging():
        yield


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny_segmentation")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "data")


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """Made once; a test that writes takes a copy."""
    root = tmp_path_factory.mktemp("compared")
    bundle, data, folder = make_bundle(root / "tiny_segmentation"), make_dataset(root / "data"), root / "out"
    with restored_logging():
        comparison = compare(bundle, data, folder, sizes=[16], rough_sizes=[32], epochs=12, device="cpu", alone=False)
    return Compared(bundle, data, folder, comparison)
