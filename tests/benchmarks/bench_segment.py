"""What a scan costs, from file to file: bare reading and writing, ``stseg3d``, and the pipeline that a MONAI user writes.

Run: ``python tests/benchmarks/bench_segment.py [--slices 300] [--runs 5] [--suffix .nii.gz] [-o speed.json --plot speed.png]``. Scans of
512 x 512 x N int16; every run is a fresh process, imports included, the ways of one round one after the other so that the machine's moods
hit all alike. Medians of wall seconds, of processor seconds and of the peak of resident memory. The floor is SimpleITK reading the file and
writing a mask. "MONAI" is LoadImaged, EnsureChannelFirstd, Orientationd, Spacingd (1.5 mm), ScaleIntensityRanged, SlidingWindowInferer
(96^3), Activationsd, Invertd, AsDiscreted and SaveImaged, with the fine network of the bundle.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from stseg3d.bundle import find_bundle
from stseg3d.training.phantoms import ct_phantom

BUNDLE = find_bundle("aorta_ct_segmentation")
PEAK = 'print("VmHWM", next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))'
FLOOR = f"""
import sys
import SimpleITK as sitk
image = sitk.ReadImage(sys.argv[1])
sitk.WriteImage(image > 300, sys.argv[2] + "/floor_seg.nii.gz", True, 1)
{PEAK}
"""
# Runs what follows, then prints its peak: ru_maxrss of a child would begin with that of its parent.
MODULE = f"""
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as stop:
    assert not stop.code, stop.code
finally:
    {PEAK}
