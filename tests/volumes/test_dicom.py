"""DICOM as clinics have it: what is read, and what is refused with a sentence that says which slice is to blame."""

from __future__ import annotations

import logging
import pickle
import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813

from stseg3d.evaluate.pairing import pair_cases
from stseg3d.evaluate.scoring import evaluate_case
from stseg3d.geometry import Box, Grid
from stseg3d.machine.memory import peak_memory_bytes, reset_peak_memory
from stseg3d.volumes import CanonicalVolume, find_cases, list_cases, open_label, open_volume
from stseg3d.volumes.dicom import read_series
from stseg3d.volumes.dicom.headers import HeaderReader
from tests.volumes.dicom_files import (
    COLUMNS,
    DICOMDIR,
    DOSE,
    DOSE_REPORT,
    KEY_OBJECTS,
    LABEL_MAP,
    PRESENTATION,
    ROWS,
    SECONDARY_CAPTURE,
    SEGMENTATION,
    STRUCTURE_SET,
    UID,
    dicom_file,
    enhanced,
    segmentation,
)


@pytest.fixture
def image(rng):
    image = sitk.GetImageFromArray(rng.integers(-1000, 1000, (6, 5, 4)).astype(np.int16))
    image.SetSpacing((0.5, 0.75, 3.0))
    image.SetOrigin((-10, 20, -300))
    return image


def stack(folder: Path, places=range(6), name="{}.dcm", first=0, **tags: object) -> Path:
    """Slices 3 mm apart, number k holding the values 1000 + 10 k, named against their order."""
    for k in places:
        array = np.full((ROWS, COLUMNS), 1000 + 10 * k, np.uint16)
        own = {key: value(k) if callable(value) else value for key, value in tags.items()}
        standard = {"ImagePositionPatient": [-10, 20, -300 + 3 * k], "InstanceNumber": k + 1}
        dicom_file(folder / name.format(900 - k + first), array, **(standard | own))
    return folder


def refusal(folder: Path, error=ValueError, **options: object) -> str:
    with pytest.raises(error) as caught:
        open_volume(folder, **options).read()
    message = str(caught.value)
    assert str(folder) in message
    assert len(message.splitlines()) == 1
    return message


def values(volume) -> list[float]:
    """The value of each slice, each of which has one alone."""
    array = volume.read()[0]
    assert (array == array[:1, :1]).all()
    return array[0, 0].tolist()


# --- order -------------------------------------------------------------------


def test_slices_are_sorted_by_position_not_by_name(tmp_path, write_series, image):
    volume = open_volume(write_series(tmp_path / "scan", image))
    np.testing.assert_array_equal(volume.read()[0], sitk.GetArrayFromImage(image).T)
    np.testing.assert_allclose(volume.grid.affine, [[-0.5, 0, 0, 10], [0, -0.75, 0, -20], [0, 0, 3, -300], [0, 0, 0, 1]], atol=1e-5)


def test_a_box_of_a_series_is_read_and_another_process_may_read_it(tmp_path, write_series, image):
    volume = open_volume(write_series(tmp_path / "scan", image))
    box = Box((1, 2, 3), (3, 4, 5))
    np.testing.assert_array_equal(volume.read(box)[0], sitk.GetArrayFromImage(image).T[box.slices])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read(), volume.read())


def test_simpleitk_reads_the_same(tmp_path):
    folder = stack(tmp_path / "scan")
    theirs = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    volume = open_volume(folder)
    np.testing.assert_array_equal(volume.read()[0], sitk.GetArrayFromImage(theirs).T)
    assert volume.grid.spacing_mm == pytest.approx(theirs.GetSpacing())
    assert volume.dtype == np.int16


@pytest.mark.parametrize("name", ["IM{}", "1.2.840.113619.2.{}", "{}.ima", "I{}.DCM"])
def test_files_need_no_suffix(tmp_path, name):
    assert values(open_volume(stack(tmp_path / "scan", name=name))) == [-24 + 10 * k for k in range(6)]


def test_a_single_file_is_a_slice(tmp_path, write_series, image):
    file = sorted(write_series(tmp_path / "scan", image).iterdir())[-1]
    np.testing.assert_array_equal(open_volume(file).read()[0, :, :, 0], sitk.GetArrayFromImage(image)[0].T)


def test_a_folder_of_one_slice_is_as_thick_as_it_says(tmp_path):
    assert open_volume(stack(tmp_path / "thick", [2], SliceThickness=5)).grid.spacing_mm == pytest.approx((0.5, 0.75, 5))
    assert open_volume(stack(tmp_path / "unknown", [2])).grid.spacing_mm == pytest.approx((0.5, 0.75, 1))


# --- which series ------------------------------------------------------------


