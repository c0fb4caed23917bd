from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stseg3d.evaluate import Pair, classes_in, evaluate_case, pair_cases, summarise
from stseg3d.metrics import METRICS, score_masks, score_objects
from stseg3d.volumes import LabelValues

AFFINE = np.diag([0.7, 0.9, 3.0, 1.0])


@pytest.fixture
def maps(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    label = np.zeros((9, 8, 7), np.uint8)
    label[1:4, 1:6, 1:6], label[6:8, 2:7, 2:6] = 1, 2
    return np.roll(label, 1, axis=1), label


@pytest.fixture
def pair(maps: tuple[np.ndarray, np.ndarray], write_nifti: Callable[..., Path]) -> Pair:
    return Pair("x", write_nifti("pred/x.nii.gz", maps[0], AFFINE), write_nifti("label/x.nii.gz", maps[1], AFFINE))


def test_a_file_s_scores_are_those_of_its_array_with_its_spacing(pair: Pair, maps: tuple[np.ndarray, np.ndarray]) -> None:
    (row,) = evaluate_case(pair, tolerance_mm=0.8, boundary_mm=1.0)
    assert row.values == pytest.approx(score_masks(*maps, (0.7, 0.9, 3.0), tolerance_mm=0.8, boundary_mm=1.0), abs=1e-6)
    assert (row.case, row.name, row.prediction_voxels, row.label_voxels) == ("x", "foreground", 75 + 40, 75 + 40)


def test_each_class_is_scored_alone(pair: Pair, maps: tuple[np.ndarray, np.ndarray]) -> None:
    rows = {row.name: row for row in evaluate_case(pair, per_class=True)}
    assert list(rows) == ["foreground", "1", "2"]
    assert rows["2"].values == pytest.approx(score_masks(maps[0] == 2, maps[1] == 2, (0.7, 0.9, 3.0)), abs=1e-6)
    assert (rows["2"].prediction_voxels, rows["2"].label_voxels) == (40, 40)


@pytest.mark.parametrize("objects", ["labels", "components"])
def test_objects_are_scored_if_asked(objects: str, pair: Pair, maps: tuple[np.ndarray, np.ndarray]) -> None:
    first, *classes = evaluate_case(pair, per_class=True, objects=objects)
    assert list(first.values) == list(METRICS)
    assert first.values.items() >= score_objects(*maps, objects=objects).items()
    # A class of an instance map would be one object; its components are several.
    assert all(("objects_found" in row.values) == (objects == "components") for row in classes)


# --- what the data set says --------------------------------------------------


def pair_of(write: Callable[..., Path], label: np.ndarray, names: dict[str, int]) -> Pair:
    """Files in folders, and a ``dataset.json``; the prediction is foreground everywhere but in the first slab."""
    prediction = np.ones((4, 5, 6), np.uint8)
    prediction[0] = 0
    folder = write("x.nii.gz", label).parent
    write("pred/x_seg.nii.gz", prediction)
    content = {"labels": names, "training": [{"image": "x.nii.gz", "label": "x.nii.gz"}]}
    (folder / "dataset.json").write_text(json.dumps(content))
    (pair,) = pair_cases(folder / "pred", folder / "dataset.json", part="training")
    return pair


def test_ignored_voxels_are_neither_right_nor_wrong(write_nifti: Callable[..., Path]) -> None:
    label = np.zeros((4, 5, 6), np.uint8)
    label[2], label[3] = 1, 2  # ignored: predicted, and 2 would be foreground
    pair = pair_of(write_nifti, label, {"background": 0, "object": 1, "ignore": 2})
    for options in ({}, {"per_class": True}, {"objects": "components"}, {"objects": "labels"}):
        rows = evaluate_case(pair, **options)
        for row in rows:
            assert (row.prediction_voxels, row.label_voxels) == (60, 30)
            counted = {name: row.values[name] for name in ("dice", "precision", "recall", "specificity", "volume_difference")}
            assert counted == pytest.approx({"dice": 2 / 3, "precision": 0.5, "recall": 1, "specificity": 0.5, "volume_difference": 1})
        assert [row.name for row in rows] == (["foreground", "1"] if "per_class" in options else ["foreground"])


def test_what_is_predicted_where_the_label_is_ignored_changes_no_score(write_nifti: Callable[..., Path]) -> None:
    label, predictions = np.zeros((12, 8, 7), np.uint8), np.zeros((2, 12, 8, 7), np.uint8)
    label[1:3, 1:5, 1:5], label[6:, :, :] = 1, 2
    predictions[:, 1:4, 1:5, 1:5], predictions[1, 7:9, 2:5, 2:4], predictions[1, 11] = 1, 1, 3
    pairs = [
        Pair("x", write_nifti(f"{n}.nii", found), write_nifti("label.nii", label), LabelValues({0: "", 1: "object", 2: "ignore"}))
        for n, found in enumerate(predictions)
    ]
    for options in ({"per_class": True, "objects": "components"}, {"objects": "labels"}):
        assert evaluate_case(pairs[0], **options) == evaluate_case(pairs[1], **options)
    assert evaluate_case(pairs[1], objects="labels")[0].values["objects_false"] == 0


@pytest.mark.parametrize(
    ("label", "options", "told"),
    [
        (np.full((4, 5, 6), 0.25, np.float32), {}, "x.nii.gz: labels must be whole numbers, got 0.25"),
        (np.full((4, 5, 6), -3, np.int16), {}, "x.nii.gz: labels must not be negative, got -3 to -3"),
        (np.full((4, 5, 6), 3, np.int16), {"per_class": True}, r"x.nii.gz: labels must be values that .* names, \[0, 1\], got 3"),
        (np.full((4, 5, 6), np.nan, np.float32), {}, "x.nii.gz: labels must be finite, got NaN or infinity in 120 of 120 voxels"),
    ],
)
def test_a_label_that_is_none_is_not_scored(
    label: np.ndarray, options: dict[str, Any], told: str, write_nifti: Callable[..., Path]
) -> None:
    with pytest.raises(ValueError, match=told):
        evaluate_case(pair_of(write_nifti, label, {"background": 0, "object": 1}), **options)


def test_ids_of_one_kind_of_object_are_scored(write_nifti: Callable[..., Path]) -> None:
    label = np.zeros((4, 5, 6), np.uint16)
    label[1, :, :3], label[2:, :, 4:] = 700, 65535
    pair = pair_of(write_nifti, label, {"background": 0, "cell": 1})
    assert evaluate_case(pair)[0].label_voxels == 15 + 20
    assert evaluate_case(pair, objects="labels")[0].values["objects_missed"] == 1


def test_a_picture_of_0_and_255_is_scored_as_object_1_and_a_jpeg_is_refused(tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[5:9, 3:20] = 1
    sitk = pytest.importorskip("SimpleITK")
    for name, value in (("a_seg.png", 1), ("a.png", 255), ("a.jpg", 255)):
        sitk.WriteImage(sitk.GetImageFromArray(mask * value), str(tmp_path / name))
    rows = evaluate_case(Pair("a", tmp_path / "a_seg.png", tmp_path / "a.png"), per_class=True)
    assert [(row.name, row.values["dice"]) for row in rows] == [("foreground", 1), ("1", 1)]
    with pytest.raises(ValueError, match=r"a.jpg: a label must be stored without loss"):
        evaluate_case(Pair("a", tmp_path / "a_seg.png", tmp_path / "a.jpg"))


def test_a_region_is_scored_as_the_union_of_its_values(write_nifti: Callable[..., Path]) -> None:
    label, prediction = np.zeros((4, 5, 6), np.uint8), np.zeros((4, 5, 6), np.uint8)
    label[1], label[2], label[3] = 1, 2, 4
    prediction[1:3], prediction[3] = 2, 5
    regions = {"whole": [1, 2, 4], "core": [2, 4], "rim": [4], "foreground": [1, 2], "3": [3, 6]}
    values = LabelValues.parse({"background": 0, **regions}, "dataset.json")
    pair = Pair("x", write_nifti("found.nii", prediction), write_nifti("label.nii", label), values)
    rows = {row.name: row for row in evaluate_case(pair, per_class=True)}
    assert list(rows) == ["foreground", "1", "2", "4", "5", "whole", "core", "rim", "foreground (region)"]
    assert rows["whole"].values == pytest.approx(score_masks(np.isin(prediction, [1, 2, 4]), label > 0, (1, 1, 1)), abs=1e-6)
    assert rows["core"].values["dice"] == pytest.approx(0.5)  # slab 2 of slabs 1 and 2, and of slabs 2 and 3
    assert rows["rim"].values["dice"] == 0
    assert rows["foreground (region)"].values["dice"] == 1
    assert [one.name for one in summarise(rows.values())] == list(rows)
    assert len(evaluate_case(pair)) == 1


def test_classes_are_found_however_large_their_ids() -> None:
    maps = np.array([[0, 2**31 - 1]]), np.array([[7, 0]], np.uint8)  # counting up to the first would take 16 GiB
    assert classes_in(*maps) == [7, 2**31 - 1]
