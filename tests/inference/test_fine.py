"""The fine stage: boxes that cut an object are mended, neighbours are left to their own boxes, and crops are fused as they should be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from stseg3d.geometry import Box, Grid, edges
from stseg3d.inference import BoxProposer, FinePolicy, SegmentThenSegmentInferer, Stage, fine
from stseg3d.inference.borders import touched_faces
from stseg3d.inference.fine import FineStage
from stseg3d.networks import RoughFineNet
from stseg3d.ops import BoxPolicy, Canvas
from stseg3d.ops.boxes import Proposal, ProposedBox
from stseg3d.ops.fuse import FineCrop
from stseg3d.ops.resample import resample
from stseg3d.volumes import ArrayVolume
from tests.inference.fakes import Threshold, Witness, dice, networks, pipeline, volume_of
from tests.ops.twins import slow_probabilities
from tests.phantoms import image_of, many_objects, near, object_at_border

CUBE = (48, 48, 48)
FINE = (32, 32, 32)


def balls(*centres, radius=6, shape=CUBE):
    return image_of(near(np.array(centres, float), radius, shape))


def given(*boxes, **fine_policy):
    return pipeline((12, 12, 12), FINE, BoxPolicy(), FinePolicy(**fine_policy), proposer=BoxProposer(boxes, BoxPolicy(), FINE))


# --- growth at borders -------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("side", [0, 1])
def test_a_box_that_cuts_its_object_grows_there_and_is_run_once_more(axis, side):
    image, mask = balls((24, 24, 24))
    start, stop = [16, 16, 16], [33, 33, 33]
    if side:
        stop[axis] = 28
    else:
        start[axis] = 21
    cut = Box(tuple(start), tuple(stop))
    without = given(cut, border_growth=0).segment(volume_of(image), networks())
    assert dice(without.labels, mask) < 0.95
    assert [b.box for b in without.boxes] == [cut]
    assert without.counts["crops"] == 1
    mended = given(cut, border_growth=0.25).segment(volume_of(image), networks())
    assert dice(mended.labels, mask) > 0.97
    more = -(-cut.shape[axis] // 4)
    faces = [more if a == axis else 0 for a in range(3)]
    assert [b.box for b in mended.boxes] == [cut.grow([0] * 3, faces) if side else cut.grow(faces, [0] * 3)]
    assert (mended.counts["grown"], mended.counts["crops"]) == (1, 2)


def test_a_box_grows_once_and_no_more():
    image, _ = balls((24, 24, 24), radius=12)
    found = given(Box((20, 20, 20), (28, 28, 28))).segment(volume_of(image), networks())
    assert [b.box for b in found.boxes] == [Box((18, 18, 18), (30, 30, 30))]
    assert found.counts["crops"] == 2
    assert found.labels.sum() == 12**3


def test_a_box_does_not_grow_out_of_the_image():
    image, _ = object_at_border(CUBE)
    found = given(Box((0, 0, 0), (14, 14, 14)), border_growth=1.0).segment(volume_of(image), networks())
    assert [b.box for b in found.boxes] == [Box((0, 0, 0), (28, 28, 28))]
    found = given(Box((0, 0, 0), (14, 44, 20))).segment(volume_of(image), networks())
    assert [b.box for b in found.boxes] == [Box((0, 0, 0), (18, 44, 20))]


def test_a_box_that_holds_its_object_stays_as_it_is():
    image, _ = balls((24, 24, 24))
    found = given(Box((14, 14, 14), (34, 34, 34))).segment(volume_of(image), networks())
    assert found.counts["grown"] == 0


def crop(box, *voxels, size=(4, 4, 4)):
    """A crop whose mask holds these voxels of the network's size."""
    foreground = np.full(size, 0.1, np.float32)
    for voxel in voxels:
        foreground[voxel] = 0.9
    return FineCrop(box, np.stack([1 - foreground, foreground]))


BOX = Box((8, 8, 8), (16, 16, 16))


@pytest.mark.parametrize(
    ("voxel", "faces"),
    [
        ((1, 2, 1), set()),
        ((0, 2, 1), {(0, 0)}),
        ((3, 2, 1), {(0, 1)}),
        ((1, 0, 1), {(1, 0)}),
        ((1, 2, 3), {(2, 1)}),
        ((0, 3, 0), {(0, 0), (1, 1), (2, 0)}),
    ],
)
def test_a_mask_touches_the_faces_at_which_it_ends(voxel, faces):
    assert touched_faces(crop(BOX, voxel), (32, 32, 32), edges([BOX])) == faces


