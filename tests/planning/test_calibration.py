"""`stseg3d calibrate` on phantoms whose rough network is one multiplication: boxes, coverage and choice are known by hand."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from stseg3d import cli
from stseg3d.bundle import WEIGHTS, save_weights, write_plan
from stseg3d.ops import BoxPolicy
from stseg3d.plan import Both, Component, Output, Plan, StagePlan, Training
from stseg3d.planning import Calibration, Calibrator, labelled_cases
from stseg3d.planning.measure import policy_chain

VOXELWISE = Component("torch.nn.Conv3d", {"kernel_size": 1})  # of no list: the bundle needs trust
CORE, RIM = 6, 2  # the rough network sees the core of an object only
STAIRS = ["--thresholds", "0.5", "--margins", "0,1,2,3"]
HELD = {margin: (CORE + 2 * margin) ** 3 / (CORE + 2 * RIM) ** 3 for margin in (0, 1, 2)}


def make_bundle(folder: Path, size: tuple[int, ...] = (12, 12, 12), **parts: Any) -> Path:
    stage = StagePlan(size=size, network=VOXELWISE)
    both = {name: Both(1, 1) for name in ("epochs", "cases_a_batch", "validate_every")}
    plan = Plan(
        classes=("background", "object"),
        rough=stage,
        fine=stage,
        policy=BoxPolicy(threshold=0.5, margin_mm=1.0, margin_fraction=0.0, margin_rough_voxels=0.0),
        training=Training(**both, learning_rate=Both(0.1, 0.1)),
        **parts,
    )
    (folder / "configs").mkdir(parents=True)
    (folder / "configs/metadata.json").write_text('{"version": "0.0.1"}')
    write_plan(folder, plan)
    weight, bias = torch.tensor([0.0, 0.1]).reshape(2, 1, 1, 1, 1), torch.tensor([0.0, -5.0])
    save_weights(
        {f"{name}.{key}": value for name in ("rough", "fine") for key, value in (("weight", weight), ("bias", bias))}, folder / WEIGHTS
    )
    return folder


def make_dataset(folder: Path, starts: list[tuple[int, ...] | None], shape: tuple[int, ...] = (24, 24, 24)) -> Path:
    """Cases with a bright core in a wider label, or with nothing where there is no start."""
    folder.mkdir(exist_ok=True)
    cases = []
    for n, start in enumerate(starts):
        image, label = np.zeros(shape, dtype=np.int16), np.zeros(shape, dtype=np.uint8)
        image[0, 0, 0] = 1  # not all voxels the same
        if start:
            image[tuple(slice(a, a + CORE) for a in start)] = 100
            label[tuple(slice(max(a - RIM, 0), a + CORE + RIM) for a in start)] = 1 + n % 2
        for kind, array in (("image", image), ("label", label)):
            nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"{kind}{n}.nii.gz")
        cases.append({"image": f"image{n}.nii.gz", "label": f"label{n}.nii.gz"})
    path = folder / "dataset.json"
    path.write_text(json.dumps({"training": cases[:1], "validation": cases}))
    return path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny_segmentation")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "data", [(4, 4, 4), (10, 12, 8), (12, 2, 14)])


def calibrate(bundle: Path, dataset: Path, *options: str) -> int:
    return cli.main(["calibrate", str(bundle), "--data", str(dataset), "--device", "cpu", "--trust", *options])


def test_policies_are_measured_as_they_are_at_inference(bundle: Path, dataset: Path) -> None:
    calibrator = Calibrator(bundle, "cpu", trust=True, thresholds=[0.5], margins=[0, 1, 2])
    measured = [calibrator.measure(case) for case in labelled_cases(dataset, "validation")]
    for one in measured:
        np.testing.assert_allclose(one.loss, [1 - HELD[0], 1 - HELD[1], 0, 1 - HELD[1]])  # the last is the bundle's own, 1 mm
        np.testing.assert_array_equal(one.boxes, [1, 1, 1, 1])
        np.testing.assert_array_equal(one.voxels, [6**3, 8**3, 10**3, 8**3])
    found = Calibration.of(calibrator, measured, "validation", 0.99)
    assert found.numbers == {"threshold": 0.5, "margin_mm": 2}
    assert found.present.mean == pytest.approx(HELD[1])
    assert [row.crop_voxels for row in found.rows] == [12**3] * 3


def test_the_chain_is_a_staircase_of_one_step_at_a_time() -> None:
    chain = policy_chain(BoxPolicy(min_volume_mm3=7), "margin_rough_voxels", (0.5, 0.1, 0.3), (2, 0, 1, 3))
    stairs = [(p.threshold, p.margin_rough_voxels) for p in chain]
    assert stairs == [(0.5, 0), (0.5, 1), (0.3, 1), (0.3, 2), (0.1, 2), (0.1, 3)]
    assert {p.min_volume_mm3 for p in chain} == {7}
    with pytest.raises(ValueError, match=r"threshold must be in \[0, 1\], got 2"):
        policy_chain(BoxPolicy(), "margin_mm", (2,), (0,))
    with pytest.raises(ValueError, match="must not be empty"):
        policy_chain(BoxPolicy(), "margin_mm", (0.5,), ())


def test_an_object_without_a_box_is_lost_and_a_case_without_objects_loses_nothing(bundle: Path, tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", [(4, 4, 4), None])
    found = Calibrator(bundle, "cpu", trust=True, thresholds=[0.999], margins=[0, 9])
    lost, empty = (found.measure(case) for case in labelled_cases(dataset, "validation"))
    np.testing.assert_array_equal(lost.loss[:2], [1, 1])
    np.testing.assert_array_equal(empty.loss, [0, 0, 0])
    np.testing.assert_array_equal(empty.voxels, [0, 0, 0])


def test_a_bundle_that_tiles_the_volume_when_nothing_is_found_loses_nothing(tmp_path: Path, dataset: Path) -> None:
    bundle = make_bundle(tmp_path / "tiling_segmentation", output=Output(when_empty="tile"))
    measured = Calibrator(bundle, "cpu", trust=True, thresholds=[0.999], margins=[0]).measure(labelled_cases(dataset, "validation")[0])
    assert (measured.loss[0], measured.voxels[0]) == (0, 24**3)


def test_a_depth_of_one_has_no_margin_along_it(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "flat_segmentation", size=(12, 12, 1))
    dataset = make_dataset(tmp_path / "data", [(4, 4, 0), (12, 10, 0)], shape=(24, 24, 1))
    calibrator = Calibrator(bundle, "cpu", trust=True, thresholds=[0.5], margins=[0, 2])
    for case in labelled_cases(dataset, "validation"):
        measured = calibrator.measure(case)
        np.testing.assert_allclose(measured.loss[:2], [1 - 36 / 100, 0])
        np.testing.assert_array_equal(measured.voxels[:2], [36, 100])


def test_the_command_says_what_was_measured_what_is_guaranteed_and_on_what_that_rests(
    bundle: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(bundle, dataset, *STAIRS) == 0
    out = capsys.readouterr().out
    assert "Chosen: threshold 0.5 and margin_mm 2. On 3 validation cases the boxes hold 1.0000" in out
    assert "Not guaranteed: that takes 99 cases if all are covered whole" in out
    assert "These 3 guarantee 0.7425, on average over new cases." in out  # 3 * 0.99 / 4
    assert "exchangeable" in out
    starred = [line.split() for line in out.splitlines() if line.lstrip().startswith("*")]
    assert starred == [["*", "0.5", "2", "1.0000", "1.0000", "0.7500", "1.0", "1,728", "1,000"]]
    assert json.loads((bundle / "configs/inference.json").read_text())["displayable_configs"]["margin_mm"] == 1.0


def test_enough_cases_guarantee_and_the_cheapest_that_does_is_chosen(
    bundle: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate(bundle, dataset, *STAIRS, "--coverage", "0.3") == 0
    out = capsys.readouterr().out
    assert "Chosen: threshold 0.5 and margin_mm 1." in out  # (3 * 0.512) / 4 = 0.384, and without margin 0.162
    assert "Guaranteed: 0.3 on average over new cases." in out


def test_cases_that_were_trained_on_guarantee_nothing(bundle: Path, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate(bundle, dataset, *STAIRS, "--coverage", "0.3", "--part", "training") == 0
    out = capsys.readouterr().out
    assert "Nothing is guaranteed: the networks have seen the training cases" in out
    assert "Guaranteed:" not in out


def test_what_was_chosen_is_written_for_inference_and_for_training(bundle: Path, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [bundle / "configs" / name for name in ("plan.json", "inference.json", "train.json")]
    before = [file.read_text() for file in files]
    assert calibrate(bundle, dataset, *STAIRS, "--write") == 0
    assert "Train the fine network again" in capsys.readouterr().out
    marks = [re.sub(r'"rendered_from_plan": "\w+"', "", file.read_text()) for file in files]
    due = [re.sub(r'"rendered_from_plan": "\w+"', "", text.replace('"margin_mm": 1.0', '"margin_mm": 2.0')) for text in before]
    assert marks == due
    assert Calibrator(bundle, "cpu", trust=True).own.margin_mm == 2


def test_where_nothing_reaches_the_coverage_nothing_is_written(bundle: Path, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (bundle / "configs/inference.json").read_text()
    assert calibrate(bundle, dataset, "--thresholds", "0.5", "--margins", "0,1", "--write") == 2
    said = capsys.readouterr()
    assert "No policy puts 0.99 of the objects' voxels into boxes: on 3 validation cases the best mean is 0.5120" in said.out
    assert "--write needs a policy that reaches --coverage 0.99, got none" in said.err
    assert (bundle / "configs/inference.json").read_text() == before


def test_an_embedded_bundle_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["calibrate", "vertebrae_mr", "--data", str(tmp_path / "dataset.json"), "--write"]) == 2
    assert "DIR must be a folder of your own, got the embedded vertebrae_mr_segmentation" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_the_table_is_written_as_a_file(bundle: Path, dataset: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table{suffix}"
    assert calibrate(bundle, dataset, *STAIRS, "-o", str(path)) == 0
    content = json.loads(path.read_text())["policies"] if suffix == ".json" else list(csv.DictReader(path.read_text().splitlines()))
    assert [float(row["margin_mm"]) for row in content] == [0, 1, 2, 3, 1]
    assert [str(row["chosen"]) for row in content] == ["False", "False", "True", "False", "False"]
    assert [str(row["present"]) for row in content] == ["False"] * 4 + ["True"]
    assert float(content[1]["mean"]) == pytest.approx(HELD[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--part", "test"], "must list cases with labels under 'test'"),
        (["-o", "table.txt"], "-o must end on .csv or .json"),
        (["-o", "gone/table.csv"], "-o must lie in a folder that exists"),
        (["--thresholds", "5"], r"threshold must be in [0, 1], got 5"),
    ],
)
def test_bad_input_is_told_in_one_sentence(
    bundle: Path, dataset: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert calibrate(bundle, dataset, *options) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert len(said.err.splitlines()) == 1
    assert said.out == ""


@pytest.mark.parametrize("options", [["--coverage", "1"], ["--coverage", "0"], ["--coverage", "99"], ["--margins", "1,,2"]])
def test_arguments_that_mean_nothing_are_refused(bundle: Path, dataset: Path, options: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        calibrate(bundle, dataset, *options)
    assert stopped.value.code == 2


def test_a_label_on_another_grid_is_refused_by_name(bundle: Path, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nib.save(nib.Nifti1Image(np.ones((24, 24, 24), np.uint8), np.diag([1, 1, 2, 1])), dataset.parent / "label1.nii.gz")
    assert calibrate(bundle, dataset) == 2
    assert "label1.nii.gz must be on the same grid" in capsys.readouterr().err


def test_ignored_voxels_need_no_box(bundle: Path, dataset: Path) -> None:
    plain = Calibrator(bundle, "cpu", trust=True).measure(labelled_cases(dataset, "validation")[0])
    content = json.loads(dataset.read_text())
    dataset.write_text(json.dumps(content | {"labels": {"background": 0, "object": 1, "other": 2, "ignore": 3}}))
    case = labelled_cases(dataset, "validation")[0]
    assert case.label is not None
    label = np.asarray(nib.load(case.label).dataobj).copy()
    label[label == 0] = 3
    nib.save(nib.Nifti1Image(label, np.eye(4)), case.label)
    found = Calibrator(bundle, "cpu", trust=True).measure(case)
    np.testing.assert_array_equal(found.loss, plain.loss)
    label[label < 3] = 3
    nib.save(nib.Nifti1Image(label, np.eye(4)), case.label)
    assert not Calibrator(bundle, "cpu", trust=True).measure(case).loss.any()
