"""What every ``Volume`` keeps to; a new one adds one line to ``KINDS``."""

from __future__ import annotations

import pickle
import warnings
from itertools import combinations, product

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from stseg3d.geometry import Box, Grid
from stseg3d.volumes import ArrayVolume, CanonicalVolume, Volume, as_volume, open_volume

SHAPE = (4, 3, 5)


def numbers(shape=SHAPE, dtype=np.int16, channels=1):
    """Every voxel another value, negative ones too where the type has them."""
    values = np.arange(channels * np.prod(shape)) - (20 if np.dtype(dtype).kind != "u" else 0)
    return values.reshape(channels, *shape).astype(dtype)


def itk_order(array):
    """``(k, j, i)`` or ``(k, j, i, C)``, as SimpleITK and itk take it."""
    turned = array.transpose(*range(array.ndim - 1, 0, -1), 0)
    return np.ascontiguousarray(turned[..., 0] if len(array) == 1 else turned)


def sitk_image(array):
    image = sitk.GetImageFromArray(itk_order(array), isVector=len(array) > 1)
    image.SetSpacing((0.5, 1.0, 2.0)[: image.GetDimension()])
    return image


def by_sitk(name, array, compress=False):
    def build(tmp_path, **_):
        sitk.WriteImage(sitk_image(array), str(tmp_path / name), compress)
        return open_volume(tmp_path / name), array

    return build


def by_nifti(name, array, **fields):
    def build(write_nifti, **_):
        return open_volume(write_nifti(name, array[0], **fields)), array

    return build


def big_endian(write_nifti, tmp_path, **_):
    array = numbers()
    image = nib.Nifti1Image(array[0], np.eye(4), nib.Nifti1Header(endianness=">"))
    image.header.set_data_dtype(">i2")
    nib.save(image, tmp_path / "big.nii")
    assert nib.load(tmp_path / "big.nii").get_data_dtype() == np.dtype(">i2")
    return open_volume(tmp_path / "big.nii"), array


def nifti_channels(write_nifti, **_):
    array = numbers(channels=2)
    return open_volume(write_nifti("c.nii.gz", np.moveaxis(array, 0, -1)), channels_last=True), array


def scaled(write_nifti, **_):
    array = numbers()
    return open_volume(write_nifti("s.nii.gz", array[0], scl_slope=0.5, scl_inter=-3)), (array * 0.5 - 3).astype(np.float32)


def series(tmp_path, write_series, **_):
    array = numbers()
    return open_volume(write_series(tmp_path / "series", sitk_image(array))), array


