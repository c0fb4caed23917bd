"""What time and memory grow with: the volume at a constant object, and the object at a constant volume.

Run: ``python tests/benchmarks/bench_scaling.py [--runs 3] [-o scaling.json --plot scaling.png]``. Scans are ``.nii`` files of one CT
phantom. First the same scan is sampled ever finer: voxels grow in number, while body, aorta and field of view stay as many millimetres.
Then sampling and field of view stay, and more slices of the body are there, air in the others. Each run is a fresh process of
``stseg3d segment``; seconds are those of its stages, as its JSON tells them, and those of reading the file through without a look at it;
memory is the largest until the end of each stage, imports included. Medians.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from bench_segment import BUNDLE, MODULE, measure
from numpy.typing import NDArray

from stseg3d.geometry import Grid
from stseg3d.ops.resample import resample
from stseg3d.synthesis import ct_phantom

BODY = (256, 256, 160)
SAMPLINGS = (1.0, 1.5, 2.0, 2.5, 3.0)  # times the body's voxels, on each axis
OBJECTS = (0.25, 0.5, 0.75, 1.0)  # of the body's slices
SAMPLING = 2.0  # of the second series
STAGES = ("rough", "fine", "write")
AIR = -1000
# Colour (Okabe and Ito: safe for the colour-blind), line, marker and name.
LINES = {
    "read": ("0.45", "--", "x", "bare reading"),
    "rough": ("#0072B2", "-", "o", "rough stage, with its reading"),
    "fine": ("#D55E00", "-", "s", "fine stage, with its reading"),
    "write": ("#009E73", ":", "^", "writing"),
}


@lru_cache
def body() -> tuple[NDArray[np.int16], Grid]:
    """The phantom."""
    image, _, grid = ct_phantom(BODY, seed=8)
    return image, grid


def write_scan(path: Path, sampling: float, share: float) -> tuple[int, ...]:
    """The phantom in ``sampling`` times its voxels an axis, air above the lowest ``share`` of its slices; its shape."""
    image, grid = body()
    shape = tuple(round(n * sampling) for n in BODY)
    scan = resample(image[None], shape, "nearest")[0]
    scan[:, :, round(shape[2] * share) :] = AIR
    nib.save(nib.Nifti1Image(scan, grid.resized(shape).affine), path)
    return shape


def points(what: str) -> Iterator[tuple[float, float]]:
    """Sampling and share of each point of a series."""
    yield from ((sampling, 1.0) for sampling in SAMPLINGS) if what == "volume" else ((SAMPLING, share) for share in OBJECTS)


def run(scan: Path, out: Path) -> dict[str, float]:
    """One run: seconds and peak MiB of each stage, boxes, object voxels, and the seconds of bare reading."""
    start = time.perf_counter()
    with scan.open("rb", buffering=0) as file:
        while file.read(1 << 22):
            pass
    read_s = time.perf_counter() - start
    shutil.rmtree(out, ignore_errors=True)  # what is there already would not be segmented again
    whole = measure(["-c", MODULE, "stseg3d", "segment", str(scan), "--bundle", str(BUNDLE), "-o", str(out), "--threads", "1"])
    notes = json.loads((out / "scan_seg.json").read_text())
    seconds = {f"{stage}_s": notes["seconds"][stage] for stage in STAGES}
    peaks = {f"{stage}_mib": notes["stage_peak_bytes"][stage] / 2**20 for stage in STAGES}
    return {"boxes": len(notes["boxes"]), "object_ml": sum(notes["volume_ml"].values()), "read_s": read_s, **seconds, **peaks, **whole}


def bench(what: str, runs: int) -> list[dict[str, Any]]:
    """Medians of each point of a series."""
    found = []
    for sampling, share in points(what):
        with tempfile.TemporaryDirectory() as folder:
            scan, out = Path(folder, "scan.nii"), Path(folder, "out")
            shape = write_scan(scan, sampling, share)
            took = [run(scan, out) for _ in range(runs)]
        medians = {key: statistics.median(one[key] for one in took) for key in took[0]}
        found.append({"shape": shape, "megavoxels": np.prod(shape) / 1e6, **medians})
        show(found[-1])
    return found


def show(point: Mapping[str, Any]) -> None:
    """Print a row."""
    size = " x ".join(map(str, point["shape"]))
    seconds = " | ".join(f"{point[f'{stage}_s']:.2f}" for stage in ("read", *STAGES))
    peaks = " | ".join(f"{point[f'{stage}_mib']:.0f}" for stage in STAGES)
    print(f"| {size} | {point['object_ml']:.0f} | {point['boxes']:.0f} | {seconds} | {peaks} |", flush=True)


def plot(results: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Seconds and memory of each stage against the volume, left, and the object, right."""
    import matplotlib.pyplot as plt

    columns = {
        "volume": ("megavoxels", "volume [million voxels]\nsame object, same extent"),
        "object": ("object_ml", "object [ml]\nsame volume"),
    }
    with plt.rc_context({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(2, 2, figsize=(9, 7.5), layout="constrained", sharex="col", sharey="row")
        for column, (what, (key, label)) in enumerate(columns.items()):
            at = [point[key] for point in results[what]]
            for name, (colour, line, marker, text) in LINES.items():
                style = {"color": colour, "linestyle": line, "marker": marker, "label": text, "linewidth": 2, "clip_on": False}
                axes[0, column].plot(at, [point[f"{name}_s"] for point in results[what]], **style)
                if name != "read":
                    axes[1, column].plot(at, [point[f"{name}_mib"] for point in results[what]], **style)
            axes[1, column].set(xlabel=label, xlim=(0, 1.05 * max(at)))
        for row, text in zip(axes, ("time [s]", "peak memory until\nthe end of a stage [MiB]"), strict=True):
            row[0].set(ylabel=text, ylim=(0, 1.1 * max(max(line.get_ydata()) for axis in row for line in axis.lines)))
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def main() -> None:
    """Print both tables; write JSON and a plot if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("-o", dest="output", type=Path, help="JSON")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    results = {}
    for what in ("volume", "object"):
        columns = ["shape", "object ml", "boxes", "read s", *(f"{stage} {unit}" for unit in ("s", "MiB") for stage in STAGES)]
        print(f"\nagainst the {what}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        results[what] = bench(what, options.runs)
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n")
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
