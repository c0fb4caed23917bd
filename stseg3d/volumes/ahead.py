"""Reading the voxels of the first case while the program still loads its libraries."""

from __future__ import annotations

import os
from pathlib import Path

from stseg3d.machine.memory import has_room
from stseg3d.volumes.cases import Case
from stseg3d.volumes.file import FileVolume
from stseg3d.volumes.open import open_volume


class CaseAhead:
    """Open image of a case whose voxels are being read, for the first worker that takes a case.

    Args:
        case: The case.
        volume: Its image, opened with ``channels_last``.
        state: State of the file before it was opened.
    """

    def __init__(self, case: Case, volume: FileVolume, state: tuple[int, ...]) -> None:
        self._case, self._state = case, state
        self._volume: FileVolume | None = volume

    def take(self, case: Case) -> FileVolume | None:
        """The image, on the first call, if it belongs to this case and the file has not changed; else None, and it is dropped.

        Raises:
            OSError: If the file no longer exists.
        """
        volume, self._volume = self._volume, None
        return volume if case == self._case and _state(case.images[0]) == self._state else None


def begin_reading(case: Case) -> CaseAhead | None:
    """Have a thread read a ``.nii.gz``.

    Returns:
        None for any other file and for several, if memory is short, or if the file is broken: opening it later will raise the error.
    """
    path = case.images[0]
    if len(case.images) > 1 or not path.name.lower().endswith(".nii.gz"):
        return None
    try:
        state = _state(path)
        volume = open_volume(path, channels_last=True)
    except (OSError, ValueError):
        return None
    held = volume.grid.box.voxels * volume.channels * volume.dtype.itemsize
    if not isinstance(volume, FileVolume) or not has_room(held):
        return None
    volume.start_reading()
    return CaseAhead(case, volume, state)


def _state(path: Path) -> tuple[int, ...]:
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