def test_two_series_in_a_folder_are_named_and_one_can_be_chosen(tmp_path):
    folder = stack(tmp_path / "scan", SeriesInstanceUID=UID.format(11))
    stack(folder, range(10, 14), SeriesInstanceUID=UID.format(12), SeriesDescription="Lung", first=100)
    message = refusal(folder)
    assert "scan: folder must hold one DICOM series, got 2; choose one with series= or --series: " in message
    assert f"{UID.format(11)} 'Body 3.0' (CT, 5 x 4 x 6, 0.50 x 0.75 x 3.00 mm, 20221208 140539); " in message
    assert f"{UID.format(12)} 'Lung' (CT, 5 x 4 x 4" in message
    for wanted in (UID.format(12), "lung", "Lung "):
        assert values(open_volume(folder, series=wanted))[0] == 76
    assert "series must be one of" in refusal(folder, series="1.2.3")
    assert refusal(folder, series="1.2.3").endswith("got '1.2.3'")
    assert f"series must name one of 2, got '{UID.format(1)}' that fits 2" in refusal(folder, series=UID.format(1))


def test_a_series_is_not_chosen_in_silence_from_what_has_none(tmp_path, write_nifti):
    path = write_nifti("ct.nii.gz", np.zeros((4, 4, 4), np.int16))
    with pytest.raises(ValueError, match=r"ct.nii.gz: series must be left out for what is no folder of DICOM files, got '1.2'"):
        open_volume(path, series="1.2")


def test_the_beginning_of_a_uid_will_do_where_it_fits_one(tmp_path):
    folder = stack(tmp_path / "scan", SeriesInstanceUID="1.2.30.1")
    stack(folder, SeriesInstanceUID="1.2.31.1", first=100)
    assert len(read_series(folder)[0]) == 2
    assert values(open_volume(folder, series="1.2.31"))[0] == -24


def test_scouts_pictures_and_reports_do_not_hinder(tmp_path, caplog):
    folder = stack(tmp_path / "scan")
    dicom_file(folder / "scout", SeriesInstanceUID=UID.format(2), ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
               ImagePositionPatient=[0, 0, 0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])  # fmt: skip
    dicom_file(folder / "same_uid_scout.dcm", ImageOrientationPatient=[0, 1, 0, 0, 0, -1], ImagePositionPatient=[0, 0, 0])
    dicom_file(folder / "table.dcm", np.zeros((9, 9, 3), np.uint8), SOPClassUID=SECONDARY_CAPTURE, SeriesInstanceUID=UID.format(3))
    dicom_file(folder / "dose.dcm", SOPClassUID=DOSE_REPORT, SeriesInstanceUID=UID.format(4), Modality="SR")
    dicom_file(folder / "DICOMDIR", SOPClassUID=DICOMDIR)
    (folder / "readme.txt").write_text("text")
    (folder / "thumbnail.jpg").write_bytes(b"\xff\xd8")
    with caplog.at_level(logging.WARNING):
        volume = open_volume(folder)
    assert values(volume) == [-24 + 10 * k for k in range(6)]
    assert "scan: took 1.2.826" in caplog.text
    assert "left out" in caplog.text
    assert " and 1 more" in caplog.text
    assert volume.about["series"] == f"{UID.format(1)}#1"
    assert len(volume.about["left_out"]) == 4
    series, others = read_series(folder)
    assert [one.is_volume for one in series] == [True, False, False, False]
    assert others == ["dose.dcm (structured report)"]
    assert any("localizer" in str(one) for one in series)
    assert any("colours" in str(one) for one in series)


def test_a_bolus_watched_in_one_slice_does_not_hinder(tmp_path):
    folder = stack(tmp_path / "scan")
    for k in range(12):
        tags = {"SeriesInstanceUID": UID.format(7), "ImagePositionPatient": [0, 0, 50], "ContentTime": f"1200{k:02d}"}
        dicom_file(folder / f"bolus{k}.dcm", InstanceNumber=k, **tags)
    assert values(open_volume(folder)) == [-24 + 10 * k for k in range(6)]


