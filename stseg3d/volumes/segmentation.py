"""Segmentations of 3D Slicer, ``.seg.nrrd``: label maps with named segments, in layers if they overlap, cropped to their content.

The format: https://slicer.readthedocs.io/en/latest/developer_guide/modules/segmentations.html
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stseg3d.geometry import Grid
from stseg3d.volumes.file import FileVolume, check_memory, grid_of_file
from stseg3d.volumes.sitk import image_reader, itk_affine, read_image, stored_dtype
from stseg3d.volumes.volume import Array, ArrayVolume, Volume

logger = logging.getLogger(__name__)

SEGMENTATION_SUFFIXES = (".seg.nrrd", ".seg.nhdr")
SEGMENT_KEY = re.compile(r"Segment(\d+)_(\w+)")
# A cropped label map may be off its image's voxels by this fraction of a voxel, as in Grid.is_close.
TOLERANCE_VOXELS = 1e-2


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a file: its ``stored`` value in ``layer``, and the ``label`` that it is read as."""

    name: str
    layer: int
    stored: int
    label: int


def open_segmentation(path: Path, *, overlap: bool = False) -> FileVolume:
    """Label map in a segmentation of 3D Slicer, on the file's own grid.

    Labels are the file's own if each segment has a different one. Otherwise segments are numbered from 1, in the order of the file, and a
    warning lists the numbers.

    Args:
        path: The file.
        overlap: Whether segments may overlap; a voxel has then the label of the last of its segments.

    Raises:
        ValueError: If the file is broken or not a binary label map; on reading, if segments overlap.
    """
    reader = image_reader(path)
    about = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    kind = about.get("Segmentation_SourceRepresentation", "Binary labelmap")
    if kind.casefold() != "binary labelmap":
        msg = f"{path}: segmentation must be a binary label map, got {kind!r}: export it from 3D Slicer as one"
        raise ValueError(msg)
    layers, size = reader.GetNumberOfComponents(), reader.GetSize()
    if len(size) != 3:
        msg = f"{path}: segmentation must have three space axes, got {len(size)} of {tuple(size)}"
        raise ValueError(msg)
    grid = grid_of_file(tuple(size), itk_affine(reader), path)
    stored = stored_dtype(reader.GetPixelID(), path)
    segments = _segments(about, layers, path)
    labels = np.min_scalar_type(max(segment.label for segment in segments)) if layers > 1 else stored
    check_memory(path, grid.box.voxels * (layers * stored.itemsize + labels.itemsize))
    load = partial(_load, path, grid.shape, labels, segments if layers > 1 else [], overlap)
    return FileVolume(path, grid, stored=labels, channels=1, load=load)


def paste_onto(volume: Volume, grid: Grid) -> Volume:
    """Label map that was cropped from ``grid``, extended to all of it with 0.

    3D Slicer saves only the part that holds segments, or a single voxel if there are none.

    Raises:
        ValueError: If its voxels are not those of ``grid``, in any order of axes, or all labels lie outside.
    """
    if volume.grid.is_close(grid):
        return volume
    whole = np.zeros((1, *grid.shape), volume.dtype)
    if volume.grid.box.voxels > 1:
        labels, start = _turned(volume, grid)
        inside = [(max(a, 0), max(min(a + n, m), 0)) for a, n, m in zip(start, labels.shape, grid.shape, strict=True)]
        part = labels[tuple(slice(max(low - a, 0), max(high - a, 0)) for a, (low, high) in zip(start, inside, strict=True))]
        _check_inside(volume, int(np.count_nonzero(labels)), int(np.count_nonzero(part)))
        whole[0][tuple(slice(low, low + n) for (low, _), n in zip(inside, part.shape, strict=True))] = part
    return ArrayVolume(whole, grid, name=volume.name)


def _check_inside(volume: Volume, voxels: int, inside: int) -> None:
    if voxels and not inside:
        msg = f"{volume.name}: segmentation must lie inside its image, got all {voxels} labelled voxels outside"
        raise ValueError(msg)
    if inside < voxels:
        logger.warning("%s: %d of %d labelled voxels lie outside the image and are left out", volume.name, voxels - inside, voxels)


