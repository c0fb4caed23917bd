"""What is measured, what is kept, and what is refused before anything is trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from stseg3d.bundle import WEIGHTS
from stseg3d.compare import Comparison, compare
from stseg3d.compare.checks import are_pictures
from stseg3d.compare.experiment import RESULTS, kept_boxes
from stseg3d.compare.measure import Measured, Task, measure, measure_alone
from stseg3d.geometry import Box
from stseg3d.metrics import score_masks
from stseg3d.ops import box_coverage
from stseg3d.volumes import Case, load_dataset, open_volume, output_name, read_classes
from tests.compare.conftest import SHAPE, Compared
from tests.compare.made_up import score

pytestmark = pytest.mark.slow  # trains; the nightly run has them

WAYS = ("rough_only", "two_stage", "sliding_window", "true_boxes")


@pytest.fixture
def copied(compared: Compared, tmp_path: Path) -> Compared:
    """The comparison in a folder that may be written to."""
    shutil.copytree(compared.folder, tmp_path / "out")
    return replace(compared, folder=tmp_path / "out")


@pytest.fixture
def measured_ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is measured from now on."""
    ways: list[str] = []

    def spied(task: Task) -> Measured:
        ways.append(f"{task.way} {task.run.nominal_size}")
        return measure(task)

    monkeypatch.setattr("stseg3d.compare.experiment.measure", spied)
    return ways


def again(of: Compared, **options: Any) -> Comparison:
    given: dict[str, Any] = {"sizes": [16], "rough_sizes": [32], "epochs": 6, "device": "cpu", "alone": False}
    return compare(of.bundle, of.data, of.folder, **given | options)


def dice_of(comparison: Comparison, way: str) -> list[float]:
    return [score.value("dice") for score in comparison.at(way, 16).values()]


# --- measuring ---------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(compared: Compared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Future[Measured]]]:
    """A way in a process of its own and where it writes; begun with the first test and looked at by the last, for it takes seconds."""
    folder = tmp_path_factory.mktemp("alone") / "predictions"
    task = Task(compared.two_stage, "two_stage", load_dataset(compared.data).validation, folder, "cpu", 1)
    with ThreadPoolExecutor(1) as pool:
        yield folder, pool.submit(measure_alone, task)


@pytest.mark.usefixtures("alone")
def test_every_way_is_scored_at_every_size(compared: Compared) -> None:
    found = {(score.case, score.way, score.nominal_size) for score in compared.comparison.scores}
    wanted = {(way, 16) for way in WAYS} | {("rough_only", 32)}
    assert found == {(case, way, size) for case in ("image2", "image3") for way, size in wanted}
    assert compared.comparison.part == "validation"
    assert compared.comparison.data == "blocks"
    assert compared.comparison.downscaling == {16: 2.5, 32: 1.25}
    assert set(compared.comparison.training_seconds) == {
        *("16 two_stage rough", "16 two_stage fine", "16 sliding_window fine", "32 two_stage rough")
    }
    assert any("validation scores" in note for note in compared.comparison.notes)
    assert Comparison.load(compared.folder / RESULTS).as_dict() == compared.comparison.as_dict()


@pytest.mark.parametrize("way", WAYS)
def test_scores_are_those_of_the_label_map_that_was_written(way: str, compared: Compared) -> None:
    run = compared.sliding if way == "sliding_window" else compared.two_stage
    for case in load_dataset(compared.data).validation:
        prediction = open_volume(run.folder / "predictions" / way / output_name(case.id))
        assert case.label is not None
        truth = read_classes(open_volume(case.label))
        kept = compared.comparison.at(way, 16)[case.id]
        twin = score_masks(read_classes(prediction), truth, (1, 1, 1))
        assert {name: kept.value(name) for name in twin} == pytest.approx(twin, nan_ok=True)
        boxes = kept_boxes(run.folder, way, case.id)
        assert kept.boxes == len(boxes)
        if way in ("two_stage", "true_boxes"):
            assert kept.coverage == box_coverage(truth, boxes)
            assert kept.macs > 0
        assert {"read", "total"} <= kept.seconds.keys()
        assert kept.peak_memory_bytes > 2**20
    assert (way == "sliding_window") <= (kept.coverage == 1.0)


