"""An image in a file: the header is read on opening, the voxels when first needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.geometry import Box, Grid
from stseg3d.machine.memory import available_bytes
from stseg3d.volumes.inflate import GzipVoxels
from stseg3d.volumes.volume import Array, Volume, box_inside, voxel_dtype

# Smaller reads are made without checking the free memory.
LARGE_BYTES = 1 << 28


class FileVolume:
    """An image in a file.

    Args:
        path: The file, or the folder of a series.
        grid: Its grid.
        stored: Type of the voxels in the file.
        channels: Number of channels.
        load: Returns all voxels as stored, of shape ``(C, *grid.shape)``; or a read-only memory map, which is opened again for each read
            so that only its region is touched.
        inflate: Returns the object that inflates the same voxels in a thread, for compressed files.
        slope_inter: Rescaling of stored values: ``value * slope + inter``.
        header: NIfTI header, which :func:`stseg3d.volumes.write_labels` copies in part.
        about: Further information on the source, as JSON values.

    Raises:
        ValueError: If the voxels are not numbers.
    """

    def __init__(
        self,
        path: Path,
        grid: Grid,
        *,
        stored: np.dtype[Any],
        channels: int,
        load: Callable[[], Array],
        inflate: Callable[[], GzipVoxels] | None = None,
        slope_inter: tuple[float, float] = (1.0, 0.0),
        header: Any = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = path
        self.name = str(path)
        self.grid = grid
        self.channels = channels
        self.header = header
        self.about = dict(about or {})
        self.dtype = scaled_dtype(voxel_dtype(stored, self.name), slope_inter)
        self._slope_inter = slope_inter
        self._load = load
        self._inflate = inflate
        self._array: Array | None = None
        self._coming: GzipVoxels | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Another process opens the file itself: neither voxels nor a memory map are sent.
        return self.__dict__ | {"_array": None, "_coming": None}

    def start_reading(self) -> None:
        """Inflate the voxels of a compressed file in a thread; the next read raises its errors. Does nothing for other files."""
        if self._array is None and self._coming is None and self._inflate is not None:
            self._coming = self._inflate()
            self._coming.start()

    def read(self, box: Box | None = None) -> Array:
        """Voxels in ``box``, as a new array.

        The voxels of a compressed file are kept after a read of a part; a read of everything is returned and not kept.
        """
        box = self._checked(box)
        array = self._stored() if self._array is None else self._array
        if box == self.grid.box and self._array is None and array.flags.writeable:
            return self._true_values(array, copy=False)
        if array.flags.writeable:  # a memory map is not kept: its pages count as memory of this process
            self._array = array
        return self._true_values(array[(slice(None), *box.slices)], copy=True)

    def read_each(self, boxes: Iterable[Box]) -> Iterator[tuple[Box, Array]]:
        """Each box and its voxels, which must not be changed; a compressed file is inflated meanwhile.

        The voxels may come from a file that turns out to be broken: the error is then raised after the last box at the latest. The voxels
        are kept as by :meth:`read`.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If a box is not inside the grid, or the file is broken.
        """
        self.start_reading()
        coming, self._coming = self._coming, None
        if coming is None:
            yield from ((box, self.read(box)) for box in boxes)
            return
        try:
            for box in map(self._checked, boxes):
                coming.wait_for(box)
                yield box, self._true_values(coming.array[(slice(None), *box.slices)], copy=False)
            self._array = coming.wait()
        finally:
            coming.abandon()

    def _stored(self) -> Array:
        coming, self._coming = self._coming, None
        return self._load() if coming is None else coming.wait()

    def _checked(self, box: Box | None) -> Box:
        box = box_inside(self.grid, box, self.name)
        n_bytes = box.voxels * self.channels * self.dtype.itemsize
        if n_bytes > LARGE_BYTES:  # a memory map may be larger than memory
            check_memory(self.path, n_bytes)
        return box

    def _true_values(self, stored: Array, *, copy: bool) -> Array:
        slope, inter = self._slope_inter
        if (slope, inter) == (1.0, 0.0):
            return np.asarray(stored).astype(self.dtype, copy=copy)
        exact: type[np.generic] = np.int64 if self.dtype.kind in "iu" else np.float64
        true: Array = np.empty_like(stored, dtype=self.dtype, subok=False)
        for k in range(stored.shape[-1]):  # slice by slice: the exact type may be eight times as large
            true[..., k] = stored[..., k].astype(exact) * exact(slope) + exact(inter)
        return true


def read_each(volume: Volume, boxes: Iterable[Box]) -> Iterator[tuple[Box, Array]]:
    """Each box and its voxels in a volume, which must not be changed; see :meth:`FileVolume.read_each`."""
    if isinstance(volume, FileVolume):
        return volume.read_each(boxes)
    return ((box, volume.read(box)) for box in boxes)


def scaled_dtype(dtype: np.dtype[Any], slope_inter: tuple[float, float]) -> np.dtype[Any]:
    """Smallest type for all rescaled values of ``dtype``: an integer type if slope and inter are integers, else float32."""
    slope, inter = slope_inter
    if (slope, inter) == (1.0, 0.0):
        return dtype
    if dtype.kind == "f" or slope != round(slope) or inter != round(inter):
        return np.dtype(np.float32)
    ends = [end * int(slope) + int(inter) for end in (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))]
    types = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.int64)
    fitting = (t for t in types if np.iinfo(t).min <= min(ends) and max(ends) <= np.iinfo(t).max)
    return np.dtype(next(fitting, np.float32))


def grid_of_file(shape: tuple[int, ...], affine: NDArray[np.float64], path: Path) -> Grid:
    """Grid of 3 axes for a file of 1 to 3; an axis of one voxel without a direction becomes the normal, 1 mm thick.

    Raises:
        ValueError: If there are no voxels, or the affine is singular or not finite.
    """
    shape = (*shape, 1, 1)[:3]
    affine = np.array(affine, dtype=np.float64)
    flat = [axis for axis in range(3) if shape[axis] == 1 and not affine[:3, axis].any()]
    if len(flat) == 1 and np.isfinite(affine).all():
        a, b = (affine[:3, axis] for axis in range(3) if axis != flat[0])
        normal = np.cross(a, b)
        affine[:3, flat[0]] = normal / (np.linalg.norm(normal) or 1.0)
    try:
        return Grid(shape, affine)
    except ValueError as error:
        msg = f"{path}: {error}"
        raise ValueError(msg) from error


@contextmanager
def library_errors(path: Path, due: str) -> Iterator[None]:
    """Context in which errors of a library become one sentence on the file; those that begin with its path stay as they are.

    For broken files libraries raise many kinds of errors, such as SyntaxError, OverflowError and struct.error.

    Args:
        path: The file.
        due: What it must be, such as ``"a sound TIFF"``.

    Raises:
        ValueError: On any ``Exception``.
    """
    try:
        yield
    except Exception as error:
        text = str(error).strip() or type(error).__name__
        if text.startswith(f"{path}: "):
            raise
        msg = f"{path}: file must be {due}, got: {text.splitlines()[0]}"
        raise ValueError(msg) from error


def check_memory(path: Path, n_bytes: int) -> None:
    """Refuse a file whose voxels do not fit into the memory that is free.

    Raises:
        ValueError: If they do not.
    """
    free = available_bytes()
    if free is not None and n_bytes > free:
        msg = f"{path}: voxels must fit into the free memory of {free / 2**30:.1f} GiB, got {n_bytes / 2**30:.1f} GiB"
        raise ValueError(msg)


def check_capacity(path: Path, needed: int, held: int, ratio: int = 1) -> None:
    """Refuse a file that cannot hold what its header asks for, before anything is allocated.

    Args:
        path: The file.
        needed: Bytes that its header asks for.
        held: Bytes in the file.
        ratio: Largest number of bytes that one byte can unpack to.

    Raises:
        ValueError: If it cannot.
    """
    if needed > held * ratio:
        most = f" compressed, at most {held * ratio}" if ratio > 1 else ""
        msg = f"{path}: file must hold the {needed} bytes its header asks for, got {held}{most}"
        raise ValueError(msg)
