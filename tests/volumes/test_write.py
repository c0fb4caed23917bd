from __future__ import annotations

import gzip
import os
import tracemalloc
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from stseg3d.geometry import Grid
from stseg3d.volumes import (
    ArrayVolume,
    CanonicalVolume,
    ensure_writable,
    load_dataset,
    open_volume,
    write,
    write_labels,
    write_probabilities,
)

OBLIQUE = np.array([[0.76, -0.11, -0.71, -31.0], [0.05, 0.88, -0.53, 17.5], [0.24, 0.16, 2.34, -204.0], [0, 0, 0, 1.0]])
KEPT = (
    "qform_code",
    "sform_code",
    "xyzt_units",
    "descrip",
    "pixdim",
    "quatern_b",
    "qoffset_x",
    "srow_x",
    "srow_y",
    "srow_z",
    "dim",
    "sizeof_hdr",
)


def affine_of(axcodes: str, shape: tuple[int, ...]) -> np.ndarray:
    ornt = nib.orientations.axcodes2ornt(axcodes)
    return np.diag([0.7, 1.1, 2.5, 1.0]) @ np.linalg.inv(nib.orientations.inv_ornt_aff(ornt, shape))


def assert_on_the_grid_of(written: Path, source: Path) -> None:
    """Raise unless two NIfTI files have the same shape, affine, codes, units and description."""
    one, other = nib.load(written), nib.load(source)
    assert one.shape == other.shape
    assert np.array_equal(one.affine, other.affine)
    for key in KEPT:
        assert np.array_equal(one.header[key], other.header[key]), key


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 1), (1, 5, 6), (4, 5), (7,), (4, 5, 6, 1)])
@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 2), (4, 3)])
def test_labels_are_written_on_exactly_the_inputs_grid(write_nifti, tmp_path, rng, name, shape, codes):
    fields = {
        "qform_code": codes[0],
        "sform_code": codes[1],
        "xyzt_units": 10,
        "descrip": b"by a scanner",
        "scl_slope": 0.5,
        "scl_inter": 3,
    }
    source = write_nifti(f"in/{name}", rng.integers(0, 99, shape).astype(np.int16), affine_of("LPS", (4, 5, 6)), **fields)
    volume = open_volume(source)
    labels = rng.integers(0, 4, volume.grid.shape).astype(np.int64)
    written = write_labels(labels, tmp_path / name, volume)
    assert_on_the_grid_of(written, source)
    image = nib.load(written)
    assert image.get_data_dtype() == np.uint8
    assert (float(image.dataobj.slope), float(image.dataobj.inter)) == (1, 0)
    np.testing.assert_array_equal(np.asarray(image.dataobj), labels.reshape(shape))
    assert open_volume(written).grid == volume.grid


@pytest.mark.parametrize("axcodes", ["".join(c) for order in permutations(("LR", "PA", "IS")) for c in product(*order)])
def test_what_is_done_in_the_canonical_view_comes_back_in_place(write_nifti, tmp_path, rng, axcodes):
    array = rng.integers(0, 200, (4, 5, 6)).astype(np.uint8)
    source = write_nifti("in/a.nii", array, affine_of(axcodes, array.shape))
    view = CanonicalVolume(open_volume(source), "RAS")
    written = write_labels(view.restore(view.read()[0]), tmp_path / "a.nii.gz", view.volume)
    assert_on_the_grid_of(written, source)
    np.testing.assert_array_equal(np.asarray(nib.load(written).dataobj), array)


def test_an_oblique_and_sheared_grid_is_kept(write_nifti, tmp_path):
    sheared = OBLIQUE.copy()
    sheared[0, 1] += 0.3
    for affine in (OBLIQUE, sheared):
        source = write_nifti("in/a.nii", np.zeros((4, 5, 6), np.int16), affine)
        written = write_labels(np.ones((4, 5, 6), np.uint8), tmp_path / "a.nii.gz", open_volume(source))
        assert_on_the_grid_of(written, source)
        bare = write_labels(np.ones((4, 5, 6), np.uint8), tmp_path / "b.nii.gz", Grid((4, 5, 6), affine))
        np.testing.assert_allclose(nib.load(bare).affine, affine, rtol=1e-6)


def test_big_endian_nifti_2_in_micrometres_is_kept_but_for_the_byte_order(tmp_path):
    image = nib.Nifti2Image(np.zeros((4, 5, 6), np.int16), np.diag([5.0, 5, 20, 1]), nib.Nifti2Header(endianness=">"))
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "in.nii.gz")
    volume = open_volume(tmp_path / "in.nii.gz")
    assert volume.grid.spacing_mm == pytest.approx((0.005, 0.005, 0.02))
    written = write_labels(np.ones((4, 5, 6), np.uint16), tmp_path / "out.nii", volume)
    assert isinstance(nib.load(written), nib.Nifti2Image)
    assert_on_the_grid_of(written, tmp_path / "in.nii.gz")
    assert nib.load(written).get_fdata().all()


