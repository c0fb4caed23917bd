"""The box policy, decision by decision: which components count, how much room they get, when boxes are split and merged."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest

from stseg3d.geometry import Box, Grid
from stseg3d.ops.boxes import fit_box, margin_voxels, propose_boxes
from stseg3d.ops.chain import LONGEST_CHAIN
from stseg3d.ops.policy import BoxPolicy
from stseg3d.ops.resample import resample
from tests.ops.twins import all_boxes, slow_merge
from tests.phantoms import many_objects, thin_curved_tube

FINE = (32, 32, 32)
TIGHT = BoxPolicy(margin_fraction=0, margin_rough_voxels=0, merge=False)
WIDE = BoxPolicy(margin_fraction=0, margin_rough_voxels=0, margin_mm=3, merge=True)


def grids(rough_shape, factor=4, spacing_mm=()):
    """A rough grid, and the image's grid with ``factor`` voxels for one on each axis longer than 1."""
    image = Grid(tuple(n * factor if n > 1 else 1 for n in rough_shape), spacing_mm=spacing_mm)
    return image.resized(rough_shape), image


def drawn(shape, *boxes):
    """Probability 1 in the boxes, 0 outside."""
    mask = np.zeros(shape, np.float32)
    for box in boxes:
        mask[box.slices] = 1
    return mask


def propose(mask, policy=TIGHT, factor=4, fine=FINE, spacing_mm=()):
    rough, image = grids(mask.shape, factor, spacing_mm)
    return propose_boxes(mask, rough, image, fine, policy)


def only(proposal):
    (found,) = proposal.boxes
    return found


# --- which components --------------------------------------------------------


def test_nothing_above_the_threshold_gives_no_boxes():
    proposal = propose(np.full((4, 4, 4), 0.49, np.float32))
    assert proposal.boxes == []
    assert proposal.counts["found"] == 0
    assert not proposal.ids.any()


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 1), (2, 3, 4)])
def test_an_object_becomes_the_box_of_its_voxels_in_the_image(shape):
    rough, image = grids(shape, 3)
    for box in all_boxes(shape):
        proposal = propose_boxes(drawn(shape, box), rough, image, FINE[: len(shape)], TIGHT)
        assert only(proposal).box == rough.map(box, image)
        assert only(proposal).components == {1}
        assert not only(proposal).clipped
        assert not only(proposal).tile


def test_a_rough_cell_that_is_no_whole_number_of_voxels_is_covered():
    rough = Grid((10,)).resized((3,))
    box = only(propose_boxes(np.array([0, 1, 0]), rough, Grid((10,)), (32,), TIGHT)).box
    assert box == Box((3,), (7,))  # 3.33 to 6.67


def test_the_threshold_is_the_least_probability_that_counts():
    probability = np.zeros((4, 4, 4), np.float32)
    probability[0, 0, 0], probability[2, 2, 2] = 0.25, 0.75
    for threshold, found in [(0.25, 2), (0.26, 1), (0.75, 1), (0.76, 0)]:
        assert propose(probability, replace(TIGHT, threshold=threshold)).counts["found"] == found


@pytest.mark.parametrize(("connectivity", "found"), [(6, 3), (18, 2), (26, 1)])
def test_connectivity_decides_what_is_one_object(connectivity, found):
    voxels = [Box((0, 0, 0), (1, 1, 1)), Box((0, 1, 1), (1, 2, 2)), Box((1, 2, 2), (2, 3, 3))]  # joined by an edge, then a corner
    assert len(propose(drawn((4, 4, 4), *voxels), replace(TIGHT, connectivity=connectivity)).boxes) == found


def test_small_components_are_measured_in_mm3_and_counted():
    # Rough voxels of 4 * 0.5 x 4 * 1 x 4 * 3 mm = 96 mm3.
    mask = drawn((6, 6, 6), Box((0, 0, 0), (1, 1, 1)), Box((3, 3, 3), (4, 4, 5)))
    for least, kept, dropped in [(0, 2, 0), (95.9, 2, 0), (96.1, 1, 1), (191.9, 1, 1), (192.1, 0, 2)]:
        proposal = propose(mask, replace(TIGHT, min_volume_mm3=least), spacing_mm=(0.5, 1, 3))
        assert (len(proposal.boxes), proposal.counts["dropped_small"]) == (kept, dropped)
        assert proposal.counts["found"] == 2


