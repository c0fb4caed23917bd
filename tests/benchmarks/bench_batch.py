"""Cases per second of ``run_batch`` against a plain loop: one after the other, overlapped, with worker processes and on Ray.

Run: ``python tests/benchmarks/bench_batch.py [--cases 8] [--shape 256 256 160] [--suffix .nii.gz] [--threads 1 2] [--jobs 2] [--runs 5]
[--json FILE]``. The ways take turns, each with an output folder of its own, once for each number of threads, which worker processes share;
figures are medians. Loading the bundle, starting processes and ending them is told apart: it is paid once a batch. "Busy" is how many cores
this process and its children kept busy, "gain" that over one case after the other in the same round. The labels of all ways are compared
byte by byte.

``--jobs 0`` leaves the worker processes out, and Ray, which is a cluster of this machine alone, where it is installed. Many small scans
(``--cases 40 --shape 96 96 96``) show what a case costs besides; ``--shape 512 512 300`` what overlap gains where reading takes longest.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import torch

from stseg3d.batch import CaseOutcome, CaseWorker, InProcess, Processes, RayCluster, Runner, run_batch
from stseg3d.bundle import find_bundle
from stseg3d.inference import Request
from stseg3d.synthesis import ct_phantom
from stseg3d.volumes import Case, list_cases

SCANS = 8  # different ones, over and over
ONE_BY_ONE = "one after the other"


@dataclass(frozen=True)
class Run:
    """What a way took.

    Attributes:
        start_s: Until the first case could begin.
        seconds: From then to the end.
        cpu_s: Of processors, in all.
        wall_s: In all.
    """

    start_s: float
    seconds: float
    cpu_s: float
    wall_s: float


Way = Callable[[list[Case], Request], tuple[float, float]]


def make_scans(folder: Path, cases: int, shape: Sequence[int], suffix: str) -> list[Case]:
    """CT phantoms."""
    folder.mkdir()
    for n in range(min(cases, SCANS)):
        image, _, grid = ct_phantom((shape[0], shape[1], shape[2]), seed=n)
        nib.save(nib.Nifti1Image(image, grid.affine), folder / f"{n:04}{suffix}")
    for n in range(SCANS, cases):
        (folder / f"{n:04}{suffix}").hardlink_to(folder / f"{n % SCANS:04}{suffix}")
    return list_cases([folder])


def plain_loop(cases: list[Case], request: Request) -> tuple[float, float]:
    """What a script would do: no journal, no claims, no resuming. Seconds until the first case could begin, and seconds after that."""
    begin = time.perf_counter()
    segmenter = CaseWorker(request).segmenter
    ready = time.perf_counter()
    for case in cases:
        segmenter.segment(case, request.output_dir)
    return ready - begin, time.perf_counter() - ready


class Watched:
    """A runner, and when it pulled its first case."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.begun: list[float] = []

    def run(self, cases: Iterator[Case]) -> Generator[CaseOutcome, None, None]:
        """What the runner does."""
        yield from self.runner.run(self._pulled(cases))

    def _pulled(self, cases: Iterator[Case]) -> Iterator[Case]:
        for case in cases:
            self.begun.append(time.perf_counter())
            yield case


def batch(make_runner: Callable[[Request], Runner]) -> Way:
    """The same of ``run_batch``."""

    def measure(cases: list[Case], request: Request) -> tuple[float, float]:
        def note(outcome: CaseOutcome) -> None:
            assert outcome.state == "done", outcome.reason

        begin, runner = time.perf_counter(), Watched(make_runner(request))
        run_batch(cases, request, runner, on_outcome=note)
        return runner.begun[0] - begin, time.perf_counter() - runner.begun[0]

    return measure


