"""Labels that are none are refused by name before anything is made of them, and values are what ``dataset.json`` calls them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stseg3d.geometry import Grid
from stseg3d.volumes import ArrayVolume, LabelValues, load_dataset, open_volume, read_classes, read_label

SHAPE = (24, 24, 24)
CUBE = np.zeros(SHAPE, np.uint8)
CUBE[6:16, 6:16, 6:16] = 1
IMAGE = ArrayVolume(CUBE[None], Grid(SHAPE), "image")
UNKNOWN = LabelValues()
OBJECT = LabelValues({0: "background", 1: "object"})
TWO = LabelValues({0: "background", 1: "left", 2: "right"})
IGNORING = LabelValues({0: "background", 1: "object", 2: "ignore"})


def scan(rng: np.random.Generator, lowest: int = 0) -> np.ndarray:
    return (CUBE * 200 + rng.integers(lowest, lowest + 30, SHAPE)).astype(np.int16)


def with_voxel(value: float, dtype: Any = np.float32) -> np.ndarray:
    label = CUBE.astype(dtype)
    label[0, 0, 0] = value
    return label


def read(label: np.ndarray, values: LabelValues = UNKNOWN, **options: Any) -> Any:
    return read_label(ArrayVolume(label[None], Grid(SHAPE), "label"), IMAGE, values, **options)


# --- what is no label --------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "told"),
    [
        (with_voxel(-20, np.int16), "labels must not be negative, got -20 to 1: is it a scan?"),
        (with_voxel(-1.0), "labels must not be negative, got -1 to 1: is it a scan?"),
        (with_voxel(0.5), "labels must be whole numbers, got 0.5; 1 of 13824 voxels are not"),
        (with_voxel(1.0011), "labels must be whole numbers, got 1.0011; 1 of 13824 voxels are not"),
        (with_voxel(np.nan), "labels must be finite, got NaN or infinity in 1 of 13824 voxels"),
        (with_voxel(-np.inf), "labels must be finite, got NaN or infinity in 1 of 13824 voxels"),
        (with_voxel(2**40), "labels must be at most 2147483647, got 1099511627776"),
        (with_voxel(2**32, np.uint64), "labels must be at most 2147483647, got 4294967296"),
    ],
)
@pytest.mark.parametrize("meaning", ["foreground", "objects", "classes"])
def test_values_that_are_no_labels_are_refused_whatever_they_mean(label: np.ndarray, told: str, meaning: str) -> None:
    with pytest.raises(ValueError, match=f"^label: {re.escape(told)}$"):
        read(label, meaning=meaning)


@pytest.mark.parametrize("values", [LabelValues(), OBJECT])
def test_a_scan_is_refused_even_if_it_is_not_negative(values: LabelValues, rng: np.random.Generator) -> None:
    told = r"^label: labels must be classes or ids of objects, got 59 values spread over the whole image: is it a scan\?$"
    with pytest.raises(ValueError, match=told):
        read(scan(rng), values, meaning="foreground")
    with pytest.raises(ValueError, match="is it a scan"):
        read_classes(ArrayVolume(scan(rng)[None], Grid(SHAPE), "prediction"))


def test_many_ids_are_no_scan() -> None:
    ids = np.zeros(SHAPE, np.uint16)
    for n, (i, j, k) in enumerate(np.ndindex(4, 4, 4)):
        ids[6 * i : 6 * i + 5, 6 * j : 6 * j + 5, 6 * k : 6 * k + 5] = 1000 * (n + 1)
    np.testing.assert_array_equal(read(ids, OBJECT, meaning="foreground").classes, ids)


def test_values_without_a_name_are_refused() -> None:
    told = r"^label: labels must be values that \"labels\" of dataset.json names, \[0, 1, 2\], got 3, 9$"
    label = with_voxel(9, np.uint8)
    label[0, 0, 1] = 3
    for meaning in ("foreground", "objects", "classes"):
        with pytest.raises(ValueError, match=told):
            read(label, TWO, meaning=meaning)
    # A name for one kind of object: other values are further objects, unless each is a class, or one is ignored.
    assert read(label, OBJECT, meaning="foreground").classes.max() == 9
    for values, meaning in ((OBJECT, "classes"), (IGNORING, "foreground")):
        with pytest.raises(ValueError, match="got 3, 9"):
            read(label, values, meaning=meaning)
    many = np.arange(CUBE.size).reshape(SHAPE).astype(np.int32)
    with pytest.raises(ValueError, match="got 3, 4, 5, 6, 7 and 13816 more"):
        read(many, TWO)


def test_classes_that_the_plan_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^label: labels must be below out_channels=2, the number of the plan's classes, got 2$"):
        read(with_voxel(2, np.uint8), TWO, meaning="classes", out_channels=2)


def test_masks_of_0_and_255_are_objects_but_no_classes() -> None:
    mask = CUBE * np.uint8(255)
    for values in (LabelValues(), OBJECT):
        np.testing.assert_array_equal(read(mask, values, meaning="foreground").classes > 0, CUBE > 0)
    with pytest.raises(ValueError, match=r"names, .*got 255"):
        read(mask, OBJECT, meaning="classes")
    with pytest.raises(ValueError, match=r"out_channels=3, .*got 255"):
        read(mask, meaning="classes", out_channels=3)


def test_values_off_by_rounding_are_rounded_and_said_once(write_nifti: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    path = write_nifti("almost.nii", CUBE.astype(np.float32) * np.float32(0.9999999) + np.float32(1e-6))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = read_label(path, IMAGE)
            np.testing.assert_array_equal(found.classes, CUBE)
    assert found.classes.dtype.kind == "i"
    assert caplog.messages == [f"{path}: labels are rounded to whole numbers, up to 1e-06 away"]


def test_whole_numbers_are_given_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    for label in (CUBE, CUBE.astype(np.float32), CUBE.astype(np.int16), CUBE.astype(np.uint64), CUBE.astype(bool)):
        np.testing.assert_array_equal(read(label, OBJECT).classes, CUBE)
    assert not caplog.records


def test_another_grid_or_several_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^image and its label label must be on the same grid, got shape \(24, 24, 24\) and \(4, 4, 4\)$"):
        read_label(ArrayVolume(CUBE[None, :4, :4, :4], Grid((4, 4, 4)), "label"), IMAGE)
    with pytest.raises(ValueError, match=r"^label: a label map must have one channel, got 2$"):
        read_label(ArrayVolume(np.stack([CUBE, CUBE]), Grid(SHAPE), "label"), IMAGE)


# --- what is ignored ---------------------------------------------------------


def test_an_ignored_voxel_is_neither_object_nor_background() -> None:
    label = CUBE.copy()
    label[:, :, 12:] = 2
    for meaning in ("foreground", "objects", "classes"):
        found = read(label, IGNORING, meaning=meaning, out_channels=2)
        np.testing.assert_array_equal(found.ignored, label == 2)
        np.testing.assert_array_equal(found.classes, CUBE * (label != 2))
        np.testing.assert_array_equal(found.clear(np.full(SHAPE, 7, np.uint8)), 7 * (label != 2))
        assert found.ignored_voxels == 24 * 24 * 12
    assert read(CUBE, IGNORING).ignored is None
    assert read(CUBE, IGNORING).ignored_voxels == 0
    other = np.ones(SHAPE, np.uint8)
    assert read(CUBE, IGNORING).clear(other) is other


# --- dataset.json ------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "ignore", "ids"),
    [
        ({"background": 0, "object": 1, "ignore": 2}, 2, False),
        ({"0": "background", "1": "object", "255": " Ignore"}, 255, False),
        ({"background": "0", "object": "1"}, None, True),
        ({"1": "nucleus"}, None, True),
        ({"background": 0, "L1": 1, "L2": 2}, None, False),
        ({}, None, True),
    ],
)
def test_names_say_which_value_is_ignored_and_whether_there_may_be_ids(labels: dict[str, Any], ignore: int | None, ids: bool) -> None:
    found = LabelValues.parse(labels, "dataset.json")
    assert (found.ignore, found.may_be_ids) == (ignore, ids)


def test_regions_are_unions_of_values_and_each_value_has_a_name() -> None:
    labels = {"background": 0, "whole tumour": [1, 2, 4], "core": [4, 2], "enhancing": [4], "edge": 7, "ignore": 9}
    found = LabelValues.parse(labels, "dataset.json")
    assert found.regions == {"whole tumour": (1, 2, 4), "core": (2, 4), "enhancing": (4,), "edge": (7,)}
    assert found.names == {0: "background", 1: "value 1", 2: "value 2", 4: "enhancing", 7: "edge", 9: "ignore"}
    assert (found.ignore, found.may_be_ids) == (9, False)
    with pytest.raises(ValueError, match=r"names, \[0, 1, 2, 4, 7, 9\], got 3"):
        read(CUBE * np.uint8(3), found, meaning="classes")


def test_lists_of_one_value_are_that_value() -> None:
    found = LabelValues.parse({"background": [0], "left": [1], "right": [2]}, "dataset.json")
    assert (found.names, found.regions) == ({0: "background", 1: "left", 2: "right"}, {})


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"background": 0, "whole": [1, 2], "all": [2, 1]}, "must give a name for each value"),
        ({"background": 0, "whole": []}, "must give a name for each value"),
        ({"background": 0, "whole": [1, 1]}, "must give a name for each value"),
        ({"background": 0, "whole": [1, "a"]}, "must give a name for each value"),
        ({"background": 0, "whole": [0, 1]}, "must have regions of values that are neither background nor ignored, got 'whole' of [0, 1]"),
        ({"background": 0, "whole": [1, 2], "ignore": 2}, "must have regions of values that are neither background nor ignored"),
        ({"background": [0, 1], "whole": [1, 2]}, "must have regions of values that are neither background nor ignored"),
        ({"whole": [1, 2], "ignore": [2, 3]}, "must have regions of values that are neither background nor ignored, got 'ignore'"),
        ({"background": 0, "object": 1.5}, "must give a name for each value, got {'background': 0, 'object': 1.5}"),
        ({"background": 0, "object": -1}, "must give a name for each value"),
        ({"background": 0, "object": True}, "must give a name for each value"),
        ({"background": 0, "object": 10**400}, "must give a name for each value"),
        ({"background": 0, "a": 1, "b": 1}, "must give a name for each value"),
        ({"1": "a", "01": "b"}, "must give a name for each value"),
        (["background", "object"], "must give a name for each value"),
        ({"ignore": 0, "object": 1}, 'must have 0 as background and at most one other value as "ignore"'),
        ({"object": 0, "background": 1}, "must have 0 as background"),
        ({"0": "background", "1": "ignore", "2": "Ignore"}, "must have 0 as background and at most one other value"),
    ],
)
def test_labels_that_contradict_themselves_are_refused_with_the_file(tmp_path: Path, labels: Any, told: str) -> None:
    for name in ("a.nii", "b.nii"):
        (tmp_path / name).touch()
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"labels": labels, "training": [{"image": "a.nii", "label": "b.nii"}]}))
    with pytest.raises(ValueError, match=re.escape(f'{path}: "labels" {told}')):
        load_dataset(path)


def test_each_case_knows_the_values_of_its_data_set(tmp_path: Path, write_nifti: Callable[..., Path]) -> None:
    image, label = write_nifti("a.nii", CUBE), write_nifti("b.nii", CUBE + 1)
    entry = {"image": image.name, "label": label.name}
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"labels": {"background": 0, "object": 1, "ignore": 2}, "training": [entry], "test": [entry, "a.nii"]}))
    dataset = load_dataset(path)
    assert [case.label_values for case in (*dataset.training, *dataset.test)] == [dataset.labels] * 3
    found = read_label(label, open_volume(image), dataset.training[0].label_values)
    assert found.ignored_voxels == 1000
