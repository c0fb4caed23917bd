"""MONAI's own loaders: `monai.bundle.load`, `create_workflow`, `run_workflow`, `ckpt_export`.

The command line is in tests/bundles/test_one_path.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ckpt_export, create_workflow, load, run_workflow
from monai.utils import set_determinism

from stseg3d.bundle import WEIGHTS
from stseg3d.volumes.monai_io import LoadImageVolumed
from tests.contracts.conftest import Contract, files


def arguments(contract: Contract, out: Path) -> dict[str, str]:
    configs = contract.bundle / "configs"
    paths = {"config_file": configs / "inference.json", "meta_file": configs / "metadata.json", "logging_file": configs / "logging.conf"}
    paths |= {"bundle_root": contract.bundle, "dataset_dir": contract.image, "output_dir": out}
    return {name: str(path) for name, path in paths.items()} | {"device": "$torch.device('cpu')", "workflow_type": "inference"}


@pytest.mark.slow
def test_the_phantoms_are_no_empty_cases(contract: Contract) -> None:
    assert contract.labels.any()


def created_and_run(**kwargs: str) -> None:
    create_workflow(**kwargs).run()


@pytest.mark.parametrize("run", [created_and_run, pytest.param(run_workflow, marks=pytest.mark.slow)])
def test_a_workflow_writes_the_labels_of_the_command(contract: Contract, tmp_path: Path, run: Callable[..., None]) -> None:
    before = files(contract.bundle)
    try:
        run(**arguments(contract, tmp_path / "out"))
    finally:
        set_determinism(None)  # what `initialize` has set for the whole process
    found = nib.load(tmp_path / "out/scan_seg.nii.gz")
    np.testing.assert_array_equal(np.asarray(found.dataobj), contract.labels)
    np.testing.assert_allclose(found.affine, contract.affine, atol=1e-6)
    assert files(contract.bundle) == before


@pytest.mark.slow
def test_load_gives_the_network_with_its_weights(contract: Contract) -> None:
    try:
        network = load(contract.bundle.name, bundle_dir=str(contract.bundle.parent), workflow_type="inference", device="cpu").eval()
    finally:
        set_determinism(None)
    parser = ConfigParser()
    parser.read_config(str(contract.bundle / "configs/inference.json"))
    image = LoadImageVolumed("image")({"image": contract.image})["image"]
    np.testing.assert_array_equal(parser.get_parsed_content("inferer")(image[None], network)[0, 0], contract.labels)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TorchScript, throughout
def test_an_exported_network_computes_the_same(contract: Contract, tmp_path: Path) -> None:
    config, out = str(contract.bundle / "configs/inference.json"), tmp_path / "model.ts"
    meta, weights = str(contract.bundle / "configs/metadata.json"), str(contract.bundle / WEIGHTS)
    ckpt_export("network_def", str(out), weights, meta, config, bundle_root=str(contract.bundle))
    parser = ConfigParser()
    parser.read_config(config)
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    stages = [parser.get_parsed_content(f"{stage}_stage") for stage in ("rough", "fine")]
    channels = parser.get_parsed_content("inferer").image.channels
    exported = torch.jit.load(out).eval()
    with torch.no_grad():
        for stage, name in zip(stages, ("rough", "fine"), strict=True):
            x = torch.rand(1, channels + int(stage.rough_channel), *stage.size)
            torch.testing.assert_close(getattr(exported, name)(x), getattr(network, name)(x), atol=1e-4, rtol=1e-4)