def test_faces_of_the_image_and_axes_of_one_voxel_cut_nothing_off():
    whole = Box((0, 0, 0), (16, 16, 16))
    assert touched_faces(crop(whole, (0, 0, 0)), (32, 32, 32), edges([whole])) == set()
    assert touched_faces(crop(whole, (3, 3, 3)), (32, 16, 32), edges([whole])) == {(0, 1), (2, 1)}
    flat = Box((8, 8, 0), (16, 16, 1))
    assert touched_faces(crop(flat, (0, 1, 0), size=(4, 4, 1)), (32, 32, 1), edges([flat])) == {(0, 0)}


def test_a_cut_that_lies_inside_another_box_is_that_ones_matter():
    touching = crop(BOX, (3, 1, 1))  # voxels 14..16 x 10..12 x 10..12 of the image, cut off at 16
    behind = Box((12, 8, 8), (20, 16, 16))
    assert touched_faces(touching, (32, 32, 32), edges([BOX, behind])) == set()
    beside = Box((12, 11, 8), (20, 16, 16))  # does not hold all of the cut
    assert touched_faces(touching, (32, 32, 32), edges([BOX, beside])) == {(0, 1)}
    short = Box((15, 8, 8), (16, 16, 16))  # ends there, too
    assert touched_faces(touching, (32, 32, 32), edges([BOX, short])) == {(0, 1)}
    assert touched_faces(touching, (32, 32, 32), edges([BOX, BOX])) == {(0, 1)}


def test_tiles_of_a_long_object_do_not_grow_into_each_other():
    image, mask = image_of(near(np.array([[x, 24, 24] for x in range(6, 42)], float), 4, CUBE))
    policy = BoxPolicy(max_downscale=0.75)
    found = pipeline((12, 12, 12), FINE, policy).segment(volume_of(image), networks())
    assert found.counts["split"] == 1
    assert len(found.boxes) > 1
    assert found.counts["grown"] == 0
    assert dice(found.labels, mask) > 0.97


# --- neighbours --------------------------------------------------------------


def near_neighbours():
    """Two balls of which only the larger is proposed, in a box that holds the smaller, too."""
    large, small = near(np.array([[20.0, 24, 24]]), 7, CUBE), near(np.array([[37.0, 24, 24]]), 3, CUBE)
    policy = BoxPolicy(max_components=1, margin_mm=14, margin_fraction=0)
    return image_of(large | small)[0], large, small, policy


def test_a_neighbour_that_looks_in_is_left_out_if_the_bundle_says_so():
    image, large, small, policy = near_neighbours()
    everything = pipeline((12, 12, 12), FINE, policy).segment(volume_of(image), networks())
    assert len(everything.boxes) == 1
    assert dice(everything.labels, large | small) > 0.94
    assert everything.labels[small].mean() > 0.5
    own = pipeline((12, 12, 12), FINE, policy, FinePolicy(only_proposed=True)).segment(volume_of(image), networks())
    np.testing.assert_array_equal(own.labels[:30], everything.labels[:30])
    assert not own.labels[small].any()
    assert own.counts["parts_left_to_other_boxes"] == 1
    assert own.counts["dropped_rank"] == 1


def test_a_neighbours_probability_is_left_out_too():
    image, large, small, policy = near_neighbours()
    inferer = pipeline((12, 12, 12), FINE, policy, FinePolicy(only_proposed=True), kind="probabilities")
    found = inferer.segment(volume_of(image), networks())
    assert found.probabilities[0][small].max() < 0.5
    assert found.probabilities[0][large].mean() > 0.85


def test_what_touches_no_component_is_left_out():
    """The rough network saw something where the fine one sees nothing, and something else beside it."""
    image, _ = balls((30, 24, 24), radius=4)
    ids = np.zeros((12, 12, 12), np.int32)
    ids[3:5, 5:7, 5:7] = 1
    proposal = Proposal([ProposedBox(Box((10, 14, 14), (36, 34, 34)), frozenset([1]))], ids)
    for only_proposed in (False, True):
        stage = FineStage(Threshold(), Stage(FINE), FinePolicy(only_proposed=only_proposed))
        canvas = Canvas(CUBE)
        stage.paint(volume_of(image), proposal, canvas)
        assert canvas.labels.any() == (not only_proposed)