def test_a_scout_alone_is_what_is_meant(tmp_path):
    folder = tmp_path / "scan"
    dicom_file(folder / "scout.dcm", ImagePositionPatient=[0, 0, 0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert open_volume(folder).grid.shape == (COLUMNS, ROWS, 1)


def test_a_folder_of_reports_holds_no_series(tmp_path):
    dicom_file(tmp_path / "scan" / "dose.dcm", SOPClassUID=DOSE_REPORT)
    assert refusal(tmp_path / "scan").endswith("scan: folder must hold a DICOM series, got dose.dcm (structured report)")


def test_series_without_a_uid_as_some_anonymisers_leave_them(tmp_path):
    assert len(values(open_volume(stack(tmp_path / "scan", SeriesInstanceUID=None)))) == 6


@pytest.mark.parametrize(
    ("tag", "old", "new"),
    [
        ("AcquisitionNumber", 1, 2),
        ("TemporalPositionIdentifier", 1, 2),
        ("ConvolutionKernel", "B30f", "B70f"),
        ("EchoTime", 2.5, 5.0),
        ("ImageType", ["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "SECONDARY", "AXIAL"]),
    ],
)
def test_volumes_under_one_uid_are_told_apart_and_one_can_be_chosen(tmp_path, tag, old, new):
    folder = stack(tmp_path / "scan", **{tag: old})
    stack(folder, first=100, RescaleIntercept=0, ContentTime=lambda k: f"1200{k:02d}", **{tag: new})
    message = refusal(folder)
    assert "folder must hold one DICOM series, got 2" in message
    assert f"{UID.format(1)}#1" in message
    assert f"{tag} " in message
    firsts = {values(open_volume(folder, series=f"{UID.format(1)}#{n}"))[0] for n in (1, 2)}
    assert firsts == {-24, 1000}
    assert message.index(f"{tag} ") < message.index(f"{UID.format(1)}#2")


def test_two_orientations_under_one_uid_are_two_volumes(tmp_path):
    folder = stack(tmp_path / "scan", range(6))
    upright = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "ImagePositionPatient": lambda k: [0, 3 * k, 0]}
    stack(folder, range(4), first=100, **upright)
    assert f"got 2; choose one with series= or --series: {UID.format(1)}#1" in refusal(folder)
    assert open_volume(folder, series=f"{UID.format(1)}#2").grid.orientation == "LIP"


# --- what is wrong with slices -----------------------------------------------


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ([2], "got 1 missing of 6: 1 at -294.00 mm, between 899.dcm (instance 2) and 897.dcm (instance 4)"),
        ([1], "got 1 missing of 6: 1 at -297.00 mm, between 900.dcm (instance 1) and 898.dcm (instance 3)"),
        ([2, 3], "got 2 missing of 6: 2 at -294.00 mm to -291.00 mm, between 899.dcm (instance 2) and 896.dcm (instance 5)"),
    ],
)
def test_missing_slices_are_named(tmp_path, missing, told):
    folder = stack(tmp_path / "scan", [k for k in range(6) if k not in missing])
    assert refusal(folder) == f"{folder}: slices must all be there, 3.000 mm apart, {told}"


def test_many_gaps_are_counted(tmp_path):
    folder = stack(tmp_path / "scan", [k for k in range(30) if k not in (3, 9, 15, 21, 27)])
    message = refusal(folder)
    assert "got 5 missing of 30: 1 at -291.00 mm" in message
    assert message.endswith("; and 2 more gaps")


def test_uneven_slices_are_named(tmp_path):
    folder = stack(tmp_path / "scan", ImagePositionPatient=lambda k: [0, 0, 3 * k + (1.4 if k > 2 else 0)])
    told = "slices must be evenly spaced, got distances of 3.000 to 4.400 mm, 4.400 mm between 898.dcm (instance 3) and 897.dcm"
    assert told in refusal(folder)


def test_rounded_positions_are_even(tmp_path):
    """0.625 mm apart and rounded to 0.1 mm, the distances are 0.6 and 0.7 mm."""
    folder = stack(tmp_path / "scan", range(40), ImagePositionPatient=lambda k: [0, 0, round(0.625 * k, 1)])
    assert open_volume(folder).grid.spacing_mm[2] == pytest.approx(0.625, rel=0.01)


def test_a_copy_of_a_slice_is_named(tmp_path):
    folder = stack(tmp_path / "scan")
    (folder / "898 (1).dcm").write_bytes((folder / "898.dcm").read_bytes())
    message = refusal(folder)
    assert "got 1 in the place of another, the first at -294.00 mm, 898 (1).dcm (instance 3) and 898.dcm (instance 3)" in message
    assert "they have one SOPInstanceUID, so one is a copy" in message


def test_slices_of_one_place_that_no_tag_sorts_are_refused_with_what_differs(tmp_path):
    folder = stack(tmp_path / "scan", ContentTime=lambda k: f"1200{k:02d}")
    stack(folder, [2, 4], first=100, ContentTime=lambda k: f"1300{k:02d}")
    message = refusal(folder)
    assert "got 2 in the place of another, the first at -294.00 mm" in message
    assert "they differ in ContentTime 120002 and 130002; keep one set of slices in the folder" in message
    stack(folder, [2, 4], first=100, ContentTime=lambda k: f"1200{k:02d}")
    assert "their tags do not say why" in refusal(folder)


def test_slices_without_a_position_cannot_be_sorted(tmp_path):
    folder = stack(tmp_path / "scan", ImagePositionPatient=None, SOPClassUID=SECONDARY_CAPTURE)
    assert "slices must say where they are (ImagePositionPatient), got 6 that do not: 895.dcm (instance 6)" in refusal(folder)


def test_a_tilted_gantry_is_refused_with_its_angle(tmp_path):
    folder = stack(tmp_path / "scan", ImagePositionPatient=lambda k: [0, 3 * k * np.tan(np.radians(12)), 3 * k])
    message = refusal(folder)
    assert "slices must be stacked along their normal, got a gantry tilt of 12.0 degrees (3.2 mm sideways)" in message
    assert "dcm2niix" in message


def test_slices_moved_sideways_are_refused(tmp_path):
    folder = stack(tmp_path / "scan", ImagePositionPatient=lambda k: [7.0 * (k == 3), 0, 3 * k])
    assert refusal(folder).endswith("slices must be stacked along their normal, got some up to 7.0 mm sideways")


def test_an_oblique_stack_is_not_tilted(tmp_path):
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turn[:, 2] = np.cross(turn[:, 0], turn[:, 1])
    tags = {"ImageOrientationPatient": [round(float(x), 6) for x in turn[:, :2].T.ravel()]}
    folder = stack(tmp_path / "scan", range(50), ImagePositionPatient=lambda k: [round(float(x), 3) for x in turn[:, 2] * 3 * k], **tags)
    affine = open_volume(folder).grid.affine
    np.testing.assert_allclose(np.diag([-1, -1, 1]) @ affine[:3, :3], turn * [0.5, 0.75, 3], atol=1e-4)
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-6)