def test_the_heaviest_by_summed_probability_are_kept():
    mask = np.zeros((8, 8, 8), np.float32)
    mask[0, 0, :4] = 0.5  # four voxels that weigh 2
    mask[4, 4, :3] = 1.0  # three voxels that weigh 3
    mask[7, 7, 7] = 0.9
    proposal = propose(mask, replace(TIGHT, max_components=2), factor=1)
    assert [b.box for b in proposal.boxes] == [Box((4, 4, 0), (5, 5, 3)), Box((0, 0, 0), (1, 1, 4))]
    assert proposal.counts["dropped_rank"] == 1
    assert proposal.ids[7, 7, 7] == 0  # what was dropped is not proposed by its id either


def test_what_is_dropped_is_told_with_its_place_its_size_and_the_rule():
    mask = drawn((8, 8, 8), Box((0, 0, 0), (3, 3, 3)), Box((5, 5, 5), (7, 7, 7)), Box((0, 0, 7), (1, 1, 8)))
    proposal = propose(mask, replace(TIGHT, min_volume_mm3=100, max_components=1), spacing_mm=(1, 1, 0.5))
    assert len(proposal.boxes) == 1
    assert [(d.box, d.volume_mm3, d.why) for d in proposal.dropped] == [
        (Box((20, 20, 20), (28, 28, 28)), 8 * 32, "not among the max_components=1 heaviest"),
        (Box((0, 0, 28), (4, 4, 32)), 32, "smaller than min_volume_mm3=100"),
    ]
    assert propose(mask).dropped == []


def test_without_a_limit_all_components_are_kept():
    mask = drawn((9, 9, 1), *(Box((i, j, 0), (i + 1, j + 1, 1)) for i, j in product(range(0, 9, 2), repeat=2)))
    assert len(propose(mask).boxes) == 25


def test_a_plain_mask_will_do():
    mask = drawn((4, 4, 4), Box((1, 1, 1), (3, 2, 2)))
    assert propose(mask > 0).boxes == propose(mask).boxes == propose(mask.astype(np.uint8)).boxes


# --- room around them --------------------------------------------------------


@pytest.mark.parametrize(
    ("mm", "fraction", "rough", "expected"),
    [
        (0, 0, 0, 0),
        (7, 0, 0, 4),  # 3.5 voxels of 2 mm
        (0, 0.3, 0, 3),  # of ten voxels
        (0, 0, 1, 5),  # one rough voxel
        (7, 0.3, 1, 5),
        (7, 0.3, 0.5, 4),
        (4, 0.3, 0.5, 3),
        (6, 0.3, 0.6, 3),  # three times 3.0, but for rounding
    ],
)
def test_the_margin_is_the_largest_of_three(mm, fraction, rough, expected):
    policy = BoxPolicy(margin_mm=mm, margin_fraction=fraction, margin_rough_voxels=rough)
    small, large = grids((8, 8, 8), factor=5, spacing_mm=(2, 2, 2))
    assert margin_voxels(Box((0, 0, 0), (10, 10, 10)), small, large, policy) == (expected,) * 3
    box = Box((3, 3, 3), (5, 5, 5))
    grown = only(propose_boxes(drawn((8, 8, 8), box), small, large, FINE, policy)).box
    assert grown == small.map(box, large).grow((expected,) * 3)


def test_a_margin_in_mm_counts_each_axis_in_its_own_voxels():
    box = only(propose(drawn((8, 8, 8), Box((4, 4, 4), (5, 5, 5))), replace(TIGHT, margin_mm=3), spacing_mm=(0.5, 1, 2))).box
    assert box == Box((16, 16, 16), (20, 20, 20)).grow((6, 3, 2))


