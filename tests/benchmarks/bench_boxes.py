"""How long boxes take: of many objects, as a noisy rough network finds them, and of one that is split into many.

Run: ``python tests/benchmarks/bench_boxes.py [--boxes 300 3000 10000] [--runs 3] [--twin]``. Seconds of processor time, the least of all
runs: of the policy without merging, of merging, of the clusters of boxes that overlap, and with ``--twin`` of merging as each box asking
all others, which is done once (minutes for 10,000).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from stseg3d.geometry import Grid
from stseg3d.ops.boxes import merge_boxes, propose_boxes
from stseg3d.ops.fuse import clusters
from stseg3d.ops.policy import BoxPolicy
from tests.ops.twins import slow_merge
from tests.phantoms import Mask, many_objects

FACTOR = 4  # voxels of the image for one of the rough grid, on each axis
MANY = BoxPolicy(margin_fraction=0, margin_rough_voxels=2, merge=False)
SPLIT = replace(MANY, margin_rough_voxels=1, max_downscale=0.5)
FINE = (32, 32, 32)
HEAD = ("objects", "boxes", "merged", "policy", "merging", "clusters", "merging, twin")


def objects(n: int) -> Mask:
    """About as small a rough mask as holds so many."""
    side = 5 * int(np.ceil(n ** (1 / 3))) + 3
    return many_objects((side, side, side), n)[1]


def one(n: int) -> Mask:
    """A rough mask that is full, of a size that is split into about so many boxes."""
    side = round(n ** (1 / 3) * 1.5)
    return np.ones((side, side, side), dtype=bool)


def timed(run: Callable[[], Any], runs: int) -> tuple[Any, float]:
    """What came of it, and the least seconds of processor time."""
    times = []
    for _ in range(runs):
        begin = time.process_time()
        found = run()
        times.append(time.process_time() - begin)
    return found, min(times)


def row(mask: Mask, policy: BoxPolicy, runs: int, *, twin: bool) -> list[str]:
    """The columns after the number of objects."""
    image = Grid(tuple(FACTOR * n for n in mask.shape))
    rough = image.resized(mask.shape)
    proposal, proposing = timed(lambda: propose_boxes(mask, rough, image, FINE, policy), runs)
    longest = policy.longest_box(image, FINE)
    merged, merging = timed(lambda: merge_boxes(proposal.boxes, longest, Counter()), runs)
    _, clustering = timed(lambda: clusters([b.box for b in merged]), runs)
    cells = [f"{len(proposal.boxes)}", f"{len(proposal.boxes) - len(merged)}", *(f"{s:.2f}" for s in (proposing, merging, clustering))]
    if twin:
        (expected, _), seconds = timed(lambda: slow_merge(proposal.boxes, longest), 1)
        assert merged == expected
        cells.append(f"{seconds:.2f}")
    return cells


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, nargs="+", default=[300, 3000, 10000], metavar="N")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--twin", action="store_true", help="merge as each box asking all others, too, and compare")
    options = parser.parse_args()
    head = HEAD if options.twin else HEAD[:-1]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for n in options.boxes:
        for name, mask, policy in ((f"{n}", objects(n), MANY), ("1, split", one(n), SPLIT)):
            print(f"| {' | '.join([name, *row(mask, policy, options.runs, twin=options.twin)])} |", flush=True)


if __name__ == "__main__":
    main()