def canonical(**_):
    array = numbers()
    affine = np.array([[0, 0, -2.0, 0], [1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    return CanonicalVolume(ArrayVolume(array, Grid(SHAPE, affine))), array.transpose(0, 3, 1, 2)[:, ::-1, :, ::-1]


def canonical_file(write_nifti, **_):
    array = numbers()
    return CanonicalVolume(open_volume(write_nifti("f.nii", array[0])), "LPI"), array[:, ::-1, ::-1, ::-1]


def read_only(**_):
    array = numbers().transpose(0, 3, 2, 1)
    array.flags.writeable = False
    return as_volume(array, channel_first=True), array


def tensor(**_):
    torch = pytest.importorskip("torch")
    return as_volume(torch.from_numpy(numbers(channels=2))), numbers(channels=2)


def meta_tensor(**_):
    data = pytest.importorskip("monai.data")
    return as_volume(data.MetaTensor(numbers(), affine=np.diag([-2.0, 1, 1, 1]))), numbers()


def itk_image(channels):
    def build(**_):
        itk = pytest.importorskip("itk")
        array = numbers(channels=channels)
        return as_volume(itk.image_from_array(itk_order(array), is_vector=channels > 1)), array

    return build


def lazy_nibabel(tmp_path, **_):
    nib.save(nib.Nifti1Image(numbers()[0], np.eye(4)), tmp_path / "n.nii")
    return as_volume(nib.load(tmp_path / "n.nii")), numbers()


KINDS = {
    "array": lambda **_: (as_volume(numbers()[0]), numbers()),
    "array, 2-D": lambda **_: (as_volume(numbers()[0, :, :, 0]), numbers()[..., :1]),
    "array, read-only and permuted": read_only,
    "array, bool": lambda **_: (as_volume(numbers()[0] > 0), (numbers() > 0).astype(np.uint8)),
    "array, float64": lambda **_: (as_volume(numbers(dtype=np.float64)[0]), numbers(dtype=np.float32)),
    "tensor": tensor,
    "MetaTensor": meta_tensor,
    "SimpleITK.Image": lambda **_: (as_volume(sitk_image(numbers())), numbers()),
    "SimpleITK.Image, 2-D of colour": lambda **_: (as_volume(sitk_image(numbers((4, 3), channels=3))), numbers((4, 3, 1), channels=3)),
    "itk.Image": itk_image(1),
    "itk.Image of vectors": itk_image(2),
    "nibabel": lazy_nibabel,
    ".nii": by_nifti("a.nii", numbers()),
    ".nii, big endian": big_endian,
    ".nii.gz": by_nifti("a.nii.gz", numbers()),
    ".nii.gz, uint16": by_nifti("u.nii.gz", numbers(dtype=np.uint16)),
    ".nii.gz, float32": by_nifti("f.nii.gz", numbers(dtype=np.float32)),
    ".nii.gz, depth 1": by_nifti("d.nii.gz", numbers((4, 3, 1))),
    ".nii.gz, scaled": scaled,
    ".nii.gz, channels": nifti_channels,
    ".nrrd": by_sitk("a.nrrd", numbers()),
    ".nrrd, compressed channels": by_sitk("c.nrrd", numbers(channels=3), compress=True),
    ".nhdr": by_sitk("a.nhdr", numbers(dtype=np.uint16)),
    ".mha": by_sitk("a.mha", numbers(), compress=True),
    ".mhd": by_sitk("a.mhd", numbers(dtype=np.float32)),
    "DICOM series": series,
    ".png": by_sitk("a.png", numbers((4, 3), np.uint16)),
    ".png, colour with alpha": by_sitk("a.png", numbers((4, 3), np.uint8, channels=4)),
    ".tif": by_sitk("a.tif", numbers((4, 3), np.uint8, channels=3)),
    ".tif, pages": by_sitk("p.tif", numbers(dtype=np.uint8)),
    "canonical": canonical,
    "canonical, of a file": canonical_file,
}


@pytest.fixture(params=KINDS)
def made(request, tmp_path, write_nifti, write_series):
    """A volume, and its voxels as they should be read, ``(C, i, j, k)``."""
    volume, array = KINDS[request.param](tmp_path=tmp_path, write_nifti=write_nifti, write_series=write_series)
    return volume, array if array.ndim == 4 else array[..., None]


def test_all_voxels_and_what_the_volume_says_of_them(made):
    volume, array = made
    read = volume.read()
    assert isinstance(volume, Volume)
    assert volume.grid.shape == array.shape[1:]
    assert volume.channels == len(array)
    assert volume.dtype == read.dtype == array.dtype
    assert volume.dtype.isnative
    np.testing.assert_array_equal(read, array)


def test_a_box_holds_what_the_whole_holds_there(made):
    volume, array = made
    spans = [[(0, n), *list(combinations(range(n + 1), 2))[::3]] for n in volume.grid.shape]
    for axes in product(*spans):
        box = Box(tuple(a for a, _ in axes), tuple(b for _, b in axes))
        read = volume.read(box)
        assert read.dtype == volume.dtype
        np.testing.assert_array_equal(read, array[(slice(None), *box.slices)])


def test_boxes_before_and_after_everything_are_the_same(made):
    volume, array = made
    box = Box((1, 1, 0), (3, 2, 1))
    for _ in range(2):
        np.testing.assert_array_equal(volume.read(box), array[(slice(None), *box.slices)])
        np.testing.assert_array_equal(volume.read(), array)


def test_an_empty_box_gives_no_voxels(made):
    volume, array = made
    assert volume.read(Box((1, 1, 0), (1, 3, 1))).shape == (len(array), 0, 2, 1)


def test_what_is_read_is_the_callers_own(made):
    volume, array = made
    for box in (None, volume.grid.box, Box((0, 0, 0), (1, 1, 1)), None):
        read = volume.read(box)
        assert read.flags.writeable
        assert all(stride >= 0 for stride in read.strides)
        read[:] = 77
    np.testing.assert_array_equal(volume.read(), array)


def test_torch_wraps_what_is_read_without_a_warning(made):
    torch = pytest.importorskip("torch")
    volume, array = made
    if volume.dtype == np.uint16:
        pytest.skip("torch computes with no uint16")
    for box in (None, Box((0, 0, 0), (2, 2, 1))):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.from_numpy(volume.read(box)).float().sum() == array[(slice(None), *(box or volume.grid.box).slices)].sum()


@pytest.mark.parametrize("box", [Box((0, 0, 0), (9, 1, 1)), Box((-1, 0, 0), (1, 1, 1)), Box((0, 0), (1, 1)), Box((9, 9, 9), (9, 9, 9))])
def test_a_box_that_leaves_the_image_is_refused_by_name(made, box):
    volume, _ = made
    with pytest.raises(ValueError, match="box must be inside the image of shape") as caught:
        volume.read(box)
    assert str(volume.grid.shape) in str(caught.value)
    assert f"start={box.start}" in str(caught.value)
    assert str(caught.value).startswith(volume.name)


def test_a_volume_goes_to_another_process_without_its_voxels(made):
    volume, array = made
    if isinstance(volume, ArrayVolume) or "tensor" in volume.name:
        pytest.skip("an array in memory is its voxels")
    volume.read(Box((0, 0, 0), (1, 1, 1)))
    sent = pickle.dumps(volume)
    np.testing.assert_array_equal(pickle.loads(sent).read(), array)
