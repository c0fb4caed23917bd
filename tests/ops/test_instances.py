"""Instances: objects that touch are told apart by what the rough stage told apart, and numbered in a stated order."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from stseg3d.geometry import Box
from stseg3d.ops.instances import order_instances, seeds_on, split_at_necks, split_instances
from tests.ops.twins import all_boxes
from tests.phantoms import many_objects, near, touching_objects


def seeds_at(shape, **named):
    """``seeds_at((9, 9), s4=[(1, 1)])``: seed 4 at voxel (1, 1)."""
    seeds = np.zeros(shape, np.int32)
    for name, voxels in named.items():
        seeds[tuple(np.transpose(voxels))] = int(name[1:])
    return seeds


def assert_whole(ids, count, mask):
    """Every voxel of the mask has an id, none outside, and no id is missing."""
    np.testing.assert_array_equal(ids > 0, mask)
    assert np.unique(ids[mask]).tolist() == list(range(1, count + 1))


@pytest.fixture
def balls():
    return touching_objects((32, 16, 16))[1]


def test_an_empty_mask_gives_nothing():
    for seeds in (None, np.ones((3, 4, 5), np.int32)):
        ids, count = split_instances(np.zeros((3, 4, 5), bool), seeds)
        assert count == 0
        assert ids.shape == (3, 4, 5)
        assert not ids.any()


def test_without_seeds_objects_are_components(balls):
    assert ndimage.label(balls)[1] == 1
    assert split_instances(balls, None)[1] == 1
    balls[16] = False
    ids, count = split_instances(balls, None)
    assert count == 2
    assert_whole(ids, count, balls)


@pytest.mark.parametrize(("connectivity", "count"), [(6, 2), (18, 2), (26, 1)])
def test_connectivity_is_that_of_the_policy(connectivity, count):
    mask = np.zeros((4, 4, 4), bool)
    mask[:2, :2, :2] = mask[2:, 2:, 2:] = True
    assert split_instances(mask, None, connectivity=connectivity)[1] == count


def test_seeds_split_objects_that_touch(balls):
    seeds = seeds_at(balls.shape, s7=[(8, 8, 8)], s3=[(23, 8, 8)])
    ids, count = split_instances(balls, seeds)
    assert_whole(ids, count, balls)
    assert count == 2
    np.testing.assert_array_equal(ids[:16][balls[:16]], ids[8, 8, 8])
    np.testing.assert_array_equal(ids[16:][balls[16:]], ids[23, 8, 8])


def test_each_voxel_goes_to_its_nearest_seed(rng):
    mask = np.ones((9, 8, 7), bool)
    at = [tuple(rng.integers(0, mask.shape)) for _ in range(4)]
    ids, count = split_instances(mask, seeds_at(mask.shape, **{f"s{n}": [voxel] for n, voxel in enumerate(at, start=1)}))
    assert count == 4
    apart = np.array([np.linalg.norm(np.stack(np.indices(mask.shape), -1) - voxel, axis=-1) for voxel in at])
    np.testing.assert_allclose(np.take_along_axis(apart, ids[None] - 1, axis=0)[0], apart.min(axis=0))


def test_one_seed_or_none_leaves_an_object_whole(balls):
    assert split_instances(balls, np.zeros(balls.shape, np.int32))[1] == 1
    assert split_instances(balls, seeds_at(balls.shape, s2=[(8, 8, 8), (9, 8, 8), (23, 8, 8)]))[1] == 1


def test_seeds_outside_the_mask_do_not_count(balls):
    seeds = seeds_at(balls.shape, s1=[(8, 8, 8)], s2=[(0, 0, 0)])
    assert not balls[0, 0, 0]
    assert split_instances(balls, seeds)[1] == 1


def test_one_seed_under_two_objects_does_not_join_them():
    mask = np.zeros((12, 4, 4), bool)
    mask[:5] = mask[7:] = True
    ids, count = split_instances(mask, np.ones(mask.shape, np.int32))
    assert count == 2
    assert_whole(ids, count, mask)


def test_fragments_belong_to_the_nearest_object():
    mask = np.zeros((20, 5, 5), bool)
    mask[:6] = mask[14:] = True
    mask[8, 2, 2] = mask[12, 2, 2] = True
    ids, count = split_instances(mask, None, min_voxels=2)
    assert count == 2
    assert_whole(ids, count, mask)
    assert ids[8, 2, 2] == ids[0, 0, 0] != ids[12, 2, 2] == ids[19, 0, 0]
    assert split_instances(mask, None)[1] == 4


def test_fragments_alone_are_objects_all_the_same():
    mask = np.zeros((9, 3, 3), bool)
    mask[::3, 0, 0] = True
    ids, count = split_instances(mask, None, min_voxels=50)
    assert count == 3
    assert_whole(ids, count, mask)


def test_a_seed_whose_share_would_be_too_small_gives_it_up(balls):
    seeds = seeds_at(balls.shape, s1=[(8, 8, 8)], s2=[(23, 8, 8)], s3=[(8, 8, 14)])
    assert split_instances(balls, seeds)[1] == 3
    ids, count = split_instances(balls, seeds, min_voxels=500)
    assert count == 2
    assert_whole(ids, count, balls)
    assert ids[8, 8, 14] == ids[8, 8, 8]
    assert split_instances(balls, seeds, min_voxels=2500)[1] == 1


@pytest.mark.parametrize("seeded", [False, True])
def test_ids_and_their_number_agree(seeded, rng):
    for _ in range(20):
        mask = rng.random((7, 6, 5)) > 0.6
        seeds = rng.integers(0, 9, mask.shape).astype(np.int32) * (rng.random(mask.shape) > 0.9) if seeded else None
        for least in (1, 3, 500):
            assert_whole(*split_instances(mask, seeds, connectivity=6, min_voxels=least), mask)


def test_depth_one_is_the_2d_result(rng):
    mask = rng.random((9, 8)) > 0.4
    seeds = rng.integers(0, 4, mask.shape).astype(np.int32) * (rng.random(mask.shape) > 0.9)
    flat, count = split_instances(mask, seeds, connectivity=6, min_voxels=2)
    deep, same = split_instances(mask[..., None], seeds[..., None], connectivity=6, min_voxels=2)
    assert count == same
    np.testing.assert_array_equal(deep[..., 0], flat)


def test_a_thousand_objects_take_no_time():
    mask = many_objects((52, 52, 52), 1000)[1]
    ids, count = split_instances(mask, ndimage.label(mask, np.ones((3, 3, 3)))[0])
    assert count == 1000
    assert_whole(ids, count, mask)


# --- necks -------------------------------------------------------------------


def necks(mask, depth_mm=0.75, spacing_mm=None):
    """Ids and their number; each is told to be dense and exactly inside the mask."""
    ids, count = split_at_necks(mask, depth_mm, spacing_mm or (1.0,) * mask.ndim)
    assert ids.dtype == np.int32
    assert ids.shape == mask.shape
    assert_whole(ids, count, mask)
    return ids, count


def discs(*centres, radius=8, shape=(40, 60)):
    """Two or more discs of one size."""
    return near(np.array(centres, float), radius, shape)


def test_two_discs_that_touch_are_two_objects():
    mask = discs((20, 20), (20, 34))
    assert ndimage.label(mask)[1] == 1
    ids, count = necks(mask)
    assert count == 2
    assert len(np.unique(ids[:, :26][mask[:, :26]])) == len(np.unique(ids[:, 29:][mask[:, 29:]])) == 1  # the neck lies at 27
    assert ids[20, 20] != ids[20, 34]


def test_discs_that_lie_almost_on_each_other_are_one():
    assert necks(discs((20, 20), (20, 23)))[1] == 1


@pytest.mark.parametrize("axes_voxels", [(6, 6), (6, 12), (5, 20), (3, 25)])
def test_an_ellipse_is_one_object(axes_voxels):
    i, j = np.indices((20, 60))
    assert necks(((i - 10) / axes_voxels[0]) ** 2 + ((j - 30) / axes_voxels[1]) ** 2 <= 1)[1] == 1


def test_how_deep_a_neck_must_be_is_what_was_asked_for():
    # Squares of 9 x 9 whose innermost voxels lie 5 deep, and a bridge five voxels wide: 3 deep.
    mask = np.zeros((11, 27), bool)
    mask[1:10, 1:10] = mask[1:10, 17:26] = mask[3:8, 9:18] = True
    assert [necks(mask, depth)[1] for depth in (0.5, 1.9, 2.1, 9)] == [2, 2, 1, 1]
    assert [necks(mask, depth, (0.1, 0.1))[1] for depth in (0.19, 0.21)] == [2, 1]


@pytest.mark.parametrize("depth_mm", [0.25, 0.75, 1, 3, 100])
def test_objects_apart_stay_apart_and_whole_however_small(depth_mm, rng):
    # The ground between them is no way from one to the other, even where objects are shallower than the depth.
    mask = np.zeros((30, 30), bool)
    mask[2, 2] = mask[2, 4] = mask[4, 3:7] = mask[10:28, 10:28] = mask[11, 8] = True
    ids, count = necks(mask, depth_mm)
    components, due = ndimage.label(mask, np.ones((3, 3)))
    assert count == due == 5
    assert len(np.unique(components[mask] * 100 + ids[mask])) == due
    scattered = rng.random((20, 20)) > 0.8
    assert necks(scattered, 100)[1] == ndimage.label(scattered, np.ones((3, 3)))[1]


def test_objects_are_never_joined(rng):
    for _ in range(10):
        mask = ndimage.binary_dilation(rng.random((30, 30)) > 0.97, iterations=2)
        components = ndimage.label(mask, np.ones((3, 3)))[0]
        ids, count = necks(mask, 0.5)
        assert len(np.unique(components[mask] * 1000 + ids[mask])) == count


def test_a_single_voxel_is_an_object():
    mask = np.zeros((5, 5), bool)
    mask[2, 2] = True
    assert necks(mask)[1] == 1
    assert necks(np.ones((1, 1, 1), bool))[1] == 1


def test_nothing_and_everything():
    ids, count = split_at_necks(np.zeros((4, 5, 1), bool), 0.75, (1, 1, 1))
    assert (count, ids.dtype, ids.shape) == (0, np.int32, (4, 5, 1))
    assert not ids.any()
    for shape in [(12, 9), (12, 9, 1), (5, 6, 7), (6, 1, 1)]:
        assert necks(np.ones(shape, bool))[1] == 1


def test_an_object_cut_by_the_edge_of_the_image_is_one():
    for centre in [(0, 30), (-4, 30), (39, 30), (20, 0), (20, 63), (0, 0), (41, 61)]:
        assert necks(discs(centre, radius=10))[1] == 1
    assert necks(discs((0, 20), (0, 34)))[1] == 2  # two, cut in half


def test_depth_one_is_the_2d_result_of_necks(rng):
    mask = ndimage.binary_dilation(rng.random((40, 40)) > 0.98, iterations=4)
    flat, count = necks(mask)
    assert count > ndimage.label(mask)[1]
    for axis in range(3):
        deep, same = necks(np.expand_dims(mask, axis))
        assert same == count
        np.testing.assert_array_equal(deep.squeeze(axis), flat)


def test_along_a_line_there_is_no_neck():
    mask = np.array([1, 1, 1, 0, 1, 0, 0, 1, 1], bool)
    for shape in [(9,), (9, 1, 1), (1, 9, 1), (1, 1, 9)]:
        ids, count = necks(mask.reshape(shape))
        assert ids.ravel().tolist() == [1, 1, 1, 0, 2, 0, 0, 3, 3]
        assert count == 3


def test_balls_that_touch_are_told_apart(balls):
    ids, count = necks(balls)
    assert count == 2
    assert ids[8, 8, 8] != ids[23, 8, 8]


def test_necks_are_measured_in_mm():
    # The same two discs, every other column left out: with columns of 2 mm they are the same objects.
    mask = discs((20, 20), (20, 34))
    thin = mask[:, ::2]
    ids, count = necks(thin, spacing_mm=(1, 2))
    assert count == 2
    assert ids[20, 10] != ids[20, 17]
    assert necks(thin, 1.5, (1, 2))[1] == 2
    assert necks(thin, 1.5, (0.1, 0.2))[1] == 1


def test_hundreds_of_objects_are_told_apart():
    places = np.stack(np.meshgrid(np.arange(12, 500, 25), np.arange(12, 500, 25)), -1).reshape(-1, 2)
    mask = near(places.astype(float), 13, (512, 512))
    assert ndimage.label(mask)[1] == 1
    ids, count = necks(mask)
    assert count == len(places) == 400
    assert len(np.unique(ids[tuple(places.T)])) == 400


# --- order -------------------------------------------------------------------


@pytest.fixture
def stack():
    """Four slabs along the third axis, numbered 3, 1, 4, 2 from below."""
    ids = np.zeros((3, 3, 12), np.int32)
    for place, name in enumerate([3, 1, 4, 2]):
        ids[:, :, 3 * place : 3 * place + 2] = name
    return ids


def test_instances_are_numbered_from_the_end_that_was_asked_for(stack):
    from_below = order_instances(stack, 4, axis=2)
    assert from_below[0, 0].tolist() == [1, 1, 0, 2, 2, 0, 3, 3, 0, 4, 4, 0]
    from_above = order_instances(stack, 4, axis=2, descending=True)
    assert from_above[0, 0].tolist() == [4, 4, 0, 3, 3, 0, 2, 2, 0, 1, 1, 0]
    np.testing.assert_array_equal(order_instances(np.flip(stack, 2), 4, axis=2, descending=True), np.flip(from_below, 2))


def test_the_centre_decides_not_the_end():
    ids = np.zeros((1, 10), np.int32)
    ids[0, :7], ids[0, 2:4] = 2, 1  # 2 reaches further, on both sides; its centre of 3.4 lies behind that of 1
    assert order_instances(ids, 2, axis=1)[0, 0] == 2


def test_objects_side_by_side_keep_their_order():
    ids = np.array([[1, 0, 2, 0, 3]], np.int32)
    for descending in (False, True):
        np.testing.assert_array_equal(order_instances(ids, 3, axis=0, descending=descending), ids)


def test_centres_are_those_of_scipy(rng):
    ids, count = split_instances(rng.random((9, 8, 7)) > 0.7, None, connectivity=6)
    assert count > 5
    for axis in range(3):
        ordered = order_instances(ids, count, axis)
        centres = np.array(ndimage.center_of_mass(np.ones(ids.shape), ordered, range(1, count + 1)))[:, axis]
        assert (np.diff(centres) >= 0).all()
        np.testing.assert_array_equal(ordered > 0, ids > 0)


def test_nothing_has_no_order():
    assert not order_instances(np.zeros((2, 2), np.int32), 0, axis=0).any()


def test_ids_are_all_that_is_as_large_as_the_image():
    mask = near(np.array([[n, n, n] for n in (10.0, 30, 50)]), 6, (64, 64, 64))
    tracemalloc.start()
    ids, count = split_instances(mask, None)
    split_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    order_instances(ids, count, axis=2)
    order_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert split_bytes < 10 * mask.size  # two arrays of int32
    assert order_bytes < 10 * mask.size


# --- seeds -------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "rough"), [((6, 4, 1), (3, 4, 1)), ((5, 7, 3), (2, 3, 2)), ((4, 3, 2), (6, 5, 3))])
def test_a_seed_is_the_rough_voxel_in_which_the_centre_lies(shape, rough):
    ids = np.arange(1, 1 + np.prod(rough), dtype=np.int32).reshape(rough)
    for box in all_boxes(shape):
        found = seeds_on(box, ids, shape)
        for index in np.ndindex(*box.shape):
            cell = tuple(int((a + i + 0.5) * r / n) for a, i, r, n in zip(box.start, index, rough, shape, strict=True))
            assert found[index] == ids[cell]


def test_seeds_can_be_sampled_on_another_size():
    ids = np.arange(4, dtype=np.int32)
    box = Box((4,), (12,))  # rough voxels 1 and 2 of four voxels each
    assert seeds_on(box, ids, (16,), (2,)).tolist() == [1, 2]
    assert seeds_on(box, ids, (16,), (4,)).tolist() == [1, 1, 2, 2]
    assert seeds_on(box, ids, (16,), (3,)).tolist() == [1, 2, 2]
    assert seeds_on(box, ids, (16,)).tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