def test_a_process_that_is_killed_says_which_way_it_measured(compared: Compared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(ThreadPoolExecutor):
        def __init__(self, workers: int, **_: Any) -> None:
            super().__init__(workers)

        def submit(self, *_: Any) -> Any:
            return super().submit(self.kill)

        @staticmethod
        def kill() -> None:
            raise BrokenProcessPool

    monkeypatch.setattr("stseg3d.compare.measure.ProcessPoolExecutor", Killed)
    with pytest.raises(RuntimeError, match=r"two_stage at \(16, 16, 16\): the process that measures it was killed"):
        measure_alone(Task(compared.two_stage, "two_stage", [], tmp_path))


def test_what_was_measured_survives_json() -> None:
    one = replace(score("a", "two_stage", 16, 0.5), coverage=float("nan"))
    found = Measured([one], {"a": [Box((0, 1, 2), (3, 4, 5))]}, {"a": 0.1}, {"a": 2.5}, parameters=7, peak_memory_bytes=11)
    back = Measured.from_dict(json.loads(json.dumps(found.as_dict(), allow_nan=False)))
    assert np.isnan(back.scores[0].coverage)
    assert replace(back.scores[0], coverage=0.0) == replace(one, coverage=0.0)
    assert replace(back, scores=[]) == replace(found, scores=[])


def test_a_label_on_another_grid_is_named_when_scored(compared: Compared, data: Path, tmp_path: Path) -> None:
    case = load_dataset(data).validation[0]
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), np.diag([1, 1, 2, 1])), case.label)
    with pytest.raises(ValueError, match=r"image2: .*label2\.nii\.gz.*grid"):
        measure(Task(compared.two_stage, "rough_only", [case], tmp_path, "cpu"))


def test_what_a_data_set_ignores_is_neither_scored_nor_boxed(compared: Compared, data: Path, tmp_path: Path) -> None:
    case = load_dataset(data).validation[0]
    label = np.asarray(nib.load(case.label).dataobj).astype(np.uint8)
    names = {"labels": {"background": 0, **{f"block {n}": n for n in range(1, label.max() + 1)}, "ignore": 9}}
    plain = measure(Task(compared.two_stage, "true_boxes", [case], tmp_path, "cpu"))
    label[0] = 9  # in no block, and as good as no voxel
    nib.save(nib.Nifti1Image(label, nib.load(case.label).affine), case.label)
    data.write_text(json.dumps(json.loads(data.read_text()) | names))
    (case, *_) = load_dataset(data).validation
    found = measure(Task(compared.two_stage, "true_boxes", [case], tmp_path, "cpu"))
    assert found.boxes == plain.boxes
    (ours,), (before,) = found.scores, plain.scores
    assert ours.values["recall"] == before.values["recall"]
    assert ours.values["specificity"] != before.values["specificity"]
    prediction = read_classes(open_volume(tmp_path / output_name(case.id)))
    assert ours.values["precision"] == pytest.approx(
        (prediction[1:].astype(bool) & (label[1:] > 0)).sum() / max(prediction[1:].astype(bool).sum(), 1)
    )


# --- going on ----------------------------------------------------------------


def test_what_was_scored_is_not_scored_again(copied: Compared, measured_ways: list[str]) -> None:
    assert again(copied).as_dict() == copied.comparison.as_dict()
    assert measured_ways == []


def test_scores_of_other_weights_are_made_anew(copied: Compared, measured_ways: list[str]) -> None:
    path = copied.two_stage.folder / WEIGHTS
    state = torch.load(path, weights_only=True)
    torch.save({name: tensor * 0 if tensor.is_floating_point() else tensor for name, tensor in state.items()}, path)
    changed = again(copied)
    assert measured_ways == ["rough_only 16", "two_stage 16", "true_boxes 16"]
    assert dice_of(changed, "sliding_window") == dice_of(copied.comparison, "sliding_window")
    assert dice_of(changed, "rough_only") != dice_of(copied.comparison, "rough_only")


