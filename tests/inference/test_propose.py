"""Proposers: one suite over all that can say where to look, then what is special about each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from stseg3d.geometry import Box, Grid
from stseg3d.inference import BoxProposer, MaskProposer, NetworkProposer, SegmentThenSegmentInferer, Stage, WholeProposer
from stseg3d.ops import BoxPolicy, propose_boxes
from stseg3d.ops.resample import resample
from stseg3d.volumes import ArrayVolume
from tests.inference.fakes import Threshold, dice, networks, pipeline, volume_of
from tests.phantoms import image_of, near

SHAPE, FINE = (40, 48, 32), (16, 16, 16)
ROUGH = (10, 12, 8)
GRID = Grid(SHAPE, np.array([[0.7, 0, 0, 4], [0, 0.7, 0, -9], [0, 0, 1.5, 2], [0, 0, 0, 1]]))
POLICY = BoxPolicy(margin_fraction=0, margin_mm=1)
BALLS = near(np.array([[10.0, 12, 10], [28, 34, 22]]), 5, SHAPE)
IMAGE = image_of(BALLS)[0]
VOLUME = ArrayVolume(IMAGE[None], GRID, "image")


def mask_volume(mask, grid=GRID):
    return ArrayVolume(np.asarray(mask, np.uint8)[None], grid, "mask")


PROPOSERS = {
    "network": NetworkProposer(Threshold(25), Stage(ROUGH), POLICY, FINE),
    "mask": MaskProposer(mask_volume(BALLS), POLICY, FINE),
    "rough mask": MaskProposer(mask_volume(resample(BALLS[None], ROUGH)[0] > 0.25, GRID.resized(ROUGH)), POLICY, FINE),
    "boxes": BoxProposer([Box((4, 6, 4), (17, 19, 17)), Box((22, 28, 16), (35, 41, 29))], POLICY, FINE),
    "whole": WholeProposer(POLICY, FINE),
}


@pytest.fixture(params=PROPOSERS)
def proposer(request):
    return PROPOSERS[request.param]


def test_boxes_lie_in_the_volume_and_cover_the_objects(proposer):
    proposal = proposer.propose(VOLUME)
    covered = np.zeros(SHAPE, bool)
    for found in proposal.boxes:
        assert not found.box.is_empty()
        assert GRID.box.contains(found.box)
        covered[found.box.slices] = True
    assert covered[BALLS].all()
    assert proposal.counts["found"] == (1 if len(proposal.boxes) == 1 else 2)


def test_proposing_twice_gives_the_same(proposer):
    assert proposer.propose(VOLUME).boxes == proposer.propose(VOLUME).boxes


def test_ids_name_the_components_of_the_boxes(proposer):
    proposal = proposer.propose(VOLUME)
    if proposal.ids is None:
        assert all(b.components == frozenset() for b in proposal.boxes)
    else:
        assert set(np.unique(proposal.ids)) - {0} == set().union(*(b.components for b in proposal.boxes))


def test_the_fine_stage_never_knows_which_it_was(proposer):
    inferer = pipeline(ROUGH, (24, 24, 24), POLICY, proposer=proposer)
    found = inferer.segment(VOLUME, networks())
    assert dice(found.labels, BALLS) > (0.85 if len(found.boxes) == 1 else 0.97)  # the whole volume in one crop is not sharp


def test_what_the_rough_stage_says_about_a_box_is_known_unless_boxes_were_given(proposer):
    proposal = proposer.propose(VOLUME)
    box = Box((4, 6, 4), (17, 19, 17))
    channel = proposal.probability_in(box, SHAPE, FINE)
    assert (channel.dtype, channel.shape) == (np.float32, (1, *FINE))
    if proposal.probability is None:
        assert not channel.any()
    else:
        assert proposal.probability.shape == proposal.ids.shape
        whole = resample(proposal.probability[None], SHAPE)  # the slow way
        np.testing.assert_allclose(channel, resample(whole[(slice(None), *box.slices)], FINE), atol=1e-5)
        assert channel[0, 8, 8, 8] > 0.5


def test_probabilities_of_several_classes_add_up():
    classes = np.zeros((2, *ROUGH), np.float32)
    classes[0, 2:5, 2:5, 2:5], classes[1, 2:5, 2:5, 4:6] = 0.75, 0.125
    for per_class in (False, True):
        proposal = propose_boxes(classes, GRID.resized(ROUGH), GRID, FINE, replace(POLICY, per_class=per_class))
        np.testing.assert_array_equal(proposal.probability, classes.sum(axis=0))


# --- the network -------------------------------------------------------------


def test_the_network_sees_the_whole_volume_on_the_rough_grid():
    np.testing.assert_allclose(
        PROPOSERS["network"].classes(VOLUME)[0], 1 / (1 + np.exp(25 - resample(IMAGE[None], ROUGH)[0].astype(float))), atol=1e-4
    )


# --- a mask ------------------------------------------------------------------


def test_a_given_mask_is_where_the_boxes_are():
    policy = BoxPolicy(margin_fraction=0, margin_rough_voxels=0)
    boxes = MaskProposer(mask_volume(3 * BALLS), policy, FINE).propose(VOLUME).boxes
    assert sorted(b.box for b in boxes) == [Box((5, 7, 5), (16, 18, 16)), Box((23, 29, 17), (34, 40, 28))]


def test_an_empty_mask_proposes_nothing():
    assert MaskProposer(mask_volume(np.zeros(SHAPE)), POLICY, FINE).propose(VOLUME).boxes == []


@pytest.mark.parametrize(
    "affine",
    [
        GRID.affine + np.array([[0, 0, 0, 3], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),  # 3 mm aside
        GRID.affine @ np.diag([1.1, 1, 1, 1]),  # larger
        GRID.affine @ np.array([[-1, 0, 0, 39], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),  # the same extent, mirrored
    ],
)
def test_a_mask_of_another_extent_is_refused(affine):
    with pytest.raises(ValueError, match=r"^mask: the mask must cover the extent of image, got another grid$"):
        MaskProposer(mask_volume(BALLS, Grid(SHAPE, affine)), POLICY, FINE).propose(VOLUME)


def test_a_mask_of_several_channels_is_refused():
    several = ArrayVolume(np.zeros((2, *SHAPE), np.uint8), GRID, "mask")
    with pytest.raises(ValueError, match=r"^mask: a label map must have one channel, got 2$"):
        MaskProposer(several, POLICY, FINE).propose(VOLUME)


@pytest.mark.parametrize(
    ("value", "told"), [(-1000, "not be negative, got -1000"), (0.4, "be whole numbers, got 0.4"), (np.nan, "be finite")]
)
def test_a_mask_that_is_no_label_map_is_refused(value, told):
    with pytest.raises(ValueError, match=f"^mask: labels must {told}"):
        MaskProposer(ArrayVolume(np.where(BALLS, 1, np.float32(value))[None], GRID, "mask"), POLICY, FINE).propose(VOLUME)


# --- boxes -------------------------------------------------------------------


def test_boxes_are_taken_as_they_were_drawn():
    drawn = [Box((3, 4, 5), (9, 9, 9)), Box((20, 20, 20), (30, 31, 32))]
    proposal = BoxProposer(drawn, BoxPolicy(margin_mm=9, keep_aspect=True), FINE).propose(VOLUME)
    assert [b.box for b in proposal.boxes] == drawn
    assert not any(b.clipped or b.tile for b in proposal.boxes)


def test_boxes_over_the_edge_are_clipped_and_boxes_outside_are_dropped_and_both_are_counted():
    drawn = [Box((-5, 4, 5), (9, 9, 9)), Box((50, 0, 0), (60, 5, 5)), Box((0, 0, 0), (4, 4, 4))]
    proposal = BoxProposer(drawn, POLICY, FINE).propose(VOLUME)
    assert [(b.box, b.clipped) for b in proposal.boxes] == [(Box((0, 4, 5), (9, 9, 9)), True), (Box((0, 0, 0), (4, 4, 4)), False)]
    assert {k: proposal.counts[k] for k in ("found", "clipped", "outside")} == {"found": 3, "clipped": 2, "outside": 1}


def test_long_boxes_are_split_where_the_policy_limits_them():
    policy = BoxPolicy(max_downscale=1.0)
    proposal = BoxProposer([Box((0, 0, 0), (40, 16, 16)), Box((0, 0, 0), (16, 16, 16))], policy, FINE).propose(VOLUME)
    assert [b.box.shape for b in proposal.boxes] == [(16, 16, 16)] * 4
    assert [b.tile for b in proposal.boxes] == [True] * 3 + [False]
    assert proposal.counts["split"] == 1


def test_no_boxes_propose_nothing():
    assert BoxProposer([], POLICY, FINE).propose(VOLUME).boxes == []


def test_boxes_given_twice_are_taken_once():
    one, other = Box((4, 6, 4), (17, 19, 17)), Box((22, 28, 16), (35, 41, 29))
    proposal = BoxProposer([one, other, one] + [one] * 20_000, POLICY, FINE).propose(VOLUME)
    assert [b.box for b in proposal.boxes] == [one, other]
    assert (proposal.counts["found"], proposal.counts["merged"]) == (20_003, 20_001)


def test_the_whole_volume_is_tiled_as_the_policy_says():
    assert [b.box for b in WholeProposer(POLICY, FINE).propose(VOLUME).boxes] == [GRID.box]
    tiles = WholeProposer(BoxPolicy(max_downscale=1.0, tile_overlap=0), FINE).propose(VOLUME).boxes
    assert len(tiles) == 3 * 3 * 2
    covered = np.zeros(SHAPE, bool)
    for tile in tiles:
        covered[tile.box.slices] = True
    assert covered.all()


def test_boxes_and_masks_agree_with_the_network_they_came_from():
    """What the rough network proposed, given back as a mask or as boxes, gives the same labels."""
    inferer = pipeline(ROUGH, FINE, POLICY)
    found = inferer.segment(VOLUME, networks())
    ids = NetworkProposer(networks().rough, Stage(ROUGH), POLICY, FINE).propose(VOLUME).ids
    as_mask = MaskProposer(mask_volume(ids > 0, GRID.resized(ROUGH)), POLICY, FINE)
    as_boxes = BoxProposer([b.box for b in found.boxes], POLICY, FINE)
    for proposer in (as_mask, as_boxes):
        again = pipeline(ROUGH, FINE, POLICY, proposer=proposer).segment(VOLUME, networks())
        assert [b.box for b in again.boxes] == [b.box for b in found.boxes]
        np.testing.assert_array_equal(again.labels, found.labels)


def test_the_rough_network_does_not_run_where_boxes_are_given():
    both = networks()
    both.rough = None
    labels = pipeline(ROUGH, FINE, POLICY, proposer=PROPOSERS["boxes"]).segment(volume_of(IMAGE), both).labels
    assert dice(labels, BALLS) > 0.95


@pytest.mark.parametrize("value", [0, 7, -1024, 3001, 1000.3])
def test_nothing_is_found_in_a_constant_volume_whatever_the_network_says(value):
    sure = nn.Conv3d(1, 2, 1)
    nn.init.zeros_(sure.weight)
    sure.bias.data = torch.tensor([-9.0, 9.0])
    proposer = NetworkProposer(sure, Stage((8, 16, 48)), BoxPolicy(), (8, 8, 8))
    constant = np.full((50, 93, 77), value, np.float32)  # no axis divides: resampling leaves it uneven in the last digits
    assert proposer.propose(volume_of(constant)).boxes == []
    constant[0, 0, 0] += 100
    assert len(proposer.propose(volume_of(constant)).boxes) == 1


def test_an_empty_mask_is_not_blamed_on_the_rough_network():
    inferer = pipeline(ROUGH, FINE)
    empty = MaskProposer(inferer.view(mask_volume(np.zeros(SHAPE))), POLICY, FINE)
    found = inferer.segment(VOLUME, networks(), empty)
    assert found.warnings == ["nothing to look at in the mask or boxes given"]


def test_components_of_each_class_are_told_apart_where_the_policy_says_so():
    values = np.zeros(SHAPE, np.uint8)
    values[10:20, 10:20, 10:20] = 1
    values[20:30, 10:20, 10:20] = 2  # touches the first
    together = MaskProposer(mask_volume(values), replace(POLICY, merge=False), FINE).propose(VOLUME)
    apart = MaskProposer(mask_volume(values), replace(POLICY, merge=False, per_class=True), FINE).propose(VOLUME)
    assert [b.components for b in together.boxes] == [{1}]
    assert [b.components for b in apart.boxes] == [{1}, {2}]
    np.testing.assert_array_equal(apart.ids, values)
    assert (together.counts["found"], apart.counts["found"]) == (1, 2)


def test_an_empty_mask_of_many_classes_has_no_boxes():
    assert MaskProposer(mask_volume(np.zeros(SHAPE)), replace(POLICY, per_class=True), FINE).propose(VOLUME).boxes == []


def test_a_rough_grid_by_spacing_follows_the_extent_of_the_volume():
    stage = Stage((64, 64, 64), spacing_mm=2.0, multiple=4)
    assert stage.shape_of(GRID) == (16, 20, 24)  # 28 x 33.6 x 48 mm
    assert stage.shape_of(Grid((400, 40, 1))) == (64, 20, 4)
    assert Stage((64, 64, 1), spacing_mm=2.0).shape_of(Grid((40, 40, 1))) == (24, 24, 1)
    proposal = NetworkProposer(networks().rough, stage, POLICY, FINE).propose(VOLUME)
    assert proposal.ids.shape == (16, 20, 24)
    assert len(proposal.boxes) == 2


def test_a_fine_stage_has_one_size():
    with pytest.raises(ValueError, match=r"fine no spacing_mm, got .* 2\.0 mm"):
        SegmentThenSegmentInferer(Stage(ROUGH), Stage(FINE, spacing_mm=2.0))
    with pytest.raises(ValueError, match="spacing_mm and multiple must be positive, got 0 and 8"):
        Stage(ROUGH, spacing_mm=0)
