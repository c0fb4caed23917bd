"""Memory: a volume is read in parts that are given back, and labels take memory where there are some."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from stseg3d.geometry import Box
from stseg3d.ops.fuse import blank
from stseg3d.ops.resample import SLAB_VOXELS, resample_volume, slabs
from stseg3d.synthesis import ct_phantom
from stseg3d.volumes import CanonicalVolume, open_volume
from tests.systems import on_linux

STATUS = Path("/proc/self/status")
MIB = 1 << 20


def resident_mib(kind: str) -> float:
    """Memory of this process: ``RssAnon`` its own, ``RssFile`` that of mapped files."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{kind}:"))
    return int(line.split()[1]) / 1024


@pytest.mark.parametrize("axes", [None, *permutations(range(3))])
@pytest.mark.parametrize("shape", [(3, 4, 5), (160, 170, 180)])
def test_blank_is_zeros_that_lie_as_asked_for(shape, axes):
    array = blank(shape, np.dtype(np.uint8), axes)
    assert (array.shape, array.dtype, array.flags.writeable) == (shape, np.uint8, True)
    assert not array.any()
    assert sorted(range(3), key=lambda axis: array.strides[axis]) == list(axes or (2, 1, 0))
    array[1, 2, 3] = 7
    assert (array.sum(), array[1, 2, 3]) == (7, 7)


@on_linux
def test_blank_takes_memory_where_something_is_written():
    before = resident_mib("RssAnon")
    labels = blank((512, 512, 1024), np.dtype(np.uint8), (0, 1, 2))
    assert labels.max() == 0
    labels[:64, :64] = 1  # in each slice 64 rows of 512
    assert labels.sum(dtype=int) == 64 * 64 * 1024
    assert resident_mib("RssAnon") - before < 64  # of 256


@on_linux
def test_what_was_read_of_a_mapped_file_is_given_back(tmp_path, write_nifti):
    scan = write_nifti("scan.nii", np.zeros((256, 256, 600), np.int16))
    volume = open_volume(scan)
    before = resident_mib("RssFile")
    for slab in slabs(volume.grid.shape):
        assert not volume.read(slab).any()
    assert resident_mib("RssFile") - before < 16  # of 75


@pytest.mark.parametrize("axcodes", ["RAS", "SLP"])
def test_a_large_box_is_resampled_in_the_memory_of_three_slabs(axcodes, tmp_path, write_nifti, monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)  # two slabs are worked on, one is read
    volume = CanonicalVolume(open_volume(write_nifti("scan.nii", np.zeros((256, 256, 600), np.int16))), axcodes)
    box = Box((10, 9, 8), volume.grid.shape)
    tracemalloc.start()
    try:
        resample_volume(volume, (56, 56, 56), box)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert box.voxels > 8 * SLAB_VOXELS
    assert peak < 3 * 4 * SLAB_VOXELS


RUN = """
import sys
from stseg3d.inference.segment import Segmenter
Segmenter("aorta_ct_segmentation", device="cpu").segment(sys.argv[1], __import__("pathlib").Path(sys.argv[2]))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@on_linux
@pytest.mark.slow
def test_a_large_volume_takes_less_memory_than_it_has_bytes_beside_its_labels(tmp_path, write_nifti):
    """Of 512 x 512 x 800 the voxels have 400 MiB and the labels 200; tests/benchmarks/bench_huge.py has ten times as many."""
    image, _, grid = ct_phantom((128, 128, 200), seed=8)
    large = image.repeat(4, 0).repeat(4, 1).repeat(4, 2)
    scan = write_nifti("scan.nii", large, grid.resized(large.shape).affine)
    said = subprocess.run([sys.executable, "-c", RUN, str(scan), str(tmp_path / "out")], capture_output=True, text=True, check=True)
    assert np.asarray(open_volume(tmp_path / "out" / "scan_seg.nii.gz").read()).any()
    assert (
        int(said.stdout.split()[-1]) / 1024 < 435 + 600
    )  # the imports, and what slabs, networks and a mapped box take; all voxels and labels are 600 more
