from __future__ import annotations

import gzip
import time
import tracemalloc
import zlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from stseg3d.geometry import Box, Grid
from stseg3d.volumes import inflate, open_volume
from stseg3d.volumes.file import scaled_dtype
from tests.systems import on_linux

MIB = 2**20


@pytest.fixture
def numbers():
    return np.arange(-30, 30, dtype=np.int16).reshape(3, 4, 5)


@pytest.mark.parametrize(
    ("stored", "slope", "inter", "dtype"),
    [
        ("uint8", 1, 0, "uint8"),
        ("uint8", 1, 100, "uint16"),
        ("uint8", 1, -100, "int16"),
        ("uint8", -1, 0, "int16"),
        ("int16", 1, -1024, "int32"),
        ("uint16", 1, -1024, "int32"),
        ("uint16", 2, 0, "uint32"),
        ("int32", 4, 0, "int64"),
        ("int64", 4, 0, "float32"),
        ("int16", 0.5, 0, "float32"),
        ("int16", 1, 0.25, "float32"),
        ("float32", 2, 0, "float32"),
    ],
)
def test_scaled_integers_take_the_smallest_type_that_holds_all_they_can_be(stored, slope, inter, dtype):
    assert scaled_dtype(np.dtype(stored), (slope, inter)) == dtype


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize(("slope", "inter"), [(1, 0), (0, 5), (np.nan, 0), (2, -3), (0.1, 7.7), (-1, 0)])
def test_slope_and_inter_are_honoured_as_nibabel_does(write_nifti, numbers, name, slope, inter):
    path = write_nifti(name, numbers, scl_slope=slope, scl_inter=inter)
    box = Box((1, 0, 2), (3, 2, 5))
    truth = nib.load(path).get_fdata()
    volume = open_volume(path)
    for read, true in ((volume.read(box)[0], truth[box.slices]), (volume.read()[0], truth)):
        np.testing.assert_array_equal(read, true.astype(np.float32))
        assert read.dtype == volume.dtype
    assert (volume.dtype.kind == "f") == (slope == 0.1)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32"])
def test_every_type_of_number_stays_as_it_is(write_nifti, dtype):
    ends = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else np.finfo(dtype)
    array = np.array([[[ends.min, 0, ends.max]]], dtype)
    volume = open_volume(write_nifti("a.nii.gz", array))
    assert volume.dtype == dtype
    np.testing.assert_array_equal(volume.read()[0], array)


def test_double_precision_becomes_single(write_nifti):
    array = np.full((2, 3, 4), 1 / 3)
    read = open_volume(write_nifti("a.nii", array)).read()
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read[0], array.astype(np.float32))


@pytest.mark.parametrize(("unit", "mm"), [(0, 1.0), (1, 1000.0), (2, 1.0), (3, 0.001), (8, 1.0), (10, 1.0)])
def test_the_grid_is_in_mm_whatever_the_unit(write_nifti, numbers, unit, mm):
    affine = np.diag([2.0, 3, 4, 1])
    affine[:3, 3] = 5, 6, 7
    grid = open_volume(write_nifti("a.nii", numbers, affine, xyzt_units=unit)).grid
    np.testing.assert_allclose(grid.spacing_mm, np.array([2, 3, 4]) * mm)
    np.testing.assert_allclose(grid.affine[:3, 3], np.array([5, 6, 7]) * mm)


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 2), (1, 2), (4, 1)])
def test_the_affine_is_the_one_nibabel_picks(write_nifti, numbers, codes):
    path = write_nifti("a.nii.gz", numbers, np.diag([-2.0, 3, 4, 1]), qform_code=codes[0], sform_code=codes[1], srow_x=[-2, 0, 0, 50])
    np.testing.assert_array_equal(open_volume(path).grid.affine, nib.load(path).affine)


