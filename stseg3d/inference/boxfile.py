"""Boxes in files: JSON or CSV, in voxels of the image or in world millimetres."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stseg3d.geometry import Box, Grid

AXES = "ijk"
WORLD = "xyz"
# In voxels or mm; numpy does not hold larger whole numbers exactly.
MAX_COORDINATE = 1e15


def read_boxes(path: Path, grid: Grid) -> list[Box]:
    """Boxes of a file, in voxels of ``grid``, not clipped to it.

    JSON: ``{"boxes": [{"start": [i, j, k], "stop": [i, j, k]}, ...]}`` in voxels (half-open), or ``start_mm`` and ``stop_mm``, two
    opposite corners in world mm (RAS+); a list alone will do, and so will the JSON that ``stseg3d segment`` writes.
    CSV: columns ``start_i, start_j, start_k, stop_i, stop_j, stop_k`` or ``start_x_mm ... stop_z_mm``.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it is neither JSON nor CSV, or an entry is not a box; the message names the entry.
    """
    if not path.is_file():
        msg = f"{path}: file must exist, got none"
        raise FileNotFoundError(msg)
    entries = _entries(path)
    return [_box(entry, grid, f"{path}: box {n}") for n, entry in enumerate(entries, start=1)]


def describe_box(box: Box, grid: Grid) -> dict[str, list[Any]]:
    """The box in voxels and as two opposite corners in world mm (RAS+), for :func:`read_boxes`."""
    start_mm, stop_mm = grid.world_mm([box.start, box.stop]).round(3).tolist()
    return {"start": list(box.start), "stop": list(box.stop), "start_mm": start_mm, "stop_mm": stop_mm}


def _entries(path: Path) -> Sequence[Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets put a byte order mark before the first name
        content = _rows(text) if path.suffix.lower() == ".csv" else json.loads(text)
    except (ValueError, OSError, RecursionError, csv.Error) as error:
        msg = f"{path}: file must be JSON or CSV, got: {error}"
        raise ValueError(msg) from error
    entries = content.get("boxes") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        msg = f'{path}: file must hold a list of boxes, alone or under "boxes", got {type(entries).__name__}'
        raise ValueError(msg)
    return entries


def _rows(text: str) -> list[dict[str, Any]]:
    rows = list(csv.DictReader(text.splitlines(), skipinitialspace=True))
    voxels = {end: [f"{end}_{a}" for a in AXES] for end in ("start", "stop")}
    world = {f"{end}_mm": [f"{end}_{a}_mm" for a in WORLD] for end in ("start", "stop")}
    return [{end: [row.get(c) for c in columns] for end, columns in (world if "start_x_mm" in row else voxels).items()} for row in rows]


def _box(entry: Mapping[str, Any], grid: Grid, what: str) -> Box:
    ends = ("start", "stop") if "start" in entry else ("start_mm", "stop_mm")
    try:
        corners = np.array([[float(v) for v in entry[end]] for end in ends])
        if corners.shape != (2, grid.ndim) or not (abs(corners) < MAX_COORDINATE).all():
            raise ValueError  # one message for everything that can be wrong with an entry
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        msg = f"{what} must have start and stop (or start_mm and stop_mm) of {grid.ndim} numbers, got {dict(entry)}"
        raise ValueError(msg) from error
    if ends[0] == "start_mm":
        # All corners of the world box: the image's axes may lie obliquely to the world's.
        world = np.array([[corners[bit][axis] for axis, bit in enumerate(bits)] for bits in np.ndindex(*(2,) * grid.ndim)])
        edges = grid.edges(world)
        corners = np.array([np.floor(edges.min(axis=0) + 1e-3), np.ceil(edges.max(axis=0) - 1e-3)])
    if (corners[1] <= corners[0]).any() or (corners != np.round(corners)).any():
        msg = f"{what} must have whole voxels with start before stop on each axis, got {dict(entry)}"
        raise ValueError(msg)
    return Box(tuple(corners[0].astype(int)), tuple(corners[1].astype(int)))
