"""What 3-D makes hard, one phantom each, with networks that threshold: nothing but the pipeline can go wrong."""

from __future__ import annotations

import numpy as np
import pytest

from stseg3d.inference import FinePolicy
from stseg3d.networks import RoughFineNet
from stseg3d.ops import BoxPolicy
from tests.inference.fakes import Bands, Cores, Threshold, dice, networks, pipeline, volume_of
from tests.phantoms import frame_filling_object, image_of, many_objects, near, object_at_border, thin_curved_tube, touching_objects

CUBE = (48, 48, 48)


def ball(*centre, radius=5, shape=CUBE):
    return near(np.array([centre], float), radius, shape)


def test_nothing_found_is_an_empty_mask_and_a_warning():
    image = np.zeros(CUBE, np.float32)
    found = pipeline((12, 12, 12), (16, 16, 16)).segment(volume_of(image), networks())
    assert found.labels.shape == CUBE
    assert found.labels.dtype == np.uint8
    assert not found.labels.any()
    assert found.boxes == []
    assert found.counts["found"] == 0
    assert found.warnings == ["nothing found by the rough stage"]


@pytest.mark.parametrize("output", ["instances", "probabilities"])
def test_nothing_found_is_empty_in_every_kind_of_output(output):
    found = pipeline((12, 12, 12), (16, 16, 16), kind=output).segment(volume_of(np.zeros(CUBE, np.float32)), networks())
    assert not found.labels.any()
    assert (found.probabilities is None) == (output == "instances")
    assert found.probabilities is None or not found.probabilities.any()


def test_where_nothing_is_found_the_whole_volume_can_be_tiled():
    image, mask = image_of(ball(24, 24, 24, radius=2))  # too small for the rough network
    options = {"policy": BoxPolicy(max_downscale=1.0)}
    blind = networks(rough_level=60)
    assert not pipeline((6, 6, 6), (16, 16, 16), **options).segment(volume_of(image), blind).labels.any()
    found = pipeline((6, 6, 6), (16, 16, 16), when_empty="tile", **options).segment(volume_of(image), blind)
    np.testing.assert_array_equal(found.labels > 0, image > 50)
    assert dice(found.labels, mask) == 1
    assert found.warnings[0] == "nothing found by the rough stage: the whole volume is tiled"
    assert found.counts["found"] == 0
    assert len(found.boxes) == found.counts["crops"] == 4**3  # 48 voxels in tiles of 16 that share a quarter
    assert all(b.tile for b in found.boxes)


def test_what_was_dropped_before_the_tiling_is_still_told():
    image, mask = image_of(ball(24, 24, 24))
    found = pipeline((12, 12, 12), CUBE, BoxPolicy(min_volume_mm3=1e6), when_empty="tile").segment(volume_of(image), networks())
    assert dice(found.labels, mask) == 1
    assert (found.counts["found"], found.counts["dropped_small"]) == (1, 1)
    assert [d.why for d in found.dropped] == ["smaller than min_volume_mm3=1e+06"]


def test_where_something_is_found_nothing_is_tiled():
    image, mask = image_of(ball(24, 24, 24))
    found = pipeline((12, 12, 12), (16, 16, 16), when_empty="tile").segment(volume_of(image), networks())
    assert len(found.boxes) == 1
    assert dice(found.labels, mask) > 0.95


def test_one_object_in_the_middle():
    image, mask = image_of(ball(20, 26, 23, radius=6))
    found = pipeline((12, 12, 12), (32, 32, 32)).segment(volume_of(image), networks())
    assert dice(found.labels, mask) > 0.97
    (box,) = found.boxes
    assert mask[box.box.slices].sum() == mask.sum()
    assert not box.clipped
    assert found.warnings == []
    assert set(found.seconds) == {"rough", "fine"}


def test_one_object_that_fills_the_frame():
    image, mask = frame_filling_object(CUBE)
    found = pipeline((12, 12, 12), CUBE).segment(volume_of(image), networks())
    np.testing.assert_array_equal(found.labels > 0, mask)
    assert [b.box.shape for b in found.boxes] == [CUBE]
    assert "an object fills more than half of the volume: two stages may not help" in found.warnings


def test_below_twofold_downscaling_the_user_is_told():
    image, _ = image_of(ball(24, 24, 24))
    found = pipeline((32, 32, 32), (16, 16, 16)).segment(volume_of(image), networks())
    assert found.warnings == ["downscaling below 2x (1.50x): two stages may not help"]