def test_label_maps_that_were_removed_are_made_anew(copied: Compared, measured_ways: list[str]) -> None:
    (copied.two_stage.folder / "predictions/two_stage/image2_seg.nii.gz").unlink()
    again(copied)
    assert measured_ways == ["two_stage 16"]


def test_a_label_that_changed_is_scored_anew(copied: Compared, data: Path, measured_ways: list[str]) -> None:
    again(replace(copied, data=data), ways=["rough_only"])
    assert measured_ways == ["rough_only 16", "rough_only 32"]


def test_one_way_alone_needs_no_other_networks(bundle: Path, data: Path, tmp_path: Path) -> None:
    found = compare(bundle, data, tmp_path / "out", sizes=[16], ways=["rough_only"], epochs=1, device="cpu", alone=False)
    assert list(found.training_seconds) == ["16 two_stage rough"]
    assert found.ways == ["rough_only"]


@pytest.mark.slow
def test_a_rough_channel_is_learned_counted_and_gone_on_with(bundle: Path, data: Path, tmp_path: Path, measured_ways: list[str]) -> None:
    options: dict[str, Any] = {"sizes": [16], "epochs": 1, "device": "cpu", "alone": False, "overrides": {"rough_channel": True}}
    found = compare(bundle, data, tmp_path / "out", **options)
    costs = {way: found.at(way, 16)["image2"] for way in ("rough_only", "two_stage", "sliding_window")}
    window = costs["sliding_window"].macs / (3 * 3 * 2)
    assert window == costs["rough_only"].macs  # one network, without the channel
    assert found.parameters["two_stage"] > 2 * found.parameters["rough_only"]
    del measured_ways[:]
    assert compare(bundle, data, tmp_path / "out", **options).as_dict() == found.as_dict()
    assert measured_ways == []


