"""How fast a DICOM series is read, and in how much memory, beside SimpleITK's own reader of series.

Run: ``python tests/benchmarks/bench_dicom.py [--slices 300]``. Every read is a fresh process; times are medians, in
seconds of the processor, of all it takes to find, sort and read the slices of a folder, imports not counted; memory is the peak over what
was there before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

READERS = {
    "stseg3d": ("from stseg3d.volumes import open_volume", "open_volume(folder).read()"),
    "stseg3d, header only": ("from stseg3d.volumes import open_volume", "open_volume(folder)"),
    "SimpleITK.ImageSeriesReader": (
        "import SimpleITK as sitk",
        "sitk.GetArrayFromImage(sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(folder)))",
    ),
}
# A series of one slice is read first, so that no import is timed.
SCRIPT = """
import json, sys, time
{imports}
def memory(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) / 1024
def read(folder):
    return {read}
read(sys.argv[2])
before = memory("VmRSS")
start = time.process_time()
image = read(sys.argv[1])
print(json.dumps([time.process_time() - start, memory("VmHWM") - before]))
"""


def write_series(folder: Path, slices: int, *, compress: bool) -> None:
    """A CT-like series, 512 x 512, int16: smooth shapes, noise inside, constant air outside."""
    rng = np.random.default_rng(0)
    smooth = ndimage.zoom(ndimage.gaussian_filter(rng.normal(size=(64, 64)), 2), 8, order=1) * 4000
    folder.mkdir()
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetUseCompression(compress)
    for k in range(slices):
        array = np.where(smooth > -500, smooth + rng.normal(0, 10, smooth.shape), -1000)
        image = sitk.GetImageFromArray(array.astype(np.int16)[None])
        tags = {"0008|0060": "CT", "0020|000e": "1.2.3", "0020|0032": f"0\\0\\{k * 0.7}", "0020|0037": "1\\0\\0\\0\\1\\0"}
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{slices - k}.dcm"))
        writer.Execute(image)


def measure(name: str, folder: Path, warm_up: Path, runs: int) -> tuple[float, float]:
    """Median seconds and largest growth of the peak memory, in MiB."""
    imports, read = READERS[name]
    command = [sys.executable, "-c", SCRIPT.format(imports=imports, read=read), str(folder), str(warm_up)]
    found = [json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]) for _ in range(runs)]
    return statistics.median(s for s, _ in found), max(m for _, m in found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        folders = [Path(root) / name for name in ("plain", "packed", "one")]
        write_series(folders[0], options.slices, compress=False)
        write_series(folders[1], options.slices, compress=True)
        write_series(folders[2], 1, compress=False)
        print(f"512 x 512 x {options.slices}, int16: {512 * 512 * options.slices * 2 / 2**20:.0f} MiB\n")
        print("| reader | plain s | MiB | JPEG 2000 s | MiB |\n|---|---|---|---|---|")
        for name in READERS:
            found = [measure(name, folder, folders[2], options.runs) for folder in folders[:2]]
            print(f"| {name} | {' | '.join(f'{seconds:.2f} | {mebibytes:.0f}' for seconds, mebibytes in found)} |")


if __name__ == "__main__":
    main()
