"""What a scan costs, from file to file: bare reading and writing, ``stseg3d``, and the pipeline that a MONAI user writes.

Run: ``python tests/benchmarks/bench_segment.py -o suite.json``, about half an hour; ``--slices 300 --suffix .nii.gz`` for one size of scan.
Beside the JSON come a table (``.md``) and, with matplotlib, a plot (``.png``). The file is written after every round, and what it has is
not run again: so the suite can be stopped, or asked for in pieces. First the plan and an estimate are printed.

Scans of 512 x 512 x N int16. Every run is a fresh process, imports included, the ways of a round one after the other, so that the machine's
moods hit all alike. Medians of wall seconds, processor seconds, peak of resident memory; ratios are medians of those within a round.
The floor is SimpleITK reading the file and writing a mask. "MONAI" is LoadImaged, EnsureChannelFirstd, Orientationd, Spacingd (1.5 mm),
ScaleIntensityRanged, SlidingWindowInferer (96^3), Activationsd, Invertd, AsDiscreted and SaveImaged, with the fine network of the bundle.

"Everything but the networks" is measured in one more process for each size, imports not counted: the seconds of a case, those within calls
of the networks, and those of bare reading and writing of the same files in turns with it (the fastest of SimpleITK and nibabel at each).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import monai
import nibabel as nib
import numpy as np
import torch
from segment_tables import markdown, plot, table
from segment_ways import INSIDE, MODULE, OURS, OWN, ROWS, USERS, command

from stseg3d.bundle import find_bundle, weights_sha256
from stseg3d.machine.memory import available_bytes
from stseg3d.synthesis import ct_phantom

__all__ = ["BUNDLE", "MODULE", "measure"]  # for the other benchmarks

BUNDLE = find_bundle("aorta_ct_segmentation")
SIZES, SUFFIXES = (100, 300, 600, 1000), (".nii.gz", ".nii")
# The users' pipeline has all its runs at this size, which comes first; it takes minutes and gigabytes where a scan is larger.
MAIN = (300, ".nii.gz")
# Of one run: seconds at no slices and of each slice. Two cores of 2023; what is said before the start, no more.
ESTIMATES = dict(zip(ROWS, ((0.3, 0.0015), (3.0, 0.006), (4.0, 0.009), (4.0, 0.009), (5.0, 0.115), (5.0, 0.155)), strict=True))
INSIDE_S, SCAN_S = (0.5, 0.015), (3.0, 0.05)
USERS_MIB = (1000.0, 20.0)


def make_scan(path: Path, slices: int) -> None:
    """A CT phantom, each voxel of a coarser one repeated: only the size counts here."""
    image, _, grid = ct_phantom((256, 256, slices // 2), seed=8)
    large = image.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    large += np.random.default_rng(0).integers(-8, 8, large.shape, dtype=np.int16)
    nib.save(nib.Nifti1Image(large, grid.resized(large.shape).affine), path)


def measure(arguments: Sequence[str]) -> dict[str, Any]:
    """Wall and processor seconds and peak MiB of a fresh process; and its stages, where it tells them.

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
        msg = f"exit status {process.returncode}: {text[-2000:]}"
        raise RuntimeError(msg)
    told = {line.split()[0]: line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith(("VmHWM ", "STAGES ", "INSIDE "))}
    found = {"wall_s": seconds, "cpu_s": used.ru_utime + used.ru_stime}
    if "VmHWM" in told:
        found["peak_mib"] = float(told["VmHWM"]) / 1024
    return found | {f"{name.lower()}_s": json.loads(told[name]) for name in ("STAGES", "INSIDE") if name in told}


def run_row(name: str, scan: Path, folder: Path) -> dict[str, Any]:
    """One run of one row."""
    out = folder / name
    shutil.rmtree(out, ignore_errors=True)  # what is there already would not be segmented again
    out.mkdir()
    found = measure(command(name, scan, out, BUNDLE))
    if name == OWN:
        notes = json.loads((out / "scan_seg.json").read_text())
        stages = {stage: seconds for stage, seconds in notes["seconds"].items() if stage != "total"}
        found |= {"stages_s": {"start": found["wall_s"] - sum(stages.values()), **stages}, "boxes": len(notes["boxes"])}
    return found


def check_labels(folder: Path) -> None:
    """All of our ways that have run wrote the same labels."""
    files = [path for name in OURS for path in (folder / name).glob("*_seg.nii.gz")]
    for path in files[1:]:
        same = np.array_equal(np.asarray(nib.load(files[0]).dataobj), np.asarray(nib.load(path).dataobj))
        assert same, f"labels must be those of {files[0]}, got others in {path}"


def wanted(slices: int, suffix: str, options: argparse.Namespace) -> dict[str, int]:
    """How many runs each row is to have at a size."""
    users = options.runs if (slices, suffix) == MAIN else options.monai_runs if suffix == MAIN[1] else 0
    return {name: users if name in USERS else options.runs for name in options.rows}


def missing(cell: Mapping[str, Any], runs: Mapping[str, int]) -> dict[str, int]:
    """How many runs each row still needs; none of what does not fit into memory."""
    free_mib, need_mib = (available_bytes() or 0) >> 20, of_slices(USERS_MIB, cell["slices"])
    for name in USERS:
        if runs.get(name) and need_mib > free_mib > 0:
            cell["skipped"][name] = f"needs about {need_mib / 1024:.0f} GiB of memory, {free_mib / 1024:.0f} are free"
        else:
            cell["skipped"].pop(name, None)
    return {name: max(n - len(cell["runs"].get(name, [])), 0) for name, n in runs.items() if name not in cell["skipped"]}