@pytest.mark.parametrize("left", [-1, -60, 400, 200, 140])
def test_a_slice_cut_short_is_named(tmp_path, left):
    folder = stack(tmp_path / "scan")
    (folder / "898.dcm").write_bytes((folder / "898.dcm").read_bytes()[:left])
    message = refusal(folder)
    assert "scan: DICOM files must be sound, got 1 of 6 that cannot be read: 898.dcm" in message
    assert f"the first: {folder / '898.dcm'}: " in message


def test_a_slice_that_goes_bad_after_opening_is_named(tmp_path):
    volume = open_volume(stack(tmp_path / "scan"))
    (tmp_path / "scan" / "898.dcm").write_bytes(b"")
    with pytest.raises(ValueError, match=r"scan/898.dcm: file must be a sound image, got: "):
        volume.read()


# --- values ------------------------------------------------------------------


def test_each_slice_has_its_own_rescaling(tmp_path):
    folder = stack(tmp_path / "scan", RescaleIntercept=lambda k: -1000 - k, RescaleSlope=lambda k: 1 + k % 2)
    assert values(open_volume(folder)) == [(1000 + 10 * k) * (1 + k % 2) - 1000 - k for k in range(6)]


def test_one_slice_with_a_fraction_makes_the_volume_real(tmp_path):
    volume = open_volume(stack(tmp_path / "scan", RescaleSlope=lambda k: 0.5 if k == 3 else 1))
    assert volume.dtype == np.float32
    assert values(volume) == [-24, -14, -4, 1030 / 2 - 1024, 16, 26]


def test_padding_stays_as_it_stands(tmp_path):
    folder = tmp_path / "scan"
    for k in range(4):
        array = np.full((ROWS, COLUMNS), 40 + k, np.int16)
        array[0, 0] = -2000
        tags = {"PixelPaddingValue": -2000, "ImagePositionPatient": [0, 0, k], "RescaleIntercept": 0}
        dicom_file(folder / f"{k}.dcm", array, **tags)
    array = open_volume(folder).read()[0]
    assert array[0, 0].tolist() == [-2000] * 4
    assert array[1, 1].tolist() == [40, 41, 42, 43]


def test_signed_16_bits_with_an_intercept_are_held_in_16_bits_and_read_as_what_they_may_be(tmp_path):
    """As some scanners have it: the header allows for 32 bits, the values do not need them."""
    folder = tmp_path / "scan"
    for k in range(4):
        dicom_file(folder / f"{k}.dcm", np.full((ROWS, COLUMNS), 1000 + k, np.int16), ImagePositionPatient=[0, 0, k])
    volume = open_volume(folder)
    assert volume.dtype == np.int32
    assert volume._load().dtype == np.int16
    assert volume.read(Box((0, 0, 1), (1, 1, 3))).ravel().tolist() == [-23, -22]
    dicom_file(folder / "2.dcm", np.full((ROWS, COLUMNS), -32768, np.int16), ImagePositionPatient=[0, 0, 2])
    assert open_volume(folder).read()[0, 0, 0].tolist() == [-24, -23, -32768 - 1024, -21]


