"""However a scan is stored, its labels are the same in world space: real MR, the shipped weights, every format and axis order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

from stseg3d.inference.segment import Segmenter

pytestmark = pytest.mark.slow  # thorough; the nightly run has them

CASE = "vb3_47"


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter("vertebrae_mr_segmentation", device="cpu")


@pytest.fixture(scope="module")
def scan(data_dir: Path) -> nib.Nifti1Image:
    return nib.load(data_dir / "vertebrae_mr/images" / f"{CASE}.nii.gz")


@pytest.fixture(scope="module")
def expected(segmenter: Segmenter, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Labels of the scan as it is, seen along RAS."""
    out = tmp_path_factory.mktemp("expected")
    found = canonical(segmenter.segment(data_dir / "vertebrae_mr/images" / f"{CASE}.nii.gz", out).output)
    assert len(np.unique(found)) == 6  # five vertebrae and the background
    return found


def canonical(path: Path) -> np.ndarray:
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)


def stored(scan: nib.Nifti1Image, axcodes: str) -> nib.Nifti1Image:
    """The same scan with its axes turned and flipped in the file."""
    wanted = nib.orientations.axcodes2ornt(tuple(axcodes))
    now = nib.orientations.io_orientation(scan.affine)
    return scan.as_reoriented(nib.orientations.ornt_transform(now, wanted))


SLOW = [pytest.param(*case, marks=pytest.mark.slow) for case in (("SRA", ".mha"), ("ALI", ".nii"))]


@pytest.mark.parametrize(("axcodes", "suffix"), [("LPS", ".nrrd"), *SLOW])
def test_neither_axis_order_nor_file_type_makes_a_difference(
    segmenter: Segmenter, scan: nib.Nifti1Image, expected: np.ndarray, axcodes: str, suffix: str, tmp_path: Path
) -> None:
    image, path = stored(scan, axcodes), tmp_path / f"scan{suffix}"
    nib.save(image, path if ".nii" in suffix else tmp_path / "turned.nii")
    if ".nii" not in suffix:
        sitk.WriteImage(sitk.ReadImage(str(tmp_path / "turned.nii")), str(path))
    out = segmenter.segment(path, tmp_path / "out").output
    assert nib.load(out).shape == image.shape
    np.testing.assert_allclose(nib.load(out).affine, image.affine, atol=1e-6)
    np.testing.assert_array_equal(canonical(out), expected)


@pytest.mark.slow
def test_an_oblique_scan_is_segmented_along_its_nearest_axes(
    segmenter: Segmenter, scan: nib.Nifti1Image, expected: np.ndarray, tmp_path: Path
) -> None:
    angle = np.radians(12)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ scan.affine
    nib.save(nib.Nifti1Image(np.asarray(scan.dataobj), affine), tmp_path / "oblique.nii.gz")
    out = segmenter.segment(tmp_path / "oblique.nii.gz", tmp_path / "out").output
    np.testing.assert_allclose(nib.load(out).affine, affine, atol=1e-4)
    np.testing.assert_array_equal(canonical(out), expected)


@pytest.mark.slow
def test_a_dicom_series_gives_the_same_labels(
    segmenter: Segmenter, data_dir: Path, expected: np.ndarray, tmp_path: Path, write_series: Callable[..., Path]
) -> None:
    image = sitk.Cast(sitk.ReadImage(str(data_dir / "vertebrae_mr/images" / f"{CASE}.nii.gz")), sitk.sitkInt16)
    series = write_series(tmp_path / "series", image)
    out = segmenter.segment(series, tmp_path / "out").output
    np.testing.assert_array_equal(canonical(out), expected)
