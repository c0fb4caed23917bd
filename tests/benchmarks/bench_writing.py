"""What compressing a label map costs: as the package does it; zlib, isal and zlib-ng at each level, where they are installed; SimpleITK.

Run: ``python tests/benchmarks/bench_writing.py [LABELS.nii.gz ...] [--shape 512 512 300] [--runs 5]``. Each label map (by default the aorta
of a phantom) is brought to that shape, the nearest voxel taken, and written by :func:`stseg3d.volumes.write_labels`, with what compresses
in the place of its own. Processor seconds, the median and the range; bytes; and, to compare, a file without compression. All ways take
turns. What was written is read back each time.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from stseg3d.geometry import Grid
from stseg3d.ops.resample import resample
from stseg3d.synthesis import ct_phantom
from stseg3d.volumes import open_volume, write, write_labels

LEVELS = {"zlib": ("gzip", "GzipFile", (1, 3, 4, 6)), "isal": ("isal.igzip", "IGzipFile", range(4))}
LEVELS["zlib-ng"] = ("zlib_ng.gzip_ng", "GzipNGFile", (1, 3, 6))

Way = Callable[[NDArray[np.uint8], Path], Path]


def ways() -> Iterator[tuple[str, Way]]:
    """Name of each way that is installed, and what writes a file so."""
    yield "no compression", lambda labels, folder: own(labels, folder, ".nii")
    yield "the package's", own
    yield "SimpleITK, level 1", by_sitk
    for name, (module, kind, levels) in LEVELS.items():
        try:
            files = getattr(importlib.import_module(module), kind)
        except ImportError:
            print(f"{name} is not installed and left out")
            continue
        yield from ((f"{name}, level {level}", partial(by_gzip, files, level)) for level in levels)


def own(labels: NDArray[np.uint8], folder: Path, suffix: str = ".nii.gz") -> Path:
    """A file by the package."""
    return write_labels(labels, folder / f"labels{suffix}", Grid(labels.shape))


def by_gzip(files: Any, level: int, labels: NDArray[np.uint8], folder: Path) -> Path:
    """The same, compressed by another library or at another level."""
    with mock.patch.multiple(write, GzipFile=files, GZIP_LEVEL=level):
        return own(labels, folder)


def by_sitk(labels: NDArray[np.uint8], folder: Path) -> Path:
    """A file by SimpleITK; its image shares no memory with the array, so making it is counted, too."""
    path = folder / "labels.nii.gz"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(labels.T), str(path), True, 1)
    return path


def label_map(path: Path | None, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Labels of a file, or of a phantom, on another number of voxels, first axis fastest as in a file."""
    labels = open_volume(path).read() if path else ct_phantom((160, 160, 128), seed=8)[1][None]
    return np.asfortranarray(resample(labels.astype(np.uint8), shape, "nearest")[0])


def bench(labels: NDArray[np.uint8], runs: int) -> dict[str, dict[str, Any]]:
    """Seconds of each run, and bytes, of each way."""
    found: dict[str, dict[str, Any]] = {}
    todo = list(ways())
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(runs):
            for name, way in todo:
                start = time.process_time()
                path = way(labels, Path(folder))
                seconds = time.process_time() - start
                found.setdefault(name, {"seconds": [], "bytes": path.stat().st_size})["seconds"].append(seconds)
                assert np.array_equal(open_volume(path).read()[0], labels), name
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
