from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from stseg3d.metrics import boundary, score_masks
from tests.metrics.pairs import CASES, EMPTY, PAIRS, box, slow_surface


def slow_depth_mm(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """How deep each voxel lies: against every voxel outside, one layer around the image included; 0 on the surface, NaN outside."""
    inside, outside = np.argwhere(np.pad(mask, 1)), np.argwhere(~np.pad(mask, 1))
    depth = np.full(mask.shape, np.nan)
    depth[tuple((inside - 1).T)] = cdist(inside * spacing, outside * spacing).min(axis=1)
    depth[tuple(slow_surface(mask).T)] = 0
    return depth


def boundary_iou(ours: np.ndarray, theirs: np.ndarray, spacing: tuple[float, ...], width: float) -> float:
    return score_masks(ours, theirs, spacing, boundary_mm=width)["boundary_iou_fixed"]


def slow_iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize(("name", "spacing"), CASES)
def test_it_is_that_of_all_pairs_of_voxels(name: str, spacing: tuple[float, ...]) -> None:
    depths = [slow_depth_mm(mask, spacing) for mask in PAIRS[name]]
    for width in (0.0, 1.0, 1.5, 2.7, 100.0):
        slow = slow_iou(*(depth <= width + 1e-9 for depth in depths))
        assert boundary_iou(*PAIRS[name], spacing, width) == pytest.approx(slow, abs=1e-6), width


@pytest.mark.parametrize("width", [1.0, 2.7])
def test_slabs_leave_no_trace(width: float, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = boundary_iou(*PAIRS["blobs"], (0.7, 0.9, 3.0), width)
    made = []
    monkeypatch.setattr(boundary, "SLAB_VOXELS", 1)
    monkeypatch.setattr(boundary, "find_boundaries", lambda *args, f=boundary.find_boundaries: made.append(0) or f(*args))
    assert boundary_iou(*PAIRS["blobs"], (0.7, 0.9, 3.0), width) == whole
    assert len(made) > 2  # there was more than one slab


def test_numbers_by_hand() -> None:
    # Squares of 6, one shifted by 1 voxel. One voxel wide, frames have 20 voxels each; both have rows 0 and 5 of columns 1 to 5.
    pair = box((8, 8), (1, 7), (0, 6)), box((8, 8), (1, 7), (1, 7))
    assert boundary_iou(*pair, (1, 1), 1.0) == pytest.approx(10 / 30)
    # Two voxels wide, 32 each; both have rows 0, 1, 4, 5 of columns 1 to 5, and in rows 2 and 3 columns 1 and 5.
    assert boundary_iou(*pair, (1, 1), 2.0) == pytest.approx(24 / 40)


def test_a_boundary_as_wide_as_the_object_gives_its_iou() -> None:
    ours, theirs = PAIRS["shifted"]
    assert boundary_iou(ours, theirs, (1, 1, 1), 100) == pytest.approx(slow_iou(ours, theirs))


def test_a_depth_of_one_voxel_is_no_boundary() -> None:
    pair = box((8, 8), (1, 7), (0, 6)), box((8, 8), (1, 7), (1, 7))
    assert boundary_iou(*(mask[..., None] for mask in pair), (1, 1, 9), 1.0) == pytest.approx(10 / 30)


def test_empty_masks() -> None:
    full = PAIRS["shifted"][0]
    assert boundary_iou(EMPTY, EMPTY, (1, 1, 1), 1) == 1
    assert boundary_iou(EMPTY, full, (1, 1, 1), 1) == boundary_iou(full, EMPTY, (1, 1, 1), 1) == 0


def test_a_negative_width_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative, got -1 mm"):
        boundary_iou(EMPTY, EMPTY, (1, 1, 1), -1)
