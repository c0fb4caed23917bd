"""The protocol that all images share, the in-memory image, and the view along the world's axes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from stseg3d.geometry import Box, Grid

Array = NDArray[Any]

# From LPS+ (ITK, DICOM) to RAS+ (NIfTI, MONAI) world space and back.
LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@runtime_checkable
class Volume(Protocol):
    """An image whose voxels are read box by box, with 3 space axes in the order of its file.

    Every :meth:`read` returns a new array that the caller may change and torch may wrap.
    """

    @property
    def grid(self) -> Grid:
        """Shape and affine (RAS+, mm)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the voxels as read: an integer type, or float32."""

    @property
    def channels(self) -> int:
        """Number of channels."""

    @property
    def name(self) -> str:
        """Path or ``"array"``, for messages."""

    def read(self, box: Box | None = None) -> Array:
        """Voxels in ``box`` (by default all), of shape ``(C, *box.shape)``.

        Raises:
            ValueError: If the box is not inside the grid, or the file turns out to be broken.
        """


def voxel_dtype(dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    """Type in which voxels stored as ``dtype`` are read: integers as they are, bool as uint8, real numbers as float32.

    Raises:
        ValueError: If the voxels are something else (complex numbers, colour structures).
    """
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind == "f":
        return np.dtype(np.float32)
    if dtype.kind not in "iu":
        msg = f"{name}: voxels must be integers or real numbers, got {dtype}"
        raise ValueError(msg)
    return dtype.newbyteorder("=")


def box_inside(grid: Grid, box: Box | None, name: str) -> Box:
    """The box (by default that of all voxels), after checking that it lies inside the grid.

    Raises:
        ValueError: If it is not.
    """
    if box is None:
        return grid.box
    if box.ndim != grid.ndim or box.clip(grid.shape) != box:
        msg = f"{name}: box must be inside the image of shape {grid.shape}, got start={box.start} stop={box.stop}"
        raise ValueError(msg)
    return box


@dataclass(frozen=True, eq=False)
class ArrayVolume:
    """An image in memory; the array is neither copied nor changed.

    Args:
        array: Voxels, of shape ``(C, *grid.shape)``.
        grid: Grid of the voxels; any number of axes.
        name: Name in messages.
        owner: Object that owns the array's memory and must live as long.

    Raises:
        ValueError: If the shapes differ, or the voxels are not numbers.
    """

    array: Array
    grid: Grid
    name: str = "array"
    owner: object = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.array.shape[1:] != self.grid.shape or self.array.shape[0] < 1:
            msg = f"{self.name}: array must be of shape (channels, {', '.join(map(str, self.grid.shape))}), got {self.array.shape}"
            raise ValueError(msg)
        voxel_dtype(self.array.dtype, self.name)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the voxels as read."""
        return voxel_dtype(self.array.dtype, self.name)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.array.shape[0])

    def read(self, box: Box | None = None) -> Array:
        """Copy of the voxels in ``box``."""
        box = box_inside(self.grid, box, self.name)
        return self.array[(slice(None), *box.slices)].astype(self.dtype)


class CanonicalVolume:
    """An image seen with its axes along the world's: transposed and flipped on reading, never resampled.

    Args:
        volume: The image.
        axcodes: Directions of the view's axes, such as ``"RAS"``.

    Raises:
        ValueError: If ``axcodes`` does not name each world axis once.
    """

    def __init__(self, volume: Volume, axcodes: str = "RAS") -> None:
        self.volume = volume
        self.order, self.flips = volume.grid.canonical(axcodes)
        self.grid = volume.grid.view(self.order, self.flips)
        self.dtype = volume.dtype
        self.channels = volume.channels
        self.name = volume.name

    def source_box(self, box: Box) -> Box:
        """Box of the same voxels in the axes of the source."""
        spans = zip(box.start, box.stop, self.grid.shape, self.flips, strict=True)
        turned = [(n - b, n - a) if flip else (a, b) for a, b, n, flip in spans]
        return Box(*zip(*(turned[self.order.index(axis)] for axis in range(box.ndim)), strict=True))

    def view_box(self, box: Box) -> Box:
        """Box of the same voxels in the view, from the axes of the source; the inverse of :meth:`source_box`."""
        spans = [(box.start[source], box.stop[source], self.grid.shape[axis]) for axis, source in enumerate(self.order)]
        turned = [(n - b, n - a) if flip else (a, b) for (a, b, n), flip in zip(spans, self.flips, strict=True)]
        return Box(*zip(*turned, strict=True))

    def read(self, box: Box | None = None) -> Array:
        """Voxels in ``box`` of the view; only these are read from the source."""
        source = None if box is None else self.source_box(box_inside(self.grid, box, self.name))
        array = self.view(self.volume.read(source))
        return array.copy(order="K") if any(self.flips) else array  # torch wraps no array with negative strides

    def view(self, array: Array) -> Array:
        """An array in the source's axes, ``(..., *S)``, seen in the view's; not copied."""
        return self._flipped(self._transposed(array, self.order), self.flips)

    def restore(self, array: Array) -> Array:
        """An array in the view's axes, ``(..., *S)``, seen in the source's; not copied."""
        back = tuple(self.order.index(axis) for axis in range(len(self.order)))
        return self._transposed(self._flipped(array, self.flips), back)

    @staticmethod
    def _transposed(array: Array, order: tuple[int, ...]) -> Array:
        leading = array.ndim - len(order)
        return array.transpose(*range(leading), *(leading + axis for axis in order))

    @staticmethod
    def _flipped(array: Array, flips: tuple[bool, ...]) -> Array:
        return array[(..., *(slice(None, None, -1 if flip else None) for flip in flips))]
