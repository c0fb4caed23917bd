"""Images as networks see them: pictures in three colours, standardised by the whole image, the same at inference and in training."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pytest
import SimpleITK

from stseg3d.geometry import Box, Grid
from stseg3d.inference import SegmentThenSegmentInferer, Stage
from stseg3d.plan import ImageView
from stseg3d.training import OpenCased
from stseg3d.volumes import ArrayVolume, ColourVolume, StandardizedVolume, network_view, open_volume
from stseg3d.volumes import derived as derived_module
from tests.ops.twins import all_boxes

TURNED = np.array([[0, 0, -2.0, 9], [1, 0, 0, 8], [0, -1.5, 0, 7], [0, 0, 0, 1]])


def picture(channels, shape=(5, 4, 1), dtype=np.uint8):
    """Numbers that differ from channel to channel."""
    array = np.arange(channels * np.prod(shape)).reshape(channels, *shape).astype(dtype)
    return ArrayVolume(array, Grid(shape))


def slow_standardized(array):
    """Channel by channel, the whole in float64."""
    out = np.zeros(array.shape)
    for channel, voxels in enumerate(array.astype(np.float64)):
        finite = voxels[np.isfinite(voxels)]
        sd = finite.std()
        out[channel] = (voxels - finite.mean()) / (sd if sd > 1e-6 * abs(finite.mean()) else np.inf)
    return out


# --- colour ------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "seen"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (4, [0, 1, 2])])
def test_a_picture_is_red_green_and_blue_however_it_is_stored(channels, seen):
    source = picture(channels)
    colour = ColourVolume(source)
    assert (colour.channels, colour.dtype, colour.grid, colour.name) == (3, np.uint8, source.grid, "array")
    np.testing.assert_array_equal(colour.read(), source.array[seen])
    for box in all_boxes(source.grid.shape):
        np.testing.assert_array_equal(colour.read(box), source.array[(seen, *box.slices)])


def test_a_picture_of_five_channels_is_refused():
    with pytest.raises(ValueError, match=r"^array: a picture must have at most 4 channels \(RGBA\), got 5$"):
        ColourVolume(picture(5))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_the_colours_read_are_the_callers_own(channels):
    colour = ColourVolume(picture(channels))
    before = colour.read()
    colour.read()[0] = 99  # of a grey picture the other two channels must not follow
    np.testing.assert_array_equal(colour.read(), before)
    changed = colour.read()
    changed[0] = 99
    np.testing.assert_array_equal(changed[1:], before[1:])


# --- standardised ------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(9, 8, 1), (5, 6, 7)])
def test_each_channel_has_mean_0_and_standard_deviation_1(rng, dtype, shape):
    array = (rng.random((3, *shape)) * np.array([5, 60, 200]).reshape(3, 1, 1, 1) + 7).astype(dtype)
    found = StandardizedVolume(ArrayVolume(array, Grid(shape))).read()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.reshape(3, -1).mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(found.reshape(3, -1).std(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found, slow_standardized(array), atol=1e-5)


def test_a_box_holds_what_the_whole_holds_there(rng):
    volume = StandardizedVolume(ArrayVolume(rng.random((2, 4, 3, 3)).astype(np.float32), Grid((4, 3, 3))))
    whole = volume.read()
    for box in all_boxes((4, 3, 3)):
        np.testing.assert_array_equal(volume.read(box), whole[(slice(None), *box.slices)])
    with pytest.raises(ValueError, match=r"^array: box must be inside the image of shape \(4, 3, 3\)"):
        volume.read(Box((0, 0, 0), (5, 1, 1)))


@pytest.mark.parametrize("value", [0, 3, 251, -1000.1])
def test_a_channel_of_one_value_becomes_zeros(value):
    array = np.full((2, 5, 4, 3), value, np.float32)
    array[1, 0] += 1
    found = StandardizedVolume(ArrayVolume(array, Grid((5, 4, 3)))).read()
    assert not found[0].any()
    assert found[1].std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_stay_so_and_spoil_no_other(rng, bad):
    array = rng.random((2, 5, 4, 3)).astype(np.float32)
    array[0, 2, 2, :2] = bad
    found = StandardizedVolume(ArrayVolume(array, Grid((5, 4, 3)))).read()
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(array))
    np.testing.assert_allclose(found[np.isfinite(array)], slow_standardized(array)[np.isfinite(array)], atol=1e-6)
    array[:] = bad
    assert not np.isfinite(StandardizedVolume(ArrayVolume(array, Grid((5, 4, 3)))).read()).any()


@pytest.mark.parametrize("numbers", [1, 7, 50, 10**6])
@pytest.mark.parametrize("shape", [(6, 5, 4), (6, 5, 1), (6, 1, 1), (1, 1, 1)])
def test_slab_by_slab_the_numbers_are_those_of_the_whole(rng, monkeypatch, numbers, shape):
    array = (1000 * rng.random((2, *shape))).astype(np.float32)
    whole = slow_standardized(array)
    monkeypatch.setattr(derived_module, "SLAB_VOXELS", numbers)
    np.testing.assert_allclose(StandardizedVolume(ArrayVolume(array, Grid(shape))).read(), whole, atol=1e-6)


def test_of_a_large_image_no_copy_of_floats_is_made(monkeypatch):
    array = np.zeros((3, 512, 512, 1), np.uint8)
    array[:, ::2] = 200
    volume = StandardizedVolume(ArrayVolume(array, Grid((512, 512, 1))))
    monkeypatch.setattr(derived_module, "SLAB_VOXELS", 1 << 14)
    tracemalloc.start()
    found = volume.read(Box((0, 0, 0), (16, 16, 1)))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(np.unique(found), [-1, 1])
    assert peak_bytes < array.nbytes  # float32 would be four times as much


def test_the_whole_is_looked_at_once(monkeypatch):
    source = picture(3)
    boxes = []
    volume = StandardizedVolume(source)
    read = ArrayVolume.read
    monkeypatch.setattr(ArrayVolume, "read", lambda self, box=None: boxes.append(box) or read(self, box))
    assert not boxes  # opening reads nothing
    for _ in range(3):
        volume.read(Box((0, 0, 0), (2, 2, 1)))
    assert sum(box == source.grid.box for box in boxes) == 1
    assert len(boxes) == 4


def test_it_goes_to_another_process():
    volume = StandardizedVolume(ColourVolume(picture(4)))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read(), volume.read())


# --- as networks see it ------------------------------------------------------


def test_the_view_lies_along_the_worlds_axes_or_the_files():
    source = ArrayVolume(np.arange(60, dtype=np.int16).reshape(1, 3, 4, 5), Grid((3, 4, 5), TURNED))
    view = network_view(source, "RAS")
    assert view.grid.orientation == "RAS"
    assert view.dtype == np.int16
    np.testing.assert_array_equal(view.restore(view.read()), source.array)
    own = network_view(source, None)
    assert own.grid == source.grid
    np.testing.assert_array_equal(own.read(), source.array)


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("axcodes", ["RAS", None])
def test_training_and_inference_see_the_same(tmp_path, rng, colour, standardize, axcodes):
    array = rng.integers(0, 255, (6, 7, 4), dtype=np.uint8)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array, isVector=True), str(tmp_path / "a.png"))
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array[..., 0] // 200), str(tmp_path / "label.png"))
    image = ImageView(3 if colour else 4, axcodes, colour, standardize)
    case = OpenCased(image)({"image": tmp_path / "a.png", "label": tmp_path / "label.png"})["case"]
    seen = SegmentThenSegmentInferer(Stage((4, 4, 1)), Stage((4, 4, 1)), image=image).view(open_volume(tmp_path / "a.png"))
    np.testing.assert_array_equal(case.image.read(), seen.read())
    assert case.image.grid == seen.grid
    due = np.moveaxis(array, -1, 0).transpose(0, 2, 1)[: 3 if colour else 4, ..., None]
    np.testing.assert_allclose(seen.read(), slow_standardized(due) if standardize else due, atol=1e-5)


def test_the_order_of_axes_in_the_file_changes_no_standardised_number(rng):
    array = rng.integers(0, 4000, (1, 5, 6, 7)).astype(np.int16)
    grid = Grid((5, 6, 7))
    turned = ArrayVolume(np.ascontiguousarray(array.transpose(0, 3, 1, 2)[:, ::-1]), grid.view((2, 0, 1), (True, False, False)))
    due, found = (network_view(v, "RAS", standardize=True).read() for v in (ArrayVolume(array, grid), turned))
    np.testing.assert_array_equal(found, due)
