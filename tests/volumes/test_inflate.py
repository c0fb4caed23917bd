from __future__ import annotations

import gzip
import pickle
import threading
import zlib

import numpy as np
import pytest

from stseg3d.geometry import Box
from stseg3d.ops.resample import SLAB_VOXELS, resample_volume
from stseg3d.volumes import ArrayVolume, CanonicalVolume, inflate, open_volume, read_each

BOXES = [Box((0, 0, 12), (16, 16, 16)), Box((3, 4, 0), (9, 16, 5)), Box((15, 15, 15), (16, 16, 16)), Box((0, 0, 0), (1, 1, 1))]


@pytest.fixture(params=["zlib", "isal"], autouse=True)
def inflater(request, monkeypatch):
    """Each library that may inflate; in pieces that are small beside the files here."""
    library = zlib if request.param == "zlib" else pytest.importorskip("isal.isal_zlib")
    monkeypatch.setattr(inflate, "inflater", library)
    monkeypatch.setattr(inflate, "READ_BYTES", 100)
    monkeypatch.setattr(inflate, "PIECE_BYTES", 256)


@pytest.fixture
def noise(rng):
    return rng.integers(-99, 99, (16, 16, 16)).astype(np.int16)


def broken(path):
    """The file with another checksum."""
    content = bytearray(path.read_bytes())
    content[-8] ^= 4
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("slope", [1, 2, 0.5])
@pytest.mark.parametrize("shape", [(16, 16, 16), (16, 16, 16, 3)])
def test_boxes_read_one_by_one_are_those_read_alone(write_nifti, rng, name, slope, shape):
    path = write_nifti(name, rng.integers(-99, 99, shape).astype(np.int16), scl_slope=slope)
    volume, alone = open_volume(path, channels_last=True), open_volume(path, channels_last=True)
    read = list(read_each(volume, BOXES))
    assert [box for box, _ in read] == BOXES
    for box, voxels in read:
        np.testing.assert_array_equal(voxels, alone.read(box))
        assert voxels.dtype == volume.dtype
    np.testing.assert_array_equal(volume.read(), alone.read())


def test_boxes_of_an_array_are_read_one_by_one(noise, write_nifti):
    volume = ArrayVolume(noise[None], open_volume(write_nifti("a.nii", noise)).grid)
    for box, voxels in read_each(volume, BOXES):
        np.testing.assert_array_equal(voxels[0], noise[box.slices])


def test_a_file_is_inflated_once(write_nifti, noise, monkeypatch):
    volume = open_volume(write_nifti("a.nii.gz", noise))
    list(read_each(volume, BOXES[:1]))
    monkeypatch.setattr(inflate.GzipVoxels, "inflate", lambda self: pytest.fail("inflated again"))
    for box, voxels in [*read_each(volume, BOXES), (BOXES[1], volume.read(BOXES[1]))]:
        np.testing.assert_array_equal(voxels[0], noise[box.slices])


def test_first_voxels_come_before_the_last(write_nifti, noise, monkeypatch):
    here = threading.Event()
    pieces = inflate._inflated

    def late(path, *most):
        for n, piece in enumerate(pieces(path, *most)):
            assert n < 20 or here.wait(60)
            yield piece

    monkeypatch.setattr(inflate, "_inflated", late)
    reading = read_each(open_volume(write_nifti("a.nii.gz", noise)), [BOXES[3], BOXES[2]])
    assert next(reading)[1][0] == noise[0, 0, 0]
    assert not here.is_set()
    here.set()
    assert next(reading)[1][0] == noise[-1, -1, -1]
    assert list(reading) == []


def test_a_broken_file_is_told_at_the_end_at_the_latest(write_nifti, noise):
    reading = read_each(open_volume(broken(write_nifti("a.nii.gz", noise))), BOXES[3:])
    with pytest.raises(ValueError, match=r"a.nii.gz: file must be sound gzip data"):
        list(reading)


@pytest.mark.parametrize("cut", [30, 2000])
def test_a_box_that_never_comes_is_told(write_nifti, noise, cut):
    path = write_nifti("a.nii.gz", noise)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ValueError, match=r"a.nii.gz: file must be sound gzip data, got: it ends before its end mark"):
        list(read_each(open_volume(path), BOXES))


def test_a_file_that_is_too_short_is_told(write_nifti, noise):
    path = write_nifti("a.nii.gz", noise)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-2]))
    with pytest.raises(ValueError, match=r"a.nii.gz: file must hold the 8544 bytes its header asks for, got 8542"):
        list(read_each(open_volume(path), BOXES))


def test_a_broken_file_is_not_resampled(write_nifti, rng):
    shape = (128, 128, SLAB_VOXELS // 128**2 + 1)
    path = broken(write_nifti("a.nii.gz", np.broadcast_to(rng.integers(0, 9, shape[2]), shape).astype(np.uint8)))
    with pytest.raises(ValueError, match="file must be sound gzip data"):
        resample_volume(CanonicalVolume(open_volume(path)), (8, 8, 8))


def test_only_compressed_files_are_read_by_a_thread(write_nifti, noise):
    reading = read_each(open_volume(write_nifti("a.nii", noise)), BOXES)
    before = threading.active_count()
    next(reading)
    volume = open_volume(write_nifti("b.nii", noise))
    volume.start_reading()
    assert threading.active_count() == before
    np.testing.assert_array_equal(volume.read()[0], noise)


@pytest.mark.parametrize("one_by_one", [False, True])
def test_reading_that_was_begun_is_gone_on_with(write_nifti, noise, monkeypatch, one_by_one):
    volume = open_volume(write_nifti("a.nii.gz", noise))
    volume.start_reading()
    volume.start_reading()
    monkeypatch.setattr(inflate.GzipVoxels, "__init__", lambda *_: pytest.fail("inflated again"))
    found = next(volume.read_each([volume.grid.box]))[1] if one_by_one else volume.read()
    np.testing.assert_array_equal(found[0], noise)


def test_what_is_wrong_with_reading_that_was_begun_is_told_by_the_read(write_nifti, noise):
    volume = open_volume(broken(write_nifti("a.nii.gz", noise)))
    volume.start_reading()
    with pytest.raises(ValueError, match="file must be sound gzip data"):
        volume.read(BOXES[3])


def test_a_volume_that_is_being_read_is_sent_without_its_voxels(write_nifti, noise):
    volume = open_volume(write_nifti("a.nii.gz", noise))
    volume.start_reading()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read()[0], noise)
    np.testing.assert_array_equal(volume.read()[0], noise)


def test_whoever_stops_reading_stops_the_thread(write_nifti, noise, monkeypatch):
    seen = threading.Semaphore(0)
    pieces = inflate._inflated

    def slow(path, *most):
        for n, piece in enumerate(pieces(path, *most)):
            assert n < 5 or seen.acquire(timeout=60)
            yield piece

    monkeypatch.setattr(inflate, "_inflated", slow)
    volume = open_volume(write_nifti("a.nii.gz", noise))
    reading = read_each(volume, BOXES[3:] * 2)
    next(reading)
    thread = next(t for t in threading.enumerate() if t.name == "inflating a.nii.gz")
    reading.close()
    seen.release()
    thread.join(60)
    assert not thread.is_alive()
    for _ in range(100):
        seen.release()
    np.testing.assert_array_equal(volume.read()[0], noise)


def test_a_box_outside_is_refused(write_nifti, noise):
    volume = open_volume(write_nifti("a.nii.gz", noise))
    with pytest.raises(ValueError, match="box must be inside the image"):
        list(read_each(volume, [Box((0, 0, 0), (17, 1, 1))]))