@pytest.mark.slow
def test_pictures_are_compared_as_flat_images_in_colour(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for n in range(3):
        label = np.zeros((64, 64, 1), np.uint8)
        label[8:24, 8:24], label[36:56, 30 + n : 50] = 1, 2
        image = np.where(label > 0, 200, 20)[..., None] + rng.integers(0, 20, (*label.shape, 3))
        nib.save(nib.Nifti1Image(image.astype(np.uint8), np.eye(4)), tmp_path / f"image{n}.nii")
        nib.save(nib.Nifti1Image(label, np.eye(4)), tmp_path / f"label{n}.nii")
    cases = [{"image": f"image{n}.nii", "label": f"label{n}.nii"} for n in range(3)]
    data = tmp_path / "dataset.json"
    data.write_text(json.dumps({"training": cases[:2], "validation": cases[2:]}))
    features = {"fine_network_def#network#features": [4] * 6}
    found = compare("nuclei", data, tmp_path / "out", sizes=[32], overrides=features, epochs=1, device="cpu", alone=False)
    assert {score.size for score in found.scores} == {(32, 32, 1)}
    assert found.downscaling == {32: 2.0}
    assert found.notes[-1] == "The images are pictures without a scale: what is given in mm are pixels."
    assert all(np.isfinite(score.value("object_f1_50")) for score in found.scores)
    assert found.at("true_boxes", 32)["image2"].coverage == 1.0


# --- refused before training -------------------------------------------------


@pytest.fixture(autouse=True)
def untrained(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of refusals fail if anything is trained."""
    if "refused" in request.node.name:
        monkeypatch.setattr("stseg3d.compare.runs.train_bundle", lambda *_, **__: pytest.fail("something was trained"))


def refuse(bundle: Path, data: Path, folder: Path, rule: str, **options: Any) -> None:
    with pytest.raises(ValueError, match=rule):
        compare(bundle, data, folder, **{"sizes": [16], "device": "cpu", "alone": False} | options)


def test_an_unknown_way_or_part_is_refused(bundle: Path, data: Path, tmp_path: Path) -> None:
    refuse(bundle, data, tmp_path / "out", "ways must be of rough_only, .*, got third_stage", ways=["rough_only", "third_stage"])
    refuse(bundle, data, tmp_path / "out", "part must be of training, validation, test, got 'all'", part="all")
    assert not (tmp_path / "out").exists()


def test_a_part_without_labels_is_refused(bundle: Path, data: Path, tmp_path: Path) -> None:
    refuse(bundle, data, tmp_path / "out", r"dataset\.json: file must list cases with labels under 'test', got none", part="test")
    data.write_text(json.dumps(json.loads(data.read_text()) | {"test": ["image3.nii.gz"]}))
    refuse(bundle, data, tmp_path / "out", r"dataset\.json: file must list cases with labels under 'test', got none", part="test")


@pytest.mark.parametrize("number", [0, 2])
def test_a_label_on_another_grid_is_refused_by_its_case(number: int, bundle: Path, data: Path, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), np.diag([1, 1, 2, 1])), data.parent / f"label{number}.nii.gz")
    refuse(bundle, data, tmp_path / "out", rf"image{number}: .*label{number}\.nii\.gz.*grid")


def test_an_image_that_cannot_be_opened_is_refused_by_its_case(bundle: Path, data: Path, tmp_path: Path) -> None:
    (data.parent / "image3.nii.gz").write_bytes(b"no image")
    refuse(bundle, data, tmp_path / "out", r"image3: .*image3\.nii\.gz")


def test_a_size_that_the_network_cannot_take_is_refused(bundle: Path, data: Path, tmp_path: Path) -> None:
    deep = {"fine_network_def#channels": [4] * 7, "fine_network_def#strides": [2] * 6}
    refuse(bundle, data, tmp_path / "out", "fine#size must be divisible by", overrides=deep)
    assert not list((tmp_path / "out").rglob("*.pt"))


# --- notes -------------------------------------------------------------------


def test_notes_say_what_a_reader_must_know(copied: Compared, measured_ways: list[str], tmp_path: Path) -> None:
    content = json.loads(copied.data.read_text())
    content["test"] = [*content["validation"], "image0.nii.gz"]
    data = copied.data.parent / "with_test.json"
    data.write_text(json.dumps(content))
    found = again(replace(copied, data=data), part="test", ways=["rough_only"])
    assert found.notes == ["Without a label, and not scored: 1 of 3 test cases."]
    assert again(copied, part="training", ways=["rough_only"]).notes[0].endswith("learned by heart.")
    assert measured_ways == ["rough_only 16", "rough_only 32"]  # the test cases with a label are those of the validation


@pytest.mark.parametrize(("shape", "spacing", "are"), [((8, 8, 1), 1.0, True), ((8, 8, 1), 0.5, False), ((8, 8, 4), 1.0, False)])
@pytest.mark.slow
def test_mm_of_pictures_are_pixels(shape: tuple[int, ...], spacing: float, are: bool, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), np.diag([spacing] * 3 + [1])), tmp_path / "a.nii")
    assert are_pictures([Case("a", tmp_path / "a.nii")]) == are


# --- in a process ------------------------------------------------------------


@pytest.mark.slow
def test_a_way_alone_in_a_process_gives_the_same(compared: Compared, alone: tuple[Path, Future[Measured]]) -> None:
    folder, measured = alone
    for one, twin in zip(measured.result().scores, compared.comparison.at("two_stage", 16).values(), strict=True):
        assert (one.case, one.macs, one.boxes, one.size) == (twin.case, twin.macs, twin.boxes, twin.size)
        assert one.values == pytest.approx(twin.values, nan_ok=True)
    assert sorted(path.name for path in folder.iterdir()) == ["image2_seg.nii.gz", "image3_seg.nii.gz"]