@pytest.mark.parametrize(("compressor", "syntax"), [("JPEG", "1.2.840.10008.1.2.4.70"), ("JPEG2000", "1.2.840.10008.1.2.4.90")])
def test_compressed_slices(tmp_path, rng, compressor, syntax):
    (tmp_path / "packed").mkdir()
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    writer.KeepOriginalImageUIDOn()
    truth = rng.integers(0, 2000, (3, 32, 33)).astype(np.int16)
    for k, values_of in enumerate(truth):
        slice_ = sitk.GetImageFromArray(values_of[None])
        tags = {"0020|0032": f"0\\0\\{k}", "0020|0037": "1\\0\\0\\0\\1\\0", "0020|000e": UID.format(1), "0008|0060": "CT"}
        for tag, value in tags.items():
            slice_.SetMetaData(tag, value)
        writer.SetFileName(str(tmp_path / "packed" / f"{k}.dcm"))
        writer.Execute(slice_)
    assert pydicom.dcmread(tmp_path / "packed" / "0.dcm").file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(open_volume(tmp_path / "packed").read()[0], truth.T)


def test_slices_compressed_by_run_lengths(tmp_path, rng):
    truth = rng.integers(0, 2000, (3, 32, 33)).astype(np.uint16)
    for k, array in enumerate(truth):
        path = dicom_file(tmp_path / "scan" / f"{k}.dcm", array, ImagePositionPatient=[0, 0, k])
        content = pydicom.dcmread(path)
        content.compress(pydicom.uid.RLELossless)
        content.save_as(path)
    np.testing.assert_array_equal(open_volume(tmp_path / "scan").read()[0], truth.T - 1024.0)


def test_colours_alone_are_read_as_channels(tmp_path):
    dicom_file(tmp_path / "scan" / "a.dcm", np.full((9, 8, 3), 7, np.uint8), SOPClassUID=SECONDARY_CAPTURE)
    volume = open_volume(tmp_path / "scan")
    assert (volume.channels, volume.grid.shape) == (3, (8, 9, 1))
    assert (volume.read() == 7).all()


# --- enhanced files of many frames -------------------------------------------


@pytest.mark.parametrize("along", [[0, 2, 4, 6, 8], [8, 6, 4, 2, 0], [0, 4, 2, 8, 6]])
def test_frames_are_sorted_by_position(tmp_path, along):
    enhanced(tmp_path / "scan" / "ct.dcm", along)
    volume = open_volume(tmp_path / "scan")
    assert values(volume) == [-24, -22, -20, -18, -16]
    np.testing.assert_allclose(volume.grid.affine, [[-0.5, 0, 0, -10], [0, -0.75, 0, -20], [0, 0, 2, 0], [0, 0, 0, 1]], atol=1e-6)


def test_what_gdcm_makes_of_frames_in_any_order(tmp_path):
    """The reason why pydicom reads where they are; should GDCM learn to, it is worth another look."""
    path = enhanced(tmp_path / "ct.dcm", [0, 4, 2, 8, 6])
    theirs = sitk.ReadImage(str(path))
    assert theirs.GetSpacing() == (1, 1, 1)
    assert sitk.GetArrayFromImage(theirs)[:, 0, 0].tolist() == [-24, -20, -22, -16, -18]
    rescaled = sitk.ReadImage(str(enhanced(tmp_path / "rescaled.dcm", [0, 2, 4], intercepts={2: 0})))
    assert sitk.GetArrayFromImage(rescaled)[:, 0, 0].tolist() == [-24, -22, -20]


def test_what_is_wrong_with_frames_is_named(tmp_path):
    def told(name: str, *args: object, **options: object) -> str:
        enhanced(tmp_path / name / "ct.dcm", *args, **options)
        return refusal(tmp_path / name)

    assert "got 1 missing of 5: 1 at 4.00 mm, between ct.dcm (frame 2) and ct.dcm (frame 3)" in told("gap", [0, 2, 6, 8])
    assert "got a gantry tilt of 10.0 degrees" in told("tilt", [0, 2, 4, 6], sideways=np.tan(np.radians(10)))
    assert "frames must have one rescale slope and intercept, got 2, such as (1.0, -1024.0) and (1.0, 0.0)" in told(
        "scale", [0, 2, 4], intercepts={2: 0}
    )
    assert "choose one with series= or --series: " in told("twice", [0, 2, 4, 0, 2, 4], acquisitions={3: 2, 4: 2, 5: 2})
    assert values(open_volume(tmp_path / "twice", series=f"{UID.format(1)}#2")) == [-24, -22, -20]


def test_an_enhanced_file_by_itself_is_read_as_its_folder_is(tmp_path):
    path = enhanced(tmp_path / "scan" / "ct.dcm", [0, 4, 2, 8, 6])
    assert values(open_volume(path)) == values(open_volume(path.parent))
    assert open_volume(path).grid == open_volume(path.parent).grid


# --- cases -------------------------------------------------------------------


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
    assert scan.read()[label.read() == 52].mean() == pytest.approx(-171, abs=1)


def test_a_folder_of_series_is_a_case_each(tmp_path, write_series, image):
    for patient in ("mole", "rat"):
        write_series(tmp_path / "patients" / patient, image)
    (tmp_path / "patients" / "notes").mkdir()
    assert [case.id for case in find_cases([tmp_path / "patients"])] == ["mole", "rat"]


