"""A folder of results without a network: images, labels, rough maps and the JSON beside them, small enough to write many."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stseg3d.geometry import Box, Grid
from stseg3d.inference.boxfile import describe_box
from stseg3d.ops.resample import resample
from stseg3d.volumes import ArrayVolume, CanonicalVolume, write_labels
from tests.phantoms import touching_objects

SHAPE = (40, 24, 28)
# Stored towards the back, the left and the top.
AFFINE = np.array([[0, -1.5, 0, 20], [-1.0, 0, 0, 30], [0, 0, 2.0, -10], [0, 0, 0, 1]])
GRID = Grid(SHAPE, AFFINE)
BOXES = [Box((2, 4, 4), (22, 20, 24)), Box((18, 4, 4), (38, 20, 24))]
STAGES = ("open", "rough", "fine", "write")


def write_case(
    out: Path, name: str, *, empty: bool = False, flat: bool = False, images: Path | None = None, seed: int = 0, **notes: Any
) -> Path:
    """One case in ``out`` and its journal, its image in ``images`` (by default beside ``out``); more entries of its JSON by name."""
    images = images or out.parent / "images"
    for folder in (out, images):
        folder.mkdir(parents=True, exist_ok=True)
    mask = touching_objects(SHAPE)[1].astype(np.uint8)
    noise = np.random.default_rng(seed).integers(0, 40, SHAPE, dtype=np.uint8)
    grid, boxes = GRID, [] if empty else BOXES
    if flat:
        mask, noise, grid = mask[:, :, 14:15], noise[:, :, :1], Grid((*SHAPE[:2], 1))
        boxes = [Box((*b.start[:2], 0), (*b.stop[:2], 1)) for b in boxes]
    image = write_labels(noise + 100 * mask, images / f"{name}.nii.gz", grid)
    mask = mask * np.uint8(not empty)
    write_labels(mask, out / f"{name}_seg.nii.gz", grid)
    write_rough(out / f"{name}_rough.nii.gz", mask, grid)
    said = _notes(name, image, mask, grid, boxes) | notes
    (out / f"{name}_seg.json").write_text(json.dumps(said))
    journal(out, {"case": name, "state": "done", "input": stamp(image)})
    return image


def write_rough(path: Path, mask: np.ndarray, grid: Grid) -> None:
    """Along other axes than the image, as networks see it."""
    view = CanonicalVolume(ArrayVolume(mask[None], grid), "RAS")
    shape = tuple(max(n // 3, 1) for n in view.grid.shape)
    rough = resample(view.read(), shape)[0]
    write_labels(np.rint(255 * rough).astype(np.uint8), path, view.grid.resized(shape))


def _notes(name: str, image: Path, mask: np.ndarray, grid: Grid, boxes: Sequence[Box]) -> dict[str, Any]:
    return {
        "case": name,
        "input": str(image),
        "output": f"somewhere/{name}_seg.nii.gz",
        "kind": "labels",
        "boxes_from": "rough network",
        "grid": {"shape": list(grid.shape), "spacing_mm": list(grid.spacing_mm), "orientation": "PLS", "dtype": "uint8"},
        "volume_ml": {"1": 12.5} if mask.any() else {},
        "boxes": [describe_box(b, grid) | {"components": [1], "clipped": False, "tile": False} for b in boxes],
        "dropped": [describe_box(Box((0, 0, 0), (2, 2, 1)), grid) | {"volume_mm3": 9.0, "why": "smaller than min_volume_mm3=20"}],
        "counts": {"found": 2},
        "warnings": [] if mask.any() else ["nothing found by the rough stage"],
        "peak_memory_bytes": 600 * 2**20,
        "bundle": {"name": "balls_segmentation", "version": "0.1.0"},
        "device": "cpu",
        "seconds": dict(zip(STAGES, (0.1, 0.2, 0.6, 0.1), strict=True)) | {"total": 1.0},
        "stage_peak_bytes": {stage: (500 + 25 * n) * 2**20 for n, stage in enumerate(STAGES)},
        "rough": {"path": f"somewhere/{name}_rough.nii.gz", "threshold": 0.5},
    }


def write_labels_folder(folder: Path, names: Sequence[str]) -> Path:
    """Ground truth, one voxel off."""
    folder.mkdir(exist_ok=True)
    for name in names:
        write_labels(np.roll(touching_objects(SHAPE)[1].astype(np.uint8), 1, axis=0), folder / f"{name}.nii.gz", GRID)
    return folder


def journal(out: Path, *entries: dict[str, Any] | str) -> None:
    """More of ``outcomes.jsonl``, a line an entry."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "outcomes.jsonl").open("a") as file:
        file.writelines(e if isinstance(e, str) else json.dumps(e) + "\n" for e in entries)


def stamp(path: Path | str) -> dict[str, Any]:
    """A file as the journal names it."""
    return {"path": str(path), "size_bytes": 1, "mtime_ns": 1}
