"""One box round a long object against a chain of boxes along it, with the same networks.

Run: ``python tests/benchmarks/bench_chain.py aorta_ct_segmentation PATH/dataset.json --upsample 512``. Each validation case is segmented
as it is, and again with its voxels multiplied to ``N x N x N`` (linear interpolation of the image; the result is brought back and compared
on the label's own grid). Columns: boxes; voxels of the image that lie in boxes, as a share of all; voxels that are read, overlaps counted
each time; multiply-adds of both stages; Dice; recall, and that in the distal third of the object (the third of its slices with the lowest
last coordinate); and how much of the object's part that the rough stage touched (its true voxels within one rough voxel of a kept
component) lies in boxes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stseg3d.bundle import find_bundle, load_network
from stseg3d.compare.ways import multiply_adds
from stseg3d.geometry import Grid
from stseg3d.inference import SegmentThenSegmentInferer
from stseg3d.inference.propose import NetworkProposer
from stseg3d.networks import RoughFineNet
from stseg3d.ops import box_coverage
from stseg3d.ops.resample import resample, resample_region, slabs
from stseg3d.volumes import ArrayVolume, Case, Volume, load_dataset, open_volume, read_classes

WAYS = {"single box": {"policy#max_spacing_mm": None}, "chain": {}}
HEAD = ("case", "grid", "way", "boxes", "in boxes", "read", "GMACs", "Dice", "recall", "distal recall", "touched part in boxes")


def upsampled(volume: Volume, n: int) -> ArrayVolume:
    """The image on ``n`` voxels an axis, int16, made slab by slab."""
    shape = (n,) * volume.grid.ndim
    whole = volume.read()
    out = np.empty((1, *shape), dtype=np.int16)
    for box in slabs(shape):
        out[(slice(None), *box.slices)] = np.rint(resample_region(whole, Grid(shape).box, box))
    return ArrayVolume(out, volume.grid.resized(shape), f"{volume.name} on {n} voxels an axis")


def distal(truth: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The third of the object's slices with the lowest last coordinate."""
    slices = np.flatnonzero(truth.any(axis=(0, 1)))
    out = truth.copy()
    out[..., slices[0] + len(slices) // 3 :] = False
    return out


def rows(bundle: Path, case: Case, n: int | None) -> Iterator[list[str]]:
    """One row a way."""
    assert case.label is not None
    volume, label = open_volume(case.image), open_volume(case.label)
    truth = read_classes(label) > 0
    image = volume if n is None else upsampled(volume, n)
    for way, overrides in WAYS.items():
        network, parser = load_network(bundle, "cpu", overrides=overrides)
        yield [case.id, " x ".join(map(str, image.grid.shape)), way, *measured(network, parser.get_parsed_content("inferer"), image, truth)]


def measured(network: RoughFineNet, inferer: SegmentThenSegmentInferer, image: Volume, truth: NDArray[np.bool_]) -> list[str]:
    """The columns after the way's name; the label is along the axes of the image."""
    found = inferer.segment(image, network)
    boxes = [b.box for b in found.boxes]
    labels = resample((found.labels > 0)[None], truth.shape)[0] > 0.5
    view = inferer.view(image)
    rough = NetworkProposer(network.rough, inferer.rough, inferer.policy, inferer.fine.size, inferer.execution.precision).propose(view)
    assert rough.ids is not None
    kept = ndimage.binary_dilation(rough.ids > 0, np.ones((3, 3, 3)))
    touched = truth & view.restore(resample(kept[None], view.view(truth).shape, "nearest")[0])
    macs = multiply_adds(network.rough, inferer.rough, inferer.image.channels, inferer.rough.shape_of(view.grid))
    macs += found.counts["crops"] * multiply_adds(network.fine, inferer.fine, inferer.image.channels)
    whole = np.ones(truth.shape, dtype=np.uint8)
    scaled = [image.grid.map(box, image.grid.resized(truth.shape)) for box in boxes]
    end = distal(truth)
    hit = labels & truth
    return [
        f"{len(boxes)}",
        f"{box_coverage(whole, scaled):.1%}",
        f"{sum(b.voxels for b in boxes) / image.grid.box.voxels:.1%}",
        f"{macs / 1e9:.0f}",
        f"{2 * hit.sum() / max(labels.sum() + truth.sum(), 1):.3f}",
        f"{hit.sum() / truth.sum():.3f}",
        f"{(labels & end).sum() / end.sum():.3f}",
        f"{box_coverage(touched.astype(np.uint8), scaled):.4f}",
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--upsample", type=int, metavar="N", help="and each case on N voxels an axis")
    options = parser.parse_args()
    bundle = find_bundle(options.bundle)
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for case in load_dataset(options.dataset).validation:
        for n in (None, options.upsample) if options.upsample else (None,):
            for cells in rows(bundle, case, n):
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