def test_boxes_that_were_given_have_no_component_to_keep_to():
    image, mask = balls((12, 24, 24), (34, 24, 24))
    found = given(Box((2, 12, 12), (46, 36, 36)), only_proposed=True).segment(volume_of(image), networks())
    assert dice(found.labels, mask) > 0.95


# --- the rough channel -------------------------------------------------------

SEEING = Stage(FINE, rough_channel=True)


class Believes(nn.Module):
    """Foreground is what the last channel, that of the rough network, says."""

    def __init__(self):
        super().__init__()
        self.level = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        odds = 100 * (x[:, -1:] - self.level)
        return torch.cat([-odds, odds], dim=1)


def test_the_fine_network_is_shown_what_the_rough_one_said_in_each_box():
    image, mask = balls((12, 24, 24), (36, 24, 24), radius=8)
    inferer = SegmentThenSegmentInferer(Stage((24, 24, 24)), SEEING, BoxPolicy(margin_mm=4), FinePolicy())
    found = inferer.segment(volume_of(image), RoughFineNet(Threshold(50, 0.2), Believes()))
    assert len(found.boxes) == 2
    assert dice(found.labels, mask) > 0.9


def test_the_channel_follows_the_image_and_leaves_it_alone():
    image, _ = balls((24, 24, 24))
    box = Box((12, 12, 12), (36, 36, 36))
    for channels in (1, 2):
        fine = Witness(Threshold())
        volume = ArrayVolume(np.stack([image] * channels), Grid(CUBE))
        proposal = Proposal([ProposedBox(box)], probability=np.full((6, 6, 6), 0.25, np.float32))
        FineStage(fine, replace(SEEING, transform=lambda x: x * 2), FinePolicy()).paint(volume, proposal, Canvas(CUBE))
        assert fine.inputs[0].shape == (1, channels + 1, *FINE)
        torch.testing.assert_close(fine.inputs[0][0, -1], torch.full(FINE, 0.25))
        torch.testing.assert_close(fine.inputs[0][0, 0], torch.from_numpy(2 * resample(image[box.slices][None], FINE)[0]))


def test_boxes_that_were_given_leave_the_channel_unknown():
    image, mask = balls((24, 24, 24))
    fine = Witness(Threshold())
    box = Box((12, 12, 12), (36, 36, 36))
    inferer = SegmentThenSegmentInferer(Stage((12, 12, 12)), SEEING, proposer=BoxProposer([box], BoxPolicy(), FINE))
    found = inferer.segment(volume_of(image), RoughFineNet(Threshold(), fine))
    assert dice(found.labels, mask) > 0.97
    assert not any(x[:, -1].any() for x in fine.inputs)


def test_a_mirrored_input_has_its_channel_mirrored():
    image, _ = balls((20, 24, 24), radius=7)
    volume = volume_of(image)
    inferer = SegmentThenSegmentInferer(Stage((24, 24, 24)), SEEING, BoxPolicy(margin_mm=4), FinePolicy())
    mirrored = SegmentThenSegmentInferer(
        Stage((24, 24, 24)), Stage(FINE, rough_channel=True, mirror_axes=[0, 1]), BoxPolicy(margin_mm=4), FinePolicy()
    )
    network = RoughFineNet(Threshold(50, 0.2), Believes())
    np.testing.assert_array_equal(mirrored.segment(volume, network).labels, inferer.segment(volume, network).labels)


# --- crops and fusion --------------------------------------------------------


class Smooth(nn.Module):
    """Soft probabilities of a mean of neighbours: crops disagree where they overlap."""

    def __init__(self):
        super().__init__()
        self.threshold = Threshold(50, steepness=0.05)

    def forward(self, x):
        return self.threshold(nn.functional.avg_pool3d(x, 3, 1, 1))


