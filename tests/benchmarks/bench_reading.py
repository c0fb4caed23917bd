"""Which library reads NIfTI fastest; what writing costs, bench_writing.py tells.

Run: ``python tests/benchmarks/bench_reading.py [--slices 300] [--file ct.nii.gz]``. Every read is a fresh process; times are medians,
imports not counted, memory is the peak over what was there before.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

# Each gives all voxels in memory of its own or, as the last, a box of them.
READERS = {
    "stseg3d, zlib": (
        "import zlib; from stseg3d.volumes import inflate, open_volume; inflate.inflater = zlib",
        "open_volume(path).read()",
    ),
    "stseg3d, isal": (
        "from isal import isal_zlib; from stseg3d.volumes import inflate, open_volume; inflate.inflater = isal_zlib",
        "open_volume(path).read()",
    ),
    "SimpleITK": ("import SimpleITK as sitk", "sitk.GetArrayViewFromImage(sitk.ReadImage(path))"),
    "nibabel": ("import nibabel as nib, numpy as np", "np.array(nib.load(path).dataobj)"),
    "itk": ("import itk", "itk.array_view_from_image(itk.imread(path))"),
    "MONAI LoadImage": ("from monai.transforms import LoadImage", "LoadImage(dtype=None)(path)"),
    "stseg3d, 96^3 box": (
        "from stseg3d.volumes import open_volume; from stseg3d.geometry import Box",
        "open_volume(path).read(Box(*(((0, 0, 0), (4, 4, 4)) if path == sys.argv[2] else ((200, 200, 2), (296, 296, 98)))))",
    ),
}
# A tiny file is read first, so that no import is timed. ru_maxrss would be the parent's: a child inherits it.
SCRIPT = """
import json, sys, time
{imports}
def memory(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) / 1024
def read(path):
    return {read}
read(sys.argv[2])
before = memory("VmRSS")
start = time.perf_counter()
image = read(sys.argv[1])
print(json.dumps([time.perf_counter() - start, memory("VmHWM") - before]))
"""


def make_ct(path: Path, slices: int) -> None:
    """A scan-like int16 volume: smooth shapes, noise inside, constant air outside."""
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.normal(size=(64, 64, 25)), 2)
    volume = ndimage.zoom(smooth, (8, 8, slices / 25), order=1) * 8000
    volume = np.where(volume > -500, volume + rng.normal(0, 10, volume.shape), -1000)
    nib.save(nib.Nifti1Image(volume.astype(np.int16), np.diag([0.7, 0.7, 1.5, 1.0])), path)


def measure(name: str, path: Path, warm_up: Path, runs: int) -> tuple[float, float]:
    """Median seconds and largest growth of the peak memory, in MiB."""
    imports, read = READERS[name]
    command = [sys.executable, "-c", SCRIPT.format(imports=imports, read=read), str(path), str(warm_up)]
    found = []
    for _ in range(runs):
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found.append(json.loads(out.splitlines()[-1]))
    return statistics.median(s for s, _ in found), max(m for _, m in found)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--file", type=Path, help="a real scan, in place of the made one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # One folder each: asked for a.nii.gz, SimpleITK and itk read the voxels of a.nii, if there is one beside it.
        packed, plain, *small = (Path(folder) / name for name in ("gz/ct.nii.gz", "nii/ct.nii", "gz/small.nii.gz", "nii/small.nii"))
        for file in (packed, plain):
            file.parent.mkdir()
        if options.file:
            packed.symlink_to(options.file.resolve())
        else:
            make_ct(packed, options.slices)
        image = nib.load(packed)
        volume = np.asarray(image.dataobj)
        nib.save(nib.Nifti1Image(volume, image.affine), plain)
        for file in small:
            nib.save(nib.Nifti1Image(volume[:8, :8, :8], np.eye(4)), file)
        print(f"{volume.shape} {volume.dtype}, {packed.stat().st_size / 1e6:.0f} of {volume.nbytes / 1e6:.0f} MB\n")
        print("| reader | .nii.gz s | MiB | .nii s | MiB |\n|---|---|---|---|---|")
        for name in READERS:
            if name == "stseg3d, isal" and not importlib.util.find_spec("isal"):
                print("| stseg3d, isal: not installed | | | | |")
                continue
            found = [measure(name, path, warm_up, options.runs) for path, warm_up in zip((packed, plain), small, strict=True)]
            cells = [f"{seconds:.3f} | {mebibytes:.0f}" for seconds, mebibytes in found]
            print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
