"""Voxels that a data set ignores: no loss, no gradient, no score and no box comes of them, from the files on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.losses import DiceCELoss
from monai.transforms import AsDiscreted
from monai.utils import set_determinism
from torch import Tensor

from stseg3d.bundle import load_network
from stseg3d.inference import Stage
from stseg3d.ops import BoxPolicy
from stseg3d.plan import Component
from stseg3d.plan.components import LOSSES
from stseg3d.plan.inference_config import component
from stseg3d.training import (
    FineBoxesd,
    FullResolutiond,
    HeadsLoss,
    OpenCased,
    RandFineCropsd,
    RandPatchesd,
    RoughSampled,
    WholeCased,
    with_ids,
)
from stseg3d.training.history import read_history
from stseg3d.training.run import train_bundle
from stseg3d.training.samples import IGNORED, label_tensor
from stseg3d.volumes import load_dataset, open_volume
from tests.tiny import tiny_bundle

SHAPE = (24, 24, 24)
NAMES = {"background": 0, "object": 1, "ignore": 2}


def write_dataset(folder: Path, change: Callable[[np.ndarray], np.ndarray], names: dict[str, Any] | None = None) -> Path:
    """Three cases of a bright cube of 1000 voxels and, in the image alone, another one; ``change`` makes the label of the cube's."""
    folder.mkdir(exist_ok=True)
    rng, cases = np.random.default_rng(0), []
    cube, other = np.zeros((2, *SHAPE), np.uint8)
    cube[6:16, 6:16, 4:14], other[6:16, 6:16, 18:] = 1, 1
    for n in range(3):
        image = ((cube + other) * 200 + rng.integers(0, 30, SHAPE)).astype(np.int16)
        for kind, array in (("image", image), ("label", change(cube.copy()))):
            nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"{kind}{n}.nii.gz")
        cases.append({"image": f"image{n}.nii.gz", "label": f"label{n}.nii.gz"})
    path = folder / "dataset.json"
    path.write_text(json.dumps({"labels": names or NAMES, "training": cases[:2], "validation": cases[2:]}))
    return path


def ignoring(cube: np.ndarray) -> np.ndarray:
    cube[:, :, 18:] = 2
    return cube


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data", ignoring)


@pytest.fixture
def opened(dataset: Path) -> dict[Any, Any]:
    return OpenCased()(with_ids(load_dataset(dataset).training)[0])


# --- from files to samples ---------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda cube: cube * np.int16(200) - np.int16(20), "labels must not be negative, got -20 to 180: is it a scan?"),
        (lambda cube: cube * np.float32(0.5), "labels must be whole numbers, got 0.5; 1000 of 13824 voxels are not"),
        (lambda cube: cube * np.float32(np.nan), "labels must be finite, got NaN or infinity in 13824 of 13824 voxels"),
        (lambda cube: cube * 3, '"labels" of dataset.json names, [0, 1, 2], got 3'),
    ],
)
@pytest.mark.parametrize("foreground", [True, False])
def test_a_training_label_that_is_none_is_refused(tmp_path: Path, change: Any, told: str, foreground: bool) -> None:
    case = with_ids(load_dataset(write_dataset(tmp_path / "data", change)).training)[0]
    with pytest.raises(ValueError, match=rf"label0\.nii\.gz: .*{re.escape(told)}$"):
        OpenCased(foreground=foreground)(case)


def test_resampled_labels_are_rounded_before_they_are_thresholded(tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "data", lambda cube: cube + np.float32(1e-6))
    assert OpenCased()(with_ids(load_dataset(path).training)[0])["case"].label.sum() == 1000


@pytest.mark.parametrize("foreground", [True, False])
def test_an_open_case_knows_what_is_ignored_along_the_worlds_axes(dataset: Path, foreground: bool) -> None:
    for path in (dataset.parent / "image0.nii.gz", dataset.parent / "label0.nii.gz"):
        nib.save(nib.Nifti1Image(np.asarray(nib.load(path).dataobj), np.diag([1, 1, -1, 1])), path)
    case = OpenCased(foreground=foreground)(with_ids(load_dataset(dataset).training)[0])["case"]
    assert case.label.sum() == 1000
    assert case.ignored is not None
    assert case.ignored[:, :, :6].all()
    assert not case.ignored[:, :, 6:].any()


