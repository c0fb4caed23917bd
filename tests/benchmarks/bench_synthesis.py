"""What a synthetic CT costs, and what it looks like beside real ones.

Run: ``python tests/benchmarks/bench_synthesis.py DATASET.json [--sheet sheet.png]``. Processor milliseconds, medians over the label maps
under ``"anatomies"`` that have the target: a body deformed and built, a fine crop's box read, a whole body read for the rough network at
3 mm; and, in the same run, one training step of the bundle's fine network on one crop. The sheet shows two scans of each label map above
the images listed for validation.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stseg3d.bundle import find_bundle, load_network
from stseg3d.geometry import Box
from stseg3d.synthesis import OpenAnatomyd, RandSyntheticCTd, anatomy_cases
from stseg3d.training import OpenCased
from stseg3d.training.engine import PrecisionInferer
from stseg3d.volumes import CanonicalVolume, load_dataset, open_volume

CROP_VOXELS = 60


def cpu_ms(function: Callable[[], Any]) -> tuple[float, Any]:
    """Processor milliseconds of a call, and what it gave."""
    start = time.process_time()
    out = function()
    return (time.process_time() - start) * 1000, out


def training_step() -> float:
    """Processor milliseconds of one step of the aorta bundle's fine network on one crop, the first ones left out."""
    network, parser = load_network(find_bundle("aorta_ct_segmentation"), "cpu")
    size = parser.get_parsed_content("fine_stage").size
    run = PrecisionInferer()

    def step() -> None:
        network.fine.zero_grad()
        run(torch.zeros((1, 1, *size)), network.fine).square().mean().backward()

    network.train()
    return statistics.median([cpu_ms(step)[0] for _ in range(5)][2:])


def measure(dataset: Path, target: str) -> dict[str, float]:
    """Medians over label maps."""
    rows: dict[str, list[float]] = {}
    scan = RandSyntheticCTd()
    scan.set_random_state(0)
    cases = [case for case in anatomy_cases(dataset, bodies=2) if case["body"] == 1]
    for case in cases:
        ms, opened = cpu_ms(lambda case=case: OpenAnatomyd(OpenCased(), target)(case))
        where = np.argwhere(opened["case"].label)
        if not len(where):
            continue
        rows.setdefault("a body, deformed and built", []).append(ms)
        centre = where[len(where) // 2]
        box = Box(tuple(centre - CROP_VOXELS // 2), tuple(centre + CROP_VOXELS // 2)).clip(opened["case"].label.shape)
        image = scan(opened)["case"].image
        rows.setdefault(f"a crop of {CROP_VOXELS} voxels an axis", []).append(cpu_ms(lambda image=image, box=box: image.read(box))[0])
        coarse = scan(OpenAnatomyd(OpenCased(), target, spacing_mm=3.0)(case))["case"].image
        rows.setdefault("a whole body at 3 mm", []).append(cpu_ms(coarse.read)[0])
    return {name: statistics.median(values) for name, values in rows.items()} | {"a training step on one crop": training_step()}


def draw(dataset: Path, target: str, path: Path) -> None:
    """Axial slices with the target's outline: real images below, synthetic ones above."""
    import matplotlib.pyplot as plt

    scan = RandSyntheticCTd()
    scan.set_random_state(1)
    opened = [OpenAnatomyd(OpenCased(), target)(case)["case"] for case in anatomy_cases(dataset, bodies=2) if case["body"] == 1]
    shown = [(scan({"case": case})["case"].image, case.label) for _ in range(2) for case in opened if case.label.any()]
    columns = len(shown) // 2
    for case in load_dataset(dataset).validation[:columns]:
        assert case.label is not None
        shown.append((CanonicalVolume(open_volume(case.image)), CanonicalVolume(open_volume(case.label)).read()[0]))
    figure, axes = plt.subplots(3, columns, figsize=(2.6 * columns, 8), layout="constrained", facecolor="black")
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (image, label) in zip(axes.flat, shown, strict=False):
        k = int(np.argmax(label.sum(axis=(0, 1))))
        n, m, _ = image.grid.shape
        aspect = image.grid.spacing_mm[1] / image.grid.spacing_mm[0]
        plane = image.read(Box((0, 0, k), (n, m, k + 1)))[0, :, :, 0]
        axis.imshow(plane.T, origin="lower", cmap="gray", vmin=-160, vmax=340, aspect=aspect)
        axis.contour(label[:, :, k].T, [0.5], colors="#f08c1a", linewidths=0.7)
        axis.set_title("synthetic" if hasattr(image, "scan") else "real", color="white", fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the table; draw the sheet if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--target", default="aorta")
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| what | CPU ms |\n|---|---|")
    for name, ms in measure(options.dataset, options.target).items():
        print(f"| {name} | {ms:.0f} |")
    if options.sheet:
        draw(options.dataset, options.target, options.sheet)


if __name__ == "__main__":
    main()
