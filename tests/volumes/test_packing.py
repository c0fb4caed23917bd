from __future__ import annotations

import gzip
import io
import zlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from stseg3d.geometry import Grid
from stseg3d.volumes import open_volume, packing, write_labels
from stseg3d.volumes.packing import GzipWriter


def packed(parts, strategy=zlib.Z_RLE) -> bytes:
    file = io.BytesIO()
    with GzipWriter(file, strategy=strategy) as writer:
        for part in parts:
            writer.write(part)
    return file.getvalue()


@pytest.mark.parametrize("strategy", [zlib.Z_RLE, zlib.Z_DEFAULT_STRATEGY])
@pytest.mark.parametrize("piece", [1, 7, 64, packing.PIECE_BYTES])
def test_what_was_packed_is_unpacked(monkeypatch, rng, piece, strategy):
    monkeypatch.setattr(packing, "PIECE_BYTES", piece)
    parts = [b"", b"header", np.zeros(300, np.uint8), rng.integers(0, 256, 300).astype(np.uint8), bytes(64), b"\0\1" * 50, bytes(299)]
    assert gzip.decompress(packed(parts, strategy)) == b"".join(bytes(part) for part in parts)


def test_nothing_is_packed_into_an_empty_file():
    assert gzip.decompress(packed([])) == b""


def test_zeros_are_compressed_once(monkeypatch):
    seen = []
    flushed = GzipWriter._flushed
    monkeypatch.setattr(GzipWriter, "_flushed", lambda self, piece: seen.append(len(piece)) or flushed(self, piece))
    n = packing.PIECE_BYTES
    packed([bytes(9 * n), bytes(n - 1) + b"\1", bytes(2 * n + 5), bytes(5)])
    assert seen == [n, n, 5]


def test_a_file_whose_writing_failed_has_no_end_mark():
    file = io.BytesIO()
    writer = GzipWriter(file, strategy=zlib.Z_RLE)
    writer.write(b"labels")
    writer.__exit__(OSError, OSError(28, "full"), None)
    with pytest.raises(EOFError, match="end-of-stream"):
        gzip.decompress(file.getvalue())


def test_every_reader_reads_labels(write_nifti, tmp_path, rng):
    labels = np.zeros((64, 64, 48), np.uint8)
    labels[10:30, 12:40, 20:40] = rng.integers(0, 4, (20, 28, 20))
    path = write_labels(labels, tmp_path / "out.nii.gz", open_volume(write_nifti("a.nii", labels)))
    np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), labels)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).T, labels)
    np.testing.assert_array_equal(open_volume(path).read()[0], labels)


def test_the_same_labels_are_the_same_bytes_however_they_lie_in_memory(tmp_path, rng):
    labels = rng.integers(0, 3, (20, 30, 40)).astype(np.uint8)
    like = open_volume(write_labels(labels, tmp_path / "like.nii.gz", Grid(labels.shape)))
    files = [
        write_labels(array, tmp_path / "out.nii.gz", like).read_bytes()
        for array in (labels, np.asfortranarray(labels), labels.astype(np.int64))
    ]
    assert files[0] == files[1] == files[2] == (tmp_path / "like.nii.gz").read_bytes()
