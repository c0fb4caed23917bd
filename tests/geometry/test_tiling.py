from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from stseg3d.geometry import Box, tiles
from stseg3d.geometry.tiling import cover_axis


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_intervals_cover_evenly_with_at_least_the_overlap(overlap):
    for extent, length in product(range(1, 24), range(1, 9)):
        spans = cover_axis(3, 3 + extent, length, overlap)
        assert set().union(*(range(a, b) for a, b in spans)) == set(range(3, 3 + extent))
        assert {b - a for a, b in spans} == {min(extent, length)}
        steps = np.diff([a for a, _ in spans])
        assert len(steps) == 0 or (steps.max() - steps.min() <= 1 and steps.min() >= 1)
        assert len(steps) == 0 or steps.max() <= max(int(length * (1 - overlap)), 1)


def test_intervals_are_the_fewest():
    for extent, length in product(range(1, 24), range(1, 9)):
        assert len(cover_axis(0, extent, length)) == -(-extent // length)


def test_nothing_to_cover_takes_no_interval():
    assert cover_axis(4, 4, 3) == []
    assert tiles(Box((0, 2), (5, 2)), (2, 2)) == []


@pytest.mark.parametrize("shape", [(5,), (4, 5), (4, 5, 1), (3, 4, 5)])
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_tiles_cover_the_box_and_nothing_else(shape, overlap):
    for size in product(range(1, 4), repeat=len(shape)):
        count = np.zeros(shape, int)
        box = Box((1,) + (0,) * (len(shape) - 1), shape)
        for tile in tiles(box, size, overlap):
            assert box.contains(tile)
            assert all(n <= m for n, m in zip(tile.shape, size, strict=True))
            count[tile.slices] += 1
        assert (count[box.slices] > 0).all()
        assert count[0].sum() == 0


@pytest.mark.parametrize(("length", "overlap"), [(0, 0.0), (4, 1.0), (4, -0.1)])
def test_a_length_or_overlap_out_of_range_is_refused(length, overlap):
    with pytest.raises(ValueError, match=f"length must be at least 1 and overlap in .*, got length={length} overlap={overlap}"):
        cover_axis(0, 9, length, overlap)
