"""What time and memory grow with: the volume at a constant object, and the object at a constant volume.

Run: ``python tests/benchmarks/bench_scaling.py [--runs 3] [-o scaling.json --plot scaling.png]``. A CT phantom's body lies in air, in a
``.nii`` file; first the air around it grows, then more slices of the body are there. Each run is a fresh process of ``stseg3d segment``;
seconds are those of its stages, as its JSON tells them, and those of reading the file through without a look at it; memory is the largest
until the end of each stage, imports included. Medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from bench_segment import BUNDLE, MODULE, measure

from stseg3d.training.phantoms import ct_phantom

BODY = (256, 256, 160)
VOLUMES = (1.0, 1.5, 2.0, 2.5, 3.0)  # times the body, on each axis
OBJECTS = (0.25, 0.5, 0.75, 1.0)  # of the body's slices
AROUND = 2.0  # volume of the second series, times the body
STAGES = ("rough", "fine", "write")
AIR = -1000


def write_scan(path: Path, factor: float, share: float) -> tuple[int, ...]:
    """A scan of ``factor`` times the body's shape with ``share`` of its slices in the middle; its shape."""
    image, _, grid = ct_phantom(BODY, seed=8)
    slices = round(BODY[2] * share)
    body = image[:, :, :slices]
    shape = tuple(round(n * factor) for n in BODY)
    start = [(n - m) // 2 for n, m in zip(shape, body.shape, strict=True)]
    scan = np.full(shape, AIR, np.int16, order="F")
    scan[tuple(slice(a, a + n) for a, n in zip(start, body.shape, strict=True))] = body
    nib.save(nib.Nifti1Image(scan, grid.affine), path)
    return shape


def points(what: str) -> Iterator[tuple[float, float]]:
    """Factor and share of each point of a series."""
    yield from ((factor, 1.0) for factor in VOLUMES) if what == "volume" else ((AROUND, share) for share in OBJECTS)


def run(scan: Path, out: Path) -> dict[str, float]:
    """One run: seconds and peak MiB of each stage, boxes, object voxels, and the seconds of bare reading."""
    start = time.perf_counter()
    with scan.open("rb", buffering=0) as file:
        while file.read(1 << 22):
            pass
    read_s = time.perf_counter() - start
    whole = measure(
        ["-c", MODULE, "stseg3d", "segment", str(scan), "--bundle", str(BUNDLE), "-o", str(out), "--overwrite", "--threads", "1"]
    )
    notes = json.loads((out / "scan_seg.json").read_text())
    seconds = {f"{stage}_s": notes["seconds"][stage] for stage in STAGES}
    peaks = {f"{stage}_mib": notes["stage_peak_bytes"][stage] / 2**20 for stage in STAGES}
    return {"boxes": len(notes["boxes"]), "object_ml": sum(notes["volume_ml"].values()), "read_s": read_s, **seconds, **peaks, **whole}


def bench(what: str, runs: int) -> list[dict[str, Any]]:
    """Medians of each point of a series."""
    found = []
    for factor, share in points(what):
        with tempfile.TemporaryDirectory() as folder:
            scan, out = Path(folder, "scan.nii"), Path(folder, "out")
            shape = write_scan(scan, factor, share)
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

    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained", sharey="row")
    columns = {"volume": ("megavoxels", "volume [million voxels], same object"), "object": ("object_ml", "object [ml], same volume")}
    for column, (what, (key, label)) in enumerate(columns.items()):
        at = [point[key] for point in results[what]]
        for name in ("read", *STAGES):
            style = {"color": "0.5", "linestyle": "--"} if name == "read" else {}
            text = {"read": "reading the file", "rough": "rough stage, reading included"}.get(
                name, f"{name} stage" if name == "fine" else name
            )
            axes[0, column].plot(at, [point[f"{name}_s"] for point in results[what]], marker="o", label=text, **style)
        for name in STAGES:
            axes[1, column].plot(at, [point[f"{name}_mib"] for point in results[what]], marker="o", label=name)
        axes[1, column].set(xlabel=label)
        for axis in axes[:, column]:
            axis.set(xlim=(0, 1.05 * max(at)))
    for row in axes:  # both columns share it
        row[0].set(ylim=(0, 1.1 * max(max(line.get_ydata()) for axis in row for line in axis.lines)))
    axes[0, 0].set(ylabel="seconds")
    axes[1, 0].set(ylabel="peak memory until its end [MiB]")
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


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