def test_samples_of_both_stages_mark_what_is_ignored(opened: dict[Any, Any]) -> None:
    rough = RoughSampled(Stage((12, 12, 12)))(opened)["label"]
    assert rough.unique().tolist() == [IGNORED, 0, 1]
    assert (rough[..., 9:] == IGNORED).all()
    assert (rough[..., :9] >= 0).all()
    policy = BoxPolicy(margin_fraction=0, margin_mm=8)
    boxed = FineBoxesd(Stage((12, 12, 12)), Stage((16, 16, 16)), policy)(opened)
    assert [b.box.start[2] for b in boxed["proposal"].boxes] == [0]  # only the cube that is known has a box
    (crop,) = RandFineCropsd(Stage((22, 22, 22)), policy, samples=None)(boxed)
    assert (crop["label"][..., 18:] == IGNORED).all()
    assert crop["label"].unique().tolist() == [IGNORED, 0, 1]
    whole = WholeCased(Stage((16, 16, 16)))(opened)["label"]
    assert (whole[..., 18:] == IGNORED).all()
    assert (whole > 0).sum() == 1000


def test_a_cell_is_ignored_if_that_fills_most_of_it() -> None:
    label, ignored = np.array([[0, 0, 0, 1], [1, 1, 2, 2]], np.uint8).T, np.zeros((4, 2), bool)
    ignored[1:3, 0] = True
    ignored[3, 1] = True
    found = label_tensor(label, (1, 2), 3, ignored)
    assert found.tolist() == [[[IGNORED, 1]]]
    assert torch.equal(label_tensor(label, (2, 1), 3, np.zeros_like(ignored)), label_tensor(label, (2, 1), 3))


def test_an_ignored_voxel_is_no_object_to_patches(opened: dict[Any, Any]) -> None:
    sample = WholeCased(Stage((4, 4, 4)))(opened)
    draw = RandPatchesd(["image", "label"], "label", (4, 4, 4), pos=1, neg=0, num_samples=50)
    draw.set_random_state(0)
    assert all((patch["label"] == 1).any() for patch in draw(sample))


# --- loss and metrics --------------------------------------------------------