"""
INFERER = f"""
import sys
from pathlib import Path
import numpy as np
import torch
import nibabel as nib
from monai.data import MetaTensor
from stseg3d.bundle import load_network
network, parser = load_network(Path(sys.argv[3]), "cpu")
image = nib.load(sys.argv[1])
tensor = MetaTensor(torch.from_numpy(np.asarray(image.dataobj))[None, None], affine=torch.from_numpy(image.affine))
labels = parser.get_parsed_content("inferer")(tensor, network)
nib.save(nib.Nifti1Image(labels[0, 0].numpy(), image.affine), sys.argv[2] + "/inferer_seg.nii.gz")
{PEAK}
"""
MONAI = f"""
import sys
from pathlib import Path
import torch
from monai.inferers import SlidingWindowInferer
from monai.transforms import *
from stseg3d.bundle import load_network
network, _ = load_network(Path(sys.argv[3]), "cpu")
before = Compose([
    LoadImaged("image"),
    EnsureChannelFirstd("image"),
    Orientationd("image", axcodes="RAS"),
    Spacingd("image", pixdim=(1.5, 1.5, 1.5), mode="bilinear"),
    ScaleIntensityRanged("image", a_min=-200, a_max=500, b_min=-2.0, b_max=2.0, clip=True),
])
after = Compose([
    Activationsd("pred", softmax=True),
    Invertd("pred", transform=before, orig_keys="image", nearest_interp=False, to_tensor=True),
    AsDiscreted("pred", argmax=True),
    SaveImaged("pred", output_dir=sys.argv[2], output_postfix="monai", separate_folder=False, resample=False, print_log=False),
])
with torch.inference_mode():
    data = before({{"image": sys.argv[1]}})
    data["pred"] = SlidingWindowInferer((96, 96, 96), sw_batch_size=1, overlap=float(sys.argv[4]))(data["image"][None], network.fine)[0]
    after(data)
{PEAK}
"""
ROWS = ("read + write", "stseg3d segment", "monai.bundle run", "inferer on a tensor", "MONAI, overlap 0.25", "MONAI, overlap 0.5")


def make_scan(path: Path, slices: int) -> None:
    """A CT phantom, each voxel of a coarser one repeated: only the size counts here."""
    image, _, grid = ct_phantom((256, 256, slices // 2), seed=8)
    large = image.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    large = large + np.random.default_rng(0).integers(-8, 8, large.shape, dtype=np.int16)
    nib.save(nib.Nifti1Image(large, grid.resized(large.shape).affine), path)


def commands(scan: Path, out: Path) -> dict[str, Sequence[str]]:
    """What is measured, as arguments of a Python process."""
    paths = [str(scan), str(out)]
    config = ["--config_file", f"{BUNDLE}/configs/inference.json", "--bundle_root", str(BUNDLE)]
    return {
        "read + write": ["-c", FLOOR, *paths],
        "stseg3d segment": ["-c", MODULE, "stseg3d", "segment", paths[0], "--bundle", str(BUNDLE), "-o", paths[1], "--overwrite"],
        "monai.bundle run": ["-c", MODULE, "monai.bundle", "run", *config, "--dataset_dir", paths[0], "--output_dir", paths[1]],
        "inferer on a tensor": ["-c", INFERER, *paths, str(BUNDLE)],
        "MONAI, overlap 0.25": ["-c", MONAI, *paths, str(BUNDLE), "0.25"],
        "MONAI, overlap 0.5": ["-c", MONAI, *paths, str(BUNDLE), "0.5"],
    }


def measure(arguments: Sequence[str]) -> dict[str, float]:
    """Wall and processor seconds and peak MiB of a fresh process.

    Raises:
        RuntimeError: If it fails; with what it said.
    """
    start = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, *arguments], stdout=said, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read().decode()
    if process.returncode:
        raise RuntimeError(text[-2000:])
    peak = next(line.split()[1] for line in text.splitlines() if line.startswith("VmHWM"))
    return {"wall_s": seconds, "cpu_s": used.ru_utime + used.ru_stime, "peak_mib": float(peak) / 1024}


def bench(slices: int, suffix: str, runs: int, names: Sequence[str]) -> dict[str, Any]:
    """Medians of each row for one size, and the stages of the last ``stseg3d segment``."""
    with tempfile.TemporaryDirectory() as folder:
        scan, out = Path(folder, f"scan{suffix}"), Path(folder, "out")
        out.mkdir()
        make_scan(scan, slices)
        found: dict[str, list[dict[str, float]]] = {}
        for _ in range(runs):
            for name, arguments in commands(scan, out).items():
                if name in names:
                    found.setdefault(name, []).append(measure(arguments))
        notes = out / "scan_seg.json"
        provenance = json.loads(notes.read_text()) if notes.is_file() else {"boxes": [], "seconds": {}}
    rows = {name: {key: statistics.median(run[key] for run in own) for key in own[0]} for name, own in found.items()}
    return {
        "slices": slices,
        "suffix": suffix,
        "runs": runs,
        "boxes": len(provenance["boxes"]),
        "stages_s": provenance["seconds"],
        "rows": rows,
    }


def show(result: Mapping[str, Any]) -> None:
    """Print one size's table; ratios are to ``stseg3d segment`` of the same runs."""
    print(f"\n512 x 512 x {result['slices']} int16 {result['suffix']}, {result['boxes']} boxes, medians of {result['runs']}\n")
    print("| way | wall s | CPU s | peak MiB | wall, times segment | memory, times segment |\n|---|---|---|---|---|---|")
    own = result["rows"].get("stseg3d segment")
    for name, row in result["rows"].items():
        ratios = [f"{row[key] / own[key]:.2f}" if own else "" for key in ("wall_s", "peak_mib")]
        print(f"| {name} | {row['wall_s']:.1f} | {row['cpu_s']:.1f} | {row['peak_mib']:.0f} | {' | '.join(ratios)} |")
    print("\nstages of stseg3d segment, s:", result["stages_s"], flush=True)


def plot(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Time and memory of each way against the number of slices."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name in ROWS:
        at = [(r["slices"], r["rows"][name]) for r in results if name in r["rows"]]
        for axis, key, label in zip(axes, ("wall_s", "peak_mib"), ("seconds", "peak memory [MiB]"), strict=True):
            axis.plot([n for n, _ in at], [row[key] for _, row in at], marker="o", label=name)
            axis.set(xlabel="slices of 512 x 512", ylabel=label, yscale="log")
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Print a table for each size; write JSON and a plot if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, nargs="+", default=[300])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--suffix", default=".nii.gz", choices=(".nii.gz", ".nii"))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, metavar="ROW", help=f"of {', '.join(map(repr, ROWS))}")
    parser.add_argument("-o", dest="output", type=Path, help="JSON")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    results = []
    for slices in options.slices:
        results.append(bench(slices, options.suffix, options.runs, options.rows))
        show(results[-1])
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n")
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
