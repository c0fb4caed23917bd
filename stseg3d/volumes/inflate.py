"""Voxels of a ``.nii.gz``: inflated once, front to back, and checked to the last byte; inflated parts can be read meanwhile."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from threading import Condition, Thread
from typing import Any

import numpy as np

from stseg3d.geometry import Box
from stseg3d.volumes.volume import Array

try:  # the same checks in two thirds of the time, see GzipVoxels; not on every processor
    from isal import isal_zlib

    inflater: Any = isal_zlib
except ImportError:
    inflater = zlib

# Bytes read, and bytes inflated, at a time: bounds memory, and what is copied when a member ends, of which there may be thousands.
READ_BYTES, PIECE_BYTES = 1 << 16, 1 << 20
# A file may be twice as long as its voxels plus this; a longer one is a decompression bomb.
SLACK_BYTES = 1 << 24


class GzipVoxels:
    """Voxels in a gzip file, from a given byte on.

    Args:
        path: The file.
        offset: Byte of the inflated file at which the voxels begin.
        stored: Type of the voxels.
        shape: Shape ``(*S, C)``; the first axis is the fastest.

    Raises:
        OSError: By all methods that inflate or wait, if the file cannot be read.
        ValueError: By the same, if it is broken, too short or far too long, as far as inflated.
    """

    # Why not SimpleITK or ITK (2.5, 5.4): both silently pad a truncated file, check no checksum, and for a.nii.gz read the voxels of a.nii
    # if it exists. tests/benchmarks/bench_reading.py, 512 x 512 x 100 int16: this 0.12 s with isal and 0.18 s
    # with zlib, 52 MiB; SimpleITK and itk 0.15 s, nibabel 0.27 s, all 100 MiB; MONAI's LoadImage 0.68 s.

    def __init__(self, path: Path, offset: int, stored: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._path, self._offset, self._shape = path, offset, shape
        self._bytes = np.empty(int(np.prod(shape)) * stored.itemsize, dtype=np.uint8)
        self._voxels = self._bytes.view(stored).reshape(shape, order="F")
        self._news = Condition()
        self._arrived = 0
        self._ended = self._unwanted = False
        self._error: Exception | None = None

    @property
    def array(self) -> Array:
        """All voxels, of shape ``(C, *S)``; those not waited for are undefined."""
        return np.moveaxis(self._voxels, -1, 0)

    def inflate(self) -> Array:
        """All voxels, of shape ``(C, *S)``."""
        size, total = len(self._bytes), 0
        most = 2 * (self._offset + size) + SLACK_BYTES
        try:
            for piece in _inflated(self._path):
                start, total = total - self._offset, total + len(piece)
                first = max(-start, 0)
                room = self._bytes[max(start, 0) : max(total - self._offset, 0)]
                room[:] = np.frombuffer(piece, np.uint8)[first : first + len(room)]
                if total > most:
                    due = self._offset + size
                    msg = f"{self._path}: file must end soon after the {due} bytes its header asks for, got more than {most}"
                    raise ValueError(msg)
                self._set_arrived(total - self._offset)
                if self._unwanted:
                    break
        except (inflater.error, EOFError) as error:
            msg = f"{self._path}: file must be sound gzip data, got: {error}"
            raise ValueError(msg) from error
        if total < self._offset + size and not self._unwanted:
            msg = f"{self._path}: file must hold the {self._offset + size} bytes its header asks for, got {total}"
            raise ValueError(msg)
        return self.array

    def start(self) -> None:
        """Call :meth:`inflate` in a thread; the next wait raises its errors."""
        Thread(target=self._run, name=f"inflating {self._path.name}", daemon=True).start()

    def wait_for(self, box: Box) -> None:
        """Wait until the voxels of a box are inflated, but not yet checked."""
        last = (*(n - 1 for n in box.stop), self._shape[-1] - 1)
        needed = (int(np.ravel_multi_index(last, self._shape, order="F")) + 1) * self._voxels.itemsize
        self._wait(lambda: self._arrived >= needed or self._ended)

    def wait(self) -> Array:
        """All voxels, of shape ``(C, *S)``, after the whole file is checked."""
        self._wait(lambda: self._ended)
        return self.array

    def abandon(self) -> None:
        """Stop the thread: the voxels are no longer needed."""
        self._unwanted = True

    def _run(self) -> None:
        try:
            self.inflate()
        except Exception as error:  # raised in the thread that waits
            self._error = error
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _set_arrived(self, arrived: int) -> None:
        with self._news:
            self._arrived = arrived
            self._news.notify_all()

    def _wait(self, done: Any) -> None:
        with self._news:
            self._news.wait_for(done)
        if self._error is not None:
            raise self._error


def first_bytes(path: Path, count: int) -> bytes:
    """The first bytes in a gzip file, ``count`` or as many as it holds."""
    found = b""
    for piece in _inflated(path, count):
        found += piece
        if len(found) >= count:
            break
    return found[:count]


def _inflated(path: Path, most: int | None = None) -> Iterator[bytes]:
    """Bytes of all members of a gzip file, piece by piece of ``most`` bytes; trailing zeros are padding."""
    with path.open("rb") as file:
        member = inflater.decompressobj(wbits=31)
        while packed := file.read(READ_BYTES):
            # A member that ended would keep all zeros behind it, and copy them each time.
            if member.eof and (packed := packed.lstrip(b"\0")):
                member = inflater.decompressobj(wbits=31)
            while packed:
                yield member.decompress(packed, most or PIECE_BYTES)
                packed = member.unconsumed_tail
                if member.eof and (packed := member.unused_data.lstrip(b"\0")):
                    member = inflater.decompressobj(wbits=31)
        if not member.eof:
            msg = "it ends before its end mark"
            raise EOFError(msg)
