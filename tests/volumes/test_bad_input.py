"""What a broken file gets: one sentence that names path, rule and value, and nothing written."""

from __future__ import annotations

import gzip
import re

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from stseg3d.volumes import file, find_cases, open_volume


@pytest.fixture
def noise(rng):
    return rng.integers(-1000, 1000, (20, 21, 22)).astype(np.int16)


def refusal(path, error=ValueError, **options):
    """The one sentence that reading ``path`` ends with."""
    before = sorted(path.parent.iterdir())
    with pytest.raises(error) as caught:
        open_volume(path, **options).read()
    message = str(caught.value)
    assert str(path) in message
    assert len(message.splitlines()) == 1
    assert re.search(r"\b(must|got)\b", message)
    assert sorted(path.parent.iterdir()) == before
    return message


def test_a_missing_file(tmp_path):
    assert refusal(tmp_path / "ct.nii.gz", FileNotFoundError).endswith("file must exist, got none")


@pytest.mark.parametrize("name", ["notes.txt", "ct", "ct.hdr", ".nii.gz"])
def test_an_unknown_file_type(tmp_path, name):
    (tmp_path / name).write_bytes(b"text")
    message = refusal(tmp_path / name)
    assert "file type must be one of .nii, .nii.gz, " in message
    assert message.endswith(f"got {(tmp_path / name).suffix or 'none'!r}")


@pytest.mark.parametrize("left", [0, 5, 20, 200, 0.5, -400, -9, -8, -4, -1])
def test_a_truncated_nii_gz_of_any_length(write_nifti, noise, left):
    path = write_nifti("ct.nii.gz", noise)
    content = path.read_bytes()
    path.write_bytes(content[: int(left * len(content)) if isinstance(left, float) else left])
    assert re.search(
        "file must be a sound NIfTI file, got|must be sound gzip data, got: it ends before|bytes its header asks for", refusal(path)
    )


@pytest.mark.parametrize("where", [*np.linspace(0.02, 0.98, 25), -8, -6, -4, -1])
def test_a_flipped_bit_anywhere_in_a_nii_gz(write_nifti, noise, where):
    path = write_nifti("ct.nii.gz", noise)
    content = bytearray(path.read_bytes())
    content[int(where * len(content)) if where > 0 else where] ^= 0x10
    path.write_bytes(content)
    assert re.search(r"must be sound gzip data, got: Error -\d|file must be a sound NIfTI file", refusal(path))


def test_what_a_lenient_reader_makes_of_a_truncated_nii_gz(write_nifti, noise):
    """The reason why SimpleITK does not read these; should it learn to refuse them, it is worth another look."""
    path = write_nifti("ct.nii.gz", noise)
    path.write_bytes(path.read_bytes()[:-2000])
    assert sitk.ReadImage(str(path)).GetSize() == noise.shape


def test_what_a_lenient_reader_takes_for_a_nii_gz_beside_a_nii(write_nifti, noise):
    path = write_nifti("ct.nii.gz", noise)
    write_nifti("ct.nii", noise * 0)
    assert not sitk.GetArrayViewFromImage(sitk.ReadImage(str(path))).any()
    np.testing.assert_array_equal(open_volume(path).read()[0], noise)


def test_a_sound_nii_gz_of_several_members_and_padding(write_nifti, noise):
    path = write_nifti("ct.nii.gz", noise)
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(b"".join(gzip.compress(content[a : a + 700]) for a in range(0, len(content), 700)) + bytes(512))
    np.testing.assert_array_equal(open_volume(path).read()[0], noise)


@pytest.mark.parametrize("trailing", [b"more", bytes(300_000)])
def test_bytes_after_the_voxels_do_no_harm(write_nifti, noise, trailing):
    path = write_nifti("ct.nii.gz", noise)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + trailing))
    np.testing.assert_array_equal(open_volume(path).read()[0], noise)


def test_garbage_after_a_nii_gz(write_nifti, noise):
    path = write_nifti("ct.nii.gz", noise)
    path.write_bytes(path.read_bytes() + b"garbage")
    assert "must be sound gzip data" in refusal(path)


