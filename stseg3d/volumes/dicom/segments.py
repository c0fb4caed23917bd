"""DICOM segmentations as label maps: a frame of bits for each segment and place, or label maps (DICOM PS3.3, A.51 and C.8.20)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from stseg3d.geometry import Grid
from stseg3d.machine.tables import abbreviated
from stseg3d.volumes.dicom.elements import PLAIN, frames_of, integer, mapped, read_elements, sop_class, sound
from stseg3d.volumes.dicom.frames import MAX_SKEW, Frame, read_frames, value
from stseg3d.volumes.dicom.kinds import SEGMENTATION, kind_without_image
from stseg3d.volumes.dicom.stack import MAX_SIDEWAYS, MAX_UNEVEN
from stseg3d.volumes.file import FileVolume, check_memory, grid_of_file
from stseg3d.volumes.volume import LPS_RAS, Array


def segmentation_at(path: Path) -> Path | None:
    """DICOM segmentation at a path: the file, or the only one in a folder; None if there is none.

    Raises:
        ValueError: If a folder holds several.
    """
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path] if path.is_file() else []
    found = [p for p in files if kind_without_image(sop_class(p)) == SEGMENTATION]
    if len(found) > 1:
        msg = f"{path}: folder must hold one DICOM segmentation, got {len(found)}: {abbreviated(p.name for p in found)}"
        raise ValueError(msg)
    return found[0] if found else None


def open_segments(path: Path, grid: Grid, *, overlap: bool = False) -> FileVolume:
    """Label map of a DICOM segmentation, from its first frame to its last; each segment's label is its number.

    Args:
        path: The file.
        grid: Grid of the image, whose slices the frames lie on; where no frame is, there is background.
        overlap: Whether segments may overlap; a voxel has then the label of the last of its segments.

    Raises:
        ValueError: If the file is broken, holds fractions, or a frame is not on a slice of the image; on reading, if segments overlap.
    """
    content = read_elements(path)
    frames = read_frames(path, content)
    with sound(path):
        segments = _segments(path, content, frames, overlap)
    slices, affine = _placed(path, frames, grid)
    dtype = np.min_scalar_type(max(segments.names))
    own = grid_of_file((integer(content, "Columns"), integer(content, "Rows"), max(slices) + 1), affine, path)
    check_memory(path, own.box.voxels * dtype.itemsize)
    return FileVolume(path, own, stored=dtype, channels=1, load=partial(segments.read, slices, own.shape, dtype))


@dataclass(frozen=True)
class _Segments:
    """Segments in a file.

    Args:
        path: The file.
        numbers: Segment of each frame; 0 if its values are numbers of segments.
        names: Name of each segment by number.
        padding: Value that is background, as 0 is.
        overlap: Whether segments may overlap.
    """

    path: Path
    numbers: list[int]
    names: dict[int, str]
    padding: int
    overlap: bool

    def read(self, slices: Sequence[int], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Labels of shape ``(1, *shape)``, the frames in these slices of the last axis."""
        labels = np.zeros(shape[::-1], dtype)
        with sound(self.path):
            for k, number, pixels in zip(slices, self.numbers, _frame_pixels(self.path, shape[1::-1]), strict=True):
                self._add(labels[k], np.where(pixels > 0, dtype.type(number), 0) if number else pixels)
        return labels.T[None]

    def _add(self, plane: Array, values: Array) -> None:
        where = (values > 0) & (values != self.padding)
        if lost := {*np.unique(values[where]).tolist()} - self.names.keys():
            msg = f"{self.path}: voxels must be of the segments {sorted(self.names)} that the file describes, got {sorted(lost)[:3]}"
            raise ValueError(msg)
        if not self.overlap and (both := where & (plane > 0)).any():
            a, b = (self.names[int(found[both][0])] for found in (values, plane))
            msg = f"{self.path}: segments must not overlap, got {np.count_nonzero(both)} voxels of {a!r} in {b!r}: "
            msg += "make one of them, or export them apart"
            raise ValueError(msg)
        plane[where] = values[where]


