from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from stseg3d.geometry import Box

SHAPES = [(5,), (4, 5), (4, 5, 1), (2, 3, 4)]


def all_boxes(shape: tuple[int, ...]) -> list[Box]:
    """Every box with at least one voxel."""
    spans = [list(combinations(range(n + 1), 2)) for n in shape]
    return [Box(tuple(a for a, _ in axes), tuple(b for _, b in axes)) for axes in product(*spans)]


def mask_of(box: Box, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[box.slices] = True
    return mask


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_and_voxels_are_those_of_the_slices(shape):
    for box in all_boxes(shape):
        crop = np.empty(shape)[box.slices]
        assert crop.shape == box.shape
        assert crop.size == box.voxels
        assert Box.from_slices(box.slices) == box


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 2, 3)])
def test_relations_of_boxes_are_those_of_their_masks(shape):
    boxes = all_boxes(shape)
    masks = [mask_of(box, shape) for box in boxes]
    for (a, m), (b, n) in product(zip(boxes, masks, strict=True), repeat=2):
        assert a.intersect(b).voxels == (m & n).sum()
        assert a.overlaps(b) == (m & n).any()
        assert a.contains(b) == (not (n & ~m).any())
        assert (mask_of(a.union(b), shape) >= (m | n)).all()
        assert not a.overlaps(b) or (mask_of(a.intersect(b), shape) == (m & n)).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_moving_there_and_back_changes_nothing(shape):
    origin = Box((1,) * len(shape), (3,) * len(shape))
    for box in all_boxes(shape):
        assert box.relative_to(origin).shift(origin.start) == box
        assert box.grow([2] * box.ndim).grow([-2] * box.ndim) == box
        assert box.shift([7] * box.ndim).shape == box.shape


def test_clipping_is_what_the_image_and_the_box_share():
    for start, stop in combinations(range(-3, 9), 2):
        clipped = Box((start,), (stop,)).clip((5,))
        assert set(range(*clipped.start, *clipped.stop)) == set(range(start, stop)) & set(range(5))
        assert Box.of((5,)).contains(clipped)


def test_growing_to_a_shape_never_shrinks_and_puts_the_odd_voxel_at_the_end():
    assert Box((4, 4), (6, 6)).grow_to((5, 1)) == Box((3, 4), (8, 6))


def test_an_empty_box_is_inside_everything_and_overlaps_nothing():
    empty = Box((2, 2), (2, 5))
    assert empty.is_empty()
    assert Box((0, 0), (1, 1)).contains(empty)
    assert not Box((0, 0), (5, 5)).overlaps(empty)


def test_corners_are_voxel_edges():
    assert sorted(Box((1, 2), (3, 5)).corners()) == [(1, 2), (1, 5), (3, 2), (3, 5)]


def test_numpy_integers_become_plain_ones():
    assert type(Box((np.int64(1),), (np.int64(2),)).start[0]) is int


@pytest.mark.parametrize(("start", "stop"), [((1, 2), (3,)), ((3,), (2,))])
def test_a_box_that_makes_no_sense_is_refused(start, stop):
    with pytest.raises(ValueError, match="stop must be as long as start and not before it, got start="):
        Box(start, stop)
