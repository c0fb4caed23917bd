"""`stseg3d plan`: a bundle, whole and ready, or all that is wrong with the data in one report and no bundle."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import verify_metadata

from stseg3d.bundle import open_bundle
from stseg3d.cli import main
from stseg3d.planning.design import design
from stseg3d.planning.fingerprint import Fingerprint
from stseg3d.planning.new_bundle import Wishes, plan_bundle
from stseg3d.planning.trial import smaller
from stseg3d.volumes import load_dataset
from tests.planning.spheres import fingerprint_of, spheres, write_case, write_cases

SMALL = Wishes(stages=2, entries={"fine#size": [16, 16, 16], "fine#network#channels": [4, 8], "fine#network#strides": [2]})


def ball(n: int = 0):
    return spheres((40, 40, 40), (18 + n, 20, 20), radius=6)


def test_a_planned_bundle_is_data_alone_and_says_what_it_was_made_of(tmp_path: Path) -> None:
    data = write_cases(tmp_path / "data", 4, ball)
    planned = plan_bundle(tmp_path / "out", data, wishes=SMALL)
    assert planned.bundle == tmp_path / "out"
    plan = open_bundle(tmp_path / "out").require_plan()  # without trust, its configs as rendered
    assert plan.fine.size == (16, 16, 16)
    dataset = load_dataset(tmp_path / "out/data/dataset.json")
    assert (len(dataset.training), len(dataset.validation)) == (3, 1)
    assert len(Fingerprint.read(tmp_path / "out/fingerprint.json").cases) == 3
    text = (tmp_path / "out/docs/README.md").read_text()
    assert all(d.entry in text and d.reason in text for d in planned.decisions)
    given = next(d for d in planned.decisions if d.entry == "fine#size")
    assert given.reason == "given with --set"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_its_metadata_is_valid(tmp_path: Path) -> None:
    plan_bundle(tmp_path / "out", write_cases(tmp_path / "data", 2, ball), wishes=SMALL)
    schema = Path(__file__).parents[1] / "bundles/meta_schema_20240725.json"
    content = json.loads((tmp_path / "out/configs/metadata.json").read_text())
    assert content["network_data_format"]["inputs"]["image"]["spatial_shape"] == [16, 16, 16]
    digest = hashlib.sha256(schema.read_bytes()).hexdigest()
    verify_metadata(meta_file=str(tmp_path / "out/configs/metadata.json"), filepath=str(schema), hash_val=digest, hash_type="sha256")


def test_all_mistakes_come_in_one_report_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_cases(tmp_path / "data", 4, ball)
    nib.save(nib.Nifti1Image(ball(), np.diag([1, 1, 2, 1])), data / "labels/case0.nii.gz")
    nib.save(nib.Nifti1Image(ball() * np.float32(0.5), np.eye(4)), data / "labels/case1.nii.gz")
    image = np.full((40, 40, 40), np.nan, np.float32)
    nib.save(nib.Nifti1Image(image, np.eye(4)), data / "images/case2.nii.gz")
    assert main(["plan", str(data), "-o", str(tmp_path / "out")]) == 2
    report = capsys.readouterr().err
    assert "3 errors" in report
    for sentence in ("same grid", "whole numbers", "finite"):
        assert sentence in report
    assert {p.name for p in tmp_path.iterdir()} == {"data"}


@pytest.mark.parametrize("mistake", ["empty", "names", "nothing"])
def test_an_empty_folder_names_that_match_nothing_and_no_folder_are_told(tmp_path: Path, mistake: str) -> None:
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    (data / "labels").mkdir()
    if mistake == "names":
        write_case(data, "a", ball())
        write_case(data, "c", ball())
        for before, after in ("ax", "cy"):
            (data / f"labels/{before}.nii.gz").rename(data / f"labels/{after}.nii.gz")
    if mistake == "nothing":
        with pytest.raises(FileNotFoundError, match="elsewhere"):
            plan_bundle(tmp_path / "out", tmp_path / "elsewhere")
        return
    planned = plan_bundle(tmp_path / "out", data)
    assert planned.bundle is None
    assert any(f.level == "error" for f in planned.findings)


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="must be empty"):
        plan_bundle(tmp_path / "out", write_cases(tmp_path / "data", 2, ball))
    assert (tmp_path / "out/notes.txt").read_text() == "mine"


def test_the_current_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileExistsError, match="another than the current one"):
        plan_bundle(Path(), tmp_path / "data")


def test_what_is_given_with_set_stands_in_the_table_though_no_rule_decides_it(tmp_path: Path) -> None:
    wishes = replace(SMALL, entries=SMALL.entries | {"training#learning_rate": {"rough": 0.01, "fine": 0.02}})
    planned = plan_bundle(tmp_path / "out", write_cases(tmp_path / "data", 2, ball), wishes=wishes)
    told = {d.entry: (d.value, d.reason) for d in planned.decisions}
    assert told["training#learning_rate"] == ("rough 0.01, fine 0.02", "given with --set")
    assert told["fine#size"] == ("16 x 16 x 16", "given with --set")
    lines = planned.table().text(110).splitlines()
    assert max(map(len, lines)) <= 110
    assert "## Findings" in (tmp_path / "out/docs/README.md").read_text()  # a validation list of one case


def test_a_smaller_input_that_the_network_takes_is_found() -> None:
    plan = design(fingerprint_of([spheres((160, 160, 160), (80, 80, 80), radius=12)], {"1": "ball"})).plan
    plan = plan.set({"training#samples": 1, "training#cases_a_batch": {"rough": 1, "fine": 1}})
    sizes = []
    while plan is not None:
        sizes.append(plan.fine.size)
        plan = smaller(plan, "fine")
    assert sizes == [(32, 32, 32), (24, 24, 24), (16, 16, 16)]


def test_an_entry_that_contradicts_the_plan_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    data = write_cases(tmp_path / "data", 2, ball)
    with pytest.raises(ValueError, match=r"fine#size must be divisible"):
        plan_bundle(tmp_path / "out", data, wishes=Wishes(stages=2, entries={"fine#size": [33, 33, 33]}))
    assert {p.name for p in tmp_path.iterdir()} == {"data"}


def test_a_size_that_a_network_cannot_take_is_refused_before_its_first_step(tmp_path: Path) -> None:
    data = write_cases(tmp_path / "data", 2, ball)
    entries = {"fine#network": {"name": "SegResNet", "init_filters": 8}, "fine#size": [12, 16, 16]}
    with pytest.raises(ValueError, match=r"^fine network must have a size that is a multiple of 8 along axis 0, got \(12, 16, 16\)$"):
        plan_bundle(tmp_path / "out", data, wishes=Wishes(stages=2, entries=entries))


def test_a_binary_rough_network_beside_regions_is_tried_with_its_own_loss(tmp_path: Path) -> None:
    wishes = replace(SMALL, entries=SMALL.entries | {"rough#is_binary": True})
    assert plan_bundle(tmp_path / "out", write_nested(tmp_path / "data", 2), wishes=wishes).bundle


def test_memory_makes_batches_small_and_too_little_is_refused(tmp_path: Path) -> None:
    data = write_cases(tmp_path / "data", 2, ball)
    with pytest.raises(ValueError, match="memory must be enough for one training step"):
        plan_bundle(tmp_path / "out", data, wishes=replace(SMALL, memory_bytes=1 << 20))


@pytest.mark.slow
def test_three_commands_lead_from_data_to_a_scored_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_cases(tmp_path / "data", 5, ball)
    bundle, scans = tmp_path / "balls", str(data / "images/case1.nii.gz")
    assert main(["plan", str(data), "-o", str(bundle), "--threads", "1", "--stages", "2"]) == 0
    assert main(["train", str(bundle), "--budget", "30s", "--threads", "1"]) == 0
    assert "Dice of the pipeline, validation" in capsys.readouterr().out
    mean = json.loads((bundle / "eval/validation.json").read_text())["mean"]
    assert mean["foreground"] > 0.7
    assert mean["coverage"] > 0.95
    assert main(["segment", scans, "--bundle", str(bundle), "-o", str(tmp_path / "out")]) == 0
    assert np.asarray(nib.load(tmp_path / "out/case1_seg.nii.gz").dataobj).any()
    weights = (bundle / "models/model.pt").read_bytes()
    assert main(["train", str(bundle), "--budget", "1s"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (bundle / "models/model.pt").read_bytes() == weights


# --- regions -------------------------------------------------------------------

NESTED = {"background": 0, "whole": [1, 2, 4], "core": [2, 4], "rim": 4, "ignore": 9}


def nested(n: int = 0):
    """Three spheres in each other, of values 1, 2 and 4 as of BraTS, and a slab that is not annotated."""
    label = ball(n) + spheres((40, 40, 40), (18 + n, 20, 20), radius=4)
    label[spheres((40, 40, 40), (18 + n, 20, 20), radius=2) > 0] = 4
    label[:, :, 36:] = 9
    return label


def write_nested(folder: Path, count: int) -> Path:
    """As nnU-Net has them: ``imagesTr`` and ``labelsTr``, the images brighter from value to value."""
    for n in range(count):
        label = nested(n)
        image = np.random.default_rng(n).normal(0, 10, label.shape) + 60 * (label * (label < 9))
        for name, array in (("imagesTr/case{}_0000", image.astype(np.int16)), ("labelsTr/case{}", label)):
            path = folder / f"{name.format(n)}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    content = {
        "channel_names": {"0": "MR"},
        "labels": NESTED,
        "regions_class_order": [1, 2, 4],
        "file_ending": ".nii.gz",
        "numTraining": count,
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_regions_of_nnunets_dataset_json_stand_in_the_plan_and_are_told(tmp_path: Path) -> None:
    planned = plan_bundle(tmp_path / "out", write_nested(tmp_path / "data", 3), wishes=SMALL)
    plan = open_bundle(tmp_path / "out").require_plan()  # without trust
    assert plan.classes == ("background", "value 1", "value 2", "value 3 (unused)", "rim")
    assert plan.regions == {"whole": (1, 2, 4), "core": (2, 4), "rim": (4,)}
    assert not any(f.rule.startswith("a class occurs") and "3" in f.rule for f in planned.findings)
    assert "whole = 1 + 2 + 4, core = 2 + 4, rim = 4" in (tmp_path / "out/docs/README.md").read_text()
    assert load_dataset(tmp_path / "out/data/dataset.json").labels.regions == plan.regions


def test_labels_that_contradict_themselves_are_told_with_the_users_file(tmp_path: Path) -> None:
    data = write_nested(tmp_path / "data", 2)
    content = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps(content | {"labels": {"background": 0, "whole": [0, 1]}}))
    with pytest.raises(ValueError, match=r'data/dataset\.json: "labels" must have regions of values that are neither background'):
        plan_bundle(tmp_path / "out", data)


@pytest.mark.slow
def test_regions_lead_to_a_label_map_of_the_same_values_scored_by_region(tmp_path: Path) -> None:
    data, bundle = write_nested(tmp_path / "data", 5), tmp_path / "nested"
    entries = {**SMALL.entries, "fine#network#channels": [8, 16], "training#learning_rate": {"rough": 0.01, "fine": 0.01}}
    plan_bundle(bundle, data, wishes=replace(SMALL, entries=entries | {"training#validate_every": {"rough": 20, "fine": 20}}))
    assert main(["train", str(bundle), "--epochs", "60", "--threads", "1"]) == 0
    mean = json.loads((bundle / "eval/validation.json").read_text())["mean"]
    assert list(mean) == ["value 1", "value 2", "rim", "whole", "core", "coverage"]
    assert mean["whole"] > 0.8
    assert mean["core"] > 0.7
    dataset = str(bundle / "data/dataset.json")
    assert main(["segment", dataset, "--part", "validation", "--bundle", str(bundle), "-o", str(tmp_path / "out")]) == 0
    (found,) = (tmp_path / "out").glob("*.nii.gz")
    assert set(np.unique(np.asarray(nib.load(found).dataobj))) <= {0, 1, 2, 4}
    assert main(["evaluate", str(tmp_path / "out"), dataset, "--per-class", "-o", str(tmp_path / "scores.json")]) == 0
    summary = {one["class"]: one["metrics"]["dice"]["mean"] for one in json.loads((tmp_path / "scores.json").read_text())["summary"]}
    assert {name: summary[name] for name in ("whole", "core", "rim")} == pytest.approx(
        {name: mean[name] for name in ("whole", "core", "rim")}
    )
