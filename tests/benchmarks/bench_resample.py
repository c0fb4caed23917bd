"""The rough stage's copy of a volume: ``resample_volume`` against bare reading and against the way it was done before.

Run: ``python tests/benchmarks/bench_resample.py [--shape 512 512 300] [--to 88 88 104] [--runs 5] [--threads 1 2] [-o resample.json]``.
Processor and wall seconds, medians of runs taken by turns; each row is a volume, in a ``.nii`` file (axes RAS, LPS, or turned) or in
memory, seen along RAS. Bare reading is every slab read and thrown away. "Before", each slab was copied so that the last axis lay fastest,
then multiplied in float32 by one matrix an axis.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nibabel.orientations import axcodes2ornt, ornt_transform

from stseg3d.geometry import Grid
from stseg3d.ops.resample import axis_operator, resample, resample_volume, slabs
from stseg3d.volumes import ArrayVolume, CanonicalVolume, Volume, open_volume

SPACING_MM = (0.75, 0.75, 1.5)
WAYS = ("bare read", "before", "resample_volume")


def volumes(shape: Sequence[int], folder: Path) -> Iterator[tuple[str, CanonicalVolume]]:
    """Name and view along RAS of each volume; every voxel differs from its neighbours."""
    image = np.random.default_rng(0).integers(-1000, 1500, shape, np.int16)
    grid = Grid(tuple(shape), np.diag([*SPACING_MM, 1.0]))
    path = folder / "scan.nii"
    for axcodes, dtype in (("RAS", np.int16), ("LPS", np.int16), ("PSR", np.int16), ("SRP", np.int16), ("RAS", np.float32)):
        turned = nib.Nifti1Image(image, grid.affine).as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axcodes)))
        nib.save(nib.Nifti1Image(np.asarray(turned.dataobj).astype(dtype), turned.affine), path)
        yield f".nii, {axcodes}, {np.dtype(dtype)}", CanonicalVolume(open_volume(path))
    fortran, real = np.asfortranarray(image), image.astype(np.float32)
    for name, array in (("F order, int16", fortran), ("C order, int16", image), ("C order, float32", real)):
        yield f"in memory, {name}", CanonicalVolume(ArrayVolume(array[None], grid))


def read_only(volume: CanonicalVolume, shape: Sequence[int]) -> None:
    """Every slab, in the file's own axes; ``shape`` does not count."""
    del shape
    source: Volume = volume.volume
    for slab in slabs(source.grid.shape, source.channels):
        source.read(slab)


def resample_before(volume: CanonicalVolume, shape: Sequence[int]) -> None:
    """Slab by slab, each made contiguous first."""
    out = np.zeros((volume.channels, *shape), dtype=np.float32)
    last = axis_operator(volume.grid.shape[-1], int(shape[-1]))
    for box in slabs(volume.grid.shape, volume.channels):
        columns = last[:, box.slices[-1]]
        touched = np.flatnonzero(columns.any(axis=1))
        part = np.ascontiguousarray(volume.read(box)).astype(np.float32, copy=False) @ columns[touched].T
        out[..., touched] += resample(part, (*shape[:-1], len(touched)))


def seconds(work: Callable[[], Any]) -> tuple[float, float]:
    """Processor and wall seconds of a call."""
    processor, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - processor, time.perf_counter() - wall


def bench(volume: CanonicalVolume, shape: Sequence[int], runs: int) -> dict[str, dict[str, float]]:
    """Medians of each way."""
    ways: tuple[Callable[..., Any], ...] = (read_only, resample_before, resample_volume)
    works = dict(zip(WAYS, ways, strict=True))
    took: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for run in range(runs + 1):
        for way, work in works.items():
            found = seconds(partial(work, volume, shape))
            if run:  # the first fills the file cache
                took[way].append(found)
    return {way: dict(zip(("cpu_s", "wall_s"), map(statistics.median, zip(*own, strict=True)), strict=True)) for way, own in took.items()}


def main() -> None:
    """Print a table for each number of threads; write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 300))
    parser.add_argument("--to", type=int, nargs=3, default=(88, 88, 104))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2), help="of torch; numpy's are OMP_NUM_THREADS")
    parser.add_argument("-o", dest="output", type=Path, help="JSON")
    options = parser.parse_args()
    rows = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        columns = [f"{way} {unit}" for unit in ("CPU s", "wall s") for way in WAYS]
        print(f"\n{options.shape} to {options.to}, {threads} thread(s)\n\n| volume | {' | '.join(columns)} |")
        print(f"|{'---|' * (len(columns) + 1)}")
        with tempfile.TemporaryDirectory() as folder:
            for name, volume in volumes(options.shape, Path(folder)):
                found = bench(volume, options.to, options.runs)
                rows.append({"volume": name, "threads": threads, "ways": found})
                cells = " | ".join(f"{found[way][key]:.3f}" for key in ("cpu_s", "wall_s") for way in WAYS)
                print(f"| {name} | {cells} |", flush=True)
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
