"""Peak memory and time of one scan of 512 x 512 x 300 int16 through ``stseg3d segment`` and through ``monai.bundle run``.

Run: ``python tests/benchmarks/bench_segment.py [--slices 300] [--runs 3] [--suffix .nii.gz]``. Every run is a fresh process; memory is the
peak of the process, imports included; times are medians. The floor is reading and writing alone, with the fastest library.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from stseg3d.bundle import find_bundle
from stseg3d.training.phantoms import ct_phantom

BUNDLE = find_bundle("aorta_ct_segmentation")
FLOOR = """
import sys
import SimpleITK as sitk
image = sitk.ReadImage(sys.argv[1])
sitk.WriteImage(image > 300, sys.argv[2] + "/floor_seg.nii.gz", True, 1)
"""
# Runs what follows, then prints its peak: ru_maxrss of a child would begin with that of its parent.
WITH_PEAK = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as stop:
    assert not stop.code, stop.code
finally:
    print("VmHWM", next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def make_scan(path: Path, slices: int) -> None:
    """A CT phantom, each voxel of a coarser one repeated: only the size counts here."""
    image, _, grid = ct_phantom((256, 256, slices // 2), seed=8)
    large = image.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    large = large + np.random.default_rng(0).integers(-8, 8, large.shape, dtype=np.int16)
    nib.save(nib.Nifti1Image(large, grid.resized(large.shape).affine), path)


def commands(scan: Path, out: Path) -> dict[str, Sequence[str]]:
    """What is measured, as arguments of a Python process."""
    run = [
        "--config_file",
        f"{BUNDLE}/configs/inference.json",
        "--bundle_root",
        str(BUNDLE),
        "--dataset_dir",
        str(scan),
        "--output_dir",
        str(out),
    ]
    return {
        "read + write": ["-c", FLOOR + WITH_PEAK.splitlines()[-1].strip(), str(scan), str(out)],
        "stseg3d segment": ["-c", WITH_PEAK, "stseg3d", "segment", str(scan), "--bundle", str(BUNDLE), "-o", str(out), "--overwrite"],
        "monai.bundle run": ["-c", WITH_PEAK, "monai.bundle", "run", *run],
    }


def measure(arguments: Sequence[str]) -> tuple[float, float]:
    """Seconds and peak MiB of a fresh process."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    peak = next(line.split()[1] for line in done.stdout.splitlines() if line.startswith("VmHWM"))
    return seconds, float(peak) / 1024


def main() -> None:
    """Print the table, and the stages of the command from its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--suffix", default=".nii.gz", choices=(".nii.gz", ".nii"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scan, out = Path(folder, f"scan{options.suffix}"), Path(folder, "out")
        out.mkdir()
        make_scan(scan, options.slices)
        rows: dict[str, list[tuple[float, float]]] = {}
        for _ in range(options.runs):  # interleaved: the machine's mood changes
            for name, arguments in commands(scan, out).items():
                rows.setdefault(name, []).append(measure(arguments))
        provenance = json.loads((out / "scan_seg.json").read_text())
    print(f"512 x 512 x {options.slices} int16 {options.suffix}, {len(provenance['boxes'])} boxes, median of {options.runs}")
    print(f"{'':20}{'seconds':>10}{'peak MiB':>10}")
    for name, runs in rows.items():
        print(f"{name:20}{statistics.median(s for s, _ in runs):10.1f}{statistics.median(m for _, m in runs):10.0f}")
    print("stages of stseg3d segment, s:", provenance["seconds"])


if __name__ == "__main__":
    main()