@pytest.mark.parametrize("fusion", ["mean", "max", "or"])
def test_labels_are_the_slow_fusion_of_what_the_network_says_about_the_boxes(fusion):
    shape = (40, 36, 32)
    image = many_objects(shape, 60)[0]
    fine = (9, 8, 7)
    policy = BoxPolicy(margin_fraction=0, margin_rough_voxels=2, merge=False)
    inferer = pipeline((20, 18, 16), fine, policy, FinePolicy(fusion=fusion, batch_size=5), kind="probabilities")
    found = inferer.segment(volume_of(image), RoughFineNet(Threshold(25), Smooth()))
    crops = []
    for box in found.boxes:
        logits = Smooth()(torch.from_numpy(resample(image[None][(slice(None), *box.box.slices)], fine))[None])
        crops.append(FineCrop(box.box, logits.softmax(1)[0].detach().numpy().astype(np.float16)))
    slow = slow_probabilities(shape, crops, 2, fusion)
    assert len(crops) >= 40
    assert found.labels.any()
    np.testing.assert_allclose(found.probabilities[0], slow[1], atol=2e-3)
    certain = np.abs(slow[1] - slow[0]) > 1e-3
    np.testing.assert_array_equal(found.labels[certain], slow.argmax(axis=0)[certain])


def test_the_fine_network_sees_full_resolution():
    image, _ = balls((24, 24, 24))
    box = Box((8, 8, 8), (40, 40, 40))
    network = RoughFineNet(Threshold(), Witness(Threshold()))
    given(box).segment(volume_of(image), network)
    np.testing.assert_array_equal(network.fine.inputs[0][0, 0], image[box.slices])


def test_its_transform_runs_on_the_crop_alone():
    image, _ = balls((24, 24, 24))
    seen = []

    def transform(x):
        seen.append(tuple(x.shape))
        return 2 * x

    network = RoughFineNet(Witness(Threshold(50)), Witness(Threshold(100)))
    inferer = pipeline((12, 12, 12), FINE)
    inferer.rough = Stage((12, 12, 12), transform=transform)
    inferer.fine = Stage(FINE, transform=transform)
    found = inferer.segment(volume_of(image), network)
    assert seen == [(1, 12, 12, 12), (1, *FINE)]
    np.testing.assert_allclose(network.rough.inputs[0][0], 2 * resample(image[None], (12, 12, 12)), atol=1e-4)
    crop_there = resample(image[None][(slice(None), *found.boxes[0].box.slices)], FINE)
    np.testing.assert_array_equal(network.fine.inputs[0][0], 2 * crop_there)


def test_lone_objects_share_a_batch():
    image, _ = many_objects((60, 60, 60), 10, seed=1)
    network = RoughFineNet(Threshold(10), Witness(Threshold(50)))
    inferer = pipeline((30, 30, 30), (8, 8, 8), BoxPolicy(margin_fraction=0), FinePolicy(batch_size=4, border_growth=0))
    found = inferer.segment(volume_of(image), network)
    assert len(found.boxes) == 10
    assert [len(x) for x in network.fine.inputs] == [4, 4, 2]


@pytest.mark.parametrize(("free", "fits"), [(4 * 32**3 * 2 * 2, True), (4 * 32**3 * 2 * 2 - 1, False), (None, True)])
def test_crops_that_wait_for_each_other_must_fit_into_memory(free, fits, monkeypatch):
    monkeypatch.setattr(fine, "LARGE_BYTES", 1000)
    monkeypatch.setattr(fine, "available_bytes", lambda: free)
    boxes = [Box((8 * n, 0, 0), (8 * n + 12, 12, 12)) for n in range(4)]  # a chain: each overlaps the next
    image, _ = balls((24, 24, 24))
    if fits:
        assert given(*boxes, border_growth=0).segment(volume_of(image), networks()).counts["crops"] == 4
        return
    with pytest.raises(MemoryError, match=r"array: 4 boxes that overlap must fit into the free memory of 0.0 GiB together, got"):
        given(*boxes, border_growth=0).segment(volume_of(image), networks())


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("border_growth", -0.1), ("border_growth", 1.5)])
def test_bad_values_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"batch_size must be at least 1 and border_growth in \[0, 1\], got .*{value}"):
        FinePolicy(**{name: value})


def test_an_unknown_fusion_is_refused_before_any_network_runs():
    with pytest.raises(ValueError, match=r"fusion must be one of \('mean', 'max', 'or'\), got 'median'"):
        FinePolicy(fusion="median")
