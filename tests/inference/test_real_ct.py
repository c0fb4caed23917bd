"""CT as clinics have it, from DICOM to mask: one scan in every form is one result in world space, at any slice distance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from stseg3d.inference.segment import Segmenter
from stseg3d.synthesis import ct_phantom
from stseg3d.volumes import CanonicalVolume, Volume, open_volume

pytestmark = pytest.mark.slow

AORTA = 52


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter("aorta_ct_segmentation", device="cpu")


def voxels(volume: Volume) -> np.ndarray:
    """Along the world's axes."""
    return CanonicalVolume(volume).read()[0]


TWINS: dict[str, Callable[[sitk.Image], sitk.Image]] = {
    "twin.nii.gz": lambda image: image,
    "flipped.nii.gz": lambda image: sitk.Flip(image, [True, True, False]),
    "upside_down.nii": lambda image: sitk.Flip(image, [False, False, True]),
    "turned.nrrd": lambda image: sitk.PermuteAxes(image, [2, 0, 1]),
    "twin.mha": lambda image: image,
}


@pytest.fixture(scope="module")
def of_dicom(data_dir: Path, segmenter: Segmenter, tmp_path_factory: pytest.TempPathFactory) -> Volume:
    return open_volume(segmenter.segment(data_dir / "ct_dicom" / "series", tmp_path_factory.mktemp("out")).output)


def test_the_mask_of_a_series_is_on_its_aorta(data_dir, of_dicom):
    scan, label = (voxels(open_volume(data_dir / "ct_dicom" / name)) for name in ("series", "label.nii.gz"))
    mask, aorta = voxels(of_dicom) > 0, label == AORTA
    # As the data's own README has it; by array index it would be about -171.
    assert scan[aorta].mean() == pytest.approx(177, abs=1)
    assert scan[mask].mean() == pytest.approx(177, abs=40)
    assert 2 * (mask & aorta).sum() > 0.8 * (mask.sum() + aorta.sum())


@pytest.mark.parametrize("name", TWINS)
def test_a_series_and_its_twin_in_another_format_give_one_mask(data_dir, of_dicom, segmenter, tmp_path, name):
    series = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(data_dir / "ct_dicom" / "series"))
    sitk.WriteImage(TWINS[name](sitk.ReadImage(series)), str(tmp_path / name))
    found = open_volume(segmenter.segment(tmp_path / name, tmp_path / "out").output)
    assert found.grid.is_close(open_volume(tmp_path / name).grid)
    assert CanonicalVolume(found).grid.is_close(CanonicalVolume(of_dicom).grid)
    np.testing.assert_array_equal(voxels(found), voxels(of_dicom))


@pytest.mark.parametrize(
    ("shape", "spacing_mm"), [((160, 160, 400), (2.2, 2.2, 0.5)), ((512, 512, 30), (0.75, 0.75, 5.0)), ((256, 256, 60), (1.5, 1.5, 5.0))]
)
def test_thin_and_thick_slices(segmenter, write_series, tmp_path, shape, spacing_mm):
    image, label, grid = ct_phantom(shape, spacing_mm=spacing_mm, seed=4)
    assert label.any()
    scan = sitk.GetImageFromArray(np.ascontiguousarray(image[::-1, ::-1].T))
    scan.SetSpacing(spacing_mm)
    origin = grid.affine @ [shape[0] - 1, shape[1] - 1, 0, 1]
    scan.SetOrigin((-origin[0], -origin[1], origin[2]))
    folder = write_series(tmp_path / "series", scan)
    series = open_volume(folder)
    assert CanonicalVolume(series).grid.is_close(grid)
    np.testing.assert_array_equal(voxels(series), image)
    mask = voxels(open_volume(segmenter.segment(folder, tmp_path / "out").output)) > 0
    assert 2 * (mask & (label > 0)).sum() > 0.5 * (mask.sum() + (label > 0).sum())