@pytest.mark.parametrize(
    ("largest", "dtype"), [(0, "uint8"), (255, "uint8"), (256, "uint16"), (65535, "uint16"), (65536, "uint32"), (2**32 - 1, "uint32")]
)
@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_the_type_is_the_smallest_that_holds_the_labels(tmp_path, largest, dtype, suffix):
    labels = np.zeros((3, 2, 2), np.int64)
    labels[1, 1, 0] = largest
    volume = open_volume(write_labels(labels, tmp_path / f"a{suffix}", Grid((3, 2, 2))))
    assert volume.dtype == dtype
    np.testing.assert_array_equal(volume.read()[0], labels)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_every_format_keeps_the_grid(tmp_path, rng, suffix):
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = rotation * [0.7, 1.1, 2.5]
    affine[:3, 3] = -31, 17.5, -204
    labels = rng.integers(0, 9, (4, 5, 6)).astype(np.uint8)
    volume = open_volume(write_labels(labels, tmp_path / f"a{suffix}", Grid(labels.shape, affine)))
    assert volume.grid.is_close(Grid(labels.shape, affine), 1e-4)
    np.testing.assert_array_equal(volume.read()[0], labels)
    image = sitk.ReadImage(str(tmp_path / f"a{suffix}"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, labels)
    world = np.array(image.TransformIndexToPhysicalPoint((3, 2, 1))) * [-1, -1, 1]
    np.testing.assert_allclose(world, (affine @ [3, 2, 1, 1])[:3], atol=1e-4)


def test_bool_and_two_dimensional_labels_are_taken(tmp_path):
    labels = np.eye(4, 5, dtype=bool)
    written = write_labels(labels, tmp_path / "a.nii", ArrayVolume(np.zeros((1, 4, 5, 1)), Grid((4, 5, 1))))
    np.testing.assert_array_equal(np.asarray(nib.load(written).dataobj)[..., 0], labels)
    assert nib.load(written).shape == (4, 5, 1)
    assert nib.load(write_labels(labels, tmp_path / "b.nii", Grid((4, 5)))).shape == (4, 5)


def test_the_same_labels_give_the_same_bytes(tmp_path):
    files = [write_labels(np.ones((9, 9, 9), np.uint8), tmp_path / name, Grid((9, 9, 9))).read_bytes() for name in ("a.nii.gz", "b.nii.gz")]
    assert files[0] == files[1]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 1), (4, 5)])
def test_probabilities_are_four_dimensional_float32(write_nifti, tmp_path, rng, dtype, shape):
    source = write_nifti("in/a.nii", np.zeros(shape, np.int16), OBLIQUE)
    volume = open_volume(source)
    probabilities = rng.random((3, *volume.grid.shape)).astype(dtype)
    image = nib.load(write_probabilities(probabilities, tmp_path / "a.nii.gz", volume))
    assert image.shape == (*volume.grid.shape, 3)
    assert image.get_data_dtype() == np.float32
    np.testing.assert_allclose(image.affine, nib.load(source).affine)
    np.testing.assert_array_equal(np.moveaxis(np.asarray(image.dataobj), -1, 0), probabilities.astype(np.float32))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(("dtype", "classes"), [(np.int64, None), (np.float16, 2)])
def test_no_whole_copy_is_made_in_the_type_of_the_file(tmp_path, suffix, dtype, classes):
    shape = (128, 128, 256)
    array = np.zeros((classes, *shape) if classes else shape, dtype)
    writing = write_probabilities if classes else write_labels
    writing(array, tmp_path / f"warm{suffix}", Grid(shape))
    tracemalloc.start()
    writing(array, tmp_path / f"a{suffix}", Grid(shape))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.3 * np.prod(shape)  # of one byte a voxel at least


def test_an_image_of_channels_gets_labels_of_three_dimensions(write_nifti, tmp_path):
    volume = open_volume(write_nifti("in/a.nii", np.zeros((4, 5, 6, 2), np.int16)), channels_last=True)
    assert nib.load(write_labels(np.zeros((4, 5, 6), np.uint8), tmp_path / "a.nii", volume)).shape == (4, 5, 6)


