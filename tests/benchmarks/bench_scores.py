"""Rough network alone, two stages, and two stages with boxes from ground truth, on a data set's validation cases.

Run: ``python tests/benchmarks/bench_scores.py vertebrae_mr_segmentation PATH/vertebrae_mr/dataset.json``. Scores are those of the
foreground at full resolution, means over cases with their 95 % bootstrap intervals; an object is found where one of the prediction has an
IoU above 0.1 with it. The checkpoint was chosen on the validation cases, so these are validation scores, not test scores.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from stseg3d.bundle import find_bundle
from stseg3d.compare.measure import score_found
from stseg3d.compare.ways import Contestant
from stseg3d.evaluate import Interval, bootstrap_interval
from stseg3d.machine.memory import peak_memory_bytes
from stseg3d.metrics import METRICS
from stseg3d.volumes import ArrayVolume, Case, load_dataset, open_volume, read_label

WAYS = {"rough_only": "rough only", "two_stage": "two stages", "true_boxes": "boxes from ground truth"}
COLUMNS = ("dice", "precision", "recall", "hd95_mm", "nsd")
HEAD = ("way", *(METRICS[name].heading for name in COLUMNS), "objects found", "false", "seconds")


def score(contestant: Contestant, case: Case, way: str) -> dict[str, float]:
    """Every metric of one case, and its seconds."""
    assert case.label is not None
    volume = open_volume(case.image, channels_last=True)
    truth = read_label(case.label, volume, case.label_values)
    volume.read()  # the file's reading is not what is compared
    found = contestant.segment(way, volume, ArrayVolume(truth.classes[None], volume.grid))
    return score_found(contestant, found, truth, volume.grid.spacing_mm) | {"seconds": found.seconds["total"]}


def row(name: str, cases: Sequence[dict[str, float]]) -> list[str]:
    """A line of the table: means over cases, objects of all together."""
    intervals = [bootstrap_interval([case[column] for case in cases]) for column in COLUMNS]
    found, missed, false = (int(sum(case[f"objects_{what}"] for case in cases)) for what in ("found", "missed", "false"))
    seconds = sum(case["seconds"] for case in cases) / len(cases)
    return [name, *map(shown, intervals), f"{found} of {found + missed}", f"{false}", f"{seconds:.2f}"]


def shown(interval: Interval) -> str:
    """The mean, with its interval where there is one."""
    return f"{interval.mean:.3f}" + (f" ({interval.low:.3f} to {interval.high:.3f})" if interval.n > 1 else "")


def main() -> None:
    """Print one row a way; if asked, one of each case, too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--cases", action="store_true", help="a row of each case, too")
    options = parser.parse_args()
    contestant = Contestant(find_bundle(options.bundle))
    cases = [case for case in load_dataset(options.dataset).validation if case.label is not None]
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for way, name in WAYS.items():
        scores = {case.id: score(contestant, case, way) for case in cases}
        rows = [row(f"{name}, {case}", [values]) for case, values in scores.items()] if options.cases else []
        for line in [*rows, row(f"**{name}**", list(scores.values()))]:
            print(f"| {' | '.join(line)} |", flush=True)
    print(f"\n{len(cases)} cases; peak memory of this process: {peak_memory_bytes() / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
