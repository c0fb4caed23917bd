"""Fusion: what crops say becomes labels, block by block, and no float array of the image's size ever exists."""

from __future__ import annotations

import tracemalloc
from itertools import combinations

import numpy as np
import pytest

from stseg3d.geometry import Box, tiles
from stseg3d.ops.fuse import FUSIONS, Canvas, FineCrop, box_weight, clusters
from stseg3d.ops.resample import resample
from tests.ops.twins import SHAPES, all_boxes, slow_probabilities

SHAPE = (9, 8, 7)
CHAIN = [Box((0, 0, 0), (5, 6, 4)), Box((3, 2, 2), (9, 8, 7)), Box((2, 0, 3), (6, 5, 7))]


def crop(box, classes=2, size=(4, 5, 3), seed=0):
    """Random class probabilities at a network's size."""
    rng = np.random.default_rng([seed, *box.start, *box.stop])
    odds = np.exp(2 * rng.normal(size=(classes, *size[: box.ndim])))
    return FineCrop(box, (odds / odds.sum(axis=0)).astype(np.float32))


def painted(shape, crops, classes=2, fusion="mean", **options):
    canvas = Canvas(shape, classes, fusion, **options)
    for cluster in clusters([c.box for c in crops]):
        canvas.paint([crops[i] for i in cluster])
    return canvas


# --- one crop ----------------------------------------------------------------


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_one_box_of_the_whole_volume_is_plain_inference(shape, classes, fusion):
    for size in [shape, (4, 5, 3)]:
        one = crop(Box.of(shape), classes, size)
        plain = resample(one.probabilities, shape).argmax(axis=0)
        np.testing.assert_array_equal(painted(shape, [one], classes, fusion).labels, plain)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_one_box_leaves_all_else_background(fusion):
    for box in all_boxes((3, 4, 2)):
        one = crop(box, classes=3)
        labels = painted((3, 4, 2), [one], 3, fusion).labels
        np.testing.assert_array_equal(labels[box.slices], resample(one.probabilities, box.shape).argmax(axis=0))
        labels[box.slices] = 0
        assert not labels.any()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_same_crop_twice_is_the_crop(fusion):
    one = crop(CHAIN[0], classes=3)
    np.testing.assert_array_equal(painted(SHAPE, [one, one], 3, fusion).labels, painted(SHAPE, [one], 3, fusion).labels)


# --- several crops -----------------------------------------------------------


@pytest.mark.parametrize("block", [1, 3, 4, 128])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_overlapping_crops_fuse_as_in_the_slow_twin_whatever_the_blocks(fusion, classes, block, monkeypatch):
    monkeypatch.setattr("stseg3d.ops.fuse.BLOCK_EXTENT", block)
    for seed in range(3):
        crops = [crop(box, classes, seed=seed) for box in CHAIN]
        canvas = painted(SHAPE, crops, classes, fusion, keep_probabilities=True)
        slow = slow_probabilities(SHAPE, crops, classes, fusion)
        np.testing.assert_array_equal(canvas.labels, slow.argmax(axis=0))
        np.testing.assert_allclose(canvas.probabilities, slow[1:], atol=2e-3)  # float16


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_tiles_of_a_constant_give_the_constant(fusion, overlap):
    says = np.zeros((3, 2, 2, 2), np.float32)
    says[2] = 1
    crops = [FineCrop(box, says) for box in tiles(Box.of(SHAPE), (4, 3, 5), overlap)]
    assert (painted(SHAPE, crops, 3, fusion).labels == 2).all()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_depth_one_is_the_2d_result(fusion):
    flat = [crop(Box((0, 0), (5, 6)), 3), crop(Box((3, 2), (9, 8)), 3)]
    deep = [FineCrop(Box((*c.box.start, 0), (*c.box.stop, 1)), c.probabilities[..., None]) for c in flat]
    np.testing.assert_array_equal(painted((9, 8, 1), deep, 3, fusion).labels[..., 0], painted((9, 8), flat, 3, fusion).labels)


def test_rules_of_fusion_by_hand():
    # Two voxels that both crops see; in the second the crops disagree. Equal boxes weigh the same.
    box = Box((0,), (2,))
    sure = FineCrop(box, np.array([[0.9, 0.1], [0.1, 0.9]], np.float32))
    unsure = FineCrop(box, np.array([[0.6, 0.8], [0.4, 0.2]], np.float32))
    for fusion, labels, probabilities in [("mean", [0, 1], [0.25, 0.55]), ("max", [0, 1], [0.4, 0.9]), ("or", [0, 1], [0, 1])]:
        canvas = painted((2,), [sure, unsure], fusion=fusion, keep_probabilities=True)
        assert canvas.labels.tolist() == labels
        np.testing.assert_allclose(canvas.probabilities[0], probabilities, atol=1e-3)
    outvoted = [sure, unsure, unsure]
    assert painted((2,), outvoted, fusion="mean").labels.tolist() == [0, 0]
    assert painted((2,), outvoted, fusion="or").labels.tolist() == [0, 1]


