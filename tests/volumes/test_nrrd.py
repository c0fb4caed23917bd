"""NRRD as 3D Slicer writes it: images, and segmentations in layers, cropped, with names."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from stseg3d.evaluate.pairing import Pair, pair_cases
from stseg3d.evaluate.scoring import evaluate_case
from stseg3d.geometry import Grid
from stseg3d.plan import ImageView
from stseg3d.volumes import CanonicalVolume, case_id, find_cases, list_cases, load_dataset, open_label, open_volume, write_labels

SHAPE = (7, 6, 5)
LPS = "left-posterior-superior"
AFFINE = np.array([[-0.7, 0, 0, 31], [0, -0.8, 0, 42], [0, 0, 2.5, -53], [0, 0, 0, 1]])  # RAS+, as LPS files are seen
ONE = [("aorta", 1, 0)]


def write_nrrd(
    path: Path, array: np.ndarray, *, start=(0, 0, 0), space=LPS, encoding="raw", detached=False, segments=(), more="", affine=AFFINE
) -> Path:
    """A file by hand, its header as 3D Slicer 5 orders it; ``(i, j, k)``, or ``(layer, i, j, k)``; ``start``: its first voxel."""
    to_file = {"left-posterior-superior": [-1, -1, 1], "right-anterior-superior": [1, 1, 1]}[space]
    matrix = np.diag([*to_file, 1]) @ affine
    origin = matrix[:3] @ [*start, 1]
    listed = array.ndim == 4
    vectors = ["none"] * listed + [f"({','.join(repr(float(x)) for x in matrix[:3, a])})" for a in range(3)]
    lines = [
        "NRRD0004",
        "# Complete NRRD file format specification at:",
        f"type: {'short' if array.dtype == np.int16 else 'unsigned char'}",
        f"dimension: {array.ndim}",
        f"space: {space}",
        f"sizes: {' '.join(map(str, array.shape))}",
        f"space directions: {' '.join(vectors)}",
        f"kinds: {'list ' * listed}domain domain domain",
        "endian: little",
        f"encoding: {encoding}",
        f"space origin: ({','.join(repr(float(x)) for x in origin)})",
        *([f"data file: {path.stem}.bin"] if detached else []),
        *(f"Segment{k}_Name:={name}" for k, (name, _, _) in enumerate(segments)),
        *(f"Segment{k}_ID:=Segment_{k}" for k, _ in enumerate(segments)),
        *(f"Segment{k}_LabelValue:={value}" for k, (_, value, _) in enumerate(segments) if value is not None),
        *(f"Segment{k}_Layer:={layer}" for k, (_, _, layer) in enumerate(segments) if layer is not None),
        *(["Segmentation_SourceRepresentation:=Binary labelmap"] if segments and "Representation" not in more else []),
        *([f"Segmentation_ReferenceImageExtentOffset:={' '.join(map(str, start))}"] if segments else []),
        *([more] if more else []),
    ]
    voxels = array.tobytes(order="F")
    voxels = gzip.compress(voxels) if encoding == "gzip" else voxels
    path.parent.mkdir(parents=True, exist_ok=True)
    head = ("\n".join(lines) + "\n").encode()
    if detached:
        path.write_bytes(head)
        path.with_name(f"{path.stem}.bin").write_bytes(voxels)
    else:
        path.write_bytes(head + b"\n" + voxels)
    return path


@pytest.fixture
def label(rng):
    return (rng.random(SHAPE) > 0.7).astype(np.uint8)


# --- images ------------------------------------------------------------------


@pytest.mark.parametrize("space", [LPS, "right-anterior-superior"])
@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize("detached", [False, True])
def test_an_image_is_where_its_header_says(tmp_path, rng, space, encoding, detached):
    array = rng.integers(-1000, 1000, SHAPE).astype(np.int16)
    path = write_nrrd(tmp_path / ("ct.nhdr" if detached else "ct.nrrd"), array, space=space, encoding=encoding, detached=detached)
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.read()[0], array)
    np.testing.assert_allclose(volume.grid.affine, AFFINE, atol=1e-12)
    assert volume.dtype == np.int16


# --- segmentations -----------------------------------------------------------


@pytest.mark.parametrize("name", ["ct.seg.nrrd", "CT.SEG.NRRD", "ct.seg.nhdr"])
def test_a_case_is_named_without_the_whole_suffix(tmp_path, label, name):
    path = write_nrrd(tmp_path / name, label, segments=ONE, detached=name.endswith("nhdr"))
    assert case_id(path) == name[:2]
    np.testing.assert_array_equal(open_volume(path).read()[0], label)


def test_labels_of_one_layer_are_the_files_own(tmp_path, label):
    label[label > 0] = 3
    label[0, 0, 0] = 7
    path = write_nrrd(tmp_path / "a.seg.nrrd", label, segments=[("aorta", 3, 0), ("iliac", 7, 0)], encoding="gzip")
    np.testing.assert_array_equal(open_volume(path).read()[0], label)
    grid = open_volume(path).grid
    np.testing.assert_array_equal(open_label(path, grid, overlap=True).read()[0], label)


def layered(*parts: tuple[slice, int]) -> np.ndarray:
    array = np.zeros((len(parts), *SHAPE), np.uint8)
    for layer, (where, value) in enumerate(parts):
        array[layer, where] = value
    return array


def test_layers_that_do_not_overlap_become_one_label_map(tmp_path, caplog):
    array = layered((slice(0, 2), 4), (slice(2, 5), 9))
    path = write_nrrd(tmp_path / "a.seg.nrrd", array, segments=[("aorta", 4, 0), ("branches", 9, 1)])
    labels = open_volume(path)
    assert labels.channels == 1
    np.testing.assert_allclose(labels.grid.affine, AFFINE, atol=1e-12)
    np.testing.assert_array_equal(labels.read()[0, :, 0, 0], [4, 4, 9, 9, 9, 0, 0])
    assert not caplog.records


@pytest.mark.parametrize("own", [1, None])
def test_segments_of_one_value_are_numbered_and_named(tmp_path, caplog, own):
    """Each layer counts from 1 anew; files of older versions give neither label nor layer."""
    path = write_nrrd(
        tmp_path / "a.seg.nrrd",
        layered((slice(0, 2), 1), (slice(2, 5), 1)),
        segments=[("aorta", own, 0 if own else None), ("branches", own, 1 if own else None)],
    )
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(open_volume(path).read()[0, :, 0, 0], [1, 1, 2, 2, 2, 0, 0])
    assert "numbered in the order of the file: 1 aorta, 2 branches" in caplog.text


def test_segments_that_overlap_are_refused_by_name_but_have_a_union(tmp_path):
    array = layered((slice(0, 3), 1), (slice(2, 5), 2))
    path = write_nrrd(tmp_path / "a.seg.nrrd", array, segments=[("aorta", 1, 0), ("branches", 2, 1)])
    told = r"a.seg.nrrd: segments must not overlap, got 30 voxels of 'branches' in 'aorta' or others"
    with pytest.raises(ValueError, match=told):
        open_volume(path).read()
    with pytest.raises(ValueError, match=told):
        open_label(path, Grid(SHAPE, AFFINE)).read()
    np.testing.assert_array_equal(open_label(path, Grid(SHAPE, AFFINE), overlap=True).read()[0, :, 0, 0], [1, 1, 2, 2, 2, 0, 0])


@pytest.mark.parametrize(
    ("segments", "more", "told"),
    [
        ([], "", "header must say in which of 2 layers its segments are, got no segments"),
        ([("a", 1, 5)], "", "header must say in which of 2 layers its segments are, got [(5, 1)]"),
        ([("a", "x", 0)], "", "segments must have whole numbers as layer and label, got: invalid literal"),
        (ONE, "Segmentation_SourceRepresentation:=Fractional labelmap", "must be a binary label map, got 'Fractional labelmap'"),
    ],
)
def test_a_segmentation_that_does_not_say_what_is_in_it(tmp_path, segments, more, told):
    path = write_nrrd(tmp_path / "a.seg.nrrd", layered((slice(0, 2), 1), (slice(2, 5), 1)), segments=segments, more=more)
    with pytest.raises(ValueError, match=r"a\.seg\.nrrd: ") as caught:
        open_volume(path)
    assert told in str(caught.value)


def test_a_missing_segmentation_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a.seg.nrrd: file must exist"):
        open_label(tmp_path / "a.seg.nrrd", Grid(SHAPE))


# --- cropped segmentations ---------------------------------------------------


@pytest.mark.parametrize("start", [(0, 0, 0), (1, 2, 3), (4, 0, 2)])
def test_a_cropped_segmentation_is_pasted_where_it_was(tmp_path, start):
    part = np.full((3, 4, 2), 5, np.uint8)
    path = write_nrrd(tmp_path / "a.seg.nrrd", part, start=start, segments=[("aorta", 5, 0)])
    whole = np.zeros(SHAPE, np.uint8)
    whole[tuple(slice(a, a + n) for a, n in zip(start, part.shape, strict=True))] = 5
    assert open_volume(path).grid.shape == part.shape
    label = open_label(path, Grid(SHAPE, AFFINE))
    np.testing.assert_array_equal(label.read()[0], whole)
    assert label.grid == Grid(SHAPE, AFFINE)
    assert label.name == str(path)


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SAL", "PIR"])
def test_the_axes_of_the_image_may_be_others(tmp_path, label, axcodes):
    cut = (slice(1, 5), slice(2, 6), slice(1, 4))
    path = write_nrrd(tmp_path / "a.seg.nrrd", label[cut], start=(1, 2, 1), segments=ONE)
    whole = np.zeros_like(label)
    whole[cut] = label[cut]
    seen = CanonicalVolume(open_volume(write_nrrd(tmp_path / "whole.nrrd", whole)), axcodes)
    np.testing.assert_array_equal(open_label(path, seen.grid).read(), seen.read())


def test_what_lies_outside_the_image_is_left_out_with_a_warning(tmp_path, caplog):
    path = write_nrrd(tmp_path / "a.seg.nrrd", np.ones((3, 3, 3), np.uint8), start=(-1, 2, 4), segments=ONE)
    with caplog.at_level(logging.WARNING):
        label = open_label(path, Grid(SHAPE, AFFINE)).read()[0]
    assert np.argwhere(label).tolist() == [[i, j, 4] for i in (0, 1) for j in (2, 3, 4)]
    assert "a.seg.nrrd: 21 of 27 labelled voxels lie outside the image and are left out" in caplog.text
    far = write_nrrd(tmp_path / "far.seg.nrrd", np.ones((3, 3, 3), np.uint8), start=(-9, 2, 40), segments=ONE)
    with pytest.raises(ValueError, match=r"far.seg.nrrd: segmentation must lie inside its image, got all 27 labelled voxels outside"):
        open_label(far, Grid(SHAPE, AFFINE))


def test_a_segmentation_of_nothing_is_one_voxel_anywhere(tmp_path):
    path = write_nrrd(
        tmp_path / "a.seg.nrrd", np.zeros((1, 1, 1), np.uint8), start=(90, 0, 0), affine=np.diag([9.0, 1, 1, 1]), segments=ONE
    )
    label = open_label(path, Grid(SHAPE, AFFINE))
    assert label.grid.shape == SHAPE
    assert not label.read().any()


@pytest.mark.parametrize("start", [(0.5, 0, 0), (0, 0, 1.1)])
def test_a_segmentation_between_voxels_is_refused(tmp_path, start):
    path = write_nrrd(tmp_path / "a.seg.nrrd", np.ones((3, 3, 3), np.uint8), start=start, segments=ONE)
    with pytest.raises(ValueError, match=r"a.seg.nrrd: segmentation must lie on the voxels of its image, got \(3, 3, 3\) of .* voxels off"):
        open_label(path, Grid(SHAPE, AFFINE))


def test_a_segmentation_of_other_voxels_is_refused(tmp_path):
    path = write_nrrd(tmp_path / "a.seg.nrrd", np.ones((3, 3, 3), np.uint8), affine=AFFINE @ np.diag([2, 2, 1, 1]), segments=ONE)
    with pytest.raises(ValueError, match=r"of \(1.4, 1.6, 2.5\) mm for \(7, 6, 5\) of \(0.7, 0.8, 2.5\) mm"):
        open_label(path, Grid(SHAPE, AFFINE))


def test_a_label_of_another_kind_is_never_pasted(tmp_path):
    path = write_nrrd(tmp_path / "a.nrrd", np.ones((3, 3, 3), np.uint8))
    assert open_label(path, Grid(SHAPE, AFFINE)).grid.shape == (3, 3, 3)


# --- where they are used -----------------------------------------------------


def test_a_cropped_segmentation_is_evaluated_on_the_whole_image(tmp_path, label):
    label[0] = label[-1] = 0
    (tmp_path / "predictions").mkdir()
    prediction = write_labels(label, tmp_path / "predictions" / "a_seg.nii.gz", Grid(SHAPE, AFFINE))
    truth = write_nrrd(tmp_path / "labels" / "a.seg.nrrd", label[1:-1], start=(1, 0, 0), segments=ONE)
    pairs = pair_cases(tmp_path / "predictions", tmp_path / "labels")
    assert pairs == [Pair("a", prediction, truth)]
    assert [row.values["dice"] for row in evaluate_case(pairs[0], per_class=True)] == [1, 1]


def test_overlapping_segments_are_evaluated_as_foreground_alone(tmp_path):
    array = layered((slice(0, 3), 1), (slice(2, 5), 2))
    truth = write_nrrd(tmp_path / "a.seg.nrrd", array, segments=[("aorta", 1, 0), ("branches", 2, 1)])
    prediction = write_labels(array.any(axis=0), tmp_path / "a_seg.nii.gz", Grid(SHAPE, AFFINE))
    assert evaluate_case(Pair("a", prediction, truth))[0].values["dice"] == 1
    with pytest.raises(ValueError, match="segments must not overlap"):
        evaluate_case(Pair("a", prediction, truth), per_class=True)


def test_a_folder_of_images_with_their_segmentations_holds_images_or_labels(tmp_path, label):
    for name in ("D1", "D2"):
        write_nrrd(tmp_path / f"{name}.nrrd", label.astype(np.int16))
        write_nrrd(tmp_path / f"{name}.seg.nrrd", label, segments=ONE)
    assert [case.image.name for case in list_cases([tmp_path])] == ["D1.nrrd", "D2.nrrd"]
    assert [case.image.name for case in find_cases([tmp_path])] == ["D1.seg.nrrd", "D2.seg.nrrd"]


def test_a_cropped_segmentation_is_a_training_label(tmp_path, label):
    training = pytest.importorskip("stseg3d.training")
    label[0] = 0
    write_nrrd(tmp_path / "D1" / "D1.nrrd", label.astype(np.int16))
    write_nrrd(tmp_path / "D1" / "D1.seg.nrrd", label[1:], start=(1, 0, 0), segments=ONE)
    entry = {"image": "D1/D1.nrrd", "label": "D1/D1.seg.nrrd"}
    (tmp_path / "dataset.json").write_text(json.dumps({"training": [entry]}))
    case = load_dataset(tmp_path).training[0]
    assert case.id == "D1"
    opened = training.OpenCased(ImageView(axcodes="LPS"))(case.as_dict())["case"]
    np.testing.assert_array_equal(opened.label, label)
