"""How many cases a second one driver can hand out and write down, where the cases themselves cost nothing.

Run: ``python tests/benchmarks/bench_driver.py [--cases 2000] [--workers 2] [--runs 3] [--ray local] [--json FILE]``. The workers make an
empty output and invent an outcome; so this is the most that any number of workers could get from a driver, in this process and with Ray.
The journal is on the disk of the folder for temporary files (``TMPDIR``), and its speed counts: each line is waited for.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

from stseg3d.batch import CaseOutcome, RayCluster, Runner, run_batch
from stseg3d.bundle import find_bundle
from stseg3d.inference import Request
from stseg3d.results.stamps import stamp
from stseg3d.volumes import Case, output_name

STEPS = ("read", "rough", "boxes", "fine", "fuse", "write")


class Idler:
    """A worker that does nothing, and says so as a real one would."""

    def __init__(self, request: Request) -> None:
        self.request = request

    def run(self, case: Case) -> CaseOutcome:
        """An empty output."""
        output = self.request.output_dir / output_name(case.id)
        output.touch()
        output.with_name(f"{case.id}_seg.json").touch()
        stamps = {"input": stamp(case.image, content=True), "output": stamp(output, content=True)}
        return CaseOutcome(case.id, "done", attempt=1, seconds=1.2345, stages_s=dict.fromkeys(STEPS, 0.1234), **stamps)


class Idle:
    """The runner of one idler, in this process."""

    def __init__(self, request: Request) -> None:
        self.worker = Idler(request)

    def run(self, cases: Iterator[Case]) -> Generator[CaseOutcome, None, None]:
        """Outcomes, in the order of the cases."""
        for case in cases:
            yield self.worker.run(case)


def measure(make_runner: Callable[[Request], Runner], cases: list[Case], request: Request) -> dict[str, float]:
    """Outcomes a second between the first and the last, then those of a second run, which skips all, and bytes of the journal a case."""
    times: list[float] = []
    result = run_batch(cases, request, make_runner(request), on_outcome=lambda _: times.append(time.perf_counter()))
    assert len(result.done) == len(cases)
    journal = (request.output_dir / "outcomes.jsonl").stat().st_size
    begin = time.perf_counter()
    again = run_batch(cases, request, make_runner(request))
    assert again.skipped == len(cases)
    return {
        "outcomes_per_s": (len(times) - 1) / (times[-1] - times[0]),
        "skipped_per_s": len(cases) / (time.perf_counter() - begin),
        "journal_bytes": journal / len(cases),
    }


def main() -> None:
    """Print the table, and write all figures as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("cases", 2000), ("workers", 2), ("runs", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--ray", default="local", help="address of the cluster")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    ways: dict[str, Callable[[Request], Runner]] = {"in this process": Idle}
    if importlib.util.find_spec("ray"):
        ways[f"Ray, {options.workers} workers"] = lambda s: RayCluster(s, options.ray, jobs=options.workers, make_worker=Idler)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "image.nii")
        image.write_bytes(bytes(352))
        cases = [Case(f"patient{n:07}", image) for n in range(options.cases)]
        base = find_bundle("aorta_ct_segmentation")
        for run in range(options.runs):  # interleaved: the machine's mood changes
            for name, make in ways.items():
                rows[name].append(measure(make, cases, Request(base, Path(folder, f"{run}_{name}"), device="cpu")))
    if options.json:
        options.json.write_text(json.dumps({"cases": options.cases, "workers": options.workers, "ways": rows}, indent=2) + "\n")
    print(f"{options.cases} cases that cost nothing, median of {options.runs}")
    print(f"{'':20}{'cases/s':>10}{'done before':>14}{'journal, B/case':>18}")
    for name, runs in rows.items():
        speeds = [statistics.median(run[key] for run in runs) for key in ("outcomes_per_s", "skipped_per_s")]
        print(f"{name:20}{speeds[0]:10.0f}{speeds[1]:14.0f}{runs[0]['journal_bytes']:18.0f}")


if __name__ == "__main__":
    main()