@pytest.mark.parametrize(("most", "told"), [(3, []), (2, ["3 boxes to look into, as noise in the rough mask gives: this may take long"])])
def test_of_many_boxes_the_user_is_told(most: int, told: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("stseg3d.inference.inferer.NOISE_BOXES", most)
    image, _ = image_of(ball(10, 10, 10) | ball(38, 10, 10) | ball(10, 38, 38))
    found = pipeline((24, 24, 24), (16, 16, 16)).segment(volume_of(image), networks())
    assert (len(found.boxes), found.warnings) == (3, told)


def test_an_object_at_the_border_is_clipped_and_whole():
    image, mask = object_at_border(CUBE)
    found = pipeline((12, 12, 12), (32, 32, 32)).segment(volume_of(image), networks())
    assert dice(found.labels, mask) > 0.97
    (box,) = found.boxes
    assert box.box.start == (0, 0, 0)
    assert box.clipped
    assert found.counts["clipped"] == 1
    assert found.counts["grown"] == 0  # the image's own faces cut nothing off


def test_a_thin_curved_tube_keeps_its_dice_when_it_is_split_and_loses_it_in_one_box():
    shape = (96, 96, 96)
    image, mask = thin_curved_tube(shape, radius=2)
    volume, both = volume_of(image), networks(rough_level=8)
    split = pipeline((24, 24, 24), (32, 32, 32), BoxPolicy(max_downscale=1.0)).segment(volume, both)
    one = pipeline((24, 24, 24), (32, 32, 32), BoxPolicy()).segment(volume, both)
    assert len(one.boxes) == 1
    assert (split.counts["found"], split.counts["split"]) == (1, 1)
    assert dice(one.labels, mask) < 0.85
    assert dice(split.labels, mask) > 0.97
    assert sum(b.box.voxels for b in split.boxes) < 0.8 * one.boxes[0].box.voxels


def test_a_thousand_small_objects():
    shape = (52, 52, 52)
    image, mask = many_objects(shape, 1000)
    policy = BoxPolicy(margin_fraction=0, margin_rough_voxels=1)
    inferer = pipeline(shape, (8, 8, 8), policy, FinePolicy(batch_size=64), kind="instances")
    found = inferer.segment(volume_of(image), networks(rough_level=50))
    assert found.counts["found"] == 1000
    assert found.labels.dtype == np.uint16
    assert np.unique(found.labels).tolist() == list(range(1001))
    assert dice(found.labels, mask) > 0.97


def test_touching_objects_are_told_apart_by_what_the_rough_stage_told_apart():
    shape = (64, 32, 32)
    image, mask = touching_objects(shape)
    inferer = pipeline((32, 16, 16), (32, 32, 32), BoxPolicy(margin_mm=5), kind="instances", number_from="L")
    found = inferer.segment(volume_of(image), RoughFineNet(Cores(), Threshold()))
    assert found.counts["found"] == 2
    assert np.unique(found.labels).tolist() == [0, 1, 2]
    left, right = np.split(mask.copy(), 2), np.split(mask.copy(), 2)
    left[1][:] = right[0][:] = False
    assert dice(found.labels == 1, np.concatenate(left)) > 0.97
    assert dice(found.labels == 2, np.concatenate(right)) > 0.97
    together = inferer.segment(volume_of(image), networks())
    assert together.counts["found"] == 1
    assert np.unique(together.labels).tolist() == [0, 1]


@pytest.mark.parametrize("number_from", ["S", "I", "R", "L", "A", "P"])
def test_instances_are_numbered_from_where_the_bundle_says(number_from):
    axis = "RAS".index({"L": "R", "P": "A", "I": "S"}.get(number_from, number_from))
    centres = np.array([[12, 12, 12], [24, 36, 24], [36, 24, 36]])
    image, mask = image_of(np.logical_or.reduce([ball(*c) for c in centres]))
    policy = BoxPolicy(margin_rough_voxels=0.5)
    found = pipeline((12, 12, 12), (24, 24, 24), policy, kind="instances", number_from=number_from).segment(volume_of(image), networks())
    assert dice(found.labels, mask) > 0.95
    order = np.argsort(centres[:, axis] * (-1 if number_from in "RAS" else 1))
    assert [found.labels[tuple(centres[i])] for i in order] == [1, 2, 3]


def test_several_classes_are_painted_as_classes():
    labels = ball(14, 14, 14).astype(np.uint8) + 2 * ball(34, 34, 34).astype(np.uint8)
    policy = BoxPolicy(margin_fraction=0, margin_rough_voxels=1)
    inferer = pipeline((12, 12, 12), (24, 24, 24), policy, out_channels=3)
    found = inferer.segment(volume_of(100.0 * labels), RoughFineNet(Threshold(25), Bands(3)))
    assert np.unique(found.labels).tolist() == [0, 1, 2]
    assert dice(found.labels == 1, (labels == 1)) > 0.9
    assert dice(found.labels == 2, (labels == 2)) > 0.9
