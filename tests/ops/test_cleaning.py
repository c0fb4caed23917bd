"""Components that a plan's output does not want are cleared, counted, and no others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stseg3d.ops.cleaning import clean

CLASSES = ("background", "a", "b")
# a: 3 voxels, 1 that touches b's 4, 2 alone; b: 4, 1 alone.
LABELS = [[1, 1, 1, 0, 2, 2, 0, 1], [0, 0, 0, 1, 2, 2, 0, 1], [0] * 8, [2, 0, 0, 0, 0, 0, 0, 0]]


def cleaned(rules: dict[str, Any], voxel_mm3: float = 1.0) -> tuple[np.ndarray, dict[str, int]]:
    labels = np.array(LABELS, dtype=np.uint8, order="F")
    return labels, clean(labels, CLASSES, **{"largest_only": (), "least_mm3": {}, "voxel_mm3": voxel_mm3} | rules)


@pytest.mark.parametrize(
    ("rules", "gone", "counts"),
    [
        ({}, [], (0, 0)),
        ({"largest_only": ("foreground",)}, [(0, 7), (1, 7), (3, 0)], (2, 3)),  # a and b touch, and are one component
        ({"largest_only": ("a",)}, [(0, 7), (1, 7)], (1, 2)),  # neighbours over a corner belong together
        ({"largest_only": ("b",)}, [(3, 0)], (1, 1)),
        ({"least_mm3": {"a": 2.5}}, [(0, 7), (1, 7)], (1, 2)),
        ({"least_mm3": {"a": 2, "b": 2}}, [(3, 0)], (1, 1)),
        ({"least_mm3": {"foreground": 3}}, [(0, 7), (1, 7), (3, 0)], (2, 3)),
        ({"least_mm3": {"b": 5}}, [(0, 4), (0, 5), (1, 4), (1, 5), (3, 0)], (2, 5)),
    ],
)
def test_what_is_cleared(rules: dict[str, Any], gone: list[tuple[int, int]], counts: tuple[int, int]) -> None:
    expected = np.array(LABELS)
    for where in gone:
        expected[where] = 0
    labels, removed = cleaned(rules)
    np.testing.assert_array_equal(labels, expected)
    assert removed == dict(zip(("removed_components", "removed_voxels"), counts, strict=True))


def test_volumes_are_those_of_voxels() -> None:
    np.testing.assert_array_equal(cleaned({"least_mm3": {"a": 20}}, voxel_mm3=10)[0], LABELS)
    assert cleaned({"least_mm3": {"a": 21}}, voxel_mm3=10)[1]["removed_voxels"] == 2


def test_of_two_largest_components_both_stay_and_nothing_stays_nothing() -> None:
    labels = np.array([1, 0, 1, 0], dtype=np.uint8)
    rules: dict[str, Any] = {"largest_only": ("a",), "least_mm3": {}, "voxel_mm3": 1.0}
    assert clean(labels, CLASSES, **rules)["removed_voxels"] == 0
    labels[:] = 0
    assert clean(labels, CLASSES, **rules) == {"removed_components": 0, "removed_voxels": 0}
