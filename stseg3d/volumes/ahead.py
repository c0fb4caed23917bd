"""A case whose voxels are read before there is anybody to work on it: while a program still loads its libraries."""

from __future__ import annotations

import os
from pathlib import Path

from stseg3d.machine.memory import has_room
from stseg3d.volumes.cases import Case
from stseg3d.volumes.file import FileVolume
from stseg3d.volumes.open import open_volume


class CaseAhead:
    """The open image of a case, its voxels on their way, for whoever is the first to work on a case.

    Args:
        case: The case.
        volume: Its image, opened with ``channels_last``.
        then: The file as it was before.
    """

    def __init__(self, case: Case, volume: FileVolume, then: tuple[int, ...]) -> None:
        self._case, self._then = case, then
        self._volume: FileVolume | None = volume

    def take(self, case: Case) -> FileVolume | None:
        """The image, once, if it is that of this case and the file is as it was; else None, and the voxels are let go.

        Raises:
            OSError: If the file is not there any more.
        """
        volume, self._volume = self._volume, None
        return volume if case == self._case and _state(case.image) == self._then else None


def begin_reading(case: Case) -> CaseAhead | None:
    """Have a thread read a ``.nii.gz``.

    Returns:
        None for any other file, where memory is short, and where something is wrong with the file: whoever opens it will tell.
    """
    if not case.image.name.lower().endswith(".nii.gz"):
        return None
    try:
        then = _state(case.image)
        volume = open_volume(case.image, channels_last=True)
    except (OSError, ValueError):
        return None
    held = volume.grid.box.voxels * volume.channels * volume.dtype.itemsize
    if not isinstance(volume, FileVolume) or not has_room(held):
        return None
    volume.start_reading()
    return CaseAhead(case, volume, then)


def _state(path: Path) -> tuple[int, ...]:
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
