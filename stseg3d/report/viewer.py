"""Data of the viewer in the page: small copies of image, labels and rough map as NIfTI, and boxes as meshes."""

from __future__ import annotations

import gzip
import struct
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import product
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from stseg3d.geometry import Box, Grid
from stseg3d.ops.resample import resample
from stseg3d.report.panel import BOX_COLOUR, LABEL_COLOURS, ROUGH_COLOUR
from stseg3d.report.views import best_slices, choose_window, grey, slice_at
from stseg3d.volumes import Volume

# NiiVue 0.69.0 (https://github.com/niivue/niivue, BSD-2-Clause): dist/niivue.umd.js of the npm package @niivue/niivue, only gzipped, with
# its licences beside it. It is included because no package on PyPI has a script for plain pages: ipyniivue's 5 MB export only the Jupyter
# widget, and need some 25 packages. Nothing is fetched when a report is made or opened.
NIIVUE = "niivue-0.69.0.umd.js.gz"
# Base64 is a third longer than the bytes.
BASE64 = 4 / 3
# Compressed bytes per voxel of image and labels: 0.62 for a synthetic CT (tests/benchmarks/bench_report.py), nearly 1 for noise.
BYTES_A_VOXEL = 0.9
CONTEXT = 0.15  # of the object's extent, on each side
LEVELS = 255
BEAM_WIDTH = 0.004  # of a box's edges, as a fraction of the diagonal of the part shown


def niivue() -> str:
    """Script of the viewer, gzipped, in base64."""
    return _base64(resources.files("stseg3d.report").joinpath("page", NIIVUE).read_bytes())


@dataclass(frozen=True)
class Scene:
    """Content of the viewer for a case.

    Args:
        volume: The image.
        labels: Labels on its grid.
        boxes: Boxes on its grid.
        rough: Foreground probability of the rough stage, 0 to 1, on its own grid.
        threshold: Threshold of the rough mask.
    """

    volume: Volume
    labels: NDArray[np.integer]
    boxes: Sequence[Box]
    rough: Volume | None = None
    threshold: float = 0.5