def batch(heads: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels, and the mask of ignored voxels: a part of one sample, and more of another."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((3, *([heads] if heads else []), 3, 8, 6, 4), generator=generator)
    label = torch.randint(0, 3, (3, 1, 8, 6, 4), generator=generator).float()
    label[0, :, 4:], label[1, :, 1:] = IGNORED, IGNORED
    return logits, label, label == IGNORED


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("heads", [0, 3])
def test_no_loss_and_no_gradient_comes_of_ignored_voxels(name: str, heads: int) -> None:
    loss = HeadsLoss(ConfigParser({"loss": component(Component(name, {}), LOSSES)}).get_parsed_content("loss"))
    logits, label, ignored = batch(heads)
    others = ignored[:, None] if heads else ignored
    logits.requires_grad_()
    value = loss(logits, label)
    value.backward()
    assert logits.grad is not None
    assert not logits.grad.masked_select(others).any()
    assert logits.grad.masked_select(~others).any()
    torch.testing.assert_close(loss(logits.masked_fill(others, 50.0), label), value, rtol=0, atol=0)
    assert torch.isfinite(value)


def test_the_loss_is_that_of_a_smaller_image() -> None:
    loss = DiceCELoss(to_onehot_y=True, softmax=True)
    logits, label, _ = batch()
    parts = [loss(logits[:1, :, :4], label[:1, :, :4]), loss(logits[1:2, :, :1], label[1:2, :, :1]), loss(logits[2:], label[2:])]
    torch.testing.assert_close(HeadsLoss(loss)(logits, label), torch.stack(parts).mean())
    assert torch.equal(HeadsLoss(loss)(logits[2:], label[2:]), parts[2])  # nothing is ignored: the loss as it was


def test_a_batch_that_is_ignored_as_a_whole_teaches_nothing() -> None:
    logits, label, _ = batch()
    logits.requires_grad_()
    loss = HeadsLoss(DiceCELoss(to_onehot_y=True, softmax=True))(logits, torch.full_like(label, IGNORED))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("heads", [0, 2])
def test_metrics_see_background_where_the_label_is_ignored(heads: int) -> None:
    logits, label, ignored = batch(heads)
    found = AsDiscreted(["pred", "label"], argmax=[True, False], to_onehot=3)(FullResolutiond()({"pred": logits[0], "label": label[0]}))
    for key in ("pred", "label"):
        assert found[key].shape == (3, 8, 6, 4)
        assert found[key][0][ignored[0, 0]].all()
    own = logits[0, 0] if heads else logits[0]
    assert torch.equal(found["pred"].argmax(0)[:4], own.argmax(0)[:4])
    assert torch.equal(found["label"].argmax(0)[:4], label[0, 0, :4].long())


# --- end to end --------------------------------------------------------------


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> set[float]:
    """Values in the labels of which losses were made."""
    values: set[float] = set()
    forward = HeadsLoss.forward
    monkeypatch.setattr(HeadsLoss, "forward", lambda self, x, label: values.update(label.unique().tolist()) or forward(self, x, label))
    return values


def last_metrics(bundle: Path) -> list[float]:
    return [read_history(bundle / f"logs/{stage}.jsonl")[-1]["metric"] for stage in ("rough", "fine")]


def test_a_training_with_ignored_voxels_comes_to_its_end(dataset: Path, tmp_path: Path, seen: set[float]) -> None:
    bundle = tiny_bundle(tmp_path / "tiny_segmentation")
    train_bundle(bundle, dataset, epochs=1, device="cpu")
    load_network(bundle)
    assert seen == {IGNORED, 0, 1}
    assert all(0 < value <= 1 for value in last_metrics(bundle))


@pytest.mark.slow
def test_a_network_is_free_where_nothing_is_known(tmp_path: Path) -> None:
    """The second bright cube is in no label: ignored, it costs nothing; as background, it keeps the score down."""
    found = []
    for name, change in {"ignored": ignoring, "known": lambda cube: cube}.items():
        bundle = tiny_bundle(tmp_path / name / "tiny_segmentation", **{"training#learning_rate": {"rough": 0.03, "fine": 0.03}})
        train_bundle(bundle, write_dataset(tmp_path / f"{name}_data", change), stage="rough", epochs=12, device="cpu")
        found.append(read_history(bundle / "logs/rough.jsonl")[-1]["metric"])
    assert found[0] > found[1] + 0.1


def test_monais_evaluation_leaves_out_what_is_ignored(trained: Path, dataset: Path, tmp_path: Path) -> None:
    files = [str(trained / "configs" / name) for name in ("train.json", "evaluate.json")]
    paths = {"dataset_dir": str(dataset.parent), "output_dir": str(tmp_path / "eval"), "device": "$torch.device('cpu')"}
    workflow = ConfigWorkflow(config_file=files, workflow_type="train", bundle_root=str(trained), **paths)
    workflow.initialize()
    try:
        workflow.run()
    finally:
        set_determinism(None)
    network, parser = load_network(trained)
    found = parser.get_parsed_content("inferer").segment(open_volume(dataset.parent / "image2.nii.gz"), network).labels[..., :18] > 0
    label = np.asarray(nib.load(dataset.parent / "label2.nii.gz").dataobj)[..., :18] == 1
    dice = 2 * (found & label).sum() / (found.sum() + label.sum())
    written = (tmp_path / "eval" / "val_mean_dice_raw.csv").read_text().splitlines()[1]
    assert float(written.split(",")[-1]) == pytest.approx(dice, abs=1e-5)


def test_a_label_that_is_none_ends_a_training_before_it_begins(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny_segmentation")
    path = write_dataset(tmp_path / "data", lambda cube: cube * np.float32(0.5))
    with pytest.raises(ValueError, match=r"label0\.nii\.gz: labels must be whole numbers"):
        train_bundle(bundle, path, epochs=1, device="cpu")
    assert not (bundle / "models").exists()
