from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stseg3d.evaluate import Pair, evaluate_case
from stseg3d.metrics import METRICS, score_masks, score_objects

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