def of_slices(rule: tuple[float, float], slices: int) -> float:
    """What a rule, so much and so much a slice, says."""
    return rule[0] + rule[1] * slices


def estimate_s(cell: Mapping[str, Any], left: Mapping[str, int], inside: int) -> float:
    """Seconds that the rest of a size may take."""
    rows = sum(n * of_slices(ESTIMATES[name], cell["slices"]) for name, n in left.items())
    return rows + (15 + inside * of_slices(INSIDE_S, cell["slices"]) if inside else 0) + of_slices(SCAN_S, cell["slices"])


class Suite:
    """The figures so far, in a file if asked."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.content: dict[str, Any] = {"about": about(), "sizes": []}
        if path and path.is_file():
            found = json.loads(path.read_text())
            if found["about"] != self.content["about"]:
                msg = f"{path}: must be of this machine and these versions to go on with, choose another -o, got {found['about']}"
                raise SystemExit(msg)
            self.content = found

    def cell(self, slices: int, suffix: str) -> dict[str, Any]:
        """What there is of one size."""
        for cell in self.content["sizes"]:
            if (cell["slices"], cell["suffix"]) == (slices, suffix):
                return cell
        self.content["sizes"].append({"slices": slices, "suffix": suffix, "runs": {}, "inside": [], "skipped": {}})
        self.content["sizes"].sort(key=lambda cell: (SUFFIXES.index(cell["suffix"]), cell["slices"]))
        return self.cell(slices, suffix)

    def save(self) -> None:
        """Write the file, whole or not at all."""
        if self.path:
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps(self.content, indent=1) + "\n")
            part.replace(self.path)


def about() -> dict[str, Any]:
    """The machine, and what ran on it."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    versions = {"python": platform.python_version(), "torch": torch.__version__, "monai": monai.__version__}
    processor = model[0].split(":")[1].strip() if model else platform.machine()
    return {"processor": processor, "cores": len(os.sched_getaffinity(0)), **versions, "weights": weights_sha256(BUNDLE)}


def bench(suite: Suite, cell: dict[str, Any], runs: Mapping[str, int], inside: int) -> None:
    """Run what is missing of one size, round by round."""
    left = missing(cell, runs)
    more = max(inside - len(cell["inside"]), 0)
    if not any(left.values()) and not more:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scan = folder / f"scan{cell['suffix']}"
        make_scan(scan, cell["slices"])
        cell["scan_bytes"] = scan.stat().st_size
        for _ in range(max(left.values(), default=0)):
            for row in [row for row, n in left.items() if n]:
                cell["runs"].setdefault(row, []).append(run_row(row, scan, folder))
                left[row] -= 1
            suite.save()
        check_labels(folder)
        if more:
            nib.save(nib.Nifti1Image(ct_phantom((64, 64, 64), seed=1)[0], np.eye(4)), folder / "small.nii.gz")
            cell["inside"] += measure(["-c", INSIDE, str(scan), str(folder / "small.nii.gz"), name, str(BUNDLE), str(more)])["inside_s"]
            suite.save()


def main() -> None:
    """Print the plan, then a table for each size; write JSON, tables and a plot if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, nargs="+", default=SIZES)
    parser.add_argument("--suffix", nargs="+", default=SUFFIXES, choices=SUFFIXES)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--monai-runs", type=int, default=1, help=f"of MONAI's rows where the scan is no {MAIN[1]} of {MAIN[0]} slices")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, metavar="ROW", help=f"of {', '.join(map(repr, ROWS))}")
    parser.add_argument("--no-inside", action="store_true", help="leave out 'everything but the networks'")
    parser.add_argument("-o", dest="output", type=Path, help="JSON; the table and the plot get its name")
    parser.add_argument("--plan", action="store_true", help="print the plan and do nothing")
    options = parser.parse_args()
    suite, inside = Suite(options.output), 0 if options.no_inside else options.runs
    todo = [(suite.cell(n, suffix), wanted(n, suffix, options)) for suffix in options.suffix for n in options.slices]
    todo.sort(key=lambda one: (one[0]["slices"], one[0]["suffix"]) != MAIN)
    whole_s = 0.0
    for cell, runs in todo:
        left, more = missing(cell, runs), max(inside - len(cell["inside"]), 0)
        took_s = estimate_s(cell, left, more) if any(left.values()) or more else 0.0
        whole_s += took_s
        print(f"{cell['slices']} slices, {cell['suffix']}: about {took_s / 60:.1f} minutes;", *(f"{k} x {v};" for k, v in left.items()))
        for name, why in cell["skipped"].items():
            print(f"    {name} is left out: {why}")
    print(f"about {whole_s / 60:.0f} minutes in all", flush=True)
    if options.plan:
        return
    for cell, runs in todo:
        bench(suite, cell, runs, inside)
        print("", table(cell), sep="\n", flush=True)
    if options.output:
        options.output.with_suffix(".md").write_text(markdown(suite.content))
        if importlib.util.find_spec("matplotlib"):  # to be left out where start-up is measured: MONAI imports it
            plot(suite.content["sizes"], options.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