def test_an_axis_of_one_voxel_gets_no_margin():
    policy = BoxPolicy(margin_mm=20, margin_fraction=1, margin_rough_voxels=3, keep_aspect=True, min_spacing_mm=9, min_downscale=2)
    proposal = propose(drawn((8, 8, 1), Box((3, 3, 0), (4, 4, 1))), policy, fine=(16, 16, 1))
    assert only(proposal).box.start[2:] == (0,)
    assert only(proposal).box.stop[2:] == (1,)
    proposal = propose(drawn((20, 20, 1), Box((9, 9, 0), (10, 10, 1))), replace(TIGHT, margin_mm=2, keep_aspect=True), fine=(16, 16, 1))
    assert only(proposal).box == Box((34, 34, 0), (42, 42, 1))
    assert not only(proposal).clipped


@pytest.mark.parametrize("policy", [TIGHT, BoxPolicy(margin_mm=3), replace(TIGHT, max_downscale=0.25)])
def test_depth_one_is_the_2d_result(policy):
    mask = drawn((9, 7), Box((1, 1), (4, 3)), Box((6, 2), (9, 7)))
    flat = [b.box for b in propose(mask, policy, fine=(32, 32)).boxes]
    deep = [b.box for b in propose(mask[..., None], policy, fine=(32, 32, 1)).boxes]
    assert deep == [Box((*b.start, 0), (*b.stop, 1)) for b in flat]


def test_a_mirrored_mask_gives_mirrored_boxes():
    mask = drawn((6, 7, 8), Box((0, 0, 0), (2, 3, 1)), Box((4, 5, 2), (6, 7, 5)))
    for axis in range(3):
        n = 4 * mask.shape[axis]
        for one, other in zip(propose(mask, WIDE).boxes, propose(np.flip(mask, axis), WIDE).boxes, strict=True):
            assert (one.box.start[axis], one.box.stop[axis]) == (n - other.box.stop[axis], n - other.box.start[axis])
            assert one.clipped == other.clipped


@pytest.mark.parametrize(
    ("fine", "expected"),
    [
        ((32, 32, 32), (40, 40, 20)),  # a cube of 40 mm
        ((32, 16, 32), (40, 20, 20)),  # 40 x 20 x 40 mm
        ((16, 32, 32), (40, 80, 40)),  # 40 x 80 x 80 mm
        ((64, 32, 32), (40, 20, 10)),  # 40 x 20 x 20 mm is that already
    ],
)
def test_the_aspect_of_the_fine_input_is_kept_in_mm(fine, expected):
    image = Grid((200, 200, 200), spacing_mm=(1, 1, 2))
    box = Box((80, 90, 95), (120, 110, 105))  # 40 x 20 x 20 mm
    fitted = fit_box(box, image, fine, BoxPolicy(keep_aspect=True))
    assert fitted.shape == expected
    assert tuple(a + b for a, b in zip(fitted.start, fitted.stop, strict=True)) == (200, 200, 200)  # about the same centre
    assert fit_box(box, image, fine, BoxPolicy()) == box


def test_a_crop_is_not_sampled_finer_than_the_least_spacing():
    image = Grid((200, 200, 200), spacing_mm=(0.5, 1, 2))
    box = Box((100, 100, 100), (104, 104, 104))
    fitted = fit_box(box, image, (32, 32, 32), BoxPolicy(min_spacing_mm=0.25))
    assert fitted.shape == (16, 8, 4)  # at least 8 mm on each axis
    assert fit_box(box, image, (32, 32, 32), BoxPolicy(min_spacing_mm=0.05)) == box


def test_the_least_spacing_comes_before_the_aspect():
    image = Grid((200, 200, 200))
    fitted = fit_box(Box((100, 100, 100), (104, 104, 110)), image, (32, 16, 16), BoxPolicy(min_spacing_mm=0.5, keep_aspect=True))
    assert fitted.shape == (20, 10, 10)


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (0.5, 1, 2)])
def test_a_small_object_gets_a_box_of_so_many_fine_inputs_whatever_the_spacing(spacing_mm):
    image = Grid((200, 200, 200), spacing_mm=spacing_mm)
    box = Box((100, 100, 100), (104, 110, 150))
    assert fit_box(box, image, (32, 32, 32), BoxPolicy()) == box
    grown = {0.5: (16, 16, 50), 1: (32, 32, 50), 2: (64, 64, 64)}
    for least, shape in grown.items():
        fitted = fit_box(box, image, (32, 32, 32), BoxPolicy(min_downscale=least))
        assert fitted.shape == shape
        assert fitted.contains(box)
        middles = [(f.start[a] + f.stop[a]) - (b.start[a] + b.stop[a]) for f, b in [(fitted, box)] for a in range(3)]
        assert max(map(abs, middles)) <= 1
    assert fit_box(box, image, (64, 8, 32), BoxPolicy(min_downscale=1)).shape == (64, 10, 50)


