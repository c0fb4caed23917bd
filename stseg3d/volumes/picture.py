"""Pictures: PNG, TIFF and JPEG as volumes of depth 1."""

from __future__ import annotations

from pathlib import Path

from stseg3d.geometry import Grid
from stseg3d.volumes.file import FileVolume
from stseg3d.volumes.sitk import open_sitk

JPEG_END = b"\xff\xd9"


def open_picture(path: Path) -> FileVolume:
    """Picture as a volume of depth 1, its axes (x, y, 1), colours (and alpha) as channels; the pages of a TIFF are slices.

    A picture has no patient: its axes are taken as the world's, and the spacing is the file's, 1 mm if it gives none.

    Raises:
        ValueError: If the file is broken.
    """
    if path.suffix.lower() in (".jpg", ".jpeg") and JPEG_END not in path.read_bytes()[-1024:]:  # ITK greys the rest in silence
        msg = f"{path}: file must be a whole JPEG, got one without an end mark"
        raise ValueError(msg)
    volume = open_sitk(path)
    volume.grid = Grid(volume.grid.shape, spacing_mm=volume.grid.spacing_mm)
    return volume