def scene_data(scene: Scene, limit_bytes: float) -> dict[str, Any]:
    """Scene as JSON values: NIfTI files and meshes in base64, window, colours.

    Args:
        scene: Content to show.
        limit_bytes: Approximate limit of the JSON; copies are as fine as it allows, and no finer than the image.
    """
    where = _shown(scene)
    grid = scene.volume.grid.crop(where)
    shape = small_shape(grid, int(limit_bytes / BASE64 / BYTES_A_VOXEL))
    small = grid.resized(shape)
    image = resample(grey(scene.volume, where)[None], shape)[0]
    labels = resample(scene.labels[where.slices][None], shape, "nearest")[0]
    window = choose_window([slice_at(scene.volume, axis, (where.start[axis] + where.stop[axis]) // 2) for axis in _long_axes(where)])
    diagonal = float(np.linalg.norm(np.array(grid.shape) * grid.spacing_mm))
    data = {
        "image": _image_file(image, small),
        "labels": _file(labels.astype(np.min_scalar_type(int(labels.max(initial=0)))), small),
        "window": [window.low, window.high],
        "flat": min(shape) == 1,
        "shape": list(shape),
        "thickness": float(max(small.spacing_mm)),
        "labelCount": int(labels.max(initial=0)),
        "labelColours": _colours(),
        "focus": _focus(scene),
        "boxColour": [round(255 * c) for c in BOX_COLOUR],
        "roughColour": [round(255 * c) for c in ROUGH_COLOUR],
    }
    if scene.boxes:
        corners = [np.array([scene.volume.grid.world_mm([c])[0] for c in product(*zip(b.start, b.stop, strict=True))]) for b in scene.boxes]
        data |= {"edges": _base64(edge_mesh(corners, BEAM_WIDTH * diagonal)), "boxes": [c.round(2).tolist() for c in corners]}
    if scene.rough is not None:
        data["rough"] = _file((scene.rough.read()[0] >= scene.threshold).astype(np.uint8), scene.rough.grid)
    return data


def _shown(scene: Scene) -> Box:
    """Box of labels and boxes with some context; the whole image without either."""
    box = scene.volume.grid.box
    around = list(scene.boxes)
    if scene.labels.any():
        spans = [np.flatnonzero(scene.labels.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
        around.append(Box(tuple(int(s[0]) for s in spans), tuple(int(s[-1]) + 1 for s in spans)))
    if not around:
        return box
    whole = around[0]
    for other in around[1:]:
        whole = whole.union(other)
    return whole.grow(tuple(int(CONTEXT * n) + 1 for n in whole.shape)).clip(box.shape)


def small_shape(grid: Grid, voxels: int) -> tuple[int, ...]:
    """Shape of about this many voxels at most over the same extent: the finest axes are reduced first, none is refined.

    Example:
        >>> small_shape(Grid((400, 400, 50), spacing_mm=(0.5, 0.5, 4)), 400_000)
        (89, 89, 50)
    """
    spacing = np.array(grid.spacing_mm)
    extent = spacing * grid.shape
    low, high = float(spacing.min()), float(extent.max())
    for _ in range(40):  # bisection of the spacing that fits
        middle = (low + high) / 2
        fits = np.prod(np.ceil(extent / np.maximum(spacing, middle) - 1e-9)) <= voxels
        low, high = (low, middle) if fits else (middle, high)
    if np.prod(grid.shape) <= voxels:
        return grid.shape
    return tuple(max(int(n), 1) for n in np.ceil(extent / np.maximum(spacing, high) - 1e-9))


def _long_axes(box: Box) -> list[int]:
    return [axis for axis, n in enumerate(box.shape) if n > 1] or [0] if min(box.shape) > 1 else [int(np.argmin(box.shape))]


def _focus(scene: Scene) -> list[float]:
    """Start of the crosshair, in mm: the centre of the voxel where the slices with most of the object meet."""
    at = best_slices(scene.labels, scene.boxes)
    point: list[float] = scene.volume.grid.world_mm([[i + 0.5 for i in at]])[0].tolist()
    return point


def _colours() -> list[list[int]]:
    """Red, green and blue of the labels from 1 on, repeated for further labels."""
    return [[round(255 * c) for c in colour] for colour in LABEL_COLOURS]


def _image_file(image: NDArray[np.float32], grid: Grid) -> str:
    """NIfTI file of the image in 256 levels between extreme percentiles, with the scale to restore values."""
    low, high = (float(v) for v in np.percentile(image, (0.05, 99.95)))
    step = max(high - low, 1e-6) / LEVELS
    return _file(np.rint(np.clip((image - low) / step, 0, LEVELS)).astype(np.uint8), grid, step, low)


def _file(array: NDArray[Any], grid: Grid, slope: float = 1.0, intercept: float = 0.0) -> str:
    image = nib.Nifti1Image(array, grid.affine)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(slope, intercept)
    raw = bytearray(image.header.binaryblock + bytes(4))
    struct.pack_into("<fff", raw, 108, 352, slope, intercept)  # nibabel sets the scale only in its own writer
    return _base64(gzip.compress(bytes(raw) + array.tobytes(order="F"), 9, mtime=0))


def _base64(content: bytes) -> str:
    return b64encode(content).decode("ascii")


# --- boxes -------------------------------------------------------------------

# Corners are numbered in binary, the last axis the lowest bit; each face is counter-clockwise, seen from outside.
FACES = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
EDGES = tuple((a, a | bit) for bit in (1, 2, 4) for a in range(8) if not a & bit)


def edge_mesh(boxes: Sequence[NDArray[np.float64]], width_mm: float) -> bytes:
    """MZ3 file with a square beam for each of the 12 edges of boxes, given by their corners ``(8, 3)`` in mm."""
    beams = [_beam(corners, edge, width_mm) for corners in boxes for edge in EDGES]
    triangles = np.array([(f[0], f[i], f[i + 1]) for f in FACES for i in (1, 2)])
    return _mz3(np.concatenate(beams), np.concatenate([triangles + 8 * n for n in range(len(beams))]))


def _beam(corners: NDArray[np.float64], edge: tuple[int, int], width_mm: float) -> NDArray[np.float64]:
    a, b = corners[edge[0]], corners[edge[1]]
    sides = [corners[bit] - corners[0] for bit in (4, 2, 1)]
    units = np.array([side / np.linalg.norm(side) for side in sides])
    along = {1: 2, 2: 1, 4: 0}[edge[0] ^ edge[1]]
    half = width_mm / 2
    # Longer than the edge by half a width at both ends, to fill the corners.
    shifts = [[half if bit else -half for bit in bits] for bits in product((0, 1), repeat=3)]
    return np.array([(b if shift[along] > 0 else a) + np.array(shift) @ units for shift in shifts])


def _mz3(vertices: NDArray[np.float64], faces: NDArray[np.integer]) -> bytes:
    # https://github.com/neurolabusc/surf-ice/tree/master/mz3: magic, attributes (1 faces, 2 vertices), counts, bytes to skip.
    head = struct.pack("<HHIII", 23117, 3, len(faces), len(vertices), 0)
    return gzip.compress(head + faces.astype("<i4").tobytes() + vertices.astype("<f4").tobytes(), 9, mtime=0)