@pytest.mark.parametrize("shape", [(6,), (6, 5), (6, 5, 1), (6, 5, 4, 1), (6, 5, 4, 1, 1)])
def test_every_file_has_three_space_axes(write_nifti, shape):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    volume = open_volume(write_nifti("a.nii.gz", array))
    assert volume.grid.shape == (*shape, 1, 1)[:3]
    assert volume.channels == 1
    np.testing.assert_array_equal(volume.read()[0], array.reshape(volume.grid.shape))


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1)])
def test_a_slice_without_a_direction_gets_the_normal_1_mm_thick(write_nifti, shape):
    affine = np.array([[0, -2.0, 0, 0], [2, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    fields = {"srow_x": [0, -2, 0, 0], "srow_y": [2, 0, 0, 0], "srow_z": [0, 0, 0, 9]}
    grid = open_volume(write_nifti("a.nii.gz", np.zeros(shape, np.uint8), affine, **fields)).grid
    np.testing.assert_allclose(grid.affine[:3], [[0, -2, 0, 0], [2, 0, 0, 0], [0, 0, 1, 9]])


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("shape", [(3, 4, 5, 2), (3, 4, 5, 1, 2), (3, 4, 1, 2)])
def test_a_fourth_dimension_counts_channels_where_that_is_asked_for(write_nifti, name, shape):
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    volume = open_volume(write_nifti(name, array), channels_last=True)
    assert volume.channels == 2
    np.testing.assert_array_equal(volume.read(), np.moveaxis(array.reshape(*shape[:3], 2), -1, 0))


def test_the_suffix_may_be_written_in_capitals(write_nifti, numbers):
    path = write_nifti("a.nii.gz", numbers)
    np.testing.assert_array_equal(open_volume(path.rename(path.with_name("A.NII.GZ"))).read()[0], numbers)


def test_nifti_2_is_read(tmp_path, numbers):
    nib.save(nib.Nifti2Image(numbers, np.diag([1.0, 2, 3, 1])), tmp_path / "a.nii.gz")
    volume = open_volume(tmp_path / "a.nii.gz")
    assert volume.grid == Grid((3, 4, 5), spacing_mm=(1, 2, 3))
    np.testing.assert_array_equal(volume.read()[0], numbers)


def test_header_extensions_are_skipped(tmp_path, numbers):
    image = nib.Nifti1Image(numbers, np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a" * 999))
    for name in ("a.nii", "a.nii.gz"):
        nib.save(image, tmp_path / name)
        np.testing.assert_array_equal(open_volume(tmp_path / name).read()[0], numbers)


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


@on_linux
def test_a_box_of_a_nii_touches_that_box_alone(write_nifti, tmp_path):
    """A file of 8 GiB, all of it a hole: read as a whole it would not fit, here or in the time of a test."""
    shape = (2048, 2048, 1024)
    path = write_nifti("a.nii", np.zeros((1, 1, 1), np.int16), dim=[3, *shape, 1, 1, 1, 1])
    with path.open("r+b") as file:
        file.truncate(352 + 2 * np.prod(shape))
        file.seek(352 + 2 * (1000 + 2048 * (1000 + 2048 * 1000)))
        file.write(np.int16(7).tobytes())
    before = resident_bytes()
    tracemalloc.start()
    read = open_volume(path).read(Box((992, 992, 992), (1008, 1008, 1008)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read[0, 8, 8, 8] == read.sum() == 7
    assert peak < 4 * MIB
    assert resident_bytes() - before < 64 * MIB


def test_a_nii_gz_takes_no_second_copy(write_nifti):
    array = np.zeros((128, 128, 128), np.int16)
    path = write_nifti("a.nii.gz", array)
    open_volume(path)
    tracemalloc.start()
    open_volume(path).read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.3 * array.nbytes + 2 * MIB


@pytest.fixture(params=["zlib", "isal"])
def inflater(request, monkeypatch):
    """Each library that may inflate."""
    library = zlib if request.param == "zlib" else pytest.importorskip("isal.isal_zlib")
    monkeypatch.setattr(inflate, "inflater", library)
    return library


@pytest.mark.parametrize("read", [64, 1000, inflate.READ_BYTES])
@pytest.mark.parametrize("piece", [64, 4096, inflate.PIECE_BYTES])
@pytest.mark.parametrize("member", [700, 10**6])
def test_a_nii_gz_is_inflated_whatever_the_pieces(write_nifti, monkeypatch, rng, inflater, read, piece, member):
    monkeypatch.setattr(inflate, "READ_BYTES", read)
    monkeypatch.setattr(inflate, "PIECE_BYTES", piece)
    array = np.concatenate([rng.integers(-99, 99, (16, 16, 16)), np.zeros((16, 16, 16))]).astype(np.int16)
    path = write_nifti("a.nii.gz", array)
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(b"".join(gzip.compress(content[a : a + member]) for a in range(0, len(content), member)) + bytes(512))
    np.testing.assert_array_equal(open_volume(path).read()[0], array)


@pytest.mark.parametrize("damage", ["checksum", "length", "cut", "no end mark", "voxel", "garbage"])
def test_damage_is_seen_by_each_library(write_nifti, rng, inflater, damage):
    path = write_nifti("a.nii.gz", rng.integers(-99, 99, (16, 16, 16)).astype(np.int16))
    content = bytearray(path.read_bytes())
    if damage in ("checksum", "length", "voxel"):
        content[{"checksum": -8, "length": -1, "voxel": len(content) // 2}[damage]] ^= 4
    broken = {"cut": content[:-100], "no end mark": content[:-8], "garbage": content + b"garbage"}.get(damage, content)
    path.write_bytes(broken)
    with pytest.raises(ValueError, match=r"a.nii.gz: file must be sound gzip data, got: (Error -\d|it ends before its end mark)"):
        open_volume(path).read()


def test_opening_reads_no_voxel(write_nifti):
    path = write_nifti("a.nii.gz", np.zeros((128, 128, 128), np.int16))
    open_volume(path)
    tracemalloc.start()
    volume = open_volume(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert volume.grid.shape == (128, 128, 128)
    assert peak < MIB


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_quaternion_that_rounding_made_too_long_is_half_a_turn(write_nifti, numbers, name):
    """Longer than 1 by 2.5e-7; SimpleITK and FSL take it, nibabel does not."""
    fields = {"sform_code": 0, "qform_code": 1, "quatern_b": 0.70710695, "quatern_c": 0.70710695, "quatern_d": 0}
    path = write_nifti(name, numbers, np.diag([2.0, 2, 3, 1]), **fields)
    turned = np.array([[0, 2, 0, 0], [2, 0, 0, 0], [0, 0, -3, 0], [0, 0, 0, 1]])
    grid = open_volume(path).grid
    np.testing.assert_allclose(grid.affine, turned, atol=1e-6)
    image = sitk.ReadImage(str(path))
    np.testing.assert_allclose(
        np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing(), np.diag([-1, -1, 1]) @ turned[:3, :3], atol=1e-6
    )


def test_a_qform_that_is_not_used_may_be_broken(write_nifti, numbers):
    path = write_nifti("a.nii", numbers, np.diag([2.0, 2, 3, 1]), qform_code=1, quatern_b=5, pixdim=[1, -1, 0, np.nan, 1, 1, 1, 1])
    np.testing.assert_array_equal(open_volume(path).grid.affine, np.diag([2.0, 2, 3, 1]))


def test_what_is_in_a_file_counts_not_what_it_is_named(write_nifti, numbers, caplog):
    plain, packed = write_nifti("a.nii", numbers), write_nifti("b.nii.gz", numbers)
    for path, what in (
        (plain.rename(plain.with_name("c.nii.gz")), "not compressed"),
        (packed.rename(packed.with_name("d.nii")), "compressed"),
    ):
        caplog.clear()
        np.testing.assert_array_equal(open_volume(path).read()[0], numbers)
        assert f"{path}: file is {what}, whatever its name says" in caplog.text
    assert not caplog.clear()
    open_volume(write_nifti("e.nii.gz", numbers))
    assert not caplog.records


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_file_compressed_twice_is_told_so(write_nifti, numbers, tmp_path, name):
    content = write_nifti("b.nii.gz", numbers).read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=rf"{name}: file must be a sound NIfTI file, got: .* compressed twice: unpack it once"):
        open_volume(tmp_path / name)


def test_zeros_behind_a_nii_gz_cost_time_in_proportion(write_nifti, numbers, inflater):
    path = write_nifti("a.nii.gz", numbers)
    path.write_bytes(path.read_bytes() + bytes(48 * MIB))
    begin = time.process_time()
    np.testing.assert_array_equal(open_volume(path).read()[0], numbers)
    assert time.process_time() - begin < 3  # 0.3 s, and with a square in it 16 s