def test_the_larger_of_both_least_extents_counts():
    image = Grid((200, 200, 200), spacing_mm=(0.5, 1, 2))
    box = Box((100, 100, 100), (104, 104, 104))
    assert fit_box(box, image, (32, 32, 32), BoxPolicy(min_downscale=0.5, min_spacing_mm=0.5)).shape == (32, 16, 16)


def test_the_least_extent_comes_before_the_aspect():
    fitted = fit_box(Box((90, 90, 90), (94, 94, 110)), Grid((200, 200, 200)), (32, 16, 16), BoxPolicy(min_downscale=0.5, keep_aspect=True))
    assert fitted.shape == (40, 20, 20)


def test_the_margin_is_part_of_the_least_extent():
    # An object of 4 voxels: a margin of 6 makes 16, the fine input 32; one of 20 makes 44.
    mask = drawn((16, 16, 16), Box((8, 8, 8), (9, 9, 9)))
    for margin_mm, length in [(6, 32), (20, 44)]:
        assert only(propose(mask, replace(TIGHT, margin_mm=margin_mm, min_downscale=1))).box.shape == (length,) * 3


def test_a_box_grown_over_the_edge_is_clipped_and_an_axis_of_one_voxel_left_alone():
    found = only(propose(drawn((16, 16, 1), Box((0, 8, 0), (1, 9, 1))), replace(TIGHT, min_downscale=1), fine=(32, 32, 1)))
    assert found.box == Box((0, 18, 0), (18, 50, 1))  # 4 voxels, and 14 on each side
    assert found.clipped
    found = only(propose(drawn((4, 4, 1), Box((1, 1, 0), (2, 2, 1))), replace(TIGHT, min_downscale=1), fine=(32, 32, 8)))
    assert found.box == Box.of((16, 16, 1))


def test_tiles_grow_to_the_least_extent_and_not_over_the_limit(tube):
    mask, voxels = tube
    proposal = propose(mask, replace(TIGHT, min_downscale=0.5, max_downscale=0.75))
    covered = np.zeros(voxels.shape, bool)
    for found in proposal.boxes:
        assert max(found.box.shape) <= 24
        assert found.clipped or min(found.box.shape) >= 16
        covered[found.box.slices] = True
    assert covered[voxels].all()
    assert proposal.counts["split"] == 1


def test_grown_boxes_of_neighbours_merge_below_the_limit():
    # Boxes of 4 grow to 32, 12 voxels apart: a union of 44.
    mask = drawn((32, 32, 32), Box((16, 16, 16), (17, 17, 17)), Box((19, 16, 16), (20, 17, 17)))
    grow = replace(TIGHT, min_downscale=1, merge=True)
    assert only(propose(mask, grow)).box.shape == (44, 32, 32)
    assert only(propose(mask, replace(grow, max_downscale=1.5))).components == {1, 2}
    assert [b.box.shape for b in propose(mask, replace(grow, max_downscale=1)).boxes] == [(32, 32, 32)] * 2


# --- borders -----------------------------------------------------------------


def test_a_box_over_the_edge_is_clipped_and_counted_never_dropped():
    mask = drawn((8, 8, 8), Box((0, 3, 3), (1, 4, 4)), Box((4, 4, 7), (5, 5, 8)), Box((4, 0, 3), (5, 1, 4)), Box((5, 5, 3), (6, 6, 4)))
    proposal = propose(mask, replace(TIGHT, margin_mm=2))
    assert proposal.counts["clipped"] == 3
    assert sorted(b.box for b in proposal.boxes if b.clipped) == [
        Box((0, 10, 10), (6, 18, 18)),
        Box((14, 0, 10), (22, 6, 18)),
        Box((14, 14, 26), (22, 22, 32)),
    ]
    assert all(Box.of((32, 32, 32)).contains(b.box) for b in proposal.boxes)


