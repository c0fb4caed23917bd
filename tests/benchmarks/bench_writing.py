"""What compressing a label map costs: zlib at each level, and isal and zlib-ng where they are installed.

Run: ``python tests/benchmarks/bench_writing.py [LABELS.nii.gz ...] [--shape 512 512 300] [--runs 5]``. Each label map (by default the aorta
of a phantom) is brought to that shape, the nearest voxel taken, and written as :func:`stseg3d.volumes.write_labels` does, with another
library or level in the place of its own. Processor seconds, the median and the range; bytes; and, to compare, a file without compression.
All ways take turns. Reading what was written back is left to zlib: others may read the file without what wrote it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.geometry import Grid
from stseg3d.ops.resample import resample
from stseg3d.training.phantoms import ct_phantom
from stseg3d.volumes import open_volume, write, write_labels

LEVELS = {"zlib": ("gzip", "GzipFile", range(1, 7)), "isal": ("isal.igzip", "IGzipFile", range(4))}
LEVELS["zlib-ng"] = ("zlib_ng.gzip_ng", "GzipNGFile", range(1, 7))


def ways() -> Iterator[tuple[str, Any, int]]:
    """Name, class of the file and level of each way that is installed."""
    for name, (module, kind, levels) in LEVELS.items():
        try:
            files = getattr(importlib.import_module(module), kind)
        except ImportError:
            print(f"{name} is not installed and left out")
            continue
        yield from ((f"{name}, level {level}", files, level) for level in levels)


def label_map(path: Path | None, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Labels of a file, or of a phantom, on another number of voxels, first axis fastest as in a file."""
    labels = open_volume(path).read() if path else ct_phantom((160, 160, 128), seed=8)[1][None]
    return np.asfortranarray(resample(labels.astype(np.uint8), shape, "nearest")[0])


def written(labels: NDArray[np.uint8], folder: Path, suffix: str) -> tuple[float, int]:
    """Processor seconds and bytes of one file."""
    start = time.process_time()
    path = write_labels(labels, folder / f"labels{suffix}", Grid(labels.shape))
    return time.process_time() - start, path.stat().st_size


def bench(labels: NDArray[np.uint8], runs: int) -> dict[str, dict[str, Any]]:
    """Seconds of each run, and bytes, of each way."""
    found: dict[str, dict[str, Any]] = {}
    own, own_level = write.GzipFile, write.GZIP_LEVEL
    todo = [("no compression", own, own_level), *ways()]
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(runs):
            for name, files, level in todo:
                write.GzipFile, write.GZIP_LEVEL = files, level
                seconds, size = written(labels, Path(folder), ".nii" if name == "no compression" else ".nii.gz")
                found.setdefault(name, {"seconds": [], "bytes": size})["seconds"].append(seconds)
                if name != "no compression":
                    assert np.array_equal(open_volume(Path(folder, "labels.nii.gz")).read()[0], labels), name
    write.GzipFile, write.GZIP_LEVEL = own, own_level
    return found


def main() -> None:
    """Print a table for each label map; write all figures as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, nargs="*")
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 300))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("-o", dest="output", type=Path, help="JSON")
    options = parser.parse_args()
    results = {}
    for path in options.labels or [None]:
        name = path.name if path else "aorta of a phantom"
        labels = label_map(path, tuple(options.shape))
        results[name] = bench(labels, options.runs)
        print(f"\n{name}, {' x '.join(map(str, labels.shape))}, {(labels > 0).mean():.2%} labelled\n\n| way | CPU s | kB |\n|---|---|---|")
        for way, row in results[name].items():
            seconds = row["seconds"]
            print(f"| {way} | {median(seconds):.3f} ({min(seconds):.3f} to {max(seconds):.3f}) | {row['bytes'] / 1000:.0f} |", flush=True)
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
