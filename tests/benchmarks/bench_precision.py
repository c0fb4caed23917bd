"""Whether labels of bfloat16, or of OpenVINO, are those of PyTorch in float32, and what they save.

Run: ``python tests/benchmarks/bench_precision.py BUNDLE IMAGE_OR_DATASET.json... [--precision bfloat16] [--runtime torch] [--threads 1]``;
of a data set, its validation cases. ``--runtime openvino`` is in float32 unless told otherwise. For each case: Dice of both foregrounds,
voxels that differ, the largest label of each, and processor seconds of both stages, reading included. The mean is over cases in which
either found something. The first run compiles or converts: it is not in the table, and what it took more is told last.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from stseg3d.inference.segment import Segmenter
from stseg3d.volumes import Case, list_cases, load_dataset, open_volume

LEAST = 0.999  # Dice with float32 that a bundle must keep


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Of two masks; two empty ones agree."""
    both = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * np.count_nonzero(one & other) / both if both else 1.0


def run(segmenter: Segmenter, case: Case) -> tuple[np.ndarray, float]:
    """Labels of a case, and processor seconds."""
    volume = open_volume(case.image, channels_last=True)
    start = time.process_time()
    labels = segmenter.inferer.segment(volume, segmenter.network).labels
    return labels, time.process_time() - start


def cases_of(path: Path) -> list[Case]:
    """Validation cases of a data set; else the volumes that are there."""
    return list(load_dataset(path).validation) if path.name == "dataset.json" else list_cases([path])


def main() -> None:
    """Print a row a case, and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("inputs", type=Path, nargs="+")
    parser.add_argument("--precision")
    parser.add_argument("--runtime", default="torch")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    precision = options.precision or ("bfloat16" if options.runtime == "torch" else "float32")
    plain = Segmenter(options.bundle, precision="float32", runtime="torch", device="cpu")
    fast = Segmenter(options.bundle, precision=precision, runtime=options.runtime, device="cpu")
    cases = [case for path in options.inputs for case in cases_of(path)]
    _, first = run(fast, cases[0])
    print("| case | Dice | voxels that differ | largest label | float32 s | fast s |\n|---|---|---|---|---|---|")
    scores, seconds = [], []
    for case in cases:
        (one, own), (other, lower) = run(plain, case), run(fast, case)
        if one.any() or other.any():
            scores.append(dice(one > 0, other > 0))
        seconds.append((own, lower))
        differ, agree = np.count_nonzero(one != other), dice(one > 0, other > 0)
        print(f"| {case.id} | {agree:.5f} | {differ} | {one.max()} and {other.max()} | {own:.2f} | {lower:.2f} |", flush=True)
    own, lower = np.sum(seconds, axis=0)
    least = min(scores, default=1.0)
    print(f"\n{len(cases)} cases, Dice {np.mean(scores):.5f}, at the least {least:.5f}; {own:.1f} s and {lower:.1f} s")
    print(f"the first run took {first - seconds[0][1]:.2f} s more")
    way = f"{precision} by {options.runtime}"
    print(f"{way} {'may be' if least >= LEAST else 'is not'} what this bundle runs in: {LEAST} is asked for in each case")


if __name__ == "__main__":
    main()