def ways_of(jobs: int, threads: int) -> dict[str, tuple[Way, int]]:
    """The ways with so many threads in all: each, and the threads of a worker."""
    ways = {
        "plain loop": (plain_loop, threads),
        ONE_BY_ONE: (batch(lambda request: InProcess(request, overlap=False)), threads),
        "overlapped": (batch(InProcess), threads),
    }
    if jobs and threads >= jobs:
        ways[f"{jobs} jobs"] = (batch(lambda request: Processes(request, jobs)), threads // jobs)
        if importlib.util.find_spec("ray"):
            ways[f"Ray, {jobs} jobs"] = (batch(lambda request: RayCluster(request, "local", jobs=jobs)), threads // jobs)
    return ways


def timed(way: Way, cases: list[Case], request: Request) -> Run:
    """One run."""
    before, begin = os.times(), time.perf_counter()
    start_s, seconds = way(cases, request)
    wall_s, after = time.perf_counter() - begin, os.times()
    return Run(start_s, seconds, sum(after[:4]) - sum(before[:4]), wall_s)


def labels(folder: Path) -> dict[str, bytes]:
    """Content of every label map."""
    return {path.name: path.read_bytes() for path in folder.glob("*_seg.nii.gz")}


def bench(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, list[Run]]]:
    """Runs of each way, by number of threads."""
    cases = make_scans(folder / "scans", options.cases, options.shape, options.suffix)
    base = Request(find_bundle(options.bundle), folder, device=options.device)
    plain_loop(cases[:1], replace(base, output_dir=folder / "warm"))  # imports, of which each new process pays its own
    runs: dict[str, dict[str, list[Run]]] = {}
    found = []
    for run in range(options.runs):  # interleaved: the machine's mood changes
        for threads in options.threads:
            for name, (way, share) in ways_of(options.jobs, threads).items():
                request = replace(base, output_dir=folder / f"{run}_{threads}_{name}", threads=share)
                runs.setdefault(str(threads), {}).setdefault(name, []).append(timed(way, cases, request))
                found.append(labels(request.output_dir))
    assert all(one == found[0] and len(one) == options.cases for one in found), "labels must be the same in all ways"
    return runs


def summary(ways: dict[str, list[Run]], cases: int) -> dict[str, dict[str, float]]:
    """Figures of each way with one number of threads."""
    return {
        name: {
            "start_s": statistics.median(run.start_s for run in runs),
            "cases_per_s": statistics.median(cases / run.seconds for run in runs),
            "cpu_s_a_case": statistics.median(run.cpu_s / cases for run in runs),
            "busy_cores": statistics.median(run.cpu_s / run.wall_s for run in runs),
            "gain": statistics.median(one.seconds / run.seconds for one, run in zip(ways[ONE_BY_ONE], runs, strict=True)) - 1,
        }
        for name, runs in ways.items()
    }


def main() -> None:
    """Print the tables, and write all figures as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("cases", 8), ("jobs", 2), ("runs", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 256, 160))
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, torch.get_num_threads()}))
    parser.add_argument("--suffix", choices=[".nii.gz", ".nii"], default=".nii.gz")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bundle", default="aorta_ct_segmentation")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.getLogger("stseg3d").setLevel(logging.ERROR)  # phantoms as small as these are warned of
    with tempfile.TemporaryDirectory() as folder:
        runs = bench(options, Path(folder))
    about = {name: str(value) if name == "json" else value for name, value in vars(options).items()}
    figures = {threads: summary(ways, options.cases) for threads, ways in runs.items()}
    if options.json:
        raw = {threads: {name: [vars(run) for run in found] for name, found in ways.items()} for threads, ways in runs.items()}
        options.json.write_text(json.dumps({"options": about, "figures": figures, "runs": raw}, indent=2) + "\n")
    shape = " x ".join(map(str, options.shape))
    print(f"{options.cases} scans {options.suffix} of {shape}, median of {options.runs}; labels the same in all")
    for threads, ways in figures.items():
        print(f"\n{threads + ' threads in all':24}{'start, s':>10}{'cases/s':>10}{'CPU s/case':>12}{'busy':>8}{'gain':>8}")
        for name, row in ways.items():
            print(
                f"{name:24}{row['start_s']:10.1f}{row['cases_per_s']:10.2f}{row['cpu_s_a_case']:12.2f}{row['busy_cores']:8.2f}{row['gain']:8.0%}"
            )


if __name__ == "__main__":
    main()
