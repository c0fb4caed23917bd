"""MONAI Label's bundle tasks, the real ones of the package `monailabel`, and what 3D Slicer shows of them.

The package pins much that a bundle does not need, so that it is no extra of ours; beside what is installed, this is enough:
`pip install --no-deps monailabel==0.8.5`, and then what its import asks for. It needs a torchvision that fits torch.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import SaveImaged

from stseg3d.bundle import WEIGHTS, bundle_names, find_bundle, load_network
from stseg3d.training.run import train_bundle
from stseg3d.volumes.monai_io import SaveImageLabelsd
from tests.contracts.conftest import Contract, files

pytestmark = pytest.mark.filterwarnings("default")  # other people's


def label_task(kind: str) -> Any:
    try:
        import monailabel.tasks.infer.bundle
        import monailabel.tasks.train.bundle
    except Exception as error:  # an ImportError, or what torchvision raises where it does not fit torch
        pytest.skip(f"monailabel is not installed, or not whole: {error}")
    tasks = {"infer": monailabel.tasks.infer.bundle.BundleInferTask, "train": monailabel.tasks.train.bundle.BundleTrainTask}
    return tasks[kind]


def request_for(contract: Contract, **more: Any) -> dict[str, Any]:
    return {"model": contract.bundle.name, "image": str(contract.image), "device": "cpu", "result_extension": ".nii.gz", **more}


# --- without the package -----------------------------------------------------


def test_our_writer_is_of_the_class_that_label_leaves_out() -> None:
    """Label filters by class; it writes itself (``BundleInferTask(post_filter=[SaveImaged])``, monailabel 0.8.5)."""
    assert issubclass(SaveImageLabelsd, SaveImaged)


@pytest.mark.parametrize("name", bundle_names())
def test_training_begins_with_the_weights_there_are(name: str) -> None:
    """Label puts a ``CheckpointLoader`` first where no handler is named so (``BundleTrainTask._load_checkpoint``, monailabel 0.8.5)."""
    handlers = json.loads((find_bundle(name) / "configs/train.json").read_text())["train"]["handlers"]
    assert "CheckpointLoader" not in {handler["_target_"] for handler in handlers}


# --- inference ---------------------------------------------------------------


@pytest.mark.slow
def test_label_gives_the_labels_of_the_command_and_leaves_the_bundle_alone(contract: Contract) -> None:
    before = files(contract.bundle)
    task = label_task("infer")(str(contract.bundle), {})
    assert task.is_valid()
    result, _ = task(request_for(contract))
    found = nib.load(result)
    np.testing.assert_array_equal(np.asarray(found.dataobj).reshape(contract.labels.shape), contract.labels)
    np.testing.assert_allclose(found.affine, contract.affine, atol=1e-4)
    assert files(contract.bundle) == before


@pytest.mark.slow
def test_slicer_is_told_what_it_is_and_what_can_be_set(contract: Contract) -> None:
    info = label_task("infer")(str(contract.bundle), {}).info()
    assert info["type"] == "segmentation"
    assert info["dimension"] == 3
    assert info["labels"]
    shown = json.loads((contract.bundle / "configs/inference.json").read_text())["displayable_configs"]
    assert shown.items() <= info["config"].items()
    assert info["config"]["model_filename"] == ["model.pt"]


@pytest.mark.slow
def test_what_is_set_in_slicer_takes_effect(contract: Contract) -> None:
    task = label_task("infer")(str(contract.bundle), {})
    _, found = task(request_for(contract, threshold=1.0, skip_writer=True))  # nothing is as probable as that
    assert not np.asarray(found["pred"]).any()


# --- training ----------------------------------------------------------------


class Datastore:
    """As much of Label's as a bundle's training asks for."""

    def __init__(self, dataset: Path) -> None:
        content = json.loads(dataset.read_text())
        cases = content["training"] + content["validation"]
        self.cases = [{key: str(dataset.parent / case[key]) for key in ("image", "label")} for case in cases]

    def datalist(self) -> list[dict[str, str]]:
        return self.cases


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.0, 0.01])
def test_a_click_on_train_goes_on_with_the_weights_and_leaves_a_whole_model(bundle: Path, dataset: Path, rate: float) -> None:
    train = label_task("train")
    train_bundle(bundle, dataset, epochs=1, device="cpu")
    before = torch.load(bundle / WEIGHTS, weights_only=True)
    path = bundle / "configs/train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"learning_rate": {"rough": rate, "fine": rate}}))
    store = Datastore(dataset)
    dataset.unlink()  # Label has a list of its own, and no such file
    train(str(bundle), {})({"model": bundle.name, "device": "cpu", "max_epochs": 2, "val_split": 0.4}, store)
    load_network(bundle)
    after = torch.load(bundle / WEIGHTS, weights_only=True)
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("rough."))
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("fine.")) == (rate == 0)


@pytest.mark.slow
def test_label_trains_on_several_gpus_by_the_overlay(bundle: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Label writes its settings into ``monailabel_train.json`` and gives both files to ``torchrun``; here for two processes on the CPU."""
    train = label_task("train")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    train_bundle(bundle, dataset, epochs=1, device="cpu")
    before = torch.load(bundle / WEIGHTS, weights_only=True)
    store = Datastore(dataset)
    dataset.unlink()
    request = {"model": bundle.name, "device": "cpu", "max_epochs": 2, "val_split": 0.4, "force_multi_gpu": True, "gpus": "0,1"}
    train(str(bundle), {})(request, store)
    after = load_network(bundle)[0].state_dict()
    assert any(not torch.equal(before[name].float(), after[name]) for name in after if name.startswith("fine."))