def _frame_pixels(path: Path, shape: tuple[int, ...]) -> Iterator[Array]:
    """Values of each frame, ``(rows, columns)``."""
    import pydicom
    from pydicom.pixels import iter_pixels

    with mapped(path) as everything:
        content = pydicom.dcmread(everything)
    voxels = prod(shape)
    packed_bits = content.original_encoding[1] and content.BitsAllocated == 1 and content.file_meta.TransferSyntaxUID in PLAIN
    if not packed_bits or voxels % 8 == 0:
        yield from iter_pixels(content, raw=True)
        return
    packed = np.frombuffer(content.PixelData, np.uint8)  # pydicom 3.0 begins each frame with a new byte, DICOM (PS3.5, 8.1.1) does not
    for start in range(0, voxels * frames_of(content), voxels):
        bits = np.unpackbits(packed[start // 8 : (start + voxels + 7) // 8], bitorder="little")
        yield bits[start % 8 :][:voxels].reshape(shape)


def _segments(path: Path, content: Any, frames: Sequence[Frame], overlap: bool) -> _Segments:
    kind = str(content.get("SegmentationType", ""))
    if kind not in {"BINARY", "LABELMAP"}:
        msg = f"{path}: SegmentationType must be BINARY or LABELMAP, got {kind!r}: export it as one of them"
        raise ValueError(msg)
    names = {int(item.SegmentNumber): str(item.get("SegmentLabel", "")) for item in content.get("SegmentSequence") or []}
    binary = kind == "BINARY"
    told = [value(frame.groups, "SegmentIdentificationSequence", "ReferencedSegmentNumber") if binary else 0 for frame in frames]
    if not names or (binary and not {*told} <= names.keys() - {0}):
        msg = f"{path}: frames must be of the segments {sorted(names)} that the file describes, got {sorted({*told}, key=str)[:9]}"
        raise ValueError(msg)
    padding = 0 if binary else int(content.get("PixelPaddingValue") or 0)
    return _Segments(path, [int(number) for number in told], names, padding, overlap)


def _placed(path: Path, frames: Sequence[Frame], grid: Grid) -> tuple[list[int], Array]:
    """Slice of each frame from the first one, and the affine, RAS+, of their volume."""
    first = frames[0]
    normal = np.cross(*first.axes)
    steps = (LPS_RAS @ grid.affine)[:3]
    axis = int(np.argmax(np.abs(normal @ steps[:, :3]) / grid.spacing_mm))
    step = grid.spacing_mm[axis]
    away = np.array([frame.origin for frame in frames]) - first.origin
    start = float(np.dot(np.array(first.origin) - steps[:, 3], normal)) / step
    along = start + away @ normal / step
    numbers = np.rint(along)
    sideways = float(np.linalg.norm(away - np.outer(away @ normal, normal), axis=1).max()) / min(first.spacing_mm)
    skew = max(float(np.abs(frame.axes - first.axes).max()) for frame in frames)
    uneven = max(abs(s / t - 1) for frame in frames for s, t in zip(frame.spacing_mm, first.spacing_mm, strict=True))
    if (off := float(np.abs(along - numbers).max())) > MAX_UNEVEN or sideways > MAX_SIDEWAYS or max(skew, uneven) > MAX_SKEW:
        msg = (
            f"{path}: frames must lie on the slices of the image, {step:.3f} mm apart and above each other, got some {off:.2g} slices off, "
        )
        msg += f"{sideways:.2g} pixels sideways, or turned or scaled by {max(skew, uneven):.2g}"
        raise ValueError(msg)
    if np.ptp(numbers) >= grid.shape[axis] + len(frames):
        msg = f"{path}: frames must lie inside the image of {grid.shape[axis]} slices, got some {np.ptp(numbers):g} slices apart"
        raise ValueError(msg)
    affine = np.eye(4)
    affine[:3, :2] = first.axes.T * first.spacing_mm
    affine[:3, 2] = normal * step
    affine[:3, 3] = first.origin + normal * step * (numbers.min() - start)
    return [int(number) for number in numbers - numbers.min()], LPS_RAS @ affine
