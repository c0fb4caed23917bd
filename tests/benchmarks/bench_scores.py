"""Rough network alone, two stages, and two stages with boxes from ground truth, on a data set's validation cases.

Run: ``python tests/benchmarks/bench_scores.py vertebrae_mr_segmentation PATH/vertebrae_mr/dataset.json``. Scores are those of the binary
foreground at full resolution. An object (a label value, or the whole foreground) counts as found where at least half of it is covered.
The checkpoint was chosen on the validation cases, so these are validation scores, not test scores.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stseg3d.inference import MaskProposer
from stseg3d.inference.segment import Segmenter, peak_memory_bytes
from stseg3d.metrics import confusion, dice, precision, recall
from stseg3d.ops import resample
from stseg3d.volumes import ArrayVolume, Case, Volume, load_dataset, open_volume

Labels = NDArray[np.integer]


def rough_only(segmenter: Segmenter, volume: Volume, label: Volume) -> Labels:
    """The rough network's foreground, upsampled."""
    del label
    return segmenter.inferer.rough_only(volume, segmenter.network)


def two_stages(segmenter: Segmenter, volume: Volume, label: Volume) -> Labels:
    """The bundle as it is."""
    del label
    return segmenter.inferer.segment(volume, segmenter.network).labels


def true_boxes(segmenter: Segmenter, volume: Volume, label: Volume) -> Labels:
    """The fine network in boxes that the same policy makes from ground truth on the rough grid: the ceiling of the rough stage."""
    inferer = segmenter.inferer
    view = inferer.view(label)
    on_rough_grid = resample(view.read() > 0, inferer.rough.size) >= 0.5
    mask = ArrayVolume(on_rough_grid, view.grid.resized(inferer.rough.size), label.name)
    return inferer.segment(volume, segmenter.network, MaskProposer(mask, inferer.policy, inferer.fine.size)).labels


WAYS: dict[str, Callable[[Segmenter, Volume, Volume], Labels]] = {
    "rough only": rough_only,
    "two stages": two_stages,
    "boxes from ground truth": true_boxes,
}


def score(segmenter: Segmenter, case: Case, way: str) -> list[float]:
    """Dice, precision, recall, objects found, objects there, objects claimed, seconds."""
    assert case.label is not None
    volume, truth = open_volume(case.image), open_volume(case.label)
    label = truth.read()[0]
    volume.read()  # the file's reading is not what is compared
    start = time.perf_counter()
    found = WAYS[way](segmenter, volume, truth)
    seconds = time.perf_counter() - start
    counts = confusion(found, label)
    objects = [int(i) for i in np.unique(label) if i]
    covered = sum(bool((found[label == i] > 0).mean() >= 0.5) for i in objects)
    return [dice(counts), precision(counts), recall(counts), covered, len(objects), int(found.max()), seconds]


def main() -> None:
    """Print one row a case and way, and the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("dataset", type=Path)
    options = parser.parse_args()
    segmenter = Segmenter(options.bundle, device="cpu")
    cases = load_dataset(options.dataset).validation
    print("| way | case | Dice | precision | recall | found | claimed | seconds |\n|---|---|---|---|---|---|---|---|")
    for way in WAYS:
        rows = np.array([score(segmenter, case, way) for case in cases])
        for name, row in [*zip([c.id for c in cases], rows, strict=True), ("**mean**", rows.mean(axis=0))]:
            d, p, r, covered, there, claimed, seconds = row
            print(f"| {way} | {name} | {d:.3f} | {p:.3f} | {r:.3f} | {covered:g} of {there:g} | {claimed:g} | {seconds:.2f} |")
    print(f"\npeak memory of this process: {peak_memory_bytes() / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
