"""From data of many kinds to a scored output, with nothing set by hand: plan, train, and what training says at its end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from stseg3d.bundle import open_bundle
from stseg3d.cli import main
from stseg3d.plan import Plan
from tests.planning.spheres import spheres, write_case, write_cases

Data = Callable[[Path], Path]
CORNERS = [(8, 8, 8), (8, 23, 8), (23, 8, 23), (23, 23, 23), (8, 8, 23)]


def ball(n: int = 0):
    return spheres((32, 32, 32), (14 + n % 4, 16, 16), radius=7)


def two_channels(folder: Path) -> Path:
    """A ball that each channel shows a half of."""
    rng = np.random.default_rng(0)
    for n in range(6):
        label = ball(n)
        for channel, half in enumerate((np.s_[:16], np.s_[16:])):
            image = rng.normal(50, 8, label.shape)
            image[half] += 100 * label[half]
            path = folder / "imagesTr" / f"case{n}_000{channel}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(image.astype(np.int16), np.eye(4)), path)
        (folder / "labelsTr").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(label, np.eye(4)), folder / "labelsTr" / f"case{n}.nii.gz")
    return folder


def five_classes(folder: Path) -> Path:
    """Five balls, each of its own brightness."""
    rng = np.random.default_rng(1)
    for n in range(6):
        label = spheres((32, 32, 32), *CORNERS, radius=6)
        write_case(folder, f"case{n}", label)
        image = 60.0 * label + rng.normal(0, 8, label.shape)
        nib.save(nib.Nifti1Image(image.astype(np.int16), np.eye(4)), folder / "images" / f"case{n}.nii.gz")
    return folder


def listed(folder: Path, labels: dict[str, object], label_of: Callable[[int], np.ndarray], values: int = 1) -> Path:
    """A ``dataset.json`` of six cases whose brightness follows the label."""
    rng = np.random.default_rng(2)
    cases = []
    for n in range(6):
        label = label_of(n)
        write_case(folder, f"case{n}", label)
        image = 60.0 * np.minimum(label, values) + rng.normal(0, 8, label.shape)
        nib.save(nib.Nifti1Image(image.astype(np.int16), np.eye(4)), folder / "images" / f"case{n}.nii.gz")
        cases.append({"image": f"images/case{n}.nii.gz", "label": f"labels/case{n}.nii.gz"})
    (folder / "dataset.json").write_text(json.dumps({"labels": labels, "training": cases[:4], "validation": cases[4:]}))
    return folder


def regions(folder: Path) -> Path:
    """A core inside a ball: one region is both."""

    def label_of(n: int) -> np.ndarray:
        return np.maximum(ball(n), 2 * spheres((32, 32, 32), (14 + n % 4, 16, 16), radius=4))

    return listed(folder, {"background": 0, "whole": [1, 2], "core": 2}, label_of, values=2)


def ignored(folder: Path) -> Path:
    """A ball, and a half of the volume that nobody annotated, where the label holds 2."""

    def label_of(n: int) -> np.ndarray:
        label = ball(n)
        label[:, :, 25:] = 2
        return label

    return listed(folder, {"background": 0, "ball": 1, "ignore": 2}, label_of)


def pictures(folder: Path) -> Path:
    """Grey PNG with an id for each disc."""
    rng = np.random.default_rng(3)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for n in range(6):
        centres = [(x, y, 0) for x in (24, 72, 120) for y in (24, 72 + n, 120)]
        label = spheres((144, 144, 1), *centres, radius=9)[..., 0]
        image = np.clip(40 + 150 * (label > 0) + rng.normal(0, 8, label.shape), 0, 255).astype(np.uint8)
        for kind, array in (("images", image), ("labels", label)):
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.ascontiguousarray(array.T)), str(folder / kind / f"p{n}.png"))
    return folder


def flat(folder: Path) -> Path:
    """NIfTI of depth 1."""
    return write_cases(folder, 6, lambda n: spheres((160, 160, 1), (60 + 4 * n, 80, 0), (120, 40 + n, 0), radius=12, values=(1, 1)))


def thick_slices(folder: Path) -> Path:
    """Voxels of 0.5 x 0.5 x 5 mm."""
    return write_cases(folder, 6, lambda n: spheres((96, 96, 12), (44 + n, 48, 6), radius=5), spacing=(0.5, 0.5, 5))


def three_cases(folder: Path) -> Path:
    """Two to train with and one to validate."""
    return write_cases(folder, 3, ball)


# Least Dice of each class, after as many epochs as that takes.
KINDS: dict[str, tuple[Data, dict[str, float], int]] = {
    "two channels": (two_channels, {"foreground": 0.7}, 80),
    "five classes": (five_classes, {f"class {value}": 0.5 for value in range(1, 6)}, 300),
    "regions": (regions, {"whole": 0.7, "core": 0.4}, 300),
    "an ignore label": (ignored, {"foreground": 0.7}, 80),
    "pictures": (pictures, {"foreground": 0.7}, 80),
    "depth 1": (flat, {"foreground": 0.7}, 80),
    "thick slices": (thick_slices, {"foreground": 0.6}, 80),
    "three cases": (three_cases, {"foreground": 0.7}, 80),
}


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks and batches for a test: the decisions are the same."""
    monkeypatch.setattr("stseg3d.planning.design.WIDTHS", {"rough": 8, "fine": 8})
    monkeypatch.setattr("stseg3d.planning.design.STEP_VOXELS", 100_000)


@pytest.mark.slow
@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize("kind", KINDS)
def test_data_of_each_kind_lead_to_a_scored_output(kind: str, tmp_path: Path) -> None:
    make, least, epochs = KINDS[kind]
    bundle = tmp_path / "planned"
    assert main(["plan", str(make(tmp_path / "data")), "-o", str(bundle), "--device", "cpu"]) == 0
    assert main(["train", str(bundle), "--epochs", str(epochs), "--device", "cpu"]) == 0
    mean = json.loads((bundle / "eval/validation.json").read_text())["mean"]
    assert {name: mean[name] >= score for name, score in least.items()} == dict.fromkeys(least, True), mean


@pytest.mark.usefixtures("small_networks")
def test_one_case_is_planned_but_cannot_be_validated_and_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "planned"
    assert main(["plan", str(write_cases(tmp_path / "data", 1, ball)), "-o", str(bundle), "--device", "cpu"]) == 0
    assert "a validation list needs cases of two patients" in capsys.readouterr().err
    assert isinstance(open_bundle(bundle).require_plan(), Plan)
    assert main(["train", str(bundle), "--budget", "1s", "--device", "cpu"]) == 2
    assert 'must list cases under "validation"' in capsys.readouterr().err
