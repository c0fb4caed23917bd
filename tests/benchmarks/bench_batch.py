"""Cases per second of ``run_batch`` in this process, with worker processes and on Ray against a plain loop, on the same tiny scans.

Run: ``python tests/benchmarks/bench_batch.py [--cases 40] [--size 96] [--jobs 2] [--runs 3] [--threads 2] [--json FILE]``. All ways have
the same number of threads in all; Ray is a cluster of this machine alone, where it is installed. They take turns, each with an output
folder of its own; figures are medians. Loading the bundle, starting processes and ending them is told apart: it is paid once a batch. The
labels of all ways are compared byte by byte.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib

from stseg3d.batch import BatchSettings, CaseOutcome, CaseWorker, InProcess, Processes, RayCluster, Runner, run_batch
from stseg3d.bundle import find_bundle
from stseg3d.training.phantoms import ct_phantom
from stseg3d.volumes import Case, list_cases


def make_scans(folder: Path, cases: int, size: int) -> list[Case]:
    """CT phantoms, eight different ones over and over."""
    folder.mkdir()
    for n in range(min(cases, 8)):
        image, _, grid = ct_phantom((size, size, size), seed=n)
        nib.save(nib.Nifti1Image(image, grid.affine), folder / f"{n:04}.nii.gz")
    for n in range(8, cases):
        (folder / f"{n:04}.nii.gz").hardlink_to(folder / f"{n % 8:04}.nii.gz")
    return list_cases([folder])


def plain_loop(cases: list[Case], settings: BatchSettings) -> tuple[float, float]:
    """What a script would do: no journal, no claims, no resuming. Seconds until the first case could begin, and seconds after that."""
    begin = time.perf_counter()
    segmenter = CaseWorker(settings).segmenter
    ready = time.perf_counter()
    for case in cases:
        segmenter.segment(case, settings.output_dir)
    return ready - begin, time.perf_counter() - ready


def batch(make_runner: Callable[[BatchSettings], Runner]) -> Callable[[list[Case], BatchSettings], tuple[float, float]]:
    """The same of ``run_batch``; the clock of its cases runs from the beginning of the first to the end of the last."""

    def measure(cases: list[Case], settings: BatchSettings) -> tuple[float, float]:
        first, last = [], []

        def note(outcome: CaseOutcome) -> None:
            last.append(time.perf_counter())
            first.append(last[-1] - outcome.seconds)
            assert outcome.state == "done", outcome.reason

        begin = time.perf_counter()
        run_batch(cases, settings, make_runner(settings), on_outcome=note)
        return first[0] - begin, last[-1] - first[0]

    return measure


def labels(folder: Path) -> dict[str, bytes]:
    """Content of every label map."""
    return {path.name: path.read_bytes() for path in folder.glob("*_seg.nii.gz")}


def main() -> None:
    """Print the table, and write all figures as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("cases", 40), ("size", 96), ("jobs", 2), ("runs", 3), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--bundle", default="aorta_ct_segmentation")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.getLogger("stseg3d").setLevel(logging.ERROR)  # phantoms as small as these are warned of
    share = max(options.threads // options.jobs, 1)
    ways = {
        "plain loop": (plain_loop, options.threads),
        "run_batch": (batch(InProcess), options.threads),
        f"run_batch, {options.jobs} jobs": (batch(lambda settings: Processes(settings, options.jobs)), share),
    }
    if importlib.util.find_spec("ray"):
        ways[f"run_batch, Ray, {options.jobs} jobs"] = (batch(lambda settings: RayCluster(settings, "local", jobs=options.jobs)), share)
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        cases = make_scans(Path(folder, "scans"), options.cases, options.size)
        base = BatchSettings(find_bundle(options.bundle), Path(folder), device="cpu")
        plain_loop(cases[:1], replace(base, output_dir=Path(folder, "warm")))  # imports, of which each new process pays its own
        found = []
        for run in range(options.runs):  # interleaved: the machine's mood changes
            for name, (way, threads) in ways.items():
                settings = replace(base, output_dir=Path(folder, f"{run}_{name}"), threads=threads)
                rows[name].append(way(cases, settings))
                found.append(labels(settings.output_dir))
    assert all(one == found[0] and len(one) == options.cases for one in found), "labels must be the same in all ways"
    figures = {
        name: {
            "start_s": statistics.median(start for start, _ in runs),
            "cases_per_s": statistics.median(options.cases / seconds for _, seconds in runs),
            "runs": runs,
        }
        for name, runs in rows.items()
    }
    about = {name: value for name, value in vars(options).items() if name != "json"}
    if options.json:
        options.json.write_text(json.dumps({"options": about, "ways": figures}, indent=2) + "\n")
    print(f"{options.cases} scans of {options.size}^3, {options.threads} threads in all, median of {options.runs}; labels the same in all")
    print(f"{'':24}{'start, s':>10}{'cases/s':>10}")
    for name, row in figures.items():
        print(f"{name:24}{row['start_s']:10.1f}{row['cases_per_s']:10.2f}")


if __name__ == "__main__":
    main()
