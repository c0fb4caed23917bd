"""One convention for every way to another grid: outer faces stay, shrinking averages, growing interpolates."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations, product
from math import prod

import numpy as np
import pytest
import torch

from stseg3d.geometry import Box, Grid
from stseg3d.ops.resample import axis_operator, resample, resample_region, resample_volume, slabs
from stseg3d.volumes import ArrayVolume, CanonicalVolume
from tests.ops.twins import SHAPES, all_boxes

SIZES = [(2, 3, 4), (3, 4, 5), (7, 4, 2), (6, 9, 10), (1, 1, 1), (3, 8, 1)]


def image(shape, channels=2, seed=0):
    return np.random.default_rng(seed).normal(size=(channels, *shape)).astype(np.float32)


def set_slab(monkeypatch, voxels):
    monkeypatch.setitem(slabs.__globals__, "SLAB_VOXELS", voxels)  # stseg3d.ops.resample, the name, is the function


def slow_axis(values, to):
    """One axis by hand: sub-voxels averaged where it shrinks, ``np.interp`` between centres where it grows."""
    n = len(values)
    if to <= n:
        return np.repeat(values, to).reshape(to, n).mean(axis=1)
    return np.interp((np.arange(to) + 0.5) * n / to, np.arange(n) + 0.5, values)


def slow_resample(array, shape):
    for axis, to in enumerate(shape, start=1):
        array = np.apply_along_axis(slow_axis, axis, array, to)
    return array


@pytest.mark.parametrize("n", range(1, 13))
def test_rows_of_the_operator_are_weights_that_sum_to_one(n):
    for to in range(1, 25):
        matrix = axis_operator(n, to)
        assert matrix.shape == (to, n)
        assert matrix.min() >= 0
        np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("n", range(1, 13))
def test_the_operator_is_its_slow_twin(n):
    values = np.random.default_rng(n).normal(size=n)
    for to in range(1, 25):
        np.testing.assert_allclose(axis_operator(n, to) @ values, slow_axis(values, to), atol=1e-6)


def test_shrinking_gives_the_mean_by_hand():
    # Cells of 5/2 voxels: (1 + 2 + 3/2) / 2.5 and (3/2 + 4 + 5) / 2.5.
    np.testing.assert_allclose(resample(np.array([[1, 2, 3, 4, 5]]), (2,)), [[1.8, 4.2]], rtol=1e-6)


def test_growing_gives_the_values_by_hand():
    # Centres at -0.25, 0.25, 0.75 and 1.25 voxels; the outer two hold what is there.
    np.testing.assert_allclose(resample(np.array([[0, 8]]), (4,)), [[0, 2, 6, 8]], rtol=1e-6)


@pytest.mark.parametrize("shape", SIZES)
def test_three_axes_are_three_times_one_axis(shape):
    array = image((3, 4, 5))
    np.testing.assert_allclose(resample(array, shape), slow_resample(array, shape), atol=1e-5)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_a_constant_stays_one(shape, mode):
    np.testing.assert_allclose(resample(np.full((1, 3, 4, 5), 7, np.int16), shape, mode), np.full((1, *shape), 7), rtol=1e-6)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("shape", SHAPES)
def test_its_own_size_is_the_identity(shape, mode):
    np.testing.assert_array_equal(resample(image(shape), shape, mode), image(shape))


@pytest.mark.parametrize("to", range(1, 30))
def test_a_ramp_stays_a_ramp_because_faces_are_aligned(to):
    n = 12
    ramp = resample((np.arange(n) + 0.5)[None], (to,))[0]  # each voxel's value is where its centre lies
    centres = (np.arange(to) + 0.5) * n / to
    # Cells that cut through voxels average steps, not the ramp itself: less than an eighth of a voxel off, and nothing is shifted.
    exact = to >= n or n % to == 0
    np.testing.assert_allclose(ramp, centres.clip(0.5, n - 0.5), atol=1e-5 if exact else 0.125)
    np.testing.assert_allclose(ramp + ramp[::-1], n, rtol=1e-5)


@pytest.mark.parametrize("shape", [*SIZES, (5, 5, 5), (9, 2, 3)])
def test_a_mirrored_image_gives_the_mirrored_result(shape):
    array = image((3, 4, 5))
    for axes in [(1,), (2,), (3,), (1, 2, 3)]:
        np.testing.assert_allclose(resample(np.flip(array, axes), shape), np.flip(resample(array, shape), axes), atol=1e-6)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("shape", [(2, 3), (4, 5), (7, 2), (9, 9)])
def test_depth_one_is_the_2d_result(shape, mode):
    array = image((4, 5))
    np.testing.assert_allclose(resample(array[..., None], (*shape, 1), mode)[..., 0], resample(array, shape, mode), atol=1e-6)


def test_the_mean_survives_shrinking():
    array = image((6, 8, 10))
    for shape in [(1, 1, 1), (3, 4, 5), (4, 5, 7)]:  # a mean of means, where cells are equally large
        np.testing.assert_allclose(resample(array, shape).mean(axis=(1, 2, 3)), array.mean(axis=(1, 2, 3)), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, np.bool_])
def test_nearest_keeps_values_and_type_and_linear_gives_float32(dtype):
    array = (image((3, 4, 5)) * 50).astype(dtype)
    for shape in SIZES:
        nearest = resample(array, shape, "nearest")
        assert nearest.dtype == dtype
        assert set(np.unique(nearest)) <= set(np.unique(array))
        assert resample(array, shape).dtype == np.float32


def test_nearest_takes_the_voxel_under_each_centre():
    array = np.arange(7)[None]
    for to in range(1, 20):
        expected = [next(i for i in range(7) if i * to <= (k + 0.5) * 7 < (i + 1) * to) for k in range(to)]
        assert resample(array, (to,), "nearest")[0].tolist() == expected


def test_nearest_larger_and_back_is_the_identity():
    labels = np.random.default_rng(0).integers(0, 5, (1, 3, 4, 5)).astype(np.uint8)
    for factor in (2, 3, 4):
        larger = resample(labels, tuple(factor * n for n in (3, 4, 5)), "nearest")
        np.testing.assert_array_equal(resample(larger, (3, 4, 5), "nearest"), labels)


@pytest.mark.parametrize(("shape", "mode"), [((2, 2), "linear"), ((2, 2, 2, 2), "nearest"), ((2, 2, 2), "cubic")])
def test_bad_arguments_are_named(shape, mode):
    with pytest.raises(ValueError, match=r"resample takes mode 'linear' or 'nearest' and 3 axes, got mode="):
        resample(image((3, 4, 5)), shape, mode)


# --- regions -----------------------------------------------------------------


@pytest.mark.parametrize("stored", [(2, 3), (4, 5), (3, 7), (8, 2)])
def test_a_region_is_the_cut_of_the_whole(stored):
    box = Box((3, 1), (7, 6))
    array = image(stored)
    whole = resample(array, box.shape)
    for region in all_boxes(box.shape):
        there = region.shift(box.start)
        np.testing.assert_allclose(resample_region(array, box, there), whole[(slice(None), *region.slices)], atol=1e-6)


def test_a_region_as_long_as_the_stored_axis_is_resampled_all_the_same():
    # 4 stored voxels over a box of 8: any region of 4 voxels cuts a square piece from the operator.
    array = np.arange(4, dtype=np.float32)[None]
    whole = resample(array, (8,))
    for start in range(5):
        np.testing.assert_array_equal(resample_region(array, Box((0,), (8,)), Box((start,), (start + 4,))), whole[:, start : start + 4])


def test_a_region_of_three_axes_with_one_of_length_one():
    box = Box((2, 0, 5), (6, 1, 10))
    array = image((4, 1, 3)).astype(np.float16)
    whole = resample(array, box.shape)
    for region in all_boxes(box.shape):
        there = region.shift(box.start)
        np.testing.assert_allclose(resample_region(array, box, there), whole[(slice(None), *region.slices)], atol=1e-6)


# --- streaming ---------------------------------------------------------------


@pytest.mark.parametrize("slab", [1, 7, 60, 1 << 20])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (3, 4, 5)])
def test_streamed_is_in_memory(shape, slab, monkeypatch):
    set_slab(monkeypatch, slab)
    for dtype in (np.int16, np.float32):
        array = (image(shape) * 100).astype(dtype)
        volume = ArrayVolume(array, Grid(shape))
        for size in product((1, 3, 6), repeat=len(shape)):
            streamed, bad = resample_volume(volume, size)
            assert bad == 0
            np.testing.assert_allclose(streamed, resample(array, size), atol=1e-4)


@pytest.mark.parametrize("slab", [1, 7, 30])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_box_is_streamed_as_it_is_in_memory(dtype, slab, monkeypatch):
    set_slab(monkeypatch, slab)
    array = (image((5, 4, 6)) * 100).astype(dtype)
    affine = Grid((6, 5, 4)).view((1, 2, 0), (True, False, False)).affine  # axes that are not those of the view
    volume = CanonicalVolume(ArrayVolume(array, Grid((5, 4, 6), affine)))
    for box in all_boxes(volume.grid.shape)[slab % 7 :: 17]:  # other boxes with each
        for size in [(2, 2, 2), (1, 7, 3)]:
            streamed, bad = resample_volume(volume, size, box)
            assert (bad, streamed.dtype, streamed.flags.c_contiguous) == (0, np.float32, True)
            np.testing.assert_allclose(streamed, resample(volume.read(box), size), atol=1e-4)


def test_a_small_box_is_read_at_once_and_bit_for_bit_what_resample_makes_of_it():
    array = (image((8, 9, 7)) * 100).astype(np.int16)
    volume = CanonicalVolume(ArrayVolume(np.asfortranarray(array), Grid((8, 9, 7))))
    for box in [Box((0, 0, 0), (8, 9, 7)), Box((1, 2, 3), (7, 5, 7))]:
        found, _ = resample_volume(volume, (5, 3, 4), box)
        np.testing.assert_array_equal(found, resample(array[(slice(None), *box.slices)], (5, 3, 4)))


class Recorded(ArrayVolume):
    """Remembers what was read."""

    def read(self, box=None):
        self.__dict__.setdefault("boxes", []).append(box)
        return super().read(box)


def test_no_more_than_a_slab_is_read_at_once_and_nothing_twice(monkeypatch):
    set_slab(monkeypatch, 50)
    volume = Recorded(image((5, 4, 6)), Grid((5, 4, 6)))
    box = Box((1, 0, 1), (5, 4, 6))
    resample_volume(volume, (2, 2, 2), box)
    seen = np.zeros((5, 4, 6), int)
    for part in volume.__dict__["boxes"]:
        assert 2 * part.voxels <= 50
        seen[part.slices] += 1
    assert (seen[box.slices] == 1).all()
    assert seen.sum() == box.voxels


def exact_means(array, shape):
    """Every cell by fractions, rounded once."""
    out = np.empty(shape, np.float32)
    for cell in np.ndindex(*shape):
        total = Fraction(0)
        for voxel in np.ndindex(*array.shape):
            sides = [min((c + 1) * n, (v + 1) * m) - max(c * n, v * m) for c, v, n, m in zip(cell, voxel, array.shape, shape, strict=True)]
            total += int(array[voxel]) * (prod(sides) if min(sides) > 0 else 0)
        out[cell] = total / prod(array.shape)
    return out


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_integers_are_summed_exactly_however_they_are_stored(dtype, monkeypatch):
    limits = np.iinfo(dtype)
    whole = np.random.default_rng(1).integers(limits.min, limits.max, (7, 5, 6), dtype, endpoint=True)
    due = exact_means(whole, (3, 2, 4))
    grid = Grid((7, 5, 6))
    for slab, order in product((1, 40), permutations(range(3))):
        set_slab(monkeypatch, slab)
        for flips, memory in product(product((False, True), repeat=3), "CF"):
            stored = whole.transpose(order)[tuple(slice(None, None, -1 if f else 1) for f in flips)]
            volume = CanonicalVolume(ArrayVolume(np.array(stored, order=memory)[None], grid.view(order, flips)))
            np.testing.assert_array_equal(resample_volume(volume, (3, 2, 4))[0][0], due)


def test_real_numbers_differ_by_no_more_than_the_last_bit_however_they_are_stored(monkeypatch):
    set_slab(monkeypatch, 300)
    array = image((17, 12, 13), channels=1) ** 2
    grid = Grid((17, 12, 13))
    due, _ = resample_volume(CanonicalVolume(ArrayVolume(array, grid)), (5, 5, 4))
    for order, flips in product(permutations(range(3)), product((False, True), repeat=3)):
        stored = array[0].transpose(order)[tuple(slice(None, None, -1 if f else 1) for f in flips)]
        for memory in "CF":
            volume = CanonicalVolume(ArrayVolume(np.array(stored, order=memory)[None], grid.view(order, flips)))
            np.testing.assert_array_max_ulp(resample_volume(volume, (5, 5, 4))[0], due, maxulp=1)


def test_a_thread_that_reads_ahead_changes_nothing(monkeypatch):
    set_slab(monkeypatch, 60)
    volume = ArrayVolume(image((6, 5, 9)), Grid((6, 5, 9)))
    found = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(resample_volume(volume, (2, 3, 4))[0])
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("slab", [10, 1 << 20])
def test_what_cannot_be_resampled_is_named(slab, monkeypatch):
    set_slab(monkeypatch, slab)
    volume = CanonicalVolume(ArrayVolume(image((4, 5, 6)), Grid((4, 5, 6))))
    with pytest.raises(ValueError, match=r"array: shape must have 3 axes, got \(2, 2\)"):
        resample_volume(volume, (2, 2))
    with pytest.raises(ValueError, match="array: box must be inside the image"):
        resample_volume(volume, (2, 2, 2), Box((0, 0, 0), (4, 5, 7)))


@pytest.mark.parametrize("slab", [1, 7, 60, 1 << 20])
def test_slabs_cover_every_voxel_once(slab, monkeypatch):
    set_slab(monkeypatch, slab)
    for shape, channels in product(SHAPES, (1, 3)):
        count = np.zeros(shape, int)
        for box in slabs(shape, channels):
            count[box.slices] += 1
        assert (count == 1).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_are_counted_and_cannot_hide(value, monkeypatch):
    set_slab(monkeypatch, 40)
    array = image((4, 5, 6), channels=1)
    array[0, 1, 2, 3] = array[0, 3, 3, 5] = value
    out, bad = resample_volume(ArrayVolume(array, Grid((4, 5, 6))), (2, 2, 2))
    assert bad == 2
    assert not np.isfinite(out).all()
    there, bad = resample_volume(ArrayVolume(array, Grid((4, 5, 6))), (2, 2, 2), Box((0, 0, 0), (4, 5, 4)))
    assert bad == 1
    assert not np.isfinite(there).all()


def test_a_large_image_of_depth_one_is_read_in_slabs_too(monkeypatch):
    set_slab(monkeypatch, 40)
    assert [box.shape for box in slabs((9, 10, 1))] == [(9, 4, 1), (9, 4, 1), (9, 2, 1)]