@pytest.mark.parametrize("policy", [TIGHT, BoxPolicy(), BoxPolicy(margin_mm=50), BoxPolicy(keep_aspect=True), BoxPolicy(min_spacing_mm=9)])
@pytest.mark.parametrize("shape", [(8, 8, 8), (8, 6, 1)])
def test_an_object_that_fills_the_frame_is_one_box_of_the_frame(shape, policy):
    proposal = propose(np.ones(shape, np.float32), policy, fine=tuple(min(n, 32) for n in shape))
    assert only(proposal).box == grids(shape)[1].box
    assert not only(proposal).tile
    assert proposal.counts["split"] == 0


@pytest.mark.parametrize("policy", [BoxPolicy(), BoxPolicy(margin_mm=50), BoxPolicy(margin_fraction=1)])
def test_without_a_limit_nothing_is_split(policy):
    for box in [Box((0, 0, 0), (8, 8, 8)), Box((0, 0, 0), (7, 8, 1)), Box((1, 1, 1), (7, 7, 7)), Box((0, 3, 3), (8, 4, 4))]:
        assert propose(drawn((8, 8, 8), box), policy).counts["split"] == 0
        assert len(propose(drawn((8, 8, 8), box), policy).boxes) == 1


# --- long objects ------------------------------------------------------------


def test_an_object_within_the_limit_is_not_split():
    mask = drawn((8, 8, 8), Box((0, 0, 0), (8, 1, 1)))
    assert len(propose(mask, replace(TIGHT, max_downscale=1.0)).boxes) == 1  # 32 voxels
    proposal = propose(mask, replace(TIGHT, max_downscale=31 / 32))
    assert [b.box for b in proposal.boxes] == [Box((0, 0, 0), (31, 4, 4)), Box((1, 0, 0), (32, 4, 4))]
    assert all(b.tile for b in proposal.boxes)
    assert proposal.counts["split"] == 1


def test_at_the_edge_of_the_image_there_is_no_margin_to_make_room_for():
    # 28 voxels and a margin of 4 on the one side that has any room: 32, the limit.
    mask = drawn((16, 8, 8), Box((0, 3, 3), (7, 4, 4)))
    assert only(propose(mask, replace(TIGHT, max_downscale=1, margin_mm=4))).box == Box((0, 8, 8), (32, 20, 20))


def test_only_the_long_axis_is_split():
    proposal = propose(drawn((16, 7, 7), Box((0, 0, 0), (16, 7, 7))), replace(TIGHT, max_downscale=1, margin_mm=4))
    assert len(proposal.boxes) > 1
    assert {b.box.shape[1:] for b in proposal.boxes} == {(28, 28)}
    assert max(b.box.shape[0] for b in proposal.boxes) <= 32


@pytest.fixture(scope="module")
def tube():
    """A thin curved tube on the rough grid, and the same at the image's resolution."""
    mask = resample(thin_curved_tube((64, 64, 64), radius=3)[1][None], (16, 16, 16))[0] > 0.2
    return mask, resample(mask[None], (64, 64, 64), "nearest")[0]