# --- voxels that are not there -----------------------------------------------


@pytest.mark.parametrize("held", [0, 2, 20, 38])
def test_a_file_with_fewer_voxels_than_it_says_is_refused_with_both_lengths(tmp_path, held):
    """GDCM gives what lies in memory for those that are missing."""
    folder = stack(tmp_path / "scan", PixelData=lambda k: bytes(held if k == 3 else 2 * ROWS * COLUMNS))
    told = f"PixelData must hold the 40 bytes of 5 x 4 x 1 voxels of 16 bits, got {held}"
    assert refusal(folder / "897.dcm") == f"{folder / '897.dcm'}: {told}"
    assert refusal(folder).endswith(f"897.dcm; fetch them anew, or move away what is no slice; the first: {folder / '897.dcm'}: {told}")


def test_a_file_that_says_it_is_huge_is_refused_before_memory_is_taken(tmp_path):
    path = dicom_file(tmp_path / "a.dcm", Rows=65535, Columns=65535, PixelData=bytes(64), ImagePositionPatient=[0, 0, 0])
    reset_peak_memory()
    before = peak_memory_bytes()
    assert refusal(path).endswith("PixelData must hold the 8589672450 bytes of 65535 x 65535 x 1 voxels of 16 bits, got 64")
    assert peak_memory_bytes() - before < 32 << 20


def test_frames_that_are_not_all_there_are_refused(tmp_path):
    path = enhanced(tmp_path / "a.dcm", [0, 2, 4, 6, 8])
    content = pydicom.dcmread(path)
    content.PixelData = content.PixelData[:-2]
    content.save_as(path)
    assert refusal(path).endswith("PixelData must hold the 200 bytes of 5 x 4 x 5 voxels of 16 bits, got 198")
    content.NumberOfFrames = 3
    del content.PerFrameFunctionalGroupsSequence[3:]
    content.save_as(path)
    assert values(open_volume(path)) == [-24, -22, -20]  # what is more than enough does no harm


def test_compressed_frames_that_are_not_all_there_are_refused(tmp_path):
    path = enhanced(tmp_path / "a.dcm", [0, 2, 4])
    content = pydicom.dcmread(path)
    content.compress(pydicom.uid.RLELossless)
    content.save_as(path)
    assert values(open_volume(path)) == [-24, -22, -20]
    content.PixelData = pydicom.encaps.encapsulate(list(pydicom.encaps.generate_frames(content.PixelData, number_of_frames=3))[:2])
    content.save_as(path)
    assert refusal(path).endswith("pixel data must hold a fragment for each of 3 frames, got 2")


@pytest.mark.parametrize("name", ["Rows", "Columns", "BitsAllocated", "SamplesPerPixel"])
def test_a_file_that_does_not_say_how_its_voxels_lie_is_refused(tmp_path, name):
    content = pydicom.dcmread(dicom_file(tmp_path / "a.dcm", ImagePositionPatient=[0, 0, 0]))
    del content[name]
    content.save_as(tmp_path / "a.dcm")
    assert refusal(tmp_path / "a.dcm").endswith(f"image must give its Rows, Columns, SamplesPerPixel, BitsAllocated, got no {name}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("PixelSpacing", value) for value in (None, [0, 0], [1])),
        *(("ImageOrientationPatient", value) for value in (None, [0] * 6, [1, 0, 0, 1, 0, 0], [1, 0, 0])),
        *(("ImagePositionPatient", value) for value in (None, [1, 2])),
    ],
)
def test_a_slice_that_does_not_say_where_it_is_is_refused(tmp_path, name, value):
    """GDCM takes 1 mm, or an axial slice, in their place."""
    path = dicom_file(tmp_path / "a.dcm", **{"ImagePositionPatient": [0, 0, 0], name: value})
    assert "a.dcm: slice must say where it is, how it is turned and how large its pixels are, got ImagePositionPatient" in refusal(path)


