"""The share of labelled voxels in boxes: against a mask of the whole image, in slabs, at the edge, of nothing."""

from __future__ import annotations

import importlib
from itertools import combinations

import numpy as np
import pytest

from stseg3d.geometry import Box
from stseg3d.ops import box_coverage
from tests.ops.twins import SHAPES, all_boxes


def slow_share(label: np.ndarray, boxes: list[Box]) -> float:
    inside = np.zeros(label.shape, dtype=bool)
    for voxel in np.ndindex(label.shape):
        inside[voxel] = any(all(a <= v < b for a, v, b in zip(box.start, voxel, box.stop, strict=True)) for box in boxes)
    return float((inside & (label > 0)).sum() / (label > 0).sum())


@pytest.mark.parametrize("shape", SHAPES)
def test_two_boxes_cover_what_lies_in_either(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    label = rng.integers(0, 3, shape)
    pairs = list(combinations(all_boxes(shape), 2))
    for pick in rng.choice(len(pairs), 30):
        boxes = list(pairs[pick])
        assert box_coverage(label, boxes) == pytest.approx(slow_share(label, boxes))


def test_slabs_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    label = rng.integers(0, 4, (6, 5, 40))
    boxes = [Box((1, 0, 3), (4, 5, 31)), Box((0, 2, 7), (6, 3, 38))]
    whole = box_coverage(label, boxes)
    module = importlib.import_module("stseg3d.ops.resample")  # stseg3d.ops has a function of this name
    monkeypatch.setattr(module, "SLAB_VOXELS", 6 * 5 * 3)
    assert box_coverage(label, boxes) == whole


def test_boxes_may_reach_over_the_edge_or_lie_outside() -> None:
    label = np.ones((4, 4), dtype=np.uint8)
    assert box_coverage(label, [Box((-3, -3), (2, 9))]) == 0.5
    assert box_coverage(label, [Box((-9, 0), (-5, 4)), Box((4, 0), (8, 4)), Box((2, 2), (2, 4))]) == 0.0


def test_no_box_covers_nothing_and_an_empty_label_is_covered_by_anything() -> None:
    label = np.array([[0, 1], [2, 2]])
    assert box_coverage(label, []) == 0.0
    assert box_coverage(np.zeros_like(label), []) == 1.0


def test_a_depth_of_one_changes_nothing(rng: np.random.Generator) -> None:
    label = rng.integers(0, 3, (6, 7))
    flat, deep = Box((1, 2), (5, 6)), Box((1, 2, 0), (5, 6, 1))
    assert box_coverage(label, [flat]) == box_coverage(label[..., None], [deep])