@pytest.mark.parametrize(  # every two values of two of them meet
    ("downscale", "overlap", "margin"),
    [(d, o, (0, 1, 3)[(i + j) % 3]) for i, d in enumerate((0.25, 0.5, 0.75, 1.5)) for j, o in enumerate((0, 0.25, 0.5))],
)
def test_tiles_cover_every_voxel_and_none_is_longer_than_the_limit(tube, downscale, overlap, margin):
    mask, voxels = tube
    policy = replace(TIGHT, max_downscale=downscale, tile_overlap=overlap, margin_mm=margin)
    proposal = propose(mask, policy)
    covered = np.zeros(voxels.shape, bool)
    for found in proposal.boxes:
        assert max(found.box.shape) <= max(32 * downscale, 32 * downscale // 2 + 2 * margin)
        assert voxels[found.box.slices].any()
        covered[found.box.slices] = True
    assert covered[voxels].all()
    assert proposal.counts["split"] == 1


def test_cost_follows_the_object_and_not_its_bounding_box(tube):
    mask, voxels = tube
    one = only(propose(mask)).box
    tiles = [b.box for b in propose(mask, replace(TIGHT, max_downscale=0.5)).boxes]
    assert one.voxels > 0.5 * voxels.size  # the tube winds around the whole volume
    assert sum(b.voxels for b in tiles) < 0.4 * one.voxels
    assert len(tiles) < 5**3  # 64 voxels in tiles of 16 with a quarter's overlap: empty ones vanish


def test_tiles_are_tightened_to_the_voxels_in_them(tube):
    mask, voxels = tube
    for found in propose(mask, replace(TIGHT, max_downscale=0.5)).boxes:
        inside = voxels[found.box.slices]
        for axis, end in product(range(3), (0, -1)):
            assert np.take(inside, end, axis=axis).any()


def test_a_tile_knows_its_own_object_only():
    # Two long objects side by side: tiles of one do not grow for the other.
    mask = drawn((16, 16, 16), Box((0, 2, 2), (16, 3, 3)), Box((0, 6, 6), (16, 7, 7)))
    proposal = propose(mask, replace(TIGHT, max_downscale=0.5))
    assert {tuple(b.components) for b in proposal.boxes} == {(1,), (2,)}
    assert {b.box.shape[1:] for b in proposal.boxes} == {(4, 4)}


def test_the_coarsest_spacing_limits_a_box_in_mm():
    image = Grid((200, 200, 200), spacing_mm=(0.5, 1, 4))
    assert BoxPolicy(max_spacing_mm=1).longest_box(image, (32, 32, 32)) == (64, 32, 8)
    assert BoxPolicy(max_downscale=1.5).longest_box(image, (32, 32, 32)) == (48, 48, 48)
    assert BoxPolicy(max_spacing_mm=1, max_downscale=1.5).longest_box(image, (32, 32, 32)) == (48, 32, 8)
    assert BoxPolicy().longest_box(image, (32, 32, 32)) == (200, 200, 200)
    assert BoxPolicy(max_downscale=0.1).longest_box(Grid((20, 20, 1)), (4, 4, 1)) == (1, 1, 1)
    proposal = propose(drawn((32, 4, 4), Box((0, 1, 1), (32, 2, 2))), replace(TIGHT, max_spacing_mm=1), spacing_mm=(0.5, 1, 1))
    assert [b.box.shape for b in proposal.boxes] == [(64, 4, 4)] * 3


# --- merging -----------------------------------------------------------------


def test_boxes_merge_where_their_union_costs_no_more():
    # 4 + 6 voxels long after margins of 3, two apart: 10 + 10 against 14, the same on the other axes.
    proposal = propose(drawn((8, 8, 8), Box((2, 2, 2), (3, 3, 3)), Box((4, 2, 2), (5, 3, 3))), WIDE)
    assert only(proposal).box == Box((5, 5, 5), (23, 15, 15))
    assert only(proposal).components == {1, 2}
    assert proposal.counts["merged"] == 1


def test_boxes_do_not_merge_where_their_union_costs_more():
    mask = drawn((8, 8, 8), Box((2, 2, 2), (3, 3, 3)), Box((4, 4, 4), (5, 5, 5)))  # 2 * 10^3 against 18^3
    proposal = propose(mask, WIDE)
    assert len(proposal.boxes) == 2
    assert proposal.boxes[0].box.overlaps(proposal.boxes[1].box)
    assert proposal.counts["merged"] == 0


def test_boxes_that_do_not_overlap_stay_apart_even_side_by_side():
    proposal = propose(drawn((8, 8, 8), Box((2, 2, 2), (3, 3, 3)), Box((5, 2, 2), (6, 3, 3))), replace(WIDE, margin_mm=4))
    assert [b.box.shape for b in proposal.boxes] == [(12, 12, 12)] * 2  # they share a face
    assert proposal.counts["merged"] == 0


def test_merging_can_be_switched_off():
    mask = drawn((8, 8, 8), Box((2, 2, 2), (3, 3, 3)), Box((4, 2, 2), (5, 3, 3)))
    assert len(propose(mask, replace(WIDE, merge=False)).boxes) == 2


def test_a_merged_box_is_not_longer_than_the_limit():
    mask = drawn((8, 8, 8), Box((2, 2, 2), (3, 3, 3)), Box((4, 2, 2), (5, 3, 3)))
    assert len(propose(mask, replace(WIDE, max_downscale=18 / 32)).boxes) == 1
    assert len(propose(mask, replace(WIDE, max_downscale=17 / 32)).boxes) == 2


def test_a_box_inside_another_is_merged_into_it():
    ring = drawn((8, 8, 8), Box((1, 1, 1), (7, 7, 7)))
    ring[2:6, 2:6, 2:6] = 0
    ring[4, 4, 4] = 1
    proposal = propose(ring, replace(WIDE, margin_mm=0))
    assert only(proposal).box == Box((4, 4, 4), (28, 28, 28))
    assert only(proposal).components == {1, 2}


def test_merging_goes_on_until_no_pair_pays():
    rng = np.random.default_rng(3)
    for _ in range(20):
        mask = rng.random((7, 7, 7)) > 0.97
        boxes = [b.box for b in propose(mask, WIDE).boxes]
        for one, other in combinations(boxes, 2):
            assert not one.overlaps(other) or one.union(other).voxels > one.voxels + other.voxels
        before = propose(mask, replace(WIDE, merge=False)).boxes
        assert all(any(b.contains(a.box) for b in boxes) for a in before)
        assert set().union(*(b.components for b in propose(mask, WIDE).boxes)) == set().union(*(b.components for b in before))
        assert propose(mask, WIDE).counts["merged"] == len(before) - len(boxes)


@pytest.mark.parametrize("max_downscale", [None, 0.75])
@pytest.mark.parametrize("shape", [(120,), (12, 14), (12, 14, 1), (7, 8, 9)])
def test_merging_is_that_of_each_box_asking_all_before_it(shape, max_downscale):
    merged = 0
    for seed in range(6):
        mask = np.random.default_rng(seed).random(shape) > (0.7, 0.9, 0.97)[seed % 3]
        policy = replace(WIDE, margin_mm=2 + seed % 4, max_downscale=max_downscale)
        fine = (32,) * len(shape)
        longest = policy.longest_box(grids(shape)[1], fine)
        expected, count = slow_merge(propose(mask, replace(policy, merge=False), fine=fine).boxes, longest)
        proposal = propose(mask, policy, fine=fine)
        assert (proposal.boxes, proposal.counts["merged"]) == (expected, count)
        merged += count
    assert merged


def test_a_merged_box_remembers_that_a_part_was_clipped():
    proposal = propose(drawn((8, 8, 8), Box((0, 2, 2), (1, 3, 3)), Box((2, 2, 2), (3, 3, 3))), WIDE)
    assert only(proposal).clipped
    assert proposal.counts["clipped"] == 1


# --- speed and bad values ----------------------------------------------------


def test_thousands_of_boxes_keep_their_order_along_no_chain():
    mask = many_objects((60, 60, 60), LONGEST_CHAIN + 1)[1]
    boxes = [propose(mask, replace(TIGHT, chain=chain)).boxes for chain in (False, True)]
    assert boxes[0] == boxes[1]


def test_a_thousand_small_objects_take_no_time():
    mask = many_objects((60, 60, 60), 1000)[1]
    proposal = propose(mask, BoxPolicy(margin_rough_voxels=2), factor=2)
    assert proposal.counts["found"] == 1000
    assert set().union(*(b.components for b in proposal.boxes)) == set(range(1, 1001))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", -0.1),
        ("threshold", 1.1),
        ("threshold", float("nan")),
        ("min_volume_mm3", -1),
        ("max_components", 0),
        ("margin_mm", -1),
        ("margin_fraction", -0.1),
        ("margin_rough_voxels", -1),
        ("max_downscale", 0),
        ("min_downscale", 0),
        ("max_spacing_mm", -1),
        ("min_spacing_mm", -0.5),
        ("tile_overlap", 1),
        ("tile_overlap", -0.1),
        ("connectivity", 8),
    ],
)
def test_bad_values_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be .*, got {value}"):
        BoxPolicy(**{name: value})