@pytest.mark.parametrize(
    ("labels", "name", "message"),
    [
        (np.zeros((2, 3, 4)), "a.nii", "labels must be integers from 0 to 4294967295, got float64"),
        (np.full((2, 3, 4), -1), "a.nii", "labels must be integers from 0 to 4294967295, got -1 to -1"),
        (np.full((2, 3, 4), 2**32), "a.nii", "got 4294967296 to 4294967296"),
        (np.zeros((4, 3, 2), np.uint8), "a.nii", r"labels must be of shape \(2, 3, 4\), as the image they belong to, got \(4, 3, 2\)"),
        (np.zeros((2, 3, 4), np.uint8), "a.png", r"a.png: file type must be one of .nii.gz, .nii, .nrrd, .mha, got '.png'"),
        (np.zeros((2, 3, 4), np.uint8), "a.txt", r"a.txt: file type must be one of .* got '.txt'"),
        (np.zeros((2, 3, 4), np.uint8), "a.mhd", r"a.mhd: file type must be one of .* got '.mhd'"),
    ],
)
def test_labels_that_cannot_be_are_refused_and_nothing_is_written(tmp_path, labels, name, message):
    with pytest.raises(ValueError, match=message):
        write_labels(labels, tmp_path / name, Grid((2, 3, 4)))
    assert not list(tmp_path.iterdir())


def test_probabilities_are_written_as_nifti_only(tmp_path):
    with pytest.raises(ValueError, match=r"a.mha: probabilities are written as .nii.gz or .nii only"):
        write_probabilities(np.zeros((2, 3, 4, 5)), tmp_path / "a.mha", Grid((3, 4, 5)))
    with pytest.raises(ValueError, match=r"probabilities must be of shape \(3, 4, 5\)"):
        write_probabilities(np.zeros((3, 4, 5)), tmp_path / "a.nii", Grid((3, 4, 5)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [write.GzipFile, gzip.GzipFile])
def test_every_reader_reads_labels(write_nifti, tmp_path, rng, monkeypatch, kind):
    monkeypatch.setattr(write, "GzipFile", kind)  # as where isal is not installed
    labels = np.zeros((64, 64, 48), np.uint8)
    labels[10:30, 12:40, 20:40] = rng.integers(0, 4, (20, 28, 20))
    path = write_labels(labels, tmp_path / "out.nii.gz", open_volume(write_nifti("a.nii", labels)))
    np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), labels)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T, labels)
    np.testing.assert_array_equal(open_volume(path).read()[0], labels)


def test_the_same_labels_are_the_same_bytes_however_they_lie_in_memory(tmp_path, rng):
    labels = rng.integers(0, 3, (20, 30, 40)).astype(np.uint8)
    like = open_volume(write_labels(labels, tmp_path / "like.nii.gz", Grid(labels.shape)))
    files = [
        write_labels(array, tmp_path / "out.nii.gz", like).read_bytes()
        for array in (labels, np.asfortranarray(labels), labels.astype(np.int64))
    ]
    assert files[0] == files[1] == files[2] == (tmp_path / "like.nii.gz").read_bytes()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, suffix):
    path = write_labels(np.ones((4, 5, 6), np.uint8), tmp_path / f"a{suffix}", Grid((4, 5, 6)))
    content = path.read_bytes()

    def disk_full(array, write, header):
        write(header.binaryblock)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write, "_write_stream", disk_full)
    with pytest.raises(OSError, match="No space left"):
        write_labels(np.zeros((4, 5, 6), np.uint8), path, Grid((4, 5, 6)))
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == content


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none/a.nii.gz: output folder must exist, got none"):
        write_labels(np.zeros((4, 5, 6), np.uint8), tmp_path / "none" / "a.nii.gz", Grid((4, 5, 6)))


def test_an_output_folder_is_made_and_left_empty(tmp_path):
    assert list(ensure_writable(tmp_path / "a" / "b").iterdir()) == []


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(OSError, match="file: output folder must be writable, got: File exists"):
        ensure_writable(tmp_path / "file")
    with pytest.raises(OSError, match="file/below: output folder must be writable, got: Not a directory"):
        ensure_writable(tmp_path / "file" / "below")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_an_output_folder_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="output folder must be writable, got: Permission denied"):
        ensure_writable(tmp_path)


def test_neither_time_nor_name_is_in_the_file(tmp_path):
    path = write_labels(np.zeros((64, 64, 64), np.uint8), tmp_path / "a.nii.gz", Grid((64, 64, 64)))
    assert path.read_bytes()[:4] == b"\x1f\x8b\x08\x00"  # RFC 1952: no flags
    assert path.read_bytes()[4:8] == bytes(4)  # no time of writing
    assert len(gzip.decompress(path.read_bytes())) == 352 + 64**3


@pytest.mark.parametrize("name", ["vertebrae_mr", "hippocampus_mr"])
def test_real_scans_are_read_and_written_as_nibabel_sees_them(data_dir, tmp_path, name):
    for case in load_dataset(data_dir / name).validation[:2]:
        volume, truth = open_volume(case.image), nib.load(case.image)
        np.testing.assert_array_equal(volume.read()[0], np.asarray(truth.dataobj))
        labels = open_volume(case.label).read()[0].astype(np.uint8)
        written = write_labels(labels, tmp_path / case.image.name, volume)
        assert_on_the_grid_of(written, case.image)
        np.testing.assert_array_equal(np.asarray(nib.load(written).dataobj), labels)