@pytest.mark.parametrize("content", [b"", b"text", bytes(400), b"\x1f\x8b\x08" + bytes(30)])
@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "ct.nrrd", "ct.mha", "ct.png", "ct.jpg", "ct.tif", "ct.dcm"])
def test_a_file_of_something_else(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz"])
@pytest.mark.parametrize("missing", [1, 5000])
def test_fewer_voxels_than_the_header_asks_for(write_nifti, noise, name, missing):
    path = write_nifti(name, noise)
    content = path.read_bytes()
    content = gzip.compress(gzip.decompress(content)[:-missing]) if name.endswith(".gz") else content[:-missing]
    path.write_bytes(content)
    due = 352 + noise.nbytes
    assert refusal(path).endswith(f"file must hold the {due} bytes its header asks for, got {due - missing}")


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz"])
def test_a_header_that_asks_for_a_room_full_of_disks(write_nifti, noise, name):
    path = write_nifti(name, noise, dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])
    assert f"file must hold the {352 + 2 * 30000**3} bytes its header asks for, got" in refusal(path)


def test_more_voxels_than_memory(write_nifti, noise, monkeypatch):
    path = write_nifti("ct.nii.gz", np.zeros((64, 64, 64), np.uint8))
    monkeypatch.setattr(file, "available_bytes", lambda: 2**17)
    assert refusal(path).endswith("voxels must fit into the free memory of 0.0 GiB, got 0.0 GiB")
    assert open_volume(write_nifti("ct.nii", noise)).grid.shape == noise.shape  # a memory map needs none


def test_more_voxels_than_memory_in_other_formats(tmp_path, monkeypatch, noise):
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(tmp_path / "ct.mha"))
    monkeypatch.setattr(file, "available_bytes", lambda: 100)
    assert "must fit into the free memory" in refusal(tmp_path / "ct.mha")


NAN, ZERO = np.full(4, np.nan), np.zeros(4)


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz"])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"srow_x": NAN}, "affine must be finite, got [[nan"),
        ({"srow_y": [0, np.inf, 0, 0]}, "affine must be finite, got"),
        ({"srow_z": ZERO}, "affine must not be singular, got [[1.0"),
        ({"srow_z": [1, 0, 0, 0]}, "affine must not be singular, got"),
        ({"sform_code": 0, "pixdim": [1, 1, 1, 0, 1, 1, 1, 1]}, "pixdim must be above 0 along each axis, got (1.0, 1.0, 0.0)"),
        ({"sform_code": 0, "pixdim": [1, np.nan, 1, 1, 1, 1, 1, 1]}, "pixdim must be above 0 along each axis, got (nan, 1.0, 1.0)"),
        ({"sform_code": 0, "pixdim": [1, 1, np.inf, 1, 1, 1, 1, 1]}, "pixdim must be above 0 along each axis, got (1.0, inf, 1.0)"),
        (
            {"sform_code": 0, "qform_code": 0, "pixdim": [1, 1, -2, 1, 1, 1, 1, 1]},
            "pixdim must be above 0 along each axis, got (1.0, -2.0, 1.0)",
        ),
        ({"sform_code": 99, "pixdim": [1, 1, -2, 1, 1, 1, 1, 1]}, "pixdim must be above 0 along each axis, got (1.0, -2.0, 1.0)"),
        ({"sform_code": 0, "pixdim": [1, 1, 1e-30, 1, 1, 1, 1, 1]}, "spacing must be 1e-08 to 1e+06 mm on each axis, got (1.0, 1.0"),
        ({"srow_x": [1e-12, 0, 0, 0]}, "spacing must be 1e-08 to 1e+06 mm on each axis, got (9.9"),
        ({"srow_x": [1e30, 0, 0, 0]}, "spacing must be 1e-08 to 1e+06 mm on each axis, got (1"),
        ({"srow_x": [1, 1, 0, 0], "srow_y": [1, 1 + 1e-7, 0, 0]}, "affine must not be singular, got"),
        ({"sform_code": 0, "quatern_b": 5.0}, "qform must have a quaternion (quatern_b, _c, _d) no longer than 1, got [5.0, 0.0, 0.0]"),
        ({"sform_code": 0, "quatern_b": np.nan}, "qform must have a quaternion (quatern_b, _c, _d) no longer than 1, got [nan, 0.0"),
        ({"dim": [3, 20, 0, 22, 1, 1, 1, 1]}, "header must give at least one voxel on each axis, got (20, 0, 22)"),
        ({"dim": [3, 20, -1, 22, 1, 1, 1, 1]}, "header must give at least one voxel on each axis, got (20, -1, 22)"),
        ({"dim": [0, 20, 21, 22, 1, 1, 1, 1]}, "header must give at least one voxel on each axis, got (0,)"),
        ({"dim": [4, 20, 21, 11, 2, 1, 1, 1]}, "image must be 3-D, got 4-D (20, 21, 11, 2)"),
        ({"dim": [5, 20, 21, 11, 1, 2, 1, 1]}, "image must be 3-D, got 5-D (20, 21, 11, 1, 2)"),
        ({"datatype": 32, "dim": [3, 20, 21, 5, 1, 1, 1, 1]}, "voxels must be integers or real numbers, got complex64"),
        ({"datatype": 128, "dim": [3, 20, 21, 14, 1, 1, 1, 1]}, "voxels must be integers or real numbers, got [('R', 'u1')"),
        ({"datatype": 77}, "file must be a sound NIfTI file, got: "),
        ({"scl_inter": np.nan}, "file must be a sound NIfTI file, got: "),
        ({"magic": b"abc"}, "file must be a sound NIfTI file, got: header must have the mark n+1 or n+2, got b'abc'"),
        ({"magic": b"ni1"}, "got b'ni1' of a pair .hdr and .img, or of an Analyze file: make one NIfTI file of both"),
        ({"magic": b""}, "of a pair .hdr and .img, or of an Analyze file"),
    ],
)
def test_a_header_that_makes_no_sense(write_nifti, noise, name, fields, message):
    assert message in refusal(write_nifti(name, noise, **fields))