def test_slices_are_read_alike_whether_gdcm_was_asked_about_each_or_once(tmp_path):
    folder = stack(tmp_path / "scan", RescaleSlope=lambda k: 1 + k // 2)
    reader = HeaderReader()
    for path in folder.iterdir():
        ours, theirs = reader.read(path), HeaderReader().read(path)
        assert (ours.size, ours.spacing_mm, ours.origin, ours.dtype) == (theirs.size, theirs.spacing_mm, theirs.origin, theirs.dtype)
        np.testing.assert_array_equal(ours.direction, theirs.direction)
    assert len(reader._forms) == 3


def test_a_file_that_changes_after_it_was_opened_is_refused(tmp_path):
    folder = stack(tmp_path / "scan")
    volume = open_volume(folder)
    dicom_file(folder / "898.dcm", np.zeros((8, 10), np.uint16), ImagePositionPatient=[0, 0, 0])
    with pytest.raises(ValueError, match=r"898.dcm: file must hold what its header says, \(5, 4, 1\) voxels of 1 int16, got \(10, 8, 1\)"):
        volume.read()


# --- objects that are no images ----------------------------------------------


def test_the_image_is_chosen_among_doses_contours_segmentations_and_reports(tmp_path, caplog):
    folder = stack(tmp_path / "scan")
    more = {"Modality": "RTDOSE", "NumberOfFrames": 6, "SeriesInstanceUID": UID.format(2), "ImagePositionPatient": [0, 0, 0]}
    dicom_file(folder / "dose.dcm", np.zeros((6, ROWS, COLUMNS), np.uint16), SOPClassUID=DOSE, **more)
    for name, uid in {"rs": STRUCTURE_SET, "ko": KEY_OBJECTS, "pr": PRESENTATION, "sr": DOSE_REPORT}.items():
        dicom_file(folder / f"{name}.dcm", SOPClassUID=uid)
    segmentation(folder / "seg.dcm")
    stack(folder, first=100, SeriesInstanceUID=UID.format(3), Modality="SEG", SOPClassUID=SECONDARY_CAPTURE)
    with caplog.at_level(logging.WARNING):
        (case,) = list_cases([folder])
        volume = open_volume(case.image)
    assert values(volume) == [-24 + 10 * k for k in range(6)]
    assert "left out" in caplog.text
    told = " ".join(volume.about["left_out"])
    assert all(word in told for word in ("dose.dcm (radiotherapy dose)", "rs.dcm (radiotherapy structure set", "seg.dcm (segmentation"))
    assert all(word in told for word in ("ko.dcm (selection of key objects)", "pr.dcm (presentation state)", "sr.dcm (structured report)"))


def test_folders_of_other_objects_are_no_cases_of_a_batch(tmp_path, caplog):
    stack(tmp_path / "p1" / "CT")
    segmentation(tmp_path / "p1" / "SEG" / "a.dcm")
    dicom_file(tmp_path / "p1" / "RS" / "a.dcm", SOPClassUID=STRUCTURE_SET)
    assert [case.id for case in list_cases([tmp_path])] == ["p1__CT"]
    assert f"{tmp_path / 'p1' / 'SEG'}: left out, as its DICOM files hold no image: segmentation" in caplog.text
    assert f"{tmp_path / 'p1' / 'RS'}: left out" in caplog.text


def test_what_is_no_image_is_refused_without_a_preamble_too(tmp_path):
    path = segmentation(tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[132:])
    assert "a.dcm: file must hold an image, got a segmentation" in refusal(path)


@pytest.mark.parametrize(("uid", "kind"), [(SEGMENTATION, "segmentation, which"), (STRUCTURE_SET, "radiotherapy structure set")])
def test_what_is_no_image_is_refused_by_its_name(tmp_path, uid, kind):
    path = dicom_file(tmp_path / "scan" / "a.dcm", SOPClassUID=uid)
    assert f"a.dcm: file must hold an image, got a {kind}" in refusal(path)
    assert f"folder must hold a DICOM series, got a.dcm ({kind}" in refusal(path.parent)
    if uid == STRUCTURE_SET:
        with pytest.raises(ValueError, match="contours must be made a label map first"):
            open_label(path, GRID)


# --- segmentations -------------------------------------------------------------

GRID = Grid((32, 32, 8), np.diag([-2.0, -2, 3, 1]))


def truth() -> np.ndarray:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[12:24, 10:18, :4] = 1
    labels[4:10, 20:26, :4] = 2
    return labels


def test_segments_are_classes_where_their_frames_are(tmp_path):
    for path in (segmentation(tmp_path / "seg" / "a.dcm"), tmp_path / "seg"):
        label = open_label(path, GRID)
        assert label.grid == GRID
        np.testing.assert_array_equal(label.read()[0], truth())
        np.testing.assert_array_equal(open_label(path, GRID, overlap=True).read()[0] > 0, truth() > 0)


def test_a_segmentation_is_a_label_of_an_image_that_is_flipped_or_seen_along_another_axis(tmp_path):
    path = segmentation(tmp_path / "a.dcm")
    flipped = Grid(GRID.shape, GRID.affine @ np.array([[1, 0, 0, 0], [0, -1, 0, 31], [0, 0, -1, 7], [0, 0, 0, 1]]))
    np.testing.assert_array_equal(open_label(path, flipped).read()[0], truth()[:, ::-1, ::-1])
    turned = Grid((8, 32, 32), GRID.affine[:, [2, 0, 1, 3]])
    np.testing.assert_array_equal(open_label(path, turned).read()[0], truth().transpose(2, 0, 1))


def test_frames_that_are_missing_are_background(tmp_path):
    mask = np.eye(32, dtype=np.uint8)
    label = open_label(segmentation(tmp_path / "a.dcm", [(7, 18, mask), (300, 3, mask), (7, 3.02, 1 - mask)]), GRID).read()[0]
    assert [sorted(np.unique(label[..., k])) for k in range(8)] == [[0], [7, 300], [0], [0], [0], [0], [0, 7], [0]]
    np.testing.assert_array_equal(label[..., 6].T, 7 * mask)


def test_bits_of_frames_that_end_within_a_byte(tmp_path, rng):
    masks = rng.integers(0, 2, (3, 5, 7)).astype(np.uint8)
    path = segmentation(tmp_path / "a.dcm", [(1, 3 * k, mask) for k, mask in enumerate(masks)])
    np.testing.assert_array_equal(open_label(path, Grid((7, 5, 3), GRID.affine)).read()[0], masks.T)


@pytest.mark.parametrize("packed", [False, True])
def test_label_maps_hold_the_numbers_of_segments(tmp_path, packed):
    pixels = truth().T
    frames = [(k, 3 * k, plane) for k, plane in enumerate(pixels)]
    form = {"SOPClassUID": LABEL_MAP, "SegmentationType": "LABELMAP", "BitsAllocated": 8, "BitsStored": 8, "PixelData": pixels.tobytes()}
    path = segmentation(tmp_path / "a.dcm", frames, **form)
    if packed:
        content = pydicom.dcmread(path)
        content.compress(pydicom.uid.RLELossless)
        content.save_as(path)
    np.testing.assert_array_equal(open_label(path, GRID).read()[0], truth())
    content = pydicom.dcmread(path)
    content.SegmentSequence = content.SegmentSequence[:2]
    content.save_as(path)
    with pytest.raises(ValueError, match=r"a.dcm: voxels must be of the segments \[0, 1\] that the file describes, got \[2\]"):
        open_label(path, GRID).read()


def test_overlapping_segments_are_refused_unless_only_the_foreground_matters(tmp_path):
    mask = np.eye(32, dtype=np.uint8)
    path = segmentation(tmp_path / "a.dcm", [(1, 3, mask), (2, 3, mask)])
    with pytest.raises(ValueError, match=r"a.dcm: segments must not overlap, got 32 voxels of 's2' in 's1'"):
        open_label(path, GRID).read()
    np.testing.assert_array_equal(open_label(path, GRID, overlap=True).read()[0, ..., 1].T > 0, mask)


@pytest.mark.parametrize(
    ("tags", "told"),
    [
        ({"SegmentationType": "FRACTIONAL"}, "SegmentationType must be BINARY or LABELMAP, got 'FRACTIONAL'"),
        ({"SegmentSequence": []}, "frames must be of the segments [] that the file describes, got [1, 2]"),
        ({"PerFrameFunctionalGroupsSequence": []}, "each frame must say where it is, got 0 places for 8 frames"),
        ({"PixelData": bytes(1022)}, "PixelData must hold the 1024 bytes of 32 x 32 x 8 voxels of 1 bits, got 1022"),
    ],
)
def test_segmentations_that_cannot_be_labels_are_refused(tmp_path, tags, told):
    path = segmentation(tmp_path / "a.dcm", **tags)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {told}")):
        open_label(path, GRID).read()


@pytest.mark.parametrize(
    ("at", "told"),
    [
        ([0, 4.5], "frames must lie on the slices of the image, 3.000 mm apart and above each other, got some 0.5 slices off"),
        ([0, 3e6], "frames must lie inside the image of 8 slices, got some 1e+06 slices apart"),
        ([60, 63], "segmentation must lie inside its image"),
    ],
)
def test_frames_that_are_not_on_the_image_are_refused(tmp_path, at, told):
    path = segmentation(tmp_path / "a.dcm", [(1, z, np.eye(32, dtype=np.uint8)) for z in at])
    with pytest.raises(ValueError, match=re.escape(f"{path}: {told}")):
        open_label(path, GRID).read()


def test_several_segmentations_in_a_folder_are_not_chosen_from(tmp_path):
    segmentation(tmp_path / "a.dcm")
    segmentation(tmp_path / "b.dcm")
    with pytest.raises(ValueError, match=r"folder must hold one DICOM segmentation, got 2: a.dcm, b.dcm"):
        open_label(tmp_path, GRID)


@pytest.mark.parametrize("place", ["labels/case_1.dcm", "labels/case_1/seg.dcm"])
def test_a_prediction_is_scored_against_a_segmentation(tmp_path, write_nifti, place):
    write_nifti("out/case_1_seg.nii.gz", truth(), affine=GRID.affine)
    segmentation(tmp_path / place)
    (pair,) = pair_cases(tmp_path / "out", tmp_path / "labels")
    rows = evaluate_case(pair, per_class=True)
    assert [(row.case, row.name, row.values["dice"]) for row in rows] == [
        ("case_1", "foreground", 1),
        ("case_1", "1", 1),
        ("case_1", "2", 1),
    ]
