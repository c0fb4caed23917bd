"""One scan, stored in every way there is, is the same in world space."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from stseg3d.geometry import Grid
from stseg3d.volumes import ArrayVolume, CanonicalVolume, as_volume, open_volume, write_labels

SHAPE = (6, 5, 4)
AXCODES = ["".join(c) for order in permutations(("LR", "PA", "IS")) for c in product(*order)]


@pytest.fixture
def scan(rng):
    """A slightly turned scan in RAS order."""
    turn = np.linalg.qr(np.eye(3) + 0.1 * rng.normal(size=(3, 3)))[0]
    turn *= np.sign(turn.diagonal())
    affine = np.eye(4)
    affine[:3, :3] = turn * [0.7, 1.1, 2.5]
    affine[:3, 3] = -31, 17.5, -204
    return ArrayVolume(rng.integers(0, 200, (1, *SHAPE)).astype(np.uint8), Grid(SHAPE, affine))


def assert_same_scan(volume, scan):
    view = CanonicalVolume(volume, "RAS")
    assert view.grid.is_close(scan.grid, 1e-3)
    np.testing.assert_array_equal(view.read(), scan.read())


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("axcodes", AXCODES)
def test_any_axis_order_in_any_file(tmp_path, scan, axcodes, suffix):
    stored = CanonicalVolume(scan, axcodes)
    path = write_labels(stored.read()[0], tmp_path / f"a{suffix}", stored.grid)
    assert open_volume(path).grid.orientation == axcodes
    assert_same_scan(open_volume(path), scan)


@pytest.mark.parametrize(
    "axcodes", [c for c in AXCODES if np.linalg.det(nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(c), SHAPE)) > 0]
)
def test_a_dicom_series_cut_in_any_direction(tmp_path, write_series, scan, axcodes):
    stored = CanonicalVolume(scan, axcodes)
    path = write_labels(stored.read()[0], tmp_path / "a.mha", stored.grid)
    volume = open_volume(write_series(tmp_path / "series", sitk.ReadImage(str(path))))
    assert_same_scan(volume, scan)


@pytest.mark.parametrize("axcodes", ["RAS", "LPI", "SLP"])
def test_images_of_other_libraries_in_memory(tmp_path, scan, axcodes):
    torch, itk, data = (pytest.importorskip(name) for name in ("torch", "itk", "monai.data"))
    stored = CanonicalVolume(scan, axcodes)
    path = str(write_labels(stored.read()[0], tmp_path / "a.nii", stored.grid))
    affine = stored.grid.affine.copy()
    in_lps = data.MetaTensor(stored.read(), affine=np.diag([-1, -1, 1, 1]) @ affine, meta={"space": "LPS"})
    for image in (sitk.ReadImage(path), itk.imread(path), nib.load(path), data.MetaTensor(stored.read(), affine=affine), in_lps):
        assert_same_scan(as_volume(image), scan)
    plain = as_volume(torch.from_numpy(stored.read()))
    assert plain.grid == Grid(stored.grid.shape)
    np.testing.assert_array_equal(plain.read(), stored.read())


def test_a_view_has_the_boxes_of_the_source(scan):
    for axcodes in AXCODES:
        view = CanonicalVolume(scan, axcodes)
        box = view.grid.resized((2, 2, 2)).map(Grid((2, 2, 2)).box, view.grid)
        assert view.source_box(box) == scan.grid.box
        small = type(box)((1, 0, 2), (2, 2, 3))
        source = view.source_box(small)
        assert view.view_box(source) == small
        np.testing.assert_array_equal(view.read(small), view.view(scan.read(source)))
        corners = [np.sort(g.world_mm(list(b.corners())), axis=0) for g, b in ((scan.grid, source), (view.grid, small))]
        np.testing.assert_allclose(corners[0], corners[1], atol=1e-9)


def test_restoring_undoes_the_view_without_a_copy(scan):
    array = scan.read()[0]
    for axcodes in AXCODES:
        view = CanonicalVolume(scan, axcodes)
        seen = view.view(array)
        assert seen.shape == view.grid.shape
        assert np.shares_memory(view.restore(seen), array)
        np.testing.assert_array_equal(view.restore(seen), array)
        np.testing.assert_array_equal(view.restore(np.stack([seen, seen]))[1], array)


@pytest.mark.parametrize(("channel_first", "channels", "shape"), [(None, 1, (2, 3, 4)), (False, 1, (2, 3, 4)), (True, 2, (3, 4, 1))])
def test_the_first_axis_of_an_array_is_space_unless_told(channel_first, channels, shape):
    volume = as_volume(np.zeros((2, 3, 4)), channel_first=channel_first)
    assert (volume.channels, volume.grid.shape) == (channels, shape)


def test_the_first_axis_of_a_tensor_is_channels_unless_told():
    torch = pytest.importorskip("torch")
    assert as_volume(torch.zeros(2, 3, 4)).channels == 2
    assert as_volume(torch.zeros(2, 3, 4), channel_first=False).grid.shape == (2, 3, 4)
    assert as_volume(torch.ones(1, 3, 4, dtype=torch.bfloat16)).read().dtype == np.float32


def test_the_affine_of_a_two_dimensional_tensor_gets_a_third_axis():
    data = pytest.importorskip("monai.data")
    affine = np.array([[0, -2.0, 5], [3, 0, 6], [0, 0, 1]])
    lifted = [[0, -2, 0, 5], [3, 0, 0, 6], [0, 0, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(as_volume(data.MetaTensor(np.zeros((1, 4, 5)), affine=affine)).grid.affine, lifted)


def test_a_volume_stays_as_it_is(scan):
    assert as_volume(scan) is scan
    assert open_volume(scan) is scan


def test_memory_that_is_lent_outlives_the_image_that_lent_it():
    volumes = [as_volume(sitk.GetImageFromArray(np.full((20, 21, 22), i, np.int16))) for i in range(50)]
    assert [int(volume.read().mean()) for volume in volumes] == list(range(50))


def test_a_picture_is_x_by_y_by_1_with_colours_as_channels(tmp_path):
    picture = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)  # 5 rows of 7
    sitk.WriteImage(sitk.GetImageFromArray(picture, isVector=True), str(tmp_path / "a.png"))
    volume = open_volume(tmp_path / "a.png")
    assert volume.grid == Grid((7, 5, 1))
    assert volume.channels == 3
    np.testing.assert_array_equal(volume.read()[:, 2, 4, 0], picture[4, 2])


def test_a_picture_that_tells_its_resolution_has_that_spacing(tmp_path):
    image = sitk.GetImageFromArray(np.zeros((5, 7), np.uint8))
    image.SetSpacing((0.1, 0.1))
    sitk.WriteImage(image, str(tmp_path / "a.tif"))
    assert open_volume(tmp_path / "a.tif").grid.spacing_mm == pytest.approx((0.1, 0.1, 1))


def test_a_jpeg_is_read_and_a_cut_one_is_not(tmp_path, rng):
    path = tmp_path / "a.jpg"
    sitk.WriteImage(sitk.GetImageFromArray(rng.integers(0, 255, (50, 60)).astype(np.uint8)), str(path))
    assert open_volume(path).read().shape == (1, 60, 50, 1)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"a.jpg: file must be a whole JPEG, got one without an end mark"):
        open_volume(path)
