"""Pieces of one vessel are joined; what is far, is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from stseg3d.geometry import Grid
from stseg3d.ops import BoxPolicy, propose_boxes
from stseg3d.ops.bridging import bridged
from stseg3d.ops.components import structure


def tube(*spans: tuple[int, int], shape: tuple[int, int, int] = (12, 12, 60), at: int = 5) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    for start, stop in spans:
        mask[at : at + 3, at : at + 3, start:stop] = True
    return mask


def pieces(mask: np.ndarray, connectivity: int = 26) -> int:
    return int(ndimage.label(mask, structure(mask.ndim, connectivity))[1])


def test_a_gap_is_bridged_up_to_its_length_in_mm() -> None:
    mask = tube((5, 20), (24, 40))  # 4 voxels of 3 mm between them
    for bridge_mm, joined in ((11.9, 2), (12.0, 1)):
        out, bridges = bridged(mask, (3.0, 3.0, 3.0), bridge_mm)
        assert pieces(out) == joined
        assert bridges == 2 - joined
    assert (out >= mask).all()
    assert out.sum() - mask.sum() == 4  # a line, no more


def test_spacing_counts_on_each_axis() -> None:
    mask = tube((5, 20), (24, 40))
    assert pieces(bridged(mask, (1.0, 1.0, 1.0), 5.0)[0]) == 1
    assert pieces(bridged(mask, (1.0, 1.0, 4.0), 5.0)[0]) == 2


def test_the_mask_given_is_not_changed() -> None:
    mask = tube((5, 20), (24, 40))
    before = mask.copy()
    bridged(mask, (1.0, 1.0, 1.0), 10.0)
    np.testing.assert_array_equal(mask, before)


def test_three_pieces_in_a_row_need_two_bridges() -> None:
    out, bridges = bridged(tube((2, 10), (14, 24), (29, 40)), (1.0, 1.0, 1.0), 30.0)
    assert (pieces(out), bridges) == (1, 2)


@pytest.mark.parametrize("connectivity", [6, 18, 26])
def test_a_slanting_bridge_connects_by_the_rule_asked_for(connectivity: int) -> None:
    mask = np.zeros((30, 30, 30), dtype=bool)
    mask[2:5, 2:5, 2:5] = mask[12:15, 20:23, 17:20] = True
    out, bridges = bridged(mask, (1.0, 1.0, 1.0), 40.0, connectivity)
    assert (pieces(out, connectivity), bridges) == (1, 1)


def test_nothing_to_join() -> None:
    for mask in (np.zeros((5, 5, 5), dtype=bool), tube((5, 20))):
        out, bridges = bridged(mask, (1.0, 1.0, 1.0), 10.0)
        np.testing.assert_array_equal(out, mask)
        assert bridges == 0


def test_in_two_dimensions_and_at_depth_one() -> None:
    flat = np.zeros((20, 20, 1), dtype=bool)
    flat[5, 2:6] = flat[5, 9:15] = True
    for mask in (flat, flat[..., 0]):
        assert pieces(bridged(mask, (1.0,) * mask.ndim, 4.0)[0]) == 1


def test_noise_of_thousands_of_pieces_becomes_one_web() -> None:
    mask = np.zeros((64, 64, 8), dtype=bool)
    mask[::3, ::3, ::3] = True
    count = pieces(mask)
    assert count > 1000
    out, bridges = bridged(mask, (1.0, 1.0, 1.0), 2.0)
    assert (pieces(out), bridges) == (1, count - 1)


def test_boxes_cover_the_gap_and_small_ends_stay_with_their_vessel() -> None:
    mask = tube((2, 40), (45, 47)).astype(np.float32)
    grid = Grid(mask.shape, spacing_mm=(4.0, 4.0, 4.0))
    rules = {"margin_fraction": 0.0, "margin_rough_voxels": 0.0, "min_volume_mm3": 3000.0, "max_spacing_mm": 4.0}
    found = {mm: propose_boxes(mask, grid, grid, (16, 16, 16), BoxPolicy(bridge_mm=mm, **rules)) for mm in (0.0, 24.0)}
    assert found[0.0].counts["dropped_small"] == 1
    assert max(b.box.stop[2] for b in found[0.0].boxes) == 40
    assert found[24.0].counts["bridged"] == 1
    covered = np.zeros(mask.shape, dtype=bool)
    for b in found[24.0].boxes:
        covered[b.box.slices] = True
    assert covered[6, 6, 2:47].all()


def test_short_pieces_are_dropped_and_say_why() -> None:
    mask = tube((2, 40)).astype(np.float32)
    mask[0:2, 0:2, 50:53] = 1
    grid = Grid(mask.shape, spacing_mm=(4.0, 4.0, 4.0))
    found = propose_boxes(mask, grid, grid, (64, 64, 64), BoxPolicy(min_length_mm=40.0))
    assert len(found.boxes) == found.counts["dropped_short"] == 1
    assert "min_length_mm=40" in found.dropped[0].why
