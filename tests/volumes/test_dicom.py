from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from stseg3d.volumes import CanonicalVolume, find_cases, open_volume

UID = "1.2.826.0.1.3680043.2.1125.{}"


@pytest.fixture
def image(rng):
    image = sitk.GetImageFromArray(rng.integers(-1000, 1000, (6, 5, 4)).astype(np.int16))
    image.SetSpacing((0.5, 0.75, 3.0))
    image.SetOrigin((-10, 20, -300))
    return image


def test_slices_are_sorted_by_position_not_by_name(tmp_path, write_series, image):
    volume = open_volume(write_series(tmp_path / "scan", image))
    np.testing.assert_array_equal(volume.read()[0], sitk.GetArrayFromImage(image).T)
    np.testing.assert_allclose(volume.grid.affine, [[-0.5, 0, 0, 10], [0, -0.75, 0, -20], [0, 0, 3, -300], [0, 0, 0, 1]], atol=1e-5)


def test_a_single_file_is_a_slice(tmp_path, write_series, image):
    file = sorted(write_series(tmp_path / "scan", image).iterdir())[-1]
    np.testing.assert_array_equal(open_volume(file).read()[0, :, :, 0], sitk.GetArrayFromImage(image)[0].T)


def test_two_series_in_a_folder_are_named_and_one_can_be_chosen(tmp_path, write_series, image):
    folder = write_series(tmp_path / "scan", image, UID.format(1))
    write_series(folder, image * 0, UID.format(2))
    with pytest.raises(ValueError, match="scan: folder must hold one DICOM series, got 2; choose one with series=") as caught:
        open_volume(folder)
    for i in (1, 2):
        assert UID.format(i) in str(caught.value)
        assert open_volume(folder, series=UID.format(i)).read().any() == (i == 1)
    with pytest.raises(ValueError, match=r"series must be one of .*, got '1.2.3'"):
        open_volume(folder, series="1.2.3")


def test_a_missing_slice_is_found(tmp_path, write_series, image):
    folder = write_series(tmp_path / "scan", image, leave_out=(2,))
    with pytest.raises(ValueError, match=r"scan: slices must be evenly spaced, got distances of 3.000 to 6.000 mm"):
        open_volume(folder)


def test_a_series_is_one_case_named_after_its_folder(tmp_path, write_series, image):
    folder = write_series(tmp_path / "scan", image)
    assert [(case.id, case.image) for case in find_cases([folder])] == [("scan", folder)]


def test_the_series_at_hand_matches_its_label_in_world_space_only(data_dir):
    scan, label = (open_volume(data_dir / "ct_dicom" / name) for name in ("series", "label.nii.gz"))
    assert scan.grid.orientation == "LPS"
    assert label.grid.orientation == "LAS"
    views = CanonicalVolume(scan), CanonicalVolume(label)
    assert views[0].grid.is_close(views[1].grid)
    # Mean of the aorta, class 52; by array index it would be -171.
    assert views[0].read()[views[1].read() == 52].mean() == pytest.approx(177, abs=1)


def test_a_folder_of_series_is_a_case_each(tmp_path, write_series, image):
    for patient in ("mole", "rat"):
        write_series(tmp_path / "patients" / patient, image)
    (tmp_path / "patients" / "notes").mkdir()
    assert [case.id for case in find_cases([tmp_path / "patients"])] == ["mole", "rat"]