@pytest.mark.parametrize("name", ["ct.nrrd", "ct.mha", "ct.mhd", "ct.png", "ct.tif", "ct.jpg", "ct.dcm"])
@pytest.mark.parametrize("compress", [False, True])
def test_other_formats_cut_in_half(tmp_path, name, compress, rng):
    shape = (30, 31) if name[3:] in ("png", "tif", "jpg") else (1 if name == "ct.dcm" else 7, 30, 31)
    image = sitk.GetImageFromArray(rng.integers(0, 255, shape).astype(np.uint8))
    sitk.WriteImage(image, str(tmp_path / name), compress)
    for path in [p for p in tmp_path.iterdir() if p.suffix != ".mhd"]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refusal(tmp_path / name)


def test_a_nrrd_of_four_dimensions(tmp_path, noise):
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(noise)] * 3), str(tmp_path / "ct.nrrd"))
    assert "image must be 3-D, got 4-D (22, 21, 20, 3)" in refusal(tmp_path / "ct.nrrd")
    assert open_volume(tmp_path / "ct.nrrd", channels_last=True).read().shape == (3, 22, 21, 20)


def test_complex_voxels_of_other_formats(tmp_path):
    sitk.WriteImage(sitk.Image([4, 4, 4], sitk.sitkComplexFloat32), str(tmp_path / "ct.nrrd"))
    assert "voxels must be integers or real numbers, got complex of 32-bit float" in refusal(tmp_path / "ct.nrrd")


def test_a_folder_without_images(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    assert refusal(folder).endswith("folder must hold a DICOM series, got none")
    (folder / "notes.txt").write_text("text")
    with pytest.raises(
        ValueError, match=f"{re.escape(str(folder))}: folder must hold volumes, such as .nii.gz, or DICOM series, got 1 other file"
    ):
        find_cases([folder])


def test_the_first_broken_byte_is_found_on_opening_where_the_header_tells(write_nifti, noise):
    """No voxel is read for it: the file's size is enough."""
    path = write_nifti("ct.nii", noise)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="bytes its header asks for"):
        open_volume(path)


@pytest.mark.parametrize("source", [None, 5, {"a.nii"}, object()])
def test_something_that_is_no_image_at_all(source):
    with pytest.raises(ValueError, match=f"image must be a path, a Volume, .* got {type(source).__name__}"):
        open_volume(source)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4, 5)])
def test_arrays_of_too_few_or_many_axes(shape):
    with pytest.raises(ValueError, match=f"image must have two or three space axes, got {len(shape)}"):
        open_volume(np.zeros(shape))


def test_arrays_of_words():
    with pytest.raises(ValueError, match="array: voxels must be integers or real numbers, got"):
        open_volume(np.full((2, 2, 2), "a"))


def test_sform_and_qform_codes_of_zero_are_read_as_nibabel_does(write_nifti, noise):
    path = write_nifti("ct.nii", noise, sform_code=0, qform_code=0)
    np.testing.assert_array_equal(open_volume(path).grid.affine, nib.load(path).affine)