def test_a_crop_counts_most_in_its_centre():
    for box in [Box((2, 0, 5), (7, 4, 6)), Box((0, 0, 0), (4, 4, 4))]:
        weight = box_weight(box, box)
        assert weight.max() == weight[tuple(n // 2 for n in box.shape)]
        np.testing.assert_allclose(weight, np.flip(weight))
        # At the faces of a long axis it is about exp(-2): far away from nothing, so that a lone crop is not lost to rounding.
        assert weight.min() > 1e-3
        for region in all_boxes(box.shape):
            np.testing.assert_array_equal(box_weight(box, region.shift(box.start)), weight[region.slices])


def test_crops_of_other_clusters_inside_the_outer_box_are_left_alone():
    # The first two form an L; the third lies in its bounding box, and touches neither.
    corner = [Box((0, 0), (8, 2)), Box((0, 0), (2, 8))]
    inner = Box((4, 4), (7, 7))
    sure = np.array([[[0.0]], [[1.0]]], np.float32)
    assert clusters([*corner, inner]) == [[0, 1], [2]]
    expected = np.zeros((8, 8))
    for box in (*corner, inner):
        expected[box.slices] = 1
    for order in ([*corner, inner], [inner, *corner]):
        canvas = painted((8, 8), [FineCrop(b, sure) for b in order], keep_probabilities=True)
        np.testing.assert_array_equal(canvas.labels, expected)
        np.testing.assert_array_equal(canvas.probabilities[0], expected)


def test_labels_take_the_smallest_type():
    assert [Canvas((2, 2), n).labels.dtype for n in (2, 256, 257)] == [np.uint8, np.uint8, np.uint16]


def test_other_fusions_are_refused():
    with pytest.raises(ValueError, match=r"fusion must be one of \('mean', 'max', 'or'\), got 'median'"):
        Canvas((2, 2), fusion="median")


# --- clusters ----------------------------------------------------------------


def slow_clusters(boxes):
    groups = [{i} for i in range(len(boxes))]
    for i, j in combinations(range(len(boxes)), 2):
        if boxes[i].overlaps(boxes[j]):
            one, other = (next(g for g in groups if k in g) for k in (i, j))
            if one is not other:
                groups.remove(other)
                one |= other
    return sorted(sorted(g) for g in groups)


def test_clusters_are_their_slow_twin():
    rng = np.random.default_rng(0)
    for n in range(40):
        start = rng.integers(0, 20, (n, 3))
        boxes = [Box(tuple(a), tuple(a + rng.integers(1, 7, 3))) for a in start]
        assert clusters(boxes) == slow_clusters(boxes)


def test_every_pair_of_small_boxes_is_one_cluster_if_they_overlap():
    boxes = all_boxes((3, 2))
    for one, other in combinations(boxes, 2):
        assert clusters([one, other]) == ([[0, 1]] if one.overlaps(other) else [[0], [1]])


@pytest.mark.parametrize("step", [0, 1, 3])
def test_clusters_of_thousands_of_boxes_take_memory_in_proportion(step):
    """All equal, all overlapping, and in a chain; the pairs of those that overlap were 100 MB for 2,000 and 10 GB for 20,000."""
    boxes = [Box((0, step * n), (4, step * n + (4 if step == 3 else 2000))) for n in range(2000)]
    tracemalloc.start()
    assert clusters(boxes) == [[*range(2000)]]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_no_boxes_no_clusters():
    assert clusters([]) == []


# --- memory ------------------------------------------------------------------


@pytest.mark.parametrize("fusion", FUSIONS)
def test_no_float_array_of_the_images_size_exists(fusion, monkeypatch):
    monkeypatch.setattr("stseg3d.ops.fuse.BLOCK_EXTENT", 32)
    n = 256
    ends = [(0, 0, 0), (n - 40, n - 40, n - 40)]
    boxes = [Box(start, tuple(a + 40 for a in start)) for start in ends]
    # And a thin chain from corner to corner: one cluster, whose outer box is the whole volume.
    boxes += [Box((a, a, a), (a + 12, a + 12, a + 12)) for a in range(0, n - 12, 10)]
    crops = [crop(box, size=(8, 8, 8)) for box in boxes]
    canvas = Canvas((n, n, n), fusion=fusion)
    tracemalloc.start()
    for cluster in clusters(boxes):
        canvas.paint([crops[i] for i in cluster])
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert canvas.labels.any()
    assert peak_bytes < n**3 / 8  # a float16 array would take 16 times as much