def _turned(volume: Volume, grid: Grid) -> tuple[Array, list[int]]:
    """Labels in the axes of ``grid``, and the voxel at which they begin."""
    # Maps voxels of the label map to those of the grid: integers, and each axis along one axis of the grid.
    matrix = np.linalg.inv(grid.affine) @ volume.grid.affine
    whole = np.rint(matrix)
    corners = np.array([[*(np.array(c) - 0.5), 1] for c in volume.grid.box.corners()])
    off = float(np.abs(corners @ (matrix - whole).T).max())
    turn = whole[:3, :3]
    if off > TOLERANCE_VOXELS or not np.array_equal(np.abs(turn).sum(axis=0), [1, 1, 1]) or abs(np.linalg.det(turn)) != 1:
        msg = f"{volume.name}: segmentation must lie on the voxels of its image, got {volume.grid.shape} of {_rounded(volume.grid)} mm"
        msg += f" for {grid.shape} of {_rounded(grid)} mm, {off:.2g} voxels off"
        raise ValueError(msg)
    order = [int(np.argmax(np.abs(row))) for row in turn]
    flips = [turn[axis, source] < 0 for axis, source in enumerate(order)]
    labels = volume.read()[0].transpose(order)[tuple(slice(None, None, -1 if flip else None) for flip in flips)]
    start = [int(whole[axis, 3]) - (n - 1 if flip else 0) for axis, (n, flip) in enumerate(zip(labels.shape, flips, strict=True))]
    return labels, start


def _rounded(grid: Grid) -> tuple[float, ...]:
    return tuple(round(s, 4) for s in grid.spacing_mm)


def _segments(about: Mapping[str, str], layers: int, path: Path) -> list[Segment]:
    """Segments in the header; without labels and layers, as in older files, each has a layer of its own."""
    found: dict[int, dict[str, str]] = {}
    for key, value in about.items():
        if match := SEGMENT_KEY.fullmatch(key):
            found.setdefault(int(match[1]), {})[match[2]] = value.strip()
    try:
        places = [(int(s.get("Layer", number if layers > 1 else 0)), int(s.get("LabelValue", 1))) for number, s in sorted(found.items())]
    except ValueError as error:
        msg = f"{path}: segments must have whole numbers as layer and label, got: {error}"
        raise ValueError(msg) from error
    if layers > 1 and (not places or not all(0 <= layer < layers and stored > 0 for layer, stored in places)):
        msg = f"{path}: header must say in which of {layers} layers its segments are, got {places or 'no segments'}"
        raise ValueError(msg)
    names = [found[number].get("Name", found[number].get("ID", f"segment {number}")) for number in sorted(found)]
    own = len({stored for _, stored in places}) == len(places)
    if not own and layers > 1:
        listed = ", ".join(f"{k} {name}" for k, name in enumerate(names, start=1))
        logger.warning("%s: segments share label values, and are numbered in the order of the file: %s", path, listed)
    numbered = zip(names, places, strict=True)
    return [Segment(name, layer, stored, stored if own else k) for k, (name, (layer, stored)) in enumerate(numbered, start=1)]


def _load(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], segments: Sequence[Segment], overlap: bool) -> Array:
    """Labels of shape ``(1, *shape)``; those of the only layer if no segments are given."""
    import SimpleITK

    stored: Array = SimpleITK.GetArrayFromImage(read_image(path))
    labels = _merged(path, stored, dtype, segments, overlap) if segments else stored
    return labels.T.reshape(1, *shape, order="A")


def _merged(path: Path, layers: Array, dtype: np.dtype[Any], segments: Sequence[Segment], overlap: bool) -> Array:
    """One label map of all layers, ``(k, j, i)``."""
    labels = np.zeros(layers.shape[:-1], dtype)
    for segment in segments:
        where = layers[..., segment.layer] == segment.stored
        if not overlap and (both := labels[where]).any():
            other = next(s.name for s in segments if s.label == both[both > 0][0])
            msg = f"{path}: segments must not overlap, got {np.count_nonzero(both)} voxels of {segment.name!r} in {other!r}"
            msg += " or others: make one of them, or export them apart, in 3D Slicer"
            raise ValueError(msg)
        labels[where] = segment.label
    return labels
