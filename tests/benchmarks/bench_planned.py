"""The planner alone against a shipped bundle's plan, trained for the same time and scored on cases that chose nothing.

Run: ``python tests/benchmarks/bench_planned.py PATH/vertebrae_mr/dataset.json -o OUT --minutes 12 --bundle vertebrae_mr_segmentation``.
The data set's training list is divided by ``stseg3d plan`` into training and validation, which chooses the checkpoint; its validation list
is what is scored. Nothing is set by hand for ``planned``. ``shipped`` is a copy of the bundle without its weights, with settings that were
made by hand for its own data, trained from nothing on the same lists. A run that was stopped goes on: what is finished is kept.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from stseg3d.bundle import WEIGHTS, find_bundle
from stseg3d.evaluate import bootstrap_interval

WAYS = ("planned", "shipped")


def stseg3d(*arguments: object) -> str:
    """Standard output of a command."""
    command = [sys.executable, "-m", "stseg3d", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def training_list(dataset: Path, out: Path) -> Path:
    """The data set without its validation list."""
    content = json.loads(dataset.read_text(encoding="utf-8-sig"))
    for part in ("training", "validation"):
        for case in content.get(part, []):
            case |= {key: str((dataset.parent / case[key]).resolve()) for key in ("image", "label")}
    (out / "all.json").write_text(json.dumps(content), encoding="utf-8")
    path = out / "dataset.json"
    path.write_text(json.dumps({**content, "validation": [], "test": []}), encoding="utf-8")
    return path


def prepare(way: str, out: Path, dataset: Path, bundle: str | None) -> Path:
    """Folder of a bundle without weights."""
    folder = out / way
    if way == "planned":
        if not folder.exists():
            print(stseg3d("plan", dataset, "-o", folder), flush=True)
    elif not folder.exists():
        assert bundle is not None
        shutil.copytree(find_bundle(bundle), folder)
        (folder / WEIGHTS).unlink(missing_ok=True)
    return folder


def trained(folder: Path, lists: Path, minutes: float) -> float:
    """Train a bundle if it has no weights; the seconds that it took."""
    note = folder / "training_seconds.json"
    if not (folder / WEIGHTS).is_file():
        start = time.monotonic()
        print(stseg3d("train", folder, "--data", lists, "--budget", f"{minutes}min", "--seed", 0), flush=True)
        note.write_text(json.dumps(time.monotonic() - start), encoding="utf-8")
    return float(json.loads(note.read_text(encoding="utf-8")))


def scored(folder: Path, out: Path, *, per_class: bool) -> dict[str, list[float]]:
    """Dice of each case of the data set's own validation list, by class."""
    predictions, table = folder / "predictions", folder / "scores.json"
    if not table.is_file():
        stseg3d("segment", out / "scored.json", "--bundle", folder, "-o", predictions)
        stseg3d("evaluate", predictions, out / "all.json", "-o", table, *(["--per-class"] if per_class else []))
    found: dict[str, list[float]] = {}
    for row in json.loads(table.read_text(encoding="utf-8"))["cases"]:
        found.setdefault(row["class"], []).append(row["dice"])
    return found


def main() -> None:
    """Print a row a way and class."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--bundle", help="shipped bundle to compare with (default: none)")
    parser.add_argument("--per-class", action="store_true")
    options = parser.parse_args()
    out = options.output.resolve()
    out.mkdir(parents=True, exist_ok=True)
    dataset = training_list(options.dataset, out)
    held_out = json.loads((out / "all.json").read_text(encoding="utf-8"))["validation"]
    (out / "scored.json").write_text(json.dumps(held_out), encoding="utf-8")
    lists = prepare("planned", out, dataset, None) / "data" / "dataset.json"
    print("| way | class | Dice (95 % interval) | lowest | cases | training, min |\n|---|---|---|---|---|---|")
    for way in WAYS if options.bundle else WAYS[:1]:
        folder = prepare(way, out, dataset, options.bundle)
        seconds = trained(folder, lists, options.minutes)
        for name, values in scored(folder, out, per_class=options.per_class).items():
            interval = bootstrap_interval(values)
            shown = f"{interval.mean:.3f} ({interval.low:.3f} to {interval.high:.3f})"
            print(f"| {way} | {name} | {shown} | {min(values):.3f} | {len(values)} | {seconds / 60:.1f} |", flush=True)


if __name__ == "__main__":
    main()
